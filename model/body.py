"""The body behind poses: SMPL's 24 joints, their rotations, and where they are in space and in a picture.

Each joint turns against its parent; the first, the pelvis, turns the whole body (SMPL, Loper et al., 2015).
The body model itself is licensed and no part of this package: pictures use a skeleton of our own, `smpl.py`
reads a file that the user has.
"""

import numpy as np

JOINTS = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle"),
    *("right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hand", "right_hand"),
)
"""Names of the joints in SMPL's order."""

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""The joint that each one hangs on, before it in the order; the pelvis hangs on nothing."""

DEFAULT_CAMERA = (1.1, 0.0, 0.05)
"""Scale and translation with which an upright adult fills the box."""

FACING_CAMERA = np.diag([1.0, -1.0, -1.0])
"""Rotation of an upright body that looks into the camera, whose axes are x right, y down, z away from it."""


def _rest() -> np.ndarray:
    middle = {"pelvis": (-0.23, 0.03), "spine1": (-0.12, 0), "spine2": (0.02, 0.02), "spine3": (0.08, 0.03)}
    middle |= {"neck": (0.29, 0), "head": (0.37, 0.05)}
    left = {"hip": (0.07, -0.32, 0.03), "knee": (0.1, -0.71, 0.02), "ankle": (0.09, -1.12, -0.02)}
    left |= {"foot": (0.12, -1.18, 0.1), "collar": (0.08, 0.2, 0.01), "shoulder": (0.18, 0.22, 0)}
    left |= {"elbow": (0.44, 0.21, -0.02), "wrist": (0.69, 0.22, -0.02), "hand": (0.78, 0.21, -0.03)}
    places: dict[str, tuple[float, ...]] = {name: (0.0, *place) for name, place in middle.items()}
    places |= {f"left_{name}": place for name, place in left.items()}
    places |= {f"right_{name}": (-x, y, z) for name, (x, y, z) in left.items()}
    return np.array([places[name] for name in JOINTS])


REST = _rest()
"""An adult of 1.7 m with arms spread, (24, 3) in metres: x to the body's left, y up, z forward, the origin in
the chest. Our own round numbers."""


def rotation_matrices(vectors: np.ndarray) -> np.ndarray:
    """Rotations (..., 3, 3) from vectors (..., 3): the axis, as long as the angle in radians (Rodrigues)."""
    vectors = np.asarray(vectors, np.float64)
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vectors.shape, 3)
    # np.sinc(t) is sin(pi t) / (pi t), 1 at 0: nothing is divided by a small angle.
    half = np.sinc(angle / (2 * np.pi))
    return np.eye(3) + np.sinc(angle / np.pi) * cross + half**2 / 2 * cross @ cross


def nearest_rotations(matrices: np.ndarray) -> np.ndarray:
    """The rotations that finite matrices (..., 3, 3) are closest to (Frobenius norm)."""
    left, _, right = np.linalg.svd(matrices)
    left[..., -1] *= np.linalg.det(left @ right)[..., None]  # never a reflection
    return left @ right


def all_rotations(people: np.ndarray) -> np.ndarray:
    """Rotations (..., 24, 3, 3) of all joints of PERSON (...), the pelvis first."""
    return np.concatenate([people["rotation"][..., None, :, :], people["pose"]], axis=-3)


def place_joints(rotations: np.ndarray, rest: np.ndarray = REST) -> np.ndarray:
    """Joints in space (forward kinematics).

    Args:
        rotations: (..., 24, 3, 3) of each joint against its parent, the pelvis against the camera.
        rest: (24, 3) or (..., 24, 3), where the joints are without any rotation.

    Returns:
        (..., 24, 3) in the unit of `rest`; the pelvis stays where it was.
    """
    turned = [rotations[..., 0, :, :]]
    placed = [np.broadcast_to(rest[..., 0, :], (*rotations.shape[:-3], 3))]
    for joint, parent in enumerate(PARENTS[1:], start=1):
        bone = rest[..., joint, :] - rest[..., parent, :]
        placed.append(placed[parent] + (turned[parent] @ bone[..., None])[..., 0])
        turned.append(turned[parent] @ rotations[..., joint, :, :])
    return np.stack(placed, axis=-2)


def project(points: np.ndarray, box: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Where points of a body are in the picture, seen by the camera that 4D-Humans estimates.

    Args:
        points: (..., J, 3) in metres, x right, y down.
        box: (..., 4), x0, y0, x1, y1 of the person; the camera sees the square around its longer side.
        camera: (..., 3), scale and translation: a body of two metres fills the square at scale 1.

    Returns:
        (..., J, 2) in the unit of the box, x and y; the camera is far away, so depth changes nothing.
    """
    low, high = box[..., None, :2], box[..., None, 2:]
    side = (high - low).max(-1, keepdims=True)
    scale, shift = camera[..., None, :1], camera[..., None, 1:]
    return (low + high) / 2 + side * scale / 2 * (points[..., :2] + shift)


def find_joints(people: np.ndarray) -> np.ndarray:
    """Joints float (..., 24, 2) of PERSON (...) as fractions of the square picture; some may lie outside.

    The skeleton is our own, so proportions are those of an average adult.
    """
    return project(place_joints(all_rotations(people)), people["box"], people["camera"])
