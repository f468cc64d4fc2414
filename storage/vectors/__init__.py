"""Vector indexes behind one protocol."""

from .protocol import VectorIndex

__all__ = ["VectorIndex"]
