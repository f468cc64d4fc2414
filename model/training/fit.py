"""The loop behind tokenizers and teachers: AdamW, warm-up and cosine, a running average of the weights, and a
checkpoint from which a run that was killed goes on bit for bit.

Nothing is drawn from a stream that a checkpoint would have to hold: batch n is a function of n, and every
step starts from its own seed.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from ...errors import ConfigError, ModelError
from .learning_rate import warmup_cosine
from .run_log import RunLog
from .run_state import read_state, write_state

CHECKPOINT = "training.ckpt"
LOG = "log.jsonl"

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

Batch = Tensor | tuple[Tensor, ...]
Progress = Callable[[int, int], None]
"""Told after each step: steps done, of how many."""
NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class FitRecipe:
    """How long and how fast.

    Attributes:
        steps, batch_size, learning_rate, warmup, weight_decay: as usual; AdamW (0.9, 0.95), cosine to 0.
            Biases and norms do not decay.
        clip: norm that gradients are cut to; 0 cuts nothing.
        ema: of the weights that are kept.
        precision: in which networks compute; weights, codes and losses are float32.
        seed: of everything that is drawn.
        log_every, save_every: steps; measuring and saving go together.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    steps: Count = 2000
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 100
    weight_decay: NotNegative = 0.02
    clip: NotNegative = 1.0
    ema: Share = 0.99
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    seed: Annotated[int, Field(ge=0)] = 0
    log_every: Count = 100
    save_every: Count = 500


class Objective(Protocol[NetworkT]):
    """What is trained, and for what.

    Attributes:
        network: all that learns or changes; its parameters and buffers are what a checkpoint holds.
    """

    network: NetworkT

    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, float]]:
        """The loss of a batch, and numbers for the log."""
        ...

    def update(self, step: int) -> Mapping[str, float]:
        """Change what has no gradient, after the optimizer's step; gives numbers for the log."""
        ...


