"""Vector indexes behind one protocol."""

from .exact import best, search_exactly
from .faiss import FaissIndex
from .protocol import VectorIndex

__all__ = ["FaissIndex", "VectorIndex", "best", "search_exactly"]
