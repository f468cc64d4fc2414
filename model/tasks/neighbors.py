"""Weighted nearest neighbours as a classifier (DINO, arXiv 2104.14294, `eval_knn.py`)."""

import numpy as np

_QUERIES_AT_ONCE, _KEYS_AT_ONCE = 1024, 16_384


def rank_classes(
    queries: np.ndarray,
    keys: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    top: int = 5,
) -> np.ndarray:
    """Classes by the votes of each query's nearest keys, a neighbour voting with exp(cosine / temperature).

    Args:
        queries: unit vectors float (Q, D).
        keys: unit vectors float (K, D); may be float16.
        labels: int (K,), class 0..num_classes - 1 of each key.
        num_classes: how many there are.
        k: neighbours that vote; all keys where there are fewer.
        temperature: above 0.
        top: how many classes to return.

    Returns:
        int64 (Q, min(top, num_classes)), best first, of equals the one with the lower number. Classes without
        a vote come last.
    """
    k, top = min(k, len(keys)), min(top, num_classes)
    ranked = np.empty((len(queries), top), np.int64)
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        rows = slice(start, start + _QUERIES_AT_ONCE)
        nearest, cosine = _nearest(queries[rows].astype(np.float32), keys, k)
        votes = np.zeros((len(nearest), num_classes))
        np.add.at(votes, (np.arange(len(nearest))[:, None], labels[nearest]), np.exp(cosine / temperature))
        ranked[rows] = np.argsort(-votes, axis=1, kind="stable")[:, :top]
    return ranked


def _nearest(queries: np.ndarray, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest keys (Q, k) and their cosines; keys are taken in pieces that fit into memory."""
    best = np.empty((len(queries), 0), np.float32)
    places = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        part = keys[start : start + _KEYS_AT_ONCE].astype(np.float32)
        found = np.broadcast_to(np.arange(start, start + len(part)), (len(queries), len(part)))
        best, places = np.hstack([best, queries @ part.T]), np.hstack([places, found])
        kept = np.argpartition(-best, min(k, best.shape[1]) - 1, axis=1)[:, :k]
        best, places = np.take_along_axis(best, kept, 1), np.take_along_axis(places, kept, 1)
    return places, best
