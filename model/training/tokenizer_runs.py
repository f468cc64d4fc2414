"""One training of a tokenizer from its YAML: data, network, training, reports, and the files they leave.

| file in the output folder | what |
|---|---|
| `config.yaml` | what the run was asked for, defaults included |
| `model.safetensors`, `last.safetensors` | the best tokenizer so far and the last one, published format |
| `log.jsonl` | a line every so many steps |
| `report.json` | how well the best one keeps values that it was not trained on |
| `reconstructions.png` | such values, each beside what came back |
| `training.ckpt` | from where an interrupted run goes on |
| `cache/` | values as they are trained on; may be removed |

Of a vocabulary: `config.yaml`, `text_tokenizer.json`, `report.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import InputError
from ..checkpoint import WEIGHTS_NAME, load_tokenizer, save_checkpoint
from ..readers.content import decode_text, read_bytes
from ..registry import resolve_device
from ..tokenizers.build import ImageTokenizer
from ..tokenizers.divae import DiffusionTokenizerConfig
from ..tokenizers.image import VQVAE, TokenizerConfig
from .fit import CHECKPOINT, LOG, Fit, Objective
from .judge import draw_reconstructions, judge
from .modality_files import modality_files
from .run_files import require_same, save_run, write_whole
from .run_log import RunLog
from .tokenizer_recipes import DiffusionRun, MemcodesRun, Run, TokenizerRun, VqRun, WordPieceRun
from .train_divae import divae_objective
from .train_memcodes import MemcodesObjective
from .train_vq import LOSSES, VqObjective
from .train_wordpiece import judge_wordpiece, train_wordpiece
from .value_arrays import FEATURES, ValueArray, load_values, reader_row
from .value_draws import ValueDraws, central

CONFIG, REPORT, PICTURE = "config.yaml", "report.json", "reconstructions.png"
LAST = "last.safetensors"
TEXT_TOKENIZER = "text_tokenizer.json"
_FREE = ("device", "tensorboard")
_NUM_DRAWN = 16
_MAX_CAPTION_BYTES = 2**20

Progress = Callable[[str, int, int], None]
"""Told of a stage: its name, how much of it is done, of how much."""


def run_tokenizer(
    config: Run, progress: Progress | None = None, should_stop: Callable[[], bool] | None = None
) -> dict[str, Any]:
    """Train a tokenizer, or go on with a training that was interrupted.

    Args:
        config: as `read_tokenizer_run` gives it.
        progress: told as the run goes on.
        should_stop: asked after each step whether to save and leave it at that.

    Returns:
        The report, as `report.json` has it; `finished` is false where it was stopped.

    Raises:
        ConfigError: the output folder holds a run with other settings.
        InputError: there is nothing to train on.
        ModelError: it cannot be trained like this.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    if isinstance(config, WordPieceRun):
        report = _run_wordpiece(config)
    else:
        report = TokenizerTraining(config, progress or silent).run(should_stop)
    write_whole(config.output / REPORT, (json.dumps(report, indent=1) + "\n").encode())
    return report


class TokenizerTraining:
    """A run of a tokenizer of values, its data read.

    Args:
        config: of the run.
        progress: told as it goes on.

    Attributes:
        fit: the training itself, at the step of the checkpoint that was found.
        judged: values that are not trained on, which reports are about.
    """

    def __init__(self, config: VqRun | DiffusionRun | MemcodesRun, progress: Progress) -> None:
        self._config, self._progress = config, progress
        device = resolve_device(config.device)
        if (config.output / CHECKPOINT).exists():
            require_same(config, config.output / CONFIG, free=_FREE)
        train, self.judged, array = _read(config, progress)
        self._failures = array.failures
        recipe = config.training
        draw = ValueDraws(
            array, train, recipe.batch_size, recipe.seed, size=config.image_size, mirror=config.mirror
        )
        self._num_values = len(train)
        torch.manual_seed(recipe.seed)
        objective = _objective(config, _network(config, array))
        objective.network.to(device)
        log = RunLog(config.output / LOG, config.output / "tensorboard" if config.tensorboard else None)
        self.fit = Fit(objective, draw, recipe, folder=config.output, log=log)
        save_run(config, config.output / CONFIG)

    def run(self, should_stop: Callable[[], bool] | None = None) -> dict[str, Any]:
        """Train to the end, or until told to stop, and report on the best tokenizer so far."""
        config, output = self._config, self._config.output
        self.fit.run(
            self._measure,
            progress=lambda done, total: self._progress("train", done, total),
            should_stop=should_stop,
        )
        report: dict[str, Any] = {
            "finished": self.fit.finished,
            "output": str(output),
            "modality": config.modality,
            "steps": self.fit.step,
            "values": self._num_values,
            "failures": dict(self._failures),
        }
        if not (output / WEIGHTS_NAME).exists():  # stopped before it was first judged
            return report
        best = load_tokenizer(output / WEIGHTS_NAME, device=resolve_device(config.device))
        figures, rebuilt = self._judge(best)
        shown = slice(0, _NUM_DRAWN)
        draw_reconstructions(
            config.modality, self.judged[shown], rebuilt[shown], classes=config.classes
        ).save(output / PICTURE)
        rounded = {name: round(value, 5) for name, value in figures.items() if name != "score"}
        return report | {"judged": len(self.judged), **rounded}

    def _measure(self, tokenizer: ImageTokenizer, is_last: bool) -> dict[str, float]:
        """Judge the averaged tokenizer, and keep it as the last and, if it is, as the best one."""
        del is_last
        figures, _ = self._judge(tokenizer)
        output = self._config.output
        if figures["score"] > self.fit.best or not (output / WEIGHTS_NAME).exists():
            save_checkpoint(tokenizer, output / WEIGHTS_NAME)
        save_checkpoint(tokenizer, output / LAST)
        return {name if name == "score" else f"held_out.{name}": value for name, value in figures.items()}

    def _judge(self, tokenizer: ImageTokenizer) -> tuple[dict[str, float], NDArray[Any]]:
        steps = self._config.decoding_steps if isinstance(self._config, DiffusionRun) else None
        return judge(tokenizer, self._config.modality, self.judged, decoding_steps=steps)


