"""One scoring function over stored rows, however they were proposed, and the order that it gives.

A query became embeddings e with signed weights w_e (composition.py); the spaces s have weights a_s >= 0 that
add up to 1. An item's score is

    sum over e, s of  (w_e / sum |w|) * a_s * m(e, s)

where the measure m is, by `scoring`,

    cosine      the cosine of the predicted and the stored vector, -1..1;
    likelihood  how probable the item's stored tokens are under the query's pass, at most 1, see
                model/token_likelihood.py;
    both        (1 - q) * cosine + q * likelihood, q as the model knows for the modalities of the query.

Both measures have fixed scales, so a score does not depend on which other items were scored: the same item
has the same score in every page, shard and candidate set. An item with several rows (regions) has the score
of its best row. Equal scores are ordered by item id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import QueryError
from ..model import likelihood

Floats: TypeAlias = "NDArray[np.floating[Any]]"
Ints: TypeAlias = "NDArray[np.integer[Any]]"
Scoring: TypeAlias = Literal["cosine", "likelihood", "both"]
SCORINGS: tuple[Scoring, ...] = ("cosine", "likelihood", "both")
DEFAULT_SCORING: Scoring = "both"


@dataclass(frozen=True, eq=False)
class Evidence:
    """One predicted embedding of the query.

    Args:
        parts: places in the query of the parts behind it.
        weight: signed weight; 0 scores nothing and is only explained.
        vectors: per space (D,) float32, L2-normalised.
        tables: per space (H, V), see `likelihood_table`; empty where the scoring does without.
    """

    parts: tuple[int, ...]
    weight: float
    vectors: Mapping[str, Floats]
    tables: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class Term:
    """One summand of the score: a measure of one embedding in one space, and its share."""

    evidence: Evidence
    space: str
    measure: Literal["cosine", "likelihood"]
    weight: float


def terms_of(
    evidence: Sequence[Evidence], spaces: Mapping[str, float], likelihood_share: float
) -> list[Term]:
    """The summands of the score, in the order of evidence and spaces; see the module's formula."""
    total = sum(abs(e.weight) for e in evidence)
    shares: dict[Literal["cosine", "likelihood"], float] = {
        "cosine": 1 - likelihood_share,
        "likelihood": likelihood_share,
    }
    return [
        Term(e, space, measure, e.weight / total * space_weight * share)
        for e in evidence
        for space, space_weight in spaces.items()
        for measure, share in shares.items()
        if space_weight and share
    ]


def share_of_likelihood(scoring: Scoring, by_default: float) -> float:
    """How much of the score is likelihood, 0..1; `by_default` of `both`."""
    return {"cosine": 0.0, "likelihood": 1.0, "both": by_default}[scoring]


def directions(terms: Sequence[Term], measure: str = "cosine") -> dict[str, Floats]:
    """Per space the vector (D,) whose inner product with a stored vector is all its cosine terms together.

    The score is linear in the stored vector, so one look-up per space finds what all parts, negative ones
    included, rank highest. With `measure="likelihood"`, the same for the embeddings of the likelihood terms.
    """
    sums: dict[str, Floats] = {}
    for term in terms:
        if term.measure == measure:
            part = term.weight * term.evidence.vectors[term.space].astype(np.float64)
            sums[term.space] = sums[term.space] + part if term.space in sums else part
    return sums


def joint_tables(terms: Sequence[Term]) -> dict[str, Floats]:
    """Per space the table (H, V) that gives all its likelihood terms together in one look-up per head."""
    sums: dict[str, Floats] = {}
    for term in terms:
        if term.measure == "likelihood":
            part = term.weight * term.evidence.tables[term.space].astype(np.float64)
            sums[term.space] = sums[term.space] + part if term.space in sums else part
    return sums


@dataclass(frozen=True, eq=False)
class StoredRows:
    """How stored rows of one view are read.

    Args:
        vectors: (space, rows (n,)) to (n, D) float32.
        tokens: (space, rows (n,)) to (n, H) token ids.
    """

    vectors: Callable[[str, Ints], Floats]
    tokens: Callable[[str, Ints], Ints]


def measure_rows(terms: Sequence[Term], stored: StoredRows, rows: Ints) -> Floats:
    """Raw measures (num_terms, n) float64 of stored rows.

    Each row is measured by itself (`vecdot`, not a matrix product, whose rounding depends on its neighbours),
    so that equal rows tie exactly and an item scores the same in every page.
    """
    raw = np.empty((len(terms), len(rows)))
    by_source: dict[tuple[str, str], list[int]] = {}  # what is read serves all embeddings of the query
    for i, term in enumerate(terms):
        by_source.setdefault((term.space, term.measure), []).append(i)
    for (space, measure), places in by_source.items():
        if measure == "cosine":
            vectors = np.ascontiguousarray(stored.vectors(space, rows))
            for i in places:
                raw[i] = np.vecdot(vectors, terms[i].evidence.vectors[space])
        else:
            tokens = stored.tokens(space, rows)
            for i in places:
                raw[i] = likelihood(terms[i].evidence.tables[space], tokens)
    return raw


def scores_of(terms: Sequence[Term], raw: Floats) -> Floats:
    """Scores (n,) float64 from raw measures (num_terms, n), summed in the order of the terms."""
    scores = np.zeros(raw.shape[1])
    for term, measured in zip(terms, raw, strict=True):
        if term.weight:
            scores += term.weight * measured
    return scores


def best_row_of_each_item(ordinals: Ints, scores: Floats) -> Ints:
    """Places (m,) in `scores` (n,) of the best row of each item; `ordinals` (n,) says whose row it is."""
    order = np.lexsort((-scores, ordinals))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.diff(ordinals[order]) != 0
    return order[first]


def top(scores: Floats, k: int, id_of: Callable[[Ints], Sequence[str]]) -> Ints:
    """Places of the k largest scores, largest first, equal ones by id.

    Args:
        scores: (n,) one per item.
        k: how many at most.
        id_of: gives the ids of places; asked only for places that may be returned.
    """
    if not len(scores) or k <= 0:
        return np.empty(0, dtype=np.int64)
    cut = np.partition(scores, -k)[-k] if k < len(scores) else scores.min()
    places = np.flatnonzero(scores >= cut)
    ids = id_of(places)
    order = sorted(range(len(places)), key=lambda i: (-scores[places[i]], ids[i]))
    return places[order[:k]]


def checked_space_weights(asked: Mapping[str, float], known: Sequence[str]) -> dict[str, float]:
    """Weights of the spaces as asked, adding up to 1.

    Raises:
        QueryError: an unknown space, a negative or non-finite weight, or no weight above 0.
    """
    for space, weight in asked.items():
        if space not in known:
            raise QueryError(f"No space {space!r} here; known: {', '.join(known)}.", code="query.space")
        if not 0 <= weight <= 1e6:  # also refuses NaN
            raise QueryError(
                f"The weight of space {space!r} is a finite number from 0 up, got {weight!r}.",
                code="query.weight",
            )
    total = sum(asked.values())
    if not total > 0:
        raise QueryError("At least one space needs a weight above 0.", code="query.weight")
    return {space: weight / total for space, weight in asked.items() if weight}
