"""Masked multimodal training of a 4M model, the same bit for bit when it is interrupted and taken up again
(arXiv 2312.06647; settings of arXiv 2406.09406, appendix).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...errors import ConfigError, InputError, ModelError
from ..checkpoint import save_checkpoint
from ..fourm import FourM
from ..presets import FourMConfig
from .batches import Batches
from .distributed import Strategy, World, like, like_all, spread, whole
from .gradients import Gradients, InTurn, Scaled, SideBySide
from .learning_rate import warmup_cosine
from .lora import Lora, merge_lora
from .objective import Objective, masked_losses
from .pretrain_recipe import PretrainRecipe, require_same_recipe
from .run_log import RunLog
from .run_state import read_state, write_state

__all__ = [
    "BEST",
    "CHECKPOINT",
    "HELD_OUT",
    "LAST",
    "LOG",
    "Batches",
    "Evaluate",
    "PretrainRecipe",
    "Pretrainer",
    "masked_losses",
]

CHECKPOINT = "fourm.ckpt"
LOG = "fourm.jsonl"
BEST = "fourm.safetensors"
LAST = "last.safetensors"

HELD_OUT = "held_out"
"""Key of what an evaluation finds that says which weights are best; smaller is better."""

Evaluate = Callable[[FourM], dict[str, float]]


class Pretrainer:
    """Owns model, optimizer, running average of the weights and position in the run.

    In `folder` lie `fourm.ckpt`, the state of the run, `fourm.jsonl`, its log, and in the published format
    the averaged weights: `fourm.safetensors` those that evaluated best (the last ones where nothing
    evaluates) and `last.safetensors`.

    Args:
        config: the model.
        batches: input.
        recipe: how.
        folder: where files lie; a state found there is continued.
        prepare: changes a fresh model before the first step: loads weights, freezes some, adds adapters. It
            runs on every start and must do the same each time.
        lora: the adapters that `prepare` adds; they are merged in what is evaluated and saved.
        threads: parts of a step that run at a time on a processor, each on one core; of no effect on the
            result but for 1, where torch shares products among its own threads and sums in another order.
        world: the processes of the run, and the device.
        strategy: how several processes share the model.

    Raises:
        ConfigError: parts cannot be shared evenly among the processes, or nothing is left to train.
        InputError: the folder holds the state of another run.
    """

    def __init__(
        self,
        config: FourMConfig,
        batches: Batches,
        recipe: PretrainRecipe,
        folder: Path,
        *,
        prepare: Callable[[FourM], None] | None = None,
        lora: Lora | None = None,
        threads: int = 2,
        world: World | None = None,
        strategy: Strategy = "ddp",
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.batches, self.folder, self.lora = recipe, batches, folder, lora
        self.world = world or World(torch.device("cpu"))
        if recipe.parts % self.world.size:
            raise ConfigError(f"parts: {recipe.parts} is no multiple of the {self.world.size} processes.")
        self.model = FourM(config)
        if prepare is not None:
            prepare(self.model)
        self.model.to(self.world.device)
        if recipe.checkpointing:
            _recompute_blocks(self.model)
        self._gradients = self._spread(strategy, min(threads, recipe.parts))
        self._learning = [p for p in self.model.parameters() if p.requires_grad]
        if not self._learning:
            raise ConfigError("Nothing is left to train: all weights are frozen and none are new.")
        self._average = {name: p.detach().clone() for name, p in self._named_learning()}
        self.optimizer = self._adamw(fused=strategy == "ddp" or self.world.size == 1)
        self.step, self.seconds, self.best = 0, 0.0, float("inf")
        self._sums: dict[str, tuple[float, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        is_logged = recipe.tensorboard and self.world.is_first
        self._log = RunLog(folder / LOG, folder / "tensorboard" if is_logged else None)
        if (folder / CHECKPOINT).exists():
            self._restore()
        if self.world.is_first:
            self._log.rewind(self.step)

    def run(
        self,
        evaluate: Evaluate | None = None,
        until: int | None = None,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int], None] | None = None,
    ) -> bool:
        """Train to the end, or to step `until`.

        Args:
            evaluate: gets the averaged model at every save; what it finds is logged, and `held_out` decides
                which weights are kept as the best.
            until: step to stop at.
            should_stop: asked after every step; the state is saved before it stops.
            progress: told the step.

        Returns:
            Whether it got there, and was not stopped.
        """
        recipe, world = self.recipe, self.world
        stop, since = min(recipe.steps, recipe.steps if until is None else until), time.monotonic()
        self.model.train()
        while self.step < stop:
            self._train_step()
            self.step += 1
            is_last = self.step == stop
            stopped = world.any(should_stop()) and not is_last
            entry = self._losses() if self.step % recipe.log_every == 0 or is_last else {}
            is_saved = self.step % recipe.save_every == 0 or is_last
            if is_saved:
                entry |= self._judge(evaluate)
            self.seconds, since = self.seconds + time.monotonic() - since, time.monotonic()
            if entry and world.is_first:
                self._log.write(self.step, {"s": round(self.seconds, 1)} | entry)
            if is_saved or stopped:
                self._save()
            if progress is not None:
                progress(self.step)
            if stopped:
                return False
        return True

    def averaged(self) -> FourM:
        """A copy of the model with the running average of its weights, adapters merged; in all processes."""
        state = whole(self.model.state_dict()) | whole(self._average)
        if self.lora is not None:
            state = merge_lora(state, self.lora)
        with torch.device("meta"):
            model = FourM(self.model.config)
        model.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, assign=True)
        return _tied(model).to(self.world.device).eval()

    def _spread(self, strategy: Strategy, threads: int) -> Gradients:
        world, bfloat16 = self.world, self.recipe.precision == "bfloat16"
        backward = Scaled(self.recipe.weights, bfloat16=bfloat16, device=world.device)
        if world.size > 1:
            objective = Objective(self.model, touch_all=strategy == "fsdp")
            return InTurn(spread(objective, world, strategy), backward)
        if world.device.type == "cpu" and threads > 1:
            return SideBySide(Objective(self.model), backward, threads)
        return InTurn(Objective(self.model), backward)

    def _adamw(self, *, fused: bool) -> torch.optim.AdamW:
        recipe = self.recipe
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self._learning if p.ndim == 2], "weight_decay": recipe.weight_decay},
            {"params": [p for p in self._learning if p.ndim != 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, recipe.learning_rate, recipe.betas, recipe.eps, fused=fused)

    def _named_learning(self) -> list[tuple[str, nn.Parameter]]:
        """Under every name that a tied one has: each is a key of the files."""
        named = self.model.named_parameters(remove_duplicate=False)
        return [(name, parameter) for name, parameter in named if parameter.requires_grad]

    def _train_step(self) -> None:
        recipe, world = self.recipe, self.world
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * warmup_cosine(self.step, recipe.steps, recipe.warmup)
        first = self.step * recipe.parts
        mine = range(first + world.rank, first + recipe.parts, world.size)
        for losses in self._gradients([partial(self.batches.draw, number) for number in mine]):
            if not all(map(math.isfinite, losses.values())):
                raise ModelError(
                    f"The loss is not finite after step {self.step}: {losses}. What was saved last is sound; "
                    "take a smaller learning_rate, or a smaller clip, in another folder."
                )
            for name, value in losses.items():
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = total + value, count + 1
        if recipe.clip:
            nn.utils.clip_grad_norm_(self._learning, recipe.clip)
        self.optimizer.step()
        # A short memory at first, or the average would remember the random start.
        keep = min(recipe.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for name, value in self._named_learning():
                self._average[name].lerp_(value.detach(), 1 - keep)

    def _losses(self) -> dict[str, float]:
        """Mean losses since this was last asked, and the learning rate."""
        sums = self._gathered_sums()
        self._sums = {}
        rate = self.optimizer.param_groups[0]["lr"]
        return {"lr": float(f"{rate:.4g}")} | {
            f"loss.{name}": round(total / count, 4) for name, (total, count) in sorted(sums.items())
        }

    def _gathered_sums(self) -> dict[str, tuple[float, int]]:
        sums: dict[str, tuple[float, int]] = {}
        for part in self.world.gather(self._sums):
            for name, (total, count) in part.items():
                before = sums.get(name, (0.0, 0))
                sums[name] = before[0] + total, before[1] + count
        return sums

    def _judge(self, evaluate: Evaluate | None) -> dict[str, float]:
        """Evaluate the averaged model and write its weights."""
        model, found = self.averaged(), dict[str, float]()
        if self.world.is_first:
            found = evaluate(model) if evaluate is not None else {}
            save_checkpoint(model, self.folder / LAST)
            if found.get(HELD_OUT, float("-inf")) < self.best:
                save_checkpoint(model, self.folder / BEST)
        self.best = self.world.gather(min(self.best, found.get(HELD_OUT, self.best)))[0]
        return found

    def _save(self) -> None:
        sums = self._gathered_sums()
        state = {
            "model": whole(self.model.state_dict()),
            "average": whole(self._average),
            "optimizer": whole(self.optimizer.state_dict()),
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "sums": {name: list(pair) for name, pair in sums.items()},
            "recipe": asdict(self.recipe),
        }
        if self.world.is_first:
            write_state(self.folder / CHECKPOINT, state)
        self.world.wait()

    def _restore(self) -> None:
        path = self.folder / CHECKPOINT
        state = read_state(path, "cpu")
        require_same_recipe(self.recipe, state["recipe"], path)
        try:
            with torch.no_grad():
                for name, tensor in self.model.state_dict().items():
                    tensor.copy_(like(state["model"][name], tensor))
                for name, tensor in self._average.items():
                    tensor.copy_(like(state["average"][name], tensor))
            grouped = [p for group in self.optimizer.param_groups for p in group["params"]]
            self.optimizer.load_state_dict(like_all(state["optimizer"], grouped))
        except (KeyError, RuntimeError, ValueError) as error:
            raise InputError(f"{path} is the state of another model: {error}.") from error
        self.step, self.seconds = state["step"], state["seconds"]
        self.best = state.get("best", self.best)
        if self.world.is_first:
            self._sums = {name: (total, count) for name, (total, count) in state.get("sums", {}).items()}


def _recompute_blocks(model: FourM) -> None:
    """Have the blocks compute their inner activations again in the backward pass."""
    for block in (*model.encoder, *model.decoder):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def _tied(model: FourM) -> FourM:
    """Tie modality embeddings again: loading by assignment gave each name a tensor of its own."""
    for name, twin in model.tied_keys().items():
        source = model.get_parameter(twin)
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, source)
    return model
