"""People with the parameters of SMPL: as lists of people, as columns (4D-Humans), as NumPy archives.

2-D keypoints are not enough: they say where joints are in the picture, not how they turn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, LimitError
from ..body import DEFAULT_CAMERA, FACING_CAMERA, nearest_rotations, rotation_matrices
from ..modalities import Modality
from ..tokenizers.poses import WORDS_PER_PERSON
from ..values import PERSON
from .arrays import is_numpy, read_arrays
from .coco import MAX_LISTED, SLACK, check_listed, parse_size
from .content import Content, decode_text, parse_json, read_bytes

NAMES: Mapping[str, tuple[str, ...]] = {
    "box": ("box", "bbox_xyxy"),
    "pose": ("pose", "body_pose", "poses"),
    "rotation": ("rotation", "global_orient", "root_orient"),
    "camera": ("camera", "pred_cam"),
    "shape": ("shape", "betas"),
}
"""Fields of a person, and the names that files give them."""

MAX_ERROR = 0.05
"""How far a matrix may be from a rotation, by its largest number: rounding, not another thing."""

_EXACT = 1e-5
_KEYPOINTS = ("keypoints", "keypoints_2d", "pose_keypoints_2d", "joints_2d", "joints2d", "pred_keypoints_2d")
_GROUPS = ("pred_smpl_params", "smpl_params", "smpl")
_SIZES = ("width", "height", "img_size")
_KNOWN = tuple(name for names in NAMES.values() for name in names)
_EXPECTED = (
    'expected a list of {"box": [x0, y0, x1, y1], "pose": 23 rotations, "rotation": of the body, "camera": '
    '[scale, x, y], "shape": 10 numbers}'
)


def read_poses(content: Content, *, name: str, row: Modality, max_bytes: int) -> np.ndarray:
    """Read the people of a picture.

    Args:
        content: path or bytes of a .json or .npz file, or what it holds. A list of people, `{"people": ...}`
            with the `width` and `height` of the picture, or columns by name, as 4D-Humans gives them
            (`pred_smpl_params` may hold some, `img_size` both sides). Of each person
            `box`: x0, y0, x1, y1 as fractions of the picture, of its central square where its size is not
            given; or `bbox_xyxy`, pixels of a picture of that size;
            `pose` (`body_pose`): 23 rotations, matrices (23, 3, 3) or vectors (23, 3) of an axis as long as
            the angle in radians, also flat; of 24 the first is that of the body;
            `rotation` (`global_orient`): of the body, a matrix or vector; looking into the camera if missing;
            `camera` (`pred_cam`): scale, x, y; filling the box if missing;
            `shape` (`betas`): 10 numbers, more are left out; the average body if missing.
            PERSON (N,) itself.
        name: what messages call it.
        row: the modality, for the longest text.
        max_bytes: limit of the file and of its arrays.

    Returns:
        PERSON (N,): of many people those with the largest boxes, in the order of the file. Cameras and shapes
        are as given: the model's words end at their ranges.

    Raises:
        LimitError: larger than a limit.
        InputError: something else; 2-D keypoints alone, matrices that are no rotations, NaN, boxes outside
            the picture, nobody (code `input.empty`).
    """
    if isinstance(content, np.ndarray) and content.dtype == PERSON:
        people = content
    else:
        entries, size = _entries(content, name, max_bytes)
        read = [_person(one, size, f"{name}: person {i}") for i, one in enumerate(entries)]
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, which is refused below
            people = np.array([person for person in read if person is not None], PERSON)
        if entries and not len(people):
            raise InputError(
                f"{name}: none of its {len(entries)} people is in the central square of the picture; leave "
                f"{row.raw} out.",
                code="input.empty",
            )
    if people.ndim != 1 or not len(people):
        raise InputError(f"{name}: holds no people; leave {row.raw} out.", code="input.empty")
    _check_finite(people, name)
    return _largest(people, max(1, row.max_tokens // WORDS_PER_PERSON))


def _entries(
    content: Content, name: str, max_bytes: int
) -> tuple[Sequence[Mapping[str, Any]], tuple[float, float] | None]:
    """People with the names of their file, and the size of the picture where it is known."""
    value: object = content
    if isinstance(content, Path | bytes):
        content = read_bytes(content, max_bytes, name)
        if is_numpy(content):
            keys = (*_KNOWN, *_KEYPOINTS, *_SIZES)
            value = read_arrays(content, keys, name=name, max_bytes=max_bytes)
        else:
            value = decode_text(content, name)
    if isinstance(value, str):
        value = parse_json(value, name)
    if not isinstance(value, Mapping):
        if not isinstance(value, Sequence):
            raise InputError(f"{name}: {_EXPECTED}.")
        return check_listed(value, name), None
    size = _picture_size(value, name)
    for key in ("people", "annotations"):
        if key in value:
            return check_listed(value[key], f"{name}: {key}"), size
    return _rows(_ungrouped(value), name), size


def _picture_size(value: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    given = {key: _numbers(value[key], f"{name}: {key}") for key in ("width", "height") if key in value}
    if "img_size" in value:
        sides = _numbers(value["img_size"], f"{name}: img_size").reshape(-1)
        if not sides.size or sides.size % 2 or (sides != np.tile(sides[:2], sides.size // 2)).any():
            raise InputError(f"{name}: img_size must be the width and height of one picture.")
        given = {"width": sides[0], "height": sides[1]}
    for key, side in given.items():
        if side.size != 1:
            raise InputError(f"{name}: {key} must be a number, got the shape {side.shape}.")
    return parse_size({key: side.item() for key, side in given.items()}, name)


def _ungrouped(value: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(value)
    for group in _GROUPS:
        if isinstance(value.get(group), Mapping):
            merged |= value[group]
    return merged


def _rows(columns: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """People of columns (N, ...) by name; a single person's numbers are a column of one."""
    given = {key: columns[key] for key in (*_KNOWN, *_KEYPOINTS) if key in columns}
    if not given:
        raise InputError(f"{name}: {_EXPECTED}; got {', '.join(map(str, columns)) or 'nothing'}.")
    boxes = next((given[key] for key in NAMES["box"] if key in given), None)
    if boxes is None or _numbers(boxes, f"{name}: box").ndim == 1:
        return [given]
    lengths = {key: _length(column) for key, column in given.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise InputError(f"{name}: columns are of different lengths ({listed}).")
    count = next(iter(lengths.values()))
    if count > MAX_LISTED:
        raise LimitError(f"{name}: {count:,} people, the limit is {MAX_LISTED:,}.")
    return [{key: column[i] for key, column in given.items()} for i in range(count)]


def _length(column: object) -> int:
    if isinstance(column, np.ndarray):
        return len(column) if column.ndim else -1
    return len(column) if isinstance(column, Sequence) else -1


def _person(one: Mapping[str, Any], size: tuple[float, float] | None, name: str) -> tuple[Any, ...] | None:
    """The fields of a PERSON; None where the central square holds nothing of it."""
    one = _ungrouped(one)
    found = {
        field: (key, _numbers(one[key], f"{name}: {key}"))
        for field, keys in NAMES.items()
        for key in keys
        if key in one and one[key] is not None
    }
    if "pose" not in found:
        if any(key in one for key in _KEYPOINTS):
            raise InputError(
                f"{name}: has 2-D keypoints only, which do not say how joints turn; give SMPL's rotations "
                '("pose"), as 4D-Humans and other body estimators find them in the picture.'
            )
        raise InputError(f'{name}: has no "pose"; {_EXPECTED}.')
    if "box" not in found:
        raise InputError(f'{name}: has no "box"; [0, 0, 1, 1] is the whole square.')
    pose, rotation = _rotations(found, name)
    camera = _vector(found, "camera", 3, DEFAULT_CAMERA, name)
    shape = _vector(found, "shape", 10, (0.0,) * 10, name)
    box = _box(*found["box"], size, name)
    return None if box is None else (box, pose, rotation, camera, shape)


def _rotations(found: Mapping[str, tuple[str, np.ndarray]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Of the 23 joints (23, 3, 3), and of the body (3, 3)."""
    joints = _matrices(*found["pose"], (23, 24), name)
    if len(joints) == 24:
        return joints[1:], joints[0]
    if "rotation" not in found:
        return joints, FACING_CAMERA
    return joints, _matrices(*found["rotation"], (1,), name)[0]


def _matrices(key: str, values: np.ndarray, counts: tuple[int, ...], name: str) -> np.ndarray:
    """Rotations (J, 3, 3) of J joints, given as matrices or vectors, flat or not."""
    for count in counts:
        if values.size == 9 * count:
            return _check_rotations(values.reshape(count, 3, 3), f"{name}: {key}")
        if values.size == 3 * count:
            return rotation_matrices(values.reshape(count, 3))
    wanted = " or ".join(f"({count}, 3, 3) or ({count}, 3)" for count in counts)
    raise InputError(f"{name}: {key} has the shape {values.shape}; expected matrices or vectors {wanted}.")


def _check_rotations(matrices: np.ndarray, name: str) -> np.ndarray:
    nearest = nearest_rotations(matrices)
    error = np.abs(matrices - nearest).max((1, 2))
    worst = int(error.argmax())
    if error[worst] > MAX_ERROR:
        where = f"matrix {worst}" if len(matrices) > 1 else "the matrix"
        mirrored = " (it mirrors)" if np.linalg.det(matrices[worst]) < -0.5 else ""
        raise InputError(
            f"{name}: {where} is no rotation{mirrored}: {error[worst]:.2g} away from the nearest one."
        )
    return np.where((error > _EXACT)[:, None, None], nearest, matrices)


def _vector(
    found: Mapping[str, tuple[str, np.ndarray]], field: str, length: int, default: Sequence[float], name: str
) -> np.ndarray:
    if field not in found:
        return np.array(default)
    key, values = found[field]
    is_long_shape = field == "shape" and values.size >= length
    if values.size != length and not is_long_shape:
        raise InputError(f"{name}: {key} has the shape {values.shape}; expected {length} numbers.")
    return values.reshape(-1)[:length]


def _box(key: str, values: np.ndarray, size: tuple[float, float] | None, name: str) -> np.ndarray | None:
    """Fractions of the central square; None where nothing of it is left."""
    if values.size != 4:
        raise InputError(f"{name}: {key} has the shape {values.shape}; expected x0, y0, x1, y1.")
    in_pixels = key != "box"
    if in_pixels and size is None:
        raise InputError(
            f'{name}: {key} is in pixels; add the "width" and "height" of the picture, or give "box" as '
            "fractions of its central square."
        )
    sides = np.array(size or (1.0, 1.0))
    corners = values.reshape(2, 2) * (1 if in_pixels else sides)
    slack = SLACK if size else 1e-3
    if (corners < -slack).any() or (corners > sides + slack).any() or (corners[0] > corners[1]).any():
        x0, y0, x1, y1 = values.reshape(-1)
        frame = f"the picture of {sides[0]:g} x {sides[1]:g} pixels" if in_pixels else "0..1"
        raise InputError(f"{name}: {key} [{x0:g}, {y0:g}, {x1:g}, {y1:g}] is no rectangle within {frame}.")
    side = sides.min()
    box = np.clip((corners - (sides - side) / 2) / side, 0, 1)
    return box.reshape(-1) if (box[0] < box[1]).all() else None


def _numbers(value: object, name: str) -> np.ndarray:
    """Finite numbers float64 of any shape. Raises InputError."""
    try:
        numbers = np.array(value, np.float64)
    except Exception as error:  # texts, lists of different lengths, numbers beyond 64 bits, ...
        raise InputError(f"{name}: expected numbers, got {str(value)[:40]!r}.") from error
    bad = numbers.size - int(np.isfinite(numbers).sum())
    if bad:
        raise InputError(f"{name}: {bad} of {numbers.size} numbers are NaN or infinite.")
    return numbers


def _check_finite(people: np.ndarray, name: str) -> None:
    for field in PERSON.names or ():
        if not np.isfinite(people[field]).all():
            raise InputError(f"{name}: {field} holds numbers that are NaN or infinite.")


def _largest(people: np.ndarray, count: int) -> np.ndarray:
    sides = people["box"][:, 2:] - people["box"][:, :2]
    largest = np.argsort(-sides.prod(1), kind="stable")[:count]
    return people[np.sort(largest)]
