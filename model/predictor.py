"""Any modalities of an item in, any others out, as values.

Targets are generated one after the other in the order of the authors' demonstration and with its settings,
each a condition of those after it, and decoded at the end. Instances come last, by passes of their own that
ask all over the picture: what these write is too long to condition on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..errors import InputError, ModelError, QueryError
from .checks import check_input
from .decoders import ValueDecoder
from .drafts import Draft
from .encoding import ValueEncoder, Values
from .generate import read_seeds
from .instances import PLAN as INSTANCES_PLAN
from .instances import TARGET as INSTANCES
from .instances import write_answers
from .modalities import Modality
from .parts import ModelParts
from .plans import TargetPlan, default_plan, default_plans
from .presets import FourMConfig
from .refining import Refiner
from .stages import GrowingGenerator, Report, Tokens, shown_to, told
from .values import Predicted

Setting = float | Mapping[str, float] | None
"""A setting of all targets, of some by the user's names, or the default."""


@dataclass(frozen=True)
class Kept:
    """A target of which a part is kept and the rest predicted anew.

    Attributes:
        value: the whole, as readers give it.
        redraw: bool, what to predict anew: of a grid its tokens (rows, columns) or the pixels (S, S) of its
            picture, each token with such a pixel being drawn; of a text its token ids.
    """

    value: np.ndarray
    redraw: np.ndarray


class ModalityPredictor:
    """Predicts modalities. Thread-safe; what a prediction needs of the model is read when it first comes up.

    Args:
        parts: of the model.
    """

    def __init__(self, parts: ModelParts) -> None:
        self._parts = parts
        self._opened = GrowingGenerator(parts)
        self._refiner = Refiner(parts)
        self._decoder = ValueDecoder(parts)

    def predict(
        self,
        items: Sequence[Values],
        to: Iterable[str],
        *,
        keep: Sequence[Mapping[str, Kept]] | None = None,
        seed: int | Sequence[int] = 0,
        num_steps: Setting = None,
        temperature: Setting = None,
        top_p: Setting = None,
        guidance: Setting = None,
        super_resolution: bool = False,
        diffusion_steps: int | None = None,
        progress: Report | None = None,
    ) -> list[dict[str, Predicted]]:
        """Predict modalities of a batch of items.

        Args:
            items: of each, values by the user's names as readers give them. Items may differ in what they
                have; one that has nothing is made up.
            to: what to predict, by the user's names.
            keep: of each item, targets of which a part is known.
            seed: 0 or more, for all items or one each. An item's result depends on its seed and on nothing
                else in the batch (but for rounding).
            num_steps: in how many steps grids are generated. This and the three that follow take the place of
                what `default_plan` says, for all targets or for some by their names.
            temperature: 0 always takes the best token.
            top_p: tokens beyond this cumulative probability are not drawn; 0: all may be.
            guidance: how much the conditions count; 1 is as trained.
            super_resolution: let a second model predict grids at twice the resolution, from what was given
                and predicted at the usual one. Targets that it does not know stay as they are.
            diffusion_steps: of the decoders of rgb, depth, normal and edges; 25 by default.
            progress: told after every step.

        Returns:
            Of each item what was predicted, by the user's names in the order asked.

        Raises:
            QueryError: nothing to predict, a target that is given too, or settings, seeds or kept parts
                without a meaning.
            ModelError: a modality that the model does not have, or no model of higher resolution for any.
            InputError: values that are not as readers give them.
            CheckpointError: weights that cannot be had.
        """
        seeds = read_seeds(seed, len(items))
        rows = self._rows(list(dict.fromkeys(to)), items)
        settings = {"num_steps": num_steps, "temperature": temperature, "top_p": top_p, "guidance": guidance}
        changes, config = _changes(rows, settings), self._parts.config
        plans = {is_given: _plans(rows, changes, config, is_given) for is_given in (True, False)}
        finer = self._refiner.rows(rows) if super_resolution else {}
        drafts = self._drafts(rows, items, keep)
        known = ValueEncoder(self._parts.inputs, self._parts).encode(items)
        for is_given, of_group in plans.items():
            group = [i for i, item in enumerate(items) if ("rgb" in item) == is_given]
            self._predict_group(known, group, of_group, rows, drafts, seeds, progress)
        if finer:
            found = self._refiner.refine(known, finer, seeds, progress)
            known = [{**of_item, **tokens} for of_item, tokens in zip(known, found, strict=True)]
        values = {
            raw: self._decoder.decode(
                row,
                [of_item[row.name] for of_item in known],
                seeds=seeds,
                num_steps=diffusion_steps,
                progress=None if progress is None else partial(progress, f"decode {raw}"),
            )
            for raw, row in (rows | finer).items()
        }
        return [{raw: of_raw[i] for raw, of_raw in values.items()} for i in range(len(items))]

    def _rows(self, to: Sequence[str], items: Sequence[Values]) -> dict[str, Modality]:
        inputs, targets = self._parts.inputs, self._parts.targets
        if not to:
            raise QueryError(f"Name at least one modality to predict: {', '.join(targets)}.")
        for raw in to:
            if raw not in targets:
                raise ModelError(f"This model does not predict {raw!r}. It predicts {', '.join(targets)}.")
            if any(raw in item for item in items):
                raise QueryError(f"{raw} is given and to be predicted; leave out one of both.")
        for i, item in enumerate(items):
            for raw, value in item.items():
                if raw not in inputs:
                    raise ModelError(f"This model does not take {raw!r}. It takes {', '.join(inputs)}.")
                check_input(value, inputs[raw], f"Item {i}, {raw}", len(self._parts.classes))
        return {raw: targets[raw] for raw in to}

    def _drafts(
        self,
        rows: Mapping[str, Modality],
        items: Sequence[Values],
        keep: Sequence[Mapping[str, Kept]] | None,
    ) -> list[dict[str, Draft]]:
        keep = [{}] * len(items) if keep is None else keep
        if len(keep) != len(items):
            raise QueryError(f"{len(keep)} mappings of what is kept for {len(items)} items: give one each.")
        for i, of_item in enumerate(keep):
            for raw, kept in of_item.items():
                if raw not in rows:
                    raise QueryError(f"A part of {raw} is kept, but {raw} is not to be predicted.")
                if raw == INSTANCES:
                    raise QueryError(f"{INSTANCES} is predicted as a whole; nothing of it can be kept.")
                check_input(kept.value, rows[raw], f"Item {i}, kept {raw}", len(self._parts.classes))
        values = [{raw: kept.value for raw, kept in of_item.items()} for of_item in keep]
        tokens = ValueEncoder(rows, self._parts).encode(values)
        return [
            {
                rows[raw].name: Draft(ids[rows[raw].name], _redraw(rows[raw], kept.redraw))
                for raw, kept in of_item.items()
            }
            for of_item, ids in zip(keep, tokens, strict=True)
        ]

    def _predict_group(
        self,
        known: list[Tokens],
        group: Sequence[int],
        plans: Sequence[TargetPlan],
        rows: Mapping[str, Modality],
        drafts: Sequence[Mapping[str, Draft]],
        seeds: Sequence[int],
        progress: Report | None,
    ) -> None:
        """Add to what is known of some items their targets."""
        if not group:
            return
        given = {name for i in group for name in known[i]}
        generator = self._opened.having(given, {row.name for row in rows.values()})
        found = generator.generate(
            [known[i] for i in group],
            [plan for plan in plans if plan.modality != INSTANCES],
            seed=[seeds[i] for i in group],
            drafts=[drafts[i] for i in group],
            progress=told(progress, "predict", rows),
        )
        for number, (i, tokens) in enumerate(zip(group, found, strict=True)):
            known[i] = {**known[i], **tokens}
            if INSTANCES in rows:
                known[i][INSTANCES] = write_answers(
                    generator,
                    shown_to(generator.fourm.config, known[i]),
                    self._parts.text,
                    plan=plans[-1],
                    seed=seeds[i],
                    progress=told(progress, "predict", rows, number, len(group)),
                )


