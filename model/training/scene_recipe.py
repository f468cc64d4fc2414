"""What decides the packaged model: sizes, tokenizers, masking, how long each part is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..presets import FourMConfig
from ..scenes import SEMSEG_CLASSES
from ..tokenizers.image import TokenizerConfig
from .masking import Masking
from .pretrain import PretrainRecipe
from .scene_masking import TEXTS, embed_masking, masking, start_masking
from .scene_teachers import TeacherRecipe
from .teachers import TeacherConfig
from .train_memcodes import MemcodesRecipe
from .train_vq import VqRecipe

# Which teacher stands for which space; its dense features go by the space's name without `_global`.
TEACHERS = {"dinov2_global": "self_supervised", "imagebind_global": "aligned"}
SPACES = tuple(TEACHERS)
FEATURES = ("dinov2", "imagebind")
IMAGES = ("rgb", "depth", "normal", "semseg", "canny_edge", "sam_edge")
FOURM = "fourm"
"""Folder of the last run."""
EDGES = "canny_edge"
"""Both kinds of edges share its tokenizer, as in 4M-21."""

# They are two of sixteen targets, and what search is made of.
_WEIGHTS = {f"tok_{space}": 10.0 for space in SPACES}
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


@dataclass(frozen=True)
class ScenesRecipe:
    """Everything that decides the result; the defaults made the packaged model.

    Attributes:
        num_scenes, num_validation: how many to train on, and to judge by.
        num_benchmark: unseen ones by which the bundle is measured.
        seed: of scenes and of all draws.
        size, patch_size: of pictures, in pixels.
        modalities: what is tokenized besides pixels and global embeddings.
        alone, num_target_tokens: see `masking`; of the former, the user's names.
        dim, num_heads, encoder_depth, decoder_depth: of the 4M model.
        batch_size: of the 4M model, samples.
        teachers: by their kind.
        images, fine, vectors: how tokenizers of images, of segmentation and edges, of vectors are trained.
        start, embed, fourm: how the 4M model is trained, one after the other, see `scene_masking`.
    """

    num_scenes: int = 16_000
    num_validation: int = 2_000
    num_benchmark: int = 2_000
    seed: int = 0
    size: int = 128
    patch_size: int = 16
    modalities: tuple[str, ...] = (*IMAGES, *FEATURES, *TEXTS)
    alone: tuple[str, ...] = (
        *("det", "metadata", "color_palette", "human_poses", "sam_instance"),
        *("depth", "normal", "semseg", "canny_edge", "sam_edge"),
    )
    num_target_tokens: int = 64
    dim: int = 192
    num_heads: int = 6
    encoder_depth: int = 8
    decoder_depth: int = 4
    batch_size: int = 32
    teachers: Mapping[str, TeacherRecipe] = field(
        default_factory=lambda: {
            "self_supervised": TeacherRecipe(steps=2100),
            "aligned": TeacherRecipe(model=TeacherConfig(places=32), steps=1500, batch_size=128),
        }
    )
    images: VqRecipe = field(default_factory=lambda: VqRecipe(steps=700, batch_size=48))
    fine: VqRecipe = field(default_factory=lambda: VqRecipe(steps=1800, batch_size=24))
    vectors: MemcodesRecipe = field(default_factory=lambda: MemcodesRecipe(steps=1000))
    start: PretrainRecipe = field(
        default_factory=lambda: PretrainRecipe(
            steps=800, parts=4, learning_rate=1.5e-3, warmup=150, ema=0.995, save_every=200
        )
    )
    embed: PretrainRecipe = field(
        default_factory=lambda: PretrainRecipe(
            steps=2550, parts=4, learning_rate=1.2e-3, warmup=50, ema=0.995, save_every=300
        )
    )
    fourm: PretrainRecipe = field(
        default_factory=lambda: PretrainRecipe(
            steps=9200, parts=4, warmup=100, save_every=300, weights=_WEIGHTS
        )
    )

    def some(self, modalities: Iterable[str]) -> tuple[str, ...]:
        """Those of the modalities that this recipe has."""
        return tuple(raw for raw in modalities if raw in self.modalities)

    def masking(self) -> Masking:
        """How 4M is trained last."""
        return masking(self.size, self._alone(), self.num_target_tokens)

    def stages(self) -> dict[str, tuple[Masking, PretrainRecipe]]:
        """The runs of 4M by the folder of each; every one starts from the weights of the one before."""
        return {
            "fourm_start": (start_masking(self.size), self.start),
            "fourm_embed": (embed_masking(self.size, self._alone()), self.embed),
            FOURM: (self.masking(), self.fourm),
        }

    def asked_alone(self) -> dict[str, str]:
        """What a search can be by alone: the column of each, by the user's names."""
        alone = self.some(("caption", *self.alone))
        return {"rgb": f"rgb@{self.size}"} | {raw: self._column(raw) for raw in alone}

    def _alone(self) -> list[str]:
        return [self._column(raw) for raw in self.some(self.alone)]

    def _column(self, raw: str) -> str:
        return raw if raw in TEXTS else f"tok_{raw}@{self.size}"

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
        known = {
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
        wanted = {EDGES if raw == "sam_edge" else raw for raw in (*self.modalities, *SPACES)}
        return {raw: config for raw, config in known.items() if raw in wanted}

    def columns(self) -> tuple[str, ...]:
        """Names of the modalities that 4M is trained on, pixels first. Masking draws in this order."""
        texts = ("caption", "human_poses", "sam_instance", "det", "metadata", "color_palette")
        return (
            f"rgb@{self.size}",
            *(self._column(raw) for raw in self.some((*texts, *IMAGES, *FEATURES))),
            *(f"tok_{space}" for space in SPACES),
        )

    def model(self, tables: Mapping[str, int]) -> FourMConfig:
        """The 4M model for text tables of these sizes."""
        codes = {raw: config.codebook_size for raw, config in self.tokenizers().items()}
        codes |= {"sam_edge": codes[EDGES]} if EDGES in codes else {}
        grids = {self._column(raw): codes[raw] for raw in self.some((*IMAGES, *FEATURES))}
        grids |= {f"tok_{space}": codes[space] for space in SPACES}
        texts = self.some(TEXTS)
        return FourMConfig(
            domains_in=(f"rgb@{self.size}", *texts, *grids),
            domains_out=(*texts, *grids),
            encoder_depth=self.encoder_depth,
            decoder_depth=self.decoder_depth,
            dim=self.dim,
            num_heads=self.num_heads,
            image_size=self.size,
            patch_size=self.patch_size,
            share_modality_embeddings=False,
            vocab_overrides={**{name: size for name, size in tables.items() if name in texts}, **grids},
        )


def tiny_recipe(num_scenes: int) -> ScenesRecipe:
    """Minutes in place of hours: fewer and smaller pictures, few modalities, small networks.

    Args:
        num_scenes: to be searched; four times as many are trained on.
    """
    network = TeacherConfig((24, 48, 96), dim=96)
    teacher = TeacherRecipe(model=network, steps=300, batch_size=128, warmup=20, save_every=300)
    return ScenesRecipe(
        num_scenes=4 * num_scenes,
        num_validation=min(250, num_scenes),
        num_benchmark=num_scenes,
        size=64,
        modalities=("depth", "semseg", "caption", "color_palette"),
        alone=("depth", "semseg", "color_palette"),
        num_target_tokens=40,
        dim=128,
        num_heads=4,
        encoder_depth=4,
        decoder_depth=2,
        batch_size=48,
        teachers={
            "self_supervised": teacher,
            "aligned": replace(teacher, model=replace(network, places=16)),
        },
        images=VqRecipe(steps=250, batch_size=16, warmup=20),
        fine=VqRecipe(steps=250, batch_size=16, warmup=20),
        vectors=MemcodesRecipe(steps=400, batch_size=128, warmup=20),
        start=PretrainRecipe(steps=250, learning_rate=2e-3, warmup=40, ema=0.98, save_every=250),
        embed=PretrainRecipe(steps=200, learning_rate=2e-3, warmup=20, ema=0.98, save_every=200),
        fourm=PretrainRecipe(
            steps=400, learning_rate=2e-3, warmup=20, ema=0.98, save_every=400, weights=_WEIGHTS
        ),
    )
