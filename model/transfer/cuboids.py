"""Boxes in three dimensions: read from Omni3D's files, moved with the view of a picture, compared.

A cuboid is its 8 corners (8, 3) in metres in the camera's axes (x right, y down, z forward), in the order of
CORNERS along its own axes. A camera is (fx, fy, cx, cy): focal lengths and principal point.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from ...errors import InputError
from ..tasks.coco import read_annotations, read_categories
from .augment import View
from .boxes import require_few, require_listed, require_places
from .samples import Boxes, Cuboids, TransferSample

RAW = "det3d"
CORNERS = np.array(
    [[-1, -1, -1], [1, -1, -1], [1, 1, -1], [-1, 1, -1], [-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]],
    np.float32,
)
"""Half sides along the cuboid's axes, in Omni3D's order of corners (arXiv 2207.10660)."""

NEAREST = 0.01
"""Metres in front of the camera: what reaches closer has no place in the picture."""

_FACES = ((0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 5, 4), (3, 2, 6, 7), (0, 3, 7, 4), (1, 2, 6, 5))
_MIRRORED = (1, 0, 3, 2, 5, 4, 7, 6)
_SKEW = 0.02  # of the diagonal; files are rounded
_SLACK = 1e-9  # metres
_MIN_HEIGHT, _MAX_HEIGHT, _MIN_SHARE, _MAX_DEPTH_ERROR = 1 / 16, 1.5, 1 / 3, 0.5

Floats = NDArray[np.floating[Any]]


class _Image(BaseModel):
    """What is read of a picture."""

    model_config = ConfigDict(strict=True)
    id: int
    file_path: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    K: list[list[FiniteFloat]]


class _Annotation(BaseModel):
    """What is read of a cuboid; -1 is how these files say that a number is not known."""

    model_config = ConfigDict(strict=True)
    image_id: int
    category_id: int
    corners: list[list[FiniteFloat]] = Field([], alias="bbox3D_cam")
    valid: bool = Field(True, alias="valid3D")
    behind_camera: bool = False
    box_truncated: list[FiniteFloat] = Field([], alias="bbox2D_trunc")
    box_tight: list[FiniteFloat] = Field([], alias="bbox2D_tight")
    box_projected: list[FiniteFloat] = Field([], alias="bbox2D_proj")
    visibility: float = -1
    truncation: float = -1
    segmentation_pts: int = -1
    lidar_pts: int = -1
    depth_error: float = -1


def with_cuboids(
    source: Path | Mapping[str, Path], samples: Sequence[TransferSample]
) -> list[TransferSample]:
    """Those of the samples that a file in Omni3D's format lists, with its cuboids and their boxes.

    As in Omni3D's own evaluation, a cuboid is neither learnt nor counted where a side is 0, it reaches behind
    the camera, no depth or pixel is known of it, its depth is wrong, a third or less of it is seen, a third
    or more lies outside the picture, or its box is lower than 1/16 or higher than 3/2 of the picture.

    Args:
        source: one place per kind of file: `rgb` the folder that the file's paths are in, `det3d` the file.
        samples: pictures found there.

    Raises:
        InputError: no cuboids at all, a damaged file, a listed picture that is not there.
        LimitError: too many in one picture.
    """
    if not isinstance(source, Mapping) or RAW not in source:
        place = source["rgb"] if isinstance(source, Mapping) else source
        raise InputError(
            f"{place}: cuboids are read from one file in Omni3D's format; give the data as "
            f"{{rgb: DIR, {RAW}: FILE.json}}."
        )
    path, colors = source[RAW], source["rgb"]
    content = read_annotations(path, "images", "annotations", "categories")
    names = read_categories(content["categories"], path)
    images = {image.id: image for image in (_parsed(_Image, one, path) for one in content["images"])}
    cameras = {key: _camera(image, path) for key, image in images.items()}
    rows: dict[int, list[tuple[Floats, Floats, str, bool]]] = {key: [] for key in images}
    for one in content["annotations"]:
        where = f"{path}: annotation {str(one.get('id'))[:40]}"
        annotation = _parsed(_Annotation, one, path)
        key, number = require_listed(one, images, names, where)
        row = _row(annotation, images[key], cameras[key], where)
        if row is not None:
            rows[key].append((*row[:2], names[number], row[2]))
    if not any(not row[3] for found in rows.values() for row in found):
        raise InputError(f"{path} holds no cuboids that count.")
    places = {key: colors / image.file_path for key, image in images.items()}
    by_picture = require_places(samples, places.values(), path)
    listed = [
        replace(
            by_picture[places[key].with_suffix("")],
            boxes=Boxes(
                np.array([row[0] for row in found], np.float32).reshape(-1, 4),
                tuple(row[2] for row in found),
                tuple(row[3] for row in found),
            ),
            cuboids=Cuboids(np.array([row[1] for row in found], np.float32).reshape(-1, 8, 3), cameras[key]),
        )
        for key, found in rows.items()
    ]
    require_few(listed)
    return listed


def placed_cuboids(cuboids: Cuboids, view: View) -> Floats:
    """Corners float32 (N, 8, 3) in a view: a mirror changes them, scale and place only the camera."""
    if not view.mirrored:
        return cuboids.corners
    return cuboids.corners[:, _MIRRORED] * np.array([-1, 1, 1], np.float32)


def placed_camera(camera: Floats, view: View) -> Floats:
    """The camera (4,) in pixels of the picture, float32 (4,) in pixels of the square that a view cuts."""
    left, top, right, bottom = view.box
    scale = np.array([view.width / (right - left), view.height / (bottom - top)])
    focal, middle = camera[:2] * scale, (camera[2:] - [left, top]) * scale
    if view.mirrored:
        middle[0] = view.width - middle[0]
    return np.concatenate([focal, middle]).astype(np.float32)


def projected(points: Floats, camera: Floats) -> Floats:
    """Places (..., 2) of points (..., 3) before a camera, in its unit."""
    return points[..., :2] / points[..., 2:] * camera[:2] + camera[2:]


def overlaps(one: Floats, other: Floats) -> Floats:
    """IoU of the volumes of cuboids (N, 8, 3) and (M, 8, 3), 0..1: float64 (N, M), exact."""
    found = np.zeros((len(one), len(other)))
    one, other = _straightened(one), _straightened(other)
    middles, reaches, volumes = (
        [measure(corners) for corners in (one, other)] for measure in (_middles, _reaches, _volumes)
    )
    apart = np.linalg.norm(middles[0][:, None] - middles[1], axis=-1)
    for i, j in np.argwhere(apart < reaches[0][:, None] + reaches[1]):
        shared = _shared_volume(one[i], other[j])
        union = volumes[0][i] + volumes[1][j] - shared
        found[i, j] = shared / union if union > 0 else 0.0
    return found


def _middles(corners: Floats) -> Floats:
    return corners.mean(1)


def _reaches(corners: Floats) -> Floats:
    return np.linalg.norm(corners[:, 6] - corners[:, 0], axis=-1) / 2


def _volumes(corners: Floats) -> Floats:
    return np.abs(np.linalg.det(corners[:, [1, 3, 4]] - corners[:, :1]))


def _straightened(corners: Floats) -> Floats:
    """The same in float64 with opposite sides alike: rounded corners do not lie in their faces' planes."""
    corners = corners.astype(np.float64)
    return corners.mean(1, keepdims=True) + CORNERS @ (CORNERS.T @ corners / 8)


