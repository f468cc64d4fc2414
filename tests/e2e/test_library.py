"""The Python facade: open, index, search, mount."""

import json
import shutil
from pathlib import Path

import anyseek
import pytest
from anyseek import RGB, Caption, F
from anyseek.errors import NotFoundError
from fastapi import FastAPI
from fastapi.testclient import TestClient


def test_public_names_exist() -> None:
    for name in anyseek.__all__:
        assert getattr(anyseek, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = anyseek.nothing_such


def test_one_library_from_python_and_over_http(scenes: Path, tmp_path: Path) -> None:
    with anyseek.open(tmp_path / "x.anyseek") as library:
        assert (len(library), "photos" in library) == (0, False)
        report = library.index(scenes, to="photos")
        assert (report.done, list(library), len(library["photos"])) == (24, ["photos"], 24)
        query = RGB(scenes / "0007.png") - 0.3 * Caption("night")
        hits = library["photos"].search(query, where=F.num_objects >= 1, limit=5)

        host = FastAPI()
        host.mount("/images", library.app())
        client = TestClient(host)
        with (scenes / "0007.png").open("rb") as picture:
            told = client.post(
                "/images/v1/collections/photos/search",
                files={"a": picture},
                data={
                    "request": '{"parts": [{"modality": "rgb", "upload": "a"},'
                    '{"modality": "caption", "text": "night", "weight": -0.3}],'
                    '"where": "num_objects >= 1", "limit": 5}'
                },
            )
        assert told.status_code == 200, told.text
        assert [hit["id"] for hit in told.json()["hits"]] == [hit.id for hit in hits]
        assert [hit["score"] for hit in told.json()["hits"]] == pytest.approx(
            [hit.score for hit in hits], abs=1e-4
        )


def test_a_missing_library_is_made_only_when_asked(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="none"):
        anyseek.open(tmp_path / "none.anyseek", create=False)
    assert not (tmp_path / "none.anyseek").exists()


def test_items_can_be_sent_and_found_in_a_new_collection(scenes: Path, tmp_path: Path) -> None:
    with anyseek.open(tmp_path / "x.anyseek") as library:
        client = TestClient(library.app())
        assets = [{"modality": "rgb", "upload": "f"}, {"modality": "caption", "text": "a cube"}]
        body = json.dumps({"items": [{"id": "a/b", "assets": assets}]})
        with (scenes / "0001.png").open("rb") as picture:
            added = client.post("/v1/collections/new/items", files={"f": picture}, data={"request": body})
        assert added.status_code == 200, added.text
        found = client.post(
            "/v1/collections/new/search", json={"parts": [{"modality": "caption", "text": "a cube"}]}
        )
        assert [hit["id"] for hit in found.json()["hits"]] == ["a/b"]
        assert (
            client.get("/v1/collections/new/items/a%2Fb/media/rgb").content
            == (scenes / "0001.png").read_bytes()
        )


def test_a_collection_of_a_folder_s_model_is_searched_by_another_process(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(Path(anyseek.__file__).parent / "model" / "weights" / "scenes", bundle)
    monkeypatch.chdir(tmp_path)
    with anyseek.open("x.anyseek") as library:
        library.index(scenes, to="photos", model="bundle")
    monkeypatch.chdir("/")
    with anyseek.open(tmp_path / "x.anyseek") as library:
        hits = library["photos"].search(RGB(scenes / "0004.png"), limit=3)
    assert "0004" in [hit.id for hit in hits]
