"""The published mixture of maskings (arXiv 2406.09406, appendix on training, and apple/ml-4m)."""

from __future__ import annotations

from collections.abc import Iterable

from ..modalities import Modality
from .masking import Component, Keep

_SYMMETRIC = (0.01, 0.1, 1.0, 10.0)
"""Concentrations of the components that treat all modalities alike: from one at a time to even mixes."""


def mixture_4m21(modalities: Iterable[Modality]) -> tuple[Component, ...]:
    """The seven components that 4M-21 was trained with, for a model with any part of its modalities.

    Four treat all modalities alike, one gives all tokens to pixels, and two (half as often) show whole
    captions or T5 states. A palette is shown whole or not at all.

    Args:
        modalities: rows of the model; pixels of any size play the part of `rgb@224`.
    """
    rows = list(modalities)
    pixels = [row.name for row in rows if row.kind == "pix"]
    palette: dict[str, Keep] = {"color_palette": "binary"}
    alike = [Component(others_in=alpha, others_out=alpha, keep=palette) for alpha in _SYMMETRIC]
    biased = [
        Component(
            weight=0.5,
            inputs={name: 5.0, other: 0.0},
            targets={name: 0.0},
            others_in=0.05,
            others_out=0.5,
            keep={**palette, name: "all"},
        )
        for name, other in (("caption", "t5_caption"), ("t5_caption", "caption"))
        if any(row.name == name for row in rows)
    ]
    from_pixels = Component(inputs=dict.fromkeys(pixels, 1000.0), others_out=0.5, keep=palette)
    return (*alike, *([from_pixels] if pixels else []), *biased)
