"""All instances of a picture: the model is asked at points all over it, and what it answers is merged.

One text holds the answers for a few points only (4M-21, arXiv 2406.09406), so several passes ask at different
ones. Answers that cover the same pixels are one instance.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
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
from .tokenizers.text import TextTokenizer
from .tokenizers.values import decoded_values
from .values import MASK_SIDE

TARGET = "sam_instance"
PLAN = TargetPlan(TARGET, "autoregressive", max_tokens=290)
"""How each pass writes; the published models learnt texts of up to 290 tokens."""

SAME_INSTANCE = 0.7
"""Intersection over union from which two masks are one instance."""

_CODE_GRID = 4
_INSIDE = 0.5


@dataclass(frozen=True)
class Instance:
    """One instance.

    Attributes:
        point: x, y in pixels of the frame where the model was asked.
        box: x0, y0, x1, y1 in pixels of a 224 x 224 frame.
        crop: bool (64, 64), the mask inside the box, stretched to a square.
        mask: bool (224, 224).
        votes: how many answers gave it.
    """

    point: tuple[float, float]
    box: tuple[float, ...]
    crop: np.ndarray
    mask: np.ndarray
    votes: int


def write_answers(
    generator: Generator,
    conditions: Mapping[str, np.ndarray],
    text: TextTokenizer,
    *,
    points: Sequence[tuple[int, int]] | None = None,
    plan: TargetPlan = PLAN,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> np.ndarray:
    """Let the model write what is at points all over one picture.

    Args:
        generator: of a model that has instances as input and target.
        conditions: the picture, as for `Generator.generate`.
        text: the model's text tokenizer.
        points: where to ask, (x, y) in pixels of the frame; 7 x 7 by default.
        plan: how to write the answers.
        seed: 0 or more.
        progress: called after every step.

    Returns:
        Ids int64 (L,): the texts of all passes, one after the other, as one text.

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
    texts = [result[TARGET] for result in written]
    ends = [np.flatnonzero(ids == text.eos_id) for ids in texts]  # what follows is never read
    return np.concatenate(
        [
            np.zeros(0, np.int64),
            *(ids[: end[0]] if end.size else ids for ids, end in zip(texts, ends, strict=True)),
        ]
    )


def ask(points: Sequence[tuple[int, int]], text: TextTokenizer) -> Draft:
    """The question what is at some points: a text with a span to fill after each."""
    tokens: list[int] = []
    redraw: list[bool] = []
    for x, y in points:
        words = text.encode(" ".join(point_words(x, y))).tolist()
        tokens += [*words, text.pad_id]
        redraw += [*[False] * len(words), True]
    return Draft(np.asarray(tokens, np.int64), np.asarray(redraw))


def merge_answers(answers: Iterable[PointInstances], tokenizer: Tokenizer) -> list[Instance]:
    """The instances that answers tell of.

    Returns:
        Those with most votes first, then the larger ones.

    Raises:
        ModelError: the tokenizer does not decode 4 x 4 codes to single-channel masks.
    """
    found = [(answer, code) for answer in answers for code in answer.instances]
    probability = decode_masks([code for _, code in found], tokenizer)
    each = [
        Instance((answer.x, answer.y), code.box, one > _INSIDE, paste(one, code.box), 1)
        for (answer, code), one in zip(found, probability, strict=True)
    ]
    return merge(each)


def decode_masks(codes: Sequence[InstanceCode], tokenizer: Tokenizer) -> np.ndarray:
    """Probability float32 (K, 64, 64) of instances at the pixels of their boxes, stretched to squares.

    Raises:
        ModelError: the tokenizer does not decode 4 x 4 codes to single-channel masks.
    """
    if not codes:
        return np.zeros((0, MASK_SIDE, MASK_SIDE), np.float32)
    ids = torch.tensor([code.codes for code in codes], device=tokenizer.codebook().device)
    decoded = tokenizer.decode(ids.unflatten(1, (_CODE_GRID, _CODE_GRID)))
    probability = decoded_values(TARGET, decoded).float().cpu().numpy()
    if probability.shape[1:] != (MASK_SIDE, MASK_SIDE):
        raise ModelError(f"The tokenizer of {TARGET} gave {probability.shape} instead of masks.")
    return probability


def paste(probability: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """A mask bool (224, 224) from the probability in its box: resized to it (bicubic), cut at one half."""
    mask = np.zeros((FRAME, FRAME), bool)
    x0, y0, x1, y1 = map(int, box)
    square = torch.from_numpy(probability)[None, None]
    mask[y0:y1, x0:x1] = functional.interpolate(square, (y1 - y0, x1 - x0), mode="bicubic")[0, 0] > _INSIDE
    return mask


def merge(answers: Sequence[Instance]) -> list[Instance]:
    """Instances from answers; the first of those that agree stands for all and has their votes."""
    flat = (
        np.stack([one.mask.reshape(-1) for one in answers]).astype(np.float32)
        if answers
        else np.zeros((0, 1))
    )
    area = flat.sum(1)
    shared = flat @ flat.T
    overlap = shared / np.maximum(area[:, None] + area - shared, 1)
    votes: dict[int, int] = {}
    for i in np.flatnonzero(area).tolist():
        best = max(votes, key=lambda kept: float(overlap[i, kept]), default=i)
        same = best if overlap[i, best] >= SAME_INSTANCE else i
        votes[same] = votes.get(same, 0) + answers[i].votes
    ranked = sorted(votes, key=lambda i: (-votes[i], -area[i]))
    return [replace(answers[i], votes=votes[i]) for i in ranked]
