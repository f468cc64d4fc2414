"""Batches of rendered scenes for tokenizers, by number: batch n is always the same one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .fit import FitRecipe
from .scene_data import NUM_RENDERINGS
from .scene_teachers import dense_features
from .scene_tokens import mask_values
from .scene_values import SceneValues
from .teachers import ImageTower
from .train_vq import LOSSES, Loss

Draw = Callable[[int], Tensor]

_NUM_MASKS = 20_000


def vector_draws(values: NDArray[np.float32], recipe: FitRecipe) -> Draw:
    """Batches of vectors (N, C)."""
    data = torch.from_numpy(values)
    return lambda number: data[_drawn(recipe, number, len(data))]


def image_draws(raw: str, values: SceneValues, recipe: FitRecipe, tower: ImageTower | None = None) -> Draw:
    """Batches of values of an image-like modality, of masks, or of dense features.

    Args:
        raw: the user's name; canny_edge gives both kinds of edges in turn.
        values: of scenes.
        recipe: batch size and seed.
        tower: whose features they are.
    """
    if raw == "sam_instance":
        masks = torch.from_numpy(mask_values(values, _NUM_MASKS))
        return lambda number: masks[_drawn(recipe, number, len(masks))]
    if tower is not None:
        rgb = values.shards.maps["rgb"]

        def features(number: int) -> Tensor:
            rows = _drawn(recipe, number, len(rgb))
            return torch.from_numpy(dense_features(tower, rgb[rows, number % NUM_RENDERINGS]))

        return features

    def images(number: int) -> Tensor:
        rows = _drawn(recipe, number, len(values)).tolist()
        kind = "sam_edge" if raw == "canny_edge" and number % 2 else raw
        return values.batch(kind, rows, [number // 2 % NUM_RENDERINGS] * len(rows))

    return images


def image_loss(raw: str) -> Loss:
    """What decoded values of a modality are compared by."""
    return {"semseg": _balanced, "canny_edge": _lines}.get(raw, LOSSES[raw])


def _balanced(decoded: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy in which a class counts by the root of its share: walls would drown what stands before
    them. Over every other row and column, which ones changing: a quarter of the time.
    """
    down, right = (int(n) for n in torch.randint(2, (2,)))
    kept = np.s_[..., down::2, right::2]
    logits, wanted = decoded[kept].float(), labels[kept].long()
    counts = torch.bincount(wanted.flatten(), minlength=logits.shape[1])
    return functional.cross_entropy(logits, wanted, weight=counts.clamp(min=1).float().rsqrt())


def _lines(decoded: Tensor, values: Tensor) -> Tensor:
    """Squared error in which lines and paper count by the root of their share: where a thin line might lie a
    pixel to either side, the plain error is least for a map without lines.
    """
    on_line = values > 0
    share = on_line.float().mean().clamp(1e-3, 1 - 1e-3)
    weight = torch.where(on_line, share.rsqrt(), (1 - share).rsqrt())
    return (weight * (decoded.float() - values.float()).square()).sum() / weight.sum()


def _drawn(recipe: FitRecipe, number: int, num: int) -> NDArray[np.int64]:
    return np.random.default_rng([recipe.seed, number]).integers(num, size=recipe.batch_size)
