"""Attributes that a model predicts: where they come from, and whom they never overwrite."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from anyseek.errors import CheckpointError, InputError
from anyseek.indexer import FolderSource, Indexer, IndexReport, NewItem, create_router
from anyseek.indexer.predicted import AttributePredictor, check_predictable
from anyseek.search import F, parse_filter
from anyseek.storage import Store
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

Inputs = Mapping[str, np.ndarray]


class Describer:
    """Says of pictures how bright they are; fails on those that a test names."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, tuple[str, ...]]] = []
        self.poison: Callable[[Inputs], Exception | None] = lambda _: None
        self.unreadable: set[str] = set()

    def predict(self, items: Sequence[Inputs], to: Sequence[str], **_: Any) -> list[dict[str, Any]]:
        self.calls.append((len(items), tuple(to)))
        for item in items:
            assert not set(to) & set(item), "a target that is given"
            if error := self.poison(item):
                raise error
        return [{name: self._say(name, item) for name in to} for item in items]

    def _say(self, name: str, item: Inputs) -> Any:
        if name in self.unreadable:
            return SimpleNamespace(value=None, problem="nothing in 3 words can be read")
        brightness = float(item["rgb"].mean()) if "rgb" in item else 0.0
        values = {
            "metadata": {"brightness": brightness, "n_humans": 2},
            "caption": "a bright picture" if brightness > 127 else "a dark picture",
            "color_palette": ["#20324a", "#e0a35a"],
        }
        return SimpleNamespace(value=values[name], problem=None)


@pytest.fixture
def describer() -> Describer:
    return Describer()


@pytest.fixture
def model(make_model: Callable[..., Any], describer: Describer) -> Any:
    model = make_model()
    model.targets = ("caption", "color_palette", "metadata", "depth", "dinov2_global")
    model.predictor = describer
    return model


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "library.anyseek", create=True) as opened:
        yield opened


@pytest.fixture
def greys(tmp_path: Path) -> Path:
    """Pictures 0 to 5, each brighter than the one before."""
    root = tmp_path / "greys"
    root.mkdir()
    for i in range(6):
        Image.fromarray(np.full((9, 9, 3), 40 * i, np.uint8)).save(root / f"{i}.png")
    return root


def indexed(store: Store, model: Any, folder: Path, predict: Sequence[str], **options: Any) -> IndexReport:
    numbers = {"batch_size": 4, "items_per_segment": 4, **options}
    return Indexer(store, model, **numbers).index("photos", FolderSource(folder), predict=predict)


def attributes(store: Store) -> dict[str, Mapping[str, Any]]:
    return {item.id: item.attributes for item in store.catalog.page("photos", limit=100)}


ALL = ("metadata", "palette", "caption")


def test_predictions_become_attributes_marked_as_such(store: Store, model: Any, greys: Path) -> None:
    report = indexed(store, model, greys, ALL)
    assert (report.done, report.failed, list(report.errors)) == (6, 0, [])
    found = attributes(store)
    for i in range(6):
        assert found[str(i)]["predicted.brightness"] == 40.0 * i
        assert found[str(i)]["predicted.n_humans"] == 2
        assert found[str(i)]["predicted.color_palette"] == ["#20324a", "#e0a35a"]
    assert found["5"]["predicted.caption"] == "a bright picture"
    assert report.seconds["predict"] > 0


def test_without_the_wish_nothing_is_predicted(
    store: Store, model: Any, describer: Describer, greys: Path
) -> None:
    report = indexed(store, model, greys, ())
    assert describer.calls == []
    assert report.seconds["predict"] == 0
    assert not any(key.startswith("predicted.") for row in attributes(store).values() for key in row)


def test_they_are_columns_to_filter_by(store: Store, model: Any, greys: Path) -> None:
    indexed(store, model, greys, ALL)
    snapshot = store.snapshot("photos")
    for filter_ in (F["predicted.brightness"] > 100, parse_filter("predicted.brightness > 100")):
        mask = filter_.mask(snapshot.attributes)
        assert {id_ for id_, passes in zip(snapshot.item_ids, mask, strict=True) if passes} == {"3", "4", "5"}
    dark = parse_filter(
        "predicted.caption == 'a dark picture' and predicted.color_palette contains '#20324a'"
    )
    assert dark.mask(snapshot.attributes).sum() == 4


