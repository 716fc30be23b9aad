"""The index: exact search on any number of devices, growth, files, exports, the command."""

import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from ncl_jax import locks
from ncl_jax.cli import index as command
from ncl_jax.index import RetrievalIndex, device_search, fold_query, storage
from ncl_jax.index.bank_mass import column_lse
from ncl_jax.normalizers import Bank, Ncl
from ncl_jax.types import Biases
from tests.index.made import names, rows


def sorted_search(index, query, k):
    """Every item of every query by a stable sort in float64."""
    query = query / np.linalg.norm(query, axis=1, keepdims=True)
    scores = index.scale * query.astype(np.float64) @ index.video.T + index.bias
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [[index.ids[i] for i in row] for row in order], np.take_along_axis(scores, order, 1)


@pytest.mark.parametrize(("queries", "k"), [(1, 1), (3, 10), (13, 300), (5, 4000)])
def test_search_equals_sorting_everything(index, queries, k):
    query = rows(2, queries)
    found = index.search(query, k)
    ids, scores = sorted_search(index, query, k)
    assert found.ids == ids
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_sharding_does_not_change_the_answer(devices, monkeypatch):
    if len(jax.devices()) < devices:
        pytest.skip(f"needs {devices} devices, {len(jax.devices())} are there")
    monkeypatch.setattr(device_search, "WIDTH", 4)
    monkeypatch.setattr(device_search, "PANEL", 32)
    monkeypatch.setattr(device_search, "WHOLE", 1)
    jax.clear_caches()
    item, query = rows(3, 1001), rows(4, 6)
    bias = np.random.default_rng(5).integers(-3, 3, 1001).astype(np.float32)
    shards = device_search.place(item, bias, jax.devices()[:devices])
    scores, found = device_search.search(query, shards, 7)
    whole = query @ item.T + bias
    np.testing.assert_array_equal(found, np.argsort(-whole, axis=1, kind="stable")[:, :7])
    np.testing.assert_allclose(scores, -np.sort(-whole, axis=1)[:, :7], rtol=1e-5)
    jax.clear_caches()


@pytest.mark.parametrize("k", [1, 9])
def test_ties_keep_the_order_of_the_items(k, monkeypatch):
    monkeypatch.setattr(device_search, "WIDTH", 4)
    monkeypatch.setattr(device_search, "PANEL", 32)
    monkeypatch.setattr(device_search, "WHOLE", 1)
    jax.clear_caches()
    rng = np.random.default_rng(6)
    item = rng.integers(0, 3, (500, 3)).astype(np.float32)
    query = rng.integers(0, 3, (20, 3)).astype(np.float32)
    bias = rng.integers(-2, 0, 500).astype(np.float32)
    scores = query @ item.T + bias
    best, place = device_search.search(query.astype(np.float32), device_search.place(item, bias), k)
    np.testing.assert_array_equal(best, -np.sort(-scores, axis=1)[:, :k])
    np.testing.assert_array_equal(place, np.argsort(-scores, axis=1, kind="stable")[:, :k])
    jax.clear_caches()


def test_chunks_of_queries_do_not_change_the_answer(index, monkeypatch):
    query = rows(7, 11)
    whole = index.search(query, 5)
    monkeypatch.setattr(device_search, "QUERIES", 4)
    parts = index.search(query, 5)
    assert parts.ids == whole.ids
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-5)


def test_biases_are_those_of_ncl(index):
    fitted = Ncl(20.0).fit(Bank(index.bank_text), index.video)
    np.testing.assert_allclose(index.bias, fitted.bias, atol=1e-4)
    assert index.bias.std() > 0.01


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_add_gives_an_item_the_bias_it_had_in_the_fit(strength):
    index = RetrievalIndex.build(names(50), rows(0, 50), rows(1, 40), scale=20.0,
                                 strength=strength)
    more = index.add(["again"], index.video[17:18])
    assert more.bias[-1] == pytest.approx(index.bias[17], abs=1e-4)
    np.testing.assert_array_equal(more.bias[:-1], index.bias)
    assert len(index) == 50


def test_remove_undoes_add(index):
    both = index.add(names(20, 300), rows(8, 20)).remove(names(20, 300))
    assert both.ids == index.ids
    np.testing.assert_allclose(both.row_sum, index.row_sum, rtol=1e-6)
    assert "clip 4" not in index.remove(["clip 4"]).search(index.video[4:5], 300).ids[0]


