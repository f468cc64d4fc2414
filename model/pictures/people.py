"""People as skeletons, their left in one colour and their right in another."""

import numpy as np
from PIL import Image, ImageDraw

from ..body import JOINTS, PARENTS, find_joints
from ..classes import class_colors
from .lettering import INK, Lettering
from .overlays import background, without

_LEFT, _RIGHT, _MIDDLE = (64, 156, 255), (255, 140, 40), (245, 245, 245)
_HEAD, _NECK = JOINTS.index("head"), JOINTS.index("neck")
_REACH = 5.0  # sides of the picture; a camera may place joints anywhere
_MAX_BOXES = 64


def draw_people(people: np.ndarray, over: np.ndarray | None, size: int, text: Lettering) -> Image.Image:
    """PERSON (N,) over the photo or on grey: bones, heads, and a thin box around each.

    The skeleton has the proportions of an average adult (`find_joints`).
    """
    picture = background(over, size)
    if not len(people):
        return without(picture, "nobody", text)
    draw = ImageDraw.Draw(picture)
    colors = class_colors(_MAX_BOXES)
    joints = np.clip(np.nan_to_num(find_joints(people)), -_REACH, 1 + _REACH) * size
    boxes = np.clip(people["box"], 0, 1) * (size - 1)
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        corners = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        draw.rectangle(corners, None, tuple(colors[i % _MAX_BOXES].tolist()))
    for places in joints:
        _draw_skeleton(draw, places, max(2, round(size / 64)))
    return picture


def _draw_skeleton(draw: ImageDraw.ImageDraw, places: np.ndarray, width: int) -> None:
    """Bones and head of joints (24, 2), edged in dark, so that they show on any photo."""
    points = [(float(x), float(y)) for x, y in places]
    bones = [(joint, parent) for joint, parent in enumerate(PARENTS) if parent >= 0]
    for joint, parent in bones:
        draw.line((points[joint], points[parent]), INK, width + 2)
    for joint, parent in bones:
        draw.line((points[joint], points[parent]), _color(joint), width)
    for joint, (x, y) in enumerate(points):
        radius = 0.45 * width + 1
        if joint == _HEAD:
            radius = max(1.5 * radius, float(np.linalg.norm(places[_HEAD] - places[_NECK])))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), _color(joint), INK)


def _color(joint: int) -> tuple[int, int, int]:
    name = JOINTS[joint]
    return _LEFT if name.startswith("left") else _RIGHT if name.startswith("right") else _MIDDLE