def test_batches_go_through_the_model_together(
    store: Store, model: Any, describer: Describer, greys: Path
) -> None:
    indexed(store, model, greys, ["metadata"])
    assert describer.calls == [(4, ("metadata",)), (2, ("metadata",))]


def test_what_an_item_has_is_not_predicted(
    store: Store, model: Any, describer: Describer, greys: Path
) -> None:
    (greys / "1.caption.txt").write_text("my own words")
    (greys / "2.metadata.json").write_text('{"brightness": 1}')
    indexed(store, model, greys, ALL, batch_size=6, items_per_segment=6)
    found = attributes(store)
    assert "predicted.caption" not in found["1"]
    assert found["1"]["predicted.brightness"] == 40.0
    assert "predicted.brightness" not in found["2"]
    assert sorted(describer.calls) == sorted(
        [
            (4, ("caption", "color_palette", "metadata")),
            (1, ("color_palette", "metadata")),
            (1, ("caption", "color_palette")),
        ]
    )


def test_an_attribute_that_somebody_gave_is_never_overwritten(store: Store, model: Any, greys: Path) -> None:
    (greys / "1.json").write_text(json.dumps({"predicted.brightness": 7.5, "brightness": 3}))
    report = indexed(store, model, greys, ALL)
    row = attributes(store)["1"]
    assert (row["predicted.brightness"], row["brightness"]) == (7.5, 3)
    assert row["predicted.n_humans"] == 2
    assert list(report.errors) == []


def test_an_attribute_of_another_type_is_listed_and_costs_only_itself(
    store: Store, model: Any, greys: Path
) -> None:
    (greys / "0.json").write_text(json.dumps({"predicted.brightness": "very"}))
    report = indexed(store, model, greys, ALL)
    assert report.done == 6
    errors = list(report.errors)
    assert {error.code for error in errors} == {"attributes.type"}
    assert len(errors) == 5
    assert attributes(store)["3"]["predicted.caption"] == "a dark picture"


def test_an_item_that_cannot_be_predicted_is_listed_and_still_found(
    store: Store, model: Any, describer: Describer, greys: Path
) -> None:
    describer.poison = lambda item: MemoryError("out of memory") if item["rgb"].mean() == 80 else None
    report = indexed(store, model, greys, ALL)
    assert (report.done, report.failed) == (6, 0)
    (error,) = report.errors
    assert (Path(error.path).name, error.modality, error.code) == ("2.png", "predicted", "input.unexpected")
    assert "out of memory" in error.message
    found = attributes(store)
    assert not any(key.startswith("predicted.") for key in found["2"])
    assert all("predicted.brightness" in found[id_] for id_ in "01345")
    assert "2" in store.snapshot("photos").item_ids


def test_what_failed_is_tried_again_by_the_next_run(
    store: Store, model: Any, describer: Describer, greys: Path
) -> None:
    describer.poison = lambda item: MemoryError("out of memory") if item["rgb"].mean() == 80 else None
    indexed(store, model, greys, ALL)
    describer.poison = lambda _: None
    report = indexed(store, model, greys, ALL)
    assert (report.done, report.skipped, list(report.errors)) == (1, 5, [])
    assert attributes(store)["2"]["predicted.brightness"] == 80.0
    assert indexed(store, model, greys, ALL).skipped == 6


def test_what_the_model_wrote_badly_is_listed_beside_what_it_wrote_well(
    store: Store, model: Any, describer: Describer, greys: Path
) -> None:
    describer.unreadable = {"caption"}
    report = indexed(store, model, greys, ALL)
    errors = list(report.errors)
    assert len(errors) == 6
    assert {error.code for error in errors} == {"attributes.unreadable"}
    assert "wrote no caption" in errors[0].message
    assert "nothing in 3 words can be read" in errors[0].message
    assert attributes(store)["1"]["predicted.brightness"] == 40.0


def test_weights_that_cannot_be_had_stop_the_job(
    store: Store, model: Any, describer: Describer, greys: Path
) -> None:
    describer.poison = lambda _: CheckpointError("no such file")
    with pytest.raises(CheckpointError, match="no such file"):
        indexed(store, model, greys, ALL)


