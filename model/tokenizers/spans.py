"""T5-style spans: how a token sequence becomes the input and the target of a sequence modality.

Dropped tokens that follow each other become one sentinel in the input; the target holds, for each span, its
sentinel and its tokens, and is closed by the next sentinel (arXiv 1910.10683, section 3.1.4, as used in 4M).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from .text import TextTokenizer

_KEEP_DECAY = 0.9  # of the reference: when the input is too long, keep less and draw again


def mask_spans(
    chunks: Sequence[Sequence[int]],
    uniform: Sequence[float] | np.ndarray,
    keep_prob: float,
    sentinels: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Split a sequence into input and target.

    Args:
        chunks: token ids, in groups that are kept or dropped as a whole (single tokens for captions).
        uniform: one number in [0, 1) per chunk; `u <= keep_prob` keeps it.
        keep_prob: probability of keeping.
        sentinels: ids of `[S_1]`, `[S_2]`, ...; when all but the closing one are used, the rest is kept.

    Returns:
        Input ids and target ids.
    """
    inputs: list[int] = []
    target: list[int] = []
    spans = 0
    previous_kept = True
    for chunk, u in zip(chunks, uniform, strict=True):
        kept = bool(u <= keep_prob) or (previous_kept and spans == len(sentinels) - 1)
        if kept:
            inputs.extend(chunk)
        else:
            if previous_kept:
                inputs.append(sentinels[spans])
                target.append(sentinels[spans])
                spans += 1
            target.extend(chunk)
        previous_kept = kept
    return inputs, [*target, sentinels[spans]]


def merge_spans(inputs: Sequence[int], target: Sequence[int], sentinels: Sequence[int]) -> list[int]:
    """Undo `mask_spans`: replace each sentinel of the input by the tokens that follow it in the target.

    A sentinel that the target does not know vanishes; what follows the closing sentinel is never used.
    """
    known = set(sentinels)
    starts = [i for i, token in enumerate(target) if token in known]
    spans = {target[a]: target[a + 1 : b] for a, b in pairwise([*starts, len(target)])}
    merged: list[int] = []
    for token in inputs:
        merged.extend(spans.get(token, ()) if token in known else (token,))
    return merged


def sample_spans(
    chunks: Sequence[Sequence[int]],
    *,
    input_budget: int,
    target_budget: int,
    keep_prob: float,
    tokenizer: TextTokenizer,
    max_tokens: int,
    random: np.random.Generator,
) -> tuple[list[int], list[int]]:
    """Draw one training pair from a sequence: `[EOS]` is appended, then spans are masked to fit both budgets.

    Args:
        chunks: token ids without `[EOS]`, in groups kept or dropped as a whole.
        input_budget: most input tokens; with 0 everything is target.
        target_budget: most target tokens; a longer target is cut to a window that starts at a sentinel.
        keep_prob: probability of keeping a chunk; lowered until the input fits.
        tokenizer: gives `[EOS]` and the sentinels.
        max_tokens: length that the sequence is cut to, `[EOS]` included.
        random: source of all draws.

    Returns:
        Input ids (at most `input_budget`) and target ids (at most `target_budget`).
    """
    chunks = _cut([*chunks, [tokenizer.eos_id]], max_tokens)
    sentinels = tokenizer.sentinels
    if input_budget == 0:
        target = [sentinels[0], *(token for chunk in chunks for token in chunk), sentinels[1]]
        return [], _cut_target(target, target_budget, sentinels, random.integers)
    while True:
        inputs, target = mask_spans(chunks, random.random(len(chunks)), keep_prob, sentinels)
        if len(inputs) <= input_budget:
            return inputs, _cut_target(target, target_budget, sentinels, random.integers)
        keep_prob *= _KEEP_DECAY


def sequence_buffer(
    inputs: Sequence[int], target: Sequence[int], *, input_budget: int, max_tokens: int, pad_id: int
) -> dict[str, np.ndarray]:
    """Lay a training pair out in the fixed buffer of a sequence modality, length `2 * (max_tokens + 1)`.

    Returns:
        `tensor` int64, `input_mask` and `target_mask` bool (True = not used), `decoder_attention_mask` int64
        (1 on every target token), each `(length,)`.
    """
    length = 2 * (max_tokens + 1)
    tensor = np.full(length, pad_id, np.int64)
    input_mask, target_mask = np.ones(length, bool), np.ones(length, bool)
    target_slots = slice(input_budget, input_budget + len(target))
    tensor[: len(inputs)], input_mask[: len(inputs)] = inputs, False
    tensor[target_slots], target_mask[target_slots] = target, False
    return _sample(tensor, input_mask, target_mask, (~target_mask).astype(np.int64))


def text_condition(
    ids: Sequence[int] | np.ndarray, target_length: int, tokenizer: TextTokenizer
) -> dict[str, np.ndarray]:
    """Give text as condition, with `target_length` slots behind it that may be generated.

    No `[EOS]` ends the condition. The slots are `[S_1] [PAD] ... [EOS]`; generation stops at the last token.

    Returns:
        As `sequence_buffer`, `(len(ids) + target_length,)`.
    """
    slots = [tokenizer.sentinels[0], *[tokenizer.pad_id] * (target_length - 2), tokenizer.eos_id]
    tensor = np.asarray([*ids, *slots], np.int64)
    is_target = np.arange(len(tensor)) >= len(ids)
    return _sample(tensor, is_target, ~is_target, np.zeros(len(tensor), np.int64))


def empty_sequence(length: int, tokenizer: TextTokenizer) -> dict[str, np.ndarray]:
    """Give a sequence modality nothing but a span to be filled: `[S_1]` in, `[S_1] ... [S_2]` to predict.

    Returns:
        As `sequence_buffer`, `(max(length, 2),)`.
    """
    first, second = tokenizer.sentinels[:2]
    tensor = np.full(max(length, 2), tokenizer.pad_id, np.int64)
    tensor[[0, 1]], tensor[-1] = first, second
    is_target = np.arange(len(tensor)) >= 1
    return _sample(tensor, is_target, ~is_target, is_target.astype(np.int64))


def _sample(
    tensor: np.ndarray, input_mask: np.ndarray, target_mask: np.ndarray, attention: np.ndarray
) -> dict[str, np.ndarray]:
    return {
        "tensor": tensor,
        "input_mask": input_mask,
        "target_mask": target_mask,
        "decoder_attention_mask": attention,
    }


def _cut(chunks: Sequence[Sequence[int]], max_tokens: int) -> list[Sequence[int]]:
    kept: list[Sequence[int]] = []
    for chunk in chunks:
        if max_tokens <= 0:
            break
        kept.append(chunk[:max_tokens])
        max_tokens -= len(chunk)
    return kept


def _cut_target(
    target: list[int], budget: int, sentinels: Sequence[int], draw: Callable[[int], np.int64 | int]
) -> list[int]:
    """Keep `budget` tokens from a random sentinel on; near the end, from the earliest one whose rest fits."""
    if len(target) <= budget:
        return target
    known = set(sentinels)
    starts = [i for i, token in enumerate(target) if token in known]
    start = starts[int(draw(max(len(starts) - 1, 1)))]
    if len(target) - start < budget:
        start = next(i for i in starts if len(target) - i <= budget)
    return target[start : start + budget]
