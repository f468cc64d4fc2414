"""What the stages of a prediction share: a model that opens as needed, what it is shown, how far it is."""

from collections.abc import Callable, Iterable, Mapping
from threading import Lock

import numpy as np

from .checkpoint import load_fourm
from .decoding import Progress
from .drafts import ControlIds
from .generate import Generator
from .modalities import SEQUENCE_POSITIONS, Modality
from .parts import ModelParts
from .presets import FourMConfig

Report = Callable[[str, int, int], None]
"""Told how far a prediction is: what it does (`predict depth`, `refine depth`, `decode depth`), steps done of
this, and how many it has at most. What it raises stops the prediction."""

Tokens = dict[str, np.ndarray]
"""What is known of one item, as `Generator.generate` takes and gives it: by checkpoint name."""


class GrowingGenerator:
    """Opens a 4M model with the modalities that are asked for, and again when others are. Thread-safe.

    Args:
        parts: of the model.

    Attributes:
        config: of the model.
    """

    def __init__(self, parts: ModelParts) -> None:
        self.config = parts.config
        self._parts = parts
        self._lock = Lock()
        self._inputs: set[str] = set()
        self._targets: set[str] = set()
        self._generator: Generator | None = None

    def having(self, inputs: Iterable[str], targets: Iterable[str]) -> Generator:
        """A generator with these modalities, by checkpoint name; targets are inputs too where they can be.

        Raises:
            ModelError: a modality that the model does not have.
            CheckpointError: the file does not hold what its configuration says.
        """
        outs = set(targets)
        # Also what is made from nothing needs one input: an unused token of it.
        ins = {*inputs, *outs.intersection(self.config.domains_in)} or {self.config.domains_in[0]}
        with self._lock:
            if self._generator is None or not (ins <= self._inputs and outs <= self._targets):
                self._generator = None  # its memory is needed now
                self._inputs, self._targets = self._inputs | ins, self._targets | outs
                self._generator = self._open()
            return self._generator

    def _open(self) -> Generator:
        fourm = load_fourm(
            self._parts.fourm_checkpoint,
            inputs=sorted(self._inputs),
            targets=sorted(self._targets),
            device=self._parts.device,
            dtype=self._parts.dtype,
        )
        return Generator(fourm, ControlIds.of(self._parts.text))


def shown_to(config: FourMConfig, known: Tokens) -> Tokens:
    """What of the known a model takes as conditions: texts that say something, as far as positions go."""
    shown: Tokens = {}
    for name in known.keys() & set(config.domains_in):
        is_text = config.modality(name).kind == "seq"
        value = known[name][:SEQUENCE_POSITIONS] if is_text else known[name]
        if value.size:
            shown[name] = value
    return shown


def told(
    report: Report | None, what: str, rows: Mapping[str, Modality], part: int = 0, num_parts: int = 1
) -> Callable[[Progress], None] | None:
    """What a generation of these targets tells, told as a stage of the prediction or as one part of it."""
    if report is None:
        return None
    raw = {row.name: raw for raw, row in rows.items()}

    def tell(one: Progress) -> None:
        total = one.num_steps
        report(f"{what} {raw[one.modality]}", part * total + one.step, num_parts * total)

    return tell
