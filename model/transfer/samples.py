"""Which files belong together: pictures with their maps, or with the class of their folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..modalities import RAW_NAMES
from ..readers.content import decode_text, parse_json, read_bytes

LAYOUTS = """\
DIR/rgb/a.jpg with DIR/depth/a.png and DIR/semseg/a.png,
DIR/a.jpg with DIR/a.depth.png, DIR/a.semseg.png and attributes in DIR/a.json,
DIR/CLASS/a.jpg (one folder per class), or
{rgb: DIR1, semseg: DIR2, ...} with equal names"""

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
MAPS = (".npy", ".npz", ".png", ".tif", ".tiff", *(s for s in PICTURES if s not in (".png", ".tif", ".tiff")))
_MAX_ATTRIBUTE_BYTES = 2**20


@dataclass(frozen=True, eq=False)
class Boxes:
    """Things of a picture.

    Attributes:
        corners: float32 (N, 4), x0, y0, x1, y1 as fractions 0..1 of the whole picture.
        labels: N names.
        crowds: which ones are of many things at once: not learnt, and found or not, not counted (COCO).
    """

    corners: np.ndarray
    labels: tuple[str, ...]
    crowds: tuple[bool, ...]


NO_BOXES = Boxes(np.zeros((0, 4), np.float32), (), ())


@dataclass(frozen=True, eq=False)
class Cuboids:
    """The things of a picture in three dimensions.

    Attributes:
        corners: float32 (N, 8, 3), one per box of the picture, metres in the camera's axes; see `cuboids`. Of
            what does not count they may be zero.
        camera: float32 (4,): focal lengths and principal point, fx and cx as fractions of the picture's
            width, fy and cy of its height.
    """

    corners: np.ndarray
    camera: np.ndarray


NO_CUBOIDS = Cuboids(np.zeros((0, 8, 3), np.float32), np.ones(4, np.float32))


@dataclass(frozen=True)
class TransferSample:
    """One picture and what goes with it.

    Attributes:
        files: by the user's name of the modality, `rgb` among them.
        label: the name of its class; empty where nothing is classified.
        boxes: none where nothing is detected.
        cuboids: none where nothing is detected in three dimensions.
    """

    files: Mapping[str, Path]
    label: str = ""
    boxes: Boxes = field(default=NO_BOXES, compare=False)
    cuboids: Cuboids = field(default=NO_CUBOIDS, compare=False)


def find_samples(source: Path | Mapping[str, Path], maps: Sequence[str]) -> list[TransferSample]:
    """Pictures with all of the maps, in the order of their names.

    Args:
        source: a folder in one of LAYOUTS, or one per modality.
        maps: modalities that each picture needs besides RGB.

    Raises:
        InputError: no pictures, or one without a map.
    """
    if isinstance(source, Path) and (source / "rgb").is_dir():
        source = {raw: source / raw for raw in ("rgb", *maps)}
    if isinstance(source, Path):
        files = {"rgb": _named(source, PICTURES), **{raw: _beside(source, raw) for raw in maps}}
        where = str(source)
    else:
        missing = [raw for raw in ("rgb", *maps) if raw not in source]
        if missing:
            raise InputError(f"No folder is named for {missing[0]}; named are {', '.join(source)}.")
        files = {raw: _named(source[raw], PICTURES if raw == "rgb" else MAPS) for raw in ("rgb", *maps)}
        where = str(source["rgb"])
    if not files["rgb"]:
        raise InputError(f"{where} holds no pictures. Expected:\n{LAYOUTS}")
    for raw in maps:
        lacking = sorted(files["rgb"].keys() - files[raw].keys())
        if lacking:
            raise InputError(
                f"{where}: {len(lacking):,} of {len(files['rgb']):,} pictures have no {raw}, the first is "
                f"{lacking[0]}. Expected:\n{LAYOUTS}"
            )
    return [TransferSample({raw: files[raw][name] for raw in files}) for name in sorted(files["rgb"])]


def with_labels(samples: Iterable[TransferSample], attribute: str | None) -> list[TransferSample]:
    """The samples with their classes: an attribute from the JSON file beside each, or the folder's name.

    Raises:
        InputError: a file is missing, no JSON object, or lacks the attribute.
    """
    found: list[TransferSample] = []
    for sample in samples:
        path = sample.files["rgb"]
        label = path.parent.name if attribute is None else _attribute(path.with_suffix(".json"), attribute)
        found.append(TransferSample(sample.files, label))
    return found


def _attribute(path: Path, name: str) -> str:
    values = parse_json(decode_text(read_bytes(path, _MAX_ATTRIBUTE_BYTES, str(path)), str(path)), str(path))
    value = values.get(name) if isinstance(values, dict) else None
    if not isinstance(value, str | int):
        raise InputError(f"{path}: has no text or whole number {name!r} to classify.")
    return str(value)


def _named(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of a folder and all below it by their place in it without suffix; side files are left out."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. Expected:\n{LAYOUTS}")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*"), key=lambda path: _rank(path, suffixes)):
        if path.suffix.lower() in suffixes and not _is_side_file(path):
            found.setdefault(str(path.relative_to(folder).with_suffix("")), path)
    return found


def _beside(folder: Path, raw: str) -> dict[str, Path]:
    """Side files `a.{raw}.png` of a folder by the place of their picture."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob(f"*.{raw}.*"), key=lambda path: _rank(path, MAPS)):
        if path.suffix.lower() in MAPS and path.stem.endswith(f".{raw}"):
            found.setdefault(str(path.relative_to(folder).with_suffix("").with_suffix("")), path)
    return found


def _rank(path: Path, suffixes: Sequence[str]) -> tuple[int, str]:
    """Of several files with one name, the suffix that is named first wins."""
    suffix = path.suffix.lower()
    return (suffixes.index(suffix) if suffix in suffixes else len(suffixes), str(path))


def _is_side_file(path: Path) -> bool:
    return Path(path.stem).suffix.removeprefix(".") in RAW_NAMES
