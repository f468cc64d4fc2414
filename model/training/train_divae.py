"""Training of tokenizers whose decoder is a diffusion model (DiVAE, arXiv 2206.00386; 4M, arXiv 2312.06647).

The decoder sees a noised image at a random time and the codes, and learns to say image, noise or velocity,
whichever its configuration predicts. Encoder and codes learn along, or come from a tokenizer that has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import ModelError
from ..tokenizers.divae import DiffusionTokenizerConfig, DiVAE
from ..tokenizers.image import VectorQuantized
from .fit import Fit, full_precision
from .run_log import RunLog
from .train_vq import LearnedCodes, VqRecipe

_ENCODER_KEYS = (
    *("n_channels", "enc_type", "codebook_size", "latent_dim", "patch_size", "patch_proj", "post_mlp"),
    *("norm_codes", "undo_std"),
)
"""Of a configuration: what two tokenizers must share for one to take the other's encoder and codes."""


@dataclass(frozen=True)
class DivaeRecipe(VqRecipe):
    """How a tokenizer with a diffusion decoder is trained.

    Attributes:
        freeze_encoder: whether an encoder that was taken over stays as it is, its codes included.
    """

    freeze_encoder: bool = True


class DiffusionObjective:
    """Noised images back to what they were, by their codes.

    Args:
        tokenizer: to train.
        recipe: of the codes.
        generator: as for `Codebook`.
        is_frozen: leave encoder and codes as they are.
    """

    def __init__(
        self,
        tokenizer: DiVAE,
        recipe: VqRecipe,
        generator: torch.Generator | None = None,
        *,
        is_frozen: bool = False,
    ) -> None:
        require_trainable(tokenizer.config)
        self.network = tokenizer
        self._codes = None if is_frozen else LearnedCodes(tokenizer, recipe, generator)
        if is_frozen:
            tokenizer.encoder.requires_grad_(False)
            tokenizer.quant_proj.requires_grad_(False)

    def loss(self, batch: Tensor) -> tuple[Tensor, Mapping[str, float]]:
        """Of images (B, n_channels, H, W) as `encode` takes them."""
        codes, commitment, numbers = self._find(batch)
        process, clean = self.network.diffusion, batch.float()
        times = torch.randint(process.num_times, (len(clean),)).to(clean.device)
        noise = torch.randn(clean.shape).to(clean.device)
        output = self.network.denoise(process.add_noise(clean, noise, times), times, codes)
        wanted = {"sample": clean, "epsilon": noise}.get(process.prediction)
        if wanted is None:
            wanted = process.velocity(clean, noise, times)
        error = functional.mse_loss(output.float(), wanted)
        return error + commitment, {"denoised": error.item(), **numbers}

    def update(self, step: int) -> Mapping[str, float]:
        """Let the codes follow."""
        del step
        return {} if self._codes is None else self._codes.update()

    def _find(self, batch: Tensor) -> tuple[Tensor, Tensor | float, Mapping[str, float]]:
        if self._codes is not None:
            return self._codes.find(batch)
        with torch.no_grad(), full_precision(batch.device):
            return self.network.look_up(self.network.encode(batch)), 0.0, {}


def require_trainable(config: DiffusionTokenizerConfig) -> None:
    """Raise ModelError where training makes a decoder that cannot start from noise, or gets other images."""
    process = config.diffusion()
    if process.prediction == "epsilon" and process.alphas[-1] == 0:
        raise ModelError(
            "prediction_type epsilon says nothing about the image at pure noise: take sample or "
            "v_prediction, or zero_terminal_snr: false."
        )
    if config.undo_std:
        raise ModelError("undo_std is for values standardised as ImageNet's; here they come in -1..1.")


def take_encoder(tokenizer: VectorQuantized, source: VectorQuantized) -> None:
    """Copy encoder, projection and codes of one tokenizer into another.

    Raises:
        ModelError: they differ in what these are made of.
    """
    mine, theirs = tokenizer.config, source.config
    other = [key for key in _ENCODER_KEYS if getattr(mine, key) != getattr(theirs, key)]
    if other:
        told = ", ".join(f"{key} {getattr(theirs, key)} in place of {getattr(mine, key)}" for key in other)
        raise ModelError(f"The encoder to start from does not fit: {told}.")
    state = tokenizer.state_dict()
    taken = {
        name: value
        for name, value in source.state_dict().items()
        if name.startswith(("encoder.", "quant_proj.", "quantize."))
    }
    for name, value in taken.items():
        if state[name].shape != value.shape:
            raise ModelError(
                f"The encoder to start from does not fit: {name} has shape {tuple(value.shape)}, not "
                f"{tuple(state[name].shape)}; give both the same image_size_enc."
            )
    tokenizer.load_state_dict(state | taken)


def train_divae(
    config: DiffusionTokenizerConfig,
    draw: Callable[[int], Tensor],
    recipe: DivaeRecipe,
    log: Path | None = None,
    *,
    start_from: VectorQuantized | None = None,
) -> DiVAE:
    """Fit a tokenizer with a diffusion decoder.

    Args:
        config: of it.
        draw: gives batch number n, images (B, n_channels, H, W) as `encode` takes them.
        recipe: how long and how fast.
        log: JSON lines go there.
        start_from: a tokenizer whose encoder and codes it takes over.

    Returns:
        The tokenizer with its averaged weights, in evaluation mode.

    Raises:
        ModelError: the encoder to start from has another shape, or the configuration cannot be trained.
    """
    torch.manual_seed(recipe.seed)
    fit = Fit(divae_objective(config, recipe, start_from), draw, recipe, log=RunLog(log))
    fit.run()
    return fit.averaged()


def divae_objective(
    config: DiffusionTokenizerConfig, recipe: DivaeRecipe, start_from: VectorQuantized | None
) -> DiffusionObjective:
    """A fresh tokenizer and what it learns; arguments as in `train_divae`."""
    tokenizer = DiVAE(config)
    is_frozen = start_from is not None and recipe.freeze_encoder
    objective = DiffusionObjective(tokenizer, recipe, is_frozen=is_frozen)
    if start_from is not None:
        take_encoder(tokenizer, start_from)
    return objective
