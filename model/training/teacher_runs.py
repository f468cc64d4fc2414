"""One teacher from its YAML: training where it is to be trained, then its features of every picture.

| file in the output folder | what |
|---|---|
| `config.yaml` | what the run was asked for, defaults included |
| `teacher.safetensors` | the network that sees pictures, if one was trained |
| `text_tokenizer.json` | the vocabulary of captions, if one was learned |
| `log.jsonl`, `training.ckpt`, `report.json`, `cache/` | as of tokenizers |
| `features/dinov2_global/0001.npy`, `features/dinov2/0001.npy`, ... | what tokenizers are trained on |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...errors import InputError
from ..registry import resolve_device
from ..teachers import TEACHERS, load_teacher
from ..tokenizers.text import TextTokenizer, plain_text
from .crops import random_crops
from .fit import CHECKPOINT, LOG, Fit, Objective, step_seed
from .generic_teachers import Contrastive, ContrastiveObjective, Dino, DinoObjective
from .own_teacher import TEACHER, look_at, save_teacher
from .run_files import require_same, save_run, whole_file, write_whole
from .run_log import RunLog
from .teacher_networks import Tower
from .teacher_recipes import AnyTeacherRun, ContrastiveRun, DinoRun, PublishedRun, TeacherRun
from .tokenizer_runs import (
    CONFIG,
    REPORT,
    TEXT_TOKENIZER,
    Progress,
    held_out_items,
    named_files,
    read_captions,
    silent,
)
from .train_wordpiece import train_wordpiece
from .value_arrays import ValueArray, load_values, prepared, reader_row

_FREE = ("device", "tensorboard", "write_to", "features", "vector")
_VOCAB_SIZE = 12_000
_MAX_JUDGED = 512
_VIEW = (0.5, 1.0)  # of a picture that is to be found by another crop of it


def run_teacher(
    config: AnyTeacherRun, progress: Progress | None = None, should_stop: Callable[[], bool] | None = None
) -> dict[str, Any]:
    """Train a teacher, or go on with it, and write its features of all pictures.

    Args:
        config: as `read_teacher_run` gives it.
        progress: told as the run goes on.
        should_stop: asked after each step whether to save and leave it at that.

    Returns:
        The report, as `report.json` has it; `finished` is false where it was stopped.

    Raises:
        ConfigError: the output folder holds a run with other settings.
        InputError: there is nothing to train on.
        ModelError: a published teacher cannot be opened.
    """
    tell = progress or silent
    config.output.mkdir(parents=True, exist_ok=True)
    size = TEACHERS[config.name].image_size if isinstance(config, PublishedRun) else config.tower.image_size
    pictures = _load(config, "rgb", size, tell)
    report: dict[str, Any] = {
        "finished": True,
        "output": str(config.output),
        "pictures": len(pictures),
        "failures": dict(pictures.failures),
    }
    if isinstance(config, PublishedRun):
        save_run(config, config.output / CONFIG)
        found = _published_features(config, pictures)
    else:
        training = _Training(config, pictures, tell)
        report |= training.run(should_stop, tell)
        report["failures"] |= training.failures
        found = _own_features(config, training.tower, pictures) if report["finished"] else iter(())
    if report["finished"]:
        folder = config.write_to or config.output / "features"
        for done, (name, values) in enumerate(found, 1):
            _write_features(folder, name if len(config.data) > 1 else name.partition("/")[2], values)
            tell("write", done, len(pictures))
        report["features"] = str(folder)
    write_whole(config.output / REPORT, (json.dumps(report, indent=1) + "\n").encode())
    return report


@dataclass(frozen=True)
class _Pairs:
    """Gives batch number n: rows at random of arrays that belong together."""

    pictures: ValueArray
    others: ValueArray | NDArray[np.int64] | None
    rows: NDArray[np.int64]
    batch_size: int
    seed: int

    def __call__(self, number: int) -> Tensor | tuple[Tensor, Tensor]:
        rng = np.random.default_rng(step_seed(self.seed, number))
        return self.take(self.rows[rng.integers(len(self.rows), size=self.batch_size)])

    def take(self, rows: NDArray[np.int64]) -> Tensor | tuple[Tensor, Tensor]:
        """These rows."""
        images = prepared("rgb", self.pictures.values[rows])
        if self.others is None:
            return images
        if isinstance(self.others, ValueArray):
            return images, prepared(self.others.raw, self.others.values[rows])
        return images, torch.from_numpy(self.others[rows])


class _Training:
    """A teacher being trained.

    Attributes:
        tower: what it makes features with, once it is trained.
        failures: by item that could not be read beside its picture, why.
    """

    tower: Tower

    def __init__(self, config: DinoRun | ContrastiveRun, pictures: ValueArray, tell: Progress) -> None:
        self._config = config
        if (config.output / CHECKPOINT).exists():
            require_same(config, config.output / CONFIG, free=_FREE)
        others, vocab_size = None, None
        self.failures: Mapping[str, str] = {}
        if isinstance(config, ContrastiveRun):
            pictures, others, vocab_size, self.failures = _with_others(config, pictures, tell)
        train, self._held = pictures.split(held_out_items(pictures.names, config.held_out))
        if len(train) < 2 or len(self._held) < 2:
            raise InputError(
                f"{len(pictures)} usable items leave {len(train)} to train on and {len(self._held)} to judge "
                "on; each needs two or more."
            )
        recipe = config.training
        self._data = _Pairs(pictures, others, train, recipe.batch_size, recipe.seed)
        torch.manual_seed(recipe.seed)
        objective: Any
        if isinstance(config, DinoRun):
            objective = DinoObjective(Dino(config.tower, config.training), config.tower, config.training)
        else:
            network = Contrastive(config.tower, config.training, vocab_size)
            objective = ContrastiveObjective(network, config.tower, config.training)
        objective.network.to(resolve_device(config.device))
        log = RunLog(config.output / LOG, config.output / "tensorboard" if config.tensorboard else None)
        self._fit = Fit(
            cast("Objective[Dino | Contrastive]", objective),
            self._data,
            recipe,
            folder=config.output,
            log=log,
        )
        save_run(config, config.output / CONFIG)

    def run(self, should_stop: Callable[[], bool] | None, tell: Progress) -> dict[str, Any]:
        """Train to the end, or until told to stop."""
        self._fit.run(
            lambda network, _: self._measure(network),
            progress=lambda done, total: tell("train", done, total),
            should_stop=should_stop,
        )
        network = self._fit.averaged()
        self.tower = network.image_tower()
        save_teacher(self.tower, self._config.tower, self._config.output / TEACHER)
        found = self._measure(network)
        report: dict[str, Any] = {"finished": self._fit.finished, "steps": self._fit.step}
        return report | {name: round(value, 5) for name, value in found.items() if name != "score"}

    @torch.no_grad()
    def _measure(self, network: Dino | Contrastive) -> dict[str, float]:
        """How often a held-out picture is found first: by another crop, or by what belongs to it."""
        batch = self._data.take(self._held[:_MAX_JUDGED])
        device = next(network.parameters()).device
        images = (batch if isinstance(batch, Tensor) else batch[0]).to(device)
        gallery = network.image_tower()(images)[0]
        if isinstance(batch, Tensor):
            with torch.random.fork_rng([]):
                torch.manual_seed(0)
                crops = random_crops(images, images.shape[-1], _VIEW)
            queries = network.image_tower()(crops)[0]
        else:
            assert isinstance(network, Contrastive)
            queries = network.other_vectors(batch[1].to(device))
        unit = functional.normalize(gallery, dim=-1)
        scores = functional.normalize(queries, dim=-1) @ unit.mT
        first = (scores.argmax(1).cpu() == torch.arange(len(unit))).float().mean().item()
        # Directions that vectors spread over: 1 where all are the same, which is how DINO fails.
        spread = torch.linalg.svdvals((unit - unit.mean(0)).double()).square()
        share = spread / spread.sum().clamp(min=1e-12)
        rank = (-(share * share.clamp(min=1e-12).log()).sum()).exp().item()
        alike = (unit.mean(0).square().sum()).item()
        return {
            "held_out.recall_1": first,
            "held_out.alike": alike,
            "held_out.directions": rank,
            "score": first,
        }


def _with_others(
    config: ContrastiveRun, pictures: ValueArray, tell: Progress
) -> tuple[ValueArray, ValueArray | NDArray[np.int64], int | None, Mapping[str, str]]:
    """Pictures that have a caption or a depth map, these, and the size of the vocabulary."""
    if config.other == "depth":
        depth = _load(config, "depth", config.tower.image_size, tell)
        place = {name: row for row, name in enumerate(depth.names)}
        rows = [row for row, name in enumerate(pictures.names) if name in place]
        _require_pairs(rows, config)
        pictures = pictures.part(rows)
        return pictures, depth.part([place[name] for name in pictures.names]), None, depth.failures
    captions, failures = read_captions(config.data)
    text = _text_tokenizer(config, list(captions.values()))
    limit = config.training.max_tokens
    found = {name: text.encode(plain_text(words), max_tokens=limit) for name, words in captions.items()}
    rows = [row for row, name in enumerate(pictures.names) if len(found.get(name, ()))]
    _require_pairs(rows, config)
    pictures = pictures.part(rows)
    ids = np.zeros((len(rows), max(len(found[name]) for name in pictures.names)), np.int64)
    for target, name in zip(ids, pictures.names, strict=True):
        target[: len(found[name])] = found[name]
    return pictures, ids, text.vocab_size, failures


def _require_pairs(rows: list[int], config: ContrastiveRun) -> None:
    if not rows:
        raise InputError(f"No picture in {config.data[0]} has a {config.other} of the same name.")


def _text_tokenizer(config: ContrastiveRun, captions: list[str]) -> TextTokenizer:
    if config.text_tokenizer is not None:
        return TextTokenizer.from_file(config.text_tokenizer)
    path = config.output / TEXT_TOKENIZER
    write_whole(path, train_wordpiece(captions, vocab_size=_VOCAB_SIZE))
    return TextTokenizer.from_file(path)


def _load(config: TeacherRun, raw: str, size: int, tell: Progress) -> ValueArray:
    files = {f"{i}/{name}": path for i, name, path in named_files(config.data, raw)}
    row = reader_row(raw, size, next(iter(files.values())))
    cache = config.output / "cache"
    return load_values(files, row, cache, progress=lambda done, total: tell(f"read {raw}", done, total))


def _own_features(
    config: DinoRun | ContrastiveRun, tower: Tower, pictures: ValueArray
) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    for name, (vector, grid) in zip(pictures.names, look_at(tower, pictures.values), strict=True):
        written = {config.vector: vector, config.features: grid}
        yield name, {raw: values for raw, values in written.items() if raw is not None}


def _published_features(
    config: PublishedRun, pictures: ValueArray
) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    teacher = load_teacher(config.name, config.weights, resolve_device(config.device))
    for start in range(0, len(pictures), config.batch_size):
        names = pictures.names[start : start + config.batch_size]
        found = teacher.extract(np.array(pictures.values[start : start + config.batch_size]))
        for i, name in enumerate(names):
            yield name, {raw: values[i] for raw, values in found.items()}


def _write_features(folder: Path, item: str, values: Mapping[str, NDArray[Any]]) -> None:
    """`dinov2_global/0001.npy`; grids in float16, which is what tokenizers are trained on."""
    for raw, array in values.items():
        path = folder / raw / f"{item}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            np.save(file, array.astype(np.float16) if array.ndim == 3 else array)
