"""Attributes that the model predicts of what an item has: what it shows in words, colours and numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..errors import InputError, ModelError
from ..storage import Attribute
from .attributes import check_attributes

if TYPE_CHECKING:
    from ..model import Model, Predicted

#: What stands before the name of every predicted attribute.
PREFIX = "predicted."

#: Modalities that say something as an attribute: a text, colours, numbers by name.
PREDICTABLE = ("caption", "color_palette", "metadata")

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class PredictedAttributes:
    """What the model says of an item.

    Attributes:
        attributes: by name, `predicted.` before each.
        error: why some or all are missing, None where none are.
    """

    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    error: Exception | None = None


def check_predictable(model: "Model", words: Sequence[str]) -> tuple[str, ...]:
    """Sort out which modalities are to become attributes.

    Args:
        model: has to predict them.
        words: any words for them (`palette`, `color_palette`); order and repetition play no part.

    Returns:
        The user's names, in the order of PREDICTABLE.

    Raises:
        InputError: one that is no attribute, or that this model does not predict.
    """
    if not words:
        return ()
    from ..model import raw_name

    can = [name for name in PREDICTABLE if name in model.targets]
    names = {raw_name(word) for word in words}
    if strange := sorted(names - set(PREDICTABLE)):
        raise InputError(
            f"No attribute is made of {', '.join(strange)}; pick from {', '.join(PREDICTABLE)}.",
            code="attributes.predict",
        )
    if missing := sorted(names - set(can)):
        raise InputError(
            f"Model {model.name!r} does not predict {', '.join(missing)}, only {', '.join(model.targets)}; "
            "those of 4M-21 do (see `anyseek models`).",
            code="attributes.predict",
        )
    return tuple(name for name in can if name in names)


class AttributePredictor:
    """Predicts attributes of items in batches, and survives a model that fails on some of them.

    Args:
        model: predicts.
        modalities: what becomes attributes, from `check_predictable`.
        batch_size: items that the model sees at once.
    """

    def __init__(self, model: "Model", modalities: Sequence[str], batch_size: int) -> None:
        self._predictor = model.predictor
        self._modalities = modalities
        self._batch_size = batch_size

    def predict(self, items: Sequence[Inputs]) -> list[PredictedAttributes]:
        """Predict attributes of items, each given by its inputs.

        A modality that an item has is not predicted. A batch that the model fails on is tried again in
        halves, down to the item that is at fault.

        Raises:
            ModelError: weights cannot be had, so that no item is at fault.
        """
        found = [PredictedAttributes()] * len(items)
        groups: dict[tuple[str, ...], list[int]] = {}  # items that lack the same go together
        for i, item in enumerate(items):
            lacking = tuple(name for name in self._modalities if name not in item)
            if lacking:
                groups.setdefault(lacking, []).append(i)
        for to, places in groups.items():
            spans = [places[i : i + self._batch_size] for i in range(0, len(places), self._batch_size)][::-1]
            while spans:
                span = spans.pop()
                try:
                    predicted = self._predictor.predict([items[i] for i in span], to)
                except ModelError:
                    raise
                except Exception as error:  # out of memory, a kernel that dislikes one input: narrow it down
                    if len(span) == 1:
                        found[span[0]] = PredictedAttributes(error=error.with_traceback(None))
                    else:
                        half = len(span) // 2
                        spans += [span[half:], span[:half]]
                    continue
                for i, of_item in zip(span, predicted, strict=True):
                    found[i] = _attributes(of_item)
        return found


def _attributes(predicted: Mapping[str, "Predicted"]) -> PredictedAttributes:
    """What can be read of the predictions of an item, modality by modality."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for modality, one in predicted.items():
        if isinstance(one.value, Mapping):
            values |= {PREFIX + key: value for key, value in one.value.items()}
        elif one.value:
            values[PREFIX + modality] = one.value
        if not one.value:
            problems.append(
                f"The model wrote no {modality} that can be read: {one.problem or 'it is empty'}."
            )
    attributes, refused = check_attributes(values)
    problems += refused
    error = InputError(" ".join(problems), code="attributes.unreadable") if problems else None
    return PredictedAttributes(attributes, error)
