"""Scenes to pixels: ray casting, four samples a pixel, exact geometry beside colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cast import GROUND, HILL, SKY, WALL, Hits, camera, cast, screen, wall_frame
from .light import SAMPLES, decorated, shade
from .looks import SEMSEG_CLASSES
from .scene import Scene, View
from .shapes import Array

MAX_DEPTH = 20.0
"""What is stored as the largest depth, in scene units; all beyond and the sky count as that far."""


@dataclass(frozen=True)
class Rendering:
    """One rendering with everything known about it; all maps are `(size, size)`.

    Attributes:
        rgb: uint8 `(size, size, 3)`, sRGB.
        depth: float32, distance along the viewing axis in scene units, infinite for sky and hills.
        normal: float32 `(size, size, 3)` in camera axes (x right, y up, z to the viewer); zero for those.
        semseg: uint8 index into `SEMSEG_CLASSES`.
        instances: uint8, 1 + index of the object, 0 elsewhere.
        edges: uint8, 255 on the borders of things, walls, hills and decorations.
        visible: share of each object's silhouette that nothing hides, in 0..1, in scene order.
    """

    rgb: NDArray[np.uint8]
    depth: Array
    normal: Array
    semseg: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    edges: NDArray[np.uint8]
    visible: tuple[float, ...]


def render(scene: Scene, size: int = 128, view: View | int = 0) -> Rendering:
    """Render a scene into a square image.

    Args:
        scene: what to render.
        size: pixels along each side.
        view: camera and light, or the number of one of the scene's own renderings.
    """
    view = scene.view(view) if isinstance(view, int) else view
    side = size * SAMPLES
    axes, eye = camera(view)
    rays = (axes.T @ screen(side, view.field_of_view).reshape(3, -1)).reshape(3, side, side)
    hits = cast(scene, view, eye, axes, rays)
    flat = rays.reshape(3, -1)
    far = np.where(np.isfinite(hits.distance), hits.distance, 0).ravel()
    points = np.asarray(eye[:, None] + far * flat, dtype=np.float32)
    normals = _normals(scene, hits, points)
    color = shade(scene, view, hits, points, flat, normals)
    rgb = color.reshape(3, size, SAMPLES, size, SAMPLES).mean((2, 4))
    coarse = np.s_[::SAMPLES, ::SAMPLES]
    owner = hits.owner[coarse]
    toward = screen(side, view.field_of_view)[2][coarse]
    is_thing = (owner > 0) & (owner <= len(scene.objects))
    semseg = _classes(scene, owner, points.reshape(3, side, side)[:, *coarse])
    return Rendering(
        rgb=np.moveaxis(_encode_srgb(rgb), 0, -1),
        depth=(hits.distance[coarse] * toward).astype(np.float32),
        normal=_camera_normals(normals.reshape(3, side, side)[:, *coarse], axes),
        semseg=semseg,
        instances=np.where(is_thing, owner, 0).astype(np.uint8),
        edges=_borders(owner * 64 + semseg),
        visible=hits.visible,
    )


def encode_depth(depth: Array) -> NDArray[np.uint16]:
    """Map depth in scene units to 0..65535; `MAX_DEPTH`, all beyond and sky give 65535."""
    return np.round(np.minimum(depth / MAX_DEPTH, 1) * 65535).astype(np.uint16)


def encode_normal(normal: Array) -> NDArray[np.uint8]:
    """Map components in -1..1 to 0..255; sky, which has no normal, gives 128."""
    return np.round((normal + 1) * 127.5).astype(np.uint8)


def _normals(scene: Scene, hits: Hits, points: Array) -> Array:
    owner, piece = hits.owner.ravel(), hits.piece.ravel()
    normals = np.zeros((3, owner.size), dtype=np.float32)
    normals[2, owner == GROUND] = 1
    for number in range(4 * scene.place.is_room):
        normals[:, owner == WALL - number] = wall_frame(scene, number)[0][:, None]
    order = np.argsort(piece, kind="stable")
    parts = [one for item in scene.things for one in item.parts]
    ends = np.searchsorted(piece[order], np.arange(len(parts) + 1))
    for number, one in enumerate(parts):
        mine = order[ends[number] : ends[number + 1]]
        if mine.size:
            normals[:, mine] = one.normals(points[:, mine])
    return normals


def _classes(scene: Scene, owner: NDArray[np.int16], points: Array) -> NDArray[np.uint8]:
    number = {name: SEMSEG_CLASSES.index(name) for name in SEMSEG_CLASSES}
    out = np.full(owner.shape, number["floor" if scene.place.is_room else "ground"], np.uint8)
    out[owner == SKY] = number["sky"]
    out[owner == HILL] = number["hill"]
    out[owner <= WALL] = number["wall"]
    if scene.place.decorations:
        where = decorated(scene, points.reshape(3, -1), owner.ravel()).reshape(owner.shape)
        for index, one in enumerate(scene.place.decorations):
            out[where == index] = number["rug" if one.wall < 0 else "picture"]
    for index, item in enumerate(scene.things, start=1):
        out[owner == index] = number.get(item.kind, number["clutter"])
    return out


def _borders(segments: NDArray[np.integer]) -> NDArray[np.uint8]:
    out = np.zeros(segments.shape, bool)
    out[:, :-1] |= segments[:, :-1] != segments[:, 1:]
    out[:-1] |= segments[:-1] != segments[1:]
    return np.where(out, np.uint8(255), np.uint8(0))


def _camera_normals(normals: Array, axes: Array) -> Array:
    turned = (axes * np.array([[1], [1], [-1]], dtype=np.float32)) @ normals.reshape(3, -1)
    return turned.T.reshape(*normals.shape[1:], 3).astype(np.float32)


def _encode_srgb(linear: Array) -> NDArray[np.uint8]:
    # A soft shoulder keeps highlights from clipping to flat white.
    toned = linear * (1 + linear / 4) / (1 + linear) * 1.15
    return (np.clip(toned, 0, 1) ** np.float32(1 / 2.2) * 255 + 0.5).astype(np.uint8)
