"""What people give, as values to look at: for pictures of files and of what is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .decoders import ValueDecoder
from .inputs import Content, InputReader
from .modalities import MODALITIES, raw_name
from .readers.texts import SPELT

if TYPE_CHECKING:
    from .registry import Model
    from .values import Value


_PUBLISHED = {row.raw: row for row in reversed(tuple(MODALITIES.values())) if row.raw not in SPELT}
_FEATURES = ("clip", "dinov2", "imagebind")  # how many there are depends on the model


def shown_value(model: Model, modality: str, content: Content) -> Value | None:
    """Read a content as what `draw_value` and `write_value` take.

    Args:
        model: reads texts and features. Everything else is read as the published models see it, which is
            sharper than a small model sees it.
        modality: the user's name of it, or a word for it.
        content: as for `InputReader.read`.

    Returns:
        As in `values.py`, texts as they are predicted. None where a text says nothing that the model knows.

    Raises:
        ModelError: unknown modality, or a text for a model that does not take it.
        InputError: the content cannot be read.
    """
    raw = raw_name(modality)
    if raw in SPELT:
        ids = model.embedder.read(raw, content).astype(np.int64)
        (said,) = ValueDecoder(model.parts).decode(model.parts.inputs[raw], [ids], seeds=[0])
        return said.value
    if raw in _FEATURES and raw in model.inputs:
        return model.embedder.read(raw, content)
    return InputReader({raw: _PUBLISHED[raw]}, None, classes=model.parts.classes).read(raw, content)