def test_drift_asks_for_a_refit_when_the_gallery_turns_one_sided(index):
    assert not index.refit_due
    alike = index.add(names(30, 300), rows(9, 30))
    one_sided = np.tile(index.bank_text[:1], (300, 1)) + rows(10, 300) * 0.05
    other = index.add(names(300, 300), one_sided)
    assert not alike.refit_due
    assert other.refit_due
    again = RetrievalIndex.build(other.ids, other.video, other.bank_text, scale=20.0)
    assert not again.refit_due


def test_empty_gallery_and_no_bank():
    empty = RetrievalIndex.build([], np.zeros((0, 8)), rows(1, 5))
    assert empty.search(rows(2, 3), 4).ids == [[], [], []]
    plain = RetrievalIndex.build(names(5), rows(0, 5))
    assert not plain.bias.any()
    assert len(plain.search(rows(2, 1)[0], 9).ids[0]) == 5
    assert not plain.add(["x"], rows(3, 1)).bias.any()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda i: i.search(rows(0, 2, dim=9)), "width 8"),
        (lambda i: i.search(np.zeros((1, 8))), "not zero"),
        (lambda i: i.search(np.full((1, 8), np.nan)), "finite"),
        (lambda i: i.search(rows(0, 1), 0), "at least 1"),
        (lambda i: i.add(["clip 3"], rows(0, 1)), "already"),
        (lambda i: i.add(["a", "a"], rows(0, 2)), "unique"),
        (lambda i: i.add(["a"], rows(0, 2)), "one id per"),
        (lambda i: i.remove(["nobody"]), "nobody"),
        (lambda i: RetrievalIndex.build(["a"], np.zeros((1, 4))), "not zero"),
        (lambda i: RetrievalIndex.build(["a"], rows(0, 1), scale=0.0), "scale"),
    ],
)
def test_bad_input_is_named(index, call, says, unchecked):
    with pytest.raises(ValueError, match=says):
        call(index)


