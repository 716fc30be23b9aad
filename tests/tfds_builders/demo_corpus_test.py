"""The rendered corpus: deterministic, ordered in time, true to its captions."""

import collections
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from ncl_jax.video import decode
from tfds_builders.demo import captions, corpus, render, scenes, words

SIZE = corpus.Size(train=12, val=4, test=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("corpus") / "demo"
    corpus.write_corpus(path, SIZE, seed=0)
    return path


@pytest.fixture(scope="module")
def many() -> list[list[scenes.Scene]]:
    return scenes.draw_groups(np.random.default_rng(1), 400, set())


def _contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_same_seed_same_bytes_other_seed_other_bytes(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    corpus.write_corpus(tmp_path / "again", SIZE, seed=0)
    assert _contents(tmp_path / "again") == _contents(folder)
    corpus.write_corpus(tmp_path / "other", SIZE, seed=1)
    other = _contents(tmp_path / "other")
    assert other.keys() == _contents(folder).keys()
    assert sum(other[name] == data for name, data in _contents(folder).items()) <= 3  # the lists


def test_what_a_killed_rendering_left_is_removed(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "demo.partial-0123abcd" / "videos").mkdir(parents=True)
    corpus.write_corpus(tmp_path / "demo", SIZE, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_the_layout_is_complete(folder: pathlib.Path) -> None:
    sentences = json.loads((folder / "captions.json").read_text())
    lists = {s: (folder / f"{s}_list.txt").read_text().split() for s in SIZE._fields}
    assert {split: len(clips) for split, clips in lists.items()} == SIZE._asdict()
    clips = sorted(clip for split in lists.values() for clip in split)
    assert len(set(clips)) == sum(SIZE)
    assert sorted(sentences) == clips == sorted(p.stem for p in (folder / "videos").iterdir())
    assert all(5 <= len(set(texts)) == len(texts) <= 10 for texts in sentences.values())


def test_order_pairs_hold_the_same_frames_in_another_order() -> None:
    groups = [group for group in corpus._draw(SIZE, 0) if group[0].scene.paired]
    for split, count in SIZE._asdict().items():
        assert 2 * sum(group[0].split == split for group in groups) >= count / 2
    for first, second in groups:
        assert first.split == second.split
        one, two = (render.render(member.scene)[::8] for member in (first, second))
        sampled = [collections.Counter(frame.tobytes() for frame in clip) for clip in (one, two)]
        assert sampled[0] == sampled[1]
        assert not np.array_equal(one, two)
        np.testing.assert_array_equal(one[:2], two[2:])


def test_decoded_order_pairs_differ_by_compression_only(folder: pathlib.Path) -> None:
    pairs = [line.split() for line in (folder / "order_pairs.txt").read_text().splitlines()]
    assert pairs
    for names in pairs:
        one, two = (
            np.array(decode.decode_frames(folder / "videos" / f"{name}.mp4").frames, float)
            for name in names
        )
        assert one.shape == (4, 64, 64, 3)
        exchanged = np.abs(one - np.concatenate([two[2:], two[:2]])).mean()
        assert exchanged < 4
        assert np.abs(one - two).mean() > exchanged


def test_every_caption_of_an_order_pair_states_the_order(many: list[list[scenes.Scene]]) -> None:
    rng = np.random.default_rng(2)
    said = r"\b(first|then|after|afterwards|before|starts?|later)\b"
    for first, second in (group for group in many if group[0].paired):
        texts = [captions.write_captions(scene, rng) for scene in (first, second)]
        assert all(re.search(said, text) for text in texts[0] + texts[1])
        assert not set(texts[0]) & set(texts[1])


def test_the_stated_order_is_the_shown_order() -> None:
    ball = scenes.Thing("circle", "red", "striped", 1)
    events = (scenes.Event("grow", ""), scenes.Event("left", "slowly"))
    scene = scenes.Scene("sand", ball, events, look=0, paired=True)
    rng = np.random.default_rng(0)
    texts = [text for _ in range(20) for text in captions.write_captions(scene, rng)]
    grow, left = (
        "|".join(words.inflect(p, form) for p in words.MOTIONS[motion] for form in ("s", "ing"))
        for motion in ("grow", "left")
    )
    for text in texts:
        grows, moves = (re.search(rf"\b({verb})\b", text) for verb in (grow, left))
        assert grows, text
        assert moves, text
        assert grows.start() < moves.start(), text


def test_captions_are_short_varied_and_true(many: list[list[scenes.Scene]]) -> None:
    rng = np.random.default_rng(3)
    lengths = []
    for scene in (scene for group in many for scene in group):
        texts = captions.write_captions(scene, rng)
        lengths += [len(text.split()) for text in texts]
        colours = set(words.COLOURS[scene.thing.colour])
        others = {w for c in scenes.COLOURS for w in words.COLOURS[c]} - colours
        assert not [text for text in texts if others & set(text.split())]
        assert all(any(colour in text for colour in colours) for text in texts)
        assert not [text for text in texts if "~" in text or "{" in text or "  " in text]
    assert max(lengths) <= 24
    assert 8 <= np.mean(lengths) <= 16


def test_scenes_do_not_repeat_and_have_near_neighbours(many: list[list[scenes.Scene]]) -> None:
    keys = [(s.background, s.thing, s.events) for group in many for s in group]
    assert len(set(keys)) == len(keys) == 400
    for base, *others in (group for group in many if not group[0].paired):
        for other in others:
            same_thing = base.thing == other.thing
            shared = (base.background == other.background, same_thing, base.events == other.events)
            assert sum(shared) >= 1


@pytest.mark.parametrize(
    ("verb", "finite", "gerund"),
    [
        ("float~", "floats", "floating"),
        ("glide~ to the left", "glides to the left", "gliding to the left"),
        ("get~ bigger", "gets bigger", "getting bigger"),
    ],
)
def test_verbs_bend(verb: str, finite: str, gerund: str) -> None:
    assert words.inflect(verb, "s") == finite
    assert words.inflect(verb, "ing") == gerund


def _center(frame: np.ndarray) -> tuple[float, float]:
    """Middle of the red pixels, (x, y)."""
    red = (frame[..., 0] > 190) & (frame[..., 1:].max(axis=-1) < 80)
    rows, columns = np.nonzero(red)
    return columns.mean(), rows.mean()


def _red_frames(motion: str, speed: str = "") -> np.ndarray:
    square = scenes.Thing("square", "red", "flat", 1)
    event = scenes.Event(motion, speed)
    scene = scenes.Scene("night", square, (event, event), look=3, paired=False)
    return render.render(scene)[: render.HALF : render.FPS]


@pytest.mark.parametrize(
    ("motion", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)]
)
def test_travels_show_in_the_sampled_frames(motion: str, axis: int, sign: int) -> None:
    for speed, step in (("slowly", 18), ("quickly", 40)):
        places = np.array([_center(frame) for frame in _red_frames(motion, speed)])
        np.testing.assert_allclose(np.diff(places[:, axis]) * sign, step, atol=0.6)
        np.testing.assert_allclose(np.diff(places[:, 1 - axis]), 0, atol=0.6)


def test_other_motions_show_in_the_sampled_frames() -> None:
    areas = {
        motion: [int((frame[..., 0] > 190).sum()) for frame in _red_frames(motion)]
        for motion in ("grow", "shrink")
    }
    assert areas["grow"][1] > 3 * areas["grow"][0]
    assert areas["shrink"][0] > 3 * areas["shrink"][1]


def test_a_changed_size_is_rendered_anew_and_foreign_files_are_left_alone(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    own = tmp_path / "demo"
    shutil.copytree(folder, own)
    finished: list[int] = []
    corpus.write_corpus(own, SIZE, 0, finished.append)
    assert finished == []  # it is there
    smaller = corpus.Size(4, 2, 2)
    corpus.write_corpus(own, smaller, 0, finished.append)
    assert sum(finished) == 8
    assert len(list((own / "videos").iterdir())) == 8
    (own / "corpus.json").unlink()
    with pytest.raises(FileExistsError, match="got other files"):
        corpus.write_corpus(own, SIZE)
    assert len(list((own / "videos").iterdir())) == 8


def test_a_broken_off_rendering_leaves_nothing_that_looks_complete(tmp_path: pathlib.Path) -> None:
    def stop(clips: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.write_corpus(tmp_path / "demo", SIZE, 0, stop)
    assert list(tmp_path.iterdir()) == []
