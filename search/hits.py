"""What a search answers: hits in order, and how they were found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, overload

from ..storage import Asset, Attribute


@dataclass(frozen=True)
class Contribution:
    """What one embedding of the query gave to a hit in one space, by one measure.

    Args:
        parts: places in the query of the parts behind that embedding; several when they were joined.
        space: the embedding space compared in.
        measure: `cosine` or `likelihood`, see ranking.py.
        raw: the measure itself, larger is more alike.
        weight: signed share in the score. 0 marks a part of a joint prediction asked alone, for information.
        contribution: `weight * raw`. A hit's contributions add up to its score.
    """

    parts: tuple[int, ...]
    space: str
    measure: str
    raw: float
    weight: float
    contribution: float


@dataclass(frozen=True)
class Hit:
    """One item found.

    Args:
        id: the item.
        score: larger is more alike; a weighted mean of measures, within -1..1 for cosine.
        attributes: the item's attributes.
        assets: the item's files and values.
        explain: what made the score, when asked for.
    """

    id: str
    score: float
    attributes: Mapping[str, Attribute | None] = field(default_factory=dict[str, Attribute | None])
    assets: Sequence[Asset] = ()
    explain: tuple[Contribution, ...] | None = None

    def why(self) -> str:
        """The contributions in one line, largest first; empty unless the search was asked to explain."""
        told = [c for c in self.explain or () if c.weight]
        told.sort(key=lambda c: -abs(c.contribution))
        return ", ".join(
            f"{c.contribution:+.3f} part {'+'.join(str(i + 1) for i in c.parts)} {c.measure} {c.space}"
            for c in told
        )


@dataclass(frozen=True)
class Plan:
    """How a query was answered.

    Args:
        composition: `joint`, `guided` or `late`, as chosen.
        view: which of the items' vectors were compared.
        spaces: weight of each embedding space; they add up to 1.
        scoring: `cosine`, `likelihood` or `both`.
        likelihood_share: of the score, 0..1; the rest is cosine.
        filter: the filter in its text form, None without one.
        selectivity: fraction of the collection's items that the filter lets through, 0..1.
        candidates: `scan` when every allowed row was scored, `index` when the indexes proposed rows.
        num_scored: rows scored exactly.
        exact: whether no other item can belong among these hits.
    """

    composition: Literal["joint", "guided", "late"]
    view: str
    spaces: Mapping[str, float]
    scoring: str
    likelihood_share: float
    filter: str | None
    selectivity: float
    candidates: Literal["scan", "index"]
    num_scored: int
    exact: bool


@dataclass(frozen=True)
class Hits(Sequence[Hit]):
    """Hits, best first; equal scores are ordered by id.

    Args:
        hits: the page that was asked for.
        generation: the published version that was searched, None before the first.
        revision: changes with every change of the collection that a search could see.
        plan: how they were found.
        total_allowed: items that pass the filter; all of them without one.
        timing_ms: milliseconds by stage: `read`, `embed`, `filter`, `search`, `items`.
    """

    hits: tuple[Hit, ...]
    generation: str | None
    revision: int
    plan: Plan
    total_allowed: int
    timing_ms: Mapping[str, float]

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def as_dict(self) -> dict[str, Any]:
        """The answer as plain values: the body of the HTTP answer and of `anyseek search --json`."""
        return {
            "generation": self.generation,
            "revision": self.revision,
            "plan": asdict(self.plan),
            "total_allowed": self.total_allowed,
            "timing_ms": dict(self.timing_ms),
            "hits": [hit_as_dict(hit) for hit in self.hits],
        }


def hit_as_dict(hit: Hit) -> dict[str, Any]:
    """One hit as plain values. Files are named by modality; where they lie is the library's own business."""
    fields: dict[str, Any] = {
        "id": hit.id,
        "score": hit.score,
        "attributes": dict(hit.attributes),
        "assets": [asset_as_dict(asset) for asset in hit.assets],
    }
    if hit.explain is not None:
        fields["explain"] = [asdict(contribution) for contribution in hit.explain]
    return fields


def asset_as_dict(asset: Asset) -> dict[str, Any]:
    """An asset as plain values: its modality, and its value or its media type."""
    if asset.value is not None:
        return {"modality": asset.modality, "value": asset.value}
    return {"modality": asset.modality, "media_type": asset.media_type}
