"""The table of teachers: what each makes, where its weights come from, under which licence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from . import clip, dinov2, imagebind


@dataclass(frozen=True)
class TeacherSource:
    """What is known of a teacher before any of it is loaded.

    Attributes:
        name: `clip`, `dinov2` or `imagebind`.
        modalities: what it makes of a picture, by the user's names.
        architecture: of the network, as `build` knows it.
        license: of the weights.
        build: makes the network for pictures of a size, under the names of the published tensors.
        features: of standardised pixels (B, 3, S, S), its modalities: (B, C, h, w), or (B, C) of globals.
        prefixes: of a file's tensors, those of this network; the others belong to towers not needed here.
        fit: changes a published tensor to the shape that this picture size needs; None where all fit.
        package: module of the extra `teachers` that `build` needs, None where it needs none.
        weights: hub id of published weights in safetensors, None where there are none.
        file_name: of the weights in that repository.
        image_size: side in pixels of the square picture that it sees.
    """

    name: str
    modalities: tuple[str, ...]
    architecture: str
    license: str
    build: Callable[[str, int], nn.Module]
    features: Callable[[nn.Module, Tensor], Mapping[str, Tensor]]
    prefixes: tuple[str, ...] = ("",)
    fit: Callable[[str, Tensor, torch.Size], Tensor] | None = None
    package: str | None = None
    weights: str | None = None
    file_name: str = "model.safetensors"
    image_size: int = 224


TEACHERS: Mapping[str, TeacherSource] = MappingProxyType(
    {
        source.name: source
        for source in (
            TeacherSource(
                name="clip",
                modalities=("clip",),
                architecture="ViT-B-16",
                license="MIT",
                build=clip.build,
                features=clip.features,
                prefixes=clip.PREFIXES,
                package="open_clip",
                weights="timm/vit_base_patch16_clip_224.openai",
                file_name="open_clip_model.safetensors",
            ),
            TeacherSource(
                name="dinov2",
                modalities=("dinov2", "dinov2_global"),
                architecture="vit_base_patch14_dinov2",
                license="Apache-2.0",
                build=dinov2.build,
                features=dinov2.features,
                fit=dinov2.fit,
                package="timm",
                weights="timm/vit_base_patch14_dinov2.lvd142m",
            ),
            TeacherSource(
                name="imagebind",
                modalities=("imagebind", "imagebind_global"),
                architecture="huge",
                license="CC-BY-NC-4.0: non-commercial use only",
                build=imagebind.build,
                features=imagebind.features,
                prefixes=imagebind.PREFIXES,
            ),
        )
    }
)
"""The teachers of 4M-21 whose features are modalities, by name."""
