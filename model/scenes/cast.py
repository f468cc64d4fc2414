"""What each ray of a scene meets: objects part by part, ground, walls, hills, sky."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .looks import OUTDOORS
from .scene import Scene, SceneObject, View
from .shapes import Array, dot

Ints = NDArray[np.int16]

SKY, HILL, GROUND = -1, -2, 0
"""Owners besides things (1 + index) and walls (WALL - number)."""
WALL = -10


@dataclass(frozen=True)
class Hits:
    """Of each ray, `(side, side)`.

    Attributes:
        distance: along the unit ray; infinite for sky and hills.
        owner: SKY, HILL, GROUND, WALL - number, or 1 + index of the thing.
        piece: index into the parts of all things, -1 elsewhere.
        visible: share of each object's silhouette that nothing hides.
    """

    distance: Array
    owner: Ints
    piece: Ints
    visible: tuple[float, ...]


def camera(view: View) -> tuple[Array, Array]:
    """Give the camera's axes (right, up, forward) as rows, and its place."""
    ca, sa = np.cos(view.azimuth), np.sin(view.azimuth)
    ce, se = np.cos(view.elevation), np.sin(view.elevation)
    forward = -np.array([ca * ce, sa * ce, se])
    right = np.array([-sa, ca, 0.0])
    up = np.cross(right, forward)
    eye = np.array([0, 0, view.target_z]) - view.distance * forward
    return np.stack([right, up, forward]).astype(np.float32), eye.astype(np.float32)


@lru_cache(maxsize=4)
def screen(side: int, field_of_view: float) -> Array:
    """Unit vectors `(3, side, side)` through the pixel centres, in camera axes."""
    half = np.tan(field_of_view / 2)
    ticks = ((np.arange(side) + 0.5) / side * 2 - 1) * half
    x, y = np.meshgrid(ticks, -ticks)
    rays = np.stack([x, y, np.ones_like(x)])
    return (rays / np.sqrt((rays * rays).sum(0))).astype(np.float32)


def cast(scene: Scene, view: View, eye: Array, axes: Array, rays: Array) -> Hits:
    """Find what unit rays `(3, side, side)` from the eye meet first."""
    side = rays.shape[1]
    distance, owner = _surroundings(scene, eye, rays)
    piece = np.full((side, side), -1, np.int16)
    silhouettes, first = np.zeros(len(scene.objects)), 0
    for number, item in enumerate(scene.things, start=1):
        window = _window(*item.ball, eye, axes, side, view.field_of_view)
        if window is not None:
            near, which = _meet(item, eye, axes, rays, window, view.field_of_view)
            if number <= len(scene.objects):
                silhouettes[number - 1] = np.isfinite(near).sum()
            nearer = near < distance[window]
            distance[window] = np.where(nearer, near, distance[window])
            owner[window] = np.where(nearer, np.int16(number), owner[window])
            piece[window] = np.where(nearer, which + np.int16(first), piece[window])
        first += len(item.parts)
    counts = np.bincount(np.maximum(owner.ravel(), 0), minlength=len(scene.objects) + 1)
    shares = counts[1 : len(scene.objects) + 1] / np.maximum(silhouettes, 1)
    return Hits(distance, owner, piece, tuple(shares.tolist()))


def wall_frame(scene: Scene, number: int) -> tuple[Array, Array]:
    """Inward normal of a wall, and the direction along it, `(3,)` each."""
    angle = scene.place.yaw + number * np.pi / 2
    c, s = np.cos(angle), np.sin(angle)
    return np.array([-c, -s, 0], np.float32), np.array([-s, c, 0], np.float32)


def _surroundings(scene: Scene, eye: Array, rays: Array) -> tuple[Array, Ints]:
    down = rays[2] < -1e-4
    distance = np.where(down, -eye[2] / np.where(down, rays[2], -1), np.float32(np.inf)).astype(np.float32)
    owner = np.where(down, GROUND, SKY).astype(np.int16)
    if not scene.place.is_room:
        owner[~down & (rays[2] < _hill_line(scene, rays))] = HILL
        return distance, owner
    for number in range(4):
        normal, _ = wall_frame(scene, number)
        slope = dot(rays, normal)
        # From behind, a wall is not there: the camera stands outside and sees the far walls only.
        front = slope < -1e-4
        t = np.where(
            front, -(eye @ normal + scene.place.half) / np.where(front, slope, -1), np.float32(np.inf)
        )
        nearer = front & (t > 1e-3) & (t < distance)
        distance = np.where(nearer, t, distance).astype(np.float32)
        owner[nearer] = WALL - number
    return distance, owner


def _hill_line(scene: Scene, rays: Array) -> Array:
    """Sine of the elevation that the hills reach; below the horizon where there are none."""
    if OUTDOORS[scene.place.setting][1] is None:
        return np.full(rays.shape[1:], -1, np.float32)
    azimuth = np.arctan2(rays[1], rays[0]) + scene.place.yaw
    waves = np.sin(3 * azimuth) + 0.6 * np.sin(7 * azimuth + 1) + 0.25 * np.sin(17 * azimuth + 2)
    return (0.045 + 0.03 * waves).astype(np.float32)


def _window(
    centre: Array, bound: float, eye: Array, axes: Array, side: int, field_of_view: float
) -> tuple[slice, slice] | None:
    """Bound a sphere on the screen; None when it is out of sight."""
    x, y, z = axes @ (centre - eye)
    if z <= bound:
        return None
    pixels = side / 2 / np.tan(field_of_view / 2)
    # A sphere's silhouette is widest towards the image's edge; an eighth more bounds it in this field.
    reach = 1.125 * bound / np.sqrt(z * z - bound * bound) * pixels + 2
    column, row = side / 2 + x / z * pixels, side / 2 - y / z * pixels
    top, left = max(0, int(row - reach)), max(0, int(column - reach))
    bottom, right = min(side, int(row + reach) + 1), min(side, int(column + reach) + 1)
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def _meet(
    item: SceneObject,
    eye: Array,
    axes: Array,
    rays: Array,
    window: tuple[slice, slice],
    field_of_view: float,
) -> tuple[Array, Ints]:
    """Distances and part numbers within the item's window."""
    rows, columns = window
    near = np.full((rows.stop - rows.start, columns.stop - columns.start), np.inf, np.float32)
    which = np.full(near.shape, -1, np.int16)
    for number, one in enumerate(item.parts):
        inner = _window(one.centre, one.bound, eye, axes, rays.shape[1], field_of_view)
        if inner is None:
            continue
        seen = rays[:, *inner]
        t = one.meet(eye[:, None], seen.reshape(3, -1)).reshape(seen.shape[1:])
        # The part's window may reach beyond the item's by rounding.
        top, left = max(inner[0].start, rows.start), max(inner[1].start, columns.start)
        bottom, right = min(inner[0].stop, rows.stop), min(inner[1].stop, columns.stop)
        if top >= bottom or left >= right:
            continue
        t = t[top - inner[0].start : bottom - inner[0].start, left - inner[1].start : right - inner[1].start]
        here = np.s_[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]
        nearer = t < near[here]
        near[here] = np.where(nearer, t, near[here])
        which[here] = np.where(nearer, np.int16(number), which[here])
    return near, which
