"""Tokenizers of image-like data and single vectors: values to token ids and back.

`VQVAE` is the class of the published checkpoints whose decoder is a plain network (arXiv 2406.09406,
tokenizer section): ViTs around one codebook for images and grids of features, MLPs around Memcodes for single
vectors (global embeddings, poses). `divae.py` has those whose decoder is a diffusion model.

What a modality's values are, before `encode` and after `decode`, says `values.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, InputError, ModelError
from ..modalities import MAX_IMAGE_SIZE
from ..parsing import parse_config
from .diffusion import Progress
from .layers import Pointwise
from .mlp import BottleneckMLP, MlpSize
from .quantizers import Memcodes, VectorQuantizer
from .vit import VitDecoder, VitEncoder, VitSize

_REQUIRED = (
    "n_channels",
    "enc_type",
    "dec_type",
    "quant_type",
    "codebook_size",
    "num_codebooks",
    "latent_dim",
)
_QUANTIZERS = ("lucid", "memcodes")
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Tokenizer(Protocol):
    """What a model needs from any tokenizer of values shaped (B, C, *S), S being () for single vectors."""

    def encode(self, values: Tensor) -> Tensor:
        """Values to ids."""
        ...

    def decode(
        self,
        ids: Tensor,
        *,
        seed: int | Sequence[int] = 0,
        num_steps: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
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
        n_channels: channels of the values, or width of a class's embedding.
        enc_type, dec_type: networks by name, `BottleneckMLP/B_6-Wi_1024`, `vit_b_enc`, `vit_b_dec`.
        quant_type: `lucid` (one codebook of vectors) or `memcodes`.
        codebook_size: codes in each codebook.
        num_codebooks: ids per vector; 1 for `lucid`.
        latent_dim: width of what is quantized, a multiple of `num_codebooks`.
        n_labels: number of classes, where the values are class labels.
        image_size, image_size_enc, image_size_dec: side of the image that the position maps cover, in all, of
            the encoder and of the decoder.
        patch_size, patch_size_dec: side of the patch behind one id, in all and of the decoder.
        patch_proj: whether values are cut into patches; else they are grids of features.
        post_mlp, out_conv: whether ViTs end in an MLP, and their decoder in convolutions.
        norm_codes: compare latents to codes by direction; else by distance.
        undo_std: values come standardised with the ImageNet statistics and are brought to -1..1.
        norm_latents, sync_codebook: of training only; kept because files carry them.
    """

    # Keys that steer training only.
    ignored: ClassVar[tuple[str, ...]] = (
        "ema_decay",
        "threshold_ema_dead_code",
        "code_replacement_policy",
        "commitment_weight",
        "kmeans_init",
        "ckpt_path",
        "ignore_keys",
        "freeze_enc",
    )

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
    patch_proj: bool = True
    post_mlp: bool = False
    out_conv: bool = False
    norm_codes: bool = True
    norm_latents: bool = False
    undo_std: bool = False
    sync_codebook: bool = False

    def __post_init__(self) -> None:
        for name in ("n_channels", "codebook_size", "num_codebooks", "latent_dim", "n_labels"):
            _require_count(name, getattr(self, name), 2**20)
        for name in ("image_size", "image_size_enc", "image_size_dec", "patch_size", "patch_size_dec"):
            _require_count(name, getattr(self, name), MAX_IMAGE_SIZE)
        if self.latent_dim % self.num_codebooks:
            raise ModelError(
                f"latent_dim {self.latent_dim} is no multiple of num_codebooks {self.num_codebooks}."
            )
        if self.quant_type not in _QUANTIZERS:
            raise ModelError(f"Unknown quant_type {self.quant_type!r}. Known: {', '.join(_QUANTIZERS)}.")
        if self.quant_type == "lucid" and self.num_codebooks != 1:
            raise ModelError(f"A lucid quantizer has one codebook, not {self.num_codebooks}.")
        if self.undo_std and self.n_channels != 3:
            raise ModelError(f"undo_std is for RGB, not for {self.n_channels} channels.")

    @classmethod
    def parse(cls, values: Mapping[str, object], *, where: str = "config.json") -> Self:
        """Read configuration values strictly; CheckpointError says what is unknown, missing or wrong."""
        try:
            return parse_config(cls, values, where=where, required=_REQUIRED, ignored=cls.ignored)
        except CheckpointError:
            raise
        except ModelError as error:
            raise CheckpointError(f"{where}: {error}") from error

    def values(self) -> dict[str, object]:
        """What `parse` reads."""
        return asdict(self)


