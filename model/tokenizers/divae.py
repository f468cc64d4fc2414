"""Tokenizers whose decoder is a diffusion model (DiVAE, arXiv 2206.00386, as used in 4M): RGB, depth, normals
and edges. Ids say what is there, and the decoder draws an image that fits them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self, cast

import torch
from torch import Tensor

from ...errors import CheckpointError, InputError, ModelError
from .diffusion import Diffusion, Noise, Progress
from .image import Reconstruction, TokenizerConfig, VectorQuantized
from .unet import PRESETS as UNETS
from .unet import UNet, UNetSize
from .uvit import PRESETS as UVITS
from .uvit import UVit, UVitSize

DEFAULT_STEPS = 25
"""Steps of `decode`; the authors' notebooks take 25 to 50."""

_CONDITIONINGS = ("concat", "add")


@dataclass(frozen=True)
class DiffusionTokenizerConfig(TokenizerConfig):
    """What defines a tokenizer with a diffusion decoder.

    Attributes:
        dec_type: `unet_patched`, `uvit_b_p4_f16`, or a name in `presets`.
        num_train_timesteps: times of the noise schedule.
        beta_schedule: `linear`, `scaled_linear`, `squaredcos_cap_v2` or `shifted_cosine:<shift>`.
        prediction_type: `sample`, `epsilon` or `v_prediction`.
        clip_sample, thresholding: either cuts images to -1..1 at each step.
        zero_terminal_snr: whether the last time is pure noise.
        scheduler: `ddim`, `ddpm` or `pndm`.
        conditioning: how codes enter; the published networks know one way each, whatever is written here.
        dec_transformer_dropout: of training only; kept because files may carry it.
        presets: sizes of decoders that have no published name.
    """

    ignored: ClassVar[tuple[str, ...]] = (
        *TokenizerConfig.ignored,
        "cls_free_guidance_dropout",
        "masked_cfg",
        "masked_cfg_low",
        "masked_cfg_high",
    )

    num_train_timesteps: int = 1000
    beta_schedule: str = "squaredcos_cap_v2"
    prediction_type: str = "v_prediction"
    clip_sample: bool = False
    thresholding: bool = True
    zero_terminal_snr: bool = True
    scheduler: str = "ddpm"
    conditioning: str = "concat"
    dec_transformer_dropout: float = 0.2
    presets: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.conditioning not in _CONDITIONINGS:
            raise ModelError(
                f"Unknown conditioning {self.conditioning!r}. Known: {', '.join(_CONDITIONINGS)}."
            )
        if self.quant_type != "lucid" or not self.enc_type.startswith("vit") or self.n_labels is not None:
            raise ModelError("A diffusion decoder needs images, a ViT encoder and a lucid quantizer.")

    @classmethod
    def parse(cls, values: Mapping[str, object], *, where: str = "config.json") -> Self:
        """Read configuration values strictly; CheckpointError says what is unknown, missing or wrong."""
        presets = values.get("presets")
        if presets is not None and not isinstance(presets, Mapping):
            raise CheckpointError(f"{where}: configuration key 'presets' must map names to sizes.")
        rest = {key: value for key, value in values.items() if key != "presets"}
        return replace(super().parse(rest, where=where), presets=cast("Mapping[str, object] | None", presets))

    def values(self) -> dict[str, object]:
        """What `parse` reads."""
        values = super().values()
        if self.presets is None:
            del values["presets"]
        return values

    def diffusion(self) -> Diffusion:
        """The process that the decoder was trained for."""
        return Diffusion(
            schedule=self.beta_schedule,
            num_times=self.num_train_timesteps,
            zero_terminal_snr=self.zero_terminal_snr,
            prediction=self.prediction_type,
            clip=self.clip_sample or self.thresholding,
            sampler=self.scheduler,
        )


