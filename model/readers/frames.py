"""Where the 224 x 224 frame of points, boxes and polygons lies in a picture: over its central square."""

from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ..tokenizers.instances import FRAME
from .coco import SLACK


@dataclass(frozen=True)
class Frame:
    """The frame over a picture of that size in pixels; over 224 x 224, coordinates stay as they are."""

    width: float = FRAME
    height: float = FRAME

    def place(self, points: np.ndarray, name: str) -> np.ndarray:
        """Move points (P, 2) of the picture into the frame: float64, beyond 0..224 outside the square.

        Raises InputError for points outside the picture.
        """
        outside = (points < -SLACK) | (points > np.array([self.width, self.height]) + SLACK)
        if outside.any():
            x, y = points[outside.any(1)][0]
            raise InputError(
                f"{name}: ({x:g}, {y:g}) lies outside the picture of {self.width:g} x {self.height:g} pixels."
            )
        side = min(self.width, self.height)
        corner = round((self.width - side) / 2), round((self.height - side) / 2)
        return (points - corner) * (FRAME / side)


def clip_polygon(points: np.ndarray) -> np.ndarray:
    """The part of a polygon (P, 2) inside the frame; may be empty (Sutherland and Hodgman, 1974)."""
    for axis, sign, bound in ((0, 1, 0), (0, -1, FRAME), (1, 1, 0), (1, -1, FRAME)):
        depth = sign * (points[:, axis] - bound)
        if (depth >= 0).all():
            continue
        following, next_depth = np.roll(points, -1, axis=0), np.roll(depth, -1)
        crosses = (depth >= 0) != (next_depth >= 0)
        share = depth / np.where(crosses, depth - next_depth, 1)
        crossing = points + (following - points) * share[:, None]
        both = np.stack([points, crossing], axis=1).reshape(-1, 2)  # each point, then where its edge crosses
        points = both[np.stack([depth >= 0, crosses], axis=1).reshape(-1)]
    return points
