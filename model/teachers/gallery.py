"""Vectors of a collection from the teachers themselves, in place of those that the model predicts.

A predicted vector is the model's guess at what its teacher would say of the item. Where the item has the
picture, or its teacher's vector, there is nothing to guess.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ModelError
from ..embedder import Embeddings
from ..encoding import ValueEncoder
from .sources import TEACHERS
from .teacher import Teacher, load_teacher

if TYPE_CHECKING:
    from ..registry import Model


class TeacherEmbedder:
    """Embeds as a model does, but with the teachers' own vectors where an item allows it.

    An item with a value of the space itself (`dinov2_global`) has that value's direction as its vector, an
    item with RGB its teacher's vector of the picture; both with the tokens that the space's tokenizer gives
    it. All else is predicted. Safe to use from many threads.

    Args:
        model: predicts the rest, and has the tokenizers.
        teachers: of any of its spaces.

    Attributes:
        name: says whose vectors these are, exactly: the teachers' names and fingerprints.

    Raises:
        ModelError: a teacher that makes none of the model's spaces, or not as the model has them.
    """

    def __init__(self, model: "Model", teachers: Iterable[Teacher] = ()) -> None:
        self._model = model
        self._teachers = {teacher: _spaces_of(teacher, model) for teacher in teachers}
        rows = {name: model.parts.targets[name] for name in model.spaces}
        self._encoder = ValueEncoder(rows, model.parts)
        self._checkpoint_names = {name: row.name for name, row in rows.items()}
        marks = sorted(f"{teacher.source.name} {teacher.fingerprint[:12]}" for teacher in self._teachers)
        self.name = f"teacher: {', '.join(marks)}" if marks else "teacher"

    def predicted_spaces(self, modalities: Collection[str]) -> tuple[str, ...]:
        """The spaces in which an item with these modalities has to be predicted."""
        taught = {space for spaces in self._teachers.values() for space in spaces}
        of_picture = taught if "rgb" in modalities else set[str]()
        return tuple(space for space in self._model.spaces if space not in {*modalities, *of_picture})

    def embed(self, items: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Embeddings]:
        """Embed items; see `Embedder.embed`."""
        values = self._values(items)
        rest = [i for i, item in enumerate(items) if self.predicted_spaces(item)]
        predicted = self._model.embedder.embed([items[i] for i in rest])
        return {
            name: self._join(name, len(items), values[name], dict(zip(rest, _rows(found), strict=True)))
            for name, found in predicted.items()
        }

    def _values(self, items: Sequence[Mapping[str, np.ndarray]]) -> dict[str, dict[int, np.ndarray]]:
        """By space and position of the item, what is not to be predicted."""
        values: dict[str, dict[int, np.ndarray]] = {name: {} for name in self._model.spaces}
        for teacher, spaces in self._teachers.items():
            places = [
                i
                for i, item in enumerate(items)
                if "rgb" in item and not all(name in item for name in spaces)
            ]
            if places:
                made = teacher.extract(np.stack([items[i]["rgb"] for i in places]))
                for name in spaces:
                    values[name] |= dict(zip(places, made[name], strict=True))
        for name, of_space in values.items():
            of_space |= {i: item[name] for i, item in enumerate(items) if name in item}
        return values

    def _join(
        self,
        name: str,
        num: int,
        values: Mapping[int, np.ndarray],
        predicted: Mapping[int, tuple[np.ndarray, np.ndarray]],
    ) -> Embeddings:
        space = self._model.spaces[name]
        vectors = np.zeros((num, space.dim), np.float32)
        tokens = np.zeros((num, space.num_tokens), np.uint16)
        for i, (vector, ids) in predicted.items():
            vectors[i], tokens[i] = vector, ids
        encoded = self._encoder.encode([{name: value} for value in values.values()])
        for (i, value), ids in zip(values.items(), encoded, strict=True):
            length = np.linalg.norm(value.astype(np.float64))
            vectors[i] = value / length if length > 0 else np.nan  # of no direction: the item fails alone
            tokens[i] = ids[self._checkpoint_names[name]]
        return Embeddings(vectors, tokens)


def open_gallery(model: "Model", teachers: Mapping[str, str | Path | None]) -> TeacherEmbedder:
    """Open teachers on the model's device, in float32, and make its vectors with them.

    Args:
        model: as for `TeacherEmbedder`.
        teachers: by name, where the weights are: file, folder or hub id; None: the published ones.

    Raises:
        ModelError, CheckpointError: as `load_teacher` and `TeacherEmbedder`.
    """
    opened = [load_teacher(name, weights, model.parts.device) for name, weights in teachers.items()]
    return TeacherEmbedder(model, opened)


def _rows(found: Embeddings) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(found.vectors, found.tokens, strict=True))


def _spaces_of(teacher: Teacher, model: "Model") -> tuple[str, ...]:
    """Those of the model's spaces that a teacher makes, checked against them."""
    name = teacher.source.name
    spaces = tuple(space for space in teacher.modalities if space in model.spaces)
    if not spaces:
        having = [source.name for source in TEACHERS.values() if set(source.modalities) & set(model.spaces)]
        raise ModelError(
            f"The teacher {name!r} makes {', '.join(teacher.modalities)}, none of which is a space of model "
            f"{model.name!r}; teachers of its spaces: {', '.join(having) or 'none'}."
        )
    side, row = teacher.source.image_size, model.parts.inputs.get("rgb")
    if row is None or row.kind != "pix" or row.image_size != side:
        raise ModelError(
            f"The teacher {name!r} sees pictures of {side} pixels, model {model.name!r} does not read RGB as "
            "such; it was trained with other teachers."
        )
    made = teacher.extract(np.zeros((0, side, side, 3), np.uint8))
    for space in spaces:
        if made[space].shape[1:] != (model.spaces[space].dim,):
            raise ModelError(
                f"The teacher {name!r} gives {made[space].shape[-1]}-d vectors, the space {space} of model "
                f"{model.name!r} has {model.spaces[space].dim}: it was trained with another teacher."
            )
    return spaces
