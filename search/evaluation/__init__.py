"""How well a collection is found: kinds of queries, its indexes, and items that contradict themselves."""

from .asked import Retrieval, evaluate_retrieval
from .ranks import Figures, Gap, Interval
from .report import Ceiling, Cell, Choice, Kind, RetrievalReport
from .retrieval import RetrievalSettings, evaluate_collection

__all__ = [
    "Ceiling",
    "Cell",
    "Choice",
    "Figures",
    "Gap",
    "Interval",
    "Kind",
    "Retrieval",
    "RetrievalReport",
    "RetrievalSettings",
    "evaluate_collection",
    "evaluate_retrieval",
]
