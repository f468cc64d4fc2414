"""The tasks by name, and how one is opened on a folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ...errors import InputError, QueryError
from . import coco_instances, coco_semseg, diode, folders, imagenet, threedpw
from .task import Task


@dataclass(frozen=True)
class Setup:
    """What a task needs of the model.

    Attributes:
        size: side in pixels of the square that it sees.
        classes: names of its labels 1, 2, ...
        read: reads a file of a modality to the model's value of it.
        joints: of a predicted person; None without a body model.
    """

    size: int
    classes: Sequence[str]
    read: Callable[[str, Path], np.ndarray]
    joints: threedpw.Joints | None = None


@dataclass(frozen=True)
class TaskSource:
    """One task.

    Attributes:
        target: the modality that is predicted.
        metric: the one of the paper's Table 1, as far as it says, by its name in the report.
        layouts: of its folders.
        open: opens it on a folder.
    """

    target: str
    metric: str
    layouts: tuple[str, ...]
    open: Callable[[Path, Setup], Task[Any]]


def _own(modality: str) -> str:
    return folders.LAYOUT.format(modality=modality)


def _is_own(folder: Path) -> bool:
    return (folder / "rgb").is_dir()


def _depth(folder: Path, setup: Setup) -> Task[Any]:
    if _is_own(folder):
        return folders.FolderDepth(folder, setup.size)
    return diode.DiodeDepth(folder, setup.size)


def _normals(folder: Path, setup: Setup) -> Task[Any]:
    if _is_own(folder):
        return folders.FolderNormals(folder, setup.size, lambda path: setup.read("normal", path))
    return diode.DiodeNormals(folder, setup.size)


def _semseg(folder: Path, setup: Setup) -> Task[Any]:
    if _is_own(folder):
        num_classes = len(setup.classes)
        return folders.FolderSemseg(folder, setup.size, num_classes, lambda path: setup.read("semseg", path))
    return coco_semseg.CocoSemseg(folder, setup.size, setup.classes)


def _poses(folder: Path, setup: Setup) -> Task[Any]:
    if setup.joints is None:
        raise QueryError("3-D joints come from a body model: name your SMPL file (--smpl).")
    return threedpw.PeopleInTheWild(folder, setup.size, setup.joints)


TASKS: Mapping[str, TaskSource] = MappingProxyType(
    {
        "normal": TaskSource("normal", "mean_degrees", (diode.LAYOUT, _own("normal")), _normals),
        "depth": TaskSource("depth", "l1", (diode.LAYOUT, _own("depth")), _depth),
        "semseg": TaskSource("semseg", "mean_iou", (coco_semseg.LAYOUT, _own("semseg")), _semseg),
        "instances": TaskSource(
            "sam_instance",
            "mean_iou",
            (coco_instances.LAYOUT,),
            lambda folder, setup: coco_instances.CocoInstances(folder, setup.size),
        ),
        "knn": TaskSource(
            "dinov2_global",
            "top1",
            (imagenet.LAYOUT,),
            lambda folder, setup: imagenet.ImageNetNeighbors(folder, setup.size),
        ),
        "poses": TaskSource("human_poses", "mpjpe_mm", (threedpw.LAYOUT,), _poses),
    }
)
"""The tasks of 4M-21's Table 1 (arXiv 2406.09406), in its order."""


def open_task(name: str, folder: Path, setup: Setup) -> Task[Any]:
    """List the samples of a task in a folder; which of its layouts it has shows in its subfolders.

    Raises:
        QueryError: unknown task, or something is missing for it.
        InputError: no such folder, or another layout; the message shows the expected one.
        ModelError: a library that measures it is not installed.
    """
    if name not in TASKS:
        raise QueryError(f"Unknown task {name!r}. Known: {', '.join(TASKS)}.")
    source = TASKS[name]
    if not folder.is_dir():
        layouts = "\nor\n".join(source.layouts)
        raise InputError(f"{folder} is not a folder. Expected:\n{layouts}")
    return source.open(folder, setup)
