import base64
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anyseek.indexer import FolderSource, Indexer, create_router
from anyseek.search import SearchEngine, create_app
from anyseek.storage import Store
from fastapi.testclient import TestClient

Pictures = Callable[..., Path]


class Server:
    """An application over a fresh library, with the test's folder as its root."""

    def __init__(self, home: Path, model: Any) -> None:
        self.store = Store.open(home / "library.anyseek", create=True)
        self.model = model
        self.indexer = Indexer(self.store, model, batch_size=2, items_per_segment=4)
        router = create_router(self.store, lambda _: self.indexer, roots=[home / "photos", home / "more"])
        app = create_app(SearchEngine(self.store, lambda _: model), routers=[router])
        self.client = TestClient(app)

    def start(self, **body: Any) -> Any:
        return self.client.post("/v1/collections/c/jobs", json=body)

    def wait(self, job_id: str) -> Any:
        """Wait until a job has ended and give its latest description."""
        for thread in threading.enumerate():
            if thread.name == "anyseek-job":
                thread.join()
        return self.client.get(f"/v1/jobs/{job_id}").json()


@pytest.fixture
def server(tmp_path: Path, model: Any) -> Iterator[Server]:
    made = Server(tmp_path, model)
    with made.client:
        yield made
    made.store.close()


def test_a_folder_is_indexed_in_the_background(server: Server, pictures: Pictures) -> None:
    root = pictures(6)
    (root / "0001.png").write_text("broken")
    answer = server.start(folder=str(root), prefix="p")
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert job["collection"] == "c"
    job = server.wait(job["id"])
    assert (job["state"], job["num_items"], job["num_errors"], job["failure"]) == ("done", 5, 1, None)
    assert job["progress"]["done"] == 5
    errors = server.client.get(f"/v1/jobs/{job['id']}/errors").json()
    assert [Path(error["path"]).name for error in errors["errors"]] == ["0001.png"]
    assert errors["next"] is None
    assert server.client.get("/v1/collections/c/items").json()["items"][0]["id"] == "p/0000"
    assert [job["id"] for job in server.client.get("/v1/jobs?collection=c").json()["jobs"]] == [job["id"]]


def test_errors_come_in_pages(server: Server, pictures: Pictures) -> None:
    root = pictures(0, skip=[])
    root.mkdir()
    for i in range(5):
        (root / f"{i}.png").write_text("broken")
    job = server.wait(server.start(folder=str(root)).json()["id"])
    pages, offset = [], 0
    while offset is not None:
        page = server.client.get(f"/v1/jobs/{job['id']}/errors?offset={offset}&limit=2").json()
        pages.append(len(page["errors"]))
        offset = page["next"]
    assert pages == [2, 2, 1]


@pytest.mark.parametrize(
    "folder", ["photos/../..", "..", "/", "/etc", "nowhere", "a\0b", "x" * 4000, "escape"]
)
def test_only_folders_inside_the_roots_are_indexed(
    server: Server, pictures: Pictures, tmp_path: Path, folder: str
) -> None:
    pictures(1)
    (tmp_path / "photos/escape").symlink_to("/etc")
    answer = server.start(folder=folder)
    assert answer.status_code == 422
    assert answer.json()["code"] == "job.folder"
    assert server.store.collections() == []


def test_relative_folders_lie_in_a_root(
    server: Server, pictures: Pictures, picture: Any, tmp_path: Path
) -> None:
    pictures(1)
    picture(tmp_path / "more/sub/a.png")
    assert server.wait(server.start(folder="sub").json()["id"])["num_items"] == 1


def test_a_server_without_roots_indexes_no_folder(server: Server, pictures: Pictures) -> None:
    router = create_router(server.store, lambda _: server.indexer)
    client = TestClient(create_app(SearchEngine(server.store, lambda _: server.model), routers=[router]))
    assert client.post("/v1/collections/c/jobs", json={"folder": str(pictures(1))}).status_code == 422


@pytest.mark.parametrize(
    "body",
    [{}, {"folder": ""}, {"folder": 3}, {"folder": "x", "layout": "flat"}, {"folder": "x", "extra": 1}],
)
def test_a_job_that_makes_no_sense_is_refused(server: Server, body: dict[str, Any]) -> None:
    assert server.start(**body).status_code == 422


def hold(server: Server) -> threading.Event:
    """Make the model wait, so that a job is caught at work."""
    real, go = server.model.embedder.embed, threading.Event()

    def embed(items: Any, **options: Any) -> Any:
        assert go.wait(60)
        return real(items, **options)

    server.model.embedder.embed = embed
    return go


