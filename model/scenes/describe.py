"""What a scene's files say beside its pixels: caption, boxes, people, metadata, attributes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..body import REST
from ..conversions import picture_statistics
from ..readers.shapes import draw_mask
from ..tokenizers.instances import FRAME
from ..values import INSTANCE
from ..values import PERSON as PERSON_VALUE
from .cast import camera
from .looks import PERSON, SEMSEG_CLASSES
from .people import TO_SCENE, joints
from .render import Rendering
from .scene import Place, Scene, SceneObject, View

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "sphere": ("sphere", "ball"),
    "cube": ("cube", "box"),
    "torus": ("torus", "ring"),
    "fir": ("fir", "fir tree"),
    "large": ("large", "big"),
    "metal": ("metal", "metallic"),
    "spotted": ("spotted", "dotted"),
}
_DOING: dict[str, tuple[str, ...]] = {
    "standing": ("standing", "standing still"),
    "walking": ("walking",),
    "waving": ("waving", "waving a hand"),
    "arms up": ("with arms up", "raising both arms"),
    "arms out": ("with arms spread", "spreading the arms"),
    "bowing": ("bowing", "bending forward"),
}
_UNDER: dict[str, tuple[str, ...]] = {
    "blue sky": ("under a blue sky", "on a clear blue day"),
    "grey sky": ("under a grey sky", "on a grey day"),
    "sunset": ("at sunset", "under a sunset sky"),
    "night sky": ("at night", "under a night sky"),
}
_ON: dict[str, tuple[str, ...]] = {
    "meadow": ("on a meadow", "on green grass"),
    "desert": ("in the desert", "on desert sand"),
    "snow field": ("in the snow", "on a snow field"),
    "square": ("on a paved square", "on a stone pavement"),
    "field": ("on a ploughed field", "on brown earth"),
}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
# Fewer visible pixels than this are no detection, at the 96 px side where a large object covers about 600.
_MIN_SHARE = 10 / 96**2
_WALKABLE = ("ground", "floor", "rug")
_FIRST_OBJECT = SEMSEG_CLASSES.index("rug") + 1


def caption(scene: Scene, rng: np.random.Generator, *, detail: float = 1.0) -> str:
    """Describe a scene in one sentence; the wording and the order of objects are drawn from `rng`.

    Args:
        scene: what to describe.
        rng: source of the wording.
        detail: probability that each object, each of its adjectives and each part of the place is mentioned;
            at least one object always is.
    """
    order = [scene.objects[i] for i in rng.permutation(len(scene.objects))]
    told = [item for item in order if rng.random() < detail] or order[:1]
    things = [_phrase(item, rng, detail) for item in told]
    place = _place(scene.place, rng, detail)
    style = int(rng.integers(4))
    if style == 0 and place:
        return f"{place[0].upper()}{place[1:]}: {_join(things)}."
    if style == 1 and len(told) == len(order) and all(item.kind != PERSON for item in order):
        plural = "s" if len(things) > 1 else ""
        text = f"{_NUMBERS[len(things)]} object{plural} {place}: {_join(things)}."
    elif style == 2 and len(things) > 1:
        text = f"{_beside(told, things)} {place}."
    else:
        text = f"{_join(things)} {place}."
    text = " ".join(text.split()).replace(" .", ".").replace(" :", ":")
    return text[0].upper() + text[1:]


def boxes(scene: Scene, rendering: Rendering) -> list[dict[str, object]]:
    """List visible objects as `{"label", "box": [x0, y0, x1, y1] in 0..1}`, nearest to the top left first."""
    found: list[tuple[float, dict[str, object]]] = []
    for number, item in enumerate(scene.objects, start=1):
        box = box_of(rendering.instances == number)
        if box is not None:
            found.append((box[0] ** 2 + box[1] ** 2, {"label": item.kind, "box": box}))
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]


def box_of(mask: NDArray[np.bool_]) -> list[float] | None:
    """The box of a mask as fractions of the picture; None where too little of it is seen."""
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    if rows.size < _MIN_SHARE * height * width:
        return None
    x0, x1 = columns.min() / width, (columns.max() + 1) / width
    y0, y1 = rows.min() / height, (rows.max() + 1) / height
    return [round(float(v), 4) for v in (x0, y0, x1, y1)]


def cuboids(scene: Scene, view: View) -> NDArray[np.floating]:
    """Corners (N, 8, 3) of the smallest boxes that stand as the objects do and hold the boxes of their parts.

    In scene units in the camera's axes (x right, y down, z forward), in Omni3D's order (arXiv 2207.10660):
    from the first corner, corner 1 lies along the object's x axis, 3 below, 4 along its y axis.
    """
    axes, eye = camera(view)
    to_camera = axes * np.array([[1.0], [-1.0], [1.0]])
    found: list[NDArray[np.floating]] = []
    for item in scene.objects:
        points = np.concatenate([part.corners for part in item.parts]) @ item.turn
        (x0, y0, z0), (x1, y1, z1) = points.min(0), points.max(0)
        box = [(x0, y0, z1), (x1, y0, z1), (x1, y0, z0), (x0, y0, z0)]
        box += [(x, y1, z) for x, _, z in box]
        found.append((np.array(box) @ item.turn.T - eye) @ to_camera.T)
    return np.array(found).reshape(-1, 8, 3)


def people(scene: Scene, instances: NDArray[np.uint8], view: View) -> NDArray[Any]:
    """Give visible people in SMPL's terms, PERSON (N,), rounded to four digits: box, rotations of joints, of
    the body in the camera's frame (x right, y down, z forward), scale and shift of the camera
    (`body.project`), and a neutral shape.

    Args:
        scene: who is there.
        instances: of a rendering of it.
        view: of that rendering.
    """
    found: list[tuple[Any, ...]] = []
    axes, eye = camera(view)
    to_camera = axes * np.array([[1.0], [-1.0], [1.0]])
    for number, item in enumerate(scene.objects, start=1):
        if item.pose is None or (box := box_of(instances == number)) is None:
            continue
        pelvis = item.turn @ joints(item.pose)[0][0] * item.radius + [item.x, item.y, 0]
        seen_by = _estimated_camera(box, to_camera @ (pelvis - eye), item.radius, view.field_of_view)
        rotation = to_camera @ item.turn @ TO_SCENE
        found.append(
            (box, np.round(item.pose.matrices, 4), np.round(rotation, 4), np.round(seen_by, 4), np.zeros(10))
        )
    return np.array(found, PERSON_VALUE)


def _estimated_camera(
    box: list[float], pelvis: NDArray[np.floating], size: float, field_of_view: float
) -> NDArray[np.floating]:
    """Scale and shift of the far camera that sees a person of a size where ours does, the pelvis exactly."""
    zoom = 0.5 / np.tan(field_of_view / 2)  # of the picture's side, at distance 1
    side = max(box[2] - box[0], box[3] - box[1])
    scale = 2 * zoom * size / pelvis[2] / side
    middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    at = 0.5 + zoom * pelvis[:2] / pelvis[2]
    return np.array([scale, *((at - middle) / (side * scale / 2) - REST[0, :2])])


def instances(owner: NDArray[np.uint8]) -> NDArray[Any]:
    """Give what is at one point inside each visible object, INSTANCE (N,): its box and its mask.

    Args:
        owner: `instances` of a rendering.
    """
    found: list[tuple[Any, ...]] = []
    for number in range(1, int(owner.max()) + 1):
        drawn = draw_mask(owner == number)
        if drawn is not None:
            found.append((_inner_point(owner == number), *drawn))
    return np.array(found, INSTANCE)


def _inner_point(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel that is farthest from the border of a mask, x and y in the frame of instances."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), mask.shape)
    scale = FRAME / len(mask)
    return int((x + 0.5) * scale), int((y + 0.5) * scale)


def metadata(scene: Scene, rendering: Rendering, text: str | None = None) -> dict[str, float | int]:
    """Measure an image and its scene under the names of 4M-21's metadata (arXiv 2406.09406).

    Args:
        scene: for what the pixels do not tell.
        rendering: of that scene.
        text: also measure this caption.
    """
    height, width = rendering.semseg.shape
    seen = [item for item, share in zip(scene.objects, rendering.visible, strict=True) if share > 0.05]
    shares = np.bincount(rendering.semseg.ravel(), minlength=len(SEMSEG_CLASSES)) / rendering.semseg.size
    hidden = [1 - share for share in rendering.visible]
    words: dict[str, float | int] = {}
    if text is not None:
        words = {
            "caption_n_chars": len(text),
            "caption_n_words": len(text.split()),
            "caption_n_sentences": 1,
        }
    return {
        "original_width": width,
        "original_height": height,
        **words,
        "n_humans": sum(item.kind == PERSON for item in seen),
        "n_sam_instances": len(seen),
        "n_coco_instances": len(seen),
        "coco_instance_diversity": len({item.kind for item in seen}),
        **picture_statistics(rendering.rgb),
        "walkability": round(float(sum(shares[SEMSEG_CLASSES.index(name)] for name in _WALKABLE)), 4),
        "objectness": round(float(shares[_FIRST_OBJECT:].sum()), 4),
        "semantic_diversity": int((shares > 0.001).sum()),
        "geometric_complexity": round(_geometric_complexity(rendering.normal), 4),
        "occlusion_score": round(float(np.mean(hidden)) if hidden else 0.0, 4),
    }


def attributes(scene: Scene) -> dict[str, object]:
    """Give what a user may filter by."""
    main, place = max(scene.objects, key=lambda item: item.radius), scene.place
    return {
        "num_objects": len(scene.objects),
        "num_people": sum(item.kind == PERSON for item in scene.objects),
        "objects": sorted({item.kind for item in scene.objects}),
        "colors": sorted({item.color for item in scene.objects}),
        "actions": sorted({item.action for item in scene.objects if item.action}),
        "main_object": main.kind,
        "main_color": main.color,
        "setting": place.setting,
        **({"floor": place.ground, "walls": place.wall} if place.is_room else {"sky": place.sky}),
    }


def _word(name: str, rng: np.random.Generator) -> str:
    words = _SYNONYMS.get(name, (name,))
    return words[int(rng.integers(len(words)))]


def _phrase(item: SceneObject, rng: np.random.Generator, detail: float) -> str:
    if item.kind == PERSON:
        text = "a person"
        if rng.random() < detail:
            text += f" in {item.color}" if rng.random() < 0.5 else f" in a {item.color} shirt"
        if rng.random() < detail:
            text += " " + _DOING[item.action][int(rng.integers(len(_DOING[item.action])))]
        return text
    told = [item.size, item.color, item.texture, item.material]
    adjectives = [a for a in told if a not in ("plain", "matte") and rng.random() < detail]
    words = " ".join(_word(name, rng) for name in (*adjectives, item.kind))
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _place(place: Place, rng: np.random.Generator, detail: float) -> str:
    parts: list[str] = []
    if not place.is_room:
        if rng.random() < detail:
            parts.append(_ON[place.setting][int(rng.integers(2))])
        if rng.random() < detail:
            parts.append(_UNDER[place.sky][int(rng.integers(2))])
        return " ".join(parts)
    if rng.random() < detail:
        stripes = "striped " if place.wallpaper and rng.random() < detail else ""
        parts.append(f"{stripes}{place.wall} walls")
    if rng.random() < detail:
        parts.append(f"a {place.ground}" if "carpet" in place.ground else f"a {place.ground} floor")
    return f"in a room with {' and '.join(parts)}" if parts else "in a room"


def _join(things: list[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


def _beside(told: list[SceneObject], things: list[str]) -> str:
    """Say which object is next to the first one; left and right would change with the camera."""
    gaps = [np.hypot(told[0].x - o.x, told[0].y - o.y) for o in told[1:]]
    near = 1 + int(np.argmin(gaps))
    rest = [thing for i, thing in enumerate(things) if i not in (0, near)]
    return f"{things[0]} next to {things[near]}" + (f", with {_join(rest)}," if rest else "")


def _geometric_complexity(normal: NDArray[np.float32]) -> float:
    """Spread of surface directions: one minus the length of the mean normal, over what is no sky."""
    solid = normal[np.abs(normal).sum(-1) > 0]
    return float(1 - np.linalg.norm(solid.mean(0))) if len(solid) else 0.0