class Fit(Generic[NetworkT]):
    """One run.

    Args:
        objective: what to train.
        draw: gives batch number n, always the same one.
        recipe: how.
        folder: where the checkpoint lies; one found there is continued. None keeps none.
        log: where numbers go.

    Attributes:
        step: steps done.
        best: the best score so far.

    Raises:
        ConfigError: the checkpoint found is of a run with other settings.
    """

    def __init__(
        self,
        objective: Objective[NetworkT],
        draw: Callable[[int], Batch],
        recipe: FitRecipe,
        *,
        folder: Path | None = None,
        log: RunLog | None = None,
    ) -> None:
        self._objective, self._draw, self._recipe = objective, draw, recipe
        self._path = None if folder is None else folder / CHECKPOINT
        self._log = log or RunLog(None)
        network = objective.network
        learning = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self._learning = learning
        self._average = {name: value.detach().clone() for name, value in learning.items()}
        groups = [
            {
                "params": [p for p in learning.values() if p.ndim > 1],
                "weight_decay": recipe.weight_decay,
            },
            {"params": [p for p in learning.values() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, recipe.learning_rate, (0.9, 0.95))
        self._device = next(network.parameters()).device
        self._sums: dict[str, float] = {}
        self._seconds, self._since = 0.0, time.monotonic()
        self.step, self.best = 0, -float("inf")
        if self._path is not None:
            if self._path.exists():
                self._restore(self._path)
            self._log.rewind(self.step)

    def run(
        self,
        measure: Callable[[NetworkT, bool], Mapping[str, float]] | None = None,
        *,
        until: int | None = None,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Train to the end, or to step `until`.

        Args:
            measure: gets the averaged network, and whether it is the last time, wherever the run is saved;
                gives numbers for the log, of which `score` is larger for a better network.
            until: a step to stop at.
            progress: told after each step: steps done, of how many.
            should_stop: asked after each step whether to save and leave it at that.

        Raises:
            ModelError: the loss is no number any more.
        """
        stop = min(self._recipe.steps, until or self._recipe.steps)
        devices = [self._device] if self._device.type == "cuda" else []
        self._since = time.monotonic()
        with torch.random.fork_rng(devices):
            while self.step < stop:
                self._train_step()
                self.step += 1
                if progress is not None:
                    progress(self.step, self._recipe.steps)
                self._report(measure)
                if should_stop is not None and should_stop():
                    self._save()
                    break

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self._recipe.steps

    def averaged(self) -> NetworkT:
        """A copy of the network with the running average of its weights, in evaluation mode."""
        network = copy.deepcopy(self._objective.network)
        parameters = dict(network.named_parameters())
        with torch.no_grad():
            for name, value in self._average.items():
                parameters[name].copy_(value)
        return network.eval()

    def _train_step(self) -> None:
        recipe = self._recipe
        for group in self._optimizer.param_groups:
            group["lr"] = recipe.learning_rate * warmup_cosine(self.step, recipe.steps, recipe.warmup)
        torch.manual_seed(step_seed(recipe.seed, self.step))
        batch = _to(self._draw(self.step), self._device)
        self._objective.network.train()
        half = recipe.precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            loss, numbers = self._objective.loss(batch)
        value = loss.item()
        if not np.isfinite(value):
            raise ModelError(
                f"The loss is {value} at step {self.step}; lower learning_rate, or look at the data."
            )
        self._optimizer.zero_grad()
        loss.backward()
        if recipe.clip:
            nn.utils.clip_grad_norm_(self._learning.values(), recipe.clip)
        self._optimizer.step()
        self._add({"loss": value, **numbers, **self._objective.update(self.step)})
        # A short memory at first, or the average would remember the random start.
        keep = min(recipe.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, parameter in self._learning.items():
                self._average[name].lerp_(parameter, 1 - keep)

    def _add(self, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + number

    def _report(self, measure: Callable[[NetworkT, bool], Mapping[str, float]] | None) -> None:
        """Log the means since the last time, measure and save, as often as the recipe says."""
        recipe, last = self._recipe, self.step == self._recipe.steps
        entry: dict[str, float] = {}
        if last or self.step % recipe.log_every == 0:
            count = (self.step - 1) % recipe.log_every + 1
            entry = {name: round(total / count, 6) for name, total in self._sums.items()}
            self._sums = {}
        saves = last or self.step % recipe.save_every == 0
        if saves and measure is not None:
            found = measure(self.averaged(), last)
            self.best = max(self.best, found.get("score", self.best))
            entry |= {name: round(value, 6) for name, value in found.items()}
        now = time.monotonic()
        self._seconds, self._since = self._seconds + now - self._since, now
        if entry:  # before saving: a run that goes on forgets lines after its step, but finds none again
            self._log.write(self.step, entry | {"s": round(self._seconds, 1)})
        if saves:
            self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        state = {
            "network": self._objective.network.state_dict(),
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "sums": self._sums,
            "best": self.best,
            "seconds": self._seconds,
            "recipe": asdict(self._recipe),
        }
        write_state(self._path, state)

    def _restore(self, path: Path) -> None:
        state = read_state(path, self._device)
        mine = asdict(self._recipe)
        other = [name for name, value in state["recipe"].items() if mine.get(name) != value]
        if other:
            told = ", ".join(f"{name} {state['recipe'][name]}, now {mine.get(name)}" for name in other)
            raise ConfigError(f"{path} is of a run with other settings ({told}); name another output.")
        self._objective.network.load_state_dict(state["network"])
        self._average = state["average"]
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = state["step"], state["best"]
        self._sums, self._seconds = state["sums"], state["seconds"]


def step_seed(seed: int, step: int) -> int:
    """The seed of one step of a run."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def full_precision(device: torch.device) -> torch.autocast:
    """A stretch in float32 inside one in bfloat16: codes are close to each other."""
    return torch.autocast(device.type, enabled=False)


def _to(batch: Batch, device: torch.device) -> Batch:
    if isinstance(batch, Tensor):
        return batch.to(device)
    return tuple(part.to(device) for part in batch)