def test_one_job_at_a_time(server: Server, pictures: Pictures) -> None:
    root, go = pictures(6), hold(server)
    job = server.start(folder=str(root)).json()
    second = server.start(folder=str(root))
    assert second.status_code == 409
    assert second.json()["code"] == "job.busy"
    assert job["id"] in second.json()["detail"]
    assert server.client.get(f"/v1/jobs/{job['id']}").json()["state"] == "running"
    go.set()
    assert server.wait(job["id"])["state"] == "done"
    assert server.wait(server.start(folder=str(root)).json()["id"])["state"] == "done"


def test_a_cancelled_job_ends_after_its_shard_for_good(server: Server, pictures: Pictures) -> None:
    root, go = pictures(20), hold(server)
    job = server.start(folder=str(root)).json()
    assert server.client.post(f"/v1/jobs/{job['id']}:cancel").status_code == 202
    go.set()
    ended = server.wait(job["id"])
    assert (ended["state"], ended["num_items"]) == ("cancelled", 4)
    again = server.client.post(f"/v1/jobs/{job['id']}:cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job.ended")
    restarted = server.wait(server.start(folder=str(root)).json()["id"])
    assert restarted["id"] != job["id"]
    assert (restarted["state"], restarted["num_items"]) == ("done", 16)


def test_a_job_left_by_a_dead_process_is_taken_up_or_cancelled(server: Server, pictures: Pictures) -> None:
    source = FolderSource(pictures(12))
    left = server.indexer.index("c", source, should_stop=lambda: True).job_id
    assert server.wait(server.start(folder=str(source.root)).json()["id"])["id"] == left
    other = server.indexer.index("d", source, should_stop=lambda: True).job_id
    assert server.client.post(f"/v1/jobs/{other}:cancel").json()["state"] == "cancelled"


def test_a_job_whose_folder_changed_keeps_its_address(
    server: Server, pictures: Pictures, picture: Callable[..., Path]
) -> None:
    root = pictures(8)
    left = server.indexer.index("c", FolderSource(root), should_stop=lambda: True).job_id
    picture(root / "new.png", seed=50)
    asked = server.start(folder=str(root)).json()["id"]
    ended = server.wait(asked)
    assert asked == left
    assert ended["id"] != left
    assert ended["state"] == "done"
    assert server.client.get(f"/v1/jobs/{asked}/errors").status_code == 200


def test_why_a_job_failed_is_told(server: Server, pictures: Pictures) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("device lost")

    server.model.embedder.embed = fail
    job = server.wait(server.start(folder=str(pictures(70))).json()["id"])
    assert job["state"] == "failed"
    assert job["failure"]["code"] == "model.failing"
    assert "device lost" in job["failure"]["message"]


def test_what_keeps_a_job_from_starting_is_the_answer(server: Server, pictures: Pictures) -> None:
    root = pictures(1)
    with Store.open(server.store.path) as other, other.writer():
        answer = server.start(folder=str(root))
    assert (answer.status_code, answer.json()["code"]) == (409, "storage.writer_busy")
    assert server.start(folder=str(root)).status_code == 202
    server.wait("-")


def test_an_unknown_job_is_not_found(server: Server) -> None:
    for call in (server.client.get("/v1/jobs/x"), server.client.post("/v1/jobs/x:cancel")):
        assert (call.status_code, call.headers["content-type"]) == (404, "application/problem+json")


def add(server: Server, *items: Any) -> Any:
    return server.client.post("/v1/collections/c/items", json={"items": list(items)})


def caption(id_: str, text: str = "a ball") -> dict[str, Any]:
    return {"id": id_, "assets": [{"modality": "caption", "text": text}]}


def test_items_are_added_and_removed(server: Server, pictures: Pictures) -> None:
    content = (pictures(1) / "0000.png").read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    item = {
        "id": "a/b",
        "assets": [
            {"modality": "rgb", "data": uri},
            {"modality": "caption", "text": "a harbour"},
            {"modality": "color_palette", "values": ["#ff0000"]},
        ],
        "attributes": {"year": 2024},
    }
    answer = add(server, item, caption("c"))
    assert answer.json() == {"ids": ["a/b", "c"], "failed": [], "errors": []}
    kept = server.client.get("/v1/collections/c/items/a%2Fb").json()
    assert kept["attributes"]["year"] == 2024
    assert server.client.get("/v1/collections/c/items/a%2Fb/media/rgb").content == content
    assert server.client.delete("/v1/collections/c/items/a%2Fb").status_code == 204
    assert server.client.delete("/v1/collections/c/items/a/b").status_code == 404
    assert server.client.get("/v1/collections/c").json()["num_items"] == 1


