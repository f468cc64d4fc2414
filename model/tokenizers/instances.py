"""SAM instances as the strings the model reads, and back (4M-21, arXiv 2406.09406).

The picture is asked at points, `point v0=<y> v1=<x>` in pixels of a 224 x 224 frame. Each point is followed
by the instances that contain it, `polygon`, a box in the same pixels and 16 codes of the instance tokenizer,
or by `none`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .words import HEADS, code_word, number_word, read_codes, read_numbers, split_before

FRAME = 224
"""Side in pixels of the frame that points and boxes refer to."""

NUM_CODES = 16
MAX_POINTS = 7
"""Points in one text; the published models saw 1 to 7."""

_POINT, _POLYGON, _NONE = "point", "polygon", "none"


@dataclass(frozen=True)
class InstanceCode:
    """One instance.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the frame.
        codes: 16 ids 0..1023 of the 4 x 4 grid that stands for the mask inside the box.
    """

    box: tuple[float, ...]
    codes: tuple[int, ...]


@dataclass(frozen=True)
class PointInstances:
    """A point in pixels of the frame, and the instances that contain it."""

    x: float
    y: float
    instances: tuple[InstanceCode, ...] = ()


def grid_points(side: int = MAX_POINTS) -> list[tuple[int, int]]:
    """`side` x `side` points (x, y) spread evenly over the frame, column by column."""
    places = [FRAME * (i + 1) // (side + 1) for i in range(side)]
    return [(x, y) for x in places for y in places]


def point_words(x: float, y: float) -> list[str]:
    """Spell the question what is at a point."""
    return [_POINT, number_word("v0", y), number_word("v1", x)]


def instances_to_string(points: Iterable[PointInstances]) -> str:
    """Spell points and their instances in the order given; training shuffles both."""
    words: list[str] = []
    for point in points:
        words += point_words(point.x, point.y)
        for instance in point.instances:
            words.append(_POLYGON)
            words += (number_word(head, u) for head, u in zip(HEADS, instance.box, strict=True))
            words += map(code_word, instance.codes)
        if not point.instances:
            words.append(_NONE)
    return " ".join(words)


def string_to_instances(text: str) -> list[PointInstances]:
    """Read points back; instances and points that are incomplete or out of shape are left out."""
    points: list[PointInstances] = []
    for words in split_before(text.split(), _POINT):
        place = read_numbers(words[1:3], ("v0", "v1"))
        if place is not None:
            found = [_read_instance(polygon[1:]) for polygon in split_before(words, _POLYGON)]
            y, x = place
            points.append(PointInstances(x, y, tuple(one for one in found if one is not None)))
    return points


def _read_instance(words: Sequence[str]) -> InstanceCode | None:
    box, codes = read_numbers(words[:4], HEADS), read_codes(words[4:], NUM_CODES)
    return None if box is None or codes is None else InstanceCode(box, codes)
