"""From the parts of a query to the embeddings that are asked of the model.

`joint` predicts one embedding from all positive parts together, fused by attention inside the model; `late`
predicts one per part. In both, a negative part is an embedding of its own, whose scores are subtracted.
`guided` predicts one embedding from all parts by their weights, positive and negative: they act on the logits
of its tokens before it exists (classifier-free guidance, arXiv 2207.12598, with several conditions).
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

Composition: TypeAlias = Literal["auto", "joint", "guided", "late"]
Composed: TypeAlias = Literal["joint", "guided", "late"]
COMPOSITIONS: tuple[Composition, ...] = ("auto", "joint", "guided", "late")

Inputs: TypeAlias = "Mapping[str, NDArray[Any]]"
"""What the model takes for one item: an array per modality."""

Blend: TypeAlias = "Sequence[tuple[float, Inputs]]"
"""Inputs with signed weights, of which one embedding is predicted: l = l_0 + sum w (l_i - l_0) on the logits
of its tokens, l_0 being those of a prediction from nothing."""


@dataclass(frozen=True)
class Prediction:
    """One embedding to ask of the model.

    Args:
        parts: places in the query of the parts that it is made from.
        weight: signed; how much its scores count. 0 is for information only.
        blend: what the model is given, by weight; a single one of weight 1 is plain prediction.
    """

    parts: tuple[int, ...]
    weight: float
    blend: Blend


def choose(composition: str, query: Query, inputs: Sequence[Inputs]) -> Composed:
    """Settle how the parts compose: `auto` is `joint` wherever that says what the query says, else `late`.

    Args:
        composition: what was asked for.
        query: the parts.
        inputs: what the model would be given for each part.

    Raises:
        QueryError: an unknown composition, or a joint one of parts that have no joint prediction: their
            weights differ (one pass cannot weigh its inputs), or two bring the same modality.
    """
    if composition not in COMPOSITIONS:
        raise QueryError(
            f"No composition {composition!r}; known: {', '.join(COMPOSITIONS)}.", code="query.composition"
        )
    if composition in ("guided", "late"):
        return composition
    obstacle = _obstacle_to_joining(query, inputs)
    if obstacle and composition == "joint":
        raise QueryError(f"{obstacle}; use composition 'guided', 'late' or 'auto'.", code="query.composition")
    return "late" if obstacle else "joint"


def compose(
    composition: Composed, query: Query, inputs: Sequence[Inputs], *, explain: bool
) -> list[Prediction]:
    """The predictions that answer `query`; `inputs[i]` is what the model is given for part i.

    The joint prediction weighs as much as its parts together, so that a negative part pulls as hard in either
    composition. With `explain`, the parts of a prediction from several are also asked alone, at weight 0.
    """
    weights = [part.weight for part in query.parts]
    predictions: list[Prediction] = []
    if composition == "guided":
        used = tuple(i for i, weight in enumerate(weights) if weight)
        predictions.append(Prediction(used, 1.0, [(weights[i], inputs[i]) for i in used]))
    elif composition == "joint" and len(query.positive) > 1:
        together = {modality: array for i in query.positive for modality, array in inputs[i].items()}
        weight = sum(weights[i] for i in query.positive)
        predictions.append(Prediction(query.positive, weight, [(1.0, together)]))
    joined = predictions[0].parts if predictions else ()
    for i, weight in enumerate(weights):
        if weight and i not in joined:
            predictions.append(Prediction((i,), weight, [(1.0, inputs[i])]))
        elif weight and explain and len(joined) > 1:
            predictions.append(Prediction((i,), 0.0, [(1.0, inputs[i])]))
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