def _require_count(name: str, value: int | None, largest: int) -> None:
    if value is not None and not 0 < value <= largest:
        raise ModelError(f"{name} must lie in 1..{largest}, got {value}.")


@dataclass(frozen=True)
class Reconstruction:
    """Decoded values (B, C, *S) and the ids that they went through, as `encode` gives them."""

    values: Tensor
    ids: Tensor


class VectorQuantized(nn.Module):
    """Values to ids: what the tokenizers share. Networks inside work with channels last.

    Args:
        config: what the checkpoint holds.
        encoder: build what `encode` needs.

    Raises:
        ModelError: the configuration names an unknown network.
    """

    def __init__(self, config: TokenizerConfig, *, encoder: bool) -> None:
        super().__init__()
        self.config = config
        build, width, self._patch = _encoder(config)
        if encoder:
            if config.n_labels is not None:
                # Given its weight, nn.Embedding draws nothing: that costs seconds of imports on meta.
                weight = torch.empty(config.n_labels, config.n_channels)
                self.cls_emb = nn.Embedding(config.n_labels, config.n_channels, _weight=weight)
                if not weight.is_meta:
                    nn.init.normal_(weight)
            self.encoder = build()
            self.quant_proj = Pointwise(width, config.latent_dim)
        self.quantize = (
            Memcodes(config.num_codebooks, config.codebook_size, config.latent_dim)
            if config.quant_type == "memcodes"
            else VectorQuantizer(config.codebook_size, config.latent_dim, cosine=config.norm_codes)
        )

    @torch.no_grad()
    def encode(self, values: Tensor) -> Tensor:
        """Values to ids.

        Args:
            values: (B, n_channels, *S), or labels (B, *S) of integers in 0..n_labels-1. Sides of images are
                multiples of the patch size. See `values.py` for the range of each modality.

        Returns:
            int64 in 0..codebook_size-1: (B, rows, columns), one per patch or feature, or with Memcodes
            (B, num_codebooks, *S).

        Raises:
            InputError: values of another shape or with unknown labels.
        """
        self._require_values(values)
        return self._heads_second(self.quantize.encode(self.latent(values)))

    def features(self, values: Tensor) -> Tensor:
        """What the encoder makes of values as in `encode`: (B, *S, width)."""
        weight = self.quant_proj.weight
        if self.config.n_labels is not None:
            return self.encoder(self.cls_emb(values.to(weight.device, torch.int64)))
        values = values.movedim(1, -1).to(weight)
        if self.config.undo_std:
            mean, std = values.new_tensor(_IMAGENET_MEAN), values.new_tensor(_IMAGENET_STD)
            values = (values * std + mean) * 2 - 1
        return self.encoder(values)

    def latent(self, values: Tensor) -> Tensor:
        """What gets quantized: values as in `encode` to (B, *S, latent_dim)."""
        return self.quant_proj(self.features(values))

    def codebook(self) -> Tensor:
        """What each id stands for: (num_codebooks, codebook_size, latent_dim / num_codebooks).

        Codes of all heads, concatenated in head order, are what `decode_codes` takes; the expected code under
        a distribution over ids may stand in for each.
        """
        return self.quantize.codebook()

    def look_up(self, ids: Tensor) -> Tensor:
        """Ids as `encode` gives them to codes (B, latent_dim, *S). Raises InputError for unknown ids."""
        size, heads = self.config.codebook_size, self.config.num_codebooks
        if isinstance(self.quantize, Memcodes):
            if ids.ndim < 2 or ids.shape[1] != heads:
                raise InputError(f"Expected ids of {heads} codebooks (B, {heads}, ...), got {_shape(ids)}.")
            ids = ids.movedim(1, -1)
        elif ids.ndim != 3:
            raise InputError(f"Expected ids (B, rows, columns), got {_shape(ids)}.")
        _require_range("ids", ids, size)
        return self.quantize.look_up(ids.long()).movedim(-1, 1)

    def tied_keys(self) -> dict[str, str]:
        """State-dict keys that hold the same values: a file may have either or both of each pair."""
        return {}

    def _heads_second(self, ids: Tensor) -> Tensor:
        return ids.movedim(-1, 1) if isinstance(self.quantize, Memcodes) else ids

    def _require_values(self, values: Tensor) -> None:
        labels, channels = self.config.n_labels, self.config.n_channels
        if labels is not None:
            if values.ndim != 3:
                raise InputError(f"Expected labels (B, H, W), got {_shape(values)}.")
            _require_range("labels", values, labels)
        elif values.ndim < 2 or values.shape[1] != channels:
            raise InputError(f"Expected values (B, {channels}, ...), got {_shape(values)}.")
        if self._patch is None:
            return
        sides = values.shape[-2:]
        if values.ndim != 4 - (labels is not None) or any(n % self._patch or not n for n in sides):
            raise InputError(
                f"Expected images whose sides are multiples of {self._patch}, got {_shape(values)}."
            )


