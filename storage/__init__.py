"""What is known and where it lies: the catalog, the vector files, the asset files.

A library is one folder. One process writes it (`Store.writer`), any number read it (`Store.snapshot`).
Names load on first use, so that importing this room costs neither SQLAlchemy nor FAISS.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .records import (
    JSON,
    Asset,
    Attribute,
    Collection,
    Generation,
    Health,
    Item,
    Job,
    JobError,
    JobState,
    Matches,
    Problem,
    Rows,
    Segment,
    SpaceRecord,
)

if TYPE_CHECKING:
    from .assets import AssetFiles
    from .catalog import Catalog
    from .footprint import Footprint
    from .snapshot import ItemIds, Snapshot
    from .store import Store
    from .vectors import VectorIndex
    from .writer import Writer

__all__ = [
    "JSON",
    "Asset",
    "AssetFiles",
    "Attribute",
    "Catalog",
    "Collection",
    "Footprint",
    "Generation",
    "Health",
    "Item",
    "ItemIds",
    "Job",
    "JobError",
    "JobState",
    "Matches",
    "Problem",
    "Rows",
    "Segment",
    "Snapshot",
    "SpaceRecord",
    "Store",
    "VectorIndex",
    "Writer",
]

_LAZY = {
    "AssetFiles": ".assets",
    "Catalog": ".catalog",
    "Footprint": ".footprint",
    "ItemIds": ".snapshot",
    "Snapshot": ".snapshot",
    "Store": ".store",
    "VectorIndex": ".vectors",
    "Writer": ".writer",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
