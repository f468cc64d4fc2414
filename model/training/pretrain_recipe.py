"""How long a 4M model is trained, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from ...errors import InputError
from .fit import Count, NotNegative, Positive, Share

_FREE = ("log_every", "save_every", "tensorboard", "checkpointing")


@dataclass(frozen=True)
class PretrainRecipe:
    """How long and how fast.

    Attributes:
        steps, learning_rate, warmup, weight_decay, betas, eps, seed: as usual; AdamW, cosine to 0.
        parts: batches of a step, over all processes; their gradients are averaged.
        clip: largest norm of the gradients; 0 does not clip.
        ema: how much the running average of the weights keeps of itself in a step.
        weights: of the losses of target modalities by name, 1 where not named.
        precision: of matrix products; weights are float32.
        checkpointing: keep only the borders of blocks for the backward pass: less memory, a third more time.
        log_every, save_every: steps. At saves, and at the end, the model is evaluated too.
        tensorboard: write what is logged for TensorBoard too.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    steps: Count = 6000
    parts: Count = 2
    learning_rate: Positive = 1.2e-3
    warmup: Annotated[int, Field(ge=0)] = 200
    weight_decay: NotNegative = 0.05
    betas: tuple[Share, Share] = (0.9, 0.95)
    eps: Positive = 1e-8
    clip: NotNegative = 1.0
    ema: Share = 0.998
    seed: Annotated[int, Field(ge=0)] = 0
    weights: dict[str, NotNegative] = field(default_factory=dict[str, float])
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    checkpointing: bool = False
    log_every: Count = 50
    save_every: Count = 250
    tensorboard: bool = False


def require_same_recipe(recipe: PretrainRecipe, before: Mapping[str, Any], path: Path) -> None:
    """How a run is logged and saved may change on the way; what it computes may not."""
    for key, value in asdict(recipe).items():
        old = before.get(key, value)  # a state from before there was such a key says nothing of it
        if key not in _FREE and old != value:
            raise InputError(
                f"{path} is the state of a run with {key}: {old}, this one has {value}; finish that one, or "
                "start in another folder."
            )
