"""What a YAML can say about training a tokenizer: its kind, its data, its network, how long.

The networks are those of the published tokenizers (arXiv 2406.09406) unless the YAML says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ...errors import AnyseekError
from ..classes import COCO_CLASSES, MAX_CLASSES
from ..modalities import MAX_IMAGE_SIZE, raw_name
from ..tokenizers.build import parse_tokenizer_config
from ..tokenizers.image import TokenizerConfig
from .fit import Count
from .run_files import FullPath, RunConfig, read_kind
from .train_divae import DivaeRecipe
from .train_memcodes import MemcodesRecipe
from .train_vq import VqRecipe
from .value_arrays import FEATURES

MASK_SIZE = 64
_PATCH = 16
_PICTURE: Mapping[str, Any] = MappingProxyType(
    {"enc_type": "vit_b_enc", "quant_type": "lucid", "codebook_size": 8192, "num_codebooks": 1}
    | {"latent_dim": 32, "post_mlp": True}
)
_VIT = _PICTURE | {"dec_type": "vit_b_dec"}
_UNET = _PICTURE | {
    "dec_type": "unet_patched",
    "beta_schedule": "linear",
    "prediction_type": "sample",
    "conditioning": "add",
    "thresholding": False,
    "scheduler": "ddim",
}
_UVIT = _UNET | {
    "dec_type": "uvit_b_p4_f16",
    "beta_schedule": "shifted_cosine:0.5",
    "conditioning": "concat",
    "thresholding": True,
}
_GRID = _VIT | {"patch_proj": False}
_VECTOR = {
    "enc_type": "BottleneckMLP/B_6-Wi_1024",
    "dec_type": "BottleneckMLP/B_6-Wi_1024",
    "quant_type": "memcodes",
    "codebook_size": 8192,
    "num_codebooks": 16,
    "latent_dim": 1024,
    "patch_proj": False,
}
_CHANNELS: Mapping[str, int] = MappingProxyType(
    {"rgb": 3, "normal": 3, "semseg": 64, "human_poses": 207}
    | dict.fromkeys(("depth", "canny_edge", "sam_edge", "sam_instance"), 1)
)

NETWORKS: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "vq": {
            "rgb": _VIT | {"codebook_size": 16384},
            **dict.fromkeys(("depth", "normal", "canny_edge", "sam_edge"), _VIT),
            "semseg": _VIT | {"codebook_size": 4096},
            **dict.fromkeys(("clip", "dinov2", "imagebind"), _GRID),
            "sam_instance": _VIT | {"codebook_size": 1024, "latent_dim": 1024, "out_conv": True},
        },
        "diffusion": {
            "rgb": _UNET | {"codebook_size": 16384, "clip_sample": True},
            "normal": _UNET | {"clip_sample": True},
            "depth": _UNET,
            **dict.fromkeys(("canny_edge", "sam_edge"), _UVIT),
        },
        "memcodes": {
            **dict.fromkeys(("dinov2_global", "imagebind_global"), _VECTOR),
            "human_poses": _VECTOR | {"codebook_size": 1024, "num_codebooks": 8},
        },
    }
)
"""By kind and modality, the keys of the published configurations; channels and sizes come with the data."""


class TokenizerRun(RunConfig):
    """What is common to tokenizers of values.

    Attributes:
        modality: the user's name of it, or a word for it.
        data: folders of ordinary files, `depth/0001.png` or `0001.depth.png`.
        validation: folders of files that are not trained on; without any, a share of `data` is kept apart.
        held_out: that share.
        output: folder of all that the run makes.
        image_size: side in pixels of the pictures and maps that are trained on.
        margin: pictures are kept this much larger, and cut at random; 1 cuts nothing.
        mirror: whether half of the pictures are mirrored.
        channels: of features and vectors; those of the first file where not given.
        classes: names of the classes of segmentations.
        tokenizer: keys of the tokenizer's configuration that differ from the published one.
        num_judged: values of the held-out ones that the reports are about.
        decoding_steps: of a diffusion decoder in the reports.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        tensorboard: whether TensorBoard's files are written beside the JSON lines.
    """

    networks: ClassVar[Mapping[str, Mapping[str, Any]]]

    modality: str
    data: Annotated[tuple[FullPath, ...], Field(min_length=1)]
    validation: tuple[FullPath, ...] = ()
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.02
    output: FullPath
    image_size: Annotated[int, Field(ge=4, le=MAX_IMAGE_SIZE)] = 224
    margin: Annotated[float, Field(ge=1, le=4)] = 1.15
    mirror: bool = True
    channels: Count | None = None
    classes: Annotated[tuple[str, ...], Field(max_length=MAX_CLASSES)] = COCO_CLASSES
    tokenizer: dict[str, Any] = Field(default_factory=dict)
    num_judged: Count = 256
    decoding_steps: Count = 25
    device: str = "auto"
    tensorboard: bool = False

    @field_validator("data", "validation", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value

    @field_validator("modality")
    @classmethod
    def _known(cls, value: str) -> str:
        return _as_value_error(raw_name, value)

    @model_validator(mode="after")
    def _trainable(self) -> TokenizerRun:
        if self.modality not in self.networks:
            kinds = [kind for kind, rows in NETWORKS.items() if self.modality in rows]
            hint = f"; {self.modality} takes kind {' or '.join(kinds)}" if kinds else ""
            raise ValueError(f"this kind is for {', '.join(self.networks)}{hint}")
        _as_value_error(self.config, self.channels or 1)
        return self

    @property
    def stored_size(self) -> int:
        """Side in pixels of the pictures and maps that are kept."""
        return self.image_size if self.modality == "sam_instance" else round(self.image_size * self.margin)

    def config(self, channels: int, side: int = 1) -> TokenizerConfig:
        """The tokenizer.

        Args:
            channels: of features and vectors.
            side: rows or columns of features.

        Raises:
            ModelError: the keys say nothing that can be built.
        """
        values: dict[str, Any] = {"patch_size": _PATCH, **self.networks[self.modality]}
        values["n_channels"] = _CHANNELS.get(self.modality, channels)
        values["image_size"] = self.image_size
        if self.modality == "sam_instance":
            values["image_size"] = MASK_SIZE
        elif self.modality in FEATURES:
            values["image_size"] = _PATCH * side  # so many positions
        if self.modality == "semseg":
            values["n_labels"] = 1 + len(self.classes)
        return parse_tokenizer_config(values | self.tokenizer, where="tokenizer")


class VqRun(TokenizerRun):
    """A ViT around one codebook."""

    networks = NETWORKS["vq"]

    kind: Literal["vq"]
    training: VqRecipe = VqRecipe()


class DiffusionRun(TokenizerRun):
    """A ViT and one codebook, decoded by a diffusion model.

    Attributes:
        start_from: a tokenizer (file or folder) whose encoder and codes are taken over.
    """

    networks = NETWORKS["diffusion"]

    kind: Literal["diffusion"]
    start_from: FullPath | None = None
    training: DivaeRecipe = DivaeRecipe()


class MemcodesRun(TokenizerRun):
    """MLPs around one codebook per head."""

    networks = NETWORKS["memcodes"]

    kind: Literal["memcodes"]
    training: MemcodesRecipe = MemcodesRecipe()


class WordPieceRun(RunConfig):
    """A vocabulary for texts and for what is spelt as text.

    Attributes:
        data: folders of captions, `caption/0001.txt` or `0001.caption.txt`.
        output: folder of all that the run makes.
        vocab_size: number of ids.
        min_frequency: how often pieces of words must occur.
        class_names: become single tokens, in boxes and in captions alike.
        num_sentinels: `[S_0]`, `[S_1]`, ...
        held_out: share of the captions that the report is about.
    """

    kind: Literal["wordpiece"]
    data: Annotated[tuple[FullPath, ...], Field(min_length=1)]
    output: FullPath
    vocab_size: Annotated[int, Field(ge=1000, le=2**20)] = 30_000
    min_frequency: Count = 2
    class_names: tuple[str, ...] = COCO_CLASSES[:80]
    num_sentinels: Annotated[int, Field(ge=3, le=10_000)] = 200
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.02

    @field_validator("data", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value


Run = VqRun | DiffusionRun | MemcodesRun | WordPieceRun
KINDS: Mapping[str, type[Run]] = MappingProxyType(
    {"vq": VqRun, "diffusion": DiffusionRun, "memcodes": MemcodesRun, "wordpiece": WordPieceRun}
)


def read_tokenizer_run(path: Path) -> Run:
    """Read the YAML of a tokenizer.

    Raises:
        ConfigError: all that is wrong with it; unknown keys with those that are known.
    """
    return read_kind(path, KINDS)


def _as_value_error(call: Any, *args: Any) -> Any:
    """Let pydantic list an error of ours with its own."""
    try:
        return call(*args)
    except AnyseekError as error:
        raise ValueError(str(error).removesuffix(".")) from error