def _shared_volume(one: Floats, other: Floats) -> float:
    """Of the polyhedron that two cuboids share.

    Its faces are what the other cuboid leaves of each one's. Where two faces lie in one plane, only the first
    cuboid's counts.
    """
    parts = [(plane, _cut(face, _planes(other), _SLACK)) for plane, face in _faces(one)]
    parts += [(plane, _cut(face, _planes(one), -_SLACK)) for plane, face in _faces(other)]
    parts = [(plane, face) for plane, face in parts if len(face) > 2]
    if not parts:
        return 0.0
    inner = np.concatenate([face for _, face in parts]).mean(0)
    total = 0.0
    for (normal, offset), face in parts:  # pyramids from a point within to each face
        spokes = face[1:] - face[0]
        area = np.linalg.norm(np.cross(spokes[:-1], spokes[1:]).sum(0)) / 2
        total += area * max(offset - normal @ inner, 0.0) / 3
    return float(total)


def _faces(corners: Floats) -> list[tuple[tuple[Floats, float], Floats]]:
    return [(plane, corners[list(face)]) for plane, face in zip(_planes(corners), _FACES, strict=True)]


def _planes(corners: Floats) -> list[tuple[Floats, float]]:
    """Outward unit normal and offset of each face's plane."""
    found: list[tuple[Floats, float]] = []
    for (a, b, c, _), opposite in zip(_FACES, (4, 0, 3, 0, 1, 0), strict=True):
        normal = np.cross(corners[b] - corners[a], corners[c] - corners[b])
        normal /= max(float(np.linalg.norm(normal)), np.finfo(np.float64).tiny)
        if normal @ (corners[opposite] - corners[a]) > 0:
            normal = -normal
        found.append((normal, float(normal @ corners[a])))
    return found


