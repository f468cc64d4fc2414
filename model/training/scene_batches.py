"""Batches of scenes for the 4M model: any mix of image, caption, boxes, palette and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..tokenizers.sequences import METADATA
from ..tokenizers.text import TextTokenizer
from ..tokens import Tokens
from .mixture import (
    Mask,
    Phase,
    current_phase,
    draw_budgets,
    draw_component,
    draw_presence,
    keep_some,
    mask_spans,
)
from .scene_arrays import MAX_COLORS, METADATA_NAMES, SceneArrays

RAW_NAMES = ("rgb", "caption", "det", "color_palette", "metadata")
_MEAN = np.array((0.485, 0.456, 0.406), dtype=np.float32)
_STD = np.array((0.229, 0.224, 0.225), dtype=np.float32)
_PLENTY = 10_000
_WORDING_ODDS = (0.45, 0.35, 0.20)
_NOISY_WORDS = 0.01


@dataclass(frozen=True)
class TokenIds:
    """Ids that sequences are spelt with.

    Attributes:
        numbers: int64 `(4, 1000)`, id of `v{i}={n}`.
        sentinels: int64, ids of `[S_1]`, `[S_2]`, ...
        first_word: ids from here up to `caption_end` are classes, letters and words.
        caption_end: rows of the caption's embedding table.
    """

    numbers: NDArray[np.int64]
    sentinels: NDArray[np.int64]
    first_word: int
    caption_end: int

    @classmethod
    def of(cls, tokenizer: TextTokenizer, caption_end: int) -> TokenIds:
        """Look them up."""
        numbers = np.array([[tokenizer.id_of(f"v{i}={n}") for n in range(1000)] for i in range(4)])
        sentinels = np.array(tokenizer.sentinels)
        return cls(numbers, sentinels, int(sentinels.max()) + 1, caption_end)


@dataclass(frozen=True)
class Sequences:
    """Token ids `(B, n)` and which of them exist."""

    ids: NDArray[np.int64]
    used: Mask


class SceneBatches:
    """Draws batches; batch number n is the same in every run with the same seed.

    Args:
        data: the scenes.
        ids: of the text tokenizer.
        phases: the mixture, and how it changes.
        batch_size: samples in a batch.
        num_tokens: most tokens that the encoder is given of one sample.
        image_name: checkpoint name of the pixel modality, e.g. `rgb@96`.
        patch_size: pixels along the side of one token.
        seed: of all draws.
    """

    def __init__(
        self,
        data: SceneArrays,
        ids: TokenIds,
        phases: Sequence[Phase],
        *,
        batch_size: int,
        num_tokens: int,
        image_name: str,
        patch_size: int,
        seed: int,
    ) -> None:
        self.data, self.ids, self.phases = data, ids, phases
        self.batch_size, self.num_tokens, self.seed = batch_size, num_tokens, seed
        self.image_name, self.patch_size = image_name, patch_size

    def draw(self, number: int) -> tuple[dict[str, Tokens], NDArray[np.int64]]:
        """Return batch `number`: model input by modality, and the scene of each sample."""
        rng = np.random.default_rng([self.seed, number])
        component = draw_component(current_phase(self.phases, number).components, rng)
        present = draw_presence(component, RAW_NAMES, self.batch_size, rng)
        budgets = np.where(present, _PLENTY, 0)
        if component.num_tokens:
            budgets = draw_budgets(present, component.num_tokens, component.alpha, rng)
        rows = rng.integers(len(self.data.rgb), size=self.batch_size)
        which = rng.integers(self.data.rgb.shape[1], size=self.batch_size)
        mirrored = rng.random(self.batch_size) < 0.5
        batch: dict[str, Tokens] = {}
        # The order decides what goes when a sample has more tokens than the budget.
        for column in rng.permutation(len(RAW_NAMES)):
            name, budget = RAW_NAMES[column], budgets[:, column]
            if not present[:, column].any():
                continue
            if name == "rgb":
                batch[self.image_name] = self._image(rows, which, mirrored, budget, rng)
                continue
            if name == "caption":
                found = self._caption(rows, which, budget, rng)
            elif name == "det":
                found = self._boxes(rows, which, mirrored, budget, rng)
            elif name == "color_palette":
                found = self._palette(rows, which, budget, rng)
            else:
                found = self._metadata(rows, which, budget, rng)
            batch[name] = as_tokens(Sequences(found.ids, found.used & present[:, column, None]))
        return batch, rows

    def _image(
        self,
        rows: NDArray[np.int64],
        which: NDArray[np.int64],
        mirrored: Mask,
        budget: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Tokens:
        rgb = self.data.rgb[rows, which]
        rgb[mirrored] = rgb[mirrored, :, ::-1]
        num_patches = (rgb.shape[1] // self.patch_size) ** 2
        kept = keep_some(np.ones((len(rgb), num_patches), dtype=bool), budget, rng)
        return image_tokens(rgb, kept)

    def _caption(
        self,
        rows: NDArray[np.int64],
        which: NDArray[np.int64],
        budget: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Sequences:
        wording = rng.choice(len(_WORDING_ODDS), size=len(rows), p=_WORDING_ODDS)
        ids = self.data.captions[rows, which, wording].astype(np.int64)
        ids = ids[:, : int((ids > 0).sum(1).max())]
        used = ids > 0
        # People write words that no scene knows; the model should not fall for a single one.
        noisy = used & (rng.random(ids.shape) < _NOISY_WORDS)
        ids = np.where(noisy, rng.integers(self.ids.first_word, self.ids.caption_end, ids.shape), ids)
        kept = keep_some(used, budget, rng)
        return Sequences(*mask_spans(ids, used, kept, self.ids.sentinels))

    def _boxes(
        self,
        rows: NDArray[np.int64],
        which: NDArray[np.int64],
        mirrored: Mask,
        budget: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Sequences:
        boxes, labels = self.data.boxes[rows, which], self.data.box_labels[rows, which]
        boxes = np.where(
            mirrored[:, None, None], (1 - boxes)[..., [2, 1, 0, 3]] * [1, -1, 1, -1] + [0, 1, 0, 1], boxes
        )
        # Edges lie on whole pixels here; elsewhere they may lie anywhere.
        boxes = boxes + rng.uniform(-0.5, 0.5, boxes.shape) / self.data.rgb.shape[2]
        kept = keep_some(labels > 0, np.maximum(budget // 5, budget > 0), rng)
        return box_sequences(boxes, labels, kept, self.ids)

    def _palette(
        self,
        rows: NDArray[np.int64],
        which: NDArray[np.int64],
        budget: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Sequences:
        colors = self.data.palette[rows, which]
        available = (colors[..., 0] >= 0).sum(1)
        wanted = np.where(rng.random(len(rows)) < 0.5, MAX_COLORS, rng.integers(1, MAX_COLORS + 1, len(rows)))
        wanted = np.minimum(wanted, np.maximum((budget - 1) // 3, 1))
        return palette_sequences(colors, np.minimum(available, wanted), self.ids)

    def _metadata(
        self,
        rows: NDArray[np.int64],
        which: NDArray[np.int64],
        budget: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Sequences:
        numbers = self.data.metadata[rows, which]
        wanted = np.where(
            rng.random(len(rows)) < 0.5, _PLENTY, rng.integers(1, numbers.shape[1] + 1, len(rows))
        )
        kept = keep_some(
            np.ones(numbers.shape, dtype=bool), np.minimum(wanted, np.maximum(budget // 2, 1)), rng
        )
        return metadata_sequences(numbers, kept, self.ids)


def image_tokens(rgb: NDArray[np.uint8], kept: Mask) -> Tokens:
    """Images `(B, S, S, 3)` as model input with the kept patches `(B, n)`."""
    pixels = (rgb.astype(np.float32) / 255 - _MEAN) / _STD
    return Tokens(
        torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))), torch.from_numpy(~kept)
    )


def as_tokens(found: Sequences) -> Tokens:
    """Sequences as model input."""
    return Tokens(torch.from_numpy(np.where(found.used, found.ids, 0)), torch.from_numpy(~found.used))


def box_sequences(
    boxes: NDArray[np.floating], labels: NDArray[np.integer], kept: Mask, ids: TokenIds
) -> Sequences:
    """Spell boxes `(B, n, 4)` with label ids `(B, n)`, nearest to the top left corner first."""
    boxes = np.clip(boxes, 0, 1)
    order = np.where(kept, boxes[..., 0] ** 2 + boxes[..., 1] ** 2, 9).argsort(1)
    boxes, labels = np.take_along_axis(boxes, order[..., None], 1), np.take_along_axis(labels, order, 1)
    kept = np.take_along_axis(kept, order, 1)
    numbers = ids.numbers[np.arange(4), np.round(boxes * 999).astype(np.int64)]
    spelt = np.concatenate([numbers, labels[..., None].astype(np.int64)], axis=2)
    return Sequences(spelt.reshape(len(boxes), -1), np.repeat(kept, 5, axis=1))


def palette_sequences(colors: NDArray[np.integer], counts: NDArray[np.int64], ids: TokenIds) -> Sequences:
    """Spell the first `counts` `(B,)` of the colours `(B, n, 3)`."""
    channels = ids.numbers[0, np.clip(colors, 0, 255).astype(np.int64)].reshape(len(colors), -1)
    spelt = np.concatenate([ids.numbers[1, counts][:, None], channels], axis=1)
    return Sequences(spelt, np.arange(spelt.shape[1]) < 1 + 3 * counts[:, None])


def metadata_sequences(numbers: NDArray[np.integer], kept: Mask, ids: TokenIds) -> Sequences:
    """Spell the kept of `METADATA_NAMES`, closed by `[S_1]`: there may be more."""
    kinds = ids.numbers[1, [METADATA[name].id for name in METADATA_NAMES]]
    pairs = np.stack(
        [np.broadcast_to(kinds, numbers.shape), ids.numbers[0, numbers.astype(np.int64)]], axis=2
    )
    close = np.full((len(numbers), 1), ids.sentinels[0])
    spelt = np.concatenate([pairs.reshape(len(numbers), -1), close], axis=1)
    return Sequences(
        spelt, np.concatenate([np.repeat(kept, 2, axis=1), np.ones_like(close, dtype=bool)], axis=1)
    )


def query_tokens(
    data: SceneArrays,
    names: Sequence[str],
    num: int,
    rendering: int,
    ids: TokenIds,
    image_name: str,
    patch_size: int,
) -> Mapping[str, Tokens]:
    """Give the named modalities whole, for the first `num` scenes: what evaluation asks."""
    out: dict[str, Tokens] = {}
    rows = np.arange(num)
    for name in names:
        if name == "rgb":
            rgb = data.rgb[:num, rendering]
            out[image_name] = image_tokens(rgb, np.ones((num, (rgb.shape[1] // patch_size) ** 2), dtype=bool))
        elif name == "caption":
            caption = data.captions[:num, rendering, 0].astype(np.int64)
            out[name] = as_tokens(Sequences(caption, caption > 0))
        elif name == "det":
            labels = data.box_labels[rows, rendering]
            out[name] = as_tokens(box_sequences(data.boxes[rows, rendering], labels, labels > 0, ids))
        elif name == "color_palette":
            colors = data.palette[rows, rendering]
            out[name] = as_tokens(palette_sequences(colors, (colors[..., 0] >= 0).sum(1), ids))
        else:
            numbers = data.metadata[rows, rendering]
            out[name] = as_tokens(metadata_sequences(numbers, np.ones(numbers.shape, dtype=bool), ids))
    return out
