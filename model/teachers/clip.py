"""CLIP's picture tower by open_clip (arXiv 2103.00020): patch tokens in the space of its embeddings."""

from typing import Any

from torch import Tensor, nn

PREFIXES = ("visual.",)
"""Of a file's tensors, those of the picture tower."""


def build(architecture: str, image_size: int) -> nn.Module:
    """The picture tower of an open_clip architecture, with the activation that OpenAI's weights need."""
    import open_clip
    from open_clip.transformer import QuickGELU, VisionTransformer

    config: dict[str, Any] = open_clip.get_model_config(architecture) or {}
    vision = config["vision_cfg"]
    tower = VisionTransformer(
        image_size=image_size,
        patch_size=vision["patch_size"],
        width=vision["width"],
        layers=vision["layers"],
        heads=vision["width"] // vision.get("head_width", 64),
        mlp_ratio=vision.get("mlp_ratio", 4.0),
        output_dim=config["embed_dim"],
        act_layer=QuickGELU,
        output_tokens=True,
    )
    return nn.ModuleDict({"visual": tower})


def features(network: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """`clip` (B, 512, 14, 14): patch tokens after last norm and projection, without the class token."""
    tower: Any = network.get_submodule("visual")
    _, tokens = tower(pixels)
    return {"clip": (tokens @ tower.proj).transpose(1, 2).unflatten(2, tower.grid_size)}
