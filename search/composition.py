"""From the parts of a query to the embeddings that are asked of the model.

`joint` predicts one embedding from all positive parts together, fused by attention inside the model; `late`
predicts one per part. A negative part is always an embedding of its own, whose scores are subtracted. Another
way to compose (guidance in token space) is another function from a query to `Prediction`s.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray

from ..errors import QueryError
from .query import Query

Composition: TypeAlias = Literal["auto", "joint", "late"]
COMPOSITIONS: tuple[Composition, ...] = ("auto", "joint", "late")

Inputs: TypeAlias = "Mapping[str, NDArray[Any]]"
"""What the model takes for one item: an array per modality."""


@dataclass(frozen=True)
class Prediction:
    """One embedding to ask of the model.

    Args:
        parts: places in the query of the parts that it is made from.
        weight: signed; how much its scores count. 0 is for information only.
        inputs: what the model is given.
    """

    parts: tuple[int, ...]
    weight: float
    inputs: Inputs


def choose(composition: str, query: Query, inputs: Sequence[Inputs]) -> Literal["joint", "late"]:
    """Settle how the parts compose: `auto` is `joint` wherever that says what the query says, else `late`.

    Args:
        composition: what was asked for.
        query: the parts.
        inputs: what the model would be given for each part.

    Raises:
        QueryError: an unknown composition, or a joint one of parts that have no joint prediction: their
            weights
            differ (one pass cannot weigh its inputs), or two bring the same modality.
    """
    if composition not in COMPOSITIONS:
        raise QueryError(
            f"No composition {composition!r}; known: {', '.join(COMPOSITIONS)}.", code="query.composition"
        )
    if composition == "late":
        return "late"
    obstacle = _obstacle_to_joining(query, inputs)
    if obstacle and composition == "joint":
        raise QueryError(f"{obstacle}; use composition 'late', or 'auto'.", code="query.composition")
    return "late" if obstacle else "joint"


def compose(
    composition: Literal["joint", "late"], query: Query, inputs: Sequence[Inputs], *, explain: bool
) -> list[Prediction]:
    """The predictions that answer `query`; `inputs[i]` is what the model is given for part i.

    The joint prediction weighs as much as its parts together, so that a negative part pulls as hard in either
    composition. With `explain`, the parts of a joint prediction are also asked alone, at weight 0.
    """
    weights = [part.weight for part in query.parts]
    joined = query.positive if composition == "joint" and len(query.positive) > 1 else ()
    predictions: list[Prediction] = []
    if joined:
        together = {modality: array for i in joined for modality, array in inputs[i].items()}
        predictions.append(Prediction(joined, sum(weights[i] for i in joined), together))
    for i, weight in enumerate(weights):
        if weight and i not in joined:
            predictions.append(Prediction((i,), weight, inputs[i]))
        elif weight and explain:
            predictions.append(Prediction((i,), 0.0, inputs[i]))
    return predictions


def _obstacle_to_joining(query: Query, inputs: Sequence[Inputs]) -> str | None:
    positive = query.positive
    weights = sorted({query.parts[i].weight for i in positive})
    if not math.isclose(weights[0], weights[-1], rel_tol=1e-9):
        listed = ", ".join(f"{weight:g}" for weight in weights)
        return f"A joint prediction takes its positive parts alike, but their weights are {listed}"
    counts = Counter(modality for i in positive for modality in inputs[i])
    repeated = sorted(modality for modality, count in counts.items() if count > 1)
    if repeated:
        return f"A joint prediction takes each modality once, but several parts bring {', '.join(repeated)}"
    return None


def check_signs(query: Query) -> None:
    """Raise QueryError unless some part has a positive weight: "not people" names nothing to rank by."""
    if query.positive:
        return
    problem = "only negative parts" if query.negative else "only parts of weight 0"
    raise QueryError(
        f"The query has {problem}; add at least one part with a positive weight for what to look for.",
        code="query.weight",
    )
