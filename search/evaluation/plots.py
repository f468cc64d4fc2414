"""Reports as pictures that are read at a glance. Drawn without a display."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...errors import AnyseekError, InputError
from ..engine import SearchEngine, content_of
from .check import CheckReport
from .index import CUTS, IndexEvaluation, IndexQuality
from .report import RetrievalReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

_DPI = 150
_MIX, _BEST, _PART, _INK = "#1f6f8b", "#e07a3f", "#c9ccd1", "#222222"
_GOOD, _BAD = "#2a7f62", "#8a8f98"
_NUMBER_COLORS = ((0.6, "white"), (-1.0, "#222222"))


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the kind of file follows from its name.

    Raises:
        InputError: no such folder, no space, or an extension that is none of a picture.
    """
    try:
        figure.savefig(path, dpi=_DPI, bbox_inches="tight", facecolor="white")
    except (OSError, ValueError) as error:
        raise InputError(f"The picture cannot be written to {path}: {error}.") from error


def draw_matrix(report: RetrievalReport) -> Figure:
    """R@1 of every kind of query against every view, darker is better; framed where an item is compared with
    vectors made from the very content that is asked with.
    """
    kinds, views = [kind.name for kind in report.kinds], report.views
    shares = np.full((len(kinds), len(views)), np.nan)
    for i, kind in enumerate(kinds):
        for j, view in enumerate(views):
            figures = report.cell(kind, view).figures
            shares[i, j] = np.nan if figures is None else figures.r1
    figure = Figure(figsize=(2.6 + 1.15 * len(views), 1.3 + 0.46 * len(kinds)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="YlGnBu", vmin=0, vmax=1, aspect="auto")
    for (i, j), share in np.ndenumerate(shares):
        cell = report.cell(kinds[i], views[j])
        color = next(color for least, color in _NUMBER_COLORS if np.nan_to_num(share) > least)
        text = "–" if np.isnan(share) else f"{share:.2f}"
        axes.text(j, i, text, ha="center", va="center", color=color, fontsize=10)
        if cell.own:
            box = Rectangle((j - 0.46, i - 0.44), 0.92, 0.88, fill=False, ec=_INK, lw=1.1, ls=(0, (2, 2)))
            axes.add_patch(box)
    axes.set_xticks(range(len(views)), views)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.tick_params(length=0)
    axes.set_xlabel("vectors made from")
    axes.set_ylabel("query")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="R@1", fraction=0.05, pad=0.02)
    note = "\ndashed: the view holds the query's own content" if any(c.own for c in report.matrix) else ""
    axes.set_title(
        f"{report.collection}: right item first among {report.num_items:,}{note}", loc="left", fontsize=10
    )
    return figure


