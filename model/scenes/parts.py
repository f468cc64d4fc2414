"""What objects are made of: unit shapes, stretched, turned and placed, each with a colour of its own or the
object's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .shapes import UNIT_SHAPES, Array

Color = tuple[float, float, float]
MAIN = None  # a part in the object's own colour and texture

WOOD: Color = (0.42, 0.28, 0.16)
_TYRE: Color = (0.10, 0.10, 0.11)
_GLASS: Color = (0.55, 0.68, 0.75)
_SNOW: Color = (0.94, 0.95, 0.97)
_CARROT: Color = (0.93, 0.45, 0.10)
_STALK: Color = (0.90, 0.86, 0.76)
_STEEL: Color = (0.45, 0.46, 0.49)


@dataclass(frozen=True)
class Part:
    """One shape of an object.

    Attributes:
        shape: key of `UNIT_SHAPES`.
        centre: `(3,)`.
        axes: `(3, 3)`; its rows are the shape's own axes.
        scale: `(3,)` along these axes.
        color: sRGB 0..1, or None for the object's.
    """

    shape: str
    centre: Array
    axes: Array
    scale: Array
    color: Color | None

    @property
    def bound(self) -> float:
        """Radius of a sphere around the centre that holds the part."""
        if self.shape == "sphere":
            return float(self.scale.max())
        return float(np.linalg.norm(self.scale * np.asarray(UNIT_SHAPES[self.shape].half, np.float32)))

    @property
    def corners(self) -> Array:
        """Of a box around the part along its own axes, `(8, 3)`."""
        half = self.scale * np.asarray(UNIT_SHAPES[self.shape].half, np.float32)
        signs = np.asarray(list(product((-1, 1), repeat=3)), np.float32)
        return np.asarray(self.centre + (signs * half) @ self.axes, np.float32)

    def moved(self, turn: NDArray[np.floating], size: float, to: NDArray[np.floating]) -> Part:
        """The part in a frame that is turned by a `(3, 3)` matrix, then scaled, then shifted."""
        return Part(
            self.shape,
            (turn @ self.centre * size + to).astype(np.float32),
            (self.axes @ turn.T).astype(np.float32),
            (self.scale * size).astype(np.float32),
            self.color,
        )

    def local(self, points: Array) -> Array:
        """World points `(3, N)` in the unit shape's frame."""
        return np.asarray((self.axes @ (points - self.centre[:, None])) / self.scale[:, None], np.float32)

    def meet(self, origins: Array, directions: Array) -> Array:
        """Distances along unit directions."""
        return UNIT_SHAPES[self.shape].intersect(
            self.local(origins), (self.axes @ directions) / self.scale[:, None]
        )

    def normals(self, points: Array) -> Array:
        """Outward unit normals `(3, N)` at world points on it."""
        n = self.axes.T @ (UNIT_SHAPES[self.shape].normals(self.local(points)) / self.scale[:, None])
        return np.asarray(n / (np.sqrt((n * n).sum(0)) + 1e-9), dtype=np.float32)


_IDENTITY = np.eye(3, dtype=np.float32)
_LYING = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)  # the shape stands towards the front, -y


def part(
    shape: str,
    at: Sequence[float] | NDArray[np.floating],
    scale: Sequence[float] | float,
    color: Color | None = MAIN,
    axes: NDArray[np.floating] = _IDENTITY,
) -> Part:
    """A part at a place in its object."""
    sizes = np.broadcast_to(np.asarray(scale, np.float32), (3,))
    return Part(shape, np.asarray(at, np.float32), np.asarray(axes, np.float32), sizes, color)


