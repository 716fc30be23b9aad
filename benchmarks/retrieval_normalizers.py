"""`auto` against the best fixed setting of every set, on public real sets in both directions.

    NCL_REAL_DATA=... python -m benchmarks.retrieval_normalizers --cache FOLDER [--seeds 20]

The sets are those of `retrieval_sets`, embedded once and kept in FOLDER. A seed draws 1,000 pairs,
or all of fewer; half of them are the test. The bank is the other half, a fifth of all, or the
training pairs that came with the set. *Best fixed* is, of all normalisers at all settings, the one
with the highest mean gain over plain on that very set, with hindsight. One line below
each table is for an `auto` whose caution is chosen, for every set, on the other sets alone.

*Online* is what `auto` chose, fitted anew on the bank and the queries answered so far, after every
ONLINE of them: over `auto` on the same queries, first with each test query once in a random order,
then with as many drawn by Zipf's law, the item of rank r with a share of 1 / r. `--online` leaves
out the fixed settings, which take most of the time.
"""

import argparse
import multiprocessing
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.common import Row, at_least, note
from benchmarks.retrieval_common import show
from benchmarks.retrieval_sets import SETS, RealSet, load
from ncl_jax import metrics
from ncl_jax.normalizers import Auto, Bank, BiasFitted, Ncl, Online, Plain, auto
from ncl_jax.normalizers.comparison import Pairs, settings

FIXED = ("none", "ncl", "inverted_softmax", "csls", "nnn", "qb_norm")
CAUTIONS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
GOALS = {"half": 0.88, "fifth": 0.70}
"""Share of the best fixed settings' gain that `auto` should take, in the mean over sets."""
ONLINE = 50
"""Queries between two refits of the online rows."""
NO_SETTING = ("auto", "plain", "online")
"""How the names begin that are no fixed setting."""
MOST = 1000
Found = dict[str, list[dict[str, float]]]
"""For every set what `gains_of` found, by seed."""


