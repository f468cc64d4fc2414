"""Colours and light: surfaces with textures, sun with soft shadows, sky light darkened near objects,
reflections, fog.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .cast import GROUND, HILL, SKY, WALL, Hits, wall_frame
from .looks import COLORS, FLOORS, OUTDOORS, SKIES, WALLS
from .parts import Color
from .scene import Decoration, Scene, SceneObject, View
from .shapes import Array, dot

SAMPLES = 2  # per pixel and axis
_SUN_SPREAD = 0.06  # radians; the four samples of a pixel see the sun at four places, which softens shadows
_FOG_DISTANCE = 34.0
_ROOM_LIGHT: tuple[Color, Color] = ((0.80, 0.78, 0.74), (0.80, 0.78, 0.74))
_STONE: Color = (0.50, 0.48, 0.46)


def shade(scene: Scene, view: View, hits: Hits, points: Array, rays: Array, normals: Array) -> Array:
    """Linear RGB `(3, N)` of all samples."""
    owner = hits.owner.ravel()
    solid = np.flatnonzero((owner != SKY) & (owner != HILL))
    color = _backdrop(scene, rays, owner)
    p, n, who, ray = points[:, solid], normals[:, solid], owner[solid], rays[:, solid]
    sun = _sun_directions(view, hits.owner.shape[0])[:, solid]
    lit, openness = _occlusion(scene, p, n, who, sun)
    sky = np.array([linear(c) for c in _skies(scene)], dtype=np.float32).mean(0)
    # Skies tint the ambient light by half: full tint would hide the objects' own colours.
    tint = view.ambient * (0.5 + 0.5 * sky / max(float(sky.max()), 0.25))
    tint *= 0.6 if scene.place.sky == "night sky" else 1.0
    facing = np.maximum(dot(n, sun), 0) * lit
    around = (0.62 + 0.38 * n[2]) * openness
    base = _surfaces(scene, p, who, hits.piece.ravel()[solid])
    shaded = base * 0.55
    for channel in range(3):
        shaded[channel] *= np.float32(view.sun_color[channel]) * facing + np.float32(tint[channel]) * around
    _polish(scene, shaded, base, who, n, ray, sun, lit)
    if not scene.place.is_room:
        fog = 1 - np.exp(-((hits.distance.ravel()[solid] / np.float32(_FOG_DISTANCE)) ** 2))
        shaded += (linear(_skies(scene)[0])[:, None] - shaded) * fog
    color[:, solid] = shaded
    return color


def decorated(scene: Scene, points: Array, owner: NDArray[np.int16]) -> NDArray[np.int16]:
    """Which decoration of the room each point `(3, N)` lies on, -1 for none."""
    found = np.full(points.shape[1], -1, np.int16)
    for number, one in enumerate(scene.place.decorations):
        on = np.flatnonzero(owner == (GROUND if one.wall < 0 else WALL - one.wall))
        if on.size:
            found[on[_inside(scene, one, points[:, on])]] = number
    return found


def _inside(scene: Scene, one: Decoration, points: Array) -> NDArray[np.bool_]:
    if one.wall < 0:
        u, v = _on_ground(scene, points[:2])
        u, v = u - one.u, v - one.v
    else:
        _, along = wall_frame(scene, one.wall)
        u, v = along @ points - np.float32(one.u), points[2] - np.float32(one.v)
    return (np.abs(u) < one.half[0]) & (np.abs(v) < one.half[1])


def _skies(scene: Scene) -> tuple[Color, Color]:
    return _ROOM_LIGHT if scene.place.is_room else SKIES[scene.place.sky]


def _backdrop(scene: Scene, rays: Array, owner: NDArray[np.int16]) -> Array:
    color = _sky(scene, rays)
    hills = np.flatnonzero(owner == HILL)
    if hills.size:
        tone = OUTDOORS[scene.place.setting][1]
        assert tone is not None
        light = 0.25 if scene.place.sky == "night sky" else 0.8
        color[:, hills] = 0.45 * color[:, hills] + 0.55 * light * linear(tone)[:, None]
    return color


def _polish(
    scene: Scene,
    shaded: Array,
    base: Array,
    owner: NDArray[np.int16],
    normals: Array,
    rays: Array,
    sun: Array,
    lit: Array,
) -> None:
    """Add reflections and highlights, in place, to the samples on shiny and metal objects."""
    things = scene.things
    metal = np.array([False, *[o.material == "metal" for o in things]])
    polished = np.array([False, *[o.material != "matte" for o in things]])
    shiny = np.flatnonzero(polished[np.maximum(owner, 0)])
    n, ray, towards_sun = normals[:, shiny], rays[:, shiny], sun[:, shiny]
    bounce = np.asarray(ray - 2 * dot(ray, n) * n, dtype=np.float32)
    glint = np.maximum(dot(bounce, towards_sun), 0) * lit[shiny]
    for _ in range(5):
        glint = glint * glint
    mirror = _mirror(scene, bounce)
    as_metal = shaded[:, shiny] * 0.35 + 0.75 * base[:, shiny] * mirror
    shaded[:, shiny] = np.where(metal[owner[shiny]], as_metal, shaded[:, shiny]) + 0.06 * mirror + 0.9 * glint


def _surfaces(scene: Scene, points: Array, owner: NDArray[np.int16], piece: NDArray[np.int16]) -> Array:
    """Look up the linear base colour of each sample, `(3, N)`."""
    table = [linear(one.color or _main_color(item)) for item in scene.things for one in item.parts]
    base = np.array([*table, (0, 0, 0)], dtype=np.float32).T[:, piece]
    is_main = np.array([*[one.color is None for item in scene.things for one in item.parts], False])[piece]
    for number, item in enumerate(scene.things, start=1):
        if item.texture != "plain":
            mine = np.flatnonzero((owner == number) & is_main)
            base[:, mine] = _textured(item, points[:, mine], base[:, mine])
    ground = np.flatnonzero(owner == GROUND)
    base[:, ground] = _ground(scene, points[:, ground])
    for number in range(4 * scene.place.is_room):
        wall = np.flatnonzero(owner == WALL - number)
        if wall.size:
            base[:, wall] = _wall(scene, number, points[:, wall])
    where = decorated(scene, points, owner)
    for number, one in enumerate(scene.place.decorations):
        mine = np.flatnonzero(where == number)
        base[:, mine] = linear(COLORS[one.color])[:, None] * 0.8
    return base


def _main_color(item: SceneObject) -> Color:
    return _STONE if item.kind == "stone" else COLORS[item.color]


def _textured(item: SceneObject, points: Array, base: Array) -> Array:
    """Draw the second tone of a texture, fixed to the object."""
    away = (points - np.array([[item.x], [item.y], [0]], np.float32)) / np.float32(item.radius)
    x, y, z = (item.turn.T @ away).astype(np.float32)
    if item.texture == "striped":
        second = np.mod(np.floor(z * 3.2), 2) == 1
    elif item.texture == "checkered":
        cells = np.floor(x * 2.4 + 0.5) + np.floor(y * 2.4 + 0.5) + np.floor(z * 2.4)
        second = np.mod(cells, 2) == 1
    else:
        offsets = [np.mod(u * 1.9, 1) - 0.5 for u in (x, y, z)]
        second = sum(u * u for u in offsets) < 0.13
    light = item.color in ("white", "yellow", "cyan")
    other = base * 0.25 if light else base * 0.25 + 0.6
    return np.where(second, other, base)


def _on_ground(scene: Scene, xy: Array) -> tuple[Array, Array]:
    c, s = np.float32(np.cos(scene.place.yaw)), np.float32(np.sin(scene.place.yaw))
    return c * xy[0] + s * xy[1], c * xy[1] - s * xy[0]


def _ground(scene: Scene, points: Array) -> Array:
    place = scene.place
    u, v = (value / np.float32(place.scale) for value in _on_ground(scene, points[:2]))
    if not place.is_room:
        tone = linear(OUTDOORS[place.setting][0][int(place.ground)])[:, None]
        if place.setting == "square":  # paving stones
            edge = np.minimum(np.mod(u, 1), np.mod(v, 1)) < 0.06
            return np.where(edge, tone * 0.5, tone).astype(np.float32)
        if place.setting == "field":  # furrows
            return (tone * (1 + 0.3 * np.sin(u * 9))).astype(np.float32)
        mottled = np.sin(u * 5 + 2 * np.sin(v * 3.1)) * np.sin(v * 4.3 + 2 * np.sin(u * 2.3))
        return (tone * (1 + 0.16 * mottled)).astype(np.float32)
    tone = linear(FLOORS[place.ground])[:, None]
    if place.ground == "tiled":
        return np.where(np.mod(np.floor(u) + np.floor(v), 2) == 0, tone, tone * 0.45).astype(np.float32)
    if place.ground == "wooden":
        plank = np.floor(u * 3)
        return (tone * (0.85 + 0.3 * np.mod(plank * 0.618, 1))).astype(np.float32)
    return np.broadcast_to(tone, (3, points.shape[1]))


def _wall(scene: Scene, number: int, points: Array) -> Array:
    tone = linear(WALLS[scene.place.wall])[:, None]
    _, along = wall_frame(scene, number)
    stripe = np.mod(np.floor(along @ points * np.float32(2.5)), 2) == 1
    base = np.where(stripe & scene.place.wallpaper, tone * 0.68, tone)
    return np.where(points[2] < 0.18, tone * 0.3, base).astype(np.float32)  # a skirting board


def _sun_directions(view: View, side: int) -> Array:
    """Give each sample one of four places on the sun: `(3, side * side)`."""
    table = np.empty((3, SAMPLES, SAMPLES), dtype=np.float32)
    for row in range(SAMPLES):
        for column in range(SAMPLES):
            azimuth = view.sun_azimuth + (column - 0.5) * 2 * _SUN_SPREAD
            elevation = view.sun_elevation + (row - 0.5) * 2 * _SUN_SPREAD
            flat = np.cos(elevation)
            table[:, row, column] = np.cos(azimuth) * flat, np.sin(azimuth) * flat, np.sin(elevation)
    return np.tile(table, (1, side // SAMPLES, side // SAMPLES)).reshape(3, -1)


def _occlusion(scene: Scene, p: Array, n: Array, owner: NDArray[np.int16], sun: Array) -> tuple[Array, Array]:
    """Tell for each sample whether it sees the sun (1 or 0) and about how much of the sky (0..1).

    Shadows are exact; for the sky, objects count as spheres (Inigo Quilez, "Sphere ambient occlusion").
    """
    lit, openness = np.ones((2, p.shape[1]), dtype=np.float32)
    start = np.asarray(p + 0.02 * n, dtype=np.float32)
    for number, item in enumerate(scene.things, start=1):
        centre, bound = item.ball
        away = centre[:, None] - p
        along, square = dot(away, sun), dot(away, away)
        near = np.flatnonzero((square - along * along < bound * bound) & (along > -bound))
        if near.size:
            _cast_shadow(item, start, sun, near, lit)
        radius = float(min(0.7 * bound, centre[2]))
        beside = np.flatnonzero((square < 16 * bound * bound) & (owner != number))
        square = np.maximum(square[beside], 1e-3)
        cosine = np.maximum(dot(away[:, beside], n[:, beside]), 0) / np.sqrt(square)
        openness[beside] *= 1 - 0.9 * np.minimum(cosine * radius * radius / square, 0.8)
    return lit, openness


def _cast_shadow(item: SceneObject, start: Array, sun: Array, near: NDArray[np.intp], lit: Array) -> None:
    for one in item.parts:
        near = near[lit[near] > 0]
        here = near
        if len(item.parts) > 1:
            away = one.centre[:, None] - start[:, near]
            along = dot(away, sun[:, near])
            gap = dot(away, away) - along * along
            here = near[(gap < one.bound**2) & (along > -one.bound)]
        if here.size:
            lit[here[np.isfinite(one.meet(start[:, here], sun[:, here]))]] = 0


def _sky(scene: Scene, rays: Array) -> Array:
    horizon, zenith = (linear(c)[:, None] for c in _skies(scene))
    return horizon + (zenith - horizon) * np.sqrt(np.clip(rays[2] * np.float32(2.2), 0, 1))


def _mirror(scene: Scene, directions: Array) -> Array:
    """What a smooth surface reflects: the sky above, the ground's mean tone below."""
    place = scene.place
    tone = FLOORS[place.ground] if place.is_room else OUTDOORS[place.setting][0][int(place.ground)]
    edge = np.clip(directions[2] * 6 + 0.5, 0, 1)
    return _sky(scene, directions) * 1.5 * edge + linear(tone)[:, None] * 0.8 * (1 - edge)


def linear(srgb: Color) -> Array:
    """An sRGB colour as linear light `(3,)`."""
    return (np.array(srgb, dtype=np.float32)) ** np.float32(2.2)
