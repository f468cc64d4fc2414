# ruff: noqa: N802  (the constructors read as the nouns that they make)
"""What is asked: parts of evidence with signed weights, and the arithmetic that joins them.

`Caption("a quiet harbour") + 0.5 * RGB("boat.jpg") - 0.7 * Caption("people")` *is* the query. Parts and
queries are immutable plain values: they compare, print, and go through the HTTP JSON and back unchanged
(schemas.py). Nothing is read or embedded here; the model's reader does that when the query is asked.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError, QueryError
from ..storage import JSON

MAX_PARTS = 32
MAX_WEIGHT = 1000.0

FEATURES = ("clip", "dinov2", "imagebind", "dinov2_global", "imagebind_global", "t5_caption")
"""Modalities that are arrays of numbers, in `.npy` or `.npz` files."""


@dataclass(frozen=True)
class ItemAssets:
    """Evidence that lies in the collection already: an indexed item's own assets.

    Args:
        id: the item.
        use: modalities to take from it, by their raw names; empty takes every one that the model can read.
    """

    id: str
    use: tuple[str, ...] = ()


Content: TypeAlias = "Path | bytes | str | ItemAssets | Sequence[JSON] | Mapping[str, JSON]"
"""A file, its bytes, text, an item's assets, or plain JSON values (boxes, colours, numbers by name)."""


@dataclass(frozen=True)
class QueryPart:
    """One modality, its content and its signed weight.

    Args:
        modality: raw name ("rgb", "caption", "color_palette"), or "item" for an indexed item's assets.
        content: see `Content`.
        weight: how much it counts; negative pushes away, 0 leaves the part out. Within +-1000.

    Raises:
        QueryError: the weight is not a finite number in that range, or the content is of no known kind.
    """

    modality: str
    content: Content
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _checked_weight(self.weight))
        object.__setattr__(self, "content", _checked_content(self.modality, self.content))

    def __add__(self, other: QueryPart | Query) -> Query:
        return Query((self,)) + other

    def __sub__(self, other: QueryPart | Query) -> Query:
        return Query((self,)) - other

    def __mul__(self, factor: float) -> QueryPart:
        return replace(self, weight=self.weight * _checked_weight(factor))

    __rmul__ = __mul__

    def __neg__(self) -> QueryPart:
        return replace(self, weight=-self.weight)

    def in_words(self, limit: int = 60) -> str:
        """The part, its weight in front where it is not 1: `0.5 * rgb boat.jpg`; content cut at `limit`."""
        text = f"{self.modality} {_in_few_words(self.content, limit)}"
        return text if self.weight == 1 else f"{self.weight:g} * {text}"

    def __str__(self) -> str:
        return self.in_words()