def draw_gaps(report: RetrievalReport) -> Figure:
    """R@1 of each mix beside its parts, with 95 % intervals, and how much it gains on the best of them.

    Raises:
        InputError: the report has no mix.
    """
    gaps = report.gaps
    if not gaps:
        raise InputError("There is no mix to draw: no item brings two modalities that were asked for.")
    heights = [len(gap.parts) + 2 for gap in gaps]
    figure = Figure(figsize=(9, 0.9 + 0.34 * sum(heights)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    ticks: list[tuple[float, str]] = []
    y = 0.0
    for gap in gaps:
        rows = [(gap.mix, gap.r1, gap.r1_interval, _MIX)]
        for part, r1 in sorted(gap.parts.items(), key=lambda pair: -pair[1]):
            rows.append((part, r1, gap.part_intervals[part], _BEST if part == gap.best_part else _PART))
        top = y
        for name, r1, interval, color in rows:
            left.barh(y, r1, color=color, height=0.78)
            left.plot([interval.low, interval.high], [y, y], color=_INK, lw=1.4, marker="|", ms=6)
            left.text(interval.high + 0.012, y, f"{r1:.2f}", va="center", fontsize=9)
            ticks.append((y, name))
            y += 1
        color = _GOOD if gap.apart else _BAD
        span = gap.gap_interval
        right.plot([span.low, span.high], [top, top], color=color, lw=3, solid_capstyle="butt")
        right.plot(gap.gap, top, "o", color=color, ms=8)
        said = "intervals apart" if gap.apart else "intervals overlap"
        right.text(span.high, top + 0.62, f"{gap.gap:+.2f}, {said}", va="center", ha="center", fontsize=9)
        y += 1
    left.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    left.invert_yaxis()
    left.set_xlim(0, 1.08)
    left.set_title("R@1 with 95 % intervals", loc="left", fontsize=10)
    right.axvline(0, color=_INK, lw=0.8)
    low, high = right.get_xlim()
    right.set_xlim(min(low, -0.05) - 0.05, high + 0.12)
    right.set_title("mix minus its best part, same queries", loc="left", fontsize=10)
    for axes in (left, right):
        _plain(axes)
    figure.suptitle(f"{report.collection}: what a mix adds", x=0.01, ha="left", fontsize=11)
    return figure


def draw_index(report: IndexEvaluation) -> Figure:
    """Recall and latency of every index, with and without filters."""
    rows = len(report.indexes)
    figure = Figure(figsize=(10, 1.0 + 1.25 * rows), layout="constrained")
    grid: Any = figure.subplots(rows, 2, squeeze=False, sharex="col", width_ratios=(2, 3))
    for (left, right), index in zip(grid, report.indexes, strict=True):
        _draw_recall(left, index)
        _draw_latency(right, index)
    grid[0][0].set_title("recall@k against exact search", loc="left", fontsize=10)
    grid[-1][0].legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    grid[-1][1].set_xlabel(
        "milliseconds for k = 10: median, to 95 %, thin to 99 %; dashed: the bare FAISS call"
    )
    figure.suptitle(
        f"{report.collection}: {report.num_items:,} items, {report.generation_bytes / 2**20:,.1f} MiB",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    return figure


def _draw_recall(axes: Axes, index: IndexQuality) -> None:
    worst = [min(search.recall[k] for search in index.searches) for k in CUTS]
    unfiltered = [index.searches[0].recall[k] for k in CUTS]
    at = np.arange(len(CUTS))
    axes.bar(at - 0.2, unfiltered, 0.38, color=_MIX, label="no filter")
    axes.bar(at + 0.2, worst, 0.38, color=_PART, label="worst filter")
    for x, share in [*zip(at - 0.2, unfiltered, strict=True), *zip(at + 0.2, worst, strict=True)]:
        axes.text(x, share + 0.02, f"{share:.3f}".rstrip("0").rstrip("."), ha="center", fontsize=8)
    axes.set_xticks(at, [f"k = {k}" for k in CUTS])
    axes.set_ylim(0, 1.3)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel(f"{index.space.removesuffix('_global')}\n{index.view}", fontsize=9)
    _plain(axes)


def _draw_latency(axes: Axes, index: IndexQuality) -> None:
    names = [f"{100 * search.selectivity:.3g} %" for search in index.searches[1:]]
    for y, search in enumerate(index.searches):
        latency = search.latency_ms
        axes.plot([latency.p50, latency.p99], [y, y], color=_PART, lw=1.5)
        axes.plot([latency.p50, latency.p95], [y, y], color=_MIX, lw=5, solid_capstyle="butt")
        axes.plot(latency.p50, y, "o", color=_MIX, ms=6)
    axes.axvline(index.bare_ms.p50, color=_BEST, lw=1.4, ls="--")
    axes.set_yticks(range(len(index.searches)), ["no filter", *names], fontsize=8)
    axes.set_ylim(len(index.searches) - 0.5, -0.5)
    axes.set_xscale("log")
    text = f"{index.num_rows:,} vectors, {index.ratio:.2f} x bare"
    axes.set_title(text, loc="right", fontsize=8, color=_INK, pad=2)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def draw_findings(engine: SearchEngine, report: CheckReport, *, num: int = 12) -> Image.Image:
    """The worst findings as pictures, everything that each item has side by side.

    Raises:
        InputError: there is none to draw.
    """
    from ...model import draw_overview, shown_value

    if not report.findings:
        raise InputError("There is no finding to draw.")
    model, snapshot = engine.model(report.collection), engine.store.snapshot(report.collection)
    findings = report.findings[:num]
    items = {item.id: item for item in snapshot.items([finding.id for finding in findings])}
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    for place, finding in enumerate(findings, 1):
        row: dict[str, Any] = {}
        for asset in items[finding.id].assets if finding.id in items else ():
            if asset.modality in finding.modalities:
                content = content_of(asset, engine.store.assets)
                with suppress(AnyseekError):  # gone since it was checked: its place stays empty
                    row[asset.modality] = shown_value(model, asset.modality, cast("Any", content))
        rows.append(row)
        names.append(f"{place}. {finding.id}: {finding.suspect}? ({finding.disagreement:.1f})")
    return draw_overview(rows, title=report.collection, names=names, classes=model.parts.classes, size=200)
