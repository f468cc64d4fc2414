"""From scores of all items to ranks, and from ranks to figures with intervals.

A query has one item that it was made from, and every item with the very same content in what is asked is as
right an answer as that one. Its rank is that of the best right answer. Items that tie with it (copies of one
picture have equal vectors) would come in any order, so they count by half for ranks, and R@k is the chance
that a right one is among the first k if ties were broken by lot. A model that gives all items one vector thus
gets the R@k of guessing, not 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ranking import Floats, Ints

TIE = 2e-6
"""Scores so near each other are equal: a matrix product in float32 rounds by its place."""

CUTS = (1, 5, 10)
NUM_RESAMPLES = 2000
_DRAWN_AT_ONCE = 1 << 20
_CONFIDENCE = 95


@dataclass(frozen=True)
class Interval:
    """Where a figure lies with 95 % confidence, by bootstrap over the queries."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two share a value."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Figures:
    """How a set of queries did.

    Args:
        num_queries: how many were asked.
        r1: fraction of queries with a right item first, 0..1.
        r5: among the first 5.
        r10: among the first 10.
        median_rank: of the best right item, 1 is best.
        map: mean average precision over all right items of each query, 0..1; with one right item each, the
            mean of 1 / rank.
        r1_interval: of r1.
    """

    num_queries: int
    r1: float
    r5: float
    r10: float
    median_rank: float
    map: float
    r1_interval: Interval


@dataclass(frozen=True)
class Place:
    """Where the right items of one query came in.

    Args:
        rank: of the best of them; half a rank more for every other item that ties with it.
        hits: for each of CUTS, the chance that a right one is among so many.
        precision: average precision.
    """

    rank: float
    hits: tuple[float, ...]
    precision: float


def place_of(scores: Floats, right: Ints) -> Place:
    """Where right items come in among all.

    Args:
        scores: (N,), -inf for items that are not in the ranking.
        right: at least one place in `scores`; those not in the ranking are passed over, not all of them.
    """
    right = right[np.isfinite(scores[right])]
    assert len(right)
    mine = np.sort(scores[right])[::-1]
    others = np.sort(np.delete(scores, right))
    above = len(others) - np.searchsorted(others, mine + TIE, "right")
    tied = len(others) - np.searchsorted(others, mine - TIE, "left") - above
    places = above + tied / 2 + np.arange(1, len(mine) + 1)
    equals = int(np.count_nonzero(mine >= mine[0] - TIE))
    return Place(
        rank=float(places[0]),
        hits=tuple(_chance(cut - int(above[0]), int(tied[0]), equals) for cut in CUTS),
        precision=float(np.mean(np.arange(1, len(mine) + 1) / places)),
    )


def _chance(num_drawn: int, num_wrong: int, num_right: int) -> float:
    """The chance that some right one is among the first `num_drawn` of items in random order."""
    if num_drawn <= 0:
        return 0.0
    missing = 1.0
    for i in range(num_right):
        missing *= max(0, num_wrong + num_right - num_drawn - i) / (num_wrong + num_right - i)
    return 1 - missing


def figures_of(places: Sequence[Place], seed: int) -> Figures:
    """Sum up the places of at least one query."""
    hits = np.array([place.hits for place in places])
    (means,) = resampled([hits[:, 0]], seed)
    r1, r5, r10 = (float(value) for value in hits.mean(0))
    return Figures(
        num_queries=len(places),
        r1=r1,
        r5=r5,
        r10=r10,
        median_rank=float(np.median([place.rank for place in places])),
        map=float(np.mean([place.precision for place in places])),
        r1_interval=interval_of(means),
    )


def resampled(values: Sequence[Floats], seed: int) -> list[Floats]:
    """Means of values over resamples of the queries, the same resamples for all of them.

    Args:
        values: arrays (Q,) over the same queries.
        seed: of the resamples; the same for the same Q.

    Returns:
        For each array (2000,) means.
    """
    num = len(values[0])
    random = np.random.default_rng((seed, num))
    stacked = np.stack([np.asarray(each, np.float64) for each in values], axis=1)
    means = np.empty((NUM_RESAMPLES, len(values)))
    size = max(1, _DRAWN_AT_ONCE // num)
    for start in range(0, NUM_RESAMPLES, size):
        stop = min(start + size, NUM_RESAMPLES)
        means[start:stop] = stacked[random.integers(0, num, (stop - start, num))].mean(1)
    return list(means.T)


def interval_of(means: Floats) -> Interval:
    """The middle 95 % of resampled means."""
    tail = (100 - _CONFIDENCE) / 2
    low, high = np.percentile(means, (tail, 100 - tail))
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class Gap:
    """What a mix gives beyond its best single part, on the same queries.

    Args:
        mix: its modalities joined by `+`.
        view: what was searched.
        num_queries: queries that have all the parts.
        r1: of the mix.
        r1_interval: of the mix.
        parts: R@1 of each part alone.
        part_intervals: of each.
        best_part: the part with the highest R@1.
        gap: r1 of the mix minus that of its best part.
        gap_interval: of the gap, paired: mix and parts on the same resampled queries, and in each resample
            the best part is chosen anew.
        apart: whether the mix's own interval lies above that of its best part, without overlap.
    """

    mix: str
    view: str
    num_queries: int
    r1: float
    r1_interval: Interval
    parts: Mapping[str, float]
    part_intervals: Mapping[str, Interval]
    best_part: str
    gap: float
    gap_interval: Interval
    apart: bool


def gap_of(
    mix: str, view: str, mixed: Sequence[Place], parts: Mapping[str, Sequence[Place]], seed: int
) -> Gap:
    """Compare a mix with its parts; all sequences are of the same queries in the same order."""
    hits = {name: np.array([place.hits[0] for place in places]) for name, places in parts.items()}
    of_mix = np.array([place.hits[0] for place in mixed])
    mix_means, *part_means = resampled([of_mix, *hits.values()], seed)
    r1 = {name: float(values.mean()) for name, values in hits.items()}
    best = max(r1, key=lambda name: r1[name])
    intervals = {name: interval_of(means) for name, means in zip(hits, part_means, strict=True)}
    mix_interval = interval_of(mix_means)
    return Gap(
        mix=mix,
        view=view,
        num_queries=len(mixed),
        r1=float(of_mix.mean()),
        r1_interval=mix_interval,
        parts=r1,
        part_intervals=intervals,
        best_part=best,
        gap=float(of_mix.mean()) - r1[best],
        gap_interval=interval_of(mix_means - np.max(part_means, axis=0)),
        apart=mix_interval.low > intervals[best].high,
    )
