"""Diffusion: how much noise there is at each time, and how to walk from noise back to an image.

Schedules and steps follow DDPM (arXiv 2006.11239), DDIM (arXiv 2010.02502) and PNDM (arXiv 2202.09778); zero
terminal SNR and the choice of times arXiv 2305.08891; the shifted cosine arXiv 2301.11093. Arrays are kept in
numpy, so that a model built on the meta device has its tables too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InputError, ModelError

Spacing = Literal["trailing", "leading", "linspace"]
Denoise = Callable[[Tensor, Tensor], Tensor]
"""Noisy images (B, C, H, W) and times (1,) to the prediction (B, C, H, W)."""
Progress = Callable[[int, int], None]
"""Told after each step: steps done, steps in all."""

SAMPLERS = ("ddim", "ddpm", "pndm")
PREDICTIONS = ("sample", "epsilon", "v_prediction")
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "shifted_cosine:<shift>")

_BETAS = (1e-4, 0.02)
_MAX_BETA = 0.999
_MAX_LOG_SNR = 15.0
_MIN_VARIANCE = 1e-20
# Of Adams and Bashforth, for the noise seen now, one step ago, two, three.
_MULTISTEP = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class Denoiser(Protocol):
    """A network that `decode` of a diffusion tokenizer runs once per step."""

    multiple: int

    def condition(self, codes: Tensor, image_size: tuple[int, int], mask: Tensor | None = None) -> Tensor:
        """What `__call__` needs of the codes (B, D, rows, columns)."""
        ...

    def __call__(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Noisy images (B, C, H, W) at times (B or 1,) to the prediction (B, C, H, W)."""
        ...


