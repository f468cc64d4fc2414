"""DIODE (arXiv 1908.00463): depth and surface normals of indoor and outdoor scenes, measured by laser."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..images import nearest_square
from ..readers.arrays import read_array
from ..values import Value
from .depth import depth_errors
from .normals import ALL_SIGNS, AngularError, mean_normals
from .task import Means, Sample, Task, read_square, require_valid

GROUPS = ("indoors", "outdoor")
LAYOUT = """\
DIR/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010.png
                                   00019_00183_indoors_000_010_depth.npy
                                   00019_00183_indoors_000_010_depth_mask.npy
                                   00019_00183_indoors_000_010_normal.npy
DIR/outdoor/...
(val.tar.gz and val_normals.tar.gz of diode-dataset.org, unpacked into one folder; DIR may be its parent)"""

_MAX_ARRAY_BYTES = 2**28


class DiodeFolder:
    """Pictures of a DIODE split and the arrays beside them.

    Args:
        folder: holds `indoors`, `outdoor` or both, or a folder `val` with them.
        size: side of the square in pixels.

    Raises:
        InputError: another layout, or no pictures.
    """

    def __init__(self, folder: Path, size: int) -> None:
        root = folder / "val" if (folder / "val").is_dir() else folder
        found = [(group, path) for group in GROUPS for path in sorted((root / group).rglob("*.png"))]
        if not found:
            raise InputError(f"{folder} holds no pictures of DIODE. Expected:\n{LAYOUT}")
        self.groups = [group for group, _ in found]
        self._paths = [path for _, path in found]
        self.names = [str(path.relative_to(root)) for path in self._paths]
        self._size = size

    def item(self, index: int) -> dict[str, np.ndarray]:
        """What the model is given."""
        return {"rgb": read_square(self._paths[index], self._size)}

    def array(self, index: int, suffix: str, shape: tuple[int, ...]) -> np.ndarray:
        """The array `<name>_<suffix>.npy`, float64 (S, S) or (S, S, 3) of the central square.

        Args:
            index: of the picture.
            suffix: `depth`, `depth_mask` or `normal`.
            shape: of a pixel: () or (3,).
        """
        path = self._paths[index]
        path = path.with_name(f"{path.stem}_{suffix}.npy")
        values = read_array(path, name=str(path), max_bytes=_MAX_ARRAY_BYTES)
        if not shape and values.ndim == 3 and values.shape[2] == 1:
            values = values[..., 0]
        if values.ndim != 2 + len(shape) or values.shape[2:] != shape:
            pixel = ", 3" if shape else ""
            raise InputError(f"{path}: expected an array (H, W{pixel}), got {values.shape}.")
        return nearest_square(values, self._size).astype(np.float64)


class DiodeDepth(Task[tuple[np.ndarray, np.ndarray]]):
    """Depth: errors of each picture (`depth_errors`), averaged over pictures.

    Valid are pixels that the mask marks and whose depth is above 0.
    """

    target = "depth"
    can_ensemble = True

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = DiodeFolder(folder, size)
        self.names = self._folder.names
        self._means = Means()

    def read(self, index: int) -> Sample[tuple[np.ndarray, np.ndarray]]:
        """Picture, depth float64 (S, S) and validity."""
        depth = self._folder.array(index, "depth", ())
        mask = self._folder.array(index, "depth_mask", ())
        valid = (mask > 0) & np.isfinite(depth) & (depth > 0)
        require_valid(valid, self.names[index])
        return Sample(self._folder.item(index), (depth, valid), self._folder.groups[index])

    def add(self, sample: Sample[tuple[np.ndarray, np.ndarray]], answers: Sequence[Value | None]) -> None:
        """Count one picture; several maps are averaged."""
        depth, valid = sample.truth
        predicted = np.mean([np.asarray(answer) for answer in answers], axis=0)
        self._means.add(depth_errors(predicted, depth, valid), sample.group)

    def metrics(self) -> dict[str, float]:
        """Of all pictures, and of `indoors` and `outdoor`."""
        return self._means.metrics()


class DiodeNormals(Task[tuple[np.ndarray, np.ndarray]]):
    """Surface normals: angles (`AngularError`) over the valid pixels of all pictures.

    Valid are pixels whose normal is not (0, 0, 0). The data set does not say which way its axes point, so all
    eight choices of signs are measured and the best for the whole data set counts; the notes name it.
    """

    target = "normal"
    can_ensemble = True

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = DiodeFolder(folder, size)
        self.names = self._folder.names
        self._errors = AngularError(ALL_SIGNS)

    def read(self, index: int) -> Sample[tuple[np.ndarray, np.ndarray]]:
        """Picture, normals float64 (S, S, 3) and validity."""
        normals = self._folder.array(index, "normal", (3,))
        valid = np.isfinite(normals).all(-1) & (np.abs(normals).max(-1) > 1e-6)
        require_valid(valid, self.names[index])
        return Sample(self._folder.item(index), (normals, valid))

    def add(self, sample: Sample[tuple[np.ndarray, np.ndarray]], answers: Sequence[Value | None]) -> None:
        """Count one picture; of several predictions the mean direction."""
        normals, valid = sample.truth
        self._errors.add(mean_normals(np.asarray(answer) for answer in answers), normals, valid)

    def metrics(self) -> dict[str, float]:
        """Angles and shares."""
        return self._errors.metrics()

    def notes(self) -> dict[str, object]:
        """`axes`: the signs that turn the data set's x, y, z into the model's."""
        return {"axes": list(self._errors.best)}
