"""Scenes to pixels: ray casting with soft shadows, four samples a pixel, exact geometry beside colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .scene import COLORS, GROUNDS, SEMSEG_CLASSES, SKIES, Scene, SceneObject, View
from .shapes import UNIT_SHAPES, Array, dot

_SAMPLES = 2  # per pixel and axis
_SUN_SPREAD = 0.06  # radians; the four samples of a pixel see the sun at four places, which softens shadows
_FOG_DISTANCE = 26.0
MAX_DEPTH = 40.0
SKY_DEPTH = np.inf


@dataclass(frozen=True)
class Rendering:
    """One rendering with everything known about it; all maps are `(size, size)`.

    Attributes:
        rgb: uint8 `(size, size, 3)`, sRGB.
        depth: float32, distance along the viewing axis in scene units, infinite for sky.
        normal: float32 `(size, size, 3)` in camera axes (x right, y up, z to the viewer); zero for sky.
        semseg: uint8 index into `SEMSEG_CLASSES`.
        instances: uint8, 1 + index of the object, 0 elsewhere.
        visible: share of each object's silhouette that nothing hides, in 0..1, in scene order.
    """

    rgb: NDArray[np.uint8]
    depth: Array
    normal: Array
    semseg: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    visible: tuple[float, ...]


def render(scene: Scene, size: int = 96, view: View | int = 0) -> Rendering:
    """Render a scene into a square image.

    Args:
        scene: what to render.
        size: pixels along each side.
        view: camera and light, or the number of one of the scene's own renderings.
    """
    view = scene.view(view) if isinstance(view, int) else view
    side = size * _SAMPLES
    axes, eye = _camera(view)
    rays = _rays(side, view.field_of_view, axes)  # (3, side, side), unit length
    hits = _cast(scene.objects, eye, rays, axes, view.field_of_view)
    points = np.asarray(eye[:, None] + hits.distance.ravel() * rays.reshape(3, -1), dtype=np.float32)
    normals = _normals(scene.objects, hits.owner, points)
    color = _shade(scene, view, hits, points, rays.reshape(3, -1), normals)
    rgb = color.reshape(3, size, _SAMPLES, size, _SAMPLES).mean((2, 4))
    coarse = np.s_[::_SAMPLES, ::_SAMPLES]
    owner = hits.owner[coarse]
    toward = _screen(side, view.field_of_view)[2][coarse]
    return Rendering(
        rgb=np.moveaxis(_encode_srgb(rgb), 0, -1),
        depth=np.where(owner < 0, np.float32(SKY_DEPTH), hits.distance[coarse] * toward).astype(np.float32),
        normal=_camera_normals(normals.reshape(3, side, side)[:, ::_SAMPLES, ::_SAMPLES], axes, owner),
        semseg=_classes(scene.objects)[owner + 1],
        instances=np.maximum(owner, 0).astype(np.uint8),
        visible=hits.visible,
    )


@dataclass(frozen=True)
class _Hits:
    distance: Array  # (side, side); infinite for sky
    owner: NDArray[np.int8]  # (side, side): -1 sky, 0 ground, 1 + object index
    visible: tuple[float, ...]


def _camera(view: View) -> tuple[Array, Array]:
    """Give the camera's axes (right, up, forward) as rows, and its place."""
    ca, sa, ce, se = (
        np.cos(view.azimuth),
        np.sin(view.azimuth),
        np.cos(view.elevation),
        np.sin(view.elevation),
    )
    forward = -np.array([ca * ce, sa * ce, se])
    right = np.array([-sa, ca, 0.0])
    up = np.cross(right, forward)
    eye = np.array([0, 0, view.target_z]) - view.distance * forward
    return np.stack([right, up, forward]).astype(np.float32), eye.astype(np.float32)


