"""One transfer run: fine-tune, measure, keep the best; the same bit for bit on a CPU when taken up again."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.func import functional_call

from ...errors import ConfigError, ModelError
from ..training.fit import step_seed
from ..training.learning_rate import warmup_cosine
from ..training.run_files import save_run, write_whole
from ..training.run_log import RunLog
from ..training.run_state import read_state, write_state
from .building import BEST, open_backbone, parameter_groups
from .config import TransferConfig
from .feeding import Feed, batch_size, evaluation_batches, mixed, training_batches
from .goals import Classification, Depth, Detection, find_data
from .heads import TransferModel

SETTINGS, LOG, STATE = "config.yaml", "log.jsonl", "training.ckpt"
RESULT = "result.json"
_OF_NO_EFFECT = ("out", "recipe.workers", "recipe.save_every")

Show = Callable[[Mapping[str, Any]], None]


class TransferRun:
    """A run in its folder; a state found there is continued.

    Args:
        config: what to do.
        device: `cpu`, `cuda`, ...; `auto` takes a GPU if there is one.
        show: told of progress: `stage`, `done`, `total`.

    Attributes:
        step: steps done.
        steps: of the whole run.

    Raises:
        ConfigError: the folder holds a run with other settings.
        InputError, LimitError: the data cannot be used.
        ModelError, CheckpointError: the model cannot be had or used so.
    """

    def __init__(self, config: TransferConfig, *, device: str = "auto", show: Show | None = None) -> None:
        self.config, self._show = config, show or _nothing
        self.goal, train, val = find_data(config)
        self._feed, self._val = Feed(config, self.goal, train), Feed(config, self.goal, val)
        backbone = open_backbone(config, device)
        self._device, self._tokenize = backbone.source.parts.device, backbone.tokenize
        self._source = backbone.source
        with torch.random.fork_rng([]):
            torch.manual_seed(config.recipe.seed)
            model = TransferModel(backbone.encoder, self.goal.head(backbone.encoder))
        self.model = model.to(self._device)
        self._learning = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._average = (
            {name: p.detach().clone() for name, p in self._learning.items()} if config.recipe.ema else {}
        )
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self.model, config, backbone.new),
            config.recipe.learning_rate,
            config.recipe.betas,
        )
        self._per_epoch = len(train) // batch_size(self._feed)
        self.step, self.steps = 0, config.recipe.epochs * self._per_epoch
        self.best: dict[str, float] = {}
        self._losses: list[float] = []
        self._seconds = 0.0
        config.out.mkdir(parents=True, exist_ok=True)
        self._log = RunLog(config.out / LOG)
        if (config.out / STATE).exists():
            self._restore(config.out / STATE)
        else:
            self._log.rewind(0)
        save_run(config, config.out / SETTINGS)

    def run(self, should_stop: Callable[[], bool] | None = None) -> dict[str, Any]:
        """Train to the end; gives what is written as `result.json` then.

        Args:
            should_stop: asked after each step; where it says so, the state is kept and the run ends early,
                with `steps` below that of the whole.

        Raises:
            ModelError: the loss is no number any more.
            InputError: a file that turned out to be damaged.
        """
        recipe, since, stopped = self.config.recipe, time.monotonic(), False
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            batches = training_batches(self._feed, self.step) if self.step < self.steps else iter(())
            while self.step < self.steps and not stopped:
                self._losses.append(self._train_step(*next(batches)))
                self.step += 1
                self._show({"stage": "train", "done": self.step, "total": self.steps})
                stopped = should_stop is not None and should_stop()
                measures = (
                    self.step == self.steps or self.step % (recipe.evaluate_every * self._per_epoch) == 0
                )
                if measures or stopped or self.step % recipe.save_every == 0:
                    self._seconds, since = self._seconds + time.monotonic() - since, time.monotonic()
                    if measures:
                        self._measure()
                    self._save()
        return self._result()

    def evaluate(self) -> dict[str, float]:
        """Metrics on the validation samples, of the averaged weights where the recipe averages."""
        measure = self.goal.measure()
        self.model.eval()
        done = 0
        with torch.inference_mode():
            for inputs, truth in evaluation_batches(self._val):
                output = functional_call(self.model, self._average, (self._given(inputs),))
                measure.add(self.goal.answer(output), truth.to(self._device))
                done += len(truth)
                self._show({"stage": "measure", "done": done, "total": len(self._val.samples)})
        return measure.result()

    def _train_step(self, inputs: dict[str, Tensor], truth: Tensor) -> float:
        config, recipe = self.config, self.config.recipe
        warmup = round(recipe.warmup_epochs * self._per_epoch)
        rate = recipe.learning_rate * warmup_cosine(self.step, self.steps, warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        torch.manual_seed(step_seed(recipe.seed, self.step))
        if isinstance(self.goal, Classification) and (config.augment.mixup or config.augment.cutmix):
            inputs, truth = mixed(inputs, truth, len(self.goal.classes), config, self.step)
        self.model.train()
        total, pieces = 0.0, min(recipe.accumulate, len(truth))
        names = list(inputs)
        for part, wanted in zip(
            zip(*(inputs[name].chunk(pieces) for name in names), strict=True),
            truth.chunk(pieces),
            strict=True,
        ):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.autocast):
                output = self.model(self._given(dict(zip(names, part, strict=True))))
            loss = self.goal.loss(output, wanted.to(self._device)) * (len(wanted) / len(truth))
            loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            raise ModelError(f"The loss is {total} at step {self.step}; lower learning_rate, or clip.")
        if recipe.clip:
            nn.utils.clip_grad_norm_(self._learning.values(), recipe.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        # A short memory at first, or the average would remember the random head.
        keep = min(recipe.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, value in self._average.items():
                value.lerp_(self._learning[name], 1 - keep)
        return total

    def _given(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._tokenize({name: x.to(self._device) for name, x in inputs.items()})

    def _measure(self) -> None:
        found = self.evaluate()
        loss = sum(self._losses) / max(len(self._losses), 1)
        self._losses = []
        told = {"loss": round(loss, 6), **{name: round(value, 6) for name, value in found.items()}}
        self._log.write(self.step, told | {"s": round(self._seconds, 1)})
        metric = self.goal.metric
        if not self.best or found[metric] > self.best[metric]:
            self.best = {"step": self.step, **found}
            state = self.model.state_dict() | self._average
            # Copies: tensors that share memory are refused.
            state = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
            write_whole(self.config.out / BEST, save(state, metadata={"told": json.dumps(self._told())}))

    def _told(self) -> dict[str, Any]:
        """What has to be known to use the weights."""
        classes = self.goal.classes if isinstance(self.goal, Classification | Detection) else ()
        depths = (self.goal.mean, self.goal.deviation) if isinstance(self.goal, Depth) else ()
        return {"classes": classes, "depths": depths, "metrics": self.best, "license": self._source.license}

    def _result(self) -> dict[str, Any]:
        sizes = {
            part: sum(p.numel() for p in getattr(self.model, part).parameters())
            for part in ("encoder", "head")
        }
        result = {
            "task": self.config.task,
            "model": self._source.name,
            "init": self.config.init,
            "inputs": list(self.config.inputs),
            "metric": self.goal.metric,
            "best": self.best,
            "steps": self.step,
            "finished": self.step == self.steps,
            "samples": {"train": len(self._feed.samples), "val": len(self._val.samples)},
            "parameters": sizes,
            "seconds": round(self._seconds, 1),
            "license": self._source.license,
        }
        if result["finished"]:
            write_whole(self.config.out / RESULT, (json.dumps(result, indent=2) + "\n").encode())
        return result

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "losses": self._losses,
            "best": self.best,
            "seconds": self._seconds,
            "config": self.config.model_dump_json(),
        }
        write_state(self.config.out / STATE, state)

    def _restore(self, path: Path) -> None:
        state = read_state(path, self._device)
        mine, other = (_flat(json.loads(text)) for text in (self.config.model_dump_json(), state["config"]))
        differ = [key for key in mine | other if mine.get(key) != other.get(key) and key not in _OF_NO_EFFECT]
        if differ:
            told = ", ".join(f"{key} {other.get(key)}, now {mine.get(key)}" for key in differ)
            raise ConfigError(f"{path} is of a run with other settings ({told}); name another `out`.")
        self.model.load_state_dict(state["model"])
        self._average = state["average"]
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self._losses, self.best = state["step"], state["losses"], state["best"]
        self._seconds = state["seconds"]
        self._log.rewind(self.step)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _nothing(state: Mapping[str, Any]) -> None:
    del state