class DiVAE(VectorQuantized):
    """Encoder, codebook, diffusion decoder. Satisfies `Tokenizer`.

    Args:
        config: what the checkpoint holds.
        encoder: build what `encode` needs.
        decoder: build what `decode` needs, by far the largest part.

    Raises:
        ModelError: the configuration names an unknown network, schedule or sampler.
    """

    config: DiffusionTokenizerConfig

    def __init__(
        self, config: DiffusionTokenizerConfig, *, encoder: bool = True, decoder: bool = True
    ) -> None:
        super().__init__(config, encoder=encoder)
        self.diffusion = config.diffusion()
        build = _decoder(config)
        if decoder:
            self.decoder = build()

    def decode(
        self,
        ids: Tensor,
        *,
        seed: int | Sequence[int] = 0,
        num_steps: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Ids as `encode` gives them to images.

        Args:
            ids: integers (B, rows, columns).
            seed: of the noise that images are made from. With one seed, the image of given ids is the same
                in any batch and on any device (up to rounding); a sequence gives each item its own.
            num_steps: of denoising, 25 by default. Time grows with it, and so does detail.
            progress: told after each step how many are done of how many.

        Returns:
            float32 (B, n_channels, rows * patch, columns * patch): RGB, normals and edges in -1..1, depth
            standardised; `decoded_values` turns them into a modality's values.

        Raises:
            InputError: ids out of range or in a grid that the decoder cannot halve often enough, or a
                useless number of steps or seeds.
        """
        return self.decode_codes(self.look_up(ids), seed=seed, num_steps=num_steps, progress=progress)

    @torch.no_grad()
    def decode_codes(
        self,
        codes: Tensor,
        *,
        seed: int | Sequence[int] = 0,
        num_steps: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Codes (B, latent_dim, rows, columns) to images, as `decode`."""
        patch = self._patch or 1
        height, width = codes.shape[-2] * patch, codes.shape[-1] * patch
        if height % self.decoder.multiple or width % self.decoder.multiple:
            raise InputError(
                f"This tokenizer decodes images whose sides are multiples of {self.decoder.multiple}, "
                f"not {height} x {width}."
            )
        noise = Noise(seed, (len(codes), self.config.n_channels, height, width), codes.device)
        condition = self.decoder.condition(codes, (height, width))
        return self.diffusion.sample(
            lambda x, time: self.decoder(x, time, condition),
            noise,
            DEFAULT_STEPS if num_steps is None else num_steps,
            progress,
        )

    def denoise(self, noised: Tensor, times: Tensor, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        """One pass of the decoder.

        Args:
            noised: images (B, n_channels, H, W) at `times`, as `diffusion.add_noise` gives them.
            times: (B,) or (1,), in 0..num_train_timesteps-1.
            codes: (B, latent_dim, rows, columns).
            mask: bool (B, rows, columns), True = hide this code.

        Returns:
            The prediction (B, n_channels, H, W): by `prediction_type` image, noise or velocity.
        """
        condition = self.decoder.condition(codes, (noised.shape[-2], noised.shape[-1]), mask)
        return self.decoder(noised, times, condition)

    def forward(
        self, values: Tensor, noised: Tensor, times: Tensor, mask: Tensor | None = None
    ) -> Reconstruction:
        """Values as in `encode` to codes, and the prediction for `noised` under these, as in `denoise`."""
        found = self.quantize(self.latent(values))
        return Reconstruction(self.denoise(noised, times, found.codes.movedim(-1, 1), mask), found.ids)

    def tied_keys(self) -> dict[str, str]:
        """State-dict keys that hold the same values: a file may have either or both of each pair."""
        if not self.config.dec_type.startswith("uvit"):
            return {}
        mid = "decoder.downsample_mid"
        return {f"{mid}.Conv2d_0.{name}": f"{mid}.conv.{name}" for name in ("weight", "bias")}


def _decoder(config: DiffusionTokenizerConfig) -> Callable[[], UNet | UVit]:
    name, presets = config.dec_type, config.presets
    if name.startswith("uvit"):
        uvit = UVitSize.parse(name, presets)
        return lambda: UVit(config.n_channels, config.latent_dim, uvit)
    if name.startswith("unet"):
        unet = UNetSize.parse(name, presets)
        return lambda: UNet(config.n_channels, config.latent_dim, unet)
    raise ModelError(f"{name!r} is no diffusion decoder. Known: {', '.join([*UNETS, *UVITS])}.")