def _read(config: TokenizerRun, progress: Progress) -> tuple[NDArray[np.int64], NDArray[Any], ValueArray]:
    """Rows to train on, values to judge on, and the array of all."""
    raw, kept = config.modality, config.validation
    files = {f"{i}/{name}": path for i, name, path in named_files(config.data, raw)}
    others = {f"held/{i}/{name}": path for i, name, path in named_files(kept, raw)}
    row = reader_row(raw, config.stored_size, next(iter(files.values())), config.channels)
    classes = config.classes if raw == "semseg" else ()
    array = load_values(
        files | others,
        row,
        config.output / "cache",
        classes=classes,
        progress=lambda done, total: progress("read", done, total),
    )
    held = frozenset(others) or held_out_items(array.names, config.held_out)
    train, judged = array.split(held)
    if not len(train) or not len(judged):
        raise InputError(
            f"{len(array)} usable values of {raw} leave {len(train)} to train on and {len(judged)} to judge "
            "on; give more files, or folders of `validation`."
        )
    rows = judged[np.linspace(0, len(judged) - 1, min(len(judged), config.num_judged)).astype(np.int64)]
    return train, central(raw, array.values[rows], config.image_size), array


def named_files(folders: tuple[Path, ...], raw: str) -> list[tuple[int, str, Path]]:
    """Files of a modality in several folders: number of the folder, name of the item, file."""
    return [
        (i, name, path)
        for i, folder in enumerate(folders)
        for name, path in modality_files(folder, raw).items()
    ]


def held_out_items(names: tuple[str, ...], share: float) -> frozenset[str]:
    """Items at random, one at least; the same ones whenever the files are."""
    items = sorted(set(names))
    count = max(1, round(share * len(items)))
    return frozenset(items[i] for i in np.random.default_rng(0).permutation(len(items))[:count])


def _network(config: TokenizerRun, array: ValueArray) -> TokenizerConfig:
    shape = array.values.shape[1:]
    if config.modality in FEATURES:
        return config.config(shape[0], max(shape[1:]))
    return config.config(shape[0])


def _objective(config: TokenizerRun, network: TokenizerConfig) -> Objective[ImageTokenizer]:
    loss = LOSSES[config.modality]
    found: Any
    if isinstance(config, DiffusionRun):
        assert isinstance(network, DiffusionTokenizerConfig)
        source = None if config.start_from is None else load_tokenizer(config.start_from)
        found = divae_objective(network, config.training, source)
    elif isinstance(config, MemcodesRun):
        found = MemcodesObjective(VQVAE(network), loss)
    else:
        assert isinstance(config, VqRun)
        found = VqObjective(VQVAE(network), loss, config.training)
    return cast("Objective[ImageTokenizer]", found)


def _run_wordpiece(config: WordPieceRun) -> dict[str, Any]:
    captions, failures = read_captions(config.data)
    held = held_out_items(tuple(captions), config.held_out) if captions else frozenset[str]()
    content = train_wordpiece(
        [caption for name, caption in captions.items() if name not in held],
        class_names=config.class_names,
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        num_sentinels=config.num_sentinels,
    )
    write_whole(config.output / TEXT_TOKENIZER, content)
    save_run(config, config.output / CONFIG)
    figures = judge_wordpiece(content, [captions[name] for name in sorted(held)])
    return {
        "finished": True,
        "output": str(config.output),
        "modality": "caption",
        "captions": len(captions),
        "failures": failures,
        **{name: round(value, 5) for name, value in figures.items()},
    }


def read_captions(folders: tuple[Path, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """The captions of folders, and why others could not be read; both by `number of the folder/item`."""
    captions: dict[str, str] = {}
    failures: dict[str, str] = {}
    for i, item, path in named_files(folders, "caption"):
        try:
            captions[f"{i}/{item}"] = decode_text(read_bytes(path, _MAX_CAPTION_BYTES, str(path)), str(path))
        except InputError as error:
            failures[f"{i}/{item}"] = str(error)
    return captions, failures


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
    del stage, done, total
