"""`auto` against every single fixed setting, on the real sets, paired over 20 seeds.

    NCL_REAL_DATA=... python -m benchmarks.retrieval_normalizers [--quick]

Half of the pairs are the bank, the gallery is cut to the other half. A *fixed* setting is one
normaliser at one setting for all sets, picked with hindsight as the best on average.
"""

import os
import pathlib
import sys
from typing import Any

import numpy as np

from benchmarks.common import Row, at_least, note
from ncl_jax import metrics
from ncl_jax.normalizers import Auto, Ncl, Nnn, auto
from ncl_jax.normalizers.comparison import Pairs, settings

FIXED = ("none", "ncl", "inverted_softmax", "csls", "nnn", "qb_norm")


def real_sets() -> dict[str, Pairs]:
    """The sets of NCL_REAL_DATA, each in both directions; empty where it is not there."""
    root = pathlib.Path(os.environ.get("NCL_REAL_DATA", "/nowhere"))
    if not (root / "sims").is_dir():
        return {}
    matrix = np.load(root / "sims" / "msrvtt_video_matrix.npy")
    image, text = np.load(root / "embeddings" / "features_clip.npy")
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    eye, pairs = np.eye(len(matrix), dtype=np.float32), np.arange(len(matrix))
    half = np.arange(len(text))
    return {
        "1k-A matrix t2v": Pairs(matrix, eye, pairs),
        "1k-A matrix v2t": Pairs(np.ascontiguousarray(matrix.T), eye, pairs),
        "CLIP on COCO t2i": Pairs(text, image, half),
        "CLIP on COCO i2t": Pairs(image, text, half),
    }


def halved(pairs: Pairs, seed: int) -> tuple[Pairs, Pairs]:
    """(bank, test): random halves of the pairs."""
    order = np.random.default_rng(seed).permutation(len(pairs.video))
    return pairs.take(order[: len(order) // 2]), pairs.take(order[len(order) // 2 :])


def gains_of(bank_pairs: Pairs, test: Pairs) -> dict[str, float]:
    """R@1 above plain of every setting and of auto, and R@1 of plain; queries rank items."""
    bank = bank_pairs.bank("t2v")
    _, spread = auto.trials(bank)
    grid = {f"{n} {label}": m for n in FIXED for label, m in settings(spread)[n]}
    grid |= {f"ncl scale={u:g}/spread strength={s:g}": Ncl(u / spread, strength=s)
             for u in (1.5, 2.5, 4.0) for s in auto.STRENGTHS[:-1]}
    grid |= {f"nnn k=10 alpha={a:g}": Nnn(10, a) for a in (0.25, 0.5, 0.75)}
    grid["auto"] = Auto()
    score = {
        name: metrics.text_to_video(m.fit(bank, test.video).lazy(test.text),
                                    test.video_of_text)["R@1"]
        for name, m in grid.items()
    }
    plain = score.pop("none ")
    return {name: value - plain for name, value in score.items()} | {"plain": plain}


def report(found: dict[str, list[dict[str, float]]]) -> list[Row]:
    """Mean gains of auto per set, and its paired lead over the best fixed setting."""
    table: dict[str, Any] = {
        setting: np.asarray([[g[setting] for g in runs] for runs in found.values()])
        for setting in next(iter(found.values()))[0]
        if setting != "plain"
    }  # setting -> [set, seed]
    table["none"] = np.zeros_like(table["auto"])
    best = max((s for s in table if s != "auto"), key=lambda s: table[s].mean())
    rows = [
        at_least("normalisers", f"auto over plain, R@1, {name} (95 % {_interval(gain)}; best "
                 f"fixed {table[best][n].mean():+.2f})", gain.mean(), -0.3)
        for n, (name, gain) in enumerate(zip(found, table["auto"], strict=True))
    ]  # fmt: skip
    lead = (table["auto"] - table[best]).mean(axis=0)
    rows += [
        note("normalisers", "auto over plain, mean over sets", table["auto"].mean()),
        note("normalisers", f"best fixed ({best}) over plain, mean over sets", table[best].mean()),
        note("normalisers", f"auto over best fixed (95 % {_interval(lead)})", lead.mean()),
    ]
    for setting in sorted(table, key=lambda s: -table[s].mean())[:8]:
        per_set = ", ".join(f"{g.mean():+.2f}" for g in table[setting])
        rows.append(note("normalisers", f"{setting}: {per_set}", table[setting].mean()))
    return rows


def run(quick: bool = False) -> list[Row]:
    """The rows of `report` for the real sets."""
    found = {
        name: [gains_of(*halved(pairs, seed)) for seed in range(3 if quick else 20)]
        for name, pairs in real_sets().items()
    }
    if not found:
        print("retrieval_normalizers: NCL_REAL_DATA is not set, nothing to measure")
    return report(found) if found else []


def _interval(gain: np.ndarray) -> str:
    return f"± {1.96 * gain.std(ddof=1) / np.sqrt(len(gain)):.2f}"


def main() -> None:
    """Prints the rows."""
    for row in run("--quick" in sys.argv):
        print(f"{row.value:+.2f}  {row.what}  {row.target}")


if __name__ == "__main__":
    main()
