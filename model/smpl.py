"""SMPL joints in metres from the user's own body model; the model is licensed and never shipped.

https://smpl.is.tue.mpg.de gives it to researchers, as pickles, which are not opened here: docs/evaluation.md
has the lines that turn one into a NumPy archive.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .body import JOINTS, PARENTS, all_rotations, place_joints
from .readers.arrays import read_arrays

NUM_BETAS = 10
_KEYS = ("v_template", "shapedirs", "J_regressor", "kintree_table")
_MAX_BYTES = 2**29


@dataclass(frozen=True)
class BodyModel:
    """Where the joints of a body of any shape are.

    Attributes:
        mean: (24, 3) of the average body, in metres.
        directions: (24, 3, 10), what each shape parameter adds.
    """

    mean: np.ndarray
    directions: np.ndarray

    def joints(self, people: np.ndarray) -> np.ndarray:
        """Joints float64 (..., 24, 3) of PERSON (...) in metres: x right, y down, z away from the camera.

        The camera's translation is left out: what is compared has its pelvis at the origin.
        """
        rest = self.mean + np.einsum("jdb,...b->...jd", self.directions, people["shape"].astype(np.float64))
        return place_joints(all_rotations(people).astype(np.float64), rest)


def read_body_model(path: Path) -> BodyModel:
    """Read the user's SMPL file.

    Args:
        path: .npz with `v_template` (V, 3), `shapedirs` (V, 3, 10 or more), `J_regressor` (24, V) and
            optionally `kintree_table` (2, 24).

    Raises:
        InputError: something else, or a body with other joints (SMPL-X, SMPL+H, ...).
        LimitError: larger than 512 MB.
    """
    name = str(path)
    found = read_arrays(path, _KEYS, name=name, max_bytes=_MAX_BYTES)
    missing = [key for key in _KEYS[:3] if key not in found]
    if missing:
        raise InputError(f"{name}: lacks the array {missing[0]}; it holds {', '.join(found)}.")
    template, shapes, regressor = (found[key].astype(np.float64) for key in _KEYS[:3])
    vertices = len(template) if template.ndim == 2 else 0
    fits = template.shape == (vertices, 3) and shapes.shape[:2] == (vertices, 3) and shapes.ndim == 3
    if not fits or shapes.shape[2] < NUM_BETAS or regressor.shape != (len(JOINTS), vertices):
        raise InputError(
            f"{name}: v_template {template.shape}, shapedirs {shapes.shape} and J_regressor "
            f"{regressor.shape} are no SMPL body: (V, 3), (V, 3, {NUM_BETAS} or more) and ({len(JOINTS)}, V)."
        )
    tree = found.get("kintree_table")
    if tree is not None and (tree.shape != (2, len(JOINTS)) or tuple(tree[0, 1:].tolist()) != PARENTS[1:]):
        raise InputError(f"{name}: its joints hang together in another way than SMPL's.")
    if not all(np.isfinite(part).all() for part in (template, shapes, regressor)):
        raise InputError(f"{name}: holds numbers that are NaN or infinite.")
    # Joints are a linear function of vertices, and these of the shape: one product, once.
    return BodyModel(
        regressor @ template, np.einsum("jv,vdb->jdb", regressor, shapes[..., :NUM_BETAS], optimize=True)
    )