def test_threads_may_search_while_another_replaces_the_index(index):
    query = rows(13, 2)
    wanted, found = index.search(query, 3).ids, []
    threads = [threading.Thread(target=lambda: found.append(index.search(query, 3).ids))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    index.add(["meanwhile"], rows(14, 1)).remove(["clip 0"])
    for thread in threads:
        thread.join()
    assert found == [wanted] * 8


def test_folded_items_rank_alike(index, tmp_path):
    query = rows(15, 9)
    scores = fold_query(query) @ index.folded().T
    assert [[index.ids[j] for j in row] for row in np.argsort(-scores, axis=1)[:, :5]] == (
        index.search(query, 5).ids)
    index.export(tmp_path / "plain.npz")
    with np.load(tmp_path / "plain.npz") as plain:
        assert plain["ids"].tolist() == list(index.ids)
        np.testing.assert_array_equal(plain["item"], index.folded())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_faiss_returns_the_same_ids(index):
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    query = rows(16, 20)
    scores, found = index.to_faiss().search(fold_query(query), 10)
    result = index.search(query, 10)
    assert [[index.ids[j] for j in row] for row in found] == result.ids
    np.testing.assert_allclose(scores * index.scale, result.scores, atol=1e-3)


def test_faiss_lists_equal_items_last_to_first():
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    index = RetrievalIndex.build(names(6), np.repeat(rows(3, 1), 6, axis=0))
    query = rows(3, 1)
    assert index.search(query, 3).rows.tolist() == [[0, 1, 2]]
    assert index.to_faiss().search(fold_query(query), 3)[1].tolist() == [[2, 1, 0]]


def test_command_builds_adds_and_searches(tmp_path, capsys):
    where = str(tmp_path / "index")
    np.savez(tmp_path / "v.npz", video=rows(0, 30), ids=np.asarray(names(30)))
    np.save(tmp_path / "bank.npy", rows(1, 20))
    np.save(tmp_path / "more.npy", rows(2, 5))
    (tmp_path / "more.txt").write_text("\n".join(names(5, 30)) + "\n")
    np.save(tmp_path / "q.npy", rows(2, 5)[:2])
    assert command.main(["build", where, "--video", str(tmp_path / "v.npz"),
                         "--bank-text", str(tmp_path / "bank.npy")]) == 0
    assert "scale: 100 (not given" in capsys.readouterr().out
    assert command.main(["add", where, "--video", str(tmp_path / "more.npy"),
                         "--ids", str(tmp_path / "more.txt")]) == 0
    assert "35 in all" in capsys.readouterr().out
    assert command.main(["search", where, "--query", str(tmp_path / "q.npy"), "-k", "35"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 70
    assert {line.split("\t")[2] for line in lines} == set(names(35))


def test_command_checks_every_file(index, tmp_path, capsys):
    index.add(["new"], rows(3, 1)).save(tmp_path)
    assert command.main(["check", str(tmp_path)]) == 0
    said = f"{tmp_path}: sound; 301 items in 2 parts, bank of 90 texts\n"
    assert capsys.readouterr().out == said
    index.save(tmp_path / "run" / "index")
    (tmp_path / "run" / "checkpoints").mkdir()
    assert command.main(["check", str(tmp_path / "run")]) == 0
    assert "run/index: sound; 300 items in one part, " in capsys.readouterr().out
    vectors = max(tmp_path.glob("video-*.npy"), key=lambda path: path.stat().st_size)
    content = bytearray(vectors.read_bytes())
    content[-4] ^= 1  # the last bit of a number: no search would notice
    vectors.write_bytes(content)
    np.save(tmp_path / "q.npy", rows(0, 1))
    assert command.main(["search", str(tmp_path), "--query", str(tmp_path / "q.npy")]) == 0
    capsys.readouterr()
    assert command.main(["check", str(tmp_path)]) == 2
    assert f"the checksum of {vectors.name} does not match" in capsys.readouterr().err


def test_items_without_ids_are_counted_and_given_ids_kept(tmp_path, capsys):
    where, batch = str(tmp_path / "index"), str(tmp_path / "v.npy")
    np.save(batch, rows(0, 2))
    np.savez(tmp_path / "text.npz", video=rows(1, 2), ids=np.asarray(["x1", "é"]))
    np.savez(tmp_path / "bytes.npz", video=rows(2, 1), ids=np.char.encode(["à"], "utf-8"))
    (tmp_path / "ids.txt").write_text("a\nb\n")
    (tmp_path / "numbers.txt").write_text("0\n1\n")
    assert command.main(["build", where, "--video", batch, "--ids", str(tmp_path / "ids.txt")]) == 0
    for more in ([batch], [batch, "--ids", str(tmp_path / "numbers.txt")],
                 [str(tmp_path / "text.npz")], [str(tmp_path / "bytes.npz")]):  # fmt: skip
        assert command.main(["add", where, "--video", *more]) == 0
    assert list(RetrievalIndex.load(where).ids) == ["a", "b", "2", "3", "0", "1", "x1", "é", "à"]
    capsys.readouterr()


VIDEOS = ["build", "i", "--videos", ".", "--checkpoint", "."]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["search", "nowhere", "--query", "q.npy"], "no index at"),
        (["build", "i", "--video", "missing.npy"], "cannot read embeddings from missing.npy"),
        (["build", "i", "--video", "q.npy", "--bank-text", "wide.npy"], "width"),
        (["build", "i", "--video", "i.npy"], "i.npy: expected real numbers, got complex64"),
        (["build", "i", "--video", "bad.npz"], "cannot read embeddings from bad.npz"),
        (["build", "i", "--video", "q.npy", "--scale", "0"], "scale must be > 0"),
        (["build", "i", "--video", "q.npy", "--ids", "one.txt"], "1 ids for 4 rows"),
        (["build", "i", "--videos", "."], "expected --checkpoint too: a run, a folder of"),
        ([*VIDEOS, "--videos", ""], "--videos: expected a folder of videos, got an empty name"),
        ([*VIDEOS, "--ids", "one.txt"], "--ids goes with --video;"),
        ([*VIDEOS, "--bank-text", "q.npy"], "--bank-text goes with --video;"),
        ([*VIDEOS, "--scale", "20"], "--scale goes with --video;"),
        ([*VIDEOS, "--window", "0.5"], "--window: expected a number of seconds from 1, got 0.5"),
        ([*VIDEOS, "--window", "inf"], "got inf"),
        ([*VIDEOS, "--iterations", "-1"], "--iterations: expected at least 0, got -1"),
        ([*VIDEOS, "--strength", "nan"], "--strength: expected a number from 0 to 1, got nan"),
        (["build", "i.npz", "--video", "q.npy"], "i.npz: expected a folder to save the index to"),
        (["add", "of_videos", "--video", "q.npy"], "was built from videos"),
        (["search", "of_videos", "a ball", " "], "expected words, got an empty text"),
    ],
)
def test_command_says_what_is_wrong(
    arguments, says, tmp_path, capsys, monkeypatch, unchecked
):
    monkeypatch.chdir(tmp_path)
    np.save("q.npy", rows(0, 4))
    np.save("wide.npy", rows(0, 4, dim=9))
    np.save("i.npy", rows(0, 4).astype(np.complex64))
    (tmp_path / "one.txt").write_text("a\n")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04junk")
    RetrievalIndex.build(["a"], rows(0, 1), meta={"gallery": {}}).save("of_videos")
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.removeprefix("importing JAX ...\n").splitlines()) == 1


