"""What a value of each modality is, between files and tokens: what `read` gives, `predict` gives back, and
writers and pictures take.

| modality | value |
|---|---|
| rgb | uint8 (S, S, 3) |
| depth | float32 (S, S), standardised (trimmed mean 0, deviation 1), larger is farther; it has no unit |
| normal | uint8 (S, S, 3), a component n in -1..1 as 255 (n + 1) / 2 |
| semseg | uint8 (S, S), 0 nothing, k the class `classes[k - 1]` of the model |
| canny_edge, sam_edge | uint8 (S, S), 255 on an edge |
| clip, dinov2, imagebind | float32 (C, h, w) |
| dinov2_global, imagebind_global | float32 (C,), of which only the direction means anything |
| t5_caption | float32 (L, 4096) |
| human_poses | PERSON (N,) |
| sam_instance | INSTANCE (N,) |
| caption | read: token ids int32 (L,); predicted: str |
| det | read: token ids; predicted: list of `{"box": [x0, y0, x1, y1] in 0..1, "label": str}` |
| metadata | read: token ids; predicted: `{name: number}` |
| color_palette | read: token ids; predicted: list of `"#rrggbb"` |

S is the side of the square that the model sees: the central one of the picture. Boxes of people are fractions
of it, points and boxes of instances pixels of a 224 x 224 frame over it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MASK_SIDE = 64
"""Side of the square that the mask in an instance's box is stretched to."""

PERSON = np.dtype(
    [
        ("box", np.float32, 4),  # x0, y0, x1, y1 in 0..1
        ("pose", np.float32, (23, 3, 3)),  # rotation of each SMPL joint against its parent
        ("rotation", np.float32, (3, 3)),  # of the body
        ("camera", np.float32, 3),  # scale-translation of the pose estimator, each in -1..19
        ("shape", np.float32, 10),  # SMPL betas, each in -3..3
    ]
)
"""One person (SMPL, as 4D-Humans estimates it; arXiv 2406.09406)."""

INSTANCE = np.dtype(
    [
        ("point", np.int16, 2),  # x, y that was asked, in the frame
        ("box", np.int16, 4),  # x0, y0, x1, y1 in the frame
        ("mask", np.uint8, (MASK_SIDE, MASK_SIDE)),  # 0 or 1 inside the box, stretched to a square
    ]
)
"""One instance at one point. Where a point has none, box and mask are 0."""

Value = np.ndarray | str | Sequence[Any] | Mapping[str, Any]
"""A value as in the table above."""


@dataclass(frozen=True)
class Predicted:
    """A predicted modality.

    Attributes:
        modality: the user's name for it.
        value: as in the table above; what could be read of a sequence, None where nothing could.
        tokens: ids int64 that were generated: of a grid (rows, columns), of a vector (16,), of a text (L,).
        problem: what is wrong with a generated text, or None.
    """

    modality: str
    value: Value | None
    tokens: np.ndarray
    problem: str | None = None
