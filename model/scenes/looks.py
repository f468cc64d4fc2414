"""What things and places of scenes are called, and how they look. Colours are sRGB, 0..1."""

from __future__ import annotations

from .parts import KINDS, Color

COLORS: dict[str, Color] = {
    "red": (0.80, 0.09, 0.08),
    "orange": (0.95, 0.45, 0.05),
    "yellow": (0.95, 0.85, 0.10),
    "green": (0.12, 0.58, 0.14),
    "cyan": (0.10, 0.75, 0.78),
    "blue": (0.10, 0.20, 0.85),
    "purple": (0.50, 0.12, 0.68),
    "white": (0.93, 0.93, 0.93),
}
OBJECTS = tuple(KINDS)
PERSON = "person"
MATERIALS = ("matte", "shiny", "metal")
TEXTURES = ("plain", "striped", "checkered", "spotted")
SIZES: dict[str, float] = {"small": 0.58, "large": 0.95}

OUTDOORS: dict[str, tuple[tuple[Color, ...], Color | None]] = {
    "meadow": (((0.42, 0.58, 0.28), (0.52, 0.62, 0.24)), (0.24, 0.42, 0.22)),
    "desert": (((0.85, 0.74, 0.53), (0.84, 0.62, 0.42)), (0.74, 0.52, 0.36)),
    "snow field": (((0.88, 0.91, 0.95),), (0.72, 0.78, 0.88)),
    "square": (((0.52, 0.52, 0.54), (0.64, 0.60, 0.56)), None),
    "field": (((0.45, 0.30, 0.20), (0.36, 0.27, 0.20)), (0.30, 0.36, 0.24)),
}
"""Grounds and hills of the places outdoors."""
SKIES: dict[str, tuple[Color, Color]] = {
    "blue sky": ((0.72, 0.84, 0.95), (0.30, 0.52, 0.86)),
    "grey sky": ((0.74, 0.75, 0.77), (0.55, 0.57, 0.61)),
    "sunset": ((0.98, 0.66, 0.38), (0.55, 0.38, 0.58)),
    "night sky": ((0.16, 0.18, 0.30), (0.04, 0.05, 0.12)),
}
"""Colours of horizon and zenith."""
FLOORS: dict[str, Color] = {
    "wooden": (0.62, 0.44, 0.28),
    "tiled": (0.80, 0.80, 0.78),
    "grey": (0.46, 0.47, 0.50),
    "red carpet": (0.55, 0.16, 0.18),
}
WALLS: dict[str, Color] = {
    "white": (0.90, 0.89, 0.86),
    "yellow": (0.92, 0.82, 0.55),
    "green": (0.60, 0.76, 0.62),
    "blue": (0.56, 0.70, 0.88),
    "pink": (0.90, 0.68, 0.70),
}
SEMSEG_CLASSES = (
    *("sky", "hill", "ground", "floor", "wall", "picture", "rug"),
    *OBJECTS,
    PERSON,
    "clutter",
)
