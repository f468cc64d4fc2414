"""The score against its formula, and the order it gives."""

import math

import numpy as np
import pytest
from anyseek.errors import QueryError
from anyseek.model.token_likelihood import SMOOTHING, likelihood, likelihood_table
from anyseek.search.ranking import (
    Evidence,
    StoredRows,
    best_row_of_each_item,
    checked_space_weights,
    directions,
    joint_tables,
    measure_rows,
    scores_of,
    terms_of,
    top,
)
from hypothesis import given
from hypothesis import strategies as st

HEADS, VOCABULARY, DIM = 4, 7, 6


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)


def evidence(rng: np.random.Generator, weight: float, spaces: tuple[str, ...] = ("a", "b")) -> Evidence:
    vectors = {s: rng.normal(size=DIM).astype(np.float32) for s in spaces}
    logits = {s: rng.normal(size=(HEADS, VOCABULARY)) * 3 for s in spaces}
    return Evidence(
        (0,),
        weight,
        {s: v / np.linalg.norm(v) for s, v in vectors.items()},
        {s: likelihood_table(log_softmax(x)) for s, x in logits.items()},
    )


def test_likelihood_is_one_when_certain_zero_by_chance_and_bounded_below() -> None:
    certain = np.full((HEADS, VOCABULARY), -np.inf)
    certain[:, 2] = 0
    certain = likelihood_table(certain)
    assert likelihood(certain, np.full((1, HEADS), 2)) == pytest.approx(1, abs=SMOOTHING)
    uniform = np.full((HEADS, VOCABULARY), -math.log(VOCABULARY))
    assert likelihood(likelihood_table(uniform), np.array([[0, 1, 2, 3]])) == pytest.approx(0, abs=1e-6)
    worst = likelihood(certain, np.full((1, HEADS), 3))
    assert worst == pytest.approx(1 + math.log(SMOOTHING / VOCABULARY) / math.log(VOCABULARY))


def test_likelihood_looks_up_every_head_at_its_own_token() -> None:
    rng = np.random.default_rng(0)
    log_probs = log_softmax(rng.normal(size=(HEADS, VOCABULARY)))
    tokens = rng.integers(0, VOCABULARY, (5, HEADS)).astype(np.uint16)
    for row, got in zip(tokens, likelihood(likelihood_table(log_probs), tokens), strict=True):
        probs = [0.99 * math.exp(log_probs[h, t]) + 0.01 / VOCABULARY for h, t in enumerate(row)]
        assert got == pytest.approx(1 + np.mean(np.log(probs)) / math.log(VOCABULARY), abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_term_weights_of_a_positive_query_add_up_to_one(share: float) -> None:
    rng = np.random.default_rng(0)
    terms = terms_of([evidence(rng, 2), evidence(rng, 0.5)], {"a": 0.25, "b": 0.75}, share)
    assert sum(term.weight for term in terms) == pytest.approx(1)
    assert sum(term.weight for term in terms if term.measure == "likelihood") == pytest.approx(share)
    assert len(terms) == (8 if share == 0.3 else 4)


def test_the_direction_of_a_space_ranks_like_all_its_cosine_terms_together() -> None:
    rng = np.random.default_rng(1)
    terms = terms_of([evidence(rng, 1), evidence(rng, 0.4), evidence(rng, -0.7)], {"a": 1.0}, 0.0)
    stored = rng.normal(size=(50, DIM)).astype(np.float32)
    raw = measure_rows(terms, StoredRows(lambda _, rows: stored[rows], lambda _, rows: rows), np.arange(50))
    assert np.allclose(scores_of(terms, raw), stored @ directions(terms)["a"], atol=1e-6)


def test_the_joint_table_of_a_space_ranks_like_all_its_likelihood_terms_together() -> None:
    rng = np.random.default_rng(1)
    terms = terms_of([evidence(rng, 1), evidence(rng, 0.4), evidence(rng, -0.7)], {"a": 1.0}, 1.0)
    tokens = rng.integers(0, VOCABULARY, (50, HEADS))
    raw = measure_rows(terms, StoredRows(lambda _, rows: rows, lambda _, rows: tokens[rows]), np.arange(50))
    assert np.allclose(scores_of(terms, raw), likelihood(joint_tables(terms)["a"], tokens), atol=1e-6)


def test_a_row_scores_the_same_whatever_is_scored_beside_it() -> None:
    rng = np.random.default_rng(2)
    terms = terms_of([evidence(rng, 1), evidence(rng, -0.3)], {"a": 0.5, "b": 0.5}, 0.8)
    stored = rng.normal(size=(300, DIM)).astype(np.float32)
    tokens = rng.integers(0, VOCABULARY, (300, HEADS))
    rows = StoredRows(lambda _, rows: stored[rows], lambda _, rows: tokens[rows])
    together = scores_of(terms, measure_rows(terms, rows, np.arange(300)))
    for some in (np.array([7]), np.array([299, 7, 3]), np.arange(5, 120)):
        assert (scores_of(terms, measure_rows(terms, rows, some)) == together[some]).all()


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0]), max_size=30), st.integers(1, 40), st.randoms())
def test_top_is_sorting_by_score_and_then_id(scores: list[float], k: int, random: object) -> None:
    ids = [f"item{i}" for i in range(len(scores))]
    random.shuffle(ids)  # type: ignore[attr-defined]
    got = top(np.array(scores), k, lambda at: [ids[i] for i in at])
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], ids[i]))[:k]
    assert got.tolist() == expected


def test_an_item_counts_with_its_best_row() -> None:
    best = best_row_of_each_item(np.array([4, 2, 4, 2, 9]), np.array([0.1, 0.5, 0.3, 0.5, -1.0]))
    assert best.tolist() == [1, 2, 4]


def test_space_weights_are_scaled_and_checked() -> None:
    assert checked_space_weights({"a": 3, "b": 1}, ["a", "b"]) == {"a": 0.75, "b": 0.25}
    assert checked_space_weights({"a": 3, "b": 0}, ["a", "b"]) == {"a": 1}
    for wrong in ({"c": 1}, {"a": -1}, {"a": math.nan}, {"a": math.inf}, {"a": 0}, {}):
        with pytest.raises(QueryError):
            checked_space_weights(wrong, ["a", "b"])
