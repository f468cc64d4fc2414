"""Names and colours of the classes of semantic segmentation."""

from functools import lru_cache

import numpy as np

COCO_CLASSES: tuple[str, ...] = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse"),
    *("sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie"),
    *("suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove"),
    *("skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon"),
    *("bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut"),
    *("cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse"),
    *("remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"),
    *("clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
    *("banner", "blanket", "bridge", "cardboard", "counter", "curtain", "door-stuff", "floor-wood", "flower"),
    *("fruit", "gravel", "house", "light", "mirror-stuff", "net", "pillow", "platform", "playingfield"),
    *("railroad", "river", "road", "roof", "sand", "sea", "shelf", "snow", "stairs", "tent", "towel"),
    *("wall-brick", "wall-stone", "wall-tile", "wall-wood", "water-other", "window-blind", "window-other"),
    *("tree-merged", "fence-merged", "ceiling-merged", "sky-other-merged", "cabinet-merged", "table-merged"),
    *("floor-other-merged", "pavement-merged", "mountain-merged", "grass-merged", "dirt-merged"),
    *("paper-merged", "food-other-merged", "building-other-merged", "rock-merged", "wall-other-merged"),
    "rug-merged",
)
"""The 133 classes of COCO panoptic segmentation, in the order of the published models' labels 0..132."""

MAX_CLASSES = 254
"""Labels are bytes: 0 is nothing, and files write 255 for it."""


def id_colors() -> np.ndarray:
    """Colours uint8 (256, 3) of the ids of classes in files; black is nothing."""
    colors = np.zeros((256, 3), np.uint8)
    colors[:MAX_CLASSES] = class_colors(MAX_CLASSES)
    return colors


@lru_cache
def class_colors(num_classes: int) -> np.ndarray:
    """Colours that are easily told apart, the same for a class however many there are.

    Each is the one farthest from those before it and from black and white, which are nothing and paper, among
    9 x 9 x 9 colours; distances weigh red, green and blue 2 : 4 : 3, roughly as the eye does.

    Returns:
        uint8 (num_classes, 3), read-only; row k - 1 is the colour of label k. At most MAX_CLASSES rows.
    """
    assert 0 <= num_classes <= MAX_CLASSES
    levels = np.round(np.linspace(0, 255, 9))
    choices = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    weighted = choices * np.sqrt([2, 4, 3])
    gaps = np.minimum((weighted**2).sum(1), ((weighted - weighted[-1]) ** 2).sum(1))
    chosen = np.empty((num_classes, 3), np.uint8)
    for i in range(num_classes):
        best = int(gaps.argmax())
        chosen[i] = choices[best]
        gaps = np.minimum(gaps, ((weighted - weighted[best]) ** 2).sum(1))
    chosen.flags.writeable = False
    return chosen
