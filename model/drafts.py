"""Targets while they are generated: what is known of them, and what is still to be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, ModelError, QueryError
from .guidance import Given, all_used, read_ids
from .modalities import SEQUENCE_POSITIONS, Modality
from .tokenizers.spans import merge_spans
from .tokenizers.text import TextTokenizer


@dataclass(frozen=True)
class Draft:
    """A target of which a part is known already.

    Attributes:
        tokens: ids of the whole target.
        redraw: bool, same shape: which of them to generate anew. The others never change. In a sequence,
            each run of redrawn tokens may come back longer or shorter.
    """

    tokens: np.ndarray
    redraw: np.ndarray


@dataclass(frozen=True)
class ControlIds:
    """Ids that steer sequences.

    Attributes:
        sentinels: ids of `[S_1]`, `[S_2]`, ..., which stand for spans to fill and introduce what fills them.
    """

    sentinels: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> "ControlIds":
        """Those of a model's text tokenizer."""
        return cls(tokenizer.sentinels)

    def require(self, modality: Modality, num_spans: int) -> None:
        """See that a modality can name this many spans and close them; ModelError or QueryError if not."""
        assert modality.vocab_size is not None
        if self.sentinels[0] >= modality.vocab_size:
            raise ModelError(
                f"{modality.name} has ids 0..{modality.vocab_size - 1}, but the first sentinel is "
                f"{self.sentinels[0]}: the control ids are not those of this model's text tokenizer."
            )
        if num_spans >= len(self.sentinels) or self.sentinels[num_spans] >= modality.vocab_size:
            raise QueryError(
                f"{modality.name}: a draft with {num_spans} runs of tokens to redraw is too broken up; "
                "redraw what lies between them too."
            )


PUBLISHED_CONTROLS = ControlIds(tuple(range(5, 204)))
"""Those of the published text tokenizer."""


class GridTarget:
    """One item's grid: its tokens int64 (n,), and which of them are known."""

    def __init__(self, modality: Modality, draft: Draft | None = None) -> None:
        self.tokens = np.zeros(modality.max_tokens, np.int64)
        self.is_known = np.zeros(modality.max_tokens, bool)
        if draft is not None:
            self.tokens = read_ids(modality, draft.tokens)
            self.is_known = ~_redraw(modality, draft, self.tokens)

    @property
    def num_unknown(self) -> int:
        """How many tokens are still to be drawn."""
        return int((~self.is_known).sum())

    def fill(self, slots: np.ndarray, tokens: np.ndarray) -> None:
        """Put drawn tokens in their places."""
        self.tokens[slots], self.is_known[slots] = tokens, True

    def given(self) -> Given:
        """As the encoder sees it by now."""
        return Given(self.tokens.copy(), self.is_known.copy())

    def result(self) -> np.ndarray:
        """All tokens."""
        return self.tokens.copy()


class SequenceTarget:
    """One item's sequence: its input, in which sentinels stand for spans to fill, and then the whole."""

    def __init__(self, modality: Modality, controls: ControlIds, draft: Draft | None = None) -> None:
        self._sentinels = controls.sentinels
        self._input, self.num_spans = [controls.sentinels[0]], 1
        if draft is not None:
            tokens = read_ids(modality, draft.tokens)
            redraw = _redraw(modality, draft, tokens)
            if np.isin(tokens[~redraw], self._sentinels).any():
                raise InputError(f"{modality.name}: a draft holds sentinels; mark what to redraw instead.")
            starts = redraw & ~np.concatenate([[False], redraw[:-1]])
            self.num_spans = int(starts.sum())
            controls.require(modality, self.num_spans)
            tokens[starts] = self._sentinels[: self.num_spans]
            self._input = tokens[~redraw | starts].tolist()

    @property
    def opening(self) -> int:
        """The sentinel that what is generated starts with."""
        return self._sentinels[0]

    @property
    def closing(self) -> int:
        """The sentinel that ends its last span."""
        return self._sentinels[self.num_spans]

    def fill(self, generated: Sequence[int]) -> None:
        """Put generated spans, each after its sentinel, in their places."""
        self._input, self.num_spans = merge_spans(self._input, generated, self._sentinels), 0

    def given(self) -> Given:
        """As the encoder sees it by now, which has no positions for more."""
        return all_used(self.result()[:SEQUENCE_POSITIONS])

    def result(self) -> np.ndarray:
        """All tokens."""
        return np.asarray(self._input, np.int64)


Target = GridTarget | SequenceTarget


def _redraw(modality: Modality, draft: Draft, tokens: np.ndarray) -> np.ndarray:
    redraw = np.asarray(draft.redraw)
    if redraw.dtype != bool or redraw.size != tokens.size:
        raise InputError(
            f"{modality.name}: expected a bool mask of the {tokens.size} tokens to redraw, "
            f"got {redraw.dtype} {redraw.shape}."
        )
    return redraw.reshape(-1)
