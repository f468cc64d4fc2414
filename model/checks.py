"""Values of the types and shapes that `values.py` lists, and finite: as the model takes them, and as they are
written and drawn. Anything else is refused by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .modalities import Modality, raw_name
from .readers.texts import MAX_LABEL_CHARS, parse_boxes, parse_metadata, parse_palette
from .tokenizers.sequences import Box
from .values import INSTANCE, PERSON, Value

_BYTE, _FLOAT = np.dtype(np.uint8), np.dtype(np.float32)
_PIXELS = (_BYTE, ("height", "width", 3))
_MAP = (_BYTE, ("height", "width"))
_FEATURES = (_FLOAT, ("channels", "height", "width"))
_ARRAYS: Mapping[str, tuple[np.dtype[Any], tuple[str | int, ...]]] = {
    "rgb": _PIXELS,
    "normal": _PIXELS,
    "depth": (_FLOAT, ("height", "width")),
    "semseg": _MAP,
    "canny_edge": _MAP,
    "sam_edge": _MAP,
    "clip": _FEATURES,
    "dinov2": _FEATURES,
    "imagebind": _FEATURES,
    "dinov2_global": (_FLOAT, ("channels",)),
    "imagebind_global": (_FLOAT, ("channels",)),
    "t5_caption": (_FLOAT, ("tokens", "channels")),
    "human_poses": (PERSON, ("people",)),
    "sam_instance": (INSTANCE, ("instances",)),
}
_STRUCTURES = {"human_poses": PERSON, "sam_instance": INSTANCE}
_MOST_ROWS = 10_000  # people or instances; a text holds a handful, and the first ones are taken


def check_value(modality: str, value: Value | None) -> Any:
    """Let a value pass as one of a modality.

    Args:
        modality: the user's name of it, or a word for it.
        value: as in the table of `values.py`; sequences as they are predicted, not as token ids.

    Returns:
        The value; boxes as a list of `Box`, statistics in the order of the table, colours as
        (red, green, blue) of 0..255 each.

    Raises:
        ModelError: unknown modality.
        InputError: None, another type or shape, or a number that is not finite.
    """
    raw = raw_name(modality)
    if raw in _ARRAYS:
        return _check_array(raw, value)
    if raw == "caption":
        if not isinstance(value, str):
            raise InputError(f"caption: expected text, got {type(value).__name__}.")
        return value.encode("utf-8", "replace").decode("utf-8")  # lone surrogates become "?"
    if isinstance(value, np.ndarray):
        raise InputError(f"{raw}: expected what its token ids say, got an array {value.dtype} {value.shape}.")
    if isinstance(value, Sequence | Mapping) and not value:
        return {} if raw == "metadata" else []
    return _PARSE[raw](value, raw)


def _check_boxes(value: object, name: str) -> list[Box]:
    """Boxes, with labels cut where a model wrote on and on: no reader takes them whole."""
    if isinstance(value, Sequence):
        value = [_with_short_label(item) if isinstance(item, Mapping) else item for item in value]
    return parse_boxes(value, name)


def _with_short_label(item: Mapping[str, Any]) -> Mapping[str, Any]:
    label = item.get("label")
    return {**item, "label": label[:MAX_LABEL_CHARS]} if isinstance(label, str) else item


_PARSE: Mapping[str, Callable[[object, str], Any]] = {
    "det": _check_boxes,
    "metadata": parse_metadata,
    "color_palette": parse_palette,
}


def _check_array(raw: str, value: object) -> np.ndarray:
    dtype, axes = _ARRAYS[raw]
    expected = f"{raw}: expected {_name(dtype)} ({', '.join(map(str, axes))})"
    if not isinstance(value, np.ndarray):
        raise InputError(f"{expected}, got {type(value).__name__}.")
    same_kind = value.dtype == dtype or (dtype == _FLOAT and value.dtype.kind == "f")
    fits = value.ndim == len(axes) and all(
        n == axis if isinstance(axis, int) else n > 0 or dtype.names is not None
        for n, axis in zip(value.shape, axes, strict=False)
    )
    if not same_kind or not fits:
        raise InputError(f"{expected}, got {_name(value.dtype)} {value.shape}.")
    num_bad = _count_infinite(value)
    if num_bad:
        raise InputError(f"{raw}: {num_bad} of its numbers are not finite.")
    return value


def _count_infinite(value: np.ndarray) -> int:
    """How many of its numbers, those of all fields of a structure, are NaN or infinite."""
    parts = [value[name] for name in value.dtype.names or ()] or [value]
    return sum(int((~np.isfinite(part)).sum()) for part in parts if part.dtype.kind == "f")


def _name(dtype: np.dtype[Any]) -> str:
    return {PERSON: "PERSON", INSTANCE: "INSTANCE"}.get(dtype, str(dtype))


def check_input(value: object, row: Modality, where: str, num_classes: int) -> np.ndarray:
    """Let a value pass as one of a modality that the model takes.

    Args:
        value: as in `values.py`, texts as token ids.
        row: the modality as the model has it.
        where: what messages call it.
        num_classes: labels of segmentations, without the one for nothing.

    Raises:
        InputError: what reading would not give: another shape or type, ids or labels that the model lacks,
            numbers that are not finite.
    """
    if not isinstance(value, np.ndarray):
        raise InputError(f"{where}: expected an array from read(), got {type(value).__name__}.")
    if row.kind == "seq" and row.reads_as not in _STRUCTURES:
        return _check_text(value, row, where)
    dtype, shape = _array_of(row)
    fits = value.ndim == len(shape) and all(
        n in size if isinstance(size, range) else n == size
        for n, size in zip(value.shape, shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        sizes = ", ".join(f"{n[0]}..{n[-1]}" if isinstance(n, range) else str(n) for n in shape)
        raise InputError(
            f"{where}: expected {_name(dtype)} ({sizes}) from read(), got {_name(value.dtype)} {value.shape}."
        )
    if _count_infinite(value):
        raise InputError(f"{where}: holds numbers that are not finite; take it from read().")
    if row.reads_as == "semseg" and value.max() > num_classes:
        raise InputError(f"{where}: labels must lie in 0..{num_classes}, got {value.max()}.")
    return value


def _array_of(row: Modality) -> tuple[np.dtype[Any], tuple[int | range, ...]]:
    """Type and shape of a value; a range where several sizes fit."""
    size, channels = row.image_size or 0, row.channels or 0
    if row.reads_as in _STRUCTURES:
        return _STRUCTURES[row.reads_as], (range(_MOST_ROWS + 1),)
    if row.kind == "emb":
        return _FLOAT, (range(1, row.max_tokens + 1), channels)
    if row.positions == "learned":
        return _FLOAT, (channels,)
    if row.reads_as in ("rgb", "normal"):
        return _BYTE, (size, size, 3)
    if row.reads_as == "depth":
        return _FLOAT, (size, size)
    if row.reads_as in ("semseg", "canny_edge", "sam_edge"):
        return _BYTE, (size, size)
    assert row.grid is not None
    return _FLOAT, (channels, *row.grid)


def _check_text(value: np.ndarray, row: Modality, where: str) -> np.ndarray:
    assert row.vocab_size is not None
    if value.ndim != 1 or value.dtype.kind not in "iu" or not 0 < len(value) <= row.max_tokens:
        raise InputError(
            f"{where}: expected 1 to {row.max_tokens} token ids from read(), got {value.dtype} {value.shape}."
        )
    if value.min() < 0 or value.max() >= row.vocab_size:
        raise InputError(f"{where}: token ids must lie in 0..{row.vocab_size - 1}; take them from read().")
    return value
