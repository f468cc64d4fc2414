"""What a scene is: objects and people in a room or outdoors, drawn from a seed.

Coordinates are right-handed with z up, in units of about a metre; the ground is z = 0. A scene never changes;
`Scene.view(n)` gives the camera and the light of its n-th rendering.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from .looks import COLORS, FLOORS, MATERIALS, OBJECTS, OUTDOORS, PERSON, SIZES, SKIES, TEXTURES, WALLS
from .parts import CLUTTER, KINDS, Part
from .people import ACTIONS, HAIRS, SKINS, TROUSERS, Pose, figure, sample_pose

Split = Literal["unseen", "train", "validation"]
# Streams of different splits never meet, whatever the seed: what a user renders is unseen by the packaged
# model.
_SPLITS: dict[str, int] = {"unseen": 0, "train": 1, "validation": 2}

_PERSON_SCALE, _PERSON_REACH = 1.15, 0.55
_ROOM_ODDS = 0.4
MAX_OBJECTS = 6
MAX_CLUTTER = 5
_NUM_OBJECTS_ODDS = (0.06, 0.20, 0.28, 0.24, 0.13, 0.09)
_PERSON_ODDS = 0.14  # of each object to be a person


@dataclass(frozen=True)
class SceneObject:
    """One object or person standing on the ground.

    `x`, `y` are its centre on the ground, `radius` scales the object, `yaw` turns it (radians). A person has
    an action and a pose; its colour is that of the shirt.
    """

    kind: str
    color: str
    material: str
    texture: str
    size: str
    x: float
    y: float
    radius: float
    yaw: float
    action: str = ""
    pose: Pose | None = None
    look: tuple[int, int, int] = (0, 0, 0)

    @cached_property
    def turn(self) -> np.ndarray:
        """Object axes to scene axes `(3, 3)`."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Its parts in scene coordinates."""
        if self.pose is not None:
            skin, trousers, hair = self.look
            own = figure(self.pose, SKINS[skin], TROUSERS[trousers], HAIRS[hair])
        else:
            own = {**KINDS, **CLUTTER}[self.kind]()
        to = np.array([self.x, self.y, 0.0])
        return tuple(one.moved(self.turn, self.radius, to) for one in own)

    @cached_property
    def ball(self) -> tuple[np.ndarray, float]:
        """Centre `(3,)` and radius of a sphere around all of it."""
        low = np.min([p.centre - p.bound for p in self.parts], 0)
        high = np.max([p.centre + p.bound for p in self.parts], 0)
        centre = ((low + high) / 2).astype(np.float32)
        radius = max(float(np.linalg.norm(p.centre - centre)) + p.bound for p in self.parts)
        return centre, radius


@dataclass(frozen=True)
class Decoration:
    """A flat rectangle: a picture on wall `wall` (0..3) of a room, or a rug on its floor (-1).

    `u`, `v` are its centre along the wall (or on the floor) and above the floor, with half sides `half`.
    """

    wall: int
    color: str
    u: float
    v: float
    half: tuple[float, float]


@dataclass(frozen=True)
class Place:
    """Where a scene is.

    Attributes:
        setting: `room` or a key of OUTDOORS.
        ground: which of the setting's grounds, or a key of FLOORS.
        sky: key of SKIES; of a room, "".
        wall: key of WALLS; outdoors "".
        wallpaper: whether the walls are striped.
        half: half the side of the room.
        yaw: turns room, patterns and hills.
        scale: of patterns.
        decorations: of the room.
    """

    setting: str
    ground: str
    sky: str
    wall: str
    wallpaper: bool
    half: float
    yaw: float
    scale: float
    decorations: tuple[Decoration, ...]

    @property
    def is_room(self) -> bool:
        """Whether there are walls."""
        return self.setting == "room"


