"""Media in, tokens and vectors out.

Names load on first use: importing the package costs nothing, opening a model brings in torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .embedder import Embedder, Embeddings, Space
    from .images import ImageLimits, decode_image
    from .modalities import MODALITIES, Modality
    from .registry import MODELS, Model, ModelSource, load_model

__all__ = [
    "MODALITIES",
    "MODELS",
    "Embedder",
    "Embeddings",
    "ImageLimits",
    "Modality",
    "Model",
    "ModelSource",
    "Space",
    "decode_image",
    "load_model",
]

_MODULES = {
    "MODALITIES": "modalities",
    "MODELS": "registry",
    "Embedder": "embedder",
    "Embeddings": "embedder",
    "ImageLimits": "images",
    "Modality": "modalities",
    "Model": "registry",
    "ModelSource": "registry",
    "Space": "embedder",
    "decode_image": "images",
    "load_model": "registry",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
