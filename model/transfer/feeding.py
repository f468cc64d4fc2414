"""Samples to batches of tensors: the same however many processes read them and wherever a run starts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..inputs import IMAGENET_MEAN, normalize_pixels
from ..readers.depth import standardize
from .augment import cut, vary_colors
from .config import TransferConfig
from .goals import Goal
from .rand_augment import rand_augment
from .reading import read_arrays
from .samples import TransferSample

PADDING = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
_MIN_DEPTHS = 10

Place = tuple[int, int]
"""Epoch and sample; epoch -1 is evaluation."""


@dataclass(frozen=True)
class Feed(Dataset[tuple[dict[str, Tensor], Tensor]]):
    """Reads samples as the model takes them: `feed[epoch, index]`."""

    config: TransferConfig
    goal: Goal
    samples: Sequence[TransferSample]

    def __getitem__(self, place: Place) -> tuple[dict[str, Tensor], Tensor]:
        epoch, index = place
        rng = None if epoch < 0 else np.random.default_rng((self.config.recipe.seed, 1, epoch, index))
        sample, size = self.samples[index], self.config.image_size
        arrays = read_arrays(sample, self.config.data)
        view = self.goal.view(rng, arrays["rgb"].shape[1], arrays["rgb"].shape[0])
        if rng is not None and rng.random() < self.config.augment.mirror:
            view = view.mirror()
        truth = self.goal.truth(sample, arrays, view)
        pixels = cut(arrays["rgb"], view, size, PADDING)
        if rng is not None:
            augment = self.config.augment
            if augment.rand_augment:
                pixels = rand_augment(rng, pixels, augment.rand_augment)
            pixels = vary_colors(rng, pixels, color=augment.color, grey=augment.grey)
        inputs = {"rgb": torch.from_numpy(normalize_pixels(pixels[None])[0])}
        if "depth" in self.config.inputs:
            depth = standard_depth(cut(arrays["depth"], view, size, 0.0))
            inputs["depth"] = torch.from_numpy(depth[None])
        return inputs, truth


def standard_depth(depth: np.ndarray) -> np.ndarray:
    """Depths (S, S) as the model was trained on them, 0 (their mean) where there is none."""
    valid = depth > 0
    if valid.sum() < _MIN_DEPTHS or np.ptp(depth[valid]) == 0:
        return np.zeros_like(depth)
    known = depth[valid].astype(np.float64)
    low, high = np.quantile(known, [0.1, 0.9])
    # To about 0..1 first, or the epsilon of the standardisation would depend on the unit.
    known = (known - low) / (high - low) if low < high else known
    standard = np.zeros_like(depth)
    standard[valid] = standardize(known)
    return standard


def training_batches(feed: Feed, start: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Batches from step `start` on without end; step n has the same one in every run."""
    batch, num = batch_size(feed), len(feed.samples)
    per_epoch = num // batch

    def places() -> Iterator[list[Place]]:
        step = start
        while True:
            epoch, position = divmod(step, per_epoch)
            order = np.random.default_rng((feed.config.recipe.seed, 0, epoch)).permutation(num)
            for first in range(position * batch, per_epoch * batch, batch):
                yield [(epoch, int(index)) for index in order[first : first + batch]]
                step += 1

    return iter(_loader(feed, places()))


def evaluation_batches(feed: Feed) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """All samples once, as they are."""
    batch = max(1, batch_size(feed) // feed.config.recipe.accumulate)
    numbers = range(len(feed.samples))
    return iter(_loader(feed, [[(-1, i) for i in numbers[at : at + batch]] for at in numbers[::batch]]))


def batch_size(feed: Feed) -> int:
    """Samples of a step: fewer than asked for where there are no more."""
    return min(feed.config.recipe.batch, len(feed.samples))


def mixed(
    inputs: Mapping[str, Tensor], truth: Tensor, num_classes: int, config: TransferConfig, step: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Mixup (arXiv 1710.09412) or CutMix (arXiv 1905.04899) of a batch of pictures with itself reversed.

    Args:
        inputs: pixels (B, C, S, S) by modality, mixed alike.
        truth: classes int64 (B,).
        num_classes: K.
        config: has the alphas.
        step: what is drawn depends on it alone.

    Returns:
        The inputs, and shares (B, K) of the classes.
    """
    augment = config.augment
    rng = np.random.default_rng((config.recipe.seed, 2, step))
    cuts = augment.cutmix > 0 and (augment.mixup == 0 or rng.random() < 0.5)
    alpha = augment.cutmix if cuts else augment.mixup
    share = float(rng.beta(alpha, alpha))
    shares = torch.nn.functional.one_hot(truth, num_classes).float()
    if not cuts:
        found = {name: x * share + x.flip(0) * (1 - share) for name, x in inputs.items()}
        return found, shares * share + shares.flip(0) * (1 - share)
    size = config.image_size
    half = size * np.sqrt(1 - share) / 2
    x, y = rng.random(2) * size
    left, top, right, bottom = (int(np.clip(v, 0, size)) for v in (x - half, y - half, x + half, y + half))
    found = {name: x.clone() for name, x in inputs.items()}
    for name, x in inputs.items():
        found[name][..., top:bottom, left:right] = x.flip(0)[..., top:bottom, left:right]
    share = 1 - (right - left) * (bottom - top) / size**2
    return found, shares * share + shares.flip(0) * (1 - share)


def _loader(feed: Feed, places: Iterator[list[Place]] | list[list[Place]]) -> DataLoader[object]:
    workers = feed.config.recipe.workers
    return DataLoader(
        feed,
        batch_sampler=places,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        # A forked child of a process with threads may hang.
        multiprocessing_context="spawn" if workers else None,
    )
