"""Queries in, hits out: the arithmetic of queries, filters, the engine and its HTTP application.

Names load on first use, so that building a query costs neither FastAPI nor the drawing of grids.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .filters import F, Filter
from .hits import Contribution, Hit, Hits, Plan
from .query import (
    RGB,
    Boxes,
    Caption,
    Depth,
    Edges,
    Features,
    Instances,
    ItemAssets,
    Like,
    Metadata,
    Normal,
    Palette,
    Poses,
    Query,
    QueryPart,
    SamEdges,
    Semseg,
)
from .where import parse_filter

if TYPE_CHECKING:
    from .api import create_app
    from .composition import Composition
    from .engine import SearchEngine
    from .evaluation import Retrieval, evaluate_retrieval
    from .grid import draw_grid
    from .ranking import Scoring

__all__ = [
    "RGB",
    "Boxes",
    "Caption",
    "Composition",
    "Contribution",
    "Depth",
    "Edges",
    "F",
    "Features",
    "Filter",
    "Hit",
    "Hits",
    "Instances",
    "ItemAssets",
    "Like",
    "Metadata",
    "Normal",
    "Palette",
    "Plan",
    "Poses",
    "Query",
    "QueryPart",
    "Retrieval",
    "SamEdges",
    "Scoring",
    "SearchEngine",
    "Semseg",
    "create_app",
    "draw_grid",
    "evaluate_retrieval",
    "parse_filter",
]

_LAZY = {
    "Composition": ".composition",
    "Retrieval": ".evaluation",
    "Scoring": ".ranking",
    "SearchEngine": ".engine",
    "create_app": ".api",
    "draw_grid": ".grid",
    "evaluate_retrieval": ".evaluation",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
