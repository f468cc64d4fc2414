"""Rendered 3D scenes with exact ground truth: training data, demo and tests with no download."""

from .dataset import MODALITIES, SceneRecord, describe_scene, known_queries, scene_file, write_scenes
from .describe import attributes, boxes, caption, instances, metadata, people
from .looks import (
    COLORS,
    FLOORS,
    MATERIALS,
    OBJECTS,
    OUTDOORS,
    PERSON,
    SEMSEG_CLASSES,
    SIZES,
    SKIES,
    TEXTURES,
    WALLS,
)
from .render import MAX_DEPTH, Rendering, encode_depth, encode_normal, render
from .scene import MAX_OBJECTS, Decoration, Place, Scene, SceneObject, Split, View

__all__ = [
    "COLORS",
    "FLOORS",
    "MATERIALS",
    "MAX_DEPTH",
    "MAX_OBJECTS",
    "MODALITIES",
    "OBJECTS",
    "OUTDOORS",
    "PERSON",
    "SEMSEG_CLASSES",
    "SIZES",
    "SKIES",
    "TEXTURES",
    "WALLS",
    "Decoration",
    "Place",
    "Rendering",
    "Scene",
    "SceneObject",
    "SceneRecord",
    "Split",
    "View",
    "attributes",
    "boxes",
    "caption",
    "describe_scene",
    "encode_depth",
    "encode_normal",
    "instances",
    "known_queries",
    "metadata",
    "people",
    "render",
    "scene_file",
    "write_scenes",
]
