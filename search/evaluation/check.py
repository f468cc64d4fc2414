"""Items that contradict themselves: a caption of another picture, a depth map in the wrong place.

For every item and modality the model predicts one embedding from that modality alone and one from all others
of the item. Where the modality belongs to the item, the two agree better than those of different items do.

- *likelihood*: how probable the tokens of one prediction are under the other, both ways (ranking.py's scale).
- *places*: by cosine, which place the item's rest takes among the rests of other items as seen from the
  modality, and the modality's own prediction among those of others as seen from the rest.

Both are compared with the same modality of all items by robust z-scores, since modalities differ in how much
they say: a palette never agrees as well as a photo. The disagreement is the smaller of the two, so that both
have to say it. An item has that of its worst modality; but when one modality is wrong, the others disagree
with their rest too, which holds the wrong one. The suspect is the one whose own place fell most.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...errors import QueryError
from ..engine import SearchEngine
from ..ranking import Floats
from .contents import Contents, Failure, Report
from .pairs import Gatherer, Pairs

_BATCH = 16
_BLOCK = 1000
"""Items that are compared with each other; further ones are compared with the first so many."""

_MIN_ITEMS = 10
_MAD = 1.4826
"""Times the median absolute deviation: the standard deviation, of normal values."""

_LEAST_LIKELIHOOD, _LEAST_PLACE = 1e-3, 1.5
"""Deviations below which values are alike. That of places, logarithms, is a factor of 4.5: where nearly all
items are in first place, third is no fault.
"""


@dataclass(frozen=True)
class CheckSettings:
    """What to check.

    Args:
        limit: items at most, drawn at random; all where None.
        seed: of the draw, and of the items that others are compared with.
        modalities: to check against each other; all that the items have and the model reads where empty.
        top: findings to keep.
    """

    limit: int | None = None
    seed: int = 0
    modalities: Sequence[str] = ()
    top: int = 50


@dataclass(frozen=True)
class Agreement:
    """How one modality of an item agrees with the others.

    Args:
        likelihood: of the tokens of either prediction under the other, 1 certain, 0 chance.
        cosine: of the two predictions, mean over spaces.
        place_of_item: of the item's rest among the rests of `num_compared` items, as seen from the modality.
        place_of_content: of the modality among those of as many items, as seen from the item's rest.
        num_compared: items compared.
        usual_place: the median of place_of_content over all items: how much this modality says.
        disagreement: robust standard deviations beyond what is usual for this modality; 0 where it agrees as
            well as most.
    """

    likelihood: float
    cosine: float
    place_of_item: int
    place_of_content: int
    num_compared: int
    usual_place: float
    disagreement: float


@dataclass(frozen=True)
class Finding:
    """An item that contradicts itself.

    Args:
        id: of the item.
        suspect: the modality that fits the others least.
        disagreement: of the item's worst modality.
        modalities: how each of its modalities agrees with the others.
    """

    id: str
    suspect: str
    disagreement: float
    modalities: Mapping[str, Agreement]


@dataclass(frozen=True)
class CheckReport:
    """What was found in a collection.

    Args:
        collection: its name.
        model: its model's name.
        num_items: in the collection.
        num_checked: items with two modalities or more that were compared.
        modalities: that were checked, with how many items have each.
        seed: as set.
        findings: the most suspicious items, worst first; a ranking to look through, not a verdict.
        failures: contents that could not be read.
        notes: what to know when reading it.
        seconds: that it took.
    """

    collection: str
    model: str
    num_items: int
    num_checked: int
    modalities: Mapping[str, int]
    seed: int
    findings: Sequence[Finding]
    failures: Sequence[Failure]
    notes: Sequence[str]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As plain values; docs/evaluation.md lists them."""
        return {"schema": "anyseek.check/1"} | asdict(self)


