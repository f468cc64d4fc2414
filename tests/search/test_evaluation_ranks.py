"""Ranks with ties and several right answers, and intervals."""

import numpy as np
import pytest
from anyseek.search.evaluation.ranks import CUTS, Interval, Place, figures_of, gap_of, place_of
from hypothesis import given
from hypothesis import strategies as st


def by_lot(scores: np.ndarray, right: list[int], num: int = 4000) -> list[float]:
    """For each cut how often a right item is among the first, when ties are broken by lot."""
    random = np.random.default_rng(0)
    hits = np.zeros(len(CUTS))
    for _ in range(num):
        order = np.lexsort((random.random(len(scores)), -scores))
        best = min(int(np.flatnonzero(order == item)[0]) + 1 for item in right)
        hits += [best <= cut for cut in CUTS]
    return list(hits / num)


@given(
    st.lists(st.integers(0, 4), min_size=12, max_size=30), st.sets(st.integers(0, 11), min_size=1, max_size=3)
)
def test_hits_are_the_chance_when_ties_are_broken_by_lot(levels: list[int], right: set[int]) -> None:
    scores = np.array(levels, np.float32)
    place = place_of(scores, np.array(sorted(right)))
    assert place.hits == pytest.approx(by_lot(scores, sorted(right), 300), abs=0.15)


def test_without_ties_the_rank_is_the_place() -> None:
    scores = np.arange(20, 0, -1).astype(np.float32)
    for item in range(20):
        place = place_of(scores, np.array([item]))
        assert place == Place(item + 1, tuple(float(item < cut) for cut in CUTS), 1 / (item + 1))


def test_a_model_that_tells_nothing_apart_is_no_better_than_guessing() -> None:
    place = place_of(np.zeros(100, np.float32), np.array([7]))
    assert place.hits == pytest.approx((0.01, 0.05, 0.1))
    assert place.rank == 50.5


def test_items_with_the_same_content_are_all_right() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    place = place_of(scores, np.array([1, 3]))
    assert place.rank == 2
    assert place.precision == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert place_of(scores, np.array([0, 1])).precision == 1


def test_items_outside_the_ranking_do_not_count() -> None:
    scores = np.array([-np.inf, 0.2, 0.5, -np.inf], np.float32)
    assert place_of(scores, np.array([0, 1])).rank == 2


def places(hits: list[float]) -> list[Place]:
    return [Place(1 if hit else 5, (hit, 1.0, 1.0), hit) for hit in hits]


def test_figures_carry_an_interval_that_narrows_with_more_queries() -> None:
    few, many = (figures_of(places([1.0, 0.0] * num), seed=0) for num in (10, 1000))
    assert few.r1 == many.r1 == 0.5
    assert few.median_rank == 3
    assert few.r1_interval.low < many.r1_interval.low < 0.5 < many.r1_interval.high < few.r1_interval.high
    # The normal approximation, which holds for many: 1.96 * sqrt(0.25 / 2000).
    assert many.r1_interval.high - 0.5 == pytest.approx(0.0219, abs=0.003)
    assert figures_of(places([1.0, 0.0] * 10), seed=0) == few


def test_intervals_overlap_where_they_share_a_value() -> None:
    assert Interval(0, 0.5).overlaps(Interval(0.5, 1))
    assert not Interval(0, 0.4).overlaps(Interval(0.5, 1))


def test_a_gap_is_paired_over_the_queries() -> None:
    """The mix wins on few queries, where the part failed: intervals overlap, the gap's own is above 0."""
    part = [1.0] * 100 + [0.0] * 100
    mixed = [1.0] * 110 + [0.0] * 90
    gap = gap_of("a+b", "joint", places(mixed), {"a": places(part), "b": places([0.0] * 200)}, seed=0)
    assert (gap.best_part, gap.num_queries) == ("a", 200)
    assert gap.gap == pytest.approx(0.05)
    assert not gap.apart
    assert 0 < gap.gap_interval.low < 0.05 < gap.gap_interval.high
    clear = gap_of("a+b", "joint", places([1.0] * 200), {"a": places(part), "b": places(part)}, seed=0)
    assert clear.apart


def test_the_best_part_is_chosen_anew_in_every_resample() -> None:
    """Two parts that are good at different queries: a mix as good as either gains nothing for certain."""
    one, other = [1.0, 0.0] * 50, [0.0, 1.0] * 50
    gap = gap_of("a+b", "joint", places(one), {"a": places(one), "b": places(other)}, seed=0)
    assert gap.gap == 0
    assert gap.gap_interval.low < 0
    assert gap.gap_interval.high == 0