def _cut(polygon: Floats, planes: Sequence[tuple[Floats, float]], slack: float) -> Floats:
    """The part of a convex polygon (n, 3) that lies under all planes (Sutherland and Hodgman, 1974)."""
    for normal, offset in planes:
        above = polygon @ normal - offset - slack
        kept = above <= 0
        if kept.all():
            continue
        if not kept.any():
            return polygon[:0]
        after = np.roll(above, -1)
        crosses = kept != np.roll(kept, -1)
        share = above / np.where(crosses, above - after, 1.0)
        between = polygon + share[:, None] * (np.roll(polygon, -1, axis=0) - polygon)
        both = np.stack([polygon, between], axis=1)[np.stack([kept, crosses], axis=1)]
        polygon = both.reshape(-1, 3)
    return polygon


def _parsed(kind: type[Any], value: Mapping[str, Any], path: Path) -> Any:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        what = "image" if kind is _Image else "annotation"
        raise InputError(f"{path}: {what} {str(value.get('id'))[:40]}: {place}: {first['msg']}.") from error


def _camera(image: _Image, path: Path) -> Floats:
    """As fractions of the picture's sides."""
    matrix = np.array(image.K) if [len(row) for row in image.K] == [3, 3, 3] else np.zeros((3, 3))
    if min(matrix[0, 0], matrix[1, 1]) <= 0:
        raise InputError(
            f"{path}: image {image.id}: K is the camera's 3 x 3 matrix with focal lengths in pixels above 0."
        )
    if Path(image.file_path).is_absolute() or ".." in Path(image.file_path).parts:
        raise InputError(f"{path}: image {image.id}: file_path leads out of the folder of pictures.")
    numbers = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    return np.array(numbers, np.float32) / np.array([image.width, image.height] * 2, np.float32)


def _row(
    annotation: _Annotation, image: _Image, camera: Floats, where: str
) -> tuple[Floats, Floats, bool] | None:
    """Box in fractions, corners, whether it does not count; None where not even a box is known."""
    corners = _cuboid(annotation.corners, where) if annotation.valid else np.zeros((8, 3))
    flat = not np.linalg.norm(corners[[1, 3, 4]] - corners[0], axis=1).all()
    if flat or annotation.behind_camera or corners[:, 2].min() < NEAREST:
        box = _known_box(annotation, image)
        return None if box is None else (box, np.zeros((8, 3)), True)
    places = projected(corners, camera)
    low, high = places.min(0), places.max(0)
    box = np.concatenate([low.clip(0, 1), high.clip(0, 1)])
    if (box[2:] <= box[:2]).any():
        return None
    outside = annotation.truncation
    if outside < 0:
        outside = 1 - (box[2:] - box[:2]).prod() / (high - low).prod()
    ignored = (
        annotation.segmentation_pts == 0
        or annotation.lidar_pts == 0
        or annotation.depth_error > _MAX_DEPTH_ERROR
        or 0 <= annotation.visibility <= _MIN_SHARE
        or outside >= _MIN_SHARE
        or not _MIN_HEIGHT < high[1] - low[1] < _MAX_HEIGHT
    )
    return box, corners, ignored


def _known_box(annotation: _Annotation, image: _Image) -> Floats | None:
    for numbers in (annotation.box_truncated, annotation.box_tight, annotation.box_projected):
        box = np.array(numbers) / np.array([image.width, image.height] * 2) if len(numbers) == 4 else None
        if box is not None and min(numbers) > -1 and (box[2:] > box[:2]).all():
            return box.clip(0, 1)
    return None


def _cuboid(values: Sequence[Sequence[float]], where: str) -> Floats:
    """The corners, if they are those of a box with right angles; its own axes made right-handed."""
    corners = np.array(values, np.float64) if [len(row) for row in values] == [3] * 8 else None
    if corners is not None:
        sides = corners[[1, 3, 4]] - corners[0]
        diagonal = float(np.linalg.norm(sides.sum(0)))
        wanted = corners[0] + (CORNERS + 1) / 2 @ sides
        angles = np.abs(sides @ sides.T)[np.triu_indices(3, 1)].max()
        if np.abs(wanted - corners).max() <= _SKEW * diagonal and angles <= _SKEW * diagonal**2:
            return corners[list(_MIRRORED)] if np.linalg.det(sides) < 0 else corners
    raise InputError(
        f"{where}: bbox3D_cam is no cuboid: 8 corners [x, y, z] in Omni3D's order, with right angles."
    )
