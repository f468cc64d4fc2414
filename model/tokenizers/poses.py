"""Human poses as the strings the model reads, and back (4M-21, arXiv 2406.09406).

A person is 39 words: `human`, a box, then four sections in any order: `pose` and 8 codes of the pose
tokenizer, `global` and the rotation of the body, `camera`, `shape`. Nobody is `none`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from .words import HEADS, code_word, number_word, read_codes, read_numbers, split_before

NOBODY = "none"
NUM_CODES = 8
WORDS_PER_PERSON = 39
_HUMAN = "human"
_BOX_SCALE = 999.0


@dataclass(frozen=True)
class Pose:
    """One person.

    Attributes:
        box: x0, y0, x1, y1 as fractions 0..1 of the square picture that the model sees.
        codes: 8 ids of the human pose tokenizer, 0..1023, which stand for 23 joint rotations.
        rotation: of the body, the 9 numbers of a matrix row by row, each in -1..1.
        camera: 3 numbers, each in -1..19.
        shape: 10 SMPL shape parameters, each in -3..3.
    """

    box: tuple[float, ...]
    codes: tuple[int, ...]
    rotation: tuple[float, ...]
    camera: tuple[float, ...]
    shape: tuple[float, ...]


@dataclass(frozen=True)
class _Section:
    """Values of a pose as numbers: scale * value + offset."""

    field: str
    length: int
    scale: float
    offset: float


_SECTIONS: Mapping[str, _Section] = MappingProxyType(
    {
        "global": _Section("rotation", 9, 499.5, 499.5),
        "camera": _Section("camera", 3, 49.95, 49.95),
        "shape": _Section("shape", 10, 166.5, 499.5),
    }
)
SECTION_NAMES = ("pose", *_SECTIONS)
"""In the order in which they are written unless told otherwise."""


def poses_to_string(poses: Iterable[Pose], orders: Sequence[Sequence[str]] | None = None) -> str:
    """Spell people; a blank follows each, as in training. Values outside their ranges are clamped.

    Args:
        poses: people.
        orders: of each, the order of its sections, which training shuffles.
    """
    poses = list(poses)
    orders = [SECTION_NAMES] * len(poses) if orders is None else orders
    people = [_person(pose, order) for pose, order in zip(poses, orders, strict=True)]
    return "".join(f"{person} " for person in people) or NOBODY


def _person(pose: Pose, order: Sequence[str]) -> str:
    words = [_HUMAN]
    words += (number_word(head, u * _BOX_SCALE) for head, u in zip(HEADS, pose.box, strict=True))
    for name in order:
        words.append(name)
        if name == "pose":
            words += map(code_word, pose.codes)
        else:
            section = _SECTIONS[name]
            values: tuple[float, ...] = getattr(pose, section.field)
            words += (number_word("v0", section.scale * value + section.offset) for value in values)
    return " ".join(words)


def string_to_poses(text: str) -> list[Pose]:
    """Read people back; those with a word too few, too many or out of place are left out."""
    people = [_read_person(words) for words in split_before(text.split(), _HUMAN)]
    return [pose for pose in people if pose is not None]


def _read_person(words: Sequence[str]) -> Pose | None:
    box = read_numbers(words[1:5], HEADS)
    if len(words) != WORDS_PER_PERSON or box is None:
        return None
    codes: tuple[int, ...] | None = None
    values: dict[str, tuple[float, ...]] = {}
    place = 5
    while place < len(words):
        name, place = words[place], place + 1
        section = _SECTIONS.get(name)
        if section is not None:
            found = read_numbers(words[place : place + section.length], ("v0",) * section.length)
            place += section.length
            if found is not None:
                values[section.field] = tuple((n - section.offset) / section.scale for n in found)
        elif name == "pose":
            codes = read_codes(words[place : place + NUM_CODES], NUM_CODES)
            place += NUM_CODES
    if codes is None or len(values) != len(_SECTIONS):
        return None
    return Pose(tuple(n / _BOX_SCALE for n in box), codes, **values)
