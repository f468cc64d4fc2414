"""What queries reach with the true vectors of a teacher in place of predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...errors import AnyseekError
from ..ranking import Evidence, Ints
from .contents import Contents, Inputs, Report
from .gallery import Gallery
from .ranks import Place, figures_of, place_of
from .report import Ceiling

if TYPE_CHECKING:
    from ...storage import Snapshot

_BATCH = 32
_PICTURE = "rgb"


class Truth(Protocol):
    """The part of a `TeacherEmbedder` that is called here."""

    def predicted_spaces(self, modalities: Sequence[str]) -> Sequence[str]:
        """The spaces in which an item with these modalities has no true vector."""
        ...

    def embed(self, items: Sequence[Inputs]) -> Mapping[str, Any]:
        """Vectors of items by space."""
        ...


def find_ceilings(
    truth: Truth | None,
    contents: Contents,
    galleries: Mapping[str, Gallery],
    snapshot: Snapshot,
    limit: int,
    seed: int,
    report: Report | None,
) -> tuple[list[Ceiling], list[str]]:
    """Ask with true vectors: of pictures where teachers see them, and of items that bring some.

    Args:
        truth: gives the vectors, None where there are none.
        contents: of the items.
        galleries: the views to search, by name.
        snapshot: of the collection.
        limit: queries at most, each time.
        seed: of the items drawn.
        report: told how far it is.

    Returns:
        The ceilings, and sentences on why there are none or not all.
    """
    spaces = [space.name for space in snapshot.collection.spaces]
    of_teachers = snapshot.collection.gallery != "predicted"
    order = np.random.default_rng(seed).permutation(snapshot.num_items)
    found: list[Ceiling] = []
    for name in (*spaces, _PICTURE) if truth is not None else ():
        if truth is None or name not in contents.modalities:
            continue
        ordinals = order[contents.having([name])[order]][:limit]
        try:
            places = _places(truth, contents, galleries, spaces, name, ordinals, report)
        except AnyseekError as error:  # a tokenizer or teacher that cannot be had costs the ceiling only
            return found, [f"The ceiling is incomplete: {error}"]
        for (space, view), each in places.items():
            own = contents.is_own(name) and (of_teachers or view in ("joint", name))
            found.append(Ceiling(name, space, view, own, figures_of(each, seed)))
    if found:
        return found, []
    return [], [
        "No ceiling: items bring no vectors of a teacher (dinov2_global, imagebind_global), and no teacher "
        "was named that would see their pictures."
    ]


def _places(
    truth: Truth,
    contents: Contents,
    galleries: Mapping[str, Gallery],
    spaces: Sequence[str],
    name: str,
    ordinals: Ints,
    report: Report | None,
) -> dict[tuple[str, str], list[Place]]:
    """By space and view, where items come in that are asked for with what is known to be true of `name`."""
    predicted = truth.predicted_spaces([name])
    known = [space for space in spaces if space not in predicted]
    places: dict[tuple[str, str], list[Place]] = {}
    for start in range(0, len(ordinals) if known else 0, _BATCH):
        batch = ordinals[start : start + _BATCH]
        read = contents.read(batch, [name])
        whole = [i for i, inputs in enumerate(read) if inputs]
        embedded = truth.embed([read[i] for i in whole]) if whole else {}
        for space, view in product(known if whole else (), galleries):
            evidence = [[Evidence((0,), 1.0, {space: v}, {})] for v in embedded[space].vectors]
            scores = galleries[view].scores(evidence, {space: 1.0}, likelihood_share=0.0)
            for ordinal, of_query in zip(batch[whole].tolist(), scores, strict=True):
                if np.isfinite(of_query[ordinal]):
                    place = place_of(of_query, contents.twins([name], ordinal))
                    places.setdefault((space, view), []).append(place)
        if report is not None:
            report(f"ceiling {name}", start + len(batch), len(ordinals))
    return places