def _plans(
    rows: Mapping[str, Modality],
    changes: Mapping[str, Mapping[str, float]],
    config: FourMConfig,
    rgb_given: bool,
) -> list[TargetPlan]:
    """How to generate each target, instances last."""
    names = {row.name for row in rows.values()}
    own = config.own_modalities
    plans = default_plans(names - {INSTANCES, *own}, rgb_given=rgb_given)
    plans += [
        replace(default_plan(own[name], rgb_given=rgb_given), modality=name) for name in own if name in names
    ]
    plans += [INSTANCES_PLAN] if INSTANCES in names else []
    # A model that does not take a target as input cannot be shown what the steps before have drawn.
    steps = [plan if plan.modality in config.domains_in else replace(plan, num_steps=1) for plan in plans]
    by_name = {rows[raw].name: of_raw for raw, of_raw in changes.items()}
    return [replace(plan, **by_name.get(plan.modality, {})) for plan in steps]


def _changes(rows: Mapping[str, Modality], settings: Mapping[str, Setting]) -> dict[str, dict[str, float]]:
    """By target, what to change in its plan."""
    changes: dict[str, dict[str, float]] = {}
    grids = [raw for raw, row in rows.items() if row.kind != "seq"]
    for name, value in settings.items():
        if value is not None and not isinstance(value, Mapping):
            value = dict.fromkeys(grids if name == "num_steps" else rows, value)
        for raw, one in (value or {}).items():
            if raw not in rows:
                raise QueryError(f"{name} is set for {raw!r}, which is not to be predicted.")
            if name == "num_steps" and raw not in grids:
                raise QueryError(f"{raw} is written token by token: num_steps is for grids.")
            changes.setdefault(raw, {})[name] = one
    return changes


def _redraw(row: Modality, mask: np.ndarray) -> np.ndarray:
    """Which tokens to draw anew, from a mask of tokens or pixels."""
    mask = np.asarray(mask)
    if row.grid is None or mask.shape == row.grid:
        return mask
    num_rows, num_columns = row.grid
    size, patch = row.image_size, row.patch_size
    if mask.dtype != bool or mask.shape != (size, size):
        raise InputError(
            f"{row.raw}: expected what to redraw as bool {row.grid} of tokens or bool ({size}, {size}) of "
            f"pixels, got {mask.dtype} {mask.shape}."
        )
    return np.logical_or.reduce(mask.reshape(num_rows, patch or 1, num_columns, patch or 1), axis=(1, 3))
