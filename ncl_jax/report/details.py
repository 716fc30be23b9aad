"""What the embeddings of one run show, with the pictures: balance, hubs, telling queries."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ncl_jax import metrics
from ncl_jax.normalizers import Bank, Ncl, Plain, SinkhornTest
from ncl_jax.report import findings, pictures, plots
from ncl_jax.report.curves import Chart

BANK_SHOWN = 10_000
"""Bank captions that the curve over Sinkhorn iterations is computed on, at most."""


class Split(Protocol):
    """Embeddings of a split: unit norm, one row per caption and per clip."""

    @property
    def text(self) -> np.ndarray: ...
    @property
    def video(self) -> np.ndarray: ...
    @property
    def video_of_text(self) -> np.ndarray: ...
    @property
    def video_ids(self) -> Sequence[str]: ...


class Captioned(Protocol):
    """The dataset's test split."""

    @property
    def captions(self) -> Sequence[str]: ...


class Opened(Protocol):
    """A finished run, opened again (`ncl_jax.experiment.finished.FinishedRun`)."""

    @property
    def test(self) -> Split: ...
    @property
    def bank(self) -> Split: ...
    @property
    def scale(self) -> float: ...
    @property
    def split(self) -> Captioned: ...
    def frames(self, video: int, count: int) -> list[bytes]: ...


class Clip(NamedTuple):
    """A test clip as the page shows it."""

    id: str
    caption: str  # its first
    picture: pictures.Picture


class Hit(NamedTuple):
    """A clip in a result list."""

    place: str
    clip: Clip
    right: bool


class QueryView(NamedTuple):
    """A query with what it found before and after normalisation."""

    why: str
    caption: str
    rank_before: float
    rank_after: float
    before: list[Hit]
    after: list[Hit]


class ClipView(NamedTuple):
    """A clip with its place in the balance, before and after normalisation."""

    clip: Clip
    firsts: tuple[int, int]
    lists: tuple[int, int]
    share: tuple[float, float]


class Details(NamedTuple):
    """All of it, for one run."""

    charts: list[Chart]
    hubness: list[tuple[str, list[float]]]  # kind of scores, values of HUBNESS
    hubs: list[ClipView]
    never: list[ClipView]
    never_count: tuple[int, int]  # clips that are never first, before and after
    unlisted_count: tuple[int, int]  # clips in no list, before and after
    queries: list[tuple[str, list[QueryView]]]  # by why they are shown
    normaliser: str
    videos: int


HUBNESS = {
    "in no list": ("anti_hub_rate", 100.0, "%"),
    "places held by hubs": ("hub_occurrence", 100.0, "%"),
    "skewness": ("skewness", 1.0, "of list counts"),
}


def details(run: Opened, iterations: int) -> Details:
    """Look at the test split of a run, before and after normalisation by its bank.

    Args:
      run: its embeddings, captions and frames.
      iterations: of Sinkhorn, as in the run's own evaluation.
    """
    test, bank, scale = run.test, run.bank, run.scale
    kinds: dict[str, Any] = {
        "plain": Plain(scale),
        "inductive": Ncl(scale, iterations),
        "transductive": SinkhornTest(scale, iterations),
    }
    by_text = {k: n.fit(Bank(bank.text), test.video).lazy(test.text) for k, n in kinds.items()}
    by_video = {k: n.fit(Bank(bank.video), test.text).lazy(test.video) for k, n in kinds.items()}
    found = {k: findings.search(s, test.video_of_text) for k, s in by_text.items()}
    before, after, _ = found.values()
    clip = _clips(run)
    count = min(findings.LIST, len(test.video))
    hubness = {k: metrics.hubness(s, count) for k, s in by_text.items()}

    def view(video: int) -> ClipView:
        return ClipView(
            clip(video),
            (int(before.firsts[video]), int(after.firsts[video])),
            (int(before.lists[video]), int(after.lists[video])),
            (float(before.share[video]), float(after.share[video])),
        )

    queries = findings.telling_queries(before, after, test.video_of_text)
    return Details(
        charts=list(_charts(run, found, by_video)),
        hubness=[
            (k, [h[key] * factor for key, factor, _ in HUBNESS.values()])
            for k, h in hubness.items()
        ],
        hubs=[view(video) for video in findings.hubs(before)],
        never=[view(video) for video in findings.never_first(before)],
        never_count=(_zeros(before.firsts), _zeros(after.firsts)),
        unlisted_count=(_zeros(before.lists), _zeros(after.lists)),
        queries=[
            (why, [_query(run, q, before, after, clip) for q in group])
            for why, group in itertools.groupby(queries, lambda q: q.why)
        ],
        normaliser=f"Sinkhorn, {iterations} iterations, scale {scale:.3g} logits per cosine",
        videos=len(test.video),
    )


def _charts(
    run: Opened, found: dict[str, findings.Search], by_video: dict[str, Any]
) -> Iterator[Chart]:
    videos = {k: s.share for k, s in found.items()}
    texts = {k: findings.shares(s) for k, s in by_video.items()}
    for title, of, balance in (
        ("Text to video: how often each clip comes up", "clips", videos),
        ("Video to text: how often each caption comes up", "captions", texts),
    ):
        figure = plots.shares(balance, of=f"{of} (count)")
        described = f"histogram of summed retrieval probability of {of}"
        yield Chart(title, plots.svg(figure, described))
    recalls = {k: findings.recall_curve(s.rank) for k, s in found.items()}
    figure = plots.lines(recalls, x="k (clips)", y="recall at k, text to video (%)")
    drawn = plots.svg(figure, "recall at k, text to video")
    yield Chart("Text to video: right clip among the k best", drawn, plots.points(figure))
    keep = np.random.default_rng(0).permutation(len(run.bank.text))[:BANK_SHOWN]
    figure = plots.convergence(
        findings.convergence(
            run.test.text, run.test.video, run.bank.text[np.sort(keep)], run.scale
        )
    )
    title = "Normalisation error against Sinkhorn iterations"
    yield Chart(title, plots.svg(figure, title), plots.points(figure))


def _query(
    run: Opened,
    query: findings.Query,
    before: findings.Search,
    after: findings.Search,
    clip: Callable[[int], Clip],
) -> QueryView:
    right = int(run.test.video_of_text[query.text])

    def hits(found: findings.Search) -> list[Hit]:
        best = [int(video) for video in found.best[query.text]]
        shown = [Hit(f"{place}.", clip(v), v == right) for place, v in enumerate(best, 1)]
        if right not in best:
            shown.append(Hit(f"{found.rank[query.text]:g}.", clip(right), True))
        return shown

    return QueryView(
        query.why,
        run.split.captions[query.text],
        float(before.rank[query.text]),
        float(after.rank[query.text]),
        hits(before),
        hits(after),
    )


def _zeros(counts: np.ndarray) -> int:
    return int(np.count_nonzero(counts == 0))


def _clips(run: Opened) -> Callable[[int], Clip]:
    """The page's view of a test clip; each is decoded once."""
    of, captions = run.test.video_of_text.tolist(), run.split.captions
    first = dict(zip(of[::-1], captions[::-1], strict=True))
    kept: dict[int, Clip] = {}

    def clip(video: int) -> Clip:
        if video not in kept:
            picture = pictures.strip(run.frames(video, pictures.FRAMES))
            kept[video] = Clip(run.test.video_ids[video], first.get(video, ""), picture)
        return kept[video]

    return clip
