"""`auto` on made-up matrices of many kinds that its rule was not designed on.

    python -m benchmarks.retrieval_fresh [--seeds 20] [--first 0] [--only NAME ...]

Every seed draws new pairs, half of them the bank. Gains over plain R@1 are paired by seed; *best
fixed* is the best setting of each kind, with hindsight.
"""

import argparse
from collections.abc import Callable

import numpy as np

from benchmarks.retrieval_common import show
from benchmarks.retrieval_normalizers import gains_of, report, rows_of
from ncl_jax import sinkhorn
from ncl_jax.normalizers.comparison import Pairs

Split = tuple[Pairs, Pairs]


def latent(rng: np.random.Generator, rows: int, dim: int = 96, decay: float = 0.5) -> np.ndarray:
    """Gaussian rows whose spectrum falls by a power law, as that of trained embeddings."""
    return rng.standard_normal((rows, dim)) * np.arange(1, dim + 1) ** -decay


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def halves(text: np.ndarray, video: np.ndarray, of: np.ndarray | None = None, bank: int = 0
           ) -> Split:
    """The first `bank` videos (default: half) with their texts, and the others."""
    of = np.arange(len(video)) if of is None else of
    pairs, bank = Pairs(text, video, of), bank or len(video) // 2
    order = np.arange(len(video))
    return pairs.take(order[:bank]), pairs.take(order[bank:])


def balanced(rng: np.random.Generator) -> Split:
    """Isotropic and without hubs: nothing to gain."""
    video = latent(rng, 500, 64, 0.0)
    return halves(unit(video + 2.4 * latent(rng, 500, 64, 0.0)), unit(video))


def anisotropic(rng: np.random.Generator) -> Split:
    """A few strong directions make natural hubs."""
    video = latent(rng, 500, 96, 0.6)
    return halves(unit(video + 0.9 * latent(rng, 500, 96, 0.3)), unit(video))


def modality_gap(rng: np.random.Generator) -> Split:
    """Two cones with different axes, as in CLIP; queries vary about theirs."""
    video, axis = latent(rng, 500), unit(latent(rng, 2, 96, 0.2))
    text = video + 1.3 * latent(rng, 500, 96, 0.4)
    return halves(unit(text + 1.2 * axis[0]), unit(video + 1.2 * axis[1]))


def strong_hubs(rng: np.random.Generator) -> Split:
    """One item in ten lies near the mean query."""
    video, shift = latent(rng, 500), unit(latent(rng, 1, 96, 0.1))
    text = video + 1.6 * latent(rng, 500) + shift
    return halves(unit(text), unit(video + shift * (rng.random((500, 1)) < 0.1)))


def item_offsets(rng: np.random.Generator) -> Split:
    """A score matrix in which every item carries an offset of its own."""
    video = unit(latent(rng, 500, 96, 0.2))
    text = unit(video + 0.25 * rng.standard_normal(video.shape))
    scores = text @ video.T + 0.04 * rng.standard_normal(500)
    return halves(scores.astype(np.float32), np.eye(500, dtype=np.float32))


def negative_distances(rng: np.random.Generator) -> Split:
    """Uncalibrated scores: minus 40 squared distances of embeddings of any length."""
    video = latent(rng, 500)
    text = video + 1.8 * latent(rng, 500)
    square = (text**2).sum(1)[:, None] + (video**2).sum(1) - 2 * text @ video.T
    return halves((-40 * square).astype(np.float32), np.eye(500, dtype=np.float32))


def raw_products(rng: np.random.Generator) -> Split:
    """Inner products without normalisation: long items answer everything."""
    video = latent(rng, 500) * np.exp(0.1 * rng.standard_normal((500, 1)))
    text = video + 1.2 * latent(rng, 500)
    return halves((text @ video.T).astype(np.float32), np.eye(500, dtype=np.float32))


def tiny_bank(rng: np.random.Generator) -> Split:
    """Thirty training pairs against 300 test items."""
    video = latent(rng, 330)
    return halves(unit(video + 1.6 * latent(rng, 330)), unit(video), bank=30)


def small_bank(rng: np.random.Generator) -> Split:
    """Eighty training pairs with a modality gap."""
    video, axis = latent(rng, 400), 1.2 * unit(latent(rng, 2, 96, 0.2))
    text = video + 1.3 * latent(rng, 400, 96, 0.4)
    return halves(unit(text + axis[0]), unit(video + axis[1]), bank=80)


