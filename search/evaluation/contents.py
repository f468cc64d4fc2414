"""What the items of a collection have, read for the model, and which items have the very same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ...errors import AnyseekError, InputError
from ...storage import Asset, AssetFiles, Snapshot
from ..engine import content_of
from ..query import ItemAssets
from ..ranking import Ints

if TYPE_CHECKING:
    from ...model import Model
    from ..filters import Mask

Inputs = Mapping[str, NDArray[Any]]
"""What the model takes of one item, by modality."""

QueryFiles = Mapping[str, Mapping[str, Path]]
"""Other files to ask with, by item id and modality: the same item's other photo, say."""

Report = Callable[[str, int, int], None]
"""Told of work under way: what it is, how much is done, of how much."""

_ITEMS_PER_PAGE = 1000
_NUM_READERS = 8
_MISSING = -1


@dataclass(frozen=True)
class Failure:
    """Something of an item that could not be read, and why; what needs it is left out."""

    id: str
    modality: str
    code: str
    message: str


class Contents:
    """The assets of all items of a snapshot; one number per item and modality is kept in memory.

    Args:
        snapshot: whose items.
        model: reads them; modalities that it does not take play no part.
        files: the library's own.
        others: files to ask with instead of an item's own.
        report: told while the catalog is read.

    Attributes:
        modalities: what there is to ask with that the model takes, in the model's order.
        failures: everything that could not be read so far.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        model: Model,
        files: AssetFiles,
        others: QueryFiles | None = None,
        report: Report | None = None,
    ) -> None:
        self.failures: list[Failure] = []
        self._snapshot, self._model, self._files = snapshot, model, files
        self._others = others or {}
        # A number that equal contents share: the size of a file, the hash of a value.
        self._marks: dict[str, NDArray[np.int64]] = {}
        self._digests: dict[tuple[str, int], bytes] = {}
        for page in _pages(np.arange(snapshot.num_items)):
            for ordinal, assets in zip(page.tolist(), self._assets(page), strict=True):
                for modality, asset in assets.items():
                    self._mark(modality, ordinal, _mark_of(asset))
            if report is not None:
                report("look at items", int(page[-1]) + 1, snapshot.num_items)
        self._asked = {modality: marks != _MISSING for modality, marks in self._marks.items()}
        for ordinal, id in zip(snapshot.ordinals_of(list(self._others)), self._others, strict=True):
            for modality in self._others[id] if ordinal >= 0 else ():
                if modality not in self._asked:
                    self._asked[modality] = np.zeros(snapshot.num_items, np.bool_)
                self._asked[modality][ordinal] = True
        self.modalities = tuple(name for name in model.inputs if name in self._asked)

    def is_own(self, modality: str) -> bool:
        """Whether items are asked for with what they hold of this modality themselves."""
        return not any(modality in files for files in self._others.values())

    def having(self, modalities: Sequence[str]) -> Mask:
        """(num_items,) bool: the items that bring all of these to ask with."""
        mask = np.ones(self._snapshot.num_items, np.bool_)
        for modality in modalities:
            if self.is_own(modality):
                mask &= self._asked[modality]
            else:  # only where there is such a file: own and other photos are different questions
                mask &= self._with_files(modality)
        return mask

    def _with_files(self, modality: str) -> Mask:
        ids = [id for id, files in self._others.items() if modality in files]
        ordinals = self._snapshot.ordinals_of(ids)
        mask = np.zeros(self._snapshot.num_items, np.bool_)
        mask[ordinals[ordinals >= 0]] = True
        return mask

    def twins(self, modalities: Sequence[str], ordinal: int) -> Ints:
        """The item and all that hold the very same bytes or values in each of some modalities, ascending.

        An item that lacks one of them (and was asked for with another file) has no other like it.
        """
        same = np.arange(self._snapshot.num_items)
        for modality in modalities:
            marks = self._marks.get(modality)
            if marks is None or marks[ordinal] == _MISSING:
                return np.array([ordinal])
            same = same[marks[same] == marks[ordinal]]
        for modality in modalities if len(same) > 1 else ():
            digests = self._digests_of(modality, same)
            mine = digests[int(ordinal)]
            same = np.array([other for other in same.tolist() if digests[other] == mine])
        return same

    def read(self, ordinals: Ints, modalities: Sequence[str] | None = None) -> list[dict[str, NDArray[Any]]]:
        """What the model takes of items, by modality; what an item lacks or cannot be read is not there.

        Args:
            ordinals: which items.
            modalities: which of `self.modalities`; all where None.
        """
        wanted = self.modalities if modalities is None else modalities
        ids = self._snapshot.item_ids.take(ordinals)

        def read_item(id: str, assets: Mapping[str, Asset]) -> tuple[dict[str, NDArray[Any]], list[Failure]]:
            inputs: dict[str, NDArray[Any]] = {}
            failures: list[Failure] = []
            for modality in wanted:
                asset, other = assets.get(modality), self._others.get(id, {}).get(modality)
                if asset is None and other is None:
                    continue
                try:
                    content = other or content_of(cast("Asset", asset), self._files)
                    assert not isinstance(content, ItemAssets)
                    inputs[modality] = self._model.embedder.read(modality, content)
                except InputError as error:
                    if error.code != "input.empty":  # "no boxes here" is no fault
                        failures.append(Failure(id, modality, error.code, str(error)))
                except AnyseekError as error:
                    failures.append(Failure(id, modality, error.code, str(error)))
            return inputs, failures

        with ThreadPoolExecutor(_NUM_READERS) as pool:
            found = list(pool.map(read_item, ids, self._assets(ordinals)))
        known = {(failure.id, failure.modality) for failure in self.failures}
        for _, failures in found:
            self.failures += [each for each in failures if (each.id, each.modality) not in known]
        return [inputs for inputs, _ in found]

    def _mark(self, modality: str, ordinal: int, mark: int) -> None:
        if modality in self._model.inputs:
            if modality not in self._marks:
                self._marks[modality] = np.full(self._snapshot.num_items, _MISSING, np.int64)
            self._marks[modality][ordinal] = mark

    def _digests_of(self, modality: str, ordinals: Ints) -> dict[int, bytes]:
        unknown = np.array([o for o in ordinals.tolist() if (modality, o) not in self._digests], np.int64)
        for page in _pages(unknown):
            for ordinal, assets in zip(page.tolist(), self._assets(page), strict=True):
                asset = assets.get(modality)
                digest = None if asset is None else _digest_of(asset, self._files)
                self._digests[modality, ordinal] = digest or f"unreadable {ordinal}".encode()
        return {ordinal: self._digests[modality, ordinal] for ordinal in ordinals.tolist()}

    def _assets(self, ordinals: Ints) -> list[dict[str, Asset]]:
        """By modality the assets of items, nothing of those removed meanwhile."""
        ids = self._snapshot.item_ids.take(ordinals)
        found = {item.id: item for item in self._snapshot.items(ids)}
        return [{asset.modality: asset for asset in found[id].assets} if id in found else {} for id in ids]


def _pages(ordinals: Ints) -> Iterator[Ints]:
    for start in range(0, len(ordinals), _ITEMS_PER_PAGE):
        yield ordinals[start : start + _ITEMS_PER_PAGE]


def _mark_of(asset: Asset) -> int:
    """A number from 0 up that is the same for assets with the same content; _MISSING without content."""
    if asset.value is not None:
        return _number(json.dumps(asset.value, sort_keys=True))
    if asset.sha256 is not None and asset.path is None:
        return _number(asset.sha256)
    try:
        return Path(asset.path or "").stat().st_size
    except OSError:
        return _MISSING


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _digest_of(asset: Asset, files: AssetFiles) -> bytes | None:
    """A digest of the content, None where it cannot be read."""
    if asset.value is not None:
        return hashlib.sha256(json.dumps(asset.value, sort_keys=True).encode()).digest()
    try:
        path = Path(asset.path) if asset.path is not None else files.path(asset.sha256 or "")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
