"""Rendered 3D scenes with exact ground truth: training data, demo and tests with no download."""

from .dataset import SceneRecord, describe_scene, encode_depth, write_scenes
from .describe import attributes, boxes, caption, metadata
from .render import MAX_DEPTH, Rendering, render
from .scene import (
    COLORS,
    GROUNDS,
    MATERIALS,
    MAX_OBJECTS,
    PATTERNS,
    SEMSEG_CLASSES,
    SHAPES,
    SIZES,
    SKIES,
    Scene,
    SceneObject,
    View,
)

__all__ = [
    "COLORS",
    "GROUNDS",
    "MATERIALS",
    "MAX_DEPTH",
    "MAX_OBJECTS",
    "PATTERNS",
    "SEMSEG_CLASSES",
    "SHAPES",
    "SIZES",
    "SKIES",
    "Rendering",
    "Scene",
    "SceneObject",
    "SceneRecord",
    "View",
    "attributes",
    "boxes",
    "caption",
    "describe_scene",
    "encode_depth",
    "metadata",
    "render",
    "write_scenes",
]
