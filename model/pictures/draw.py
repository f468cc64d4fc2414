"""One value as a picture for people."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ...errors import InputError
from ..checks import check_value
from ..modalities import raw_name
from ..values import Predicted, Value
from .lettering import Lettering
from .maps import draw_classes, draw_depth, draw_pixels, stacked
from .overlays import draw_boxes, draw_instances
from .people import draw_people
from .tables import draw_note, draw_palette, draw_problem, draw_statistics, draw_text
from .vectors import draw_features, draw_states, draw_vector

MIN_SIZE, MAX_SIZE = 32, 2048


def draw_value(
    modality: str,
    value: Value | Predicted,
    *,
    over: np.ndarray | None = None,
    classes: Sequence[str] = (),
    size: int = 256,
) -> Image.Image:
    """Draw a value of any modality.

    Maps stretch to the width and carry a scale or a legend below; boxes, instances and people lie over the
    photo; features show their three principal components as colours; a vector shows a bar for each number.

    Args:
        modality: the user's name of it, or a word for it.
        value: as `values.py` lists it; sequences as they are predicted. A `Predicted` without a value becomes
            a plain square with the reason, one with a problem carries it below.
        over: the photo uint8 (S, S, 3) that boxes, instances and people belong to; it also tells how much of
            it each colour of a palette covers.
        classes: names of the classes of a segmentation.
        size: width in pixels, 32..2048; most pictures are as tall.

    Returns:
        An `RGB` picture, `size` wide.

    Raises:
        ModelError: unknown modality.
        InputError: a value of another type or shape, or a size out of range.
    """
    raw = raw_name(modality)
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"size must be {MIN_SIZE}..{MAX_SIZE} pixels, got {size}.")
    text = Lettering(max(11, size // 20))
    shown, problem = (value.value, value.problem) if isinstance(value, Predicted) else (value, None)
    if shown is None:
        return draw_problem(problem or f"There is no {raw}.", size, text)
    over = None if over is None else check_value("rgb", over)
    picture = _draw(raw, check_value(raw, shown), over, classes, size, text)
    return stacked(picture, draw_note(problem, size, text)) if problem else picture


def _draw(
    raw: str, value: Any, over: np.ndarray | None, classes: Sequence[str], size: int, text: Lettering
) -> Image.Image:
    match raw:
        case "depth":
            return draw_depth(value, size, text)
        case "semseg":
            return draw_classes(value, size, text, classes)
        case "det":
            return draw_boxes(value, over, size, text)
        case "sam_instance":
            return draw_instances(value, over, size, text)
        case "human_poses":
            return draw_people(value, over, size, text)
        case "clip" | "dinov2" | "imagebind":
            return draw_features(value, size)
        case "dinov2_global" | "imagebind_global":
            return draw_vector(value, size)
        case "t5_caption":
            return draw_states(value, size, text)
        case "color_palette":
            return draw_palette(value, over, size, text)
        case "metadata":
            return draw_statistics(value, size, text)
        case "caption":
            return draw_text(value, size, text)
        case _:  # rgb, normal, canny_edge, sam_edge
            return draw_pixels(value, size)