def banks(found: RealSet, seed: int) -> Iterator[tuple[str, Pairs, Pairs]]:
    """(kind of bank, bank, test) for one seed."""
    order = np.random.default_rng(seed).permutation(len(found.pairs.video))[:MOST]
    test = found.pairs.take(order[len(order) // 2 :])
    yield "half", found.pairs.take(order[: len(order) // 2]), test
    yield "fifth", found.pairs.take(order[: len(order) // 5]), test
    if found.train:
        yield "train", found.train, test


def turned(pairs: Pairs) -> Pairs:
    """Items as queries, for sets with one query per item."""
    return Pairs(pairs.video, pairs.text, np.argsort(pairs.video_of_text))


def fixed_settings(spread: float) -> dict[str, Any]:
    """Every normaliser at every setting by name; the candidates of `auto` are among them."""
    grid = {f"{n} {label}".strip(): m for n in FIXED for label, m in settings(spread)[n]}
    tried = [(u, s) for u in auto.SHARPNESS for s in auto.STRENGTHS]
    tried += [(u, s) for u in (1.0, 4.0) for s in (0.2, 0.35, 0.65)]
    return grid | {f"ncl scale={u:g}/spread strength={s:g}": Ncl(u / spread, strength=s)
                   for u, s in tried}  # fmt: skip


def gains_of(bank_pairs: Pairs, test: Pairs, fixed: bool = True) -> dict[str, float]:
    """R@1 over plain of every setting, of auto, of auto by other cautions; and R@1 of plain.

    "online" and "online, Zipf" are over `auto`. Without `fixed` only these, auto and plain.
    """
    bank = bank_pairs.bank("t2v")
    chosen = Auto().fit(bank, test.video)
    grid = fixed_settings(chosen.evidence.get("spread", 1.0)) if fixed else {"none": Plain()}
    fitted = {name: m.fit(bank, test.video) for name, m in grid.items()} | {"auto": chosen}
    score = {name: metrics.text_to_video(f.lazy(test.text), test.video_of_text)["R@1"]
             for name, f in fitted.items()}  # fmt: skip
    plain = score["none"]
    table = fitted["auto"].evidence.get("table", {"none": {"gain": 0.0, "error": 0.0}})
    for caution in CAUTIONS if fixed else ():
        best = max(table, key=lambda n: table[n]["gain"])
        sure = table[best]["gain"] > caution * table[best]["error"]
        score[f"auto, caution {caution:g}"] = score[best if sure else "none"]
    gains = {name: value - plain for name, value in score.items()} | {"plain": plain}
    return gains | online_gains(bank, test, chosen)


def online_gains(bank: Bank, test: Pairs, chosen: BiasFitted) -> dict[str, float]:
    """R@1 of online biases over those of `chosen`, with each test query once and by Zipf's law."""
    name, spread = chosen.evidence["choice"], chosen.evidence.get("spread", 1.0)
    rule = Plain() if name == "none" else fixed_settings(spread)[name]
    found = {}
    for kind, drawn in (("online", test), ("online, Zipf", by_zipf(test))):
        fitted = Online(ONLINE, rule, order=0).fit(bank, test.video)
        score = [metrics.text_to_video(f.lazy(drawn.text), drawn.video_of_text)["R@1"]
                 for f in (fitted, chosen)]  # fmt: skip
        found[kind] = score[0] - score[1]
    return found


def by_zipf(test: Pairs) -> Pairs:
    """As many queries as there are, drawn with replacement: those of the item of rank r 1 / r."""
    rng = np.random.default_rng(0)
    share = 1 / (1 + rng.permutation(len(test.video)))[test.video_of_text]
    drawn = rng.choice(len(test.text), len(test.text), p=share / share.sum())
    return test._replace(text=test.text[drawn], video_of_text=test.video_of_text[drawn])


def rows_of(found: Found) -> list[dict[str, Any]]:
    """One row per set: plain, the best fixed setting, auto with its 95 % interval, share taken."""
    rows = []
    for name, runs in found.items():
        mean = {s: float(np.mean([r[s] for r in runs])) for s in runs[0]}
        best = max((s for s in mean if not s.startswith(NO_SETTING)), key=mean.__getitem__)
        compared = {
            "best fixed": f"{mean[best]:+.2f}",
            "which": best,
            "share": f"{mean['auto'] / mean[best]:.0%}" if mean[best] > 1 else "",
        } if len(_fixed(found)) > 1 else {}  # fmt: skip
        online = {kind: np.asarray([r[kind] for r in runs]) for kind in ("online", "online, Zipf")}
        gain = np.asarray([r["auto"] for r in runs])
        rows.append({
            "set": name,
            "plain R@1": f"{mean['plain']:.1f}",
            "auto": f"{mean['auto']:+.2f} ± {_interval(gain):.2f}",
            **compared,
            **{kind: f"{g.mean():+.2f} ± {_interval(g):.2f}" for kind, g in online.items()},
        })  # fmt: skip
    return rows


def report(found: Found, goal: float | None = None) -> list[Row]:
    """What holds in the mean over sets, and for the worst of them."""
    compared = _compared(found, goal) if len(_fixed(found)) > 1 else []
    return [*compared, *_online(found)]


def _compared(found: Found, goal: float | None) -> list[Row]:
    auto_gain, best = _means(found, "auto"), _best(found)
    large = best > 1
    lowest = min(np.mean(g := [r["auto"] for r in runs]) + _interval(np.asarray(g))
                 for runs in found.values())  # fmt: skip
    share = auto_gain.sum() / best.sum()
    taken = "share of the best fixed settings' gain"
    rows = [
        at_least("normalisers", taken, share, goal) if goal else note("normalisers", taken, share),
        note("normalisers", "the same with the caution chosen on the other sets", left_out(found)),
        at_least("normalisers", "upper end of the 95 % interval of the gain, worst set", lowest, 0),
        note("normalisers", "auto over plain, mean over sets", auto_gain.mean()),
        note("normalisers", "best fixed over plain, mean over sets", best.mean()),
    ]
    rows += [note("normalisers", f"{taken}, caution {c:g}",
                  _means(found, f"auto, caution {c:g}").sum() / best.sum()) for c in CAUTIONS]
    if large.any():
        least = float((auto_gain[large] / best[large]).min())
        rows.append(at_least("normalisers", "least share where over 1 R@1 is to gain", least, 0.75))
    return rows


def _online(found: Found) -> list[Row]:
    rows = []
    for kind in ("online", "online, Zipf"):
        gain = [np.asarray([r[kind] for r in runs]) for runs in found.values()]
        mean, half = [g.mean() for g in gain], [_interval(g) for g in gain]
        up, down = (sum(s * m > h for m, h in zip(mean, half, strict=True)) for s in (1, -1))
        rows += [
            note("normalisers", f"{kind} over auto, mean over sets", float(np.mean(mean))),
            note("normalisers", f"{kind}: sets above auto by more than the interval", up),
            note("normalisers", f"{kind}: sets below auto by more than the interval", down),
        ]
    return rows


def left_out(found: Found) -> float:
    """Share taken when each set's caution is the best in the mean over all sets but it."""
    gain = np.stack([_means(found, f"auto, caution {c:g}") for c in CAUTIONS])  # [caution, set]
    stem = np.asarray([name.removesuffix(" (turned)") for name in found])
    of = [gain[np.argmax(gain[:, stem != s].sum(1)), i] if (stem != s).any() else gain[0, i]
          for i, s in enumerate(stem)]  # fmt: skip
    return float(np.sum(of) / _best(found).sum())


def _means(found: Found, setting: str) -> np.ndarray:
    return np.asarray([np.mean([r[setting] for r in runs]) for runs in found.values()])


def _best(found: Found) -> np.ndarray:
    return np.max([_means(found, s) for s in _fixed(found)], axis=0)


def _fixed(found: Found) -> list[str]:
    return [s for s in next(iter(found.values()))[0] if not s.startswith(NO_SETTING)]


def _interval(gain: np.ndarray) -> float:
    return float(1.96 * gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0


def measure_one(
    name: str, cache: pathlib.Path, seed: int, fixed: bool = True
) -> list[tuple[str, str, dict[str, float]]]:
    """(kind of bank, set and direction, `gains_of`) of one set by one seed."""
    found = []
    for kind, bank, test in banks(load(name, cache), seed):
        found.append((kind, name, gains_of(bank, test, fixed)))
        found.append((kind, f"{name} (turned)", gains_of(turned(bank), turned(test), fixed)))
    return found


def measure(
    names: list[str], cache: pathlib.Path, seeds: int, jobs: int, fixed: bool = True
) -> dict[str, Found]:
    """`gains_of` for every kind of bank, set and direction, seed by seed."""
    for name in names:
        load(name, cache)
    tasks = [(name, cache, seed, fixed) for name in names for seed in range(seeds)]
    kinds: dict[str, Found] = {}
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for found in pool.starmap(measure_one, tasks, 1):
            for kind, way, gains in found:
                kinds.setdefault(kind, {}).setdefault(way, []).append(gains)
    return kinds


def main() -> None:
    """Prints a table for every kind of bank, and what holds over its sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="folder of embeddings")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--online", action="store_true", help="auto and online only")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    measured = measure(args.only, args.cache, args.seeds, args.jobs, not args.online)
    for kind, found in measured.items():
        show(f"Bank: {kind}, {args.seeds} seeds; (turned): items rank queries", rows_of(found))
        for row in report(found, GOALS.get(kind)):
            print(f"{row.value:.2f}  {row.what}  {row.target}")


if __name__ == "__main__":
    main()