def test_files_are_uploaded_beside_the_json(server: Server, pictures: Pictures) -> None:
    content = (pictures(1) / "0000.png").read_bytes()
    request = {"items": [{"id": "x", "assets": [{"modality": "rgb", "upload": "picture"}]}]}
    files = {"request": (None, json.dumps(request)), "picture": ("../../evil.png", content)}
    answer = server.client.post("/v1/collections/c/items", files=files)
    assert answer.json()["ids"] == ["x"]
    assert server.client.get("/v1/collections/c/items/x/media/rgb").content == content


def test_what_cannot_be_used_is_told_and_the_rest_kept(server: Server) -> None:
    broken = {"id": "b", "assets": [{"modality": "rgb", "data": "data:;base64,AAAA"}]}
    answer = add(server, caption("a"), broken)
    assert (answer.status_code, answer.json()["ids"], answer.json()["failed"]) == (200, ["a"], ["b"])
    assert answer.json()["errors"][0]["path"] == "b"
    only = add(server, broken)
    assert (only.status_code, only.json()["code"]) == (422, "item.unusable")


@pytest.mark.parametrize(
    "asset",
    [
        {"modality": "caption"},
        {"modality": "caption", "text": "x", "values": ["y"]},
        {"modality": "rgb", "data": "/etc/passwd"},
        {"modality": "rgb", "data": "http://localhost/x.png"},
        {"modality": "rgb", "data": "data:image/png;base64,§§§"},
        {"modality": "rgb", "upload": "none"},
        {"modality": "rgb", "path": "/etc/passwd"},
        {"modality": "", "text": "x"},
    ],
)
def test_content_is_said_in_one_way_and_never_by_path(server: Server, asset: dict[str, Any]) -> None:
    answer = add(server, {"id": "a", "assets": [asset]})
    assert answer.status_code == 422
    assert server.store.collections() == []


def test_a_text_is_never_taken_for_a_path(server: Server, pictures: Pictures) -> None:
    path = pictures(1) / "0000.png"
    for modality in ("rgb", "det", "metadata"):
        answer = add(server, {"id": "a", "assets": [{"modality": modality, "text": str(path)}]})
        if answer.status_code == 200:  # the stand-in reads any text; it keeps the text, not the file
            (item,) = server.store.catalog.items("c", ["a"])
            assert [(asset.value, asset.path) for asset in item.assets] == [(str(path), None)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b'{"items": []}', 422),
        (b'{"items": [' * 10_000, 422),
        (b'{"items": [{"id": "a\\u0000", "assets": [{"modality": "caption", "text": "x"}]}]}', 422),
        (b'{"items": [{"id": "\\ud800", "assets": [{"modality": "caption", "text": "x"}]}]}', 422),
    ],
)
def test_bodies_that_make_no_sense_are_refused(server: Server, body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    assert server.client.post("/v1/collections/c/items", content=body, headers=headers).status_code == status


def test_the_same_modality_or_id_twice_is_refused(server: Server) -> None:
    twice = {"id": "a", "assets": [{"modality": "caption", "text": text} for text in "xy"]}
    assert add(server, twice).status_code == 422
    assert add(server, caption("a"), caption("a")).status_code == 422


def test_the_description_of_the_api_holds_the_routes(server: Server) -> None:
    described = server.client.get("/openapi.json").json()
    assert "/v1/collections/{collection}/jobs" in described["paths"]
    body = described["paths"]["/v1/collections/{collection}/items"]["post"]["requestBody"]
    assert "$ref" not in json.dumps(body)
    example = body["content"]["application/json"]["example"]
    assert server.client.post("/v1/collections/c/items", json=example).status_code == 200


def test_collections_are_created_once_and_deleted(server: Server, pictures: Pictures) -> None:
    made = server.client.put("/v1/collections/c", json={"views": ["rgb", "joint"]})
    assert made.status_code == 200, made.text
    assert made.json()["views"] == ["rgb", "joint"]
    assert made.json()["num_items"] == 0
    root = pictures(3)
    server.wait(server.start(folder=str(root)).json()["id"])
    again = server.client.put("/v1/collections/c", json={"views": ["rgb", "joint"]})
    assert (again.status_code, again.json()["num_items"]) == (200, 3)
    assert server.client.put("/v1/collections/c", json={}).json()["views"] == ["rgb", "joint"]
    assert server.client.put("/v1/collections/c", json={"views": ["joint"]}).status_code == 409
    unknown = server.client.put("/v1/collections/d", json={"views": ["smell"]})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "view.unknown")
    assert server.client.delete("/v1/collections/c").status_code == 204
    assert server.client.get("/v1/collections/c").status_code == 404
    assert server.client.delete("/v1/collections/c").status_code == 404
    assert (root / "0000.png").is_file()
