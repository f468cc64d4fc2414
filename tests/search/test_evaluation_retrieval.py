"""Kinds of queries against views: the same ranks as by searching, and what is said about them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import QueryError
from anyseek.search import Caption, Query, SearchEngine, evaluate_retrieval
from anyseek.search.evaluation import RetrievalReport, RetrievalSettings, evaluate_collection
from anyseek.search.evaluation.tables import retrieval_tables
from anyseek.search.query import RGB
from anyseek.storage import Asset, Item, Rows, SpaceRecord, Store
from PIL import Image

QUICK = RetrievalSettings(compare=False)


@pytest.fixture
def report(engine: SearchEngine, model: Any) -> RetrievalReport:
    model.of_modality["caption"] = {"dinov2_global": 0.1, "imagebind_global": 0.9}
    model.of_modality["rgb"] = {"dinov2_global": 1.0}
    return evaluate_collection(engine, "photos", RetrievalSettings(mixes=[("rgb", "caption")]))


def test_figures_are_those_of_the_search(engine: SearchEngine, library: Any, report: RetrievalReport) -> None:
    asked = [
        (Caption(next(a.value for a in item.assets if a.modality == "caption")), item.id)
        for item in library.items.values()
    ]
    for view in ("joint", "caption"):
        found = evaluate_retrieval(engine, "photos", asked, view=view)
        figures = report.cell("caption", view).figures
        assert figures is not None
        assert (figures.r1, figures.r5, figures.r10) == (found.r1, found.r5, found.r10)
        assert (figures.median_rank, figures.num_queries) == (found.median_rank, 60)


@pytest.mark.parametrize("composition", ["joint", "guided", "late"])
def test_every_composition_is_that_of_the_search(
    engine: SearchEngine, library: Any, report: RetrievalReport, composition: Any
) -> None:
    ranks: list[int] = []
    for item in library.items.values():
        content = {asset.modality: asset for asset in item.assets}
        if "rgb" in content:
            query = Query((RGB(Path(content["rgb"].path)), Caption(content["caption"].value)))
            hits = engine.search(
                "photos", query, composition=composition, limit=60, view=report.kinds[-1].view
            )
            ranks.append([hit.id for hit in hits].index(item.id) + 1)
    (choice,) = [c for c in report.choices if c.aspect == "composition" and c.choice == composition]
    assert choice.figures.num_queries == len(ranks)
    assert choice.figures.r1 == pytest.approx(np.mean([rank == 1 for rank in ranks]))
    assert choice.figures.median_rank == np.median(ranks)


def test_vectors_made_from_what_is_asked_with_are_marked(report: RetrievalReport) -> None:
    own = {(cell.query, cell.view): cell.own for cell in report.matrix}
    assert own["caption", "caption"]
    assert own["caption", "joint"]
    assert not own["rgb", "caption"]
    assert own["rgb+caption", "caption"]
    assert {kind.name: kind.view for kind in report.kinds}["rgb"] == "caption"
    assert any("very same content" in note and "caption" in note for note in report.notes)
    assert any("No ceiling" in note for note in report.notes)


def test_other_files_of_the_same_items_are_asked_with_instead(
    engine: SearchEngine, library: Any, tmp_path: Path
) -> None:
    ids = [item.id for item in library.items.values() if item.assets[0].modality == "rgb"][:5]
    files: dict[str, dict[str, Path]] = {}
    for i, id in enumerate(ids):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(path)
        files[id] = {"rgb": path}
    files["unknown item"] = {"rgb": tmp_path / "0.png"}
    report = evaluate_collection(engine, "photos", QUICK, queries=files)
    cell = report.cell("rgb", "joint")
    assert cell.figures is not None
    assert cell.figures.num_queries == 5
    assert not cell.own  # these pixels are in no vector
    own = evaluate_collection(engine, "photos", QUICK).cell("rgb", "joint")
    assert own.own
    assert own.figures is not None
    assert own.figures.r1 > cell.figures.r1


def test_the_sample_is_fixed_by_its_seed(engine: SearchEngine) -> None:
    settings = RetrievalSettings(limit=10, compare=False)
    first, again = (evaluate_collection(engine, "photos", settings).to_json() for _ in range(2))
    assert first | {"seconds": 0} == again | {"seconds": 0}
    assert all(cell["figures"]["num_queries"] <= 10 for cell in first["matrix"] if cell["figures"])
    other = evaluate_collection(engine, "photos", RetrievalSettings(limit=10, seed=1, compare=False))
    assert other.to_json()["matrix"] != first["matrix"]


def test_the_report_is_json_with_a_schema(report: RetrievalReport) -> None:
    told = json.loads(json.dumps(report.to_json()))
    assert told["schema"] == "anyseek.retrieval/1"
    assert set(told["matrix"][0]) == {"query", "view", "own", "figures"}
    assert {choice["aspect"] for choice in told["choices"]} == {"decoding", "scoring", "space", "composition"}
    titles = [title for title, rows in retrieval_tables(report) if rows]
    assert len(titles) == 7


@pytest.mark.parametrize(
    "settings",
    [
        RetrievalSettings(modalities=["depth", "normal"]),
        RetrievalSettings(mixes=[("caption", "metadata")]),
        RetrievalSettings(views=["rgb"]),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(engine: SearchEngine, settings: RetrievalSettings) -> None:
    with pytest.raises(QueryError, match="caption"):
        evaluate_collection(engine, "photos", settings)


def test_a_limit_of_nothing_is_refused(engine: SearchEngine) -> None:
    with pytest.raises(ValueError, match="limit"):
        evaluate_collection(engine, "photos", RetrievalSettings(limit=0))


@pytest.fixture
def twins(tmp_path: Path, make_library: Callable[..., Any], model: Any) -> SearchEngine:
    """12 items, of which the first three share a caption, and one has lost its picture."""
    (tmp_path / "twins").mkdir()
    made = make_library(tmp_path / "twins", 12, fresh=0)
    items = list(made.items.values())
    shared = [
        Item(i.id, [Asset("caption", value="all alike")], i.attributes, "new", "test") for i in items[:3]
    ]
    embedded = model.embedder.embed([{"caption": model.embedder.read("caption", "all alike")}] * 6)
    with made.store.writer() as writer:
        ids, views = [item.id for item in shared for _ in range(2)], ["joint", "caption"] * 3
        vectors = {name: each.vectors for name, each in embedded.items()}
        tokens = {name: each.tokens for name, each in embedded.items()}
        writer.commit("photos", items=shared, rows=Rows(ids, views, vectors, tokens))
    Path(next(a.path for a in items[5].assets if a.modality == "rgb")).unlink()
    return SearchEngine(made.store, model)


def test_every_item_with_the_very_same_content_is_a_right_answer(twins: SearchEngine) -> None:
    report = evaluate_collection(twins, "photos", QUICK)
    figures = report.cell("caption", "caption").figures
    assert figures is not None
    assert (figures.r1, figures.map, figures.num_queries) == (1, 1, 12)
    assert {kind.name: kind.num_shared for kind in report.kinds}["caption"] == 3
    unique = evaluate_collection(twins, "photos", RetrievalSettings(unique=True, compare=False))
    figures = unique.cell("caption", "caption").figures
    assert figures is not None
    assert figures.num_queries == 9


def test_a_file_that_is_gone_costs_its_own_query_only(twins: SearchEngine) -> None:
    report = evaluate_collection(twins, "photos", QUICK)
    figures = report.cell("rgb", "joint").figures
    assert figures is not None
    assert report.failures == [] or len(report.failures) == 1
    assert {kind.name: kind.num_items for kind in report.kinds}["rgb"] == figures.num_queries


class FakeTruth:
    """Knows the vectors of pictures in one space; they are those that the model predicts."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predicted_spaces(self, modalities: Any) -> list[str]:
        return ["imagebind_global"] if "rgb" in modalities else ["dinov2_global", "imagebind_global"]

    def embed(self, items: Any) -> Any:
        return self._model.embedder.embed(items)


def test_the_ceiling_is_what_true_vectors_reach(engine: SearchEngine, model: Any) -> None:
    report = evaluate_collection(engine, "photos", QUICK, truth=FakeTruth(model))
    assert {(c.query, c.space, c.view) for c in report.ceilings} == {
        ("rgb", "dinov2_global", "joint"),
        ("rgb", "dinov2_global", "caption"),
    }
    assert not any("ceiling" in note.lower() for note in report.notes)


def test_a_store_of_nothing_is_refused(tmp_path: Path, model: Any) -> None:
    store = Store.open(tmp_path / "library", create=True)
    with store.writer() as writer:
        writer.create_collection(
            "empty",
            model="fake",
            fingerprint=model.fingerprint,
            spaces=[SpaceRecord("dinov2_global", 12, 4, 16)],
            views=["joint"],
        )
    with pytest.raises(QueryError, match="anything"):
        evaluate_collection(SearchEngine(store, model), "empty")
    store.close()