class VQVAE(VectorQuantized):
    """Encoder, codebooks, decoder. Satisfies `Tokenizer`.

    Args:
        config: what the checkpoint holds.
        encoder: build what `encode` needs.
        decoder: build what `decode` needs.

    Raises:
        ModelError: the configuration names networks of another kind.
    """

    def __init__(self, config: TokenizerConfig, *, encoder: bool = True, decoder: bool = True) -> None:
        super().__init__(config, encoder=encoder)
        build, width = _decoder(config)
        if decoder:
            self.post_quant_proj = Pointwise(config.latent_dim, width)
            self.decoder = build()

    @torch.no_grad()
    def decode(
        self,
        ids: Tensor,
        *,
        seed: int | Sequence[int] = 0,
        num_steps: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Ids as `encode` gives them to values.

        Args:
            ids: integers, as `encode` gives them.
            seed, num_steps, progress: of no effect, nothing being drawn; there for diffusion decoders.

        Returns:
            float32 (B, C, *S) as the network gives them, C being n_channels, or n_labels for logits of
            classes; `decoded_values` turns them into a modality's values.
        """
        del seed, num_steps, progress
        return self.decode_codes(self.look_up(ids)).float()

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Codes (B, latent_dim, *S) to values (B, C, *S)."""
        return self.decoder(self.post_quant_proj(codes.movedim(1, -1))).movedim(-1, 1)

    def forward(self, values: Tensor) -> Reconstruction:
        """Values as in `encode` through the codes and back; differentiable in training mode."""
        found = self.quantize(self.latent(values))
        return Reconstruction(self.decode_codes(found.codes.movedim(-1, 1)), self._heads_second(found.ids))


# What builds a network comes with its width: an unknown name is an error even where nothing is built.


def _encoder(config: TokenizerConfig) -> tuple[Callable[[], nn.Module], int, int | None]:
    """What builds the encoder, the width of its features, and the side of a patch; None for vectors."""
    if not config.enc_type.startswith("vit"):
        mlp = MlpSize.parse(config.enc_type)
        return lambda: BottleneckMLP(config.n_channels, mlp.width, mlp), mlp.width, None
    size = VitSize.parse(config.enc_type, "enc")
    grid = _grid(config.image_size_enc or config.image_size, config.patch_size)
    patch = config.patch_size if config.patch_proj else 1

    def build() -> nn.Module:
        return VitEncoder(config.n_channels, size, grid=grid, patch=patch, post_mlp=config.post_mlp)

    return build, size.dim, patch


def _decoder(config: TokenizerConfig) -> tuple[Callable[[], nn.Module], int]:
    """What builds the decoder, and the width of its input."""
    num_channels = config.n_channels if config.n_labels is None else config.n_labels
    if not config.dec_type.startswith("vit"):
        mlp = MlpSize.parse(config.dec_type)
        return lambda: BottleneckMLP(mlp.width, num_channels, mlp), mlp.width
    size = VitSize.parse(config.dec_type, "dec")
    patch = config.patch_size_dec or config.patch_size
    grid = _grid(config.image_size_dec or config.image_size, patch)

    def build() -> nn.Module:
        return VitDecoder(
            num_channels,
            size,
            grid=grid,
            patch=patch if config.patch_proj else 1,
            post_mlp=config.post_mlp,
            out_conv=config.out_conv,
        )

    return build, size.dim


def _grid(image_size: int, patch_size: int) -> int:
    if image_size % patch_size:
        raise ModelError(f"Patches of {patch_size} do not fill a side of {image_size}.")
    return image_size // patch_size


def _require_range(what: str, values: Tensor, size: int) -> None:
    if values.is_floating_point() or values.dtype == torch.bool:
        raise InputError(f"Expected {what} as integers, got {values.dtype}.")
    if values.numel() and (int(values.min()) < 0 or int(values.max()) >= size):
        raise InputError(f"Expected {what} in 0..{size - 1}, got {int(values.min())} to {int(values.max())}.")


def _shape(values: Tensor) -> str:
    return f"shape {tuple(values.shape)}"
