"""3DPW (3D Poses in the Wild, von Marcard et al., ECCV 2018): people in videos, with their SMPL joints.

The data set comes as pickles, which are never opened here: docs/evaluation.md has the lines that turn each
into a NumPy archive.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import InputError
from ..readers.arrays import read_arrays
from ..values import Value
from .joints import aligned_joint_error, joint_error
from .task import Means, Sample, Task, read_picture

LAYOUT = """\
DIR/imageFiles/downtown_arguing_00/image_00000.jpg ...
DIR/sequenceFiles/test/downtown_arguing_00.npz ...
(imageFiles.zip and sequenceFiles.zip of virtualhumans.mpi-inf.mpg.de/3DPW; each .npz is made from the .pkl
beside it as docs/evaluation.md says)"""

NUM_JOINTS = 24
BOX_SCALE = 1.2
"""The side of the square that is cut out, as a multiple of the longer side of the box around the joints: the
factor of the evaluations that 4D-Humans follows."""

_KEYS = ("jointPositions", "cam_poses", "campose_valid", "cam_intrinsics")
_MAX_BYTES = 2**28
_MAX_HALF = 10_000  # pixels

Joints = Callable[[np.ndarray], np.ndarray]
"""From one PERSON to its 24 SMPL joints float (24, 3) in metres, y down and z away from the camera."""


@dataclass(frozen=True)
class _Sequence:
    """One video with P people in N frames."""

    name: str
    joints: np.ndarray  # (P, N, 24, 3), metres in the world
    cameras: np.ndarray  # (N, 4, 4), world to camera
    valid: np.ndarray  # bool (P, N), whether the camera fits the person
    intrinsics: np.ndarray  # (3, 3)


class PeopleInTheWild(Task[np.ndarray]):
    """3-D pose: distances of SMPL joints, the picture being a square around one person at a time.

    Frames count where the data set says that the camera fits. Of several predicted people the one nearest to
    the centre of the square is meant; a square in which nobody is predicted has no distance and is counted as
    missed.

    Args:
        folder: in the layout above.
        size: side of the square in pixels.
        joints: of a predicted person.

    Raises:
        InputError: another layout, or a damaged sequence.
    """

    target = "human_poses"

    def __init__(self, folder: Path, size: int, joints: Joints) -> None:
        paths = sorted((folder / "sequenceFiles" / "test").glob("*.npz"))
        if not paths:
            raise InputError(f"{folder} holds no sequences. Expected:\n{LAYOUT}")
        self._folder, self._size, self._joints = folder, size, joints
        self._samples = [
            (sequence, person, frame)
            for sequence in map(_read_sequence, paths)
            for person, frame in np.argwhere(sequence.valid).tolist()
        ]
        if not self._samples:
            raise InputError(f"{folder}: no frame has a valid camera.")
        self.names = [f"{one.name} frame {frame} person {person}" for one, person, frame in self._samples]
        self._means = Means()
        self._num_asked = self._num_found = 0

    def read(self, index: int) -> Sample[np.ndarray]:
        """The square around a person, and the joints float64 (24, 3) in metres, in the camera's axes."""
        sequence, person, frame = self._samples[index]
        camera = sequence.cameras[frame]
        joints = sequence.joints[person, frame] @ camera[:3, :3].T + camera[:3, 3]
        picture = read_picture(self._folder / "imageFiles" / sequence.name / f"image_{frame:05d}.jpg")
        box = _box(joints, sequence.intrinsics)
        if box is None:
            raise InputError(f"{self.names[index]}: the person is not in front of the camera.")
        square = picture.crop(box).resize((self._size, self._size), Image.Resampling.BICUBIC)
        return Sample({"rgb": np.asarray(square)}, joints)

    def add(self, sample: Sample[np.ndarray], answers: Sequence[Value | None]) -> None:
        """Count one person."""
        (answer,) = answers
        self._num_asked += 1
        if answer is None or not len(answer):
            return
        assert isinstance(answer, np.ndarray)
        self._num_found += 1
        predicted = self._joints(answer[_central(answer["box"])]).astype(np.float64)
        self._means.add(
            {
                "mpjpe_mm": joint_error(predicted, sample.truth),
                "pa_mpjpe_mm": aligned_joint_error(predicted, sample.truth),
            }
        )

    def metrics(self) -> dict[str, float]:
        """`mpjpe_mm` with the pelvis at the origin, `pa_mpjpe_mm` after alignment, both over the people that
        were found, and their share `found`."""
        return self._means.metrics() | {"found": self._num_found / max(self._num_asked, 1)}

    def notes(self) -> dict[str, Any]:
        """How many joints, and how many people were missed."""
        return {"num_joints": NUM_JOINTS, "num_missed": self._num_asked - self._num_found}


def _read_sequence(path: Path) -> _Sequence:
    """One archive. Raises InputError."""
    found = read_arrays(path, _KEYS, name=str(path), max_bytes=_MAX_BYTES)
    missing = [key for key in _KEYS if key not in found]
    if missing:
        raise InputError(f"{path}: lacks the array {missing[0]}; it holds {', '.join(found)}.")
    joints, cameras, valid, intrinsics = (found[key].astype(np.float64) for key in _KEYS)
    people, frames = (*joints.shape, 0, 0)[:2]
    expected = {
        "jointPositions": (people, frames, 3 * NUM_JOINTS),
        "cam_poses": (frames, 4, 4),
        "campose_valid": (people, frames),
        "cam_intrinsics": (3, 3),
    }
    for key, shape in expected.items():
        if found[key].shape != shape:
            raise InputError(f"{path}: {key} has the shape {found[key].shape}, expected {shape}.")
    joints = joints.reshape(people, frames, NUM_JOINTS, 3)
    usable = (valid > 0) & np.isfinite(joints).all((2, 3)) & np.isfinite(cameras).all((1, 2))
    return _Sequence(path.stem, joints, cameras, usable, intrinsics)


def _box(joints: np.ndarray, intrinsics: np.ndarray) -> tuple[int, int, int, int] | None:
    """The square around the projected joints, in pixels; None where a joint is behind the camera."""
    if joints[:, 2].min() <= 0:
        return None
    projected = joints @ intrinsics.T
    places = projected[:, :2] / projected[:, 2:]
    low, high = places.min(0), places.max(0)
    half = BOX_SCALE * float((high - low).max()) / 2
    x, y = ((low + high) / 2).tolist()
    if not (1 <= half <= _MAX_HALF and abs(x) <= _MAX_HALF and abs(y) <= _MAX_HALF):
        return None
    return round(x - half), round(y - half), round(x + half), round(y + half)


def _central(boxes: np.ndarray) -> int:
    """Which of several boxes (N, 4) in 0..1 has its centre nearest to the middle."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return int(np.linalg.norm(centres - 0.5, axis=1).argmin())
