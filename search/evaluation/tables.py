"""Reports as tables for people: titles and rows, for whatever prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from .check import CheckReport
from .index import IndexEvaluation
from .ranks import Figures, Interval
from .report import RetrievalReport

Table: TypeAlias = "tuple[str, list[dict[str, Any]]]"
"""A title, and rows with the same keys."""


def retrieval_tables(report: RetrievalReport) -> list[Table]:
    """What was asked and found; then matrix, gaps, choices and ceilings, where there are any."""
    shown = [
        {"query": kind.name, "view": kind.view + _star(cell.own), **_figures(cell.figures)}
        for kind in report.kinds
        if (cell := report.cell(kind.name, kind.view)).figures is not None
    ]
    tables: list[Table] = [(f"{report.collection}: found among {report.num_items:,} items", shown)]
    if len(report.views) > 1:
        tables.append(
            ("R@1 of each query against each view (* made from the very same content)", _matrix(report))
        )
    tables.append(("What a mix adds to its best part, R@1 with 95 % intervals", _gaps(report)))
    for aspect in dict.fromkeys(choice.aspect for choice in report.choices):
        tables.append((f"R@1 by {aspect}", _choices(report, aspect)))
    ceilings = [
        {"true vector of": c.query, "space": c.space, "view": c.view + _star(c.own), **_figures(c.figures)}
        for c in report.ceilings
    ]
    tables.append(("Ceiling: the teachers' own vectors as queries, by cosine", ceilings))
    return [(title, rows) for title, rows in tables if rows]


def _matrix(report: RetrievalReport) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind in report.kinds:
        row: dict[str, Any] = {"query": kind.name}
        for view in report.views:
            cell = report.cell(kind.name, view)
            row[view] = "" if cell.figures is None else f"{cell.figures.r1:.3f}{_star(cell.own)}"
        rows.append(row)
    return rows


def _gaps(report: RetrievalReport) -> list[dict[str, Any]]:
    return [
        {
            "mix": gap.mix,
            "view": gap.view,
            "queries": gap.num_queries,
            "R@1": _with_interval(gap.r1, gap.r1_interval),
            "best part": gap.best_part,
            "its R@1": _with_interval(gap.parts[gap.best_part], gap.part_intervals[gap.best_part]),
            "gap": _with_interval(gap.gap, gap.gap_interval, "+"),
            "intervals": "apart" if gap.apart else "overlap",
        }
        for gap in report.gaps
    ]


def _choices(report: RetrievalReport, aspect: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, float]] = {}
    for choice in report.choices:
        if choice.aspect == aspect:
            found.setdefault(choice.query, {})[choice.choice] = choice.figures.r1
    return [{"query": query, **by_choice} for query, by_choice in found.items()]


def index_tables(report: IndexEvaluation) -> list[Table]:
    """Every index, then what searches with filters take."""
    indexes = [
        {
            "space": index.space,
            "view": index.view,
            "vectors": f"{index.num_rows:,}",
            **{f"recall@{k}": value for k, value in index.searches[0].recall.items()},
            "p50 ms": index.searches[0].latency_ms.p50,
            "p95": index.searches[0].latency_ms.p95,
            "p99": index.searches[0].latency_ms.p99,
            "bare FAISS": index.bare_ms.p50,
            "ratio": f"{index.ratio:.2f}",
            "MiB": f"{(index.index_bytes + index.token_bytes) / 2**20:.2f}",
        }
        for index in report.indexes
    ]
    filters = [
        {
            "space": index.space,
            "view": index.view,
            "filter lets through": f"{100 * search.selectivity:.3g} %",
            "items": f"{search.num_allowed:,}",
            **{f"recall@{k}": value for k, value in search.recall.items()},
            "p50 ms": search.latency_ms.p50,
            "p95": search.latency_ms.p95,
            "p99": search.latency_ms.p99,
        }
        for index in report.indexes
        for search in index.searches[1:]
    ]
    title = f"{report.collection}: {report.num_items:,} items, generation {report.generation or 'none yet'}"
    return [(title, indexes), *([("With filters", filters)] if filters else [])]


def check_tables(report: CheckReport) -> list[Table]:
    """The findings."""
    rows: list[dict[str, Any]] = []
    for place, finding in enumerate(report.findings, 1):
        suspect = finding.modalities[finding.suspect]
        rows.append(
            {
                "": place,
                "id": finding.id,
                "suspect": finding.suspect,
                "disagreement": f"{finding.disagreement:.1f}",
                "place of its content": f"{suspect.place_of_content:,} of {suspect.num_compared:,}",
                "usual": f"{suspect.usual_place:.0f}",
                "likelihood": suspect.likelihood,
                "cosine": suspect.cosine,
                "all": _each(finding.modalities),
            }
        )
    checked = f"{report.collection}: items that contradict themselves, of {report.num_checked:,} compared"
    return [(checked, rows)]


def _each(modalities: Mapping[str, Any]) -> str:
    worst = sorted(modalities, key=lambda name: -modalities[name].disagreement)
    return ", ".join(f"{name} {modalities[name].disagreement:.1f}" for name in worst)


def _figures(figures: Figures | None) -> dict[str, Any]:
    assert figures is not None
    return {
        "queries": figures.num_queries,
        "R@1": _with_interval(figures.r1, figures.r1_interval),
        "R@5": figures.r5,
        "R@10": figures.r10,
        "median rank": f"{figures.median_rank:g}",
        "mAP": figures.map,
    }


def _with_interval(value: float, interval: Interval, sign: str = "") -> str:
    return f"{value:{sign}.3f} ({interval.low:{sign}.2f} to {interval.high:{sign}.2f})"


def _star(own: bool) -> str:
    return " *" if own else ""
