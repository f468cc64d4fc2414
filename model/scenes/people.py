"""People: jointed figures in the poses of the SMPL body model (joints and axes; the figure is our own).

SMPL's axes are x to the person's left, y up, z to the front. In a scene an unturned person looks along -y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..body import PARENTS
from .parts import Color, Part, between, part

Matrix = NDArray[np.floating]

# From the parent, in a T-pose, for a height of about 1.75.
_OFFSETS = np.array(
    [
        *[(0, 0.95, 0), (0.09, -0.08, 0), (-0.09, -0.08, 0), (0, 0.11, -0.01)],
        *[(0.02, -0.39, 0), (-0.02, -0.39, 0), (0, 0.13, 0), (0, -0.40, -0.02)],
        *[(0, -0.40, -0.02), (0, 0.07, 0.01), (0.02, -0.06, 0.12), (-0.02, -0.06, 0.12)],
        *[(0, 0.21, -0.02), (0.08, 0.11, -0.01), (-0.08, 0.11, -0.01), (0, 0.09, 0.03)],
        *[(0.11, 0.03, 0), (-0.11, 0.03, 0), (0.27, 0, 0), (-0.27, 0, 0)],
        *[(0.25, 0, 0), (-0.25, 0, 0), (0.08, 0, 0), (-0.08, 0, 0)],
    ]
)
TO_SCENE = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Axes of an unturned person to those of a scene."""

ACTIONS = ("standing", "walking", "waving", "arms up", "arms out", "bowing")
SKINS: tuple[Color, ...] = ((0.93, 0.76, 0.64), (0.78, 0.57, 0.42), (0.52, 0.34, 0.22), (0.34, 0.21, 0.14))
TROUSERS: tuple[Color, ...] = ((0.16, 0.19, 0.32), (0.28, 0.22, 0.17), (0.30, 0.31, 0.33))
HAIRS: tuple[Color, ...] = ((0.09, 0.07, 0.06), (0.36, 0.22, 0.11), (0.80, 0.65, 0.35))


@dataclass(frozen=True)
class Pose:
    """How a person stands: rotation of each of 23 joints against its parent, `(23, 3, 3)`."""

    rotations: tuple[tuple[float, ...], ...]

    @property
    def matrices(self) -> NDArray[np.float64]:
        """`(23, 3, 3)`."""
        return np.asarray(self.rotations).reshape(23, 3, 3)


def sample_pose(action: str, rng: np.random.Generator) -> Pose:
    """Draw a pose of one of the ACTIONS."""
    turns = {joint: _about("x", rng.normal(0, 0.05)) for joint in range(1, 24)}
    swing = float(rng.uniform(0.35, 0.6)) * float(rng.choice([-1, 1])) if action == "walking" else 0.0
    for side, leg, knee, shoulder, elbow in ((1, 1, 4, 16, 18), (-1, 2, 5, 17, 19)):
        stride = side * swing + float(rng.normal(0, 0.06))
        turns[leg] = _about("x", -stride) @ _about("z", side * float(rng.uniform(0.02, 0.15)))
        turns[knee] = _about("x", max(0.0, -stride) + float(rng.uniform(0, 0.12)))
        hang, forward, bend = 1.25 + float(rng.normal(0, 0.08)), -stride, float(rng.uniform(0.05, 0.35))
        if action == "arms out":
            hang, bend = float(rng.uniform(-0.2, 0.25)), float(rng.uniform(0, 0.2))
        if action == "arms up":
            hang, bend = -float(rng.uniform(0.8, 1.25)), float(rng.uniform(0, 0.4))
        turns[shoulder] = _about("x", forward) @ _about("z", -side * hang)
        turns[elbow] = _about("y", -side * bend)
    if action == "waving":
        side, shoulder, elbow = ((1, 16, 18), (-1, 17, 19))[int(rng.integers(2))]
        turns[shoulder] = _about("z", -side * float(rng.uniform(-0.2, 0.2)))
        turns[elbow] = _about("z", side * float(rng.uniform(1.0, 1.7)))
    if action == "bowing":
        for spine in (3, 6, 9):
            turns[spine] = _about("x", float(rng.uniform(0.22, 0.4)))
    turns[15] = _about("y", float(rng.normal(0, 0.3)))
    return Pose(tuple(tuple(turns[joint].ravel().tolist()) for joint in range(1, 24)))


def joints(pose: Pose) -> tuple[Matrix, Matrix]:
    """Places `(24, 3)` and orientations `(24, 3, 3)` of the joints in a scene's axes, feet on the ground."""
    matrices = np.concatenate([np.eye(3)[None], pose.matrices])
    places, turns = np.zeros((24, 3)), np.zeros((24, 3, 3))
    for joint, parent in enumerate(PARENTS):
        if parent < 0:
            places[joint], turns[joint] = _OFFSETS[joint], matrices[joint]
        else:
            places[joint] = places[parent] + turns[parent] @ _OFFSETS[joint]
            turns[joint] = turns[parent] @ matrices[joint]
    places[:, 1] += 0.05 - min(places[10:12, 1].min(), places[7:9, 1].min() - 0.06)
    return places @ TO_SCENE.T, turns


def figure(pose: Pose, skin: Color, trousers: Color, hair: Color) -> list[Part]:
    """The body as parts; what wears the shirt has the object's own colour."""
    at, turns = joints(pose)
    up = TO_SCENE @ turns[15] @ np.array([0, 1.0, 0])
    front = TO_SCENE @ turns[15] @ np.array([0, 0, 1.0])
    across = np.cross(up, front)
    chest = TO_SCENE @ turns[9]
    axes = np.stack([chest[:, 0], chest[:, 2], chest[:, 1]])  # left, front, up
    head = at[15] + 0.08 * up
    parts = [
        part("sphere", (at[9] + at[6]) / 2 + 0.07 * chest[:, 1], (0.19, 0.125, 0.24), None, axes),
        part("sphere", (at[0] + at[3]) / 2, (0.155, 0.12, 0.17), None, axes),
        part("sphere", at[0] - 0.05 * chest[:, 1], (0.16, 0.125, 0.12), trousers, axes),
        between("sphere", at[12], at[15], 0.06, skin),
        part("sphere", head, (0.095, 0.115, 0.135), skin, np.stack([across, front, up])),
        part(
            "sphere",
            head + 0.035 * up - 0.03 * front,
            (0.102, 0.11, 0.118),
            hair,
            np.stack([across, front, up]),
        ),
    ]
    for shoulder, elbow, wrist, hand in ((16, 18, 20, 22), (17, 19, 21, 23)):
        parts += [
            between("sphere", at[shoulder], at[elbow], 0.062, None),
            between("sphere", at[elbow], at[wrist], 0.048, skin),
            part("sphere", (at[wrist] + at[hand]) / 2, 0.058, skin),
        ]
    for hip, knee, ankle, foot in ((1, 4, 7, 10), (2, 5, 8, 11)):
        parts += [
            between("sphere", at[hip], at[knee], 0.088, trousers),
            between("sphere", at[knee], at[ankle], 0.066, trousers),
            between("sphere", at[ankle] - [0, 0, 0.03], at[foot], 0.05, hair),
        ]
    return parts


def _about(axis: str, angle: float) -> Matrix:
    c, s = np.cos(angle), np.sin(angle)
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
