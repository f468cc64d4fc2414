"""Instances in given boxes: the model completes the text of an instance whose box is known."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from ...errors import ModelError
from ..drafts import ControlIds, Draft
from ..generate import Generator
from ..instances import decode_masks
from ..parts import ModelParts
from ..plans import TargetPlan
from ..tokenizers.instances import NUM_CODES, InstanceCode
from ..tokenizers.text import TextTokenizer
from ..tokenizers.words import HEADS, number_word, read_codes
from ..values import MASK_SIDE, Predicted

TARGET = "sam_instance"
_TEMPERATURE = 0.01
_MAX_WRITTEN = NUM_CODES + 2  # the codes between two sentinels


class BoxPrompts:
    """Predicts instances in given boxes.

    Items hold a picture `rgb` and, as `sam_instance`, INSTANCE (K,) of which only the boxes are known
    (arXiv 2406.09406, F.2).

    Args:
        parts: of a model with instances in and out.

    Raises:
        ModelError: it lacks them.
    """

    def __init__(self, parts: ModelParts) -> None:
        for what, known in (("read", parts.inputs), ("predict", parts.targets)):
            if TARGET not in known:
                raise ModelError(f"This model does not {what} {TARGET}, which boxes are completed as.")
        self._parts = parts

    @cached_property
    def _generator(self) -> Generator:
        fourm = self._parts.fourm(["rgb", TARGET], [TARGET])
        return Generator(fourm, ControlIds.of(self._parts.text))

    def predict(
        self,
        items: Sequence[Mapping[str, np.ndarray]],
        to: Sequence[str],
        *,
        seed: int = 0,
        temperature: float | None = None,
    ) -> list[dict[str, Predicted]]:
        """Fill the boxes of a batch of items; where the model writes no mask it stays empty."""
        assert list(to) == [TARGET], to
        heat = _TEMPERATURE if temperature is None else temperature
        plan = TargetPlan(TARGET, "autoregressive", temperature=heat, max_tokens=_MAX_WRITTEN)
        written = self._write(items, plan, seed)
        boxes = np.concatenate([item[TARGET]["box"] for item in items])
        masks = self._masks([read_codes_after(ids, self._parts.text) for ids in written], boxes)
        answers: list[dict[str, Predicted]] = []
        start = 0
        for item in items:
            rows = slice(start, start := start + len(item[TARGET]))
            filled = item[TARGET].copy()
            filled["mask"] = masks[rows]
            tokens = np.concatenate([np.zeros(0, np.int64), *written[rows]])
            answers.append({TARGET: Predicted(TARGET, filled, tokens)})
        return answers

    def _write(
        self, items: Sequence[Mapping[str, np.ndarray]], plan: TargetPlan, seed: int
    ) -> list[np.ndarray]:
        """The completed text of every box of every item."""
        name, text = self._parts.inputs["rgb"].name, self._parts.text
        asked = [(item["rgb"], box.tolist()) for item in items for box in item[TARGET]["box"]]
        if not asked:
            return []
        found = self._generator.generate(
            [{name: pixels} for pixels, _ in asked],
            [plan],
            seed=seed,
            drafts=[{TARGET: ask_box(box, text)} for _, box in asked],
        )
        return [answer[TARGET] for answer in found]

    def _masks(self, codes: Sequence[tuple[int, ...] | None], boxes: np.ndarray) -> np.ndarray:
        """uint8 (K, 64, 64)."""
        tokenizer = self._parts.decoder(TARGET)
        size = tokenizer.codebook().shape[1]
        read = {
            i: InstanceCode(tuple(boxes[i].tolist()), code)
            for i, code in enumerate(codes)
            if code is not None and max(code) < size
        }
        masks = np.zeros((len(codes), MASK_SIDE, MASK_SIDE), np.uint8)
        masks[list(read)] = decode_masks(list(read.values()), tokenizer) > 0.5
        return masks


def ask_box(box: Sequence[int], text: TextTokenizer) -> Draft:
    """The text of an instance up to its box x0, y0, x1, y1, and a span to fill."""
    words = ["polygon", *(number_word(head, edge) for head, edge in zip(HEADS, box, strict=True))]
    ids = text.encode(" ".join(words)).tolist()
    return Draft(np.asarray([*ids, text.pad_id], np.int64), np.asarray([*[False] * len(ids), True]))


def read_codes_after(ids: np.ndarray, text: TextTokenizer) -> tuple[int, ...] | None:
    """The codes that were written after the box; None where there are not exactly 16."""
    control = {text.pad_id, text.unk_id, text.sos_id, text.eos_id, *text.sentinels}
    words = text.decode([int(i) for i in ids if int(i) not in control and i < text.vocab_size]).split()
    return read_codes(words[1 + len(HEADS) :], NUM_CODES)