def noisy_labels(rng: np.random.Generator) -> Split:
    """Three in ten training texts describe another video."""
    video = latent(rng, 500)
    text = video + 1.5 * latent(rng, 500, 96, 0.4)
    wrong = np.flatnonzero(rng.random(250) < 0.3)
    text[wrong] = text[rng.permutation(wrong)]
    return halves(unit(text), unit(video))


def paraphrases(rng: np.random.Generator) -> Split:
    """Five captions per video, close to each other."""
    video, of = latent(rng, 300), np.repeat(np.arange(300), 5)
    text = (video + 1.5 * latent(rng, 300, 96, 0.4))[of] + 0.6 * latent(rng, 1500)
    return halves(unit(text), unit(video), of)


def captions_of_videos(rng: np.random.Generator) -> Split:
    """The reverse of one caption in five: videos rank single captions."""
    bank, test = paraphrases(rng)
    turned = [Pairs(p.video, p.text[::5], np.arange(len(p.video))) for p in (bank, test)]
    return turned[0], turned[1]


def memorised(rng: np.random.Generator) -> Split:
    """Training texts lie closer to their videos than test texts: an overfitted model."""
    video = latent(rng, 500)
    noise = 1.6 * latent(rng, 500, 96, 0.4)
    noise[:250] *= 0.4
    return halves(unit(video + noise), unit(video))


def other_domain(rng: np.random.Generator) -> Split:
    """The bank's texts and videos are centred elsewhere than those of the test."""
    video, shift = latent(rng, 500), 1.0 * unit(latent(rng, 1, 96, 0.1))
    text = video + 1.6 * latent(rng, 500, 96, 0.4)
    text[:250] += shift
    video[:250] += shift
    return halves(unit(text), unit(video))


def clusters(rng: np.random.Generator) -> Split:
    """Forty topics: near-duplicates compete, topics differ in size."""
    centre = latent(rng, 40)
    topic = rng.choice(40, 500, p=(w := 1 / np.arange(1, 41)) / w.sum())
    video = centre[topic] + 0.5 * latent(rng, 500)
    return halves(unit(video + 1.1 * latent(rng, 500, 96, 0.4)), unit(video))


def low_recall(rng: np.random.Generator) -> Split:
    """A weak model: most queries fail."""
    video = latent(rng, 600)
    return halves(unit(video + 2.5 * latent(rng, 600, 96, 0.4)), unit(video))


def vague_captions(rng: np.random.Generator) -> Split:
    """Some captions say much, some nearly nothing."""
    video = latent(rng, 500)
    noise = np.exp(0.7 * rng.standard_normal((500, 1))) * latent(rng, 500, 96, 0.4)
    return halves(unit(video + 1.4 * noise), unit(video))


def levelled(rng: np.random.Generator) -> Split:
    """Scores that are balanced already, by Sinkhorn on all pairs: a fine-tuned model."""
    video = latent(rng, 500)
    scores = 30 * unit(video + 1.7 * latent(rng, 500, 96, 0.4)) @ unit(video).T
    biases, _ = sinkhorn.solve(scores, np.ones(500), np.ones(500), iterations=100)
    return halves(scores + np.asarray(biases.video), np.eye(500, dtype=np.float32))


KINDS: dict[str, Callable[[np.random.Generator], Split]] = {
    make.__name__: make
    for make in (
        balanced,
        anisotropic,
        modality_gap,
        strong_hubs,
        item_offsets,
        negative_distances,
        raw_products,
        tiny_bank,
        small_bank,
        noisy_labels,
        paraphrases,
        captions_of_videos,
        memorised,
        other_domain,
        clusters,
        low_recall,
        vague_captions,
        levelled,
    )
}


def main() -> None:
    """Prints the gains of auto and of the best fixed settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--only", nargs="*", default=list(KINDS))
    args = parser.parse_args()
    found = {}
    for name in args.only:
        found[name] = [
            gains_of(*KINDS[name](np.random.default_rng([args.first + seed, len(name)])))
            for seed in range(args.seeds)
        ]
        print(f"{name}: done", flush=True)
    show(f"Made-up scores, seeds {args.first} to {args.first + args.seeds - 1}", rows_of(found))
    for row in report(found):
        print(f"{row.value:+.2f}  {row.what}  {row.target}")


if __name__ == "__main__":
    main()
