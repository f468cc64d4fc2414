"""Media in, tokens and vectors out.

Names load on first use: importing the package costs nothing, opening a model brings in torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoint import load_tokenizer, open_checkpoint
    from .classes import COCO_CLASSES, class_colors, id_colors
    from .drafts import Draft
    from .embedder import Embedder, Embeddings, Space
    from .files import encode_value, write_value
    from .generate import Generator
    from .guidance import Part
    from .images import ImageLimits, decode_image
    from .inputs import Content, InputReader
    from .modalities import ALIASES, MODALITIES, RAW_NAMES, Modality, raw_name
    from .parts import ModelParts
    from .pictures import Lettering, draw_overview, draw_value
    from .plans import TargetPlan, default_plans
    from .prediction_files import PredictedFiles, predict_files
    from .predictor import Kept, ModalityPredictor
    from .readers.same_view import check_same_view
    from .registry import Model, load_model
    from .showing import shown_value
    from .side_files import SIDE_FILES
    from .sources import MODELS, ModelSource
    from .teachers import TEACHERS, Teacher, TeacherEmbedder, load_teacher, open_gallery
    from .token_likelihood import likelihood, likelihood_table
    from .values import INSTANCE, PERSON, Predicted, Value

__all__ = [
    "ALIASES",
    "COCO_CLASSES",
    "INSTANCE",
    "MODALITIES",
    "MODELS",
    "PERSON",
    "RAW_NAMES",
    "SIDE_FILES",
    "TEACHERS",
    "Content",
    "Draft",
    "Embedder",
    "Embeddings",
    "Generator",
    "ImageLimits",
    "InputReader",
    "Kept",
    "Lettering",
    "Modality",
    "ModalityPredictor",
    "Model",
    "ModelParts",
    "ModelSource",
    "Part",
    "Predicted",
    "PredictedFiles",
    "Space",
    "TargetPlan",
    "Teacher",
    "TeacherEmbedder",
    "Value",
    "check_same_view",
    "class_colors",
    "decode_image",
    "default_plans",
    "draw_overview",
    "draw_value",
    "encode_value",
    "id_colors",
    "likelihood",
    "likelihood_table",
    "load_model",
    "load_teacher",
    "load_tokenizer",
    "open_checkpoint",
    "open_gallery",
    "predict_files",
    "raw_name",
    "shown_value",
    "write_value",
]

_MODULES = {
    "ALIASES": "modalities",
    "COCO_CLASSES": "classes",
    "INSTANCE": "values",
    "MODALITIES": "modalities",
    "MODELS": "sources",
    "PERSON": "values",
    "RAW_NAMES": "modalities",
    "SIDE_FILES": "side_files",
    "TEACHERS": "teachers",
    "Content": "inputs",
    "Draft": "drafts",
    "Embedder": "embedder",
    "Embeddings": "embedder",
    "Generator": "generate",
    "ImageLimits": "images",
    "InputReader": "inputs",
    "Kept": "predictor",
    "Lettering": "pictures",
    "Modality": "modalities",
    "ModalityPredictor": "predictor",
    "Model": "registry",
    "ModelParts": "parts",
    "ModelSource": "sources",
    "Part": "guidance",
    "Predicted": "values",
    "PredictedFiles": "prediction_files",
    "Space": "embedder",
    "TargetPlan": "plans",
    "Teacher": "teachers",
    "TeacherEmbedder": "teachers",
    "Value": "values",
    "check_same_view": "readers.same_view",
    "class_colors": "classes",
    "decode_image": "images",
    "default_plans": "plans",
    "draw_overview": "pictures",
    "draw_value": "pictures",
    "encode_value": "files",
    "id_colors": "classes",
    "likelihood": "token_likelihood",
    "likelihood_table": "token_likelihood",
    "load_model": "registry",
    "load_teacher": "teachers",
    "load_tokenizer": "checkpoint",
    "open_checkpoint": "checkpoint",
    "open_gallery": "teachers",
    "predict_files": "prediction_files",
    "raw_name": "modalities",
    "shown_value": "showing",
    "write_value": "files",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
