"""Training of a 4M model on token targets of single vectors, resumable at every checkpoint."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..fourm import FourM
from ..presets import FourMConfig
from ..tokens import Tokens
from .learning_rate import warmup_cosine

CHECKPOINT = "fourm.ckpt"
LOG = "fourm.jsonl"


class Batches(Protocol):
    """Where batches come from; number n is always the same one."""

    num_tokens: int

    def draw(self, number: int) -> tuple[dict[str, Tokens], NDArray[np.int64]]:
        """Model input, and the row of each sample in the table of targets."""
        ...


@dataclass(frozen=True)
class FourMRecipe:
    """How the model is trained (arXiv 2406.09406, appendix; sizes are ours).

    `parts` batches make one step. They may follow different components of the mixture, and run side by side:
    matrix products of a small model are too small to share between cores.
    """

    parts: int = 4
    steps: int = 1700
    learning_rate: float = 1.5e-3
    warmup: int = 150
    weight_decay: float = 0.05
    clip: float = 1.0
    ema: float = 0.995
    seed: int = 0
    log_every: int = 50
    save_every: int = 200


class FourMTrainer:
    """Owns model, optimizer, running average of the weights and position in the run.

    Args:
        config: the model.
        batches: input.
        targets: by target modality, distribution over codes `(rows, heads, V)`: what the tokenizer would draw
            from. Its mode alone would have the model learn by heart which of two near codes won.
        recipe: how long and how fast.
        folder: where checkpoint and log lie; a checkpoint found there is continued.
        prepare: changes a fresh model before the first step.
        threads: parts of a step that run at a time; of no effect on the result.
    """

    def __init__(
        self,
        config: FourMConfig,
        batches: Batches,
        targets: Mapping[str, NDArray[np.float16]],
        recipe: FourMRecipe,
        folder: Path,
        *,
        prepare: Callable[[FourM], None] | None = None,
        threads: int = 2,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.batches, self.targets, self.folder = recipe, batches, targets, folder
        self.model = FourM(config)
        if prepare is not None:
            prepare(self.model)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        matrices = [p for p in self.model.parameters() if p.ndim == 2]
        others = [p for p in self.model.parameters() if p.ndim != 2]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, recipe.learning_rate, (0.9, 0.95), eps=1e-8, fused=True)
        self.step, self.seconds = 0, 0.0
        self._replicas = [_replica(self.model) for _ in range(recipe.parts)]
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).exists():
            self._restore()

    def run(
        self, evaluate: Callable[[FourM], dict[str, float]] | None = None, until: int | None = None
    ) -> None:
        """Train to the end, or to step `until`; `evaluate` gets the averaged model at every checkpoint."""
        recipe, losses = self.recipe, dict.fromkeys(self.targets, 0.0)
        stop, since = min(recipe.steps, until or recipe.steps), time.monotonic()
        self.model.train()
        while self.step < stop:
            for name, value in self._train_step().items():
                losses[name] += value
            self.step += 1
            if self.step % recipe.log_every and self.step != stop:
                continue
            self.seconds, since = self.seconds + time.monotonic() - since, time.monotonic()
            entry: dict[str, float] = {"step": self.step, "s": round(self.seconds, 1)}
            count = (self.step - 1) % recipe.log_every + 1
            entry |= {f"loss.{name}": round(value / count, 4) for name, value in losses.items()}
            losses = dict.fromkeys(self.targets, 0.0)
            if self.step % recipe.save_every == 0 or self.step == stop:
                if evaluate is not None:
                    entry |= evaluate(self.averaged())
                self._save()
            with (self.folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")
            since = time.monotonic()

    def averaged(self) -> FourM:
        """A copy of the model with the running average of its weights."""
        model = FourM(self.model.config)
        model.load_state_dict(self.average)
        return model.eval()

    def _train_step(self) -> dict[str, float]:
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * warmup_cosine(self.step, recipe.steps, recipe.warmup)
        found = list(self._pool.map(self._gradients, range(recipe.parts)))
        for parameters in zip(
            self.model.parameters(), *(r.parameters() for r in self._replicas), strict=True
        ):
            gradients = [p.grad for p in parameters[1:] if p.grad is not None]
            parameters[0].grad = sum(gradients[1:], gradients[0]) / recipe.parts if gradients else None
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        # A short memory at first, or the average would remember the random start.
        keep = min(recipe.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                self.average[name].lerp_(value, 1 - keep)
        return {name: sum(part[name] for part in found) / recipe.parts for name in self.targets}

    def _gradients(self, part: int) -> dict[str, float]:
        """Leave the gradients of one part of the step in its replica; return the losses."""
        model = self._replicas[part]
        batch, rows = self.batches.draw(self.step * self.recipe.parts + part)
        with torch.autocast("cpu", torch.bfloat16):
            logits = predict(model, batch, tuple(self.targets), self.batches.num_tokens)
        losses = {
            name: cross_entropy(logits[name], torch.from_numpy(table[rows]))
            for name, table in self.targets.items()
        }
        model.zero_grad()
        torch.stack(list(losses.values())).mean().backward()
        return {name: value.item() for name, value in losses.items()}

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "recipe": asdict(self.recipe),
        }
        temporary = self.folder / f"{CHECKPOINT}.tmp"
        torch.save(state, temporary)
        temporary.rename(self.folder / CHECKPOINT)

    def _restore(self) -> None:
        state = torch.load(self.folder / CHECKPOINT, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]


def _replica(model: FourM) -> FourM:
    """A copy that shares the weights but not their gradients."""
    copied = copy.deepcopy(model)
    for mine, shared in zip(copied.parameters(), model.parameters(), strict=True):
        mine.data = shared.data
    return copied


def predict(
    model: FourM, batch: Mapping[str, Tokens], targets: tuple[str, ...], num_tokens: int | None = None
) -> dict[str, Tensor]:
    """Logits `(B, heads, V)` of each target, from at most `num_tokens` input tokens a sample."""
    if num_tokens is not None:
        fullest = int(sum((~tokens.input_mask).sum(1) for tokens in batch.values()).max())  # pyright: ignore
        num_tokens = None if fullest <= num_tokens else num_tokens
    return model.decode(model.encode(batch, num_tokens=num_tokens), targets)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy in nats of `(B, heads, V)` against distributions of the same shape."""
    return -(target.float() * logits.float().log_softmax(-1)).sum(-1).mean()
