"""What people give, as values to look at: for pictures of files and of what is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import ModelError
from .decoders import ValueDecoder
from .inputs import Content, InputReader
from .modalities import MODALITIES, raw_name
from .readers.texts import SPELT

if TYPE_CHECKING:
    from .registry import Model
    from .values import Value


def shown_value(model: Model, modality: str, content: Content) -> Value | None:
    """Read a content as what `draw_value` and `write_value` take.

    Args:
        model: reads what it takes, as it sees it; what it does not take is read as published models see it.
        modality: the user's name of it, or a word for it.
        content: as for `InputReader.read`.

    Returns:
        As in `values.py`, texts as they are predicted. None where a text says nothing that the model knows.

    Raises:
        ModelError: unknown modality, or a text for a model that does not take it.
        InputError: the content cannot be read.
    """
    raw = raw_name(modality)
    if raw in model.inputs:
        value = model.embedder.read(raw, content)
        if raw not in SPELT:
            return value
        (said,) = ValueDecoder(model.parts).decode(
            model.parts.inputs[raw], [value.astype(np.int64)], seeds=[0]
        )
        return said.value
    if raw in SPELT:
        raise ModelError(f"Model {model.name!r} does not take {raw!r}; it takes {', '.join(model.inputs)}.")
    row = next(row for row in MODALITIES.values() if row.raw == raw)
    return InputReader({raw: row}, None, classes=model.parts.classes).read(raw, content)