@lru_cache(maxsize=4)
def _screen(side: int, field_of_view: float) -> Array:
    """Place the pixel centres on the plane one unit before the camera: `(3, side, side)`, unit vectors."""
    half = np.tan(field_of_view / 2)
    ticks = ((np.arange(side) + 0.5) / side * 2 - 1) * half
    x, y = np.meshgrid(ticks, -ticks)
    rays = np.stack([x, y, np.ones_like(x)])
    return (rays / np.sqrt((rays * rays).sum(0))).astype(np.float32)


def _rays(side: int, field_of_view: float, axes: Array) -> Array:
    return (axes.T @ _screen(side, field_of_view).reshape(3, -1)).reshape(3, side, side)


def _cast(
    objects: tuple[SceneObject, ...], eye: Array, rays: Array, axes: Array, field_of_view: float
) -> _Hits:
    side = rays.shape[1]
    down = rays[2] < -1e-4
    distance = np.where(down, -eye[2] / np.where(down, rays[2], -1), np.float32(np.inf)).astype(np.float32)
    owner = np.where(down, 0, -1).astype(np.int8)
    silhouettes = np.zeros(len(objects))
    for number, item in enumerate(objects, start=1):
        window = _window(item, eye, axes, side, field_of_view)
        if window is None:
            continue
        part = rays[:, *window]
        t = _meet(item, eye[:, None], part.reshape(3, -1)).reshape(part.shape[1:])
        silhouettes[number - 1] = np.isfinite(t).sum()
        nearer = t < distance[window]
        distance[window] = np.where(nearer, t, distance[window])
        owner[window] = np.where(nearer, np.int8(number), owner[window])
    counts = np.bincount(np.maximum(owner.ravel(), 0), minlength=len(objects) + 1)[1:]
    return _Hits(distance, owner, tuple((counts / np.maximum(silhouettes, 1)).tolist()))


def _window(
    item: SceneObject, eye: Array, axes: Array, side: int, field_of_view: float
) -> tuple[slice, slice] | None:
    """Bound the object's bounding sphere on the screen; None when it is out of sight."""
    shape = UNIT_SHAPES[item.shape]
    x, y, z = axes @ (np.array([item.x, item.y, item.radius * shape.half_height]) - eye)
    bound = item.radius * shape.bound
    if z <= bound:
        return None
    pixels = side / 2 / np.tan(field_of_view / 2)
    # A sphere's silhouette is widest towards the image's edge; an eighth more bounds it in this field.
    reach = 1.125 * bound / np.sqrt(z * z - bound * bound) * pixels + 2
    column, row = side / 2 + x / z * pixels, side / 2 - y / z * pixels
    top, left = max(0, int(row - reach)), max(0, int(column - reach))
    bottom, right = min(side, int(row + reach) + 1), min(side, int(column + reach) + 1)
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def _local(item: SceneObject, points: Array) -> Array:
    """Turn world points into the unit shape's own axes."""
    centre = np.array([item.x, item.y, item.radius * UNIT_SHAPES[item.shape].half_height], dtype=np.float32)
    return _spin(item, points - centre[:, None], -1) / np.float32(item.radius)


def _spin(item: SceneObject, vectors: Array, sign: int) -> Array:
    c, s = np.float32(np.cos(item.yaw)), np.float32(sign * np.sin(item.yaw))
    return np.stack([c * vectors[0] - s * vectors[1], s * vectors[0] + c * vectors[1], vectors[2]])


def _meet(item: SceneObject, origins: Array, directions: Array) -> Array:
    """Distances in world units, for unit directions."""
    directions = _spin(item, directions, -1)
    return UNIT_SHAPES[item.shape].intersect(_local(item, origins), directions) * np.float32(item.radius)


def _normals(objects: tuple[SceneObject, ...], owner: NDArray[np.int8], points: Array) -> Array:
    flat = owner.ravel()
    normals = np.zeros((3, flat.size), dtype=np.float32)
    normals[2, flat == 0] = 1
    for number, item in enumerate(objects, start=1):
        mine = np.flatnonzero(flat == number)
        if mine.size:
            unit = UNIT_SHAPES[item.shape].normals(_local(item, points[:, mine]))
            normals[:, mine] = _spin(item, unit, 1)
    return normals


