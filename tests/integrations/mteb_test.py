"""Models and normalisers in mteb, by mteb itself: its numbers must be ours.

Needs requirements-mteb.txt; without it every test here is skipped.
"""

import copy
import json
import pathlib

import av
import numpy as np
import pytest

import ncl_jax
from ncl_jax import metrics
from ncl_jax.errors import InputError
from ncl_jax.normalizers import Auto, Bank, Csls, Dsl, Ncl, Plain, QbNorm, SinkhornTest
from ncl_jax.pretrained import random_weights

mteb = pytest.importorskip("mteb", reason="needs requirements-mteb.txt: mteb")
datasets = pytest.importorskip("datasets", reason="needs requirements-mteb.txt: datasets")

from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.models.model_meta import ScoringFunction  # noqa: E402

from ncl_jax.integrations.mteb import (  # noqa: E402
    Encoder,
    NormalizedSearch,
    TransductiveSearch,
    training_bank,
)
from ncl_jax.integrations.mteb.videos import videos  # noqa: E402

CLIPS, CAPTIONS = {"train": 30, "test": 12}, 2
KS = (1, 5, 10)


def write_clip(path, seed):
    """Two seconds of two colours."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for colour in rng.integers(0, 256, (2, 3)):
            for _ in range(5):
                picture = np.full((32, 32, 3), colour, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def metadata(category, modalities):
    return mteb.TaskMetadata(
        name=f"Tiny{category.upper()}", description="Two colours and words.",
        dataset={"path": "tiny/none", "revision": "1"}, type="Any2AnyRetrieval", category=category,
        modalities=modalities, eval_splits=["test"], eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )  # fmt: skip


def captions_of(split):
    """Captions of a split, all of them different, and whose clip each tells of."""
    words = ("red", "green", "blue", "dark", "bright", "small", "fast", "round", "calm", "loud")
    of = np.repeat(np.arange(CLIPS[split]), CAPTIONS)
    rng = np.random.default_rng(len(split))
    return [f"{split} {n} {' '.join(rng.choice(words, 3))}" for n in range(len(of))], of


def task_of(category, files):
    """A task of mteb; category "t2v", "v2t", or "t2t", where clips are texts too."""
    text, video = {"text"}, {"video"}
    sides = {"t2v": (text, video), "v2t": (video, text), "t2t": (text, text)}[category]

    class Tiny(AbsTaskRetrieval):
        metadata = globals()["metadata"](category, sorted(set.union(*sides)))

        def load_data(self, num_proc=None, **kwargs):
            self.dataset = {"default": {s: data_of(category, s, files) for s in CLIPS}}
            self.data_loaded = True

    task = Tiny()
    task.load_data()
    return task


def data_of(category, split, files):
    texts, of = captions_of(split)
    texts = datasets.Dataset.from_dict({"id": [f"t{n}" for n in range(len(of))], "text": texts})
    names = [f"c{n}" for n in range(CLIPS[split])]
    if category == "t2t":
        clips = datasets.Dataset.from_dict(
            {"id": names, "text": [f"clip {n} of {split}" for n in names]}
        )
    else:
        clips = datasets.Dataset.from_dict({"id": names, "video": files[split]})
        clips = clips.cast_column("video", datasets.Video())
    query, item = (clips, texts) if category == "v2t" else (texts, clips)
    relevant = {}
    for n, clip in enumerate(of):
        pair = (f"t{n}", f"c{clip}")
        query_id, item_id = pair[::-1] if category == "v2t" else pair
        relevant.setdefault(query_id, {})[item_id] = 1
    return {"queries": query, "corpus": item, "relevant_docs": relevant, "top_ranked": None}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ncl_jax.load(random_weights.write(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return {
        split: [write_clip(folder / f"{split}{n}.mp4", [n, len(split)]) for n in range(count)]
        for split, count in CLIPS.items()
    }


@pytest.fixture(scope="module")
def rows(model, files):
    """Embeddings of both splits: {split: (text, video, video_of_text)}."""
    return {
        split: (model.encode_text(captions_of(split)[0]), model.encode_video(files[split]),
                captions_of(split)[1])
        for split in CLIPS
    }  # fmt: skip


@pytest.fixture(scope="module")
def encoder(model):
    return Encoder(model, "tiny/model")


def evaluated(search, task, **kwargs):
    """Scores by mteb, and nothing of its cache."""
    found = mteb.evaluate(search, task, cache=None, show_progress_bar=False, **kwargs)
    return found.task_results[0].scores["test"][0]


def searched(encoder, task, normalizer):
    if normalizer.kind == "transductive":
        return TransductiveSearch(encoder, normalizer)
    return NormalizedSearch(encoder, training_bank(task), normalizer)


NORMALIZERS = [Plain(), Ncl(20.0), Auto(), Csls(3), QbNorm(), SinkhornTest(20.0), Dsl(20.0)]


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=lambda n: type(n).__name__)
def test_nothing_but_our_numbers_where_captions_search_clips(encoder, files, rows, normalizer):
    task = task_of("t2v", files)
    theirs = evaluated(searched(encoder, task, normalizer), task)
    (text, video, of), (bank_text, bank_video, bank_of) = rows["test"], rows["train"]
    bank = Bank(bank_text, bank_video, bank_of, np.arange(len(bank_video)))
    scores = normalizer.fit(bank, video).score(text)
    ranks = metrics.ranks_of_texts(scores, of)
    ours = metrics.summarize(ranks)
    assert 0 < ours["R@5"] < 100
    assert 100 * theirs["ndcg_at_10"] == pytest.approx(metrics.ndcg(ranks), abs=1e-3)
    for k in KS:
        assert 100 * theirs[f"recall_at_{k}"] == pytest.approx(ours[f"R@{k}"], abs=1e-3)


@pytest.mark.parametrize("normalizer", NORMALIZERS[:3], ids=lambda n: type(n).__name__)
def test_nothing_but_our_numbers_where_clips_search_captions(encoder, files, rows, normalizer):
    task = task_of("v2t", files)
    theirs = evaluated(searched(encoder, task, normalizer), task)
    (text, video, of), (bank_text, bank_video, bank_of) = rows["test"], rows["train"]
    bank = Bank(bank_video, bank_text, np.arange(len(bank_video)), bank_of)
    ours = metrics.video_to_text(normalizer.fit(bank, text).score(video).T, of, rule="best_caption")
    for k in KS:
        assert 100 * theirs[f"hit_rate_at_{k}"] == pytest.approx(ours[f"R@{k}"], abs=1e-3)


@pytest.mark.parametrize("category", ["t2v", "v2t"])
def test_plain_scores_by_mtebs_own_search_and_by_ours_agree(encoder, files, category):
    task = task_of(category, files)
    plain = evaluated(encoder, task)
    ours = evaluated(NormalizedSearch(encoder, training_bank(task), Plain()), task)
    counted = [name for name in plain if name.startswith(("ndcg", "recall", "map", "mrr"))]
    assert counted
    assert {n: plain[n] for n in counted} == {n: ours[n] for n in counted}


def test_an_encoder_of_mteb_is_normalised_by_all_of_the_corpus(files):
    """The bank comes from the task; the biases are those of the whole gallery."""
    theirs, task = mteb.get_model("mteb/baseline-random-encoder"), task_of("t2t", files)
    search = NormalizedSearch(theirs, training_bank(task), Ncl(20.0))
    given = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default",
             "encode_kwargs": {"batch_size": 8}, "num_proc": None}  # fmt: skip
    data = task.dataset["default"]["test"]
    search.index(data["corpus"], **given)
    found = search.search(data["queries"], top_k=5, **given)
    assert all(len(scores) == 5 for scores in found.values())
    rows = {
        (split, side): mteb_rows(theirs, task, task.dataset["default"][split][side], side)
        for split in CLIPS for side in ("queries", "corpus")
    }  # fmt: skip
    bank = Bank(rows["train", "queries"])
    scores = Ncl(20.0).fit(bank, rows["test", "corpus"]).score(rows["test", "queries"])
    for query, row in zip(data["queries"]["id"], scores, strict=True):
        best = np.argsort(-row)[:5]
        assert found[query] == pytest.approx({f"c{n}": row[n] for n in best}, abs=1e-4)
    assert search.evidence["TinyT2T", "default", "test"]["bank"] == 60


def mteb_rows(encoder, task, dataset, side):
    from mteb._create_dataloaders import create_dataloader

    kind = mteb.types.PromptType.query if side == "queries" else mteb.types.PromptType.document
    loader = create_dataloader(dataset, task_metadata=task.metadata, prompt_type=kind)
    rows = np.asarray(encoder.encode(loader, task_metadata=task.metadata, hf_split="test",
                                     hf_subset="default", prompt_type=kind))  # fmt: skip
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_reranking_scores_the_candidates_of_each_query(encoder, files):
    task = task_of("t2v", files)
    whole, few = (NormalizedSearch(encoder, training_bank(task), Ncl(20.0)) for _ in range(2))
    data = task.dataset["default"]["test"]
    given = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default",
             "encode_kwargs": {"batch_size": 8}, "num_proc": None}  # fmt: skip
    ranked = {query: [f"c{(n + m) % 12}" for m in range(4)]
              for n, query in enumerate(data["queries"]["id"])}  # fmt: skip
    for search in (whole, few):
        search.index(data["corpus"], **given)
    all_of_them = whole.search(data["queries"], top_k=12, **given)
    found = few.search(data["queries"], top_k=3, top_ranked=ranked, **given)
    for query, names in ranked.items():
        best = sorted(names, key=lambda name: -all_of_them[query][name])[:3]
        assert found[query] == pytest.approx({n: all_of_them[query][n] for n in best}, abs=1e-5)


def test_captions_alone_are_a_bank(encoder, files, rows):
    task, (captions, _) = task_of("t2v", files), captions_of("train")
    theirs = evaluated(NormalizedSearch(encoder, captions, Ncl(20.0)), task)
    same = evaluated(NormalizedSearch(encoder, training_bank(task), Ncl(20.0)), task)
    assert theirs["ndcg_at_10"] == same["ndcg_at_10"]
    with pytest.raises(InputError, match="needs training items beside training queries"):
        evaluated(NormalizedSearch(encoder, captions, Auto()), task)


def test_results_of_other_scores_are_not_taken_from_mtebs_cache(encoder, files, tmp_path):
    task, cache = task_of("t2v", files), mteb.ResultCache(tmp_path)
    found = []
    for search in (
        encoder, NormalizedSearch(encoder, training_bank(task), Ncl(20.0)),
        NormalizedSearch(encoder, training_bank(task), Ncl(200.0)),
        NormalizedSearch(encoder, training_bank(task, queries=7), Ncl(20.0)),
        TransductiveSearch(encoder, SinkhornTest(20.0)),
    ):  # fmt: skip
        result = mteb.evaluate(search, task, cache=cache, show_progress_bar=False)
        found.append(result.task_results[0].scores["test"][0]["ndcg_at_10"])
        alone = evaluated(search, task)["ndcg_at_10"]
        assert found[-1] == alone
    assert len(list(tmp_path.rglob("TinyT2V.json"))) == len(found)


def test_a_model_that_was_trained_further_has_another_revision(model, tmp_path):
    other = ncl_jax.load(random_weights.write(tmp_path, seed=1))
    metas = [Encoder(m).mteb_model_meta for m in (model, other, model)]
    assert metas[0].revision == metas[2].revision != metas[1].revision
    assert (metas[0].embed_dim, metas[0].modalities) == (16, ["text", "video"])
    assert Encoder(model, revision="v2").mteb_model_meta.revision == "v2"
    with pytest.raises(InputError, match='expected "organization/model", got \'clip\''):
        Encoder(model, "clip")


def test_they_are_what_mteb_asks_for(encoder, files):
    search = NormalizedSearch(encoder, ["a", "b"], Ncl())
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert not isinstance(encoder, mteb.SearchProtocol)
    assert isinstance(search, mteb.SearchProtocol)
    assert not isinstance(search, mteb.EncoderProtocol | mteb.CrossEncoderProtocol)


def test_similarities_are_cosines(encoder):
    one, other = np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(encoder.similarity(one, other), [[0.6, 0.8], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(encoder.similarity_pairwise(one, other), [0.6, 1], atol=1e-6)
    np.testing.assert_allclose(encoder.similarity(one[0], other), [[0.6, 0.8]], atol=1e-6)


def test_what_looks_at_test_queries_is_refused_unless_asked_for_by_name(encoder, files):
    task = task_of("t2v", files)
    bank = training_bank(task)
    with pytest.raises(InputError, match="SinkhornTest, which looks at other test queries"):
        NormalizedSearch(encoder, bank, SinkhornTest())
    with pytest.raises(InputError, match="expected a transductive normaliser, got Ncl"):
        TransductiveSearch(encoder, Ncl())
    with pytest.raises(InputError, match="got 'test', which it is evaluated on"):
        training_bank(task, "test")
    leaky = {"default": task.dataset["default"]["test"]}
    with pytest.raises(InputError, match="got all 24 test queries among them"):
        evaluated(NormalizedSearch(encoder, leaky, Ncl()), task)
    more = captions_of("train")[0] + captions_of("test")[0]
    with pytest.raises(InputError, match="got all 24 test queries among them"):
        evaluated(NormalizedSearch(encoder, more, Ncl()), task)
    assert "transductive" in str(TransductiveSearch(encoder).mteb_model_meta.experiment_kwargs)


@pytest.mark.parametrize("bank", [[], {}, "a dog"])
def test_a_bank_of_nothing_is_refused(encoder, bank):
    with pytest.raises(InputError, match="expected training queries, got none"):
        NormalizedSearch(encoder, bank)


def test_a_bank_of_another_subset_is_refused(encoder, files):
    task = task_of("t2v", files)
    bank = {"fra": training_bank(task)["default"]}
    with pytest.raises(InputError, match="expected queries of the subset 'default', got those of"):
        evaluated(NormalizedSearch(encoder, bank), task)


def test_a_bank_is_drawn_and_keeps_the_items_that_answer(files):
    task = task_of("v2t", files)
    drawn = training_bank(task, queries=5)["default"]
    assert len(drawn["queries"]) == 5
    answers = {item for q in drawn["queries"]["id"] for item in drawn["relevant_docs"][q]}
    assert set(drawn["corpus"]["id"]) == answers
    assert len(answers) == 5 * CAPTIONS
    again = training_bank(task, queries=5)["default"]
    assert list(again["queries"]["id"]) == list(drawn["queries"]["id"])


@pytest.mark.parametrize("kind", [ScoringFunction.MAX_SIM, ScoringFunction.EUCLIDEAN])
def test_encoders_without_a_cosine_are_refused(encoder, kind):
    other = copy.copy(encoder)
    other.mteb_model_meta = encoder.mteb_model_meta.model_copy(update={"similarity_fn_name": kind})
    with pytest.raises(InputError, match="expected an encoder whose similarity is the cosine"):
        NormalizedSearch(other, ["a"], Ncl())


def test_inner_products_are_cosines_only_of_rows_of_length_1(encoder, files):
    task, longer = task_of("t2v", files), copy.copy(encoder)
    product = {"similarity_fn_name": ScoringFunction.DOT_PRODUCT}
    longer.mteb_model_meta = encoder.mteb_model_meta.model_copy(update=product)
    search = NormalizedSearch(longer, training_bank(task), Ncl(20.0))
    plain = NormalizedSearch(encoder, training_bank(task), Ncl(20.0))
    assert evaluated(search, task)["ndcg_at_10"] == evaluated(plain, task)["ndcg_at_10"]
    longer.encode = lambda *args, **kwargs: 2 * encoder.encode(*args, **kwargs)
    with pytest.raises(InputError, match="expected embeddings of length 1, got lengths from 2"):
        evaluated(search, task)


# -- videos ----------------------------------------------------------------------------------------


def test_files_bytes_and_paths_of_videos_are_the_same_video(encoder, files):
    path = files["test"][0]
    stored = {"path": "somewhere/else.mp4", "bytes": pathlib.Path(path).read_bytes()}
    forms = [
        datasets.Dataset.from_dict({"video": [path]}),
        datasets.Dataset.from_dict({"video": [path]}).cast_column("video", datasets.Video()),
        datasets.Dataset.from_dict(
            {"video": [stored]}, datasets.Features({"video": datasets.Video()})
        ),
    ]
    found = [encoder.model.encode_video(part) for form in forms for part in videos(form, 4)]
    for rows in found[1:]:
        np.testing.assert_array_equal(rows, found[0])


@pytest.mark.parametrize("first", [False, True])
def test_frames_may_have_their_channels_first(first):
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3))
    given = frames.transpose(0, 3, 1, 2) if first else frames
    ((found,),) = videos(datasets.Dataset.from_dict({"video": [given.tolist()]}), 4)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, frames)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([None], "video 0: expected a video, got nothing"),
        ([[[[[0.5] * 3]]]], "expected a file or frames of whole numbers"),
        ([[[1, 2]]], "expected a file or frames of whole numbers"),
        ([[[[[256, 0, 0]]]]], "expected frames from 0 to 255"),
    ],
)
def test_what_is_no_video_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        list(videos(datasets.Dataset.from_dict({"video": given}), 4))


def test_videos_come_in_chunks_and_their_files_go(files):
    stored = [{"path": f"no/{n}.mp4", "bytes": pathlib.Path(p).read_bytes()}
              for n, p in enumerate(files["test"][:5])]  # fmt: skip
    features = datasets.Features({"video": datasets.Video()})
    seen = []
    for part in videos(datasets.Dataset.from_dict({"video": stored}, features), 2):
        assert all(pathlib.Path(p).read_bytes() for p in part)
        seen.append(part)
    assert [len(part) for part in seen] == [2, 2, 1]
    assert not any(pathlib.Path(p).exists() for part in seen for p in part)


def test_inputs_of_text_and_video_at_once_are_refused(encoder, files):
    both = datasets.Dataset.from_dict({"text": ["a"], "video": files["test"][:1]})
    loader = type("Loader", (), {"dataset": both})
    with pytest.raises(InputError, match="TinyT2V: expected inputs of text or of video"):
        encoder.encode(loader, task_metadata=task_of("t2v", files).metadata, hf_split="test",
                       hf_subset="default")  # fmt: skip


# -- banks that are fetched ------------------------------------------------------------------------


def stored(folder, splits):
    """A dataset on the disk in mteb's layout: one query and one item per split."""
    rows = {
        "queries": {"id": "q", "text": "of {}"}, "corpus": {"id": "d", "text": "item", "title": ""},
        "default": {"query-id": "q", "corpus-id": "d", "score": 1},
    }  # fmt: skip
    configs = []
    for config, row in rows.items():
        configs.append(f"- config_name: {config}\n  data_files:")
        for split in splits:
            path = folder / config / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(row).replace("{}", split))
            configs.append(f"  - split: {split}\n    path: {config}/{split}.jsonl")
    (folder / "README.md").write_text("\n".join(["---", "configs:", *configs, "---", ""]))
    return str(folder)


def fetched(folder, splits):
    class Stored(AbsTaskRetrieval):
        metadata = globals()["metadata"]("t2t", ["text"]).model_copy(
            update={"dataset": {"path": stored(folder, splits), "revision": None}}
        )

    return Stored()


def test_training_queries_are_fetched_where_the_dataset_has_them(tmp_path):
    bank = training_bank(fetched(tmp_path, ["train", "test"]))
    assert list(bank["default"]["queries"]["text"]) == ["of train"]


def test_the_only_split_does_not_stand_in_for_training_queries(tmp_path):
    """The loader of mteb gives the test split for "train" here (findings/mteb_only_split.sh)."""
    with pytest.raises(InputError, match="has no split 'train' of its queries, only test; give"):
        training_bank(fetched(tmp_path, ["test"]))