def between(
    shape: str, start: NDArray[np.floating], end: NDArray[np.floating], radius: float, color: Color | None
) -> Part:
    """A part stretched from one place to another, a little over both."""
    along = end - start
    length = float(np.linalg.norm(along))
    z = along / length
    x = np.cross(z, [0.0, 0.0, 1.0] if abs(z[2]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    axes = np.stack([x, np.cross(z, x), z])
    return part(shape, (start + end) / 2, (radius, radius, length / 2 + 0.5 * radius), color, axes)


def _legs(x: float, y: float, height: float, radius: float) -> list[Part]:
    return [
        part("cylinder", (sx * x, sy * y, height / 2), (radius, radius, height / 2))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]


def _tree() -> list[Part]:
    return [
        part("cylinder", (0, 0, 0.4), (0.14, 0.14, 0.4), WOOD),
        part("sphere", (0, 0, 1.35), (0.75, 0.75, 0.7)),
    ]


def _fir() -> list[Part]:
    return [
        part("cylinder", (0, 0, 0.2), (0.14, 0.14, 0.2), WOOD),
        part("cone", (0, 0, 0.85), (0.8, 0.8, 0.5)),
        part("cone", (0, 0, 1.35), (0.62, 0.62, 0.45)),
        part("cone", (0, 0, 1.8), (0.42, 0.42, 0.4)),
    ]


def _table() -> list[Part]:
    return [part("box", (0, 0, 0.92), (1.0, 0.65, 0.08)), *_legs(0.85, 0.5, 0.86, 0.07)]


def _chair() -> list[Part]:
    return [
        part("box", (0, 0, 0.7), (0.52, 0.52, 0.07)),
        part("box", (0, 0.47, 1.25), (0.52, 0.06, 0.5)),
        *_legs(0.42, 0.42, 0.66, 0.07),
    ]


def _lamp() -> list[Part]:
    return [
        part("cylinder", (0, 0, 0.05), (0.4, 0.4, 0.05), _STEEL),
        part("cylinder", (0, 0, 0.85), (0.05, 0.05, 0.8), _STEEL),
        part("cone", (0, 0, 1.75), (0.62, 0.62, 0.4)),
    ]


def _house() -> list[Part]:
    return [
        part("box", (0, 0, 0.55), (0.75, 0.75, 0.55)),
        part("pyramid", (0, 0, 1.5), (0.95, 0.95, 0.4), (0.45, 0.16, 0.12)),
        part("box", (0, -0.74, 0.32), (0.18, 0.03, 0.32), WOOD),
    ]


def _snowman() -> list[Part]:
    return [
        part("sphere", (0, 0, 0.55), 0.62, _SNOW),
        part("sphere", (0, 0, 1.3), 0.45, _SNOW),
        part("sphere", (0, 0, 1.88), 0.31, _SNOW),
        part("cone", (0, -0.42, 1.88), (0.08, 0.08, 0.2), _CARROT, _LYING),
        part("torus", (0, 0, 1.62), (0.38, 0.38, 0.38)),  # the scarf has the colour
        part("cylinder", (0, 0, 2.2), (0.2, 0.2, 0.16)),
    ]


def _arch() -> list[Part]:
    return [
        part("box", (-0.72, 0, 0.75), (0.22, 0.28, 0.75)),
        part("box", (0.72, 0, 0.75), (0.22, 0.28, 0.75)),
        part("box", (0, 0, 1.68), (1.0, 0.3, 0.2)),
    ]


def _mushroom() -> list[Part]:
    return [
        part("cylinder", (0, 0, 0.45), (0.24, 0.24, 0.45), _STALK),
        part("sphere", (0, 0, 0.95), (0.78, 0.78, 0.42)),
    ]


def _car() -> list[Part]:
    wheels = [
        part("cylinder", (sx * 0.62, sy * 0.5, 0.24), (0.24, 0.24, 0.1), _TYRE, _LYING)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    return [
        part("box", (0, 0, 0.45), (1.05, 0.5, 0.25)),
        part("box", (-0.08, 0, 0.85), (0.55, 0.44, 0.2), _GLASS),
        part("box", (-0.08, 0, 1.07), (0.5, 0.42, 0.04)),
        *wheels,
    ]


KINDS: dict[str, Callable[[], list[Part]]] = {
    "sphere": lambda: [part("sphere", (0, 0, 1), 1)],
    "cube": lambda: [part("box", (0, 0, 0.74), 0.74)],
    "cylinder": lambda: [part("cylinder", (0, 0, 0.9), (0.72, 0.72, 0.9))],
    "cone": lambda: [part("cone", (0, 0, 0.95), 0.95)],
    "pyramid": lambda: [part("pyramid", (0, 0, 0.8), (0.92, 0.92, 0.8))],
    "torus": lambda: [part("torus", (0, 0, 0.3), 1)],
    "tree": _tree,
    "fir": _fir,
    "table": _table,
    "chair": _chair,
    "lamp": _lamp,
    "house": _house,
    "snowman": _snowman,
    "arch": _arch,
    "mushroom": _mushroom,
    "car": _car,
}
"""Objects by name, standing on z = 0 around the z axis, about 1 in radius."""

CLUTTER: dict[str, Callable[[], list[Part]]] = {
    "stone": lambda: [part("sphere", (0, 0, 0.45), (1, 0.8, 0.55))],
    "book": lambda: [part("box", (0, 0, 0.22), (1, 0.75, 0.22))],
}
"""Small things that lie about and nobody mentions."""