def test_another_wish_updates_the_items(store: Store, model: Any, describer: Describer, greys: Path) -> None:
    for predict, has in (
        ((), set[str]()),
        (("metadata",), {"predicted.brightness", "predicted.n_humans"}),
        (("metadata", "caption"), {"predicted.brightness", "predicted.n_humans", "predicted.caption"}),
        ((), set[str]()),
    ):
        report = indexed(store, model, greys, predict)
        assert (report.done, report.skipped) == (6, 0)
        for row in attributes(store).values():
            assert {key for key in row if key.startswith("predicted.")} == has
        assert indexed(store, model, greys, predict).skipped == 6
    # However it is spelt and ordered, the same wish is the same.
    indexed(store, model, greys, ("palette", "metadata"))
    count = len(describer.calls)
    assert indexed(store, model, greys, ("metadata", "color-palette", "palette")).skipped == 6
    assert len(describer.calls) == count


def test_a_stopped_job_goes_on_with_the_same_attributes(tmp_path: Path, model: Any, greys: Path) -> None:
    rows: list[Any] = []
    for name, stops in (("whole", []), ("stopped", [1, 1])):
        with Store.open(tmp_path / name, create=True) as store:
            indexer = Indexer(store, model, batch_size=2, items_per_segment=2)
            for _ in stops:
                assert (
                    indexer.index("photos", FolderSource(greys), predict=ALL, should_stop=lambda: True).state
                    == "stopped"
                )
            assert indexer.index("photos", FolderSource(greys), predict=ALL).state == "done"
            rows.append(attributes(store))
    assert rows[0] == rows[1]


def test_items_handed_over_are_described_too(store: Store, model: Any, greys: Path) -> None:
    indexer = Indexer(store, model)
    indexer.add(
        "photos",
        [NewItem("a", {"rgb": greys / "3.png"}), NewItem("b", {"caption": "words"})],
        predict=["metadata"],
    )
    found = attributes(store)
    assert found["a"]["predicted.brightness"] == 120.0
    assert found["b"]["predicted.brightness"] == 0.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["depth"], "No attribute is made of depth; pick from caption, color_palette, metadata"),
        (["metadata", "det", "rgb"], "No attribute is made of det, rgb"),
    ],
)
def test_only_what_says_something_becomes_an_attribute(model: Any, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_predictable(model, words)
    assert caught.value.code == "attributes.predict"


def test_a_model_that_cannot_predict_it_is_named(model: Any) -> None:
    model.targets = ("dinov2_global",)
    with pytest.raises(InputError, match="'stand-in' does not predict caption, only dinov2_global"):
        check_predictable(model, ["caption"])


def test_nobody_s_failure_is_another_s(model: Any, describer: Describer) -> None:
    """Whichever items fail, the others get what they would get alone."""
    random = np.random.default_rng(0)
    items = [{"rgb": random.integers(0, 256, (4, 4, 3), dtype=np.uint8)} for _ in range(11)]
    predictor = AttributePredictor(model, ["metadata"], batch_size=5)
    alone = [predictor.predict([item])[0].attributes for item in items]
    for seed in range(8):
        bad = {i for i in range(11) if np.random.default_rng((seed, i)).random() < 0.3}
        ids = {id(items[i]) for i in bad}
        describer.poison = lambda item, ids=ids: ValueError("bad") if id(item) in ids else None
        for i, found in enumerate(predictor.predict(items)):
            assert (found.error is not None) == (i in bad)
            assert found.attributes == ({} if i in bad else alone[i])


def test_it_is_asked_over_http_too(store: Store, model: Any, greys: Path) -> None:
    indexer = Indexer(store, model)
    app = FastAPI()
    app.include_router(create_router(store, lambda _: indexer, roots=[greys]), prefix="/v1")
    with TestClient(app) as client:
        asked = {"folder": str(greys), "predict": ["metadata", "palette"]}
        assert client.post("/v1/collections/photos/jobs", json=asked).status_code == 202
        for thread in threading.enumerate():
            if thread.name == "anyseek-job":
                thread.join()
        item = {"id": "new", "assets": [{"modality": "caption", "text": "a sky"}]}
        body = {"items": [item], "predict": ["color_palette"]}
        assert client.post("/v1/collections/photos/items", json=body).status_code == 200
        too_many = {"folder": str(greys), "predict": ["caption"] * 33}
        assert client.post("/v1/collections/photos/jobs", json=too_many).status_code == 422
    found = attributes(store)
    assert found["4"]["predicted.brightness"] == 160.0
    assert found["new"]["predicted.color_palette"] == ["#20324a", "#e0a35a"]
    assert "predicted.caption" not in found["4"]
