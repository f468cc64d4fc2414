"""Tokenizers of image-like data and single vectors: values to token ids and back.

`VQVAE` is the class of the published checkpoints whose decoder is a plain network (arXiv 2406.09406,
tokenizer section); those for single vectors (global embeddings, poses) are MLPs around Memcodes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import CheckpointError, ModelError
from ..parsing import parse_config
from .mlp import BottleneckMLP, MlpSize
from .quantizers import Memcodes

# They mark a tokenizer whose decoder is a diffusion model.
_DIFFUSION_KEYS = ("beta_schedule", "prediction_type", "scheduler", "num_train_timesteps", "thresholding")
_REQUIRED = (
    "n_channels",
    "enc_type",
    "dec_type",
    "quant_type",
    "codebook_size",
    "num_codebooks",
    "latent_dim",
)


class Tokenizer(Protocol):
    """What a model needs from any tokenizer of values shaped (B, C, *S), S being () for single vectors."""

    def encode(self, values: Tensor) -> Tensor:
        """Values to ids."""
        ...

    def decode(self, ids: Tensor) -> Tensor:
        """Ids to values."""
        ...

    def codebook(self) -> Tensor:
        """Code vectors (heads, codebook_size, width)."""
        ...

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Code vectors, also ones between those of the codebook, to values."""
        ...


@dataclass(frozen=True)
class TokenizerConfig:
    """What defines a tokenizer; field names are the keys of a published `config.json`.

    Attributes:
        n_channels: channels of the values.
        enc_type, dec_type: networks by name, `BottleneckMLP/B_6-Wi_1024`.
        quant_type: `memcodes`.
        codebook_size: codes in each codebook.
        num_codebooks: ids per vector.
        latent_dim: width of what is quantized, a multiple of `num_codebooks`.
        n_labels, image_size, image_size_enc, image_size_dec, patch_size, patch_size_dec, patch_proj,
            post_mlp, out_conv, norm_codes, norm_latents, undo_std, sync_codebook: of no effect on vectors;
            kept because files carry them.
    """

    n_channels: int
    enc_type: str = "BottleneckMLP/B_6-Wi_1024"
    dec_type: str = "BottleneckMLP/B_6-Wi_1024"
    quant_type: str = "memcodes"
    codebook_size: int = 8192
    num_codebooks: int = 16
    latent_dim: int = 1024
    n_labels: int | None = None
    image_size: int = 224
    image_size_enc: int | None = None
    image_size_dec: int | None = None
    patch_size: int = 16
    patch_size_dec: int | None = None
    patch_proj: bool = False
    post_mlp: bool = True
    out_conv: bool = False
    norm_codes: bool = True
    norm_latents: bool = False
    undo_std: bool = False
    sync_codebook: bool = False

    def __post_init__(self) -> None:
        for name in ("n_channels", "codebook_size", "num_codebooks", "latent_dim"):
            if not 0 < getattr(self, name) <= 2**20:
                raise ModelError(f"{name} must lie in 1..{2**20}, got {getattr(self, name)}.")
        if self.latent_dim % self.num_codebooks:
            raise ModelError(
                f"latent_dim {self.latent_dim} is no multiple of num_codebooks {self.num_codebooks}."
            )

    @classmethod
    def parse(cls, values: Mapping[str, object], *, where: str = "config.json") -> "TokenizerConfig":
        """Read configuration values strictly; CheckpointError says what is unknown, missing or wrong."""
        if any(key in values for key in _DIFFUSION_KEYS):
            raise CheckpointError(f"{where}: tokenizers with a diffusion decoder are not supported yet.")
        try:
            return parse_config(cls, values, where=where, required=_REQUIRED)
        except CheckpointError:
            raise
        except ModelError as error:
            raise CheckpointError(f"{where}: {error}") from error

    def values(self) -> dict[str, object]:
        """What `parse` reads."""
        return asdict(self)


@dataclass(frozen=True)
class Reconstruction:
    """Decoded values (B, C, *S) and the ids (B, heads, *S) that they went through."""

    values: Tensor
    ids: Tensor


class VQVAE(nn.Module):
    """Encoder, codebooks, decoder. Satisfies `Tokenizer`.

    Args:
        config: what the checkpoint holds.
        encoder: build what `encode` needs.
        decoder: build what `decode` needs.

    Raises:
        ModelError: the configuration names networks or codebooks of another kind.
    """

    def __init__(self, config: TokenizerConfig, *, encoder: bool = True, decoder: bool = True) -> None:
        super().__init__()
        if config.quant_type != "memcodes" or config.undo_std or config.n_labels is not None:
            raise ModelError(
                f"Only tokenizers of vectors with memcodes are supported yet, not {config.enc_type!r} with "
                f"{config.quant_type!r}."
            )
        self.config = config
        enc_size, dec_size = MlpSize.parse(config.enc_type), MlpSize.parse(config.dec_type)
        if encoder:
            self.encoder = BottleneckMLP(config.n_channels, enc_size.width, enc_size)
            self.quant_proj = Pointwise(enc_size.width, config.latent_dim)
        self.quantize = Memcodes(config.num_codebooks, config.codebook_size, config.latent_dim)
        if decoder:
            self.post_quant_proj = Pointwise(config.latent_dim, dec_size.width)
            self.decoder = BottleneckMLP(dec_size.width, config.n_channels, dec_size)

    def encode(self, values: Tensor) -> Tensor:
        """Values (B, n_channels, *S) to ids, int64 (B, num_codebooks, *S)."""
        return self.quantize.encode(self.latent(values)).movedim(-1, 1)

    def decode(self, ids: Tensor) -> Tensor:
        """Ids (B, num_codebooks, *S) to values (B, n_channels, *S)."""
        return self.decode_codes(self.quantize.look_up(ids.movedim(1, -1)).movedim(-1, 1))

    def codebook(self) -> Tensor:
        """What each id stands for: (num_codebooks, codebook_size, latent_dim / num_codebooks).

        Codes of all heads, concatenated in head order, are what `decode_codes` takes; the expected code under
        a distribution over ids may stand in for each.
        """
        return self.quantize.codebook()

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Codes (B, latent_dim, *S) to values (B, n_channels, *S)."""
        return self.decoder(self.post_quant_proj(codes.movedim(1, -1))).movedim(-1, 1)

    def latent(self, values: Tensor) -> Tensor:
        """What gets quantized: values (B, n_channels, *S) to (B, *S, latent_dim)."""
        return self.quant_proj(self.encoder(values.movedim(1, -1)))

    def forward(self, values: Tensor) -> Reconstruction:
        """Values (B, n_channels, *S) through the codes and back; differentiable in training mode."""
        found = self.quantize(self.latent(values))
        return Reconstruction(self.decode_codes(found.codes.movedim(-1, 1)), found.ids.movedim(-1, 1))


class Pointwise(nn.Module):
    """A linear map over channels, stored as the 1 x 1 convolution that files hold."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num_out))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., num_in) to (..., num_out)."""
        return functional.linear(x, self.weight[:, :, 0, 0], self.bias)
