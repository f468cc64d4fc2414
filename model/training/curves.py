"""Curves of a run of the scenes recipe, drawn from its logs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from .pretrain import HELD_OUT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = "curves.webp"
_QUERIES = ("rgb", "caption", "tok_depth", "tok_semseg", "tok_canny_edge", "caption+color_palette")

Line = dict[str, Any]


def read_log(path: Path) -> list[Line]:
    """The JSON lines of a log."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def draw_curves(logs: Mapping[str, Path]) -> Figure:
    """Losses of teachers and tokenizers, held-out losses of 4M, and how often it finds validation scenes.

    Args:
        logs: by name: `fourm...`, one after the other, the teachers, and `tok_NAME`.
    """
    lines = {name: read_log(path) for name, path in logs.items()}
    saves: list[Line] = []
    done = 0
    for stage in [name for name in lines if name.startswith("fourm")]:  # steps count on
        run = lines.pop(stage)
        saves += [line | {"step": line["step"] + done} for line in run if HELD_OUT in line]
        done += run[-1]["step"]
    figure = Figure(figsize=(14, 8), layout="constrained")
    (teachers, tokenizers), (losses, recalls) = figure.subplots(2, 2)
    for name, found in lines.items():
        # Losses of different kinds: only how far each has come can be compared.
        values = [line["loss"] / found[0]["loss"] for line in found]
        axes = tokenizers if name.startswith("tok_") else teachers
        axes.plot([line["step"] for line in found], values, label=name)
    for key in sorted({key for line in saves for key in line if key.startswith(f"{HELD_OUT}.")}):
        _curve(losses, saves, key, key.removeprefix(f"{HELD_OUT}."))
    for query in _QUERIES:
        _curve(recalls, saves, f"{query}.r1", query)
    teachers.set_yscale("log")
    tokenizers.set_yscale("log")
    recalls.set_ylim(0, 1)
    titles = {
        "teachers: loss, of that at first": teachers,
        "tokenizers: loss, of that at first": tokenizers,
        "4M: held-out loss in nats, by target": losses,
        "4M: R@1 among validation scenes": recalls,
    }
    for title, axes in titles.items():
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small", ncols=2)
    return figure


def _curve(axes: Axes, lines: Sequence[Line], key: str, label: str) -> None:
    points = [(line["step"], line[key]) for line in lines if key in line]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, marker=".")
