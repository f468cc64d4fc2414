"""Any inputs to vectors of the global embedding spaces.

The model predicts 16 tokens for each space from whatever an item has, in one encoder pass and one decoder
pass for the whole batch. A vector is made of the predicted distributions (arXiv 2406.09406, cross-modal
retrieval; soft decoding is ours).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError, ModelError
from .blending import Nothing, Passes, blend
from .checks import check_input
from .encoding import ValueEncoder
from .inputs import Content, InputReader
from .modalities import Modality
from .prediction import Predictor
from .tokenizers.build import ImageTokenizer

Decoding = Literal["soft", "argmax", "sample"]

TEMPERATURE = 0.1
"""Of sampled decoding, as in the retrieval example of the published models."""

TOP_P = 0.8
"""Likewise: sampled from the most likely tokens that hold this probability together."""


@dataclass(frozen=True)
class Space:
    """A space of global embeddings.

    Attributes:
        name: `dinov2_global` or `imagebind_global`.
        dim: length of its vectors.
        num_tokens: tokens that stand for one vector, each from a codebook of its own.
        codebook_size: number of ids of each token.
    """

    name: str
    dim: int
    num_tokens: int
    codebook_size: int


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of N items in one space.

    Attributes:
        vectors: float32 (N, dim), of length 1.
        tokens: uint16 (N, num_tokens), the most likely ids, or those drawn with sampled decoding.
        log_probs: float32 (N, num_tokens, codebook_size), natural logarithms of the predicted probabilities
            before any temperature; None unless asked for.
    """

    vectors: np.ndarray
    tokens: np.ndarray
    log_probs: np.ndarray | None = None


class Embedder:
    """Reads values and embeds items. Safe to use from many threads.

    Args:
        predictor: gives token logits by checkpoint name; None where there are no spaces.
        reader: reads values of the input modalities.
        encoder: turns values into what the predictor takes.
        inputs: by the user's name, the modalities an item may have.
        tokenizers: by the user's name of a space, its row of the modality table and what decodes its tokens.
        nothing: what stands for parts that are taken away.
        num_classes: labels of segmentations, without the one for nothing.
    """

    def __init__(
        self,
        predictor: Predictor | None,
        reader: InputReader,
        encoder: ValueEncoder,
        inputs: Mapping[str, Modality],
        tokenizers: Mapping[str, tuple[Modality, ImageTokenizer]],
        nothing: Nothing,
        num_classes: int,
    ) -> None:
        self._predictor = predictor
        self._reader = reader
        self._encoder = encoder
        self._inputs = dict(inputs)
        self._nothing = nothing
        self._num_classes = num_classes
        self._decoders = {
            name: SpaceDecoder(name, modality, tokenizer)
            for name, (modality, tokenizer) in tokenizers.items()
        }

    @property
    def spaces(self) -> dict[str, Space]:
        """The spaces it embeds into, by name."""
        return {name: decoder.space for name, decoder in self._decoders.items()}

    def read(self, modality: str, content: Content) -> np.ndarray:
        """Turn one value from outside into what `embed` takes; see `InputReader.read`."""
        return self._reader.read(modality, content)

    def embed(
        self,
        items: Sequence[Mapping[str, np.ndarray]],
        *,
        decoding: Decoding = "soft",
        log_probs: bool = False,
        seed: int = 0,
    ) -> dict[str, Embeddings]:
        """Embed items, each from whatever it has, in one pass.

        A vector does not depend on what else is in the batch, up to rounding: its cosine to the vector of
        the item alone is 0.99999 or more in float32, 0.999 or more in bfloat16. The same call gives the
        same result. Tokenizers are read when an item first needs them.

        Args:
            items: by the user's name of the modality, what `read` gave; at least one modality each.
            decoding: `soft` takes each token's expected code vector under its distribution, `argmax` the most
                likely code, `sample` draws one (temperature 0.1, top-p 0.8).
            log_probs: give the token distributions too (16 x 8192 numbers an item for 4M-21).
            seed: of sampled decoding; place in the batch and its size play no part. Several seeds give
                several guesses.

        Returns:
            By name of the space, N embeddings.

        Raises:
            InputError: an item with nothing in it, or an array that `read` would not give.
            ModelError: a modality that this model does not take, a tokenizer that does not fit it, or an
                unknown decoding.
            CheckpointError: a tokenizer that cannot be had.
        """
        if decoding not in get_args(Decoding):
            raise ModelError(f"Unknown decoding {decoding!r}; known are {', '.join(get_args(Decoding))}.")
        return self._embed(self._encode(items, "Item {}"), None, decoding, log_probs, seed)

    def embed_guided(
        self, queries: Sequence[Sequence[tuple[float, Mapping[str, np.ndarray]]]], *, log_probs: bool = False
    ) -> dict[str, Embeddings]:
        """Embed queries of weighted parts, which act on token logits: l = l_0 + sum_i w_i (l_i - l_0).

        l_i is predicted from part i alone, l_0 from none of them (`blending.py`); negative weights push away
        before there is a vector. A query with one part of weight 1 gets what `embed` gives. All passes of all
        queries run as one batch: one for each part, and one from nothing for those queries whose weights do
        not add up to 1, shared between queries of the same texts.

        Args:
            queries: of each the weights and items, which are as for `embed`; weight 0 leaves a part out.
            log_probs: give the token distributions too.

        Returns:
            By name of the space, an embedding for each query, softly decoded.

        Raises:
            QueryError: a weight that is not a finite number.
            InputError, ModelError, CheckpointError: as `embed`; also a query without parts, and a model
                without texts where a pass from nothing is needed.
        """
        items = [item for parts in queries for _, item in parts]
        encoded = iter(self._encode(items, "Part {}"))
        blended = blend(
            [[(weight, next(encoded)) for weight, _ in parts] for parts in queries], self._nothing
        )
        return self._embed(blended.items, blended, "soft", log_probs, 0)

    def _embed(
        self,
        items: Sequence[Mapping[str, np.ndarray]],
        blended: Passes | None,
        decoding: Decoding,
        log_probs: bool,
        seed: int,
    ) -> dict[str, Embeddings]:
        if self._predictor is None:
            raise ModelError("This model was opened without embedding spaces; open it with some to embed.")
        with torch.inference_mode():
            if not items:
                return {name: decoder.nothing(log_probs) for name, decoder in self._decoders.items()}
            logits = self._predictor(items)
            if blended is not None:
                logits = {target: blended.logits(of_passes) for target, of_passes in logits.items()}
            return {
                name: decoder(logits[decoder.target], decoding, log_probs, seed)
                for name, decoder in self._decoders.items()
            }

    def _encode(self, items: Sequence[Mapping[str, np.ndarray]], where: str) -> list[dict[str, np.ndarray]]:
        """Check items, then make of them what the predictor takes."""
        for i, item in enumerate(items):
            self._check(where.format(i), item)
        return self._encoder.encode(items)

    def _check(self, where: str, item: Mapping[str, np.ndarray]) -> None:
        if not item:
            raise InputError(f"{where} has nothing to embed; give at least one modality.", code="input.empty")
        for name, value in item.items():
            if name not in self._inputs:
                known = ", ".join(self._inputs)
                raise ModelError(f"{where} has {name!r}, which this model does not take; it takes {known}.")
            check_input(value, self._inputs[name], f"{where}, {name}", self._num_classes)


