"""The passes that generation is made of, without repeated work.

The encoder runs once per change of its input and once for rows that show it the same; branches and items of
any length share one batch without padding; sequences keep the keys and values of both attentions, and only
their last position meets the vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .blocks import KeyValue, KeyValueCache, attention_bias
from .drafts import GridTarget, SequenceTarget
from .embeddings import ImageTokenDecoderEmbedding, SequenceDecoderEmbedding
from .fourm import Context, FourM
from .guidance import Branches, Given, Item, Row, collate, row_key
from .modalities import Modality
from .plans import TargetPlan
from .sampling import GREEDY_BELOW, Chooser, Drawn, Step


class Reader:
    """Encodes rows: equal ones once, and none again while nothing has changed."""

    def __init__(self, fourm: FourM) -> None:
        self._fourm = fourm
        self._modalities = [fourm.config.modality(name) for name in fourm.inputs]
        self._keys: list[object] = []
        self._context: Context | None = None

    def read(self, rows: Sequence[Row]) -> tuple[Context, np.ndarray]:
        """The context of the different rows, and which of them is each row's own, int64 (R,)."""
        places: dict[object, int] = {}
        index = np.asarray([places.setdefault(row_key(row), len(places)) for row in rows], np.int64)
        if self._context is None or self._keys != list(places):
            self._context = self._encode([rows[int(np.argmax(index == i))] for i in range(len(places))])
            self._keys = list(places)
        return self._context, index

    def _encode(self, rows: Sequence[Row]) -> Context:
        weight = self._fourm.mask_token
        if not any(rows):  # generation from nothing: the model takes an unused token for it
            rows = [{self._modalities[0].name: _unused(self._modalities[0])}] * len(rows)
        return self._fourm.read(collate(rows, self._modalities, weight.device, weight.dtype))


def _unused(modality: Modality) -> Given:
    """A modality of which nothing is shown."""
    shape: tuple[int, ...] = (modality.max_tokens,)
    if modality.kind == "pix":
        shape = (modality.channels or 0, modality.image_size or 0, modality.image_size or 0)
    elif modality.kind == "emb":
        shape = (modality.max_tokens, modality.channels or 0)
    values = np.zeros(shape, np.float32 if modality.vocab_size is None else np.int64)
    return Given(values, np.zeros(modality.max_tokens, bool))


@dataclass(frozen=True)
class Progress:
    """How far a generation is.

    Attributes:
        modality: the target being generated.
        target, num_targets: its index, and how many there are.
        step, num_steps: steps done of this target, and at most to do.
    """

    modality: str
    target: int
    num_targets: int
    step: int
    num_steps: int


@dataclass(frozen=True)
class Job:
    """One target of a batch of items.

    Attributes:
        fourm: the model.
        reader: its encoder.
        plan: how to generate the target.
        number: its index in the chain.
        items: what is shown for each item.
        chooser: makes random choices.
        num_targets: how long the chain is.
        progress: called after every step.
    """

    fourm: FourM
    reader: Reader
    plan: TargetPlan
    number: int
    items: Sequence[Item]
    chooser: Chooser
    num_targets: int = 1
    progress: Callable[[Progress], None] | None = None

    @property
    def name(self) -> str:
        """The target."""
        return self.plan.modality

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.fourm.mask_token.device

    def branches(self, items: Sequence[int]) -> Branches:
        """What to predict some of the items from."""
        return Branches.of([self.items[i] for i in items], self.plan)

    def show(self, item: int, known: Given) -> None:
        """Show the encoder what is known of the target by now."""
        if self.name in self.fourm.inputs:
            self.items[item].show(self.name, known)

    def report(self, step: int, num_steps: int) -> None:
        """Say how far it is."""
        if self.progress is not None:
            self.progress(Progress(self.name, self.number, self.num_targets, step, num_steps))

    def step(
        self,
        index: int,
        items: Sequence[int],
        slots: np.ndarray,
        unused: np.ndarray,
        temperature: Sequence[float],
    ) -> Step:
        """One step, as the chooser is told of it."""
        values, plan = np.asarray(temperature, np.float64), self.plan
        return Step(self.number, index, items, slots, unused, values, plan.top_k, plan.top_p)


