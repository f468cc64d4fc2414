"""Values to ordinary files: formats that other people's tools open and that our readers read back.

| modality | file | how |
|---|---|---|
| rgb, normal | `.png` | 8-bit RGB, as the value is |
| depth | `.png` | 16-bit grey over the value's own range; depth = offset + scale * pixel, see below |
| semseg | `.png` | 8-bit palette in the classes' colours; pixel k is class k, 255 nothing, as published |
| canny_edge, sam_edge | `.png` | 8-bit grey |
| caption | `.txt` | UTF-8 |
| det, metadata, color_palette | `.json` | as the value is |
| human_poses | `.json` | a list of people, with the names of SMPL's parameters |
| sam_instance | `.json` | COCO instances in a 224 x 224 frame; `mask` is exact, in its `box` |
| clip, dinov2, imagebind, dinov2_global, imagebind_global, t5_caption | `.npy` | float32 |

PNG text chunks carry what pixels cannot: `anyseek:modality`, `anyseek:scale` and `anyseek:offset` of depth,
`anyseek:classes` of a segmentation, the JSON object {"pixel": "name of its class"} of classes that occur.
"""

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError
from .checks import check_value
from .classes import id_colors
from .modalities import raw_name
from .readers.pictures import CLASSES_KEY, MODALITY_KEY
from .readers.rle import encode_rle
from .tokenizers.instances import FRAME
from .tokenizers.sequences import Box
from .values import Value

SCALE_KEY, OFFSET_KEY = "anyseek:scale", "anyseek:offset"
"""PNG text chunks: depth = offset + scale * pixel."""

_MAX_DEPTH = 65535
_NOTHING = 255  # pixel of a segmentation; label 0 of the value


