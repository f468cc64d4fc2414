"""Depth, normals and segmentation of a folder in anyseek's own layout, one folder per modality."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..images import ImageLimits, nearest_square
from ..readers.pictures import one_channel, read_stored
from ..values import Value
from .depth import depth_errors
from .normals import AngularError, mean_normals, unit_normals
from .segmentation import ClassOverlap, vote
from .task import Means, Sample, Task, read_square, require_valid

LAYOUT = """\
DIR/rgb/0001.jpg ...
DIR/{modality}/0001.png (or .npy) ..."""

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


class PairedFolder:
    """Pictures in `rgb/` and files of the same stem in the folder of another modality.

    Raises:
        InputError: a folder is missing, or no picture has its counterpart.
    """

    def __init__(self, folder: Path, modality: str, size: int) -> None:
        pictures = _by_stem(folder / "rgb", PICTURES)
        truths = _by_stem(folder / modality, (".npy", ".npz", *PICTURES))
        self.names = sorted(pictures.keys() & truths.keys())
        if not self.names:
            raise InputError(
                f"{folder} holds no picture with {modality}. Expected:\n{LAYOUT.format(modality=modality)}"
            )
        self._pictures, self._truths, self._size = pictures, truths, size

    def item(self, index: int) -> dict[str, np.ndarray]:
        """What the model is given."""
        return {"rgb": read_square(self._pictures[self.names[index]], self._size)}

    def truth(self, index: int) -> Path:
        """The file of ground truth."""
        return self._truths[self.names[index]]


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files by stem; of several with one stem, the one whose suffix comes first."""
    if not folder.is_dir():
        return {}
    files = [path for path in folder.iterdir() if path.suffix.lower() in suffixes]
    ranked = sorted(files, key=lambda path: -suffixes.index(path.suffix.lower()))
    return {path.stem: path for path in ranked}


class FolderDepth(Task[tuple[np.ndarray, np.ndarray]]):
    """Depth in any unit, in pictures of 8 or 16 bits or arrays; 0 where it is unknown.

    Errors of each picture (`depth_errors`), averaged over pictures.
    """

    target = "depth"
    can_ensemble = True

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = PairedFolder(folder, self.target, size)
        self.names = self._folder.names
        self._size = size
        self._means = Means()

    def read(self, index: int) -> Sample[tuple[np.ndarray, np.ndarray]]:
        """Picture, depth float64 (S, S) and validity."""
        path = self._folder.truth(index)
        stored = read_stored(path, name=str(path), limits=ImageLimits())
        depth = nearest_square(one_channel(stored, str(path), "a depth map"), self._size).astype(np.float64)
        valid = depth > 0
        require_valid(valid, str(path))
        return Sample(self._folder.item(index), (depth, valid))

    def add(self, sample: Sample[tuple[np.ndarray, np.ndarray]], answers: Sequence[Value | None]) -> None:
        """Count one picture; several maps are averaged."""
        depth, valid = sample.truth
        predicted = np.mean([np.asarray(answer) for answer in answers], axis=0)
        self._means.add(depth_errors(predicted, depth, valid))

    def metrics(self) -> dict[str, float]:
        """Means."""
        return self._means.metrics()


class FolderNormals(Task[np.ndarray]):
    """Surface normals as colours or arrays, in the model's axes; grey (128, 128, 128) where there is none.

    Args:
        folder: in the layout above.
        size: side of the square in pixels.
        read: reads a file to uint8 (S, S, 3).
    """

    target = "normal"
    can_ensemble = True

    def __init__(self, folder: Path, size: int, read: Callable[[Path], np.ndarray]) -> None:
        self._folder = PairedFolder(folder, self.target, size)
        self.names = self._folder.names
        self._read = read
        self._errors = AngularError()

    def read(self, index: int) -> Sample[np.ndarray]:
        """Picture, and unit vectors float32 (S, S, 3), 0 where there is none."""
        normals = unit_normals(self._read(self._folder.truth(index)))
        return Sample(self._folder.item(index), normals)

    def add(self, sample: Sample[np.ndarray], answers: Sequence[Value | None]) -> None:
        """Count one picture; of several predictions the mean direction."""
        predicted = mean_normals(np.asarray(answer) for answer in answers)
        self._errors.add(predicted, sample.truth, np.abs(sample.truth).max(-1) > 0)

    def metrics(self) -> dict[str, float]:
        """Angles and shares."""
        return self._errors.metrics()


class FolderSemseg(Task[np.ndarray]):
    """Segmentation as anyseek reads it: id maps, palette pictures, painted maps with a legend.

    Args:
        folder: in the layout above.
        size: side of the square in pixels.
        num_classes: of the model.
        read: reads a file to labels uint8 (S, S).
    """

    target = "semseg"
    can_ensemble = True

    def __init__(self, folder: Path, size: int, num_classes: int, read: Callable[[Path], np.ndarray]) -> None:
        self._folder = PairedFolder(folder, self.target, size)
        self.names = self._folder.names
        self._read = read
        self._num_classes = num_classes
        self._overlap = ClassOverlap(num_classes)

    def read(self, index: int) -> Sample[np.ndarray]:
        """Picture, and labels uint8 (S, S)."""
        return Sample(self._folder.item(index), self._read(self._folder.truth(index)))

    def add(self, sample: Sample[np.ndarray], answers: Sequence[Value | None]) -> None:
        """Count one picture; of several predictions each pixel's most frequent label."""
        self._overlap.add(vote([np.asarray(answer) for answer in answers], self._num_classes), sample.truth)

    def metrics(self) -> dict[str, float]:
        """Over all pixels."""
        return self._overlap.metrics()
