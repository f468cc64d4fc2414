"""Super-resolution: a second 4M model predicts grids of twice the resolution (arXiv 2312.06647)."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from ..errors import ModelError
from .modalities import Modality
from .parts import ModelParts
from .plans import finer_plans
from .stages import GrowingGenerator, Report, Tokens, shown_to, told


class Refiner:
    """Predicts the finer grids of what is known at the usual resolution. Thread-safe.

    Args:
        parts: of the model of the usual resolution, which know the second one.
    """

    def __init__(self, parts: ModelParts) -> None:
        self._parts = parts

    def rows(self, rows: Mapping[str, Modality]) -> dict[str, Modality]:
        """Those targets that the second model has at twice the resolution, as it has them.

        Raises:
            ModelError: there is no second model, or it has none of them.
            CheckpointError: it cannot be had.
        """
        config = self._opened.config
        has = {(row.raw, row.image_size): row for row in map(config.modality, config.targets)}
        doubles = {raw: has.get((raw, 2 * (row.image_size or 0))) for raw, row in rows.items()}
        found = {raw: row for raw, row in doubles.items() if row is not None}
        if not found:
            known = ", ".join(dict.fromkeys(raw for raw, _ in has))
            raise ModelError(f"Higher resolution is for {known}, not for {', '.join(rows)}.")
        return found

    def refine(
        self,
        known: Sequence[Tokens],
        rows: Mapping[str, Modality],
        seeds: Sequence[int],
        report: Report | None,
    ) -> list[Tokens]:
        """Finer grids of items from all that is known of them.

        Args:
            known: of each item what was given and predicted at the usual resolution.
            rows: what to predict, as `rows` gave it.
            seeds: of each item.
            report: told after every step.

        Returns:
            The finer grids of each item.
        """
        shown = [shown_to(self._opened.config, of_item) for of_item in known]
        names = {row.name for row in rows.values()}
        generator = self._opened.having({name for of_item in shown for name in of_item}, names)
        plans = finer_plans(names)
        return generator.generate(shown, plans, seed=seeds, progress=told(report, "refine", rows))

    @cached_property
    def _opened(self) -> GrowingGenerator:
        finer = self._parts.super_resolution
        if finer is None:
            raise ModelError(f"Model {self._parts.source.name!r} comes with none for higher resolution.")
        return GrowingGenerator(finer)
