"""Pairs of texts and videos from files, for the commands that judge retrieval."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ncl_jax import arrays
from ncl_jax.errors import InputError
from ncl_jax.files import write_text
from ncl_jax.progress import announced
from ncl_jax.readers import npy

if TYPE_CHECKING:
    from ncl_jax.normalizers.comparison import Pairs

BANK = ("text", "video", "video_of_text")

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Texts [text, dim], videos [video, dim], and the video of each text [text]."""


def add_arguments(parser: argparse.ArgumentParser, bank: bool) -> None:
    """The options that `load` reads; `bank`: also those of training material."""
    parser.add_argument("--text", help=".npy [text, dim]; of a .npz name the array: FILE.npz:NAME")
    parser.add_argument("--video", help=".npy [video, dim], likewise, as all that follow")
    parser.add_argument("--scores", help=".npy [text, video] instead of embeddings")
    parser.add_argument("--embeddings", help="the embeddings.npz of a training run, all in one")
    parser.add_argument("--video-of-text", help=".npy ints [text]; default: row i describes row i")
    if bank:
        parser.add_argument("--bank-text", help=".npy [bank text, dim], training captions")
        parser.add_argument("--bank-video", help=".npy [bank video, dim], training clips")
        parser.add_argument("--bank-video-of-text", help=".npy ints [bank text]")
    else:
        parser.set_defaults(bank_text=None, bank_video=None, bank_video_of_text=None)


def load(args: argparse.Namespace) -> "tuple[Pairs, Pairs | None]":
    """(test pairs, bank pairs if any were given).

    Embeddings are float32 of unit norm; scores are as they are stored, beside an identity, so that
    `text @ video.T` is the matrix again.

    Raises:
      ValueError: one sentence about what is wrong.
    """
    test, bank = _read(args)
    with announced("importing JAX", sys.stderr):  # only now: what is refused need not wait for it
        from ncl_jax.normalizers.comparison import Pairs
    return Pairs(*test), None if bank is None else Pairs(*bank)


def write_json(path: str | None, numbers: Any) -> None:
    """All numbers of a table, where a path is given."""
    if not path:
        return
    try:
        write_text(path, json.dumps(numbers, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write --json {path}: {error}") from error


def _read(args: argparse.Namespace) -> tuple[Arrays, Arrays | None]:
    given = [args.scores is not None, args.text is not None or args.video is not None,
             args.embeddings is not None]  # fmt: skip
    if sum(given) != 1 or (given[1] and (args.text is None or args.video is None)):
        raise InputError("give either --text and --video, or --scores, or --embeddings")
    if not given[1] and (args.bank_text or args.bank_video):
        raise InputError("--bank-text and --bank-video go with --text and --video")
    if args.embeddings:
        return _of_run(args.embeddings)
    if args.scores:
        text = _matrix(args.scores, "scores")
        video = np.eye(text.shape[1], dtype=np.float32)
    else:
        text, video = _unit(args.text, "text"), _unit(args.video, "video")
    test = _pairs(text, video, args.video_of_text, "video_of_text")
    if (args.bank_text is None) != (args.bank_video is None):
        raise InputError("--bank-text and --bank-video go together")
    if args.bank_text is None:
        return test, None
    bank_text = _unit(args.bank_text, "bank_text", "text")
    bank_video = _unit(args.bank_video, "bank_video", "video")
    if bank_text.shape[1] != text.shape[1]:
        raise InputError(f"the bank has width {bank_text.shape[1]}, the test {text.shape[1]}; "
                         "embed both with one model")  # fmt: skip
    return test, _pairs(bank_text, bank_video, args.bank_video_of_text, "bank_video_of_text",
                        "video_of_text")  # fmt: skip


def _of_run(path: str) -> tuple[Arrays, Arrays]:
    problem = f"cannot read {path} as the embeddings of a run"
    run = npy.read_npz(path, problem, "name another file")
    return _of_split(run, "", path), _of_split(run, "bank_", path)


def _of_split(run: dict[str, np.ndarray], prefix: str, path: str) -> Arrays:
    if missing := [prefix + name for name in BANK if prefix + name not in run]:
        raise InputError(f"{path}: expected the embeddings of a run, it has no {missing[0]}")
    names = [prefix + name for name in BANK]
    text, video = (arrays.single(run[name], f"{path}: {name}") for name in names[:2])
    of = arrays.whole(run[names[2]], f"{path}: {names[2]}")
    if text.ndim != 2 or video.ndim != 2 or of.shape != (len(text),) or not of.size:
        raise InputError(f"{path}: expected text and video [row, dim] and video_of_text [text]")
    if text.shape[1] != video.shape[1] or of.min() < 0 or of.max() >= len(video):
        raise InputError(f"{path}: its texts and videos do not fit together")
    if not (np.isfinite(text).all() and np.isfinite(video).all()):
        raise InputError(f"{path} must be finite, it holds NaN or infinity; repair these rows")
    return text, video, of


def _pairs(text: np.ndarray, video: np.ndarray, path: str | None, *usual: str) -> Arrays:
    if text.shape[1] != video.shape[1]:
        raise InputError(f"texts have width {text.shape[1]}, videos {video.shape[1]}; they must "
                         "come from one model")  # fmt: skip
    of = np.arange(len(text)) if path is None else arrays.whole(_array(path, usual), path)
    if path is None and len(text) != len(video):
        raise InputError(f"{len(text)} texts and {len(video)} videos: row i must describe row i, "
                         "or give --video-of-text")  # fmt: skip
    if of.shape != (len(text),) or not of.size or of.min() < 0 or of.max() >= len(video):
        raise InputError(f"video-of-text must be {len(text)} numbers in [0, {len(video)}), got "
                         f"shape {of.shape}")  # fmt: skip
    return text, video, of


def _array(path: str, usual: Sequence[str]) -> np.ndarray:
    file, name = npy.split_name(path)
    found = npy.read(file, f"cannot read {file} as arrays of NumPy", "name another file")
    return npy.pick(found, file, name, usual)


def _matrix(path: str, *usual: str) -> np.ndarray:
    matrix = arrays.real(_array(path, usual), path)
    if matrix.ndim != 2 or matrix.shape[0] < 2:
        raise InputError(f"{path} must hold a matrix with at least 2 rows, got shape "
                         f"{matrix.shape}")  # fmt: skip
    if not np.isfinite(matrix).all():
        raise InputError(f"{path} must be finite, it holds NaN or infinity; repair these rows")
    return matrix


def _unit(path: str, *usual: str) -> np.ndarray:
    rows = arrays.single(_matrix(path, *usual), path)
    # In float64, where no square is too large or too small.
    length = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not length.all():
        raise InputError(f"row {int(np.argmin(length))} of {path} is zero; drop it")
    return (rows / length).astype(np.float32)