def write_value(modality: str, value: Value, stem: Path, *, classes: Sequence[str] = ()) -> Path:
    """Write a value beside others of the same item: `photo` gives `photo.depth.png`, as indexing reads it.

    A file of that name is replaced in one step; nobody sees half of it.

    Args:
        modality: the user's name of it, or a word for it.
        value: as `values.py` lists it; sequences as they are predicted.
        stem: folder and name without suffixes. The folder must exist.
        classes: names of the classes of a segmentation, by which its file then names them.

    Returns:
        The file.

    Raises:
        ModelError: unknown modality.
        InputError: a value of another type or shape; a folder that is missing or cannot be written (code
            `output.failed`).
    """
    suffix, content = encode_value(modality, value, classes=classes)
    path = stem.with_name(f"{stem.name}.{raw_name(modality)}{suffix}")
    replace_file(path, content)
    return path


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing. Raises InputError (code `output.failed`)."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _not_written(path, error) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step, in place of one that is there.

    Raises:
        InputError: its folder is missing or cannot be written (code `output.failed`).
    """
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise _not_written(path, error) from error


def _not_written(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(
        f"{path}: cannot be written ({reason}); name an existing folder that you may write to.",
        code="output.failed",
    )


def encode_value(modality: str, value: Value, *, classes: Sequence[str] = ()) -> tuple[str, bytes]:
    """Give the suffix (`.png`) and the content of the file that `write_value` would write.

    Raises:
        ModelError: unknown modality.
        InputError: a value of another type or shape, or a label beyond `classes`.
    """
    raw = raw_name(modality)
    checked = check_value(raw, value)
    if raw == "semseg":
        return ".png", _semseg_png(checked, classes)
    if raw in ("rgb", "normal", "canny_edge", "sam_edge"):
        return ".png", _png(Image.fromarray(np.ascontiguousarray(checked)), raw)
    suffix, encode = _ENCODE.get(raw, (".npy", _npy))
    return suffix, encode(checked)


def _png(image: Image.Image, raw: str, notes: Mapping[str, str] | None = None) -> bytes:
    info = PngInfo()
    for key, text in {MODALITY_KEY: raw, **(notes or {})}.items():
        info.add_text(key, text)
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=info)
    return file.getvalue()


def depth_png(levels: np.ndarray, scale: float, offset: float = 0.0) -> bytes:
    """A depth map uint16 (H, W) as a file that says what its pixels mean: depth = offset + scale * pixel."""
    return _png(Image.fromarray(levels), "depth", {SCALE_KEY: repr(scale), OFFSET_KEY: repr(offset)})


def _depth_png(depth: np.ndarray) -> bytes:
    offset = float(depth.min())
    scale = (float(depth.max()) - offset) / _MAX_DEPTH
    levels = np.round((depth.astype(np.float64) - offset) / (scale or 1)).astype(np.uint16)
    return depth_png(levels, scale, offset)


def _semseg_png(labels: np.ndarray, classes: Sequence[str]) -> bytes:
    pixels = labels - np.uint8(1)  # 0, nothing, wraps to 255
    used = np.unique(pixels[pixels != _NOTHING]).tolist()
    if classes and used and used[-1] >= len(classes):
        raise InputError(f"semseg: holds label {used[-1] + 1}, but there are only {len(classes)} classes.")
    image = Image.fromarray(pixels)
    image.putpalette(id_colors().tobytes())
    legend = {str(i): classes[i] for i in used} if classes else None
    return _png(image, "semseg", {CLASSES_KEY: json.dumps(legend)} if legend else None)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return file.getvalue()


def _json(value: object) -> bytes:
    """Indented JSON with each list of numbers on one line."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    flat = re.sub(r"\[\n\s*([-+.,\deE\s]+?)\n\s*\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    return f"{flat}\n".encode()


def _boxes(boxes: Sequence[Box]) -> object:
    return [{"box": [float(f"{u:.6g}") for u in box[:4]], "label": box.label} for box in boxes]


def _palette(colors: Sequence[tuple[int, int, int]]) -> object:
    return ["#{:02x}{:02x}{:02x}".format(*color) for color in colors]


_SMPL_NAMES = {"pose": "body_pose", "rotation": "global_orient", "shape": "betas"}


def _people(people: np.ndarray) -> object:
    assert people.dtype.names is not None
    return [
        {_SMPL_NAMES.get(name, name): _numbers(person[name]) for name in people.dtype.names}
        for person in people
    ]


def _numbers(array: np.ndarray) -> Any:
    """Nested lists of numbers with as many digits as float32 has."""
    if array.ndim:
        return [_numbers(inner) for inner in array]
    return float(str(array))


def _instances(instances: np.ndarray) -> object:
    """COCO's layout, and beside it what only our readers need; points without an instance have no place."""
    found = [one for one in instances if one["mask"].any()]
    return {
        "images": [{"id": 1, "width": FRAME, "height": FRAME}],
        "categories": [{"id": 1, "name": "instance"}],
        "annotations": [{"id": i, **_instance(one)} for i, one in enumerate(found, start=1)],
    }


def _instance(one: np.void) -> dict[str, Any]:
    x0, y0, x1, y1 = one["box"].tolist()
    scale = np.array([x1 - x0, y1 - y0]) / len(one["mask"])
    outlines, _ = cv2.findContours(one["mask"], cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return {
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": round(float(one["mask"].sum() * scale.prod()), 2),
        "segmentation": [_polygon(outline[:, 0], scale, (x0, y0)) for outline in outlines],
        "point": one["point"].tolist(),
        "box": [x0, y0, x1, y1],
        "mask": encode_rle(one["mask"]),
    }


def _polygon(outline: np.ndarray, scale: np.ndarray, corner: tuple[int, int]) -> list[float]:
    """Pixels (N, 2) of a mask as x, y, x, y, ... in the frame; at least three, as COCO's tools want."""
    outline = np.concatenate([outline, *[outline[-1:]] * max(0, 3 - len(outline))])
    return np.round((outline + 0.5) * scale + corner, 3).ravel().tolist()


_ENCODE: Mapping[str, tuple[str, Callable[[Any], bytes]]] = {
    "depth": (".png", _depth_png),
    "caption": (".txt", str.encode),
    "det": (".json", lambda boxes: _json(_boxes(boxes))),
    "metadata": (".json", _json),
    "color_palette": (".json", lambda colors: _json(_palette(colors))),
    "human_poses": (".json", lambda people: _json(_people(people))),
    "sam_instance": (".json", lambda instances: _json(_instances(instances))),
}