@dataclass(frozen=True)
class View:
    """Camera and light of one rendering.

    Angles in radians, `distance` and `target_z` in scene units, `field_of_view` across the square image;
    `sun_color` is linear RGB with the sun's strength in it.
    """

    azimuth: float
    elevation: float
    distance: float
    target_z: float
    field_of_view: float
    sun_azimuth: float
    sun_elevation: float
    sun_color: tuple[float, float, float]
    ambient: float


@dataclass(frozen=True)
class Scene:
    """A scene; equal arguments of `sample` always give equal scenes."""

    seed: int
    index: int
    split: Split
    objects: tuple[SceneObject, ...]
    clutter: tuple[SceneObject, ...]
    place: Place

    @classmethod
    def sample(cls, seed: int, index: int = 0, *, split: Split = "unseen") -> Scene:
        """Draw scene number `index` of the stream `seed`.

        The packaged model was trained on the split `train` and chosen on `validation` only.
        """
        rng = _rng(seed, index, split, "scene")
        num_objects = 1 + int(rng.choice(MAX_OBJECTS, p=_NUM_OBJECTS_ODDS))
        place = _sample_place(rng)
        objects = _place_objects(rng, num_objects)
        return cls(seed, index, split, objects, _scatter(rng, objects, place), place)

    def view(self, rendering: int = 0) -> View:
        """Camera and light of rendering 0, 1, ...; all but 0 turn the camera by 20 to 50 degrees."""
        rng = self.rng(f"view{rendering}")
        base = float(self.rng("azimuth").uniform(0, 2 * np.pi))
        step = 0.0 if rendering == 0 else float(rng.choice([-1, 1]) * rng.uniform(0.35, 0.87))
        warmth = float(rng.uniform(-0.12, 0.12))
        strength = float(rng.uniform(1.6, 2.5)) * (0.45 if self.place.sky == "night sky" else 1.0)
        return View(
            azimuth=base + step,
            elevation=float(rng.uniform(0.22, 0.42)),
            distance=float(rng.uniform(6.2, 7.2)),
            target_z=float(rng.uniform(0.75, 1.05)),
            field_of_view=0.82,
            sun_azimuth=base + step + float(rng.uniform(-2.2, 2.2)) + np.pi * float(rng.random() < 0.2),
            sun_elevation=float(rng.uniform(0.6, 1.15)),
            sun_color=(strength * (1 + warmth), strength, strength * (1 - warmth)),
            ambient=float(rng.uniform(0.45, 0.65)),
        )

    @property
    def things(self) -> tuple[SceneObject, ...]:
        """Objects, then clutter."""
        return self.objects + self.clutter

    def rng(self, purpose: str) -> np.random.Generator:
        """Return a generator of this scene's own, independent for each purpose."""
        return _rng(self.seed, self.index, self.split, purpose)


def _rng(seed: int, index: int, split: str, purpose: str) -> np.random.Generator:
    key = (_SPLITS[split], index, *purpose.encode())
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _sample_place(rng: np.random.Generator) -> Place:
    yaw, scale = float(rng.uniform(0, np.pi)), float(rng.uniform(0.8, 1.3))
    if rng.random() < _ROOM_ODDS:
        decorations = _sample_decorations(rng)
        floor, wall = _pick(rng, tuple(FLOORS)), _pick(rng, tuple(WALLS))
        half_side = float(rng.uniform(3.7, 4.6))
        paper = bool(rng.random() < 0.3)
        return Place("room", floor, "", wall, paper, half_side, yaw, scale, decorations)
    setting = _pick(rng, tuple(OUTDOORS))
    ground = str(int(rng.integers(len(OUTDOORS[setting][0]))))
    return Place(setting, ground, _pick(rng, tuple(SKIES)), "", False, 0.0, yaw, scale, ())


