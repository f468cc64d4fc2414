"""What a scene's files say beside its pixels: caption, boxes, metadata, attributes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..conversions import picture_statistics
from .render import Rendering
from .scene import SEMSEG_CLASSES, Scene, SceneObject

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "sphere": ("sphere", "ball"),
    "cube": ("cube", "box"),
    "torus": ("torus", "ring"),
    "large": ("large", "big"),
    "metal": ("metal", "metallic"),
}
_UNDER: dict[str, tuple[str, ...]] = {
    "blue sky": ("under a blue sky", "on a clear blue day"),
    "grey sky": ("under a grey sky", "on a grey day"),
    "sunset": ("at sunset", "under a sunset sky"),
    "night sky": ("at night", "under a night sky"),
    "green sky": ("under a green sky",),
}
_NUMBERS = ("no", "one", "two", "three", "four", "five")
# Fewer visible pixels than this are no detection, at the 96 px side where a large object covers about 600.
_MIN_SHARE = 10 / 96**2


def caption(scene: Scene, rng: np.random.Generator, *, detail: float = 1.0) -> str:
    """Describe a scene in one sentence; the wording and the order of objects are drawn from `rng`.

    Args:
        scene: what to describe.
        rng: source of the wording.
        detail: probability that each object, each of its adjectives and each of ground and sky is mentioned;
            at least one object always is.
    """
    order = [scene.objects[i] for i in rng.permutation(len(scene.objects))]
    told = [item for item in order if rng.random() < detail] or order[:1]
    things = [_phrase(item, rng, detail) for item in told]
    place = _place(scene, rng, detail)
    style = int(rng.integers(4))
    if style == 0 and place:
        return f"{place[0].upper()}{place[1:]}: {_join(things)}."
    if style == 1 and len(told) == len(order):
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
    height, width = rendering.instances.shape
    for number, item in enumerate(scene.objects, start=1):
        rows, columns = np.nonzero(rendering.instances == number)
        if rows.size < _MIN_SHARE * height * width:
            continue
        x0, x1 = columns.min() / width, (columns.max() + 1) / width
        y0, y1 = rows.min() / height, (rows.max() + 1) / height
        box = [round(float(v), 4) for v in (x0, y0, x1, y1)]
        found.append((float(x0 * x0 + y0 * y0), {"label": item.shape, "box": box}))
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]


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
        "n_humans": 0,
        "n_sam_instances": len(seen),
        "n_coco_instances": len(seen),
        "coco_instance_diversity": len({item.shape for item in seen}),
        **picture_statistics(rendering.rgb),
        "walkability": round(float(shares[1]), 4),
        "objectness": round(float(shares[2:].sum()), 4),
        "semantic_diversity": int((shares > 0.001).sum()),
        "geometric_complexity": round(_geometric_complexity(rendering.normal), 4),
        "occlusion_score": round(float(np.mean(hidden)) if hidden else 0.0, 4),
    }


def attributes(scene: Scene) -> dict[str, object]:
    """Give what a user may filter by."""
    main = max(scene.objects, key=lambda item: item.radius)
    return {
        "num_objects": len(scene.objects),
        "shapes": sorted({item.shape for item in scene.objects}),
        "colors": sorted({item.color for item in scene.objects}),
        "materials": sorted({item.material for item in scene.objects}),
        "main_shape": main.shape,
        "main_color": main.color,
        "ground": scene.ground,
        "pattern": scene.pattern,
        "sky": scene.sky,
    }


def _word(name: str, rng: np.random.Generator) -> str:
    words = _SYNONYMS.get(name, (name,))
    return words[int(rng.integers(len(words)))]


def _phrase(item: SceneObject, rng: np.random.Generator, detail: float) -> str:
    adjectives = [a for a in (item.size, item.color, item.material) if rng.random() < detail]
    words = " ".join(_word(name, rng) for name in (*adjectives, item.shape))
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _place(scene: Scene, rng: np.random.Generator, detail: float) -> str:
    parts: list[str] = []
    if rng.random() < detail:
        ground = ("floor", "ground")[int(rng.integers(2))]
        parts.append(f"on a {scene.pattern} {scene.ground} {ground}")
    if rng.random() < detail:
        ways = _UNDER[scene.sky]
        parts.append(ways[int(rng.integers(len(ways)))])
    return " ".join(parts)


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