def test_an_add_waits_for_who_changes_the_index(index, tmp_path, capsys):
    """Both items are there at the end: the second reads what the first has written."""
    index.save(tmp_path)
    np.save(tmp_path / "more.npy", rows(7, 1))
    arguments = ["add", str(tmp_path), "--video", str(tmp_path / "more.npy")]
    codes = []
    second = threading.Thread(target=lambda: codes.append(command.main(arguments)))
    with storage.changed(tmp_path):
        read = RetrievalIndex.load(tmp_path)
        second.start()
        time.sleep(0.5)
        read.add(["first"], rows(6, 1)).save(tmp_path)
    second.join(30)
    assert codes == [0]
    assert RetrievalIndex.load(tmp_path).ids == (*index.ids, "first", "301")
    capsys.readouterr()


@pytest.mark.parametrize("action", ["add", "build"])
def test_an_index_that_others_hold_is_refused_after_a_while(
    index, tmp_path, capsys, monkeypatch, action
):
    monkeypatch.setattr(locks, "SECONDS", 0.2)
    index.save(tmp_path)
    np.save(tmp_path / "more.npy", rows(7, 1))
    codes = []
    arguments = [action, str(tmp_path), "--video", str(tmp_path / "more.npy")]
    second = threading.Thread(target=lambda: codes.append(command.main(arguments)))
    with storage.changed(tmp_path):
        second.start()
        second.join(30)
    assert codes == [2]
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"error: {tmp_path}/index.json: another process is still at work")
    assert len(RetrievalIndex.load(tmp_path)) == len(index)


@pytest.mark.slow
def test_adds_at_once_all_arrive(index, tmp_path):
    """As a user starts them: processes of their own."""
    index.save(tmp_path)
    for number in range(8):
        np.savez(tmp_path / f"{number}.npz", video=rows(number, 400),
                 ids=np.asarray(names(400, 1000 * (number + 1))))  # fmt: skip
    for pair in ((0, 1), (2, 3), (4, 5), (6, 7)):
        start = [sys.executable, "-m", "ncl_jax.cli.index", "add", str(tmp_path), "--video"]
        both = [subprocess.Popen([*start, str(tmp_path / f"{n}.npz")]) for n in pair]
        assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert len(RetrievalIndex.load(tmp_path)) == len(index) + 8 * 400


@pytest.mark.parametrize("copies", [1 << 8, pytest.param(1 << 20, marks=pytest.mark.slow)])
def test_a_repeated_bank_gives_the_same_biases(copies):
    """Masses follow the bank: the log of the copies cancels, at 2^22 texts as at 4."""
    bank, items = rows(1, 4, 3), rows(0, 6, 3)
    few = RetrievalIndex.build(names(6), items, bank, scale=20.0)
    many = RetrievalIndex.build(names(6), items, np.repeat(bank, copies, axis=0), scale=20.0)
    np.testing.assert_allclose(many.bias, few.bias, atol=2e-5)
    again = many.remove(names(3)).add(names(3), items[:3])
    np.testing.assert_allclose(again.bias[3:], many.bias[:3], atol=2e-5)


@pytest.mark.parametrize("rows", [1 << 18, pytest.param(1 << 25, marks=pytest.mark.slow)])
def test_log_sum_exp_of_a_long_column_is_that_of_float64(rows):
    """Float32 sums are off by 1e-5 logits at 2^18 rows, and by .12 at 2^25."""
    column = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    expected = np.log(np.exp(column, dtype=np.float64).sum(axis=0))
    np.testing.assert_allclose(column_lse(column), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("bank", "bias", "message"),
    [
        (None, np.zeros(4), "need the bank_text"),
        (rows(1, 5), np.zeros(3), "biases.video must be 4"),
        (rows(1, 5), np.array([0, -np.inf, 0, 0]), "biases.video must be 4"),
    ],
)
def test_biases_that_do_not_fit_are_refused(bank, bias, message):
    with pytest.raises(ValueError, match=message):
        RetrievalIndex.build(names(4), rows(0, 4), bank, biases=Biases(np.zeros(5), bias))