@dataclass(frozen=True)
class Query:
    """A sum of parts. It adds, subtracts and scales; nothing is merged, so every part keeps its place.

    Raises:
        QueryError: there is no part, or there are more than 32.
    """

    parts: tuple[QueryPart, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise QueryError("The query is empty: give it at least one part, such as Caption('a harbour').")
        if len(self.parts) > MAX_PARTS:
            raise QueryError(
                f"The query has {len(self.parts)} parts; at most {MAX_PARTS} can be asked at once."
            )

    @classmethod
    def of(cls, query: QueryPart | Query) -> Query:
        """A lone part as a query of one; a query as it is. Anything else is a QueryError."""
        if isinstance(query, Query):
            return query
        if isinstance(query, QueryPart):  # pyright: ignore[reportUnnecessaryIsInstance]
            return cls((query,))
        raise QueryError(
            "A query is made of parts such as Caption('a harbour') or RGB('boat.jpg'), "
            f"got {type(query).__name__}."
        )

    @property
    def positive(self) -> tuple[int, ...]:
        """Places of the parts that pull towards themselves."""
        return tuple(i for i, part in enumerate(self.parts) if part.weight > 0)

    @property
    def negative(self) -> tuple[int, ...]:
        """Places of the parts that push away."""
        return tuple(i for i, part in enumerate(self.parts) if part.weight < 0)

    def __add__(self, other: QueryPart | Query) -> Query:
        return Query(self.parts + Query.of(other).parts)

    def __radd__(self, other: object) -> Query:
        if other == 0:  # sum() starts from 0
            return self
        return NotImplemented

    def __sub__(self, other: QueryPart | Query) -> Query:
        return self + -Query.of(other)

    def __mul__(self, factor: float) -> Query:
        return Query(tuple(part * factor for part in self.parts))

    __rmul__ = __mul__

    def __neg__(self) -> Query:
        return Query(tuple(-part for part in self.parts))

    def __iter__(self) -> Iterator[QueryPart]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def in_words(self, limit: int = 60) -> str:
        """`caption "a harbour" + 0.5 * rgb boat.jpg - 0.7 * caption "people"`; contents cut at `limit`."""
        first, *rest = self.parts
        signed = (("-", -part) if part.weight < 0 else ("+", part) for part in rest)
        return first.in_words(limit) + "".join(f" {sign} {part.in_words(limit)}" for sign, part in signed)

    def __str__(self) -> str:
        return self.in_words()


Picture: TypeAlias = "str | Path | bytes | NDArray[Any] | Image.Image"


def RGB(picture: Picture, weight: float = 1.0) -> QueryPart:
    """A photo: a file, its bytes, a uint8 array (H, W, 3) or a PIL image."""
    return QueryPart("rgb", _picture(picture), weight)


def Depth(picture: Picture, weight: float = 1.0) -> QueryPart:
    """A depth map, far is large: an 8- or 16-bit picture of one channel, or an array (H, W) or its file."""
    return QueryPart("depth", _map(picture), weight)


def Normal(picture: Picture, weight: float = 1.0) -> QueryPart:
    """Surface normals: a picture with a component n in -1..1 as 255 (n + 1) / 2, or an array (H, W, 3)."""
    return QueryPart("normal", _map(picture), weight)


def Semseg(picture: Picture, classes: Mapping[str, str] | None = None, weight: float = 1.0) -> QueryPart:
    """A semantic segmentation.

    Args:
        picture: a map of class ids, or one painted in colours.
        classes: what a painted map's colours mean, `{"#ff0000": "dog"}`, or the ids of another map. They go
            into the PNG, which is then read at once. By default what the file says, or a file beside it.
        weight: how much it counts.
    """
    content = _map(picture)
    if classes is None:
        return QueryPart("semseg", content, weight)
    if isinstance(content, Path):
        try:
            content = content.read_bytes()
        except OSError as error:
            raise InputError(f"{picture}: cannot be read ({error.strerror}).") from error
    assert isinstance(content, bytes)
    return QueryPart("semseg", with_classes(content, classes), weight)


def Edges(picture: Picture, weight: float = 1.0) -> QueryPart:
    """Canny edges, or a line drawing."""
    return QueryPart("canny_edge", _picture(picture), weight)


def SamEdges(picture: Picture, weight: float = 1.0) -> QueryPart:
    """Borders of segments (edges of SAM masks)."""
    return QueryPart("sam_edge", _picture(picture), weight)


def Caption(text: str | Path, weight: float = 1.0) -> QueryPart:
    """A description in words; a `Path` names a text file."""
    return QueryPart("caption", text, weight)


def Boxes(boxes: Path | Sequence[Mapping[str, JSON]], weight: float = 1.0) -> QueryPart:
    """What is where: `[{"box": [x0, y0, x1, y1], "label": "boat"}]`, coordinates in 0..1, or a JSON file."""
    return QueryPart("det", boxes, weight)


def Palette(*colors: str | Sequence[int] | Path, weight: float = 1.0) -> QueryPart:
    """The main colours, most important first: `"#20324a"` or `(32, 50, 74)` each, or one file of them."""
    if len(colors) == 1 and isinstance(colors[0], Path):
        return QueryPart("color_palette", colors[0], weight)
    if any(isinstance(color, Path) for color in colors):
        raise QueryError("A palette is either one file or a list of colours, not both.", code="query.content")
    return QueryPart("color_palette", cast("Sequence[JSON]", list(colors)), weight)


def Metadata(values: Path | Mapping[str, float], weight: float = 1.0) -> QueryPart:
    """Statistics of the picture by name, such as `{"brightness": 120}`, or a JSON file."""
    return QueryPart("metadata", values, weight)


def Poses(poses: Path | Sequence[JSON], weight: float = 1.0) -> QueryPart:
    """Human poses, SMPL: a list of people as plain JSON values, or a JSON or npz file."""
    return QueryPart("human_poses", poses, weight)


def Instances(instances: Path | Sequence[JSON] | Mapping[str, JSON], weight: float = 1.0) -> QueryPart:
    """Outlines of instances: polygons or COCO annotations as plain JSON values, or their file."""
    return QueryPart("sam_instance", instances, weight)


def Features(modality: str, features: str | Path | bytes | NDArray[Any], weight: float = 1.0) -> QueryPart:
    """Numbers that another model gave for a picture or a text: an array, or its `.npy` or `.npz` file.

    Args:
        modality: `clip`, `dinov2` or `imagebind` (C, h, w); `dinov2_global` or `imagebind_global` (C,);
            `t5_caption` (L, 4096).
        features: float array, file or bytes of a file.
        weight: how much it counts.
    """
    if modality not in FEATURES:
        raise QueryError(f"No features {modality!r}; known are {', '.join(FEATURES)}.", code="query.modality")
    content = _array_file(features) if isinstance(features, np.ndarray) else features
    return QueryPart(modality, Path(content) if isinstance(content, str) else content, weight)


def Like(id: str, use: Sequence[str] = (), weight: float = 1.0) -> QueryPart:
    """An indexed item's own assets; `use=("rgb",)` names which, by default all that the model reads."""
    if isinstance(use, str):  # ("rgb") is no tuple
        use = (use,)
    return QueryPart("item", ItemAssets(id, tuple(use)), weight)


def with_classes(picture: bytes, classes: Mapping[str, str]) -> bytes:
    """A PNG with a legend in its text, where the model's reader looks for one.

    Args:
        picture: a PNG file.
        classes: `{"#rrggbb" or "id": "name of a class"}`; the reader checks names and colours.

    Raises:
        QueryError: it is no PNG, or has a legend already.
    """
    if not picture.startswith(_PNG) or len(picture) < _PNG_HEADER:
        raise QueryError("Classes are named for a PNG only; save the map as PNG.", code="query.content")
    if _CLASSES_KEY in picture:
        raise QueryError("This PNG names its classes itself; give none beside it.", code="query.content")
    text = (
        b"tEXt" + _CLASSES_KEY + json.dumps({str(key): str(name) for key, name in classes.items()}).encode()
    )
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return picture[:_PNG_HEADER] + chunk + picture[_PNG_HEADER:]


_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = 33  # signature and the chunk that must come first
_CLASSES_KEY = b"anyseek:classes\0"


def _picture(picture: Picture) -> Path | bytes:
    """Files stay files; what lies in memory becomes the bytes of one, so that a part stays a plain value."""
    if isinstance(picture, str):
        return Path(picture)
    if isinstance(picture, np.ndarray):
        try:
            picture = Image.fromarray(picture)
        except (TypeError, ValueError) as error:
            raise QueryError(
                f"An array of shape {picture.shape} and type {picture.dtype} is no picture; "
                "give (H, W, 3) uint8, or (H, W) uint8 or uint16.",
                code="query.content",
            ) from error
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        try:
            picture.save(buffer, format="PNG", compress_level=1)
        except OSError as error:
            raise QueryError(
                f"A picture of mode {picture.mode} cannot be sent: {error}.", code="query.content"
            ) from error
        return buffer.getvalue()
    return picture


def _map(picture: Picture) -> Path | bytes:
    """A picture, or an array of numbers that no picture file holds."""
    if isinstance(picture, np.ndarray) and picture.dtype.str[1:] not in ("u1", "u2", "b1"):
        return _array_file(picture)
    return _picture(picture)


def _array_file(array: NDArray[Any]) -> bytes:
    """The bytes of a `.npy` file; an array of objects would be a pickle, which nothing here reads."""
    buffer = io.BytesIO()
    try:
        np.save(buffer, array, allow_pickle=False)
    except ValueError as error:
        raise QueryError(
            f"An array of {array.dtype} cannot be sent: {error}.", code="query.content"
        ) from error
    return buffer.getvalue()


def _checked_weight(weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise QueryError(f"A weight is a number, got {type(weight).__name__}.", code="query.weight")
    if not abs(float(weight)) <= MAX_WEIGHT:  # also refuses NaN
        raise QueryError(
            f"A weight must be a finite number within +-{MAX_WEIGHT:g}, got {float(weight)!r}.",
            code="query.weight",
        )
    return float(weight)


def _checked_content(modality: object, content: object) -> Content:
    if not isinstance(modality, str) or not modality:
        raise QueryError("A part names its modality, such as 'rgb' or 'caption'.", code="query.modality")
    if isinstance(content, ItemAssets) != (modality == "item"):
        raise QueryError(
            f"An indexed item is asked with Like(id): modality 'item', got {modality!r}.",
            code="query.content",
        )
    if isinstance(content, str) and modality != "caption":  # a reader would take it for a path
        raise QueryError(
            f"Text is asked with modality 'caption'; a {modality} part takes a Path, bytes or plain values.",
            code="query.content",
        )
    if isinstance(content, Path | bytes | str | ItemAssets):
        return content
    if isinstance(content, Mapping | Sequence):
        return cast("Content", _plain(cast(Any, content), modality))
    raise QueryError(
        f"The content of a {modality} part is a file, bytes, text or plain values, "
        f"got {type(content).__name__}.",
        code="query.content",
    )


def _plain(value: Any, modality: str, depth: int = 0) -> JSON:
    """A deep copy made of lists, dicts and finite scalars, so that no later change reaches the part."""
    if depth > 16:
        raise QueryError(f"The values of the {modality} part are nested too deeply.", code="query.content")
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, modality, depth + 1) for key, inner in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise QueryError(
                f"The {modality} part holds {value!r}; only finite numbers can be asked.",
                code="query.content",
            )
        return value
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, bytes | bytearray):
        return [_plain(inner, modality, depth + 1) for inner in value]
    raise QueryError(
        f"The {modality} part holds a {type(value).__name__}; only plain JSON values can be asked.",
        code="query.content",
    )


def _in_few_words(content: Content, limit: int) -> str:
    if isinstance(content, Path):
        return content.name
    if isinstance(content, bytes):
        return f"({len(content):,} bytes)"
    if isinstance(content, ItemAssets):
        return content.id + (f" ({', '.join(content.use)})" if content.use else "")
    if isinstance(content, str):
        text = f'"{content}"'
    elif isinstance(content, Mapping):
        text = ", ".join(f"{key}={value}" for key, value in content.items())
    else:
        text = ", ".join(_value_in_few_words(value) for value in content)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _value_in_few_words(value: JSON) -> str:
    if isinstance(value, Mapping) and "label" in value:
        return str(value["label"])
    return str(value)
