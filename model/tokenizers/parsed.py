"""Generated sequences as values: captions, boxes, metadata, palettes, poses, instances.

A model may write anything. What can be read is given, what cannot is reported; nothing here raises for it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from ...errors import ModelError
from .instances import FRAME, InstanceCode, PointInstances, string_to_instances
from .poses import NOBODY, WORDS_PER_PERSON, Pose, string_to_poses
from .sequences import Box, string_to_boxes, string_to_metadata, string_to_palette
from .text import TextTokenizer
from .words import is_number

Value = (
    str
    | Sequence[Box]
    | Mapping[str, float]
    | Sequence[tuple[int, int, int]]
    | Sequence[Pose]
    | Sequence[PointInstances]
)
"""What a sequence says: text for a caption, else what the function `string_to_...` gives."""

_MAX_CHANNEL = 255
_WORDS_PER_POINT = 3
_WORDS_PER_INSTANCE = 21


@dataclass(frozen=True)
class Parsed:
    """A generated sequence, read.

    Attributes:
        text: what was written, up to `[EOS]` and without control tokens.
        value: what it says, or None where it says nothing that can be read.
        problem: what is wrong with it, or None. Beside a problem, the value is what could be read.
    """

    text: str
    value: Value | None
    problem: str | None


def parse_sequence(modality: str, ids: Iterable[int], tokenizer: TextTokenizer) -> Parsed:
    """Read a generated sequence.

    Args:
        modality: a sequence modality.
        ids: as generated; what follows `[EOS]` is not read.
        tokenizer: the model's.

    Raises:
        ModelError: no sequence modality of this name (known ones are listed).
    """
    if modality not in _READERS:
        raise ModelError(f"{modality!r} is no sequence that can be read. Known: {', '.join(_READERS)}.")
    control = {tokenizer.pad_id, tokenizer.unk_id, tokenizer.sos_id, *tokenizer.sentinels}
    kept: list[int] = []
    num_strange = 0
    for token in map(int, ids):
        if token == tokenizer.eos_id:
            break
        if 0 <= token < tokenizer.vocab_size and token not in control:
            kept.append(token)
        else:
            num_strange += 1
    text = tokenizer.decode(kept)
    value, num_read = _READERS[modality](text)
    num_unread = max(len(text.split()) - num_read, 0) + num_strange
    if not num_read and (num_unread or modality not in _MAY_BE_EMPTY):
        return Parsed(
            text, None, f"nothing in {num_unread} words can be read" if num_unread else "it is empty"
        )
    return Parsed(text, value, f"{num_unread} words cannot be read" if num_unread else None)


Reading = tuple[Value, int]
"""A value, and how many words of the text say it."""


def _read_caption(text: str) -> Reading:
    return text, len(text.split())


def _read_boxes(text: str) -> Reading:
    boxes: list[Box] = []
    for box in string_to_boxes(text):
        label = " ".join(word for word in box.label.split() if not is_number(word))
        if box.x0 < box.x1 and box.y0 < box.y1 and label:
            boxes.append(box._replace(label=label))
    return boxes, sum(4 + len(box.label.split()) for box in boxes)


def _read_metadata(text: str) -> Reading:
    values = string_to_metadata(text)
    return values, 2 * len(values)


def _read_palette(text: str) -> Reading:
    colors = [color for color in string_to_palette(text) if max(color) <= _MAX_CHANNEL]
    return colors, 1 + 3 * len(colors) if colors else 0


def _read_poses(text: str) -> Reading:
    poses = [
        pose for pose in string_to_poses(text) if pose.box[0] < pose.box[2] and pose.box[1] < pose.box[3]
    ]
    return poses, WORDS_PER_PERSON * len(poses) if poses else int(text.strip() == NOBODY)


def _read_instances(text: str) -> Reading:
    points = [
        replace(point, instances=tuple(one for one in point.instances if _is_inside(one)))
        for point in string_to_instances(text)
        if max(point.x, point.y) < FRAME
    ]
    num_answers = sum(_WORDS_PER_INSTANCE * len(point.instances) or 1 for point in points)
    return points, _WORDS_PER_POINT * len(points) + num_answers


def _is_inside(instance: InstanceCode) -> bool:
    x0, y0, x1, y1 = instance.box
    return x0 < x1 <= FRAME and y0 < y1 <= FRAME


_READERS: Mapping[str, Callable[[str], Reading]] = MappingProxyType(
    {
        "caption": _read_caption,
        "det": _read_boxes,
        "metadata": _read_metadata,
        "color_palette": _read_palette,
        "human_poses": _read_poses,
        "sam_instance": _read_instances,
    }
)
_MAY_BE_EMPTY = ("det",)  # a picture without objects
