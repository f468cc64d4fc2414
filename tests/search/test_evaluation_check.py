"""Items that contradict themselves are found, and named."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import QueryError
from anyseek.search import SearchEngine
from anyseek.search.evaluation import CheckSettings, check_collection
from anyseek.search.evaluation import check as checking
from anyseek.search.evaluation.tables import check_tables
from anyseek.storage import Asset, Item, Rows, SpaceRecord, Store

MODALITIES = ("caption", "det", "metadata")
NUM = 200


def contents(i: int) -> dict[str, str]:
    """Modalities of one thing share its words, each with one of its own."""
    return {name: f"thing{i} kind{i % 7} place{i % 11} {name}{i}" for name in MODALITIES}


def make(folder: Path, model: Any, items: Sequence[dict[str, str]]) -> SearchEngine:
    store = Store.open(folder / "library", create=True)
    spaces = [SpaceRecord(s.name, s.dim, s.num_tokens, s.codebook_size) for s in model.spaces.values()]
    ids = [f"{i:03}" for i in range(len(items))]
    inputs = [{name: model.embedder.read(name, text) for name, text in item.items()} for item in items]
    embedded = model.embedder.embed(inputs)
    with store.writer() as writer:
        writer.create_collection(
            "things", model="fake", fingerprint=model.fingerprint, spaces=spaces, views=["joint"]
        )
        writer.commit(
            "things",
            items=[
                Item(id, [Asset(name, value=text) for name, text in item.items()])
                for id, item in zip(ids, items, strict=True)
            ],
            rows=Rows(
                ids,
                ["joint"] * len(ids),
                {name: each.vectors for name, each in embedded.items()},
                {name: each.tokens for name, each in embedded.items()},
            ),
        )
    return SearchEngine(store, model)


def swapped(*swaps: tuple[str, int, int]) -> list[dict[str, str]]:
    items = [contents(i) for i in range(NUM)]
    for name, a, b in swaps:
        items[a][name], items[b][name] = items[b][name], items[a][name]
    return items


def test_one_percent_of_swapped_contents_is_found_and_named(tmp_path: Path, model: Any) -> None:
    engine = make(tmp_path, model, swapped(("caption", 10, 152), ("metadata", 33, 78)))
    report = check_collection(engine, "things", CheckSettings(top=6))
    assert {finding.id for finding in report.findings[:4]} == {"010", "152", "033", "078"}
    wrong = {"010": "caption", "152": "caption", "033": "metadata", "078": "metadata"}
    assert all(finding.suspect == wrong[finding.id] for finding in report.findings[:4])
    assert report.findings[3].disagreement > report.findings[4].disagreement
    assert (report.num_checked, report.modalities) == (NUM, dict.fromkeys(MODALITIES, NUM))


def test_items_beyond_the_first_block_are_found_too(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "_BLOCK", 64)
    engine = make(tmp_path, model, swapped(("caption", 10, 152), ("caption", 33, 78), ("caption", 5, 6)))
    report = check_collection(engine, "things", CheckSettings(top=6))
    assert {finding.id for finding in report.findings} == {"010", "152", "033", "078", "005", "006"}
    assert report.findings[0].modalities["caption"].num_compared == 64


def test_a_block_does_not_change_who_is_first_when_all_fit(tmp_path: Path, model: Any) -> None:
    engine = make(tmp_path, model, swapped(("caption", 10, 152)))
    first, again = (check_collection(engine, "things").to_json() for _ in range(2))
    assert first | {"seconds": 0} == again | {"seconds": 0}


def test_an_item_is_not_compared_with_itself(tmp_path: Path, model: Any) -> None:
    """Where everything agrees perfectly, every item is in first place and nobody disagrees."""
    same = [dict.fromkeys(MODALITIES, f"thing{i}") for i in range(30)]
    report = check_collection(make(tmp_path, model, same), "things")
    places = {each.place_of_content for finding in report.findings for each in finding.modalities.values()}
    assert places == {1}
    assert all(finding.disagreement == 0 for finding in report.findings)


def test_items_with_one_modality_are_left_out(tmp_path: Path, model: Any) -> None:
    items = [contents(i) for i in range(40)] + [{"caption": "alone"}]
    report = check_collection(make(tmp_path, model, items), "things")
    assert report.num_checked == 40
    assert "040" not in {finding.id for finding in report.findings}


def test_two_modalities_are_each_others_rest(tmp_path: Path, model: Any) -> None:
    engine = make(tmp_path, model, swapped(("caption", 10, 152)))
    model.embedder.batches.clear()
    report = check_collection(engine, "things", CheckSettings(modalities=["caption", "det"], top=2))
    assert sum(model.embedder.batches) == 2 * NUM
    assert {finding.id for finding in report.findings} == {"010", "152"}
    assert any("which of them is wrong" in note for note in report.notes)


def test_a_modality_that_says_nothing_is_told(tmp_path: Path, model: Any) -> None:
    random = np.random.default_rng(0)
    items = [contents(i) | {"metadata": f"noise{random.integers(1 << 30)}"} for i in range(60)]
    report = check_collection(make(tmp_path, model, items), "things")
    assert any(note.startswith("metadata says little") for note in report.notes)


def test_what_cannot_be_read_is_listed(tmp_path: Path, model: Any) -> None:
    engine = make(tmp_path, model, [contents(i) for i in range(20)])
    with engine.store.writer() as writer:
        broken = Item("new", [Asset("caption", value="a b"), Asset("rgb", path=str(tmp_path / "gone.png"))])
        embedded = model.embedder.embed([{"caption": model.embedder.read("caption", "a b")}])
        vectors = {name: each.vectors for name, each in embedded.items()}
        tokens = {name: each.tokens for name, each in embedded.items()}
        writer.commit("things", items=[broken], rows=Rows(["new"], ["joint"], vectors, tokens))
    report = check_collection(engine, "things")
    assert report.num_checked == 20
    (tmp_path / "gone.png").write_bytes(b"no picture")
    report = check_collection(engine, "things")
    assert [(failure.id, failure.modality) for failure in report.failures] == [("new", "rgb")]


def test_the_report_is_json_with_a_schema(tmp_path: Path, model: Any) -> None:
    report = check_collection(make(tmp_path, model, swapped(("det", 1, 2))), "things", CheckSettings(top=3))
    told = json.loads(json.dumps(report.to_json()))
    assert told["schema"] == "anyseek.check/1"
    assert set(told["findings"][0]) == {"id", "suspect", "disagreement", "modalities"}
    assert len(check_tables(report)[0][1]) == 3


def test_too_little_to_compare_is_refused(tmp_path: Path, model: Any) -> None:
    engine = make(tmp_path, model, [contents(i) for i in range(5)])
    with pytest.raises(QueryError, match="Too few"):
        check_collection(engine, "things")
    for modalities in (["caption"], ["caption", "depth"]):
        with pytest.raises(QueryError, match="Two modalities"):
            check_collection(engine, "things", CheckSettings(modalities=modalities))
    with pytest.raises(ValueError, match="top"):
        check_collection(engine, "things", CheckSettings(top=0))
