"""Files from elsewhere: what is plain is read, what is odd or too large is one sentence."""

import gzip
import io
import json
import pickle
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from etils import epath

from ncl_jax.cli import index as index_command
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.errors import InputError, blame_input, reason
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.readers import limits, npy, text
from ncl_jax.readers.plain_pickle import PlainUnpickler
from tests.index import format1
from tfds_builders import caption_files, text_files

PLAIN = [
    np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.float16(1.5),
    np.arange(3, dtype=">f8"), np.zeros((0, 4)), np.asarray(["a", "é\U0001f600"]), np.asarray([""]),
    np.asarray(["x"]).astype(">U2"), np.asarray([b"ab", b""]), np.asarray([True]),
    np.asarray([1j]), np.asarray(["2026-01-01"], "M8[D]"),
]  # fmt: skip


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and (one == other).all()


def test_arrays_are_those_of_numpy(tmp_path):
    for save in (np.savez, np.savez_compressed):
        path = tmp_path / "a.npz"
        save(path, **{f"n{i}": array for i, array in enumerate(PLAIN)})
        for found in (npy.read(path, "p", "a"), npy.read_npz(epath.Path(path), "p", "a")):
            assert all(same(found[f"n{i}"], np.asarray(a)) for i, a in enumerate(PLAIN))
    for array in PLAIN:
        np.save(tmp_path / "a.npy", array)
        assert same(npy.read(tmp_path / "a.npy", "p", "a"), np.asarray(array))


def header(descr, shape, data=b"", fortran=False):
    stream = io.BytesIO()
    content = {"descr": descr, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, content)
    return stream.getvalue() + data


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps([1]), "is no NumPy array"),
        (header("|O", (1,), pickle.dumps([1])), "expected numbers or text, got the type object"),
        (header([("a", "<f4")], (1,), bytes(4)), "expected numbers or text"),
        (header("<V2", (1,), bytes(2)), "expected numbers or text"),
        (header("<f8", (1 << 40,)), "it says shape"),
        (header("<f8", (-1,)), "it says shape"),
        (header("<U0", (1 << 40,)), "it says shape"),
        (header("<f8", (2,), bytes(9)), "it ends before its last number|it says shape"),
        (header("<U1", (1,), b"\xff\xff\xff\x00"), "numbers that are no characters"),
        (header("<U1", (1,), b"\x00\xd8\x00\x00"), "numbers that are no characters"),
        (b"\x93NUMPY\x03\x00" + bytes(200), r"format \(3, 0\)"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "EOF"),
        (b"", "is no NumPy array"),
    ],
)
def test_odd_arrays_are_one_sentence(tmp_path, content, said):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=f"^problem .*({said}).*; advice$") as caught:
        npy.read(tmp_path / "a.npy", "problem", "advice")
    assert "pickle" not in str(caught.value)


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_small_file_does_not_unfold_into_a_large_one(tmp_path):
    zeros = header("|u1", (1 << 27,), bytes(1 << 27))
    path = zipped(tmp_path / "a.npz", {"a.npy": zeros}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 18
    bounded(lambda: npy.read(path, "problem", "advice"), "unfolds to more than 100 times")
    np.savez_compressed(tmp_path / "index.npz", header=np.zeros(1 << 20, np.uint8))
    bounded(lambda: storage.read(tmp_path, check=False), "damaged or not an index.*unfolds")
    zipped(tmp_path / "many.npz", {f"{n}.npy": b"" for n in range(limits.ARRAYS + 1)})
    bounded(lambda: npy.read(tmp_path / "many.npz", "problem", "advice"), "more than 1000 arrays")
    bomb = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    bomb.write_bytes(gzip.compress(bytes(limits.VOCABULARY + 1)))
    bounded(lambda: Tokenizer.load(bomb), "at most 67,108,864 bytes", memory=300 << 20)


def bounded(read, said, seconds=30.0, memory=64 << 20):
    """Whether a sentence comes in bounded time and memory."""
    tracemalloc.start()
    begin = time.monotonic()
    try:
        with pytest.raises(InputError, match=said):
            read()
        assert time.monotonic() - begin < seconds
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()


def doubling(levels):
    """Lists of two times the list before: 2**levels ends in a few bytes."""
    part = ["word"]
    for _ in range(levels):
        part = [part, part]
    return part


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps({"clip": doubling(60)}), "expected captions as text or lists of words"),
        (pickle.dumps(doubling(60)), "expected a dict of clip id"),
        (b"\x80\x02}K\x01\x85" + b"2\x86" * 60 + b"]s.", "neither text nor a small number"),
        (pickle.dumps({"clip": [frozenset([1])]}), "what plain data does not"),
        (pickle.dumps({1 << 200: []}), "neither text nor a small number"),
        (pickle.dumps({"clip": ["a \ud83d dog"]}), "half of a surrogate pair"),
        (pickle.dumps({"a \ud83d": ["dog"]}), "half of a surrogate pair"),
        (b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".", "what plain data does not"),
        (b"\x80\x02}r\xff\xff\xff\x3f0.", "expected a pickled dict"),
        (b"(" * 100_000 + b"." * 3, "expected a pickled dict|expected a dict"),
        (b"cos\nsystem\n(Vls\ntR.", r"wants to load os\.system"),
        (pickle.dumps({"clip": [["x" * 10_000] * 1000] * 200}), "at most 1,073,741,824 words"),
    ],
)
def test_pickled_captions_take_little_time_and_memory(tmp_path, content, said):
    path = epath.Path(tmp_path) / "raw-captions.pkl"
    path.write_bytes(content)
    assert len(content) < 1 << 20
    said = rf"raw-captions\.pkl.*({said})"
    bounded(lambda: caption_files.read_pickle(path), said, memory=2 << 30)


