"""What a scene is: a few objects on a ground under a sky, drawn from a seed.

Coordinates are right-handed with z up, in units of about a metre; the ground is z = 0. A scene never changes;
`Scene.view(n)` gives the camera and the light of its n-th rendering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Split = Literal["unseen", "train", "validation"]
# Streams of different splits never meet, whatever the seed: what a user renders is unseen by the packaged
# model.
_SPLITS: dict[str, int] = {"unseen": 0, "train": 1, "validation": 2}

# sRGB, 0..1
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.09, 0.08),
    "orange": (0.95, 0.45, 0.05),
    "yellow": (0.95, 0.85, 0.10),
    "green": (0.12, 0.58, 0.14),
    "cyan": (0.10, 0.75, 0.78),
    "blue": (0.10, 0.20, 0.85),
    "purple": (0.50, 0.12, 0.68),
    "white": (0.93, 0.93, 0.93),
}
SHAPES = ("sphere", "cube", "cylinder", "cone", "pyramid", "torus")
MATERIALS = ("matte", "shiny", "metal")
SIZES: dict[str, float] = {"small": 0.55, "large": 0.95}
GROUNDS: dict[str, tuple[float, float, float]] = {
    "grey": (0.52, 0.52, 0.54),
    "sandy": (0.85, 0.74, 0.53),
    "grassy": (0.42, 0.58, 0.28),
    "brown": (0.45, 0.30, 0.20),
    "pink": (0.88, 0.64, 0.68),
    "dark": (0.20, 0.21, 0.24),
}
PATTERNS = ("plain", "checkered", "striped")
# Horizon and zenith colours, sRGB
SKIES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "blue sky": ((0.72, 0.84, 0.95), (0.30, 0.52, 0.86)),
    "grey sky": ((0.74, 0.75, 0.77), (0.55, 0.57, 0.61)),
    "sunset": ((0.98, 0.66, 0.38), (0.55, 0.38, 0.58)),
    "night sky": ((0.16, 0.18, 0.30), (0.04, 0.05, 0.12)),
    "green sky": ((0.66, 0.88, 0.74), (0.25, 0.62, 0.52)),
}
SEMSEG_CLASSES = ("sky", "ground", *SHAPES)
MAX_OBJECTS = 5
_NUM_OBJECTS_ODDS = (0.10, 0.25, 0.30, 0.20, 0.15)


@dataclass(frozen=True)
class SceneObject:
    """One object standing on the ground.

    `x`, `y` are its centre on the ground, `radius` scales the unit shape, `yaw` turns it (radians).
    """

    shape: str
    color: str
    material: str
    size: str
    x: float
    y: float
    radius: float
    yaw: float


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
    ground: str
    pattern: str
    pattern_scale: float
    pattern_yaw: float
    sky: str

    @classmethod
    def sample(cls, seed: int, index: int = 0, *, split: Split = "unseen") -> Scene:
        """Draw scene number `index` of the stream `seed`.

        The packaged model was trained on the split `train` and chosen on `validation` only.
        """
        rng = _rng(seed, index, split, "scene")
        num_objects = 1 + int(rng.choice(MAX_OBJECTS, p=_NUM_OBJECTS_ODDS))
        return cls(
            seed=seed,
            index=index,
            split=split,
            objects=_place_objects(rng, num_objects),
            ground=_pick(rng, tuple(GROUNDS)),
            pattern=_pick(rng, PATTERNS),
            pattern_scale=float(rng.uniform(0.8, 1.3)),
            pattern_yaw=float(rng.uniform(0, np.pi)),
            sky=_pick(rng, tuple(SKIES)),
        )

    def view(self, rendering: int = 0) -> View:
        """Camera and light of rendering 0, 1, ...; all but 0 turn the camera by 20 to 50 degrees."""
        rng = self.rng(f"view{rendering}")
        base = float(self.rng("azimuth").uniform(0, 2 * np.pi))
        step = 0.0 if rendering == 0 else float(rng.choice([-1, 1]) * rng.uniform(0.35, 0.87))
        warmth = float(rng.uniform(-0.12, 0.12))
        strength = float(rng.uniform(1.6, 2.5)) * (0.45 if self.sky == "night sky" else 1.0)
        return View(
            azimuth=base + step,
            elevation=float(rng.uniform(0.22, 0.42)),
            distance=float(rng.uniform(7.2, 8.4)),
            target_z=float(rng.uniform(0.65, 0.95)),
            field_of_view=0.82,
            sun_azimuth=base + step + float(rng.uniform(-2.2, 2.2)) + np.pi * float(rng.random() < 0.2),
            sun_elevation=float(rng.uniform(0.6, 1.15)),
            sun_color=(strength * (1 + warmth), strength, strength * (1 - warmth)),
            ambient=float(rng.uniform(0.45, 0.65)),
        )

    def rng(self, purpose: str) -> np.random.Generator:
        """Return a generator of this scene's own, independent for each purpose."""
        return _rng(self.seed, self.index, self.split, purpose)


def _rng(seed: int, index: int, split: str, purpose: str) -> np.random.Generator:
    key = (_SPLITS[split], index, *purpose.encode())
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _place_objects(rng: np.random.Generator, count: int) -> tuple[SceneObject, ...]:
    """Draw objects that stand apart, by rejection; the wanted gap shrinks so that it always ends."""
    placed: list[SceneObject] = []
    gap = 0.45
    for _ in range(count):
        size = _pick(rng, tuple(SIZES))
        radius = SIZES[size] * float(rng.uniform(0.92, 1.08))
        while True:
            distance, angle = 2.5 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
            x, y = float(distance * np.cos(angle)), float(distance * np.sin(angle))
            if all(np.hypot(x - o.x, y - o.y) > radius + o.radius + gap for o in placed):
                break
            gap *= 0.97
        shape, color, material = _pick(rng, SHAPES), _pick(rng, tuple(COLORS)), _pick(rng, MATERIALS)
        yaw = float(rng.uniform(0, 2 * np.pi))
        placed.append(SceneObject(shape, color, material, size, x, y, radius, yaw))
    return tuple(placed)
