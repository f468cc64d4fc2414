"""Two predictions for every modality of an item: from it alone, and from all others of the item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...model import likelihood, likelihood_table
from ..ranking import Floats, Ints
from .contents import Inputs
from .ranks import TIE

if TYPE_CHECKING:
    from ...model import Embedder, Embeddings


@dataclass(eq=False)
class Pairs:
    """Two predictions for every item that has a modality: from it alone, and from its rest.

    Args:
        ordinals: (n,) items.
        alone: (n, D) float32, the vectors of all spaces side by side, each space of the same weight.
        rest: likewise.
        likelihood: (n,) agreement of tokens.
        cosine: (n,) of alone and rest.
    """

    ordinals: Ints
    alone: Floats
    rest: Floats
    likelihood: Floats
    cosine: Floats
    place_of_item: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    place_of_content: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    num_compared: int = 0

    def compare(self, reference: Pairs) -> None:
        """Find the places of all items here among those of a reference."""
        others = self.ordinals[:, None] != reference.ordinals[None]
        own = self.cosine[:, None] + TIE
        self.place_of_item = 1 + ((self.alone @ reference.rest.T > own) & others).sum(1)
        self.place_of_content = 1 + ((self.rest @ reference.alone.T > own) & others).sum(1)
        self.num_compared = len(reference.ordinals)

    def joined(self, more: Pairs) -> Pairs:
        """Both, without vectors, which have served."""
        nothing = np.empty((0, 0), np.float32)
        return Pairs(
            np.concatenate([self.ordinals, more.ordinals]),
            nothing,
            nothing,
            np.concatenate([self.likelihood, more.likelihood]),
            np.concatenate([self.cosine, more.cosine]),
            np.concatenate([self.place_of_item, more.place_of_item]),
            np.concatenate([self.place_of_content, more.place_of_content]),
            self.num_compared,
        )


class Gatherer:
    """Asks the model for both predictions of every modality of items, and keeps what they give.

    Args:
        embedder: of the collection's model.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._rows: dict[str, list[tuple[int, NDArray[Any], NDArray[Any], float]]] = {}

    def add(self, ordinals: Ints, items: Sequence[Inputs]) -> None:
        """Predict for a batch; an item with one modality has nothing to be compared with."""
        requests: list[Inputs] = []
        row_of: dict[tuple[int, frozenset[str]], int] = {}
        wanted: list[tuple[int, str, int, int]] = []
        for i, inputs in enumerate(items):
            for name in inputs if len(inputs) > 1 else ():
                both = ({name}, set(inputs) - {name})
                for names in both:
                    if (i, frozenset(names)) not in row_of:  # of two modalities, each is the other's rest
                        row_of[i, frozenset(names)] = len(requests)
                        requests.append({each: inputs[each] for each in inputs if each in names})
                alone, rest = (row_of[i, frozenset(names)] for names in both)
                wanted.append((int(ordinals[i]), name, alone, rest))
        if not requests:
            return
        found = self._embedder.embed(requests, log_probs=True)
        joined = np.concatenate([each.vectors for each in found.values()], axis=1) / np.sqrt(len(found))
        for ordinal, name, alone, rest in wanted:
            said = _mutual_likelihood(found, alone, rest)
            self._rows.setdefault(name, []).append((ordinal, joined[alone], joined[rest], said))

    def pairs(self) -> dict[str, Pairs]:
        """What was gathered, by modality."""
        found: dict[str, Pairs] = {}
        for name, rows in self._rows.items():
            ordinals, alone, rest, said = zip(*rows, strict=True)
            alone, rest = np.stack(alone), np.stack(rest)
            cosine = np.vecdot(alone, rest)
            found[name] = Pairs(np.array(ordinals), alone, rest, np.array(said), cosine)
        return found


def _mutual_likelihood(found: Mapping[str, Embeddings], one: int, other: int) -> float:
    """How probable the tokens of either row are under the other, mean over spaces and both ways."""
    total = 0.0
    for space in found.values():
        assert space.log_probs is not None
        for a, b in ((one, other), (other, one)):
            total += float(likelihood(likelihood_table(space.log_probs[a]), space.tokens[b][None])[0])
    return total / (2 * len(found))
