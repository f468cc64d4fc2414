"""All instances of a picture: the model is asked at points all over it, and what it answers is merged.

One text holds the answers for a few points only (4M-21, arXiv 2406.09406), so several passes ask at different
ones. Answers that cover the same pixels are one instance.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ModelError, QueryError
from .decoding import Progress
from .drafts import Draft
from .generate import Generator
from .plans import TargetPlan
from .tokenizers.image import Tokenizer
from .tokenizers.instances import (
    FRAME,
    MAX_POINTS,
    InstanceCode,
    PointInstances,
    grid_points,
    point_words,
)
from .tokenizers.parsed import parse_sequence
from .tokenizers.text import TextTokenizer
from .tokenizers.values import decoded_values

TARGET = "sam_instance"
PLAN = TargetPlan(TARGET, "autoregressive", max_tokens=290)
"""How each pass writes; the published models learnt texts of up to 290 tokens."""

SAME_INSTANCE = 0.7
"""Intersection over union from which two masks are one instance."""

_CODE_GRID = 4


@dataclass(frozen=True)
class Instance:
    """One instance.

    Attributes:
        box: x0, y0, x1, y1 in pixels of a 224 x 224 frame.
        mask: bool (224, 224).
        votes: how many answers gave it.
    """

    box: tuple[float, ...]
    mask: np.ndarray
    votes: int


def predict_instances(
    generator: Generator,
    conditions: Mapping[str, np.ndarray],
    text: TextTokenizer,
    tokenizer: Tokenizer,
    *,
    points: Sequence[tuple[int, int]] | None = None,
    plan: TargetPlan = PLAN,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> list[Instance]:
    """Find the instances of one picture.

    Args:
        generator: of a model that has instances as input and target.
        conditions: the picture, as for `Generator.generate`.
        text: the model's text tokenizer.
        tokenizer: decodes masks from 4 x 4 codes.
        points: where to ask, (x, y) in pixels of the frame; 7 x 7 by default.
        plan: how to write the answers.
        seed: 0 or more.
        progress: called after every step.

    Returns:
        Instances, those with most votes first, then the larger ones.

    Raises:
        QueryError: a point outside the frame.
        ModelError, InputError: as `Generator.generate`.
    """
    asked = list(grid_points() if points is None else points)
    for x, y in asked:
        if not (0 <= x < FRAME and 0 <= y < FRAME):
            raise QueryError(f"Point ({x}, {y}) lies outside the frame of {FRAME} x {FRAME} pixels.")
    # Neighbours are asked in different passes: they tend to share instances, and a text has room for few.
    num_passes = -(-len(asked) // MAX_POINTS)
    drafts = [{TARGET: ask(asked[i::num_passes], text)} for i in range(num_passes)]
    written = generator.generate(
        [conditions] * num_passes,
        [plan],
        seed=range(seed, seed + num_passes),
        drafts=drafts,
        progress=progress,
    )
    answers = [parse_sequence(TARGET, result[TARGET], text).value or [] for result in written]
    codes = [
        code
        for points in answers
        for point in points
        if isinstance(point, PointInstances)
        for code in point.instances
    ]
    return merge(codes, decode_masks(codes, tokenizer))


def ask(points: Sequence[tuple[int, int]], text: TextTokenizer) -> Draft:
    """The question what is at some points: a text with a span to fill after each."""
    tokens: list[int] = []
    redraw: list[bool] = []
    for x, y in points:
        words = text.encode(" ".join(point_words(x, y))).tolist()
        tokens += [*words, text.pad_id]
        redraw += [*[False] * len(words), True]
    return Draft(np.asarray(tokens, np.int64), np.asarray(redraw))


def decode_masks(codes: Sequence[InstanceCode], tokenizer: Tokenizer) -> np.ndarray:
    """Masks bool (K, 224, 224) of instances, each resized into its box (bicubic) and cut at one half.

    Raises:
        ModelError: the tokenizer does not decode 4 x 4 codes to single-channel masks.
    """
    masks = np.zeros((len(codes), FRAME, FRAME), bool)
    if not codes:
        return masks
    ids = torch.tensor([code.codes for code in codes], device=tokenizer.codebook().device)
    with torch.inference_mode():
        probability = decoded_values(TARGET, tokenizer.decode(ids.unflatten(1, (_CODE_GRID, _CODE_GRID))))
    if probability.ndim != 3:
        raise ModelError(f"The tokenizer of {TARGET} gave {tuple(probability.shape)} instead of masks.")
    for mask, code, one in zip(masks, codes, probability.float().cpu(), strict=True):
        x0, y0, x1, y1 = map(int, code.box)
        mask[y0:y1, x0:x1] = _resized(one, y1 - y0, x1 - x0) > 0.5
    return masks


def _resized(probability: Tensor, height: int, width: int) -> np.ndarray:
    resized = functional.interpolate(probability[None, None], (height, width), mode="bicubic")
    return resized[0, 0].numpy()


def merge(codes: Sequence[InstanceCode], masks: np.ndarray) -> list[Instance]:
    """Instances from answers with masks bool (K, H, W); the first of those that agree stands for all."""
    flat = masks.reshape(len(masks), masks[0].size if len(masks) else 0).astype(np.float32)
    area = flat.sum(1)
    shared = flat @ flat.T
    overlap = shared / np.maximum(area[:, None] + area - shared, 1)
    votes: dict[int, int] = {}
    for i in np.flatnonzero(area).tolist():
        best = max(votes, key=lambda kept: float(overlap[i, kept]), default=i)
        same = best if overlap[i, best] >= SAME_INSTANCE else i
        votes[same] = votes.get(same, 0) + 1
    ranked = sorted(votes, key=lambda i: (-votes[i], -area[i]))
    return [Instance(codes[i].box, masks[i], votes[i]) for i in ranked]
