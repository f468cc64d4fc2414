"""Values, before they are written or drawn: of the types and shapes that `values.py` lists, and finite."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .modalities import raw_name
from .readers.texts import MAX_LABEL_CHARS, parse_boxes, parse_metadata, parse_palette
from .tokenizers.sequences import Box
from .values import INSTANCE, PERSON, Value

_PIXELS = (np.dtype(np.uint8), ("height", "width", 3))
_MAP = (np.dtype(np.uint8), ("height", "width"))
_FLOAT = np.dtype(np.float32)
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
    parts = [value[name] for name in dtype.names] if dtype.names else [value]
    num_bad = sum(int((~np.isfinite(part)).sum()) for part in parts if part.dtype.kind == "f")
    if num_bad:
        raise InputError(f"{raw}: {num_bad} of its numbers are not finite.")
    return value


def _name(dtype: np.dtype[Any]) -> str:
    return {PERSON: "PERSON", INSTANCE: "INSTANCE"}.get(dtype, str(dtype))
