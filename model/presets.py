"""What defines a 4M model: its configuration, the usual sizes, and the published models."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any

from ..errors import CheckpointError, ModelError
from .blocks import ACTIVATIONS, BlockConfig
from .modalities import MAX_IMAGE_SIZE, Modality, get_modality
from .parsing import parse_config

_REQUIRED = (
    "encoder_depth",
    "decoder_depth",
    "dim",
    "num_heads",
    "mlp_ratio",
    "qkv_bias",
    "proj_bias",
    "mlp_bias",
    "norm_bias",
    "act_layer",
    "gated_mlp",
    "image_size",
    "patch_size",
)
# They steer training only: the model computes the same with or without them.
_TRAINING_KEYS = (
    "use_act_checkpoint",
    "drop_path_rate_encoder",
    "drop_path_rate_decoder",
    "shared_drop_path",
)


@dataclass(frozen=True)
class FourMConfig:
    """What defines a 4M model; field names are the keys of a published `config.json`.

    Attributes:
        domains_in: modalities with an input layer.
        domains_out: modalities with an output layer; those that cannot be predicted (t5_caption) are skipped.
        encoder_depth, decoder_depth: number of blocks.
        dim: model width, a multiple of 4 and of `num_heads`.
        num_heads: attention heads.
        mlp_ratio: hidden width of an MLP over `dim`, before a gate takes its third.
        qkv_bias, proj_bias, mlp_bias, norm_bias: whether these layers add a bias.
        act_layer: `GELU` or `SiLU`.
        gated_mlp: gated MLPs (SwiGLU with SiLU).
        image_size: nominal side in pixels; every published modality has its own.
        patch_size: side of a token for sizes that were never published (`rgb@96`).
        qk_norm: normalise queries and keys per head.
        decoder_causal_mask: train the decoder with a plain causal mask.
        decoder_sep_mask: targets of one modality do not see another's.
        num_register_tokens: learned tokens put before the encoder's input.
        share_modality_embeddings: one modality vector for input and output layer (4M-7; not 4M-21).
        vocab_overrides: modality to vocabulary size, for models with smaller tables than the published ones.
        own_modalities: a user's modality to the known one that it is like: `tok_thermal@224: tok_depth@224`.

    Raises:
        ModelError: sizes that do not fit together, or an unknown modality.
    """

    domains_in: tuple[str, ...]
    domains_out: tuple[str, ...]
    encoder_depth: int = 12
    decoder_depth: int = 12
    dim: int = 768
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = False
    proj_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False
    act_layer: str = "SiLU"
    gated_mlp: bool = True
    image_size: int = 224
    patch_size: int = 16
    qk_norm: bool = False
    decoder_causal_mask: bool = False
    decoder_sep_mask: bool = True
    num_register_tokens: int = 0
    share_modality_embeddings: bool = True
    vocab_overrides: Mapping[str, int] = field(default_factory=dict)
    own_modalities: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = {
            "encoder_depth": (0, 1024),
            "decoder_depth": (0, 1024),
            "dim": (4, 2**16),
            "num_heads": (1, 2**10),
            "mlp_ratio": (0.01, 64),
            "image_size": (1, MAX_IMAGE_SIZE),
            "patch_size": (1, MAX_IMAGE_SIZE),
            "num_register_tokens": (0, 2**12),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ModelError(f"{name} must lie in {low}..{high}, got {getattr(self, name)!r}.")
        if self.dim % 4 or self.dim % self.num_heads:
            raise ModelError(f"dim {self.dim} must be a multiple of 4 and of num_heads {self.num_heads}.")
        if self.act_layer not in ACTIVATIONS:
            raise ModelError(f"Unknown act_layer {self.act_layer!r}. Known: {', '.join(ACTIVATIONS)}.")
        names = {*self.domains_in, *self.domains_out}
        if len(names) == 0 or len(set(self.domains_in)) < len(self.domains_in):
            raise ModelError("domains_in and domains_out must name modalities, each once.")
        for name in self.vocab_overrides:
            if name not in names:
                raise ModelError(
                    f"vocab_overrides names {name!r}, which is in neither domains_in nor domains_out."
                )
        owners = {self.modality(name).id: name for name in sorted(names)}
        for name in names:
            if owners[self.modality(name).id] != name:  # one in 32768; tokens are told apart by these numbers
                raise ModelError(
                    f"{name!r} and {owners[self.modality(name).id]!r} share a number: rename one."
                )

    @classmethod
    def parse(cls, values: Mapping[str, object], *, where: str = "config.json") -> "FourMConfig":
        """Read configuration values strictly; CheckpointError says what is unknown, missing or wrong."""
        try:
            return parse_config(cls, values, where=where, required=_REQUIRED, ignored=_TRAINING_KEYS)
        except CheckpointError:
            raise
        except ModelError as error:
            raise CheckpointError(f"{where}: {error}") from error

    def values(self) -> dict[str, object]:
        """What `parse` reads: the published keys, and of the others those that differ from their default."""
        values: dict[str, Any] = asdict(self)
        always = {*_REQUIRED, "domains_in", "domains_out", "share_modality_embeddings"}
        for key in fields(self):
            default = {} if key.default is MISSING else key.default
            if key.name not in always and values[key.name] == default:
                del values[key.name]
        return values

    def modality(self, name: str) -> Modality:
        """The modality as this model has it: with its vocabulary and, at unpublished sizes, its patches."""
        like, vocab_size = self.own_modalities.get(name), self.vocab_overrides.get(name)
        row = get_modality(like or name, patch_size=self.patch_size, vocab_size=vocab_size)
        return row if like is None else row.renamed(name)

    @property
    def targets(self) -> tuple[str, ...]:
        """Those of `domains_out` that can be predicted."""
        return tuple(name for name in self.domains_out if self.modality(name).is_target)

    @property
    def block(self) -> BlockConfig:
        """Sizes of every block."""
        return BlockConfig(
            dim=self.dim,
            num_heads=self.num_heads,
            mlp_hidden=int(self.dim * self.mlp_ratio),
            activation=self.act_layer,
            gated=self.gated_mlp,
            qkv_bias=self.qkv_bias,
            proj_bias=self.proj_bias,
            mlp_bias=self.mlp_bias,
            norm_bias=self.norm_bias,
            qk_norm=self.qk_norm,
        )


def _size(dim: int, num_heads: int, depth: int) -> Mapping[str, int]:
    return MappingProxyType(
        {"dim": dim, "num_heads": num_heads, "encoder_depth": depth, "decoder_depth": depth}
    )


PRESETS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "tiny": _size(384, 6, 6),
        "small": _size(512, 8, 8),
        "base": _size(768, 12, 12),
        "large": _size(1024, 16, 24),
        "xlarge": _size(2048, 32, 24),
    }
)
"""Sizes by name, to be given to FourMConfig beside the modalities."""

_TOKENS_7 = ("tok_rgb", "tok_depth", "tok_normal", "tok_semseg", "tok_clip")
_IN_7 = ("rgb@224", "caption", "det", *(f"{name}@224" for name in _TOKENS_7))
_OUT_21 = (
    *("caption", "t5_caption", "det", "metadata", "human_poses", "color_palette", "sam_instance"),
    *("tok_rgb@224", "tok_normal@224", "tok_depth@224", "tok_semseg@224", "tok_clip@224", "tok_dinov2@224"),
    *(
        "tok_dinov2_global",
        "tok_imagebind@224",
        "tok_imagebind_global",
        "tok_sam_edge@224",
        "tok_canny_edge@224",
    ),
)
_IN_21 = (*_OUT_21[:7], "rgb@224", *_OUT_21[7:])
_OUT_SR = tuple(f"{name}@448" for name in _TOKENS_7)


def _published() -> Iterable[tuple[str, FourMConfig]]:
    for letter, size in (("B", "base"), ("L", "large"), ("XL", "xlarge")):
        preset: dict[str, Any] = dict(PRESETS[size])
        yield f"4M-21_{letter}", FourMConfig(_IN_21, _OUT_21, **preset, share_modality_embeddings=False)
        yield f"4M-7_{letter}", FourMConfig(_IN_7, _IN_7[1:], **preset)
    large: dict[str, Any] = dict(PRESETS["large"])
    yield "4M-7-SR_L", FourMConfig((*_IN_7, "rgb@448", *_OUT_SR), _OUT_SR, **large)


PUBLISHED: Mapping[str, FourMConfig] = MappingProxyType(dict(_published()))
"""Configurations of the published models."""
