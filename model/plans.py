"""What to generate and how: a plan per target, with the settings of the 4M-21 demonstration as defaults."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from ..errors import QueryError
from .modalities import SEQUENCE_POSITIONS
from .schedule import MAX_STEPS, temperature_schedule, token_schedule

Scheme = Literal["roar", "maskgit", "autoregressive"]

SCHEMES: Mapping[str, str] = MappingProxyType(
    {
        "roar": "a grid, slots in random order",
        "maskgit": "a grid, all slots predicted in each step and the most confident kept",
        "autoregressive": "a sequence, token by token",
    }
)
"""Ways of decoding, and what each decodes."""

_MAX_SCALE = 1000.0


@dataclass(frozen=True)
class TargetPlan:
    """How one target is generated.

    Attributes:
        modality: a target of the model, `tok_depth@224` or `caption`.
        scheme: a key of SCHEMES.
        num_steps: decoder passes for a grid; fewer are made when there are fewer tokens.
        schedule: how a grid's tokens are spread over the steps, `linear` or `cosine`.
        temperature: divides the logits; 0 always takes the best token.
        temperature_schedule: over a grid's steps: `constant`, `linear`, `onex:MINIMUM:POWER`.
        top_k: how many of the best tokens may be drawn (below 1: which share of them); 0: all.
        top_p: tokens beyond this cumulative probability are not drawn; 0: all may be.
        guidance: pushes the prediction away from one without conditions: l = l_0 + guidance * (l - l_0), 1.0
            adding no push (arXiv 2207.12598). With weighted parts it multiplies their weights.
        guided_by: modalities that the prediction without conditions lacks; None: every condition and every
            target generated before. Parts decide this by themselves.
        weight: with weighted parts, the weight that this target has as a part for the targets after it.
        max_tokens: most tokens generated for a sequence; None: as many as the modality has.
        stop_ids: tokens that end a sequence; None: the sentinel that closes the last span to fill.

    Raises:
        QueryError: a setting without a meaning.
    """

    modality: str
    scheme: Scheme = "roar"
    num_steps: int = 1
    schedule: str = "linear"
    temperature: float = 0.01
    temperature_schedule: str = "constant"
    top_k: float = 0
    top_p: float = 0.8
    guidance: float = 1.0
    guided_by: tuple[str, ...] | None = None
    weight: float = 1.0
    max_tokens: int | None = None
    stop_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise QueryError(f"Unknown scheme {self.scheme!r}. Known: {', '.join(SCHEMES)}.")
        limits = {
            "temperature": (0.0, _MAX_SCALE),
            "top_p": (0.0, 1.0),
            "top_k": (0.0, math.inf),
            "guidance": (-_MAX_SCALE, _MAX_SCALE),
            "weight": (-_MAX_SCALE, _MAX_SCALE),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low <= value <= high:
                raise self._error(f"{name} must be a number in {low:g}..{high:g}, got {value!r}.")
        if self.top_k >= 1 and self.top_k % 1:
            raise self._error(f"top_k must be a whole number or a share below 1, got {self.top_k!r}.")
        for name, high in (("num_steps", MAX_STEPS), ("max_tokens", SEQUENCE_POSITIONS)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 1 <= value <= high):
                raise self._error(f"{name} must be a whole number in 1..{high}, got {value!r}.")
        self.temperatures(self.counts(1))

    def counts(self, num_tokens: int) -> list[int]:
        """How many of a grid's tokens each step decodes."""
        return token_schedule(self.schedule, self.num_steps, num_tokens)

    def temperatures(self, counts: list[int]) -> list[float]:
        """The temperature of each step."""
        return temperature_schedule(self.temperature_schedule, self.temperature, counts)

    def _error(self, problem: str) -> QueryError:
        return QueryError(f"Plan for {self.modality}: {problem}")


# The order in which the demonstration generates: features, geometry, semantics, edges, colour, then text.
_ORDER = (
    *("tok_clip", "tok_dinov2", "tok_imagebind", "tok_depth", "tok_normal", "tok_semseg", "tok_canny_edge"),
    *("tok_sam_edge", "tok_rgb", "caption", "det", "human_poses", "sam_instance", "color_palette"),
    *("metadata", "tok_dinov2_global", "tok_imagebind_global"),
)

_TEXT = {
    "caption": (256, 0.3),
    "det": (256, 0.3),
    "human_poses": (275, 0.1),
    "sam_instance": (256, 0.01),
    "color_palette": (23, 0.1),
    "metadata": (40, 0.1),
}
_GLOBAL = ("tok_dinov2_global", "tok_imagebind_global")
_FEATURES = ("tok_dinov2", "tok_imagebind")


def default_plan(modality: str, *, rgb_given: bool) -> TargetPlan:
    """The demonstration's settings for a target; for global embeddings those of the retrieval notebook.

    Args:
        modality: a target by checkpoint name, at any resolution.
        rgb_given: whether RGB is among the conditions: then one step is enough for whatever it shows.

    Raises:
        QueryError: no target of this name is known (known ones are listed).
    """
    base, _, size = modality.partition("@")
    if base in _TEXT:
        max_tokens, temperature = _TEXT[base]
        return TargetPlan(modality, "autoregressive", temperature=temperature, max_tokens=max_tokens)
    if base in _GLOBAL:
        return TargetPlan(modality, temperature=0.1)
    if base not in _ORDER:
        raise QueryError(f"No plan for {modality!r}. Known targets: {', '.join(_ORDER)} (@224, ...).")
    if size == "448":
        return _finer_plan(modality)
    grid = TargetPlan(modality, guidance=2.0)
    if rgb_given:
        return grid
    if base in _FEATURES:
        return replace(grid, num_steps=8)
    falling = replace(grid, temperature=3.0, temperature_schedule="onex:0.5:0.5")
    if base == "tok_clip":
        return replace(falling, num_steps=50, temperature=5.0, guidance=3.0)
    return replace(falling, num_steps=25 if base == "tok_rgb" else 8)


def default_plans(modalities: Iterable[str], *, rgb_given: bool) -> list[TargetPlan]:
    """Default plans for several targets, in the order in which the demonstration generates them.

    Raises:
        QueryError: a target of which no default is known.
    """
    names = dict.fromkeys(modalities)
    return _in_order(default_plan(name, rgb_given=rgb_given) for name in names)


def finer_plans(modalities: Iterable[str]) -> list[TargetPlan]:
    """The demonstration's settings of its super-resolution model for several grids, in the same order."""
    return _in_order(map(_finer_plan, dict.fromkeys(modalities)))


def _finer_plan(modality: str) -> TargetPlan:
    return TargetPlan(modality, "maskgit", num_steps=8, schedule="cosine", temperature=1.0, guidance=2.0)


def _in_order(plans: Iterable[TargetPlan]) -> list[TargetPlan]:
    return sorted(plans, key=lambda plan: _ORDER.index(plan.modality.partition("@")[0]))
