"""Sources in, items stored: scan a folder, read, embed and commit it, and survive whatever it holds.

Names load on first use: listing the known side files needs no server framework, indexing none either.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import create_router
    from .indexer import AddReport, Indexer
    from .progress import IndexProgress, IndexReport
    from .reading import NewItem
    from .signals import stop_on_signals
    from .sources import FolderSource, Source, SourceItem

__all__ = [
    "AddReport",
    "FolderSource",
    "IndexProgress",
    "IndexReport",
    "Indexer",
    "NewItem",
    "Source",
    "SourceItem",
    "create_router",
    "stop_on_signals",
]

_LAZY = {
    "AddReport": ".indexer",
    "FolderSource": ".sources",
    "IndexProgress": ".progress",
    "IndexReport": ".progress",
    "Indexer": ".indexer",
    "NewItem": ".reading",
    "Source": ".sources",
    "SourceItem": ".sources",
    "create_router": ".api",
    "stop_on_signals": ".signals",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
