"""Structured text modalities: boxes, metadata and palettes to the strings the model reads, and back.

Formats of 4M-21 (arXiv 2406.09406): numbers are the tokens `v0=0`..`v0=999` to `v3=999` of the text
vocabulary. The functions check nothing: `inputs.py` does that for values from outside.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

_COORDINATE_BINS = 999
_SIZE_BIN = 32  # pixels of original width and height in one bin
_RANGE_BINS = 50
_MAX_NUMBER = 999


class Box(NamedTuple):
    """A labelled rectangle; coordinates are fractions 0..1 of the square picture that the model sees."""

    x0: float
    y0: float
    x1: float
    y1: float
    label: str


def boxes_to_string(boxes: Iterable[Box]) -> str:
    """Spell boxes as `v0=x0 v1=y0 v2=x1 v3=y1 label`, nearest to the top left corner first."""
    ordered = sorted(boxes, key=lambda box: box.x0**2 + box.y0**2)
    return " ".join(
        " ".join(f"v{i}={round(u * _COORDINATE_BINS)}" for i, u in enumerate(box[:4])) + f" {box.label}"
        for box in ordered
    )


def string_to_boxes(text: str) -> list[Box]:
    """Read boxes back; incomplete ones are left out. Coordinates come back as multiples of 1/999."""
    boxes: list[Box] = []
    for group in _groups(text.split(), "v0="):
        numbers = [_number(word, f"v{i}") for i, word in enumerate(group[:4])]
        coordinates = [n / _COORDINATE_BINS for n in numbers if n is not None]
        if len(coordinates) == 4 and len(group) > 4:
            boxes.append(Box(*coordinates, label=" ".join(group[4:])))
    return boxes


@dataclass(frozen=True)
class MetadataType:
    """One statistic of a picture: how its value becomes one of the numbers 0..999.

    Attributes:
        name: as users write it.
        id: the number after `v1=`.
        kind: `size` (32 px bins), `count` (as it is), `range` (50 bins from 0 to `maximum`) or `levels`.
        maximum: upper end of a `range`.
        levels: ascending bounds of `levels`; the number says how many are reached.
    """

    name: str
    id: int
    kind: Literal["size", "count", "range", "levels"]
    maximum: float = 0.0
    levels: tuple[float, ...] = ()

    def to_number(self, value: float) -> int:
        """Quantise a value; those outside the range are clamped."""
        if self.kind == "range":
            number = int(min(max(value, 0.0), self.maximum) / self.maximum * (_RANGE_BINS - 1))
        elif self.kind == "levels":
            number = sum(value >= bound for bound in self.levels)
        else:
            number = int(value // _SIZE_BIN if self.kind == "size" else value)
        return min(max(number, 0), _MAX_NUMBER)

    def to_value(self, number: int) -> float:
        """Return the value of a number. As in the reference, 50 divides here but 49 multiplied above."""
        if self.kind == "range":
            return self.maximum * (number / _RANGE_BINS)
        return number * _SIZE_BIN if self.kind == "size" else number


METADATA: Mapping[str, MetadataType] = {
    kind.name: kind
    for kind in (
        MetadataType("original_width", 0, "size"),
        MetadataType("original_height", 1, "size"),
        MetadataType("caption_n_chars", 2, "count"),
        MetadataType("caption_n_words", 3, "count"),
        MetadataType("caption_n_sentences", 4, "count"),
        MetadataType("n_humans", 5, "count"),
        MetadataType("n_sam_instances", 6, "count"),
        MetadataType("n_coco_instances", 7, "count"),
        MetadataType("coco_instance_diversity", 8, "count"),
        MetadataType("colorfulness", 9, "range", 150.0),
        MetadataType("brightness", 10, "range", 255.0),
        MetadataType("contrast", 11, "range", 127.0),
        MetadataType("saturation", 12, "range", 255.0),
        MetadataType("entropy", 13, "range", 10.0),
        MetadataType("walkability", 14, "range", 1.0),
        MetadataType("objectness", 15, "range", 1.0),
        MetadataType("semantic_diversity", 16, "count"),
        MetadataType("geometric_complexity", 17, "range", 0.75),
        MetadataType("occlusion_score", 18, "range", 0.25),
        MetadataType("watermark_score", 19, "levels", levels=(0.5,)),
        MetadataType("aesthetic_score", 20, "levels", levels=(4.5, 5.5)),
    )
}
"""The 21 statistics by name, in the order of their ids."""

_METADATA_BY_ID: dict[int | None, MetadataType] = {kind.id: kind for kind in METADATA.values()}


def metadata_chunks(values: Mapping[str, float]) -> list[str]:
    """Spell each statistic as `v1=<type> v0=<number>`, in the order given. Spans are masked per chunk."""
    return [f"v1={METADATA[name].id} v0={METADATA[name].to_number(value)}" for name, value in values.items()]


def metadata_to_string(values: Mapping[str, float]) -> str:
    """Spell statistics as one string, in the order given."""
    return " ".join(metadata_chunks(values))


def string_to_metadata(text: str) -> dict[str, float]:
    """Read statistics back by name; pairs that mean nothing are left out."""
    values: dict[str, float] = {}
    for name, *rest in _groups(text.split(), "v1="):
        kind = _METADATA_BY_ID.get(_number(name, "v1"))
        number = _number(rest[0], "v0") if rest else None
        if kind is not None and number is not None:
            values[kind.name] = kind.to_value(number)
    return values


def palette_to_string(colors: Sequence[Sequence[int]]) -> str:
    """Spell RGB colours (0..255 each) as `v1=<count> v0=r v0=g v0=b ...`."""
    return " ".join([f"v1={len(colors)}", *(f"v0={channel}" for color in colors for channel in color)])


def string_to_palette(text: str) -> list[tuple[int, int, int]]:
    """Read RGB colours back; the count is not trusted and an incomplete last colour is left out."""
    numbers = [n for word in text.split() if (n := _number(word, "v0")) is not None]
    return [(numbers[i], numbers[i + 1], numbers[i + 2]) for i in range(0, len(numbers) - 2, 3)]


def _groups(words: Sequence[str], prefix: str) -> list[list[str]]:
    """Cut a list of words before each one that starts with `prefix`; drop what comes before the first."""
    starts = [i for i, word in enumerate(words) if word.startswith(prefix)]
    return [list(words[start:stop]) for start, stop in pairwise([*starts, len(words)])]


def _number(word: str, name: str) -> int | None:
    head, _, digits = word.partition("=")
    return int(digits) if head == name and digits.isascii() and digits.isdigit() and len(digits) < 4 else None
