"""How well a collection is found: kinds of queries, its indexes, and items that contradict themselves."""

from .asked import Retrieval, evaluate_retrieval
from .check import Agreement, CheckReport, CheckSettings, Finding, check_collection
from .contents import Failure
from .index import IndexEvaluation, IndexQuality, IndexSettings, evaluate_index
from .ranks import Figures, Gap, Interval
from .report import Ceiling, Cell, Choice, Kind, RetrievalReport
from .retrieval import RetrievalSettings, evaluate_collection

__all__ = [
    "Agreement",
    "Ceiling",
    "Cell",
    "CheckReport",
    "CheckSettings",
    "Choice",
    "Failure",
    "Figures",
    "Finding",
    "Gap",
    "IndexEvaluation",
    "IndexQuality",
    "IndexSettings",
    "Interval",
    "Kind",
    "Retrieval",
    "RetrievalReport",
    "RetrievalSettings",
    "check_collection",
    "evaluate_collection",
    "evaluate_index",
    "evaluate_retrieval",
]
