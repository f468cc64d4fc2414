"""Any-to-any generation: from any given modalities, one target after the other.

Grids of tokens are decoded in random order (ROAR) or most confident first (MaskGIT, arXiv 2202.04200),
sequences token by token (arXiv 2312.06647, appendix on generation). What a step has decoded is shown to the
encoder in the next, and finished targets become conditions of those after them.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from ..errors import ModelError, QueryError
from .decoding import Job, Progress, Reader, generate_grids, generate_sequences, grid_logits
from .drafts import PUBLISHED_CONTROLS, ControlIds, Draft, GridTarget, SequenceTarget, Target
from .fourm import FourM
from .guidance import Given, Item, Part, Row, all_used, read_given
from .modalities import Modality
from .packed import packed_twin
from .plans import TargetPlan
from .sampling import Chooser, SeededChooser

Conditions = Mapping[str, np.ndarray] | Sequence[Part]
"""What one item is generated from: modalities that count together, or weighted parts."""


class Generator:
    """Generates targets with one 4M model. Holds no state between calls.

    Args:
        fourm: the model, in evaluation mode. To decode a grid in several steps it must also take it as input.
            On a processor the weights of its linear layers are copied into another layout: drop the model
            afterwards if nothing else needs it.
        controls: ids of its text tokenizer.
    """

    def __init__(self, fourm: FourM, controls: ControlIds = PUBLISHED_CONTROLS) -> None:
        self.fourm = packed_twin(fourm)
        self.controls = controls

    def generate(
        self,
        conditions: Sequence[Conditions],
        targets: Sequence[TargetPlan],
        *,
        seed: int | Sequence[int] = 0,
        drafts: Sequence[Mapping[str, Draft]] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> list[dict[str, np.ndarray]]:
        """Generate the targets of a batch of items, in the order of the plans.

        Args:
            conditions: of each item, by checkpoint name: uint8 pixels (H, W, 3) of the modality's size, ids
                of a whole grid or of a sequence, or float vectors (n, channels). Items may differ in what
                they give; an empty mapping generates from nothing. A text has no `[EOS]`; a sentinel at its
                end says that there may be more.
            targets: each modality once. Those that the model takes as input become conditions of later ones:
                in a mapping they join the others, beside weighted parts each is a part of its own.
            seed: 0 or more, for all items or one each. An item's result depends on its seed and on nothing
                else in the batch (but for rounding).
            drafts: of each item, targets of which a part is known; the encoder sees it from the start.
            progress: called after every step; what it raises stops the generation.

        Returns:
            Of each item its targets by name: int64 ids, (n,) for grids in row-major order. Sequences have
            their spans filled in, up to and with the token that ended them unless that is a sentinel.

        Raises:
            QueryError: plans, seeds or drafts that make no sense together.
            ModelError: a modality that the model was not opened with.
            InputError: values of another shape or type than their modality's.
        """
        chooser = SeededChooser(read_seeds(seed, len(conditions)))
        return self.generate_with(chooser, conditions, targets, drafts=drafts, progress=progress)

    @torch.inference_mode()
    def generate_with(
        self,
        chooser: Chooser,
        conditions: Sequence[Conditions],
        targets: Sequence[TargetPlan],
        *,
        drafts: Sequence[Mapping[str, Draft]] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> list[dict[str, np.ndarray]]:
        """As `generate`, with every random choice made by `chooser`."""
        self._check_plans(targets)
        drafts = [{}] * len(conditions) if drafts is None else drafts
        self._check_drafts(drafts, len(conditions), targets)
        states = [self._targets(of_item, targets) for of_item in drafts]
        items = [self._item(one, of_item) for one, of_item in zip(conditions, states, strict=True)]
        reader = Reader(self.fourm)
        for number, plan in enumerate(targets):
            of_plan = [of_item[plan.modality] for of_item in states]
            job = Job(self.fourm, reader, plan, number, items, chooser, len(targets), progress)
            generate_grids(job, [one for one in of_plan if isinstance(one, GridTarget)])
            generate_sequences(job, [one for one in of_plan if isinstance(one, SequenceTarget)])
            for item, one in zip(items, of_plan, strict=True):
                if plan.modality in self.fourm.inputs:
                    item.finish(plan.modality, one.given(), plan.weight)
        return [{name: one.result() for name, one in of_item.items()} for of_item in states]

    @torch.inference_mode()
    def logits(self, conditions: Sequence[Conditions], target: str, *, guidance: float = 1.0) -> np.ndarray:
        """Predict all of a grid in one pass, guided as `generate` would.

        Args:
            conditions: as for `generate`.
            target: a grid.
            guidance: as in a plan.

        Returns:
            float32 (B, n, V).

        Raises:
            QueryError, ModelError, InputError: as `generate`.
        """
        plan = TargetPlan(target, guidance=guidance)
        self._check_plans([plan])
        modality = self._modality(target)
        items = [self._item(one, {target: GridTarget(modality)}) for one in conditions]
        shape = (len(items), modality.max_tokens)
        if not items:
            return np.zeros((*shape, modality.vocab_size or 0), np.float32)
        slots = np.broadcast_to(np.arange(modality.max_tokens), shape)
        job = Job(self.fourm, Reader(self.fourm), plan, 0, items, SeededChooser([]))
        return grid_logits(job, range(len(items)), slots, np.zeros(shape, bool)).float().cpu().numpy()

    def _modality(self, name: str) -> Modality:
        return self.fourm.config.modality(name)

    def _targets(self, drafts: Mapping[str, Draft], plans: Sequence[TargetPlan]) -> dict[str, Target]:
        found: dict[str, Target] = {}
        for name in (plan.modality for plan in plans):
            modality = self._modality(name)
            if modality.kind == "seq":
                found[name] = SequenceTarget(modality, self.controls, drafts.get(name))
            else:
                found[name] = GridTarget(modality, drafts.get(name))
        return found

    def _item(self, conditions: Conditions, targets: Mapping[str, Target]) -> Item:
        parts = [Part(conditions)] if isinstance(conditions, Mapping) else conditions
        rows: list[tuple[float, Row]] = []
        for part in parts:
            for name in part.content:
                self._require_input(name, "is given")
                if name in targets:
                    raise QueryError(f"{name} is given and to be generated; give what is known as a draft.")
            row = {name: read_given(self._modality(name), value) for name, value in part.content.items()}
            rows.append((part.weight, row))
        shown = {name: one.given() for name, one in targets.items() if name in self.fourm.inputs}
        return Item(rows, is_joint=isinstance(conditions, Mapping), targets=shown, nothing=self._stand_ins())

    def _stand_ins(self) -> dict[str, Given]:
        """What stands for a modality that is taken away: of a text, as in training, a span to be filled."""
        found: dict[str, Given] = {}
        for name in self.fourm.inputs:
            modality, sentinel = self._modality(name), self.controls.sentinels[0]
            if modality.kind == "emb":
                found[name] = all_used(np.zeros((1, modality.channels or 0), np.float32))
            elif modality.kind == "seq" and sentinel < (modality.vocab_size or 0):
                found[name] = all_used(np.asarray([sentinel], np.int64))
        return found

    def _check_plans(self, plans: Sequence[TargetPlan]) -> None:
        names = [plan.modality for plan in plans]
        for plan in plans:
            name = plan.modality
            if name not in self.fourm.targets:
                known = ", ".join(self.fourm.targets)
                raise ModelError(f"This model was not opened to predict {name!r}. Targets: {known}.")
            if names.count(name) > 1:
                raise QueryError(f"{name} is planned twice; a target is generated once.")
            modality = self._modality(name)
            if (modality.kind == "seq") != (plan.scheme == "autoregressive"):
                fitting = "autoregressive" if modality.kind == "seq" else "roar or maskgit"
                raise QueryError(f"{name} cannot be decoded by {plan.scheme!r}; use {fitting}.")
            if modality.kind == "seq":
                self.controls.require(modality, 1)
            elif min(plan.num_steps, modality.max_tokens) > 1:
                self._require_input(name, "is planned in several steps")
            for condition in plan.guided_by or ():
                self._require_input(condition, f"guides {name}")

    def _check_drafts(
        self, drafts: Sequence[Mapping[str, Draft]], num_items: int, plans: Sequence[TargetPlan]
    ) -> None:
        if len(drafts) != num_items:
            raise QueryError(f"{len(drafts)} mappings of drafts for {num_items} items: give one each.")
        planned = [plan.modality for plan in plans]
        for name in {name for of_item in drafts for name in of_item}:
            if name not in planned:
                raise QueryError(
                    f"{name!r} has a draft but no plan. Planned: {', '.join(planned) or 'none'}."
                )
            self._require_input(name, "has a draft")

    def _require_input(self, name: str, why: str) -> None:
        if name not in self.fourm.inputs:
            known = ", ".join(self.fourm.inputs)
            raise ModelError(f"{name!r} {why}, but this model does not take it. It was opened with {known}.")


def read_seeds(seed: int | Sequence[int], num_items: int) -> list[int]:
    """One seed per item, of one for all or one each. Raises QueryError for what is no seed."""
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * num_items
    if len(seeds) != num_items:
        raise QueryError(f"{len(seeds)} seeds for {num_items} items: give one for all, or one each.")
    for one in seeds:
        if type(one) is not int or one < 0:
            raise QueryError(f"A seed is a whole number of 0 or more, got {one!r}.")
    return seeds