def test_a_name_that_is_set_twice_or_built_is_data():
    assert PlainUnpickler(pickle.dumps({"a": [1, (2.5, None, b"x")]})).load() == {
        "a": [1, (2.5, None, b"x")]
    }


def test_json_has_a_depth_and_a_length(tmp_path, monkeypatch):
    path = epath.Path(tmp_path) / "a.json"
    path.write_text("[" * 101 + "]" * 101)
    bounded(lambda: text_files.read_json(path), "at most 100 levels")
    path.write_text("[" * 100 + "]" * 100)
    assert text_files.read_json(path)
    path.write_text("[" * 100_000)
    bounded(lambda: text_files.read_json(path), r"^a\.json: expected JSON")
    path.write_text("9" * 5000)
    with pytest.raises(InputError, match="expected JSON") as caught:
        text_files.read_json(path)
    assert "set_int_max" not in str(caught.value)
    monkeypatch.setattr(limits, "TEXT", 10)
    with pytest.raises(InputError, match="expected at most 10 bytes"):
        text.read_bytes(path, limits.TEXT)


def test_a_long_field_of_a_table_is_one_sentence(tmp_path):
    path = epath.Path(tmp_path) / "t.csv"
    path.write_text("video_id,sentence\nvideo1," + "x" * 200_000 + "\n")
    with pytest.raises(InputError, match=r"^t\.csv: expected a table \(field larger"):
        text_files.read_table(path, "video_id", "sentence")


