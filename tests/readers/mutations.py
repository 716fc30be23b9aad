"""How a sound file becomes an odd one: bytes, JSON, members of zips, headers of arrays."""

import io
import json
import random
import zipfile

import numpy as np

ODD = (
    None, True, -1, 0, 1e308, float("nan"), 2**70, "", "\ud83d", "é\U0001f600", "../x", [], {},
    [[]], [None], {"a": {}}, "x" * 300, [1, "a"], "<f8", "|O", "4",
)  # fmt: skip
TOKENS = (
    b"\x00" * 8, b"\xff" * 8, b"{", b"[" * 200, b'"', b"\n", b"\r", b",", b"NaN", b"-1", b"9" * 30,
    b"\\ud83d", b"\xf0\x9f", b"\x80\x05", b"R", b"cos\nsystem\n", b"\x93\x8c\x03sys", b"2\x86",
    b"b", b"\x81", b"Q", b"r\xff\xff\xff\x3f", b"j\x00\x00\x00\x00", b"0", b"t", b"(", b"d", b"s",
    b"u", b".", b"PK\x03\x04", b"\x93NUMPY", b"'shape': (-1,)", b"'|O'", b"e" * 50,
)  # fmt: skip


def of_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to three changes of bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.randrange(len(changed) + 1)
        end = min(len(changed), place + rng.choice((1, 2, 8, 60)))
        kind = rng.randrange(7)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and place < len(changed):
            changed[place] = rng.randrange(256)
        elif kind == 2:
            del changed[place:end]
        elif kind == 3:
            changed[place:place] = changed[place:end] * rng.choice((1, 2, 50))
        elif kind == 4:
            changed[place:place] = rng.choice(TOKENS)
        elif kind == 5:
            changed[place:end] = rng.choice(TOKENS)
        else:
            del changed[place:]
    return bytes(changed)


def of_json(data: bytes, rng: random.Random) -> bytes:
    """Another value, name or depth somewhere in a JSON text."""
    content = _changed(json.loads(data), rng)
    return json.dumps(content, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _changed(tree: object, rng: random.Random) -> object:
    inner = range(len(tree)) if isinstance(tree, list) else tree if isinstance(tree, dict) else ()
    if not len(inner) or rng.random() < 0.15:
        return rng.choice(ODD) if rng.random() < 0.9 else {"a": tree}
    key = rng.choice(list(inner))
    if rng.random() < 0.15:
        del tree[key]
    elif isinstance(tree, dict) and rng.random() < 0.1:
        tree[str(rng.choice(ODD))] = tree.pop(key)
    elif isinstance(tree, list) and rng.random() < 0.1:
        tree.append(tree[key])
    else:
        tree[key] = _changed(tree[key], rng)
    return tree


def of_zip(data: bytes, rng: random.Random) -> bytes:
    """A zip whose sums are right, with a member changed, twice or gone."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    place = rng.randrange(len(members))
    name, content = members[place]
    change = of_array if content.startswith(b"\x93NUMPY") and rng.random() < 0.5 else of_bytes
    members[place] = (name, change(content, rng))
    if rng.random() < 0.05:
        members.pop(place)
    out = io.BytesIO()
    deflated = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", deflated) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def of_array(data: bytes, rng: random.Random) -> bytes:
    """An array of another type, shape or order, or with odd numbers."""
    array = np.load(io.BytesIO(data))
    kind = rng.randrange(5)
    if kind == 0:
        types = ("f2", "f8", ">f4", "i1", "u8", "c8", "?", "U3", "S3", "M8[s]", "V3", "f4,i2")
        array = np.zeros(array.shape, rng.choice(types))
    elif kind == 1:
        array = np.resize(array, rng.choice(((), (0,), (1,), (2, 0), (3, 1, 2), (7,), (1, 1))))
    elif kind == 2 and array.dtype.kind == "f" and array.size:
        array = array.copy()
        array.flat[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, 0, -1, 1e30, 0.5))
    elif kind == 3 and array.dtype.kind in "iu" and array.size:
        array = array.copy()
        array.flat[rng.randrange(array.size)] = rng.choice((0, 1, 100, 127))
    out = io.BytesIO()
    np.save(out, array)
    if kind == 4:
        return of_bytes(out.getvalue()[:120], rng) + out.getvalue()[120:]
    return out.getvalue()
