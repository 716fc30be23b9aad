"""A split in the shared space: how it is embedded, sampled and saved."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from ncl_jax.errors import InputError
from ncl_jax.files import replaced

if TYPE_CHECKING:  # made-up embeddings need the library's own requirements only
    from etils import epath


class Embedded(NamedTuple):
    """A split in the shared space: one row per caption and per clip, unit norm, float32."""

    text: Float[np.ndarray, "text dim"]
    video: Float[np.ndarray, "video dim"]
    video_of_text: Int[np.ndarray, " text"]
    video_ids: Sequence[str]
    captions: Sequence[str] = ()  # the words of `text`, where they are known


def embed(
    encode: Callable[..., tuple[Array, Array]],
    batches: Iterable[tuple[np.ndarray, ...]],
    count: int,
) -> Float[np.ndarray, "row dim"]:
    """All items of a split in order, whichever process or device embedded them.

    Args:
      encode: (ids, *rest of a batch) -> (ids, embeddings) of all processes; id -1 is padding.
      batches: with the ids 0 to count - 1, each exactly once over all processes.
      count: of items.

    Raises:
      ValueError: an id is missing or came twice.
    """
    seen = np.zeros(count, int)
    rows = np.zeros((count, 0), np.float32)
    for batch in batches:
        ids, found = (np.asarray(x) for x in encode(*batch))
        live = ids >= 0
        if not rows.size:
            rows = np.zeros((count, *found.shape[1:]), found.dtype)
        np.add.at(seen, ids[live], 1)
        rows[ids[live]] = found[live]
    if (seen != 1).any():
        raise InputError(
            f"expected each of {count} rows to be embedded once, got {np.sum(seen == 0)} missing "
            f"and {np.sum(seen > 1)} repeated"
        )
    return rows


def embed_captions(
    captions: Sequence[str], encode: Callable[[list[str]], np.ndarray]
) -> Float[np.ndarray, "text dim"]:
    """Each different string is embedded once, so that equal captions tie exactly."""
    different, place = np.unique(np.asarray(captions, dtype=object).astype(str),
                                 return_inverse=True)
    return encode(different.tolist())[place]


def sample(split: Embedded, clips: int, captions: int, seed: int) -> Embedded:
    """A bank of random clips, and of random captions of each, in the order of the split.

    Args:
      split: to draw from, without replacement.
      clips: how many; 0, or more than there are, for all.
      captions: of each clip; likewise.
      seed: of the draw; the clips do not depend on `captions`.
    """
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(len(split.video))[: clips or None])
    place = np.full(len(split.video), -1)
    place[drawn] = np.arange(len(drawn))
    order = rng.permutation(len(split.text))
    by_clip = order[np.argsort(split.video_of_text[order], kind="stable")]
    of = split.video_of_text[by_clip]
    turn = np.arange(len(of)) - np.searchsorted(of, of)  # a caption's number within its clip
    texts = np.sort(by_clip[(place[of] >= 0) & (turn < (captions or len(of)))])
    return Embedded(
        split.text[texts],
        split.video[drawn],
        place[split.video_of_text[texts]],
        [split.video_ids[i] for i in drawn],
        [split.captions[i] for i in texts] if split.captions else (),
    )


def save_embeddings(path: "epath.Path", test: Embedded, bank: Embedded, scale: float) -> None:
    """What `python -m ncl_jax.cli.normalize --embeddings` reads: a `.npz`, whole or absent."""
    with replaced(path) as stream:
        np.savez(
            stream,
            text=test.text, video=test.video, video_of_text=test.video_of_text,
            bank_text=bank.text, bank_video=bank.video, bank_video_of_text=bank.video_of_text,
            video_ids=np.asarray(test.video_ids, str), scale=scale,
        )  # fmt: skip
