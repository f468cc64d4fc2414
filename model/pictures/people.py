"""People as skeletons."""

import numpy as np
from PIL import Image

from .lettering import Lettering
from .overlays import background, without


def draw_people(people: np.ndarray, over: np.ndarray | None, size: int, text: Lettering) -> Image.Image:
    """PERSON (N,) as skeletons."""
    picture = background(over, size)
    return picture if len(people) else without(picture, "nobody", text)
