"""People as skeletons."""

import numpy as np
from PIL import Image

from .overlays import background


def draw_people(people: np.ndarray, over: np.ndarray | None, size: int) -> Image.Image:
    """PERSON (N,) as skeletons."""
    assert people.ndim == 1
    return background(over, size)
