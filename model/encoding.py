"""From values, as readers prepare them, to what the 4M model takes.

Pixels, token ids of texts and T5 states pass through. Images, features and vectors become the ids of their
tokenizer; people and instances become words, among them the ids of theirs.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError
from .modalities import Modality
from .parts import ModelParts
from .tokenizers import instances, poses

Values = Mapping[str, np.ndarray]
"""Values of one item, by the user's name of the modality."""

_AT_ONCE = 32
"""Values in one pass of a tokenizer: bounds the memory, 32 images of 224 pixels taking about 1 GB."""

_POINT_WORDS, _INSTANCE_WORDS = 3, 5 + instances.NUM_CODES


class ValueEncoder:
    """Turns values into encoder input. Thread-safe; a tokenizer is read when its modality first comes up.

    Args:
        inputs: the modalities that items may have, by the user's name.
        parts: has the tokenizers.
    """

    def __init__(self, inputs: Mapping[str, Modality], parts: ModelParts) -> None:
        self._inputs = inputs
        self._parts = parts

    def encode(self, items: Sequence[Values]) -> list[dict[str, np.ndarray]]:
        """Encode the values of several items, each modality in batches; the same array is encoded once.

        Args:
            items: by the user's names, values as in `values.py` that `check_item` lets pass.

        Returns:
            By checkpoint name and in the table's order: pixels uint8 (S, S, 3), ids int64 (n,) of grids in
            row-major order or int32 (L,) of texts, vectors float32 (L, channels).

        Raises:
            ModelError, CheckpointError: the tokenizer of a modality cannot be had or does not fit.
        """
        encoded: dict[tuple[str, int], np.ndarray] = {}
        for raw, row in self._inputs.items():
            values = {id(item[raw]): item[raw] for item in items if raw in item}
            done = self._encode(row, list(values.values()))
            encoded |= {(raw, key): one for key, one in zip(values, done, strict=True)}
        return [
            {row.name: encoded[raw, id(item[raw])] for raw, row in self._inputs.items() if raw in item}
            for item in items
        ]

    def _encode(self, row: Modality, values: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        if not values or row.kind in ("pix", "emb"):
            return values
        if row.reads_as in _SPELL:
            return self._spell(row, values)
        if row.kind == "seq":
            return values
        ids = self._ids(row, values)
        if ids.shape[1:] != (row.max_tokens,):
            raise ModelError(
                f"The tokenizer of {row.raw} makes {ids.shape[1]} tokens, the model takes {row.max_tokens}: "
                "take its own."
            )
        return list(ids)

    def _spell(self, row: Modality, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """People or instances of several items to token ids of texts."""
        field, words, spell = _SPELL[row.reads_as]
        values = [value[: row.max_tokens // words] for value in values]  # what the text cannot hold anyway
        rows, ends = np.concatenate(values), np.cumsum([len(value) for value in values])[:-1]
        codes = self._ids(row, rows[field]) if len(rows) else rows
        text, known = self._parts.text, row.vocab_size
        assert known is not None
        found: list[np.ndarray] = []
        for of_item, codes_of_item in zip(values, np.split(codes, ends), strict=True):
            ids = text.encode(spell(of_item, codes_of_item, row.max_tokens), max_tokens=row.max_tokens)
            # A small model's table may end before the vocabulary does: what lies beyond is unknown to it.
            found.append(np.where(ids < known, ids, np.int32(text.unk_id)))
        return found

    def _ids(self, row: Modality, values: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """N values, or rows of them, to ids int64 (N, n)."""
        tokenizer, prepare = self._parts.encoder(row.raw), TO_TOKENIZER[row.reads_as]
        found: list[Tensor] = []
        with torch.inference_mode():
            for start in range(0, len(values), _AT_ONCE):
                batch = np.stack([prepare(value) for value in values[start : start + _AT_ONCE]])
                ids = tokenizer.encode(torch.from_numpy(batch).to(self._parts.device))
                found.append(ids.flatten(1).cpu())
        return torch.cat(found).numpy()


def _signed(picture: np.ndarray) -> np.ndarray:
    """Bytes (H, W, 3) or (H, W) to float32 (C, H, W) in -1..1."""
    planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    return (planes.astype(np.float32) / 255 - 0.5) / 0.5


def _one_channel(values: np.ndarray) -> np.ndarray:
    return values[None].astype(np.float32)


def _labels(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int64)


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1)


TO_TOKENIZER: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "rgb": _signed,
        "normal": _signed,
        "canny_edge": _signed,
        "sam_edge": _signed,
        "depth": _one_channel,
        "semseg": _labels,
        "clip": _same,
        "dinov2": _same,
        "imagebind": _same,
        "dinov2_global": _same,
        "imagebind_global": _same,
        "human_poses": _flat,
        "sam_instance": _one_channel,
    }
)
"""Values to what the tokenizer of their modality takes (`tokenizers/values.py`), of rows the field of one."""


def _spell_people(people: np.ndarray, codes: np.ndarray, max_words: int) -> str:
    """People PERSON (N,) and codes (N, 8) to the model's text."""
    assert len(people) * poses.WORDS_PER_PERSON <= max_words
    return poses.poses_to_string(
        poses.Pose(
            tuple(person["box"].tolist()),
            tuple(code.tolist()),
            tuple(person["rotation"].ravel().tolist()),
            tuple(person["camera"].tolist()),
            tuple(person["shape"].tolist()),
        )
        for person, code in zip(people, codes, strict=True)
    )


def _spell_instances(found: np.ndarray, codes: np.ndarray, max_words: int) -> str:
    """Instances INSTANCE (N,) and codes (N, 16) to the model's text: the first ones, as many as it holds."""
    points: dict[tuple[int, int], list[instances.InstanceCode]] = {}
    for one, code in zip(found, codes, strict=True):
        x, y = one["point"].tolist()
        is_instance = bool(one["mask"].any())
        max_words -= _INSTANCE_WORDS if is_instance else 1
        max_words -= 0 if (x, y) in points else _POINT_WORDS
        if max_words < 0:
            break
        of_point = points.setdefault((x, y), [])
        if is_instance:
            of_point.append(instances.InstanceCode(tuple(one["box"].tolist()), tuple(code.tolist())))
    return instances.instances_to_string(
        instances.PointInstances(x, y, tuple(of_point)) for (x, y), of_point in points.items()
    )


_SPELL: Mapping[str, tuple[str, int, Callable[[np.ndarray, np.ndarray, int], str]]] = MappingProxyType(
    {
        "human_poses": ("pose", poses.WORDS_PER_PERSON, _spell_people),
        "sam_instance": ("mask", _POINT_WORDS + 1, _spell_instances),
    }
)
"""Of what consists of rows: the field that the tokenizer takes, the fewest words of a row, and what spells
rows and their codes with so many words at most."""