# --- grids


def generate_grids(job: Job, grids: Sequence[GridTarget]) -> None:
    """Decode the unknown tokens of each item's grid, by ROAR or MaskGIT."""
    counts = [job.plan.counts(grid.num_unknown) for grid in grids]
    temperatures = [job.plan.temperatures(of_item) for of_item in counts]
    orders: dict[int, np.ndarray] = {}
    if job.plan.scheme == "roar":
        orders = {i: job.chooser.order(job.number, i, len(grid.tokens)) for i, grid in enumerate(grids)}
    num_steps = max(map(len, counts), default=0)
    for index in range(num_steps):
        items = [i for i, of_item in enumerate(counts) if index < len(of_item) and of_item[index]]
        if items:
            take = np.asarray([counts[i][index] for i in items])
            slots, unused = _slots_to_decode(grids, items, take, orders)
            step = job.step(index, items, slots, unused, [temperatures[i][index] for i in items])
            _decode_slots(job, step, grids, take)
        job.report(index + 1, num_steps)


def _slots_to_decode(
    grids: Sequence[GridTarget], items: Sequence[int], take: np.ndarray, orders: Mapping[int, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Slots int64 (B', k), the next in order or else all unknown ones; bool (B', k): which are padding."""
    chosen: list[np.ndarray] = []
    for i, count in zip(items, take, strict=True):
        is_known = grids[i].is_known
        chosen.append(orders[i][~is_known[orders[i]]][:count] if i in orders else np.flatnonzero(~is_known))
    slots = np.zeros((len(items), max(map(len, chosen))), np.int64)
    unused = np.ones(slots.shape, bool)
    for row, of_item in enumerate(chosen):
        slots[row, : len(of_item)] = of_item
        unused[row, : len(of_item)] = False
    return slots, unused


def _decode_slots(job: Job, step: Step, grids: Sequence[GridTarget], take: np.ndarray) -> None:
    """One step: predict the slots, draw, keep some, and show them to the encoder."""
    logits = grid_logits(job, step.items, step.slots, step.unused).float()
    drawn = job.chooser.draw(step, logits)
    kept = ~step.unused
    if job.plan.scheme == "maskgit":
        kept = job.chooser.keep(step, _confidence(drawn, logits, step.temperature), take)
    tokens = drawn.tokens.cpu().numpy()
    for row, i in enumerate(step.items):
        grids[i].fill(step.slots[row, kept[row]], tokens[row, kept[row]])
        job.show(i, grids[i].given())


def _confidence(drawn: Drawn, logits: Tensor, temperature: np.ndarray) -> Tensor:
    """What MaskGIT ranks by (B', k): the probability of the draw.

    Greedy drawing reports 1 for every token; there the model's own probability decides instead.
    """
    is_greedy = torch.from_numpy(temperature < GREEDY_BELOW).to(logits.device)
    if not bool(is_greedy.any()):
        return drawn.probs
    own = logits.softmax(-1).gather(-1, drawn.tokens[..., None])[..., 0]
    return torch.where(is_greedy[:, None], own, drawn.probs)


def grid_logits(job: Job, items: Sequence[int], slots: np.ndarray, unused: np.ndarray) -> Tensor:
    """Guided logits (B', k, V) of slots int64 (B', k); `unused` bool (B', k) marks padding among them."""
    layer = job.fourm.get_submodule(f"decoder_embeddings.{job.name}")
    assert isinstance(layer, ImageTokenDecoderEmbedding)
    branches = job.branches(items)
    context, index = job.reader.read(branches.rows)
    queries = layer.grid_embedding()[0] + job.fourm.mask_token[0]
    x = queries[torch.from_numpy(slots[branches.owner]).to(job.device)]
    hidden = torch.from_numpy(unused[branches.owner]).to(job.device)
    y = job.fourm.attend(
        x,
        (_of_rows(kv, index) for kv in job.fourm.context_kvs(context)),
        _context_bias(context, index, x.dtype),
        attention_bias(hidden, x.dtype),
    )
    return layer.to_logits(branches.combine(y))


def _of_rows(kv: KeyValue, index: np.ndarray) -> KeyValue:
    """Keys and values of rows, given which context is theirs; views where possible."""
    num_contexts = len(kv[0])
    if num_contexts == 1:
        return kv[0].expand(len(index), -1, -1, -1), kv[1].expand(len(index), -1, -1, -1)
    if np.array_equal(index, np.arange(num_contexts)):
        return kv
    rows = torch.from_numpy(index).to(kv[0].device)
    return kv[0][rows], kv[1][rows]


def _context_bias(context: Context, index: np.ndarray, dtype: torch.dtype) -> Tensor | None:
    mask = context.packing.mask
    return attention_bias(mask[torch.from_numpy(index).to(mask.device)], dtype)


# --- sequences


def generate_sequences(job: Job, sequences: Sequence[SequenceTarget]) -> None:
    """Fill the spans of each item's sequence, token by token; an item stops at its own end."""
    limit = job.plan.max_tokens or job.fourm.config.modality(job.name).max_tokens
    written = {i: [sequence.opening] for i, sequence in enumerate(sequences) if sequence.num_spans}
    active = list(written)
    decoding = _Decoding(job, active, limit) if active else None
    for index in range(limit):
        if decoding is None:
            break
        tokens = decoding.step(index, [written[i][-1] for i in active])
        for i, token in zip(active, tokens, strict=True):
            written[i].append(token)
        job.report(index + 1, limit)
        stay = [row for row, i in enumerate(active) if not _is_end(job.plan, sequences[i], written[i][-1])]
        if not stay:
            break
        if len(stay) < len(active):
            active = [active[row] for row in stay]
            decoding.keep(stay)
    for i, tokens in written.items():
        sequences[i].fill(tokens)


def _is_end(plan: TargetPlan, sequence: SequenceTarget, token: int) -> bool:
    return token == sequence.closing if plan.stop_ids is None else token in plan.stop_ids


class _Decoding:
    """The decoder over growing sequences of several items: of each new token only its own work."""

    def __init__(self, job: Job, items: Sequence[int], limit: int) -> None:
        layer = job.fourm.get_submodule(f"decoder_embeddings.{job.name}")
        assert isinstance(layer, SequenceDecoderEmbedding)
        self._job, self._layer, self._items = job, layer, list(items)
        self._branches = job.branches(items)
        self._context, self._index = job.reader.read(self._branches.rows)
        self._kvs = list(job.fourm.context_kvs(self._context))
        self._caches = [KeyValueCache(limit) for _ in self._kvs]
        nothing_masked = torch.zeros(1, limit, dtype=torch.bool, device=job.device)
        self._emb = layer.ranked_embedding(nothing_masked, layer.modality.decoder_positions)
        self._spread()

    def step(self, index: int, last: Sequence[int]) -> list[int]:
        """The next token of each item, after its `last` one, which is the sequence's token `index`."""
        ids = torch.tensor(last, device=self._job.device)[self._owner]
        x = self._layer.token_emb(ids)[:, None] + self._emb[:, index : index + 1]
        y = self._job.fourm.attend(x, self._row_kvs, self._bias, caches=self._caches)
        logits = self._layer.to_logits(self._branches.combine(y)).float()
        slots = np.zeros((len(self._items), 1), np.int64)
        step = self._job.step(
            index, self._items, slots, slots > 0, [self._job.plan.temperature] * len(self._items)
        )
        return self._job.chooser.draw(step, logits).tokens[:, 0].tolist()

    def keep(self, stay: Sequence[int]) -> None:
        """Go on with some of the items, by their place among the present ones."""
        self._items = [self._items[i] for i in stay]
        self._branches, rows = self._branches.keep(stay)
        self._index = self._index[rows]
        for cache in self._caches:
            cache.keep_rows(torch.from_numpy(rows).to(self._job.device))
        self._spread()

    def _spread(self) -> None:
        """Lay out what does not change between steps, for the present rows."""
        self._owner = torch.from_numpy(self._branches.owner).to(self._job.device)
        self._row_kvs = [_of_rows(kv, self._index) for kv in self._kvs]
        self._bias = _context_bias(self._context, self._index, self._emb.dtype)
