"""Which files each modality is read from, by indexing and training alike."""

from collections.abc import Mapping
from types import MappingProxyType

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_ARRAYS = (".npy", ".npz")
_MAPS = (".png", *_ARRAYS, ".tif", ".tiff", ".webp", ".jpg", ".jpeg")

SIDE_FILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "rgb": _IMAGES,
        "caption": (".txt",),
        "det": (".json",),
        "metadata": (".json",),
        "color_palette": (".json", ".txt"),
        **dict.fromkeys(("depth", "normal", "semseg", "canny_edge", "sam_edge"), _MAPS),
        "human_poses": (".json", ".npz"),
        "sam_instance": (".json", ".png", ".npy"),
        **dict.fromkeys(
            ("t5_caption", "clip", "dinov2", "imagebind", "dinov2_global", "imagebind_global"), _ARRAYS
        ),
    }
)
"""Extensions by the user's name of the modality; of two files of one item the earlier extension wins."""