def _shade(scene: Scene, view: View, hits: _Hits, points: Array, rays: Array, normals: Array) -> Array:
    """Light every sample: sun with soft shadows, sky light darkened near objects, reflections, fog."""
    owner = hits.owner.ravel()
    solid = np.flatnonzero(owner >= 0)
    color = _sky(scene, rays)
    p, n, who, ray = points[:, solid], normals[:, solid], owner[solid], rays[:, solid]
    sun = _sun_directions(view, hits.owner.shape[0])[:, solid]
    lit, openness = _occlusion(scene.objects, p, n, who, sun)
    sky = np.array([_linear(c) for c in SKIES[scene.sky]], dtype=np.float32).mean(0)
    # Skies tint the ambient light by half: full tint would hide the objects' own colours.
    tint = view.ambient * (0.5 + 0.5 * sky / max(float(sky.max()), 0.25))
    tint *= 0.6 if scene.sky == "night sky" else 1.0
    facing = np.maximum(dot(n, sun), 0) * lit
    around = (0.62 + 0.38 * n[2]) * openness
    base = _surfaces(scene, p, who)
    shaded = base * 0.55
    for channel in range(3):
        shaded[channel] *= np.float32(view.sun_color[channel]) * facing + np.float32(tint[channel]) * around
    _polish(scene, shaded, base, who, n, ray, sun, lit)
    fog = 1 - np.exp(-((hits.distance.ravel()[solid] / np.float32(_FOG_DISTANCE)) ** 2))
    color[:, solid] = shaded + (_linear(SKIES[scene.sky][0])[:, None] - shaded) * fog
    return color


def _polish(
    scene: Scene,
    shaded: Array,
    base: Array,
    owner: NDArray[np.int8],
    normals: Array,
    rays: Array,
    sun: Array,
    lit: Array,
) -> None:
    """Add reflections and highlights, in place, to the samples on shiny and metal objects."""
    metal = np.array([False, *[o.material == "metal" for o in scene.objects]])
    shiny = np.flatnonzero(np.array([False, *[o.material != "matte" for o in scene.objects]])[owner])
    n, ray, towards_sun = normals[:, shiny], rays[:, shiny], sun[:, shiny]
    bounce = np.asarray(ray - 2 * dot(ray, n) * n, dtype=np.float32)
    glint = np.maximum(dot(bounce, towards_sun), 0) * lit[shiny]
    for _ in range(5):
        glint = glint * glint
    mirror = _mirror(scene, bounce)
    as_metal = shaded[:, shiny] * 0.35 + 0.75 * base[:, shiny] * mirror
    shaded[:, shiny] = np.where(metal[owner[shiny]], as_metal, shaded[:, shiny]) + 0.06 * mirror + 0.9 * glint


def _surfaces(scene: Scene, points: Array, owner: NDArray[np.int8]) -> Array:
    """Look up the linear base colour of each sample, `(3, N)`."""
    table = np.array([(0, 0, 0), *[_linear(COLORS[o.color]) for o in scene.objects]], dtype=np.float32)
    base = table.T[:, owner]
    ground = np.flatnonzero(owner == 0)
    base[:, ground] = _ground(scene, points[:2, ground])
    return base


def _ground(scene: Scene, points: Array) -> Array:
    tone = _linear(GROUNDS[scene.ground])[:, None]
    c, s = np.cos(scene.pattern_yaw), np.sin(scene.pattern_yaw)
    u, v = (
        (c * points[0] + s * points[1]) / scene.pattern_scale,
        (c * points[1] - s * points[0]) / scene.pattern_scale,
    )
    if scene.pattern == "plain":
        return np.broadcast_to(tone, (3, points.shape[1]))
    odd = np.floor(u) if scene.pattern == "striped" else np.floor(u) + np.floor(v)
    return np.where(np.mod(odd, 2) == 0, tone, tone * 0.42 + 0.02).astype(np.float32)


