"""How well a tokenizer keeps the values that go through it, in numbers and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..body import DEFAULT_CAMERA, FACING_CAMERA, nearest_rotations
from ..pictures import draw_value
from ..tasks.depth import depth_errors
from ..tasks.normals import AngularError, unit_normals
from ..tasks.segmentation import ClassOverlap
from ..tokenizers.build import ImageTokenizer
from ..tokenizers.values import decoded_values
from ..values import PERSON
from .value_arrays import prepared

BATCH = 16
_NEAREST = 0.1  # of the farthest depth: where the nearest is put, as standardised depth has no zero
_GAP = 8

SCORES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        **dict.fromkeys(("rgb", "normal", "canny_edge", "sam_edge"), ("l1", -1)),
        **dict.fromkeys(("clip", "dinov2", "imagebind", "dinov2_global", "imagebind_global"), ("cosine", 1)),
        "depth": ("abs_rel", -1),
        "semseg": ("mean_iou", 1),
        "sam_instance": ("iou", 1),
        "human_poses": ("degrees", -1),
    }
)
"""By modality, the figure that the best of several tokenizers is chosen by, -1 where less is better."""


def judge(
    tokenizer: ImageTokenizer,
    raw: str,
    values: NDArray[Any],
    *,
    decoding_steps: int | None = None,
) -> tuple[dict[str, float], NDArray[Any]]:
    """Measure a tokenizer on values that it was not trained on.

    Args:
        tokenizer: of the modality.
        raw: the user's name of it.
        values: (N, ...) of a `ValueArray`.
        decoding_steps: of a diffusion decoder; its own default where None.

    Returns:
        Figures, and the values rebuilt, like `values`. Of all: `codes_used`, the share of codes that occur;
        `perplexity` of the codes, the mean over codebooks; `score`, larger for a better tokenizer. Pictures:
        `l1` on 0..1 and `psnr` in dB; normals also `mean_degrees`; depth `l1`, `abs_rel` and `delta1`, with
        depths scaled so that the nearest lies at a tenth of the farthest; segmentations `mean_iou` and
        `pixel_accuracy`; instances `iou`; features and vectors `cosine`, features also `l1`; poses `degrees`
        between rotations and `l1`.
    """
    device = tokenizer.codebook().device
    ids: list[Tensor] = []
    rebuilt: list[NDArray[Any]] = []
    for start in range(0, len(values), BATCH):
        part = prepared(raw, values[start : start + BATCH]).to(device)
        ids.append(tokenizer.encode(part))
        seeds = range(start, start + len(part))
        decoded = tokenizer.decode(ids[-1], seed=seeds, num_steps=decoding_steps)
        rebuilt.append(_finished(raw, decoded_values(raw, decoded)))
    result = np.concatenate(rebuilt)
    figures = _measure(raw, result, np.asarray(values))
    name, sign = SCORES[raw]
    use = code_use(torch.cat(ids), tokenizer.config.num_codebooks, tokenizer.config.codebook_size)
    return {**figures, **use, "score": sign * figures[name]}, result


def code_use(ids: Tensor, num_codebooks: int, codebook_size: int) -> dict[str, float]:
    """Share of all codes that occur among ids (N, ...) or (N, heads, ...), and their perplexity."""
    heads = ids.cpu().reshape(1, -1) if num_codebooks == 1 else ids.cpu().movedim(1, 0).flatten(1)
    counts = torch.stack([torch.bincount(head, minlength=codebook_size) for head in heads]).double()
    share = counts / counts.sum(1, keepdim=True)
    entropy = -(share * share.clamp(min=1e-12).log()).sum(1)
    return {"codes_used": float((counts > 0).double().mean()), "perplexity": float(entropy.exp().mean())}


def draw_reconstructions(
    raw: str,
    values: NDArray[Any],
    rebuilt: NDArray[Any],
    *,
    classes: Sequence[str] = (),
    size: int = 160,
    columns: int = 4,
) -> Image.Image:
    """Values, and right of each what came back of it, as one picture."""
    cells = [
        _beside(_drawn(raw, before, classes, size), _drawn(raw, after, classes, size))
        for before, after in zip(values, rebuilt, strict=True)
    ]
    lines = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in line) for line in lines]
    width = columns * (cells[0].width + 2 * _GAP)
    sheet = Image.new("RGB", (width, sum(height + 2 * _GAP for height in heights)), "white")
    top = _GAP
    for line, height in zip(lines, heights, strict=True):
        for i, cell in enumerate(line):
            sheet.paste(cell, (_GAP + i * (cell.width + 2 * _GAP), top))
        top += height + 2 * _GAP
    return sheet


def _finished(raw: str, decoded: Tensor) -> NDArray[Any]:
    """Decoded values as those of a `ValueArray`."""
    values = decoded.float().cpu()
    match raw:
        case "rgb" | "normal":
            return _bytes(values).permute(0, 2, 3, 1).numpy()
        case "canny_edge" | "sam_edge":
            return _bytes(values)[:, 0].numpy()
        case "depth":
            return values[:, 0].numpy()
        case "semseg":
            return values.byte().numpy()
        case "sam_instance":
            return (values >= 0.5).byte().numpy()
        case "human_poses":
            return nearest_rotations(values.reshape(-1, 23, 3, 3).numpy()).astype(np.float32)
        case _:
            return values.numpy()


def _bytes(values: Tensor) -> Tensor:
    return (values * 255).round().byte()


def _measure(raw: str, rebuilt: NDArray[Any], values: NDArray[Any]) -> dict[str, float]:
    match raw:
        case "rgb" | "canny_edge" | "sam_edge":
            return _pixel_errors(rebuilt, values)
        case "normal":
            return _pixel_errors(rebuilt, values) | _angles(rebuilt, values)
        case "depth":
            found = [_depth_errors(*pair) for pair in zip(rebuilt, values, strict=True)]
            return {name: float(np.mean([one[name] for one in found])) for name in found[0]}
        case "semseg":
            overlap = ClassOverlap(int(max(values.max(), rebuilt.max(), 1)))
            overlap.add(rebuilt, values)
            return overlap.metrics()
        case "sam_instance":
            both, either = (rebuilt & values).sum((1, 2)), (rebuilt | values).sum((1, 2))
            return {"iou": float((both / np.maximum(either, 1)).mean())}
        case "human_poses":
            return _turns(rebuilt, values)
        case _:
            return _directions(rebuilt, values.astype(np.float32))


def _pixel_errors(rebuilt: NDArray[Any], values: NDArray[Any]) -> dict[str, float]:
    error = (rebuilt.astype(np.float32) - values) / 255
    squares = np.square(error).reshape(len(error), -1).mean(1)
    return {
        "l1": float(np.abs(error).mean()),
        "psnr": float((-10 * np.log10(np.maximum(squares, 1e-10))).mean()),
    }


def _angles(rebuilt: NDArray[Any], values: NDArray[Any]) -> dict[str, float]:
    angles, truth = AngularError(), unit_normals(values)
    angles.add(unit_normals(rebuilt), truth, np.abs(truth).max(-1) > 0)
    return {"mean_degrees": angles.metrics()["mean_degrees"]}


def _depth_errors(rebuilt: NDArray[Any], values: NDArray[Any]) -> dict[str, float]:
    truth = values.astype(np.float64)
    low, high = truth.min(), truth.max()
    positive = _NEAREST + (1 - _NEAREST) * (truth - low) / max(high - low, 1e-6)
    return depth_errors(rebuilt.astype(np.float64), positive, np.ones(truth.shape, bool))


def _turns(rebuilt: NDArray[Any], values: NDArray[Any]) -> dict[str, float]:
    """Angle of the rotation that is left between two."""
    trace = np.einsum("...ij,...ij->...", rebuilt, values)
    degrees = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    return {"degrees": float(degrees.mean()), "l1": float(np.abs(rebuilt - values).mean())}


def _directions(rebuilt: NDArray[Any], values: NDArray[Any]) -> dict[str, float]:
    products = (rebuilt * values).sum(1)
    lengths = np.linalg.norm(rebuilt, axis=1) * np.linalg.norm(values, axis=1)
    figures = {"cosine": float((products / np.maximum(lengths, 1e-12)).mean())}
    # Of a single vector only the direction means anything.
    return figures if values.ndim == 2 else figures | {"l1": float(np.abs(rebuilt - values).mean())}


def _drawn(raw: str, value: NDArray[Any], classes: Sequence[str], size: int) -> Image.Image:
    draw: Mapping[str, Callable[[], Image.Image]] = {
        "human_poses": lambda: draw_value("human_poses", _person(value), size=size),
        "sam_instance": lambda: draw_value("sam_edge", value * np.uint8(255), size=size),
        "semseg": lambda: draw_value(raw, value, classes=classes, size=size),
    }
    if raw in draw:
        return draw[raw]()
    return draw_value(raw, value.astype(np.float32) if value.dtype == np.float16 else value, size=size)


def _person(pose: NDArray[Any]) -> NDArray[Any]:
    """Somebody of average shape in this pose, looking at us."""
    person = np.zeros(1, PERSON)
    person["box"], person["pose"] = (0.1, 0.1, 0.9, 0.9), pose
    person["rotation"], person["camera"] = FACING_CAMERA, DEFAULT_CAMERA
    return person


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    pair = Image.new("RGB", (left.width + right.width + 2, max(left.height, right.height)), "white")
    pair.paste(left, (0, 0))
    pair.paste(right, (left.width + 2, 0))
    return pair
