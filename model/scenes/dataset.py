"""Scenes to a folder of ordinary files."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelError
from ..conversions import main_colors, photo_edges
from ..files import depth_png, encode_value
from ..values import Value
from .describe import attributes, boxes, caption, cuboids, instances, metadata, people
from .looks import OBJECTS, PERSON, SEMSEG_CLASSES
from .render import MAX_DEPTH, Rendering, encode_depth, encode_normal, render
from .scene import Scene, Split

MODALITIES = (
    *("rgb", "depth", "normal", "semseg", "canny_edge", "sam_edge", "sam_instance", "human_poses"),
    *("caption", "det", "color_palette", "metadata"),
)
"""What is known of every scene, where there is something of the kind."""

PAIRS = (
    *("caption+color_palette", "caption+depth", "caption+metadata", "caption+det", "color_palette+metadata"),
    *("color_palette+det", "det+metadata", "semseg+color_palette", "normal+color_palette", "rgb+caption"),
    "canny_edge+color_palette",
)
"""Asked together, where the model reads both."""

CAPTION_DETAIL = 0.85
"""Chance that a caption mentions a thing or one of its properties. People leave out what goes without saying;
a caption that says everything would leave nothing for another modality to add."""

_SUFFIXES = {"caption": ".txt"} | dict.fromkeys(
    ("sam_instance", "human_poses", "det", "color_palette", "metadata"), ".json"
)
# Starting a process costs about a second: not worth it for less.
_MIN_PER_WORKER = 50


def known_queries(inputs: Sequence[str]) -> tuple[str, ...]:
    """What scenes can be asked for by, of a model that reads some modalities: each alone, then pairs."""
    singles = [raw for raw in MODALITIES if raw in inputs]
    return (*singles, *(pair for pair in PAIRS if set(pair.split("+")) <= set(singles)))


def scene_file(name: str, modality: str) -> str:
    """What the file of a modality of a scene is called: `0001.png`, `0001.depth.png`, `0001.caption.txt`."""
    return f"{name}{'' if modality == 'rgb' else f'.{modality}'}{_SUFFIXES.get(modality, '.png')}"


@dataclass(frozen=True)
class SceneRecord:
    """A rendering and all that its files say.

    Attributes:
        rendering: with exact maps.
        values: by modality, as `write_value` takes them, but depth in 65535ths of `MAX_DEPTH`; what a scene
            has none of (boxes, people) is not there.
        attributes: what a user may filter by.
    """

    rendering: Rendering
    values: Mapping[str, Value]
    attributes: Mapping[str, object]

    def encoded(self, modalities: Collection[str] = MODALITIES) -> dict[str, bytes]:
        """Contents of its files, by modality."""
        return {raw: _encode(raw, value) for raw, value in self.values.items() if raw in modalities}


def _encode(raw: str, value: Value) -> bytes:
    if raw == "depth":
        assert isinstance(value, np.ndarray)
        return depth_png(value, MAX_DEPTH / 65535)
    suffix, content = encode_value(raw, value, classes=SEMSEG_CLASSES)
    assert suffix == _SUFFIXES.get(raw, ".png")
    return content


def describe_scene(scene: Scene, size: int = 128, rendering: int = 0) -> SceneRecord:
    """Render a scene and gather everything known about the result.

    Args:
        scene: what to render.
        size: pixels along each side.
        rendering: which of the scene's views, see `Scene.view`.
    """
    view = scene.view(rendering)
    image = render(scene, size, view)
    values: dict[str, Value] = {
        "rgb": image.rgb,
        "depth": encode_depth(image.depth),
        "normal": encode_normal(image.normal),
        "semseg": image.semseg + 1,
        "canny_edge": photo_edges(image.rgb),
        "sam_edge": image.edges,
        "sam_instance": instances(image.instances),
        "human_poses": people(scene, image.instances, view),
        "caption": caption(scene, scene.rng(f"words{rendering}"), detail=CAPTION_DETAIL),
        "det": boxes(scene, image),
        "color_palette": main_colors(image.rgb),
        "metadata": metadata(scene, image),
    }
    there = {raw: value for raw, value in values.items() if len(value)}
    return SceneRecord(image, there, attributes(scene))


def write_scenes(
    folder: Path,
    num: int,
    *,
    seed: int = 0,
    size: int = 128,
    rendering: int = 0,
    split: Split = "unseen",
    modalities: Collection[str] = MODALITIES,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Write scenes 0 to num - 1 of a seed as images with side files; return their names ("0001", ...).

    Beside `0001.png` lie `0001.depth.png` (uint16, 65535 = `MAX_DEPTH` or sky), `.normal.png`, `.semseg.png`
    (indices into `SEMSEG_CLASSES`, which its legend names), `.canny_edge.png`, `.sam_edge.png`,
    `.sam_instance.json`, `.human_poses.json`, `.caption.txt`, `.det.json`, `.color_palette.json`,
    `.metadata.json`, and the attributes in `0001.json`. Where nothing is seen of a kind its file is missing.

    Args:
        folder: made if it does not exist; files of the same names are replaced.
        num: how many scenes.
        seed: equal seeds give equal files.
        size: pixels along each side.
        rendering: 0 for the scenes themselves; 1, 2, ... for the same with camera moved and light changed.
        split: leave it at "unseen" for scenes that the shipped model has not been trained on.
        modalities: which to write.
        workers: processes; few scenes are rendered in this one.
        progress: called with the number of finished scenes.

    Raises:
        ModelError: a modality that scenes do not have.
    """
    if unknown := [raw for raw in modalities if raw not in MODALITIES]:
        raise ModelError(f"Scenes have no {unknown[0]!r}. They have {', '.join(MODALITIES)}.")
    folder.mkdir(parents=True, exist_ok=True)
    names = scene_names(num)
    write = partial(_write_one, folder, seed, size, rendering, split, tuple(modalities))
    workers = min(workers, max(1, num // _MIN_PER_WORKER))
    if workers == 1:
        for index, name in enumerate(names):
            write(index, name)
            if progress is not None:
                progress(index + 1)
        return names
    # A forked child of a process with threads (torch, FAISS) may hang: start afresh.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for done, _ in enumerate(pool.map(write, range(num), names, chunksize=20), start=1):
            if progress is not None:
                progress(done)
    return names


def write_cuboids(path: Path, num: int, *, seed: int = 0, size: int = 128, split: Split = "unseen") -> None:
    """Write what `write_scenes` gives as one file of cuboids in Omni3D's format (arXiv 2207.10660).

    Args:
        path: of the file; paths of pictures in it are relative to the scenes' folder.
        num, seed, size, split: as of `write_scenes`.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    numbers = {kind: number for number, kind in enumerate((*OBJECTS, PERSON), start=1)}
    for index, name in enumerate(scene_names(num)):
        scene = Scene.sample(seed, index, split=split)
        view, image = scene.view(), render(scene, size)
        focal, middle = size / 2 / np.tan(view.field_of_view / 2), size / 2
        matrix = [[focal, 0.0, middle], [0.0, focal, middle], [0.0, 0.0, 1.0]]
        sides = {"width": size, "height": size}
        images.append({"id": index, "file_path": scene_file(name, "rgb"), "K": matrix} | sides)
        for number, (item, corners) in enumerate(zip(scene.objects, cuboids(scene, view), strict=True)):
            one = {"id": len(annotations), "image_id": index, "category_id": numbers[item.kind]}
            known = {
                "valid3D": True,
                "behind_camera": bool(corners[:, 2].min() < 0),
                "bbox3D_cam": corners.round(5).tolist(),
                "visibility": round(float(image.visible[number]), 4),
                "segmentation_pts": int((image.instances == number + 1).sum()),
            }
            annotations.append(one | known)
    categories = [{"id": number, "name": kind} for kind, number in numbers.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def scene_names(num: int) -> list[str]:
    """Names of the files of scenes 0 to num - 1, without suffixes."""
    digits = max(4, len(str(num)))
    return [f"{index + 1:0{digits}d}" for index in range(num)]


def _write_one(
    folder: Path,
    seed: int,
    size: int,
    rendering: int,
    split: Split,
    modalities: tuple[str, ...],
    index: int,
    name: str,
) -> None:
    record = describe_scene(Scene.sample(seed, index, split=split), size, rendering)
    for raw, content in record.encoded(modalities).items():
        (folder / scene_file(name, raw)).write_bytes(content)
    (folder / f"{name}.json").write_text(json.dumps(record.attributes) + "\n", encoding="utf-8")