class SpaceDecoder:
    """Turns token logits of one space into embeddings.

    Args:
        name: of the space.
        modality: its row of the modality table.
        tokenizer: its own, with at least the decoder.
    """

    def __init__(self, name: str, modality: Modality, tokenizer: ImageTokenizer) -> None:
        self.target = modality.name
        self._tokenizer = tokenizer
        self._dtype = next(tokenizer.parameters()).dtype
        codebook = tokenizer.codebook()  # (heads, codes, width)
        self._codebook = codebook.detach().float()
        self._random_stream = modality.id
        self.space = Space(name, tokenizer.config.n_channels, *codebook.shape[:2])

    def __call__(self, logits: Tensor, decoding: Decoding, log_probs: bool, seed: int) -> Embeddings:
        """Float32 logits (N, num_tokens, codebook_size) to N embeddings."""
        ids = self._sample(logits, seed) if decoding == "sample" else logits.argmax(-1)
        if decoding == "soft":
            codes = torch.einsum("nhk,hkc->nhc", logits.softmax(-1), self._codebook)
        else:
            codes = self._codebook[torch.arange(ids.shape[1], device=ids.device), ids]
        vectors = self._tokenizer.decode_codes(codes.flatten(1).to(self._dtype)).float()
        return Embeddings(
            functional.normalize(vectors, dim=-1).cpu().numpy(),
            ids.cpu().numpy().astype(np.uint16),
            logits.log_softmax(-1).cpu().numpy() if log_probs else None,
        )

    def nothing(self, log_probs: bool) -> Embeddings:
        """Embeddings of no items."""
        shape = (0, self.space.num_tokens, self.space.codebook_size)
        return Embeddings(
            np.zeros((0, self.space.dim), np.float32),
            np.zeros(shape[:2], np.uint16),
            np.zeros(shape, np.float32) if log_probs else None,
        )

    def _sample(self, logits: Tensor, seed: int) -> Tensor:
        """Draw ids. What is in the running is decided before the temperature, as in the reference."""
        sorted_logits, order = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = sorted_logits.softmax(-1)
        outside = probabilities.cumsum(-1) - probabilities > TOP_P
        running = (sorted_logits / TEMPERATURE).masked_fill(outside, -torch.inf).softmax(-1).cumsum(-1)
        # One number per token, the same for every item: a draw depends on an item's logits and the seed.
        uniform = np.random.default_rng((abs(seed), int(seed < 0), self._random_stream)).random(
            logits.shape[1]
        )
        threshold = torch.from_numpy(uniform).to(running) * running[..., -1]
        choice = (running <= threshold[..., None]).sum(-1, keepdim=True)
        return order.gather(-1, choice.clamp(max=order.shape[-1] - 1))[..., 0]