def time_features(time: Tensor, dim: int) -> Tensor:
    """What a network is told of the time: times (B,) to cosines, then sines, float32 (B, dim)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, device=time.device))
    angles = time[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def alphas_cumprod(schedule: str, num_times: int, *, zero_terminal_snr: bool) -> NDArray[np.float32]:
    """Share of the image's variance that is left at each time, falling, float32 (num_times,).

    Args:
        schedule: one of SCHEDULES.
        num_times: training steps.
        zero_terminal_snr: rescale so that nothing is left at the last time; `shifted_cosine` always does so.

    Raises:
        ModelError: an unknown schedule.
    """
    name, _, shift = schedule.partition(":")
    if name == "shifted_cosine":
        return _shifted_cosine(shift, num_times)
    if schedule == "linear":
        betas = np.linspace(*_BETAS, num_times, dtype=np.float32)
    elif schedule == "scaled_linear":
        first, last = map(math.sqrt, _BETAS)
        betas = np.square(np.linspace(first, last, num_times, dtype=np.float32))
    elif schedule == "squaredcos_cap_v2":
        level = np.cos((np.arange(num_times + 1) / num_times + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - level[1:] / level[:-1], _MAX_BETA).astype(np.float32)
    else:
        raise ModelError(f"Unknown noise schedule {schedule!r}. Known: {', '.join(SCHEDULES)}.")
    alphas = np.cumprod(1 - betas, dtype=np.float32)
    return _without_signal_at_end(alphas) if zero_terminal_snr else alphas


def _without_signal_at_end(alphas: NDArray[np.float32]) -> NDArray[np.float32]:
    root = np.sqrt(alphas)
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    levels = np.square(root)
    # Through the betas again, as in training: the rounding of the smallest values differs.
    return np.cumprod(np.append(levels[:1], levels[1:] / levels[:-1]), dtype=np.float32)


def _shifted_cosine(shift: str, num_times: int) -> NDArray[np.float32]:
    try:
        scale = float(shift)
    except ValueError:
        scale = math.nan
    if not (math.isfinite(scale) and scale > 0):
        raise ModelError(f"shifted_cosine needs a shift above 0 as in shifted_cosine:0.5, got {shift!r}.")
    with np.errstate(divide="ignore"):  # time 0 has no noise: clipped below
        log_snr = -2 * (np.log(np.tan(np.pi / 2 * np.linspace(0, 1, num_times))) + np.log(scale))
    log_snr = np.clip(log_snr, -_MAX_LOG_SNR, _MAX_LOG_SNR).astype(np.float32)
    levels = 1 / (1 + np.exp(-log_snr))
    levels[-1] = 0
    return levels


def sampling_times(num_steps: int, num_times: int, spacing: Spacing = "trailing") -> list[int]:
    """Times to denoise at, falling.

    `trailing` starts at pure noise, and takes more steps than asked where `num_steps` does not divide
    `num_times`: 31 for 30 of 1000, as the published samplers do.

    Raises:
        InputError: `num_steps` is no whole number in 1..num_times, or an unknown spacing.
    """
    if type(num_steps) is not int or not 1 <= num_steps <= num_times:
        raise InputError(
            f"The number of diffusion steps must be a whole number in 1..{num_times}, got {num_steps!r}."
        )
    stride = num_times // num_steps
    if spacing == "trailing":
        return [time - 1 for time in range(num_times, 0, -stride)]
    if spacing == "leading":
        return [i * stride for i in reversed(range(num_steps))]
    if spacing == "linspace":
        return [int(time) - 1 for time in np.linspace(num_times, 1, num_steps).round()]
    raise InputError(f"Unknown spacing {spacing!r} of times. Known: trailing, leading, linspace.")


class Noise:
    """Standard normal noise that depends on an item's seed alone, not on its batch or device.

    Drawn on the CPU in float32, one generator per item.

    Args:
        seed: one seed for all items, or one for each.
        shape: (B, C, H, W).
        device: where the noise is needed.

    Raises:
        InputError: another number of seeds than items.
    """

    def __init__(
        self, seed: int | Sequence[int], shape: tuple[int, int, int, int], device: torch.device
    ) -> None:
        seeds = [seed] if isinstance(seed, int) else list(seed)
        if not isinstance(seed, int) and len(seeds) != shape[0]:
            raise InputError(f"Give one seed, or one per item: got {len(seeds)} for {shape[0]} items.")
        self._generators = [torch.Generator().manual_seed(one % 2**63) for one in seeds]
        self._shape, self._device = shape, device

    def draw(self) -> Tensor:
        """The next noise, (B, C, H, W)."""
        drawn = [torch.randn(self._shape[1:], generator=generator) for generator in self._generators]
        return torch.stack(drawn).to(self._device).expand(self._shape)


@dataclass(frozen=True)
class Diffusion:
    """The process that a denoiser was trained for.

    Attributes:
        schedule: one of SCHEDULES.
        num_times: training steps.
        zero_terminal_snr: whether the last time is pure noise.
        prediction: what the network gives: the image (`sample`), the noise (`epsilon`) or a mix of both
            (`v_prediction`, arXiv 2202.00512).
        clip: whether images are cut to -1..1 at each step. Dynamic thresholding (arXiv 2205.11487) with its
            published maximum of 1 is the same.
        sampler: `ddim`, deterministic from its starting noise; `pndm`, likewise, which learns from its last
            steps where the next one leads; or `ddpm`.

    Raises:
        ModelError: an unknown schedule, prediction or sampler, or a noise prediction at pure noise, which
            says nothing about the image.
    """

    schedule: str
    num_times: int
    zero_terminal_snr: bool
    prediction: str
    clip: bool
    sampler: str = "ddim"

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ModelError(f"Unknown diffusion sampler {self.sampler!r}. Known: {', '.join(SAMPLERS)}.")
        if self.prediction not in PREDICTIONS:
            raise ModelError(f"Unknown prediction type {self.prediction!r}. Known: {', '.join(PREDICTIONS)}.")
        if not 2 <= self.num_times <= 2**16:
            raise ModelError(f"A diffusion process has 2..65536 training steps, got {self.num_times}.")
        len(self.alphas)  # an unknown schedule is an error now, not in the first step

    @cached_property
    def alphas(self) -> NDArray[np.float32]:
        """Share of the image's variance at each time, (num_times,)."""
        return alphas_cumprod(self.schedule, self.num_times, zero_terminal_snr=self.zero_terminal_snr)

    def add_noise(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Images (B, C, H, W) as they are at times (B,)."""
        image, rest = self._shares(times, clean)
        return image * clean + rest * noise

    def velocity(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What a `v_prediction` network should give at times (B,)."""
        image, rest = self._shares(times, clean)
        return image * noise - rest * clean

    def ddim_step(self, output: Tensor, x: Tensor, time: int, stride: int) -> Tensor:
        """From `x` at `time` to `stride` times earlier, with the network's `output`; no noise is added."""
        clean, noise = self._split(output, x, float(self.alphas[time]))
        before = self._alpha(time - stride)
        return math.sqrt(before) * clean + math.sqrt(1 - before) * noise

    def pndm_step(self, output: Tensor, x: Tensor, time: int, stride: int, seen: list[Tensor]) -> Tensor:
        """As `ddim_step`, along a noise extrapolated from this step and up to three before (PLMS).

        Steps of fewer noises begin, instead of the paper's Runge-Kutta ones of four passes each: the first
        is that of DDIM. `stride` is the same in all steps.

        Args:
            output, x, time, stride: as in `ddim_step`.
            seen: noises of the steps before, latest first, empty at the start; that of this step is added.
        """
        now, before = self._alpha(time), self._alpha(time - stride)
        clean, noise = self._split(output, x, now)
        seen.insert(0, noise)
        del seen[len(_MULTISTEP) :]
        if len(seen) > 1:
            weights = _MULTISTEP[len(seen) - 1]
            noise = torch.stack([weight * one for weight, one in zip(weights, seen, strict=True)]).sum(0)
            clean = self._clipped((x - math.sqrt(1 - now) * noise) / math.sqrt(now))
        return math.sqrt(before) * clean + math.sqrt(1 - before) * noise

    def ddpm_step(self, output: Tensor, x: Tensor, time: int, stride: int, fresh: Tensor) -> Tensor:
        """From `x` at `time` to `stride` times earlier, adding `fresh` noise except at time 0."""
        now, before = self._alpha(time), self._alpha(time - stride)
        clean, _ = self._split(output, x, now)
        kept = now / before
        mean = (
            math.sqrt(before) * (1 - kept) / (1 - now) * clean
            + math.sqrt(kept) * (1 - before) / (1 - now) * x
        )
        if time == 0:
            return mean
        return mean + math.sqrt(max((1 - before) / (1 - now) * (1 - kept), _MIN_VARIANCE)) * fresh

    def sample(
        self, denoise: Denoise, noise: Noise, num_steps: int, progress: Progress | None = None
    ) -> Tensor:
        """Walk from noise to images.

        Args:
            denoise: the network under its condition.
            noise: where to start, and for `ddpm` what to add.
            num_steps: at `trailing` times (see `sampling_times`), for `ddpm` at `leading` ones.
            progress: called after each step.

        Returns:
            float32 (B, C, H, W).
        """
        times = sampling_times(num_steps, self.num_times, "leading" if self.sampler == "ddpm" else "trailing")
        stride = self.num_times // num_steps
        seen: list[Tensor] = []
        x = noise.draw()
        if self.prediction == "epsilon" and self.alphas[times[0]] == 0:
            raise ModelError("A network that predicts noise cannot start at pure noise (zero terminal SNR).")
        for step, time in enumerate(times):
            output = denoise(x, torch.tensor([time], device=x.device)).float()
            if self.sampler == "ddpm":
                x = self.ddpm_step(output, x, time, stride, noise.draw())
            elif self.sampler == "pndm":
                x = self.pndm_step(output, x, time, stride, seen)
            else:
                x = self.ddim_step(output, x, time, stride)
            if progress is not None:
                progress(step + 1, len(times))
        return x

    def _alpha(self, time: int) -> float:
        return float(self.alphas[time]) if time >= 0 else 1.0

    def _shares(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = torch.as_tensor(self.alphas, device=like.device)[times][:, None, None, None]
        return alphas.sqrt(), (1 - alphas).sqrt()

    def _split(self, output: Tensor, x: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
        """The image, clipped, and the noise that the network sees in `x`, as if nothing were clipped."""
        image, rest = math.sqrt(alpha), math.sqrt(1 - alpha)
        if self.prediction == "sample":
            clean, noise = output, (x - image * output) / rest
        elif self.prediction == "epsilon":
            clean, noise = (x - rest * output) / image, output
        else:
            clean, noise = image * x - rest * output, image * output + rest * x
        return self._clipped(clean), noise

    def _clipped(self, clean: Tensor) -> Tensor:
        return clean.clamp(-1, 1) if self.clip else clean