def check_collection(
    engine: SearchEngine,
    collection: str,
    settings: CheckSettings | None = None,
    *,
    progress: Report | None = None,
) -> CheckReport:
    """Find items whose modalities do not belong together.

    Args:
        engine: of the library.
        collection: its name.
        settings: what to check; see `CheckSettings`.
        progress: told the stage, what is done and of how much.

    Raises:
        NotFoundError: no such collection.
        QueryError: fewer than two modalities to compare, or too few items that have them.
        ValueError: a limit or number of findings below 1.
    """
    settings = settings or CheckSettings()
    if (settings.limit is not None and settings.limit < 1) or settings.top < 1:
        raise ValueError(f"limit and top are 1 or more, got {settings.limit} and {settings.top}.")
    start = time.perf_counter()
    snapshot, model = engine.store.snapshot(collection), engine.model(collection)
    contents = Contents(snapshot, model, engine.store.assets, report=progress)
    modalities = tuple(settings.modalities) or contents.modalities
    unknown = [name for name in modalities if name not in contents.modalities]
    if unknown or len(modalities) < 2:
        raise QueryError(
            f"Two modalities or more are compared; {', '.join(unknown) or ', '.join(modalities) or 'none'} "
            f"will not do. Items of {collection!r} have, and model {model.name!r} reads: "
            f"{', '.join(contents.modalities) or 'nothing'}.",
            code="query.modality",
        )
    order = np.random.default_rng(settings.seed).permutation(snapshot.num_items)[: settings.limit]
    pairs: dict[str, Pairs] = {}
    references: dict[str, Pairs] = {}
    for block in range(0, len(order), _BLOCK):
        ordinals = order[block : block + _BLOCK]
        found = Gatherer(model.embedder)
        for at in range(0, len(ordinals), _BATCH):
            batch = ordinals[at : at + _BATCH]
            found.add(batch, contents.read(batch, modalities))
            if progress is not None:
                progress("compare", block + at + len(batch), len(order))
        for name, of_block in found.pairs().items():
            reference = references.setdefault(name, of_block)
            of_block.compare(reference)
            pairs[name] = pairs[name].joined(of_block) if name in pairs else of_block
    usable = {name: each for name, each in pairs.items() if len(each.ordinals) >= _MIN_ITEMS}
    if not usable:
        raise QueryError(
            f"Too few items of {collection!r} have two of {', '.join(modalities)}; at least {_MIN_ITEMS} "
            "are compared with each other.",
            code="query.modality",
        )
    by_item = _agreements(usable)
    worst = sorted(by_item, key=lambda o: (-max(a.disagreement for a in by_item[o].values()), o))
    worst = worst[: settings.top]
    ids = snapshot.item_ids.take(np.array(worst, np.int64))
    return CheckReport(
        collection=collection,
        model=model.name,
        num_items=snapshot.num_items,
        num_checked=len(by_item),
        modalities={name: len(usable[name].ordinals) for name in modalities if name in usable},
        seed=settings.seed,
        findings=[_finding(id, by_item[ordinal]) for id, ordinal in zip(ids, worst, strict=True)],
        failures=contents.failures,
        notes=_notes(pairs, usable, by_item),
        seconds=round(time.perf_counter() - start, 2),
    )


def _finding(id: str, agreements: Mapping[str, Agreement]) -> Finding:
    fallen = {name: each.place_of_content / each.usual_place for name, each in agreements.items()}
    suspect = max(agreements, key=lambda name: (fallen[name], agreements[name].disagreement))
    return Finding(id, suspect, max(each.disagreement for each in agreements.values()), agreements)


def _notes(
    pairs: Mapping[str, Pairs], usable: Mapping[str, Pairs], by_item: Mapping[int, Mapping[str, Agreement]]
) -> list[str]:
    notes = [
        f"Only {len(each.ordinals)} items have {name}: too few to say what is usual."
        for name, each in pairs.items()
        if name not in usable
    ]
    for name, each in usable.items():
        share = float(np.median(each.place_of_content)) / each.num_compared
        if share > 0.2:
            notes.append(
                f"{name} says little to this model: seen from the rest of an item, its own is in place "
                f"{np.median(each.place_of_content):.0f} of {each.num_compared}. Wrong ones are hardly found."
            )
    if any(len(agreements) == 2 for agreements in by_item.values()):
        notes.append("With two modalities alone, nothing says which of them is wrong.")
    return notes


def _agreements(pairs: Mapping[str, Pairs]) -> dict[int, dict[str, Agreement]]:
    """By item and modality."""
    found: dict[int, dict[str, Agreement]] = {}
    for name, each in pairs.items():
        places = (np.log(each.place_of_item) + np.log(each.place_of_content)) / 2
        place_z = _robust_z(places, _LEAST_PLACE)
        likelihood_z = -_robust_z(each.likelihood, _LEAST_LIKELIHOOD)
        disagreement = np.maximum(np.minimum(place_z, likelihood_z), 0)
        usual = float(np.median(each.place_of_content))
        for i, ordinal in enumerate(each.ordinals.tolist()):
            found.setdefault(ordinal, {})[name] = Agreement(
                likelihood=float(each.likelihood[i]),
                cosine=float(each.cosine[i]),
                place_of_item=int(each.place_of_item[i]),
                place_of_content=int(each.place_of_content[i]),
                num_compared=each.num_compared,
                usual_place=usual,
                disagreement=float(disagreement[i]),
            )
    return found


def _robust_z(values: Floats, least: float) -> Floats:
    """How many deviations values lie above their median, by the median absolute deviation."""
    middle = np.median(values)
    return (values - middle) / max(_MAD * float(np.median(np.abs(values - middle))), least)
