"""What decides the packaged model: sizes, tokenizers, masking, how long each part is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..presets import FourMConfig
from ..scenes import SEMSEG_CLASSES
from ..tokenizers.image import TokenizerConfig
from .masking import Component, Masking
from .pretrain import PretrainRecipe
from .scene_teachers import TeacherRecipe
from .train_memcodes import MemcodesRecipe
from .train_vq import VqRecipe

# Which teacher stands for which space; its dense features go by the space's name without `_global`.
TEACHERS = {"dinov2_global": "self_supervised", "imagebind_global": "aligned"}
SPACES = tuple(TEACHERS)
FEATURES = ("dinov2", "imagebind")
IMAGES = ("rgb", "depth", "normal", "semseg", "canny_edge", "sam_edge")
TEXTS = ("caption", "det", "metadata", "color_palette", "human_poses", "sam_instance")
EDGES = "canny_edge"
"""Both kinds of edges share its tokenizer, as in 4M-21."""

_GLOBALS = {f"tok_{space}": 5.0 for space in SPACES}
_MLP = "BottleneckMLP/B_2-Wi_128"


def _image_tokenizer(num_channels: int, codebook_size: int, size: int) -> TokenizerConfig:
    """A small ViT tokenizer of patches of 16 pixels."""
    return TokenizerConfig(
        n_channels=num_channels,
        enc_type="vit_d128l3h4_enc",
        dec_type="vit_d128l4h4_dec",
        quant_type="lucid",
        codebook_size=codebook_size,
        num_codebooks=1,
        latent_dim=16,
        image_size=size,
    )


def _vector_tokenizer(num_channels: int, codebook_size: int, num_codebooks: int) -> TokenizerConfig:
    """A small MLP tokenizer of single vectors."""
    return TokenizerConfig(
        n_channels=num_channels,
        enc_type=_MLP,
        dec_type=_MLP,
        quant_type="memcodes",
        codebook_size=codebook_size,
        num_codebooks=num_codebooks,
        latent_dim=16 * num_codebooks,
    )


def masking(size: int) -> Masking:
    """Every modality alone and in mixes; both global embeddings are always asked, whatever else is.

    A batch follows one component: all of the picture, all of the caption, one modality at a time, two or
    three, mixes without the picture, parts of everything.
    """
    rgb = f"rgb@{size}"
    whole: Any = dict.fromkeys(TEXTS, "all")

    def component(
        weight: float, inputs: Mapping[str, float], others: float, tokens: int, **keep: Any
    ) -> Component:
        inputs = {**dict.fromkeys(_GLOBALS, 0.0), **inputs}
        return Component(weight, inputs, _GLOBALS, others, 0.15, num_input_tokens=tokens, **keep)

    return Masking(
        (
            component(2.0, {rgb: 1.0}, 0.0, 64),
            component(1.5, {"caption": 1.0}, 0.0, 96, keep=whole),
            component(2.0, {}, 0.01, 64, keep=whole),
            component(1.5, {rgb: 0.02}, 0.05, 128, keep=whole),
            component(1.0, {rgb: 0.0, "caption": 0.3}, 0.1, 96),
            component(1.0, {}, 0.7, 96),
        ),
        num_target_tokens=96,
    )


@dataclass(frozen=True)
class ScenesRecipe:
    """Everything that decides the result; the defaults made the packaged model."""

    num_scenes: int = 16_000
    num_validation: int = 2_000
    seed: int = 0
    size: int = 128
    patch_size: int = 16
    dim: int = 192
    num_heads: int = 6
    encoder_depth: int = 8
    decoder_depth: int = 4
    batch_size: int = 64
    teachers: Mapping[str, TeacherRecipe] = field(
        default_factory=lambda: {
            "self_supervised": TeacherRecipe(steps=900),
            "aligned": TeacherRecipe(steps=1200, batch_size=128),
        }
    )
    images: VqRecipe = field(default_factory=lambda: VqRecipe(steps=1500))
    vectors: MemcodesRecipe = field(default_factory=lambda: MemcodesRecipe(steps=1500))
    fourm: PretrainRecipe = field(default_factory=PretrainRecipe)

    def tokenizers(self) -> dict[str, TokenizerConfig]:
        """Of each modality that has one."""
        size, teacher = self.size, self.teachers["aligned"].model
        semseg = replace(_image_tokenizer(24, 1024, size), n_labels=1 + len(SEMSEG_CLASSES))
        features = replace(
            _image_tokenizer(teacher.widths[-1], 512, size),
            enc_type="vit_d96l2h4_enc",
            dec_type="vit_d96l2h4_dec",
            patch_proj=False,
        )
        masks = replace(_image_tokenizer(1, 1024, 64), enc_type="vit_d64l2h4_enc", dec_type="vit_d64l2h4_dec")
        return {
            "rgb": _image_tokenizer(3, 1024, size),
            "depth": _image_tokenizer(1, 512, size),
            "normal": _image_tokenizer(3, 512, size),
            "semseg": semseg,
            EDGES: _image_tokenizer(1, 512, size),
            **dict.fromkeys(FEATURES, features),
            **dict.fromkeys(SPACES, _vector_tokenizer(teacher.dim, 64, 16)),
            "human_poses": _vector_tokenizer(207, 1024, 8),
            "sam_instance": masks,
        }

    def model(self, tables: Mapping[str, int]) -> FourMConfig:
        """The 4M model for text tables of these sizes."""
        codes = {raw: config.codebook_size for raw, config in self.tokenizers().items()}
        codes["sam_edge"] = codes[EDGES]
        grids = {f"tok_{raw}@{self.size}": codes[raw] for raw in (*IMAGES, *FEATURES)}
        grids |= {f"tok_{space}": codes[space] for space in SPACES}
        targets = (*TEXTS, *grids)
        return FourMConfig(
            domains_in=(f"rgb@{self.size}", *targets),
            domains_out=targets,
            encoder_depth=self.encoder_depth,
            decoder_depth=self.decoder_depth,
            dim=self.dim,
            num_heads=self.num_heads,
            image_size=self.size,
            patch_size=self.patch_size,
            share_modality_embeddings=False,
            vocab_overrides={**tables, **grids},
        )
