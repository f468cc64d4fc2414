"""Items' contents to the evidence that a search would have of them, in any of the ways to ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from ...model import likelihood_table
from ..composition import Composed, compose
from ..query import Query, QueryPart
from ..ranking import Evidence, Scoring

if TYPE_CHECKING:
    from ...model import Embedder, Embeddings

Decoding = Literal["soft", "argmax", "sample"]
DECODINGS: tuple[Decoding, ...] = ("soft", "argmax", "sample")


@dataclass(frozen=True)
class Way:
    """How embeddings are predicted from a query's parts."""

    composition: Composed = "joint"
    decoding: Decoding = "soft"


@dataclass(frozen=True)
class Setting:
    """One way to search, from prediction to score.

    Args:
        view: what is searched.
        way: how embeddings are predicted.
        scoring: `cosine`, `likelihood` or `both`.
        space: the only one that counts; where None, all as they count by default.
    """

    view: str
    way: Way = Way()
    scoring: Scoring = "both"
    space: str | None = None


def ask(
    embedder: Embedder, items: Sequence[Mapping[str, NDArray[Any]]], way: Way, seed: int
) -> list[list[Evidence]]:
    """The evidence of queries, made just as the search engine makes it.

    Args:
        embedder: of the collection's model.
        items: of each query, what the model takes; every modality is a part of weight 1.
        way: composition and decoding; decodings other than soft are of joint predictions only.
        seed: of sampled decoding.
    """
    plans = [
        compose(way.composition, _query(item), [{name: array} for name, array in item.items()], explain=False)
        for item in items
    ]
    blends = [prediction.blend for plan in plans for prediction in plan]
    if way.composition == "guided":
        found = embedder.embed_guided(blends, log_probs=True)
    else:
        plain = [blend[0][1] for blend in blends]
        found = (
            embedder.embed(plain, log_probs=True)
            if way.decoding == "soft"
            else embedder.embed(plain, decoding=way.decoding, seed=seed)
        )
    rows = iter(range(len(blends)))
    return [
        [Evidence(prediction.parts, prediction.weight, *_evidence(found, next(rows))) for prediction in plan]
        for plan in plans
    ]


def _query(item: Mapping[str, NDArray[Any]]) -> Query:
    """Parts that stand for what was read already."""
    return Query(tuple(QueryPart(modality, b"") for modality in item))


def _evidence(
    found: Mapping[str, Embeddings], row: int
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    vectors = {space: of_space.vectors[row] for space, of_space in found.items()}
    tables = {
        space: likelihood_table(of_space.log_probs[row])
        for space, of_space in found.items()
        if of_space.log_probs is not None
    }
    return vectors, tables
