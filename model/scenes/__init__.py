"""Rendered 3D scenes with exact ground truth: training data, demo and tests with no download."""

from .describe import attributes, boxes, caption, metadata, people
from .render import MAX_DEPTH, Rendering, render
from .scene import (
    COLORS,
    FLOORS,
    MATERIALS,
    MAX_OBJECTS,
    OBJECTS,
    OUTDOORS,
    PERSON,
    SEMSEG_CLASSES,
    SIZES,
    SKIES,
    TEXTURES,
    WALLS,
    Scene,
    SceneObject,
    View,
)
