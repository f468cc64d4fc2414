"""The plain values that cross the storage room's border: frozen, typed, free of SQL, Arrow and FAISS."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Attribute: TypeAlias = bool | int | float | str | Sequence[str]
JobState: TypeAlias = Literal["running", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class SpaceRecord:
    """One embedding space of a collection.

    Args:
        name: such as `dinov2_global`.
        dim: length of its vectors.
        num_tokens: token ids kept beside each vector.
        codebook_size: token ids lie in `0 .. codebook_size - 1` (65,536 at most: they are stored as uint16).
    """

    name: str
    dim: int
    num_tokens: int
    codebook_size: int


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of items, all embedded by one model.

    `revision` grows with every change that a search could see; `fingerprint` names the exact model;
    `gallery` says where vectors come from: `predicted` by the model, or words that name other networks;
    `attributes` maps each attribute key seen so far to its type: bool, int, float, str or list[str].
    """

    id: str
    name: str
    model: str
    fingerprint: str
    spaces: tuple[SpaceRecord, ...]
    views: tuple[str, ...]
    attributes: Mapping[str, str]
    num_items: int
    revision: int
    created_at: datetime
    gallery: str = "predicted"

    def space(self, name: str) -> SpaceRecord | None:
        """The space of that name, or None."""
        return next((space for space in self.spaces if space.name == name), None)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file or value of one modality.

    At least one of three says where its content is: `path` (a file outside the library, absolute),
    `sha256` (a file in the library's `AssetFiles`) or `value` (the content itself: boxes, statistics, a
    caption). A path may come with the sha256 of what was indexed.
    """

    modality: str
    path: str | None = None
    sha256: str | None = None
    value: JSON = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What a search returns.

    Args:
        id: stable, unique in its collection, not empty.
        assets: its files and values, in the order to show them.
        attributes: to filter, facet and sort by; a None value means absent.
        signature: the indexer's mark of the inputs it saw, to skip unchanged items.
        source: where it came from, for people (a folder, a tar shard).
    """

    id: str
    assets: Sequence[Asset] = ()
    attributes: Mapping[str, Attribute | None] = field(default_factory=dict[str, Attribute | None])
    signature: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Vectors of some items: row i belongs to `item_ids[i]`, in view `views[i]` and region `regions[i]`.

    Args:
        item_ids: N ids.
        views: N view names of the collection.
        vectors: per space of the collection (N, D), L2-normalised; kept as float16.
        tokens: per space (N, num_tokens) token ids, `0 .. codebook_size - 1`.
        regions: N region names, None for the whole item; all None where left out.
    """

    item_ids: Sequence[str]
    views: Sequence[str]
    vectors: Mapping[str, NDArray[np.floating]]
    tokens: Mapping[str, NDArray[np.integer]]
    regions: Sequence[str | None] | None = None

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self.item_ids)


@dataclass(frozen=True, slots=True)
class Segment:
    """One immutable file of rows. `state` is `corrupt` once a writer found it damaged."""

    name: str
    num_rows: int
    num_bytes: int
    sha256: str
    revision: int
    state: Literal["good", "corrupt"] = "good"


@dataclass(frozen=True, slots=True)
class Generation:
    """One published version of what search sees: everything up to `revision` of its collection."""

    name: str
    revision: int
    num_items: int
    num_rows: int
    num_bytes: int
    sha256: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Job:
    """A resumable run over one collection. `num_items` and `num_errors` count what its shards committed."""

    id: str
    collection: str
    spec: Mapping[str, JSON]
    state: JobState
    num_shards: int
    num_items: int
    num_errors: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class JobError:
    """One input that could not be used, and why."""

    path: str
    modality: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The best rows for each of Q queries, best first; ties go to the lower row.

    Args:
        scores: (Q, k) float32 cosine, -inf where fewer than k rows exist.
        rows: (Q, k) int64 row numbers, -1 where fewer than k rows exist.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]

    @classmethod
    def none(cls, num_queries: int, k: int) -> "Matches":
        """No matches: all padding."""
        shape = (num_queries, k)
        return cls(np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64))


@dataclass(frozen=True, slots=True)
class Problem:
    """One stored file that cannot be used. `num_items` counts the items that search misses for it."""

    collection: str
    kind: Literal["generation", "segment"]
    name: str
    message: str
    num_items: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """What is damaged in a library; `degraded` still answers searches."""

    problems: tuple[Problem, ...] = ()

    @property
    def state(self) -> Literal["ok", "degraded"]:
        """`ok` when nothing is known to be damaged."""
        return "degraded" if self.problems else "ok"
