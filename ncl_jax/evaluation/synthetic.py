"""Made-up embeddings with hubs, for notebooks and first steps. Nothing here was learned."""

import numpy as np

from ncl_jax.evaluation.embeddings import Embedded


def embeddings(
    videos: int = 200,
    captions: int = 3,
    *,
    bank_videos: int = 600,
    dim: int = 64,
    noise: float = 2.5,
    hubs: float = 0.05,
    seed: int = 0,
) -> tuple[Embedded, Embedded]:
    """(test split, train split) of an imaginary model with a modality gap and hubs.

    Every clip has a random direction, its captions are noisy copies of it, texts and videos have
    an axis of their own, and a few clips lie close to the mean caption: these are the hubs.

    Args:
      videos: clips of the test split, >= 1.
      captions: captions per clip, >= 1.
      bank_videos: clips of the train split.
      dim: width of the embeddings.
      noise: length of a caption's deviation from its clip, in lengths of the clip's direction.
      hubs: share of the clips that are hubs, in [0, 1].
      seed: of everything random.

    Example:
      >>> test, bank = embeddings(10, 2, bank_videos=5)
      >>> test.text.shape, bank.text.shape
      ((20, 64), (10, 64))
    """
    rng = np.random.default_rng(seed)
    axes = _unit(rng.normal(size=(2, dim)))

    def split(count: int) -> Embedded:
        of = np.repeat(np.arange(count), captions)
        clip = _unit(rng.normal(size=(count, dim)))
        text = _unit(clip[of] + noise * _unit(rng.normal(size=(len(of), dim))) + axes[0])
        hub = (rng.random(count) < hubs)[:, None]
        video = _unit(clip + axes[1] + hub * 0.35 * _unit(text.mean(axis=0)))
        return Embedded(text, video, of, [f"clip{i:04}" for i in range(count)])

    return split(videos), split(bank_videos)


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