META = {"fit": {"error": 0.1}}


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda arrays, header: header.update(ids=[1, 2]), "its ids are not strings"),
        (lambda arrays, header: header.update(ids=["a", "a"]), "one id per item"),
        (lambda arrays, header: header.update(ids=["a"]), "do not fit together"),
        (lambda arrays, header: header.update(scale="7"), "its scale, .* is not a finite number"),
        (lambda arrays, header: header.update(scale=True), "its scale, .* is not a finite number"),
        (lambda arrays, header: header.update(scale=0.0), "its scale"),
        (lambda arrays, header: header.update(meta=[]), "its meta is not an object"),
        (lambda arrays, header: header.update(meta={"drift_at_fit": "x"}), "its drift"),
        (lambda arrays, header: header.update(more=1), "other fields"),
        (lambda arrays, header: header.pop("scale"), "other fields"),
        (lambda arrays, header: arrays.pop("bias"), "other arrays"),
        (lambda arrays, header: arrays.update(bias=np.zeros(5, "f")), "do not fit together"),
        (lambda arrays, header: arrays.update(video=np.full((2, 2), np.nan, "f")), "not finite"),
        (lambda arrays, header: arrays.update(video=np.ones((2, 2), complex)), "other types"),
        (lambda arrays, header: arrays.update(video=np.ones((2, 2), "U1")), "other types"),
    ],
)  # fmt: skip
def test_an_index_of_another_program_is_refused(tmp_path, harm, said):
    index = RetrievalIndex.build(["a", "b"], np.eye(2), np.eye(2), meta=META)
    arrays, fields = format1.content(index)
    harm(arrays, fields)
    format1.write(tmp_path / "index.npz", arrays, fields)
    with pytest.raises(InputError, match=f"is not an index: .*{said}.*; build it again"):
        RetrievalIndex.load(tmp_path)


def test_ids_that_are_no_text_are_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", np.eye(2))
    (tmp_path / "ids.txt").write_bytes(b"a\n\xff\n")
    np.savez("bytes.npz", video=np.eye(2), ids=np.asarray([b"a", b"\xff"]))
    np.savez("dates.npz", video=np.eye(2), ids=np.asarray([1.5, 2.5]))
    for arguments, said in (
        (["v.npy", "--ids", "ids.txt"], "ids.txt: expected UTF-8 text"),
        (["bytes.npz"], "bytes.npz: expected ids in UTF-8"),
        (["dates.npz"], "dates.npz: expected ids [row], texts or integers"),
    ):
        assert index_command.main(["build", "i", "--video", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_ids_of_a_vocabulary_are_its_rows(tmp_path):
    tokenizer = Tokenizer.train(["a dog"], 520)
    content = json.loads(tokenizer.to_json())
    content["model"]["vocab"]["zzz"] = 70_000
    with pytest.raises(InputError, match=r"expected ids from 0 to \d+, got 70000"):
        Tokenizer.from_json(json.dumps(content))


class PanicException(BaseException):
    """As Rust libraries raise it."""


def test_a_panic_is_about_the_file_and_an_interrupt_is_not():
    with pytest.raises(InputError, match=r"^a \(index out of bounds\); b$"), blame_input("a", "b"):
        raise PanicException("index out of bounds")
    for error in (KeyboardInterrupt, SystemExit, GeneratorExit):
        with pytest.raises(error), blame_input("a", "b"):
            raise error


def test_what_a_bug_raises_is_about_the_file_if_a_sound_one_is_read():
    with pytest.raises(InputError, match=r"^a \(planted\); b$"), blame_input("a", "b", lambda: 0):
        raise TypeError("planted")
    with pytest.raises(TypeError, match="planted"), blame_input("a", "b", lambda: int("x")):
        raise TypeError("planted")


@pytest.mark.parametrize(
    "said",
    [
        "Object arrays cannot be loaded when allow_pickle=False",
        "This file contains pickled (object) data. If you trust the file you can load it unsafely "
        "using the `allow_pickle=` keyword argument or `pickle.load()`.",
        "Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; use "
        "sys.set_int_max_str_digits() to increase the limit",
        "Header info length (20000) is large and may not be safe to load securely.\n"
        "To allow loading, adjust `max_header_size` or fully trust the `.npy` file.",
    ],
)
def test_no_message_passes_on_advice_to_read_unsafely(said):
    told = reason(ValueError(said))
    assert told
    assert not any(word in told for word in ("allow_pickle", "trust", "max_str", "max_header"))
