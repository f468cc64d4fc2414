"""What the values of each modality are: before a tokenizer's `encode`, and after its `decode`.

| modality | `encode` takes | `decoded_values` gives |
|---|---|---|
| rgb | (B, 3, H, W) in -1..1 | (B, 3, H, W) in 0..1 |
| normal | (B, 3, H, W) in -1..1 | (B, 3, H, W) in 0..1 |
| canny_edge, sam_edge | (B, 1, H, W) in -1..1 | (B, 1, H, W) in 0..1 |
| depth | (B, 1, H, W), trimmed mean 0 and deviation 1 | the same: standardised, with no unit |
| semseg | labels (B, H, W), 0 none, k the COCO class k - 1 | labels int64 (B, H, W) |
| sam_instance | (B, 1, 64, 64) of 0 and 1 | probability of the instance (B, 64, 64) |
| clip, dinov2, imagebind | features (B, C, h, w) | features (B, C, h, w) |
| dinov2_global, imagebind_global | (B, C) | (B, C), of which only the direction means anything |
| human_poses | 23 rotation matrices (B, 207) | (B, 207) |
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from ...errors import ModelError


def _unit(decoded: Tensor) -> Tensor:
    return ((decoded + 1) / 2).clamp(0, 1)


def _labels(decoded: Tensor) -> Tensor:
    return decoded.argmax(1)


def _probability(decoded: Tensor) -> Tensor:
    return decoded.sigmoid().squeeze(1)


def _same(decoded: Tensor) -> Tensor:
    return decoded


_FINISH: Mapping[str, Callable[[Tensor], Tensor]] = {
    "rgb": _unit,
    "normal": _unit,
    "canny_edge": _unit,
    "sam_edge": _unit,
    "depth": _same,
    "semseg": _labels,
    "sam_instance": _probability,
    "clip": _same,
    "dinov2": _same,
    "imagebind": _same,
    "dinov2_global": _same,
    "imagebind_global": _same,
    "human_poses": _same,
}


def decoded_values(raw: str, decoded: Tensor) -> Tensor:
    """What a tokenizer's `decode` gave, as values of the modality; the table above says which.

    Args:
        raw: the user's name of the modality.
        decoded: (B, C, *S).

    Raises:
        ModelError: a modality without a tokenizer of values.
    """
    if raw not in _FINISH:
        raise ModelError(f"Modality {raw!r} has no decoded values. Known: {', '.join(_FINISH)}.")
    return _FINISH[raw](decoded)