def _sun_directions(view: View, side: int) -> Array:
    """Give each sample one of four places on the sun: `(3, side * side)`."""
    table = np.empty((3, _SAMPLES, _SAMPLES), dtype=np.float32)
    for row in range(_SAMPLES):
        for column in range(_SAMPLES):
            azimuth = view.sun_azimuth + (column - 0.5) * 2 * _SUN_SPREAD
            elevation = view.sun_elevation + (row - 0.5) * 2 * _SUN_SPREAD
            flat = np.cos(elevation)
            table[:, row, column] = np.cos(azimuth) * flat, np.sin(azimuth) * flat, np.sin(elevation)
    return np.tile(table, (1, side // _SAMPLES, side // _SAMPLES)).reshape(3, -1)


def _occlusion(
    objects: tuple[SceneObject, ...], p: Array, n: Array, owner: NDArray[np.int8], sun: Array
) -> tuple[Array, Array]:
    """Tell for each sample whether it sees the sun (1 or 0) and about how much of the sky (0..1).

    Shadows are exact; for the sky, objects count as spheres (Inigo Quilez, "Sphere ambient occlusion").
    """
    lit, openness = np.ones((2, p.shape[1]), dtype=np.float32)
    for number, item in enumerate(objects, start=1):
        shape = UNIT_SHAPES[item.shape]
        height, bound = item.radius * shape.half_height, item.radius * shape.bound
        away = np.array([[item.x], [item.y], [height]], dtype=np.float32) - p
        along, square = dot(away, sun), dot(away, away)
        near = np.flatnonzero((square - along * along < bound * bound) & (along > -bound))
        if near.size:
            start = np.asarray(p[:, near] + 0.02 * n[:, near], dtype=np.float32)
            lit[near[np.isfinite(_meet(item, start, sun[:, near]))]] = 0
        beside = np.flatnonzero((square < 36 * bound * bound) & (owner != number))
        square = square[beside]
        cosine = np.maximum(dot(away[:, beside], n[:, beside]), 0) / np.sqrt(square)
        openness[beside] *= 1 - 0.9 * np.minimum(cosine * height * item.radius / square, 0.8)
    return lit, openness


def _sky(scene: Scene, rays: Array) -> Array:
    horizon, zenith = (_linear(c)[:, None] for c in SKIES[scene.sky])
    return horizon + (zenith - horizon) * np.sqrt(np.clip(rays[2] * np.float32(2.2), 0, 1))


def _mirror(scene: Scene, directions: Array) -> Array:
    """What a smooth surface reflects: the sky above, the ground's mean tone below."""
    ground = _linear(GROUNDS[scene.ground])[:, None] * 0.8
    edge = np.clip(directions[2] * 6 + 0.5, 0, 1)
    return _sky(scene, directions) * 1.5 * edge + ground * (1 - edge)


def _classes(objects: tuple[SceneObject, ...]) -> NDArray[np.uint8]:
    names = ("sky", "ground", *[o.shape for o in objects])
    return np.array([SEMSEG_CLASSES.index(name) for name in names], dtype=np.uint8)


def _camera_normals(normals: Array, axes: Array, owner: NDArray[np.int8]) -> Array:
    turned = (axes * np.array([[1], [1], [-1]], dtype=np.float32)) @ normals.reshape(3, -1)
    return np.where(owner[..., None] < 0, 0, turned.T.reshape(*owner.shape, 3)).astype(np.float32)


def _linear(srgb: tuple[float, float, float]) -> Array:
    return (np.array(srgb, dtype=np.float32)) ** np.float32(2.2)


def _encode_srgb(linear: Array) -> NDArray[np.uint8]:
    # A soft shoulder keeps highlights from clipping to flat white.
    toned = linear * (1 + linear / 4) / (1 + linear) * 1.15
    return (np.clip(toned, 0, 1) ** np.float32(1 / 2.2) * 255 + 0.5).astype(np.uint8)