def _sample_decorations(rng: np.random.Generator) -> tuple[Decoration, ...]:
    """Pictures on one to three walls, often a rug."""
    found: list[Decoration] = []
    for wall in rng.permutation(4)[: int(rng.integers(1, 4))].tolist():
        half = (float(rng.uniform(0.45, 0.9)), float(rng.uniform(0.35, 0.6)))
        u, v = float(rng.uniform(-1.6, 1.6)), float(rng.uniform(1.9, 2.6))
        found.append(Decoration(wall, _pick(rng, tuple(COLORS)), u, v, half))
    if rng.random() < 0.4:
        half = (float(rng.uniform(1.2, 2.2)), float(rng.uniform(0.9, 1.6)))
        found.append(Decoration(-1, _pick(rng, tuple(COLORS)), 0.0, 0.0, half))
    return tuple(found)


def _place_objects(rng: np.random.Generator, count: int) -> tuple[SceneObject, ...]:
    """Draw objects that stand apart."""
    placed: list[SceneObject] = []
    gap = 0.35
    for _ in range(count):
        size = _pick(rng, tuple(SIZES))
        radius = SIZES[size] * float(rng.uniform(0.93, 1.07))
        is_person = bool(rng.random() < _PERSON_ODDS)
        if is_person:
            size, radius = "large", _PERSON_SCALE * float(rng.uniform(0.95, 1.05))
        at, gap = _free_place(rng, placed, _PERSON_REACH if is_person else radius, gap)
        placed.append(_sample_object(rng, is_person, size, at, radius))
    return tuple(placed)


def _free_place(
    rng: np.random.Generator, placed: list[SceneObject], reach: float, gap: float
) -> tuple[tuple[float, float], float]:
    """Draw a place by rejection; the gap shrinks, below 0 if it must, so that it ends. Gives what is left."""
    while True:
        x, y = _somewhere(rng, 2.3)
        if all(np.hypot(x - o.x, y - o.y) > reach + _reach(o) + gap for o in placed):
            return (x, y), gap
        gap -= 0.01


def _somewhere(rng: np.random.Generator, within: float) -> tuple[float, float]:
    distance, angle = within * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    return float(distance * np.cos(angle)), float(distance * np.sin(angle))


def _sample_object(
    rng: np.random.Generator, is_person: bool, size: str, at: tuple[float, float], radius: float
) -> SceneObject:
    color, yaw = _pick(rng, tuple(COLORS)), float(rng.uniform(0, 2 * np.pi))
    if is_person:
        action = _pick(rng, ACTIONS)
        pose = sample_pose(action, rng)
        skin, trousers, hair = rng.integers([len(SKINS), len(TROUSERS), len(HAIRS)]).tolist()
        look = (skin, trousers, hair)
        return SceneObject(PERSON, color, "matte", "plain", size, *at, radius, yaw, action, pose, look)
    kind, material = _pick(rng, OBJECTS), _pick(rng, MATERIALS)
    texture = TEXTURES[int(rng.choice(4, p=(0.55, 0.15, 0.15, 0.15)))]
    return SceneObject(kind, color, material, texture, size, *at, radius, yaw)


def _reach(item: SceneObject) -> float:
    return _PERSON_REACH if item.kind == PERSON else item.radius


def _scatter(
    rng: np.random.Generator, objects: tuple[SceneObject, ...], place: Place
) -> tuple[SceneObject, ...]:
    """Draw small things in between; those that find no place are left out."""
    kind = "book" if place.is_room else "stone"
    found: list[SceneObject] = []
    for _ in range(int(rng.integers(MAX_CLUTTER + 1))):
        x, y = _somewhere(rng, 2.8)
        radius, yaw = float(rng.uniform(0.12, 0.26)), float(rng.uniform(0, 2 * np.pi))
        color = _pick(rng, tuple(COLORS)) if place.is_room else "white"
        if all(np.hypot(x - o.x, y - o.y) > radius + _reach(o) for o in (*objects, *found)):
            found.append(SceneObject(kind, color, "matte", "plain", "small", x, y, radius, yaw))
    return tuple(found)
