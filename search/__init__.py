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
    from .evaluation import (
        CheckReport,
        CheckSettings,
        IndexEvaluation,
        IndexSettings,
        Retrieval,
        RetrievalReport,
        RetrievalSettings,
        check_collection,
        evaluate_collection,
        evaluate_index,
        evaluate_retrieval,
    )
    from .grid import draw_grid
    from .ranking import Scoring

__all__ = [
    "RGB",
    "Boxes",
    "Caption",
    "CheckReport",
    "CheckSettings",
    "Composition",
    "Contribution",
    "Depth",
    "Edges",
    "F",
    "Features",
    "Filter",
    "Hit",
    "Hits",
    "IndexEvaluation",
    "IndexSettings",
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
    "RetrievalReport",
    "RetrievalSettings",
    "SamEdges",
    "Scoring",
    "SearchEngine",
    "Semseg",
    "check_collection",
    "create_app",
    "draw_grid",
    "evaluate_collection",
    "evaluate_index",
    "evaluate_retrieval",
    "parse_filter",
]

_LAZY = {
    "CheckReport": ".evaluation",
    "CheckSettings": ".evaluation",
    "Composition": ".composition",
    "IndexEvaluation": ".evaluation",
    "IndexSettings": ".evaluation",
    "Retrieval": ".evaluation",
    "RetrievalReport": ".evaluation",
    "RetrievalSettings": ".evaluation",
    "Scoring": ".ranking",
    "SearchEngine": ".engine",
    "check_collection": ".evaluation",
    "create_app": ".api",
    "draw_grid": ".grid",
    "evaluate_collection": ".evaluation",
    "evaluate_index": ".evaluation",
    "evaluate_retrieval": ".evaluation",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
