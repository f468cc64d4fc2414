"""Masks as run lengths, as COCO writes them.

Runs count pixels column by column: none, some, none, ... In the compressed text each count stands as its
difference from the one two places before (`maskApi.c` of pycocotools).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError, LimitError
from ..images import ImageLimits


def is_rle(value: object) -> bool:
    """Whether a segmentation is given as run lengths."""
    return isinstance(value, Mapping) and "counts" in value


def decode_rle(value: Mapping[str, Any], name: str) -> np.ndarray:
    """A mask bool (h, w) from COCO's `{"size": [h, w], "counts": numbers or text}`.

    Raises:
        InputError: no run lengths, or they do not fill the size.
        LimitError: more pixels than a picture may have.
    """
    height, width = rle_size(value, name)
    counts = rle_counts(value, name)
    total = int(counts.sum())
    if total != height * width:
        raise InputError(
            f"{name}: run lengths of {total:,} pixels; size says {height} x {width} = {height * width:,} "
            "(height x width)."
        )
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def rle_size(value: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Height and width of run lengths. Raises InputError, LimitError."""
    size = value.get("size")
    if (
        not isinstance(size, Sequence)
        or isinstance(size, str)
        or len(size) != 2
        or not all(isinstance(n, int) and n > 0 for n in size)
    ):
        raise InputError(f'{name}: run lengths need "size": [height, width], got {str(size)[:40]}.')
    height, width = size
    if height * width > ImageLimits.max_pixels:
        raise LimitError(
            f"{name}: {width} x {height} = {width * height:,} pixels; the limit is "
            f"{ImageLimits.max_pixels:,}."
        )
    return height, width


def rle_counts(value: Mapping[str, Any], name: str) -> np.ndarray:
    """Run lengths int64 (R,) from a list of numbers or COCO's compressed text. Raises InputError."""
    counts = value["counts"]
    if isinstance(counts, str | bytes):
        counts = _uncompressed(counts.encode() if isinstance(counts, str) else counts, name)
    try:
        runs = np.array(counts, np.int64)
    except Exception as error:  # texts, lists in lists, numbers beyond 64 bits, ...
        raise InputError(f'{name}: "counts" must be whole numbers or COCO\'s compressed text.') from error
    if runs.ndim != 1 or (runs < 0).any() or (runs > ImageLimits.max_pixels).any():
        raise InputError(f'{name}: "counts" must be a list of whole numbers, 0 or more.')
    return runs


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths of a mask (h, w): `{"size": [h, w], "counts": [...]}`."""
    flat = np.concatenate([[False], mask.astype(bool).T.reshape(-1)])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def _uncompressed(text: bytes, name: str) -> list[int]:
    """Numbers, 5 bits a character, lowest first; bit 6: more follow; bit 5 of the last: the sign."""
    counts: list[int] = []
    number, shift = 0, 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise InputError(f'{name}: "counts" is not COCO\'s compressed text.')
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                number -= 1 << shift
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number, shift = 0, 0
    if shift:
        raise InputError(f'{name}: "counts" ends too soon.')
    return counts
