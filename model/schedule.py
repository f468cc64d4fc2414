"""Decoding schedules: how many tokens of a grid each step decodes, and at which temperature.

As in 4M (arXiv 2312.06647, appendix on generation), to the last rounding.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from ..errors import QueryError

MAX_STEPS = 4096
"""No grid has more tokens to decode one by one."""

MIN_TEMPERATURE = 1e-9
"""What falling temperatures end at: greedy drawing in effect."""

_ONEX_END = 100.0  # 1/x is taken over 1..100


def cosine_schedule(num_steps: int, num_tokens: int) -> list[int]:
    """Few tokens at the ends, most in the middle (MaskGIT, arXiv 2202.04200).

    Returns:
        `num_steps` counts that sum to `num_tokens`. The last takes what rounding left: with many steps it
        may be 0 or even negative, where earlier steps took a token too many.
    """
    left = [0.5 * (1 + math.cos(math.pi * i / num_steps)) for i in range(num_steps + 1)]
    counts = [round(num_tokens * (a - b)) for a, b in pairwise(left[:-1])]
    return [*counts, num_tokens - sum(counts)]


def linear_schedule(num_steps: int, num_tokens: int) -> list[int]:
    """Equal counts, larger ones first, that sum to `num_tokens`; never more steps than tokens."""
    share, surplus = divmod(num_tokens, num_steps)
    counts = [share + (i < surplus) for i in range(num_steps)]
    return [count for count in counts if count]


TOKEN_SCHEDULES = MappingProxyType({"linear": linear_schedule, "cosine": cosine_schedule})
"""By the name that a plan uses."""


def token_schedule(name: str, num_steps: int, num_tokens: int) -> list[int]:
    """How many of `num_tokens` to decode in each of at most `num_steps` steps: counts of 0 or more.

    Raises:
        QueryError: unknown name (known ones are listed), or a number of steps outside 1..MAX_STEPS.
    """
    if name not in TOKEN_SCHEDULES:
        raise QueryError(f"Unknown token schedule {name!r}. Known: {', '.join(TOKEN_SCHEDULES)}.")
    if not 1 <= num_steps <= MAX_STEPS:
        raise QueryError(f"A grid is decoded in 1..{MAX_STEPS} steps, got {num_steps}.")
    counts: list[int] = []
    left = num_tokens
    for count in TOKEN_SCHEDULES[name](num_steps, num_tokens):
        counts.append(min(max(count, 0), left))
        left -= counts[-1]
    return counts


def linear_temperature(temperature: float, counts: Sequence[int]) -> list[float]:
    """In proportion to the share of tokens still to decode when a step begins."""
    total = sum(counts)
    done = np.cumsum(counts) - np.asarray(counts)
    left = (total - done) / max(total, 1)
    return [max(float(temperature * share), MIN_TEMPERATURE) for share in left]


def onex_temperature(
    temperature: float, counts: Sequence[int], *, minimum: float, power: float
) -> list[float]:
    """From `temperature` to `minimum` along x^-power, faster the more tokens are decoded.

    The curve is indexed by step, while the share of tokens left when a step ends scales it: so the reference
    does it.
    """
    total = sum(counts)
    curve = np.linspace(1, _ONEX_END, max(total, 1)) ** -power
    curve = (curve - curve.min()) / (np.ptp(curve) or 1.0)
    left = (total - np.cumsum(counts)) / max(total, 1)
    values = minimum + (temperature - minimum) * left * curve[np.arange(len(counts)).clip(max=len(curve) - 1)]
    return [max(float(value), MIN_TEMPERATURE) for value in values]


def temperature_schedule(name: str, temperature: float, counts: Sequence[int]) -> list[float]:
    """The temperature of each step.

    Args:
        name: `constant`, `linear` or `onex:MINIMUM:POWER`, e.g. `onex:0.5:0.5`.
        temperature: where it starts.
        counts: tokens decoded in each step.

    Raises:
        QueryError: a name that means nothing.
    """
    kind, *numbers = name.split(":")
    if kind == "onex" and len(numbers) == 2:
        minimum, power = (_number(text, name) for text in numbers)
        return onex_temperature(temperature, counts, minimum=minimum, power=power)
    if name == "linear":
        return linear_temperature(temperature, counts)
    if name == "constant":
        return [temperature] * len(counts)
    raise QueryError(
        f"Unknown temperature schedule {name!r}. Known: constant, linear, onex:MINIMUM:POWER (onex:0.5:0.5)."
    )


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1000:
        raise QueryError(f"Temperature schedule {name!r}: {text!r} must be a number in 0..1000.")
    return value
