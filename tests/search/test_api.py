"""The HTTP application: what it promises to those who ask rightly, and to those who do not."""

import asyncio
import base64
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from anyseek.errors import ConflictError, CorruptError, StorageError
from anyseek.search import Caption, SearchEngine, create_app, schemas
from anyseek.search.examples import SEARCHES
from fastapi import APIRouter, FastAPI, UploadFile
from fastapi.testclient import TestClient
from PIL import Image

SEARCH = "/v1/collections/photos/search"


@pytest.fixture
def app(engine: SearchEngine) -> FastAPI:
    return create_app(engine, max_body_bytes=200_000)


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)  # no `with`: the lifespan never runs


def caption(text: str = "red ball", **more: Any) -> dict[str, Any]:
    return {"parts": [{"modality": "caption", "text": text}], **more}


def assert_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = schemas.ProblemOut.model_validate(answer.json(), strict=True)
    assert body.status == status
    assert body.code == code
    assert body.request_id == answer.headers["x-request-id"]
    assert body.detail
    return answer.json()


def test_a_search_answers_what_the_engine_answers(client: TestClient, engine: SearchEngine) -> None:
    answer = client.post(SEARCH, json=caption(limit=7, where="year >= 2022", explain=True))
    assert answer.status_code == 200
    body = answer.json()
    schemas.SearchAnswer.model_validate(body, strict=True)
    from anyseek.search import F

    hits = engine.search("photos", Caption("red ball"), limit=7, where=F.year >= 2022, explain=True)
    assert body["hits"] == json.loads(json.dumps(hits.as_dict()["hits"]))
    assert body["generation"] == hits.generation
    assert body["plan"]["filter"] == "year >= 2022"
    assert "embed;dur=" in answer.headers["server-timing"]
    assert "total;dur=" in answer.headers["server-timing"]


def test_all_example_requests_are_valid(client: TestClient, app: FastAPI) -> None:
    """They parse; what they ask of this small library is answered, or refused as documented."""
    spec = app.openapi()
    examples = spec["paths"]["/v1/collections/{collection}/search"]["post"]["requestBody"]["content"]
    assert examples["application/json"]["examples"].keys() == SEARCHES.keys()
    statuses = {}
    for name, example in examples["application/json"]["examples"].items():
        answer = client.post(SEARCH, json=example["value"])
        statuses[name] = answer.status_code
        if answer.status_code != 200:
            assert answer.json()["code"] in ("storage.not_found", "filter.unknown_key"), name
    assert {name for name, status in statuses.items() if status == 200} == {
        "caption",
        "mix",
        "picture",
        "boxes",
    }


def test_every_route_has_an_example_and_a_problem(app: FastAPI) -> None:
    for path, methods in app.openapi()["paths"].items():
        for operation in methods.values():
            content = operation["responses"]["200"]["content"]
            assert any("example" in kind for kind in content.values()), path
            assert "ProblemOut" in json.dumps(operation["responses"]["default"]), path


def test_examples_of_answers_match_their_models(app: FastAPI) -> None:
    found = 0
    for path, methods in app.openapi()["paths"].items():
        for operation in methods.values():
            content = operation["responses"]["200"]["content"].get("application/json", {})
            ref = content.get("schema", {}).get("$ref")
            if ref:
                found += 1
                getattr(schemas, ref.rpartition("/")[2]).model_validate(content["example"]), path
    assert found >= 7


def test_all_references_of_the_description_lead_somewhere(app: FastAPI) -> None:
    spec = app.openapi()
    text = json.dumps(spec)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in spec["components"]["schemas"]


def test_uploads_come_by_multipart(client: TestClient, png: bytes) -> None:
    request = {"parts": [{"modality": "rgb", "upload": "my photo"}], "limit": 3, "scoring": "cosine"}
    sent = client.post(SEARCH, data={"request": json.dumps(request)}, files={"my photo": ("x.png", png)})
    request["parts"] = [
        {"modality": "rgb", "data": "data:image/png;base64," + base64.b64encode(png).decode()}
    ]
    inline = client.post(SEARCH, json=request)
    assert sent.status_code == inline.status_code == 200
    assert sent.json()["hits"] == inline.json()["hits"]


@pytest.mark.parametrize(
    ("send", "status", "code"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "request.json"),
        ({"content": b"", "headers": {"content-type": "application/json"}}, 400, "request.json"),
        ({"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}, 400, "request.json"),
        ({"content": b"[" * 90_000, "headers": {"content-type": "application/json"}}, 400, "request.json"),
        (
            {"content": b'{"a":' * 30_000, "headers": {"content-type": "application/json"}},
            400,
            "request.json",
        ),
        ({"content": b"null", "headers": {"content-type": "application/json"}}, 422, "request.invalid"),
        (
            {"content": b'{"parts": []}', "headers": {"content-type": "text/plain"}},
            415,
            "request.content_type",
        ),
        ({"content": b'{"parts": []}'}, 415, "request.content_type"),
        ({"data": {"parts": "x"}}, 415, "request.content_type"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "request.invalid"),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}},
            400,
            "request.invalid",
        ),
        ({"files": {"photo": b"x"}}, 400, "request.invalid"),
        ({"files": [("request", b"{}"), ("request", b"{}")]}, 400, "request.invalid"),
        ({"files": [(f"f{i}", b"x") for i in range(40)]}, 400, "request.invalid"),
        ({"files": {"request": b"{]"}}, 400, "request.json"),
        ({"files": {"request": b'{"parts":[{"modality":"rgb","upload":"p"}]}'}}, 422, "query.content"),
        ({"json": {}}, 422, "request.invalid"),
        ({"json": caption(limit=10**12)}, 422, "request.invalid"),
        ({"json": caption(limit=9_000, offset=9_000)}, 422, "query.page"),
        ({"json": caption(weight=1)}, 422, "request.invalid"),
        ({"json": {"parts": [{"modality": "rgb", "data": "/etc/passwd"}]}}, 422, "query.content"),
        ({"json": {"parts": [{"modality": "rgb", "data": "https://x.example/a.png"}]}}, 422, "query.content"),
        ({"json": {"parts": [{"modality": "rgb", "text": "/etc/passwd"}]}}, 422, "query.content"),
        ({"json": {"parts": [{"modality": "rgb", "data": "data:;base64,AAAA"}]}}, 422, "input.invalid"),
        ({"json": {"parts": [{"modality": "smell", "values": [1]}]}}, 422, "query.modality"),
        ({"json": {"parts": [{"modality": "caption", "text": "a", "weight": -1}]}}, 422, "query.weight"),
        ({"json": {"parts": [{"modality": "item", "id": "../../etc/passwd"}]}}, 404, "storage.not_found"),
        ({"json": caption(where="yaer = 3")}, 422, "filter.unknown_key"),
        ({"json": caption(where="year = abc")}, 422, "filter.type"),
        ({"json": caption(where="year >")}, 422, "filter.syntax"),
        ({"json": caption(where={"must": [{"key": "year"}]})}, 422, "filter.syntax"),
        ({"json": caption(view="depth")}, 422, "query.view"),
        ({"json": caption(spaces={"clip": 1})}, 422, "query.space"),
    ],
)
def test_every_wrong_search_is_a_problem(client: TestClient, send: Any, status: int, code: str) -> None:
    assert_problem(client.post(SEARCH, **send), status, code)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "body",
    [
        '{"parts": [{"modality": "caption", "text": "a", "weight": %s}]}',
        '{"parts": [{"modality": "metadata", "values": {"brightness": %s}}]}',
        '{"parts": [{"modality": "caption", "text": "a"}], "where": {"key": "score", "match": %s}}',
        '{"parts": [{"modality": "caption", "text": "a"}], "spaces": {"dinov2_global": %s}}',
    ],
)
def test_numbers_that_are_not_finite_are_refused(client: TestClient, number: str, body: str) -> None:
    answer = client.post(SEARCH, content=body % number, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert_problem(answer, answer.status_code, answer.json()["code"])


def test_validation_errors_point_into_the_request(client: TestClient) -> None:
    wrong = {"parts": [{"modality": "caption", "text": "a"}, {"modality": "caption", "text": 3, "b/~": 1}]}
    body = assert_problem(client.post(SEARCH, json=wrong), 422, "request.invalid")
    assert {fault["pointer"] for fault in body["errors"]} == {"/parts/1/text", "/parts/1/b~1~0"}
    wrong = caption(where="year >")
    assert (
        assert_problem(client.post(SEARCH, json=wrong), 422, "filter.syntax")["errors"][0]["pointer"]
        == "/where"
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "request.no_route"),
        ("GET", "/v1/nowhere", 404, "request.no_route"),
        ("GET", SEARCH, 405, "request.method"),
        ("POST", "/v1/collections/birds/search", 404, "storage.not_found"),
        ("GET", "/v1/collections/birds", 404, "storage.not_found"),
        ("GET", "/v1/collections/birds/items", 404, "storage.not_found"),
        ("GET", "/v1/collections/photos/items?limit=0", 422, "request.invalid"),
        ("GET", "/v1/collections/photos/items?limit=x", 422, "request.invalid"),
        ("GET", "/v1/collections/photos/items/nobody", 404, "item.not_found"),
        ("GET", "/v1/collections/photos/items/", 404, "item.not_found"),
        ("GET", "/v1/collections/photos/items/%00", 404, "item.not_found"),
        ("GET", "/v1/collections/photos/items/..%2F..%2Fetc%2Fpasswd", 404, "item.not_found"),
        ("GET", "/v1/collections/photos/items/%2Fetc%2Fpasswd/media/rgb", 404, "item.not_found"),
        ("GET", "/v1/collections/photos/items/..%2F..%2Fcatalog.db/thumbnail", 404, "item.not_found"),
        ("GET", "/v1/collections/..%2F..%2Fetc/items/x", 404, None),
        ("GET", "/v1/collections/" + "x" * 300, 422, "request.invalid"),
    ],
)
def test_every_wrong_address_is_a_problem(
    client: TestClient, method: str, path: str, status: int, code: str | None
) -> None:
    answer = client.request(method, path, json=caption() if method == "POST" else None)
    assert_problem(answer, status, code or answer.json()["code"])


def test_bodies_that_say_their_size_are_refused_unread(client: TestClient) -> None:
    headers = {"content-type": "application/json", "content-length": "1000000"}
    assert_problem(client.post(SEARCH, content=b"x" * 300_000, headers=headers), 413, "request.too_large")


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        (b"application/json", b""),
        (
            b"multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n',
        ),
    ],
)
def test_a_streamed_body_is_read_no_further_than_the_limit(app: FastAPI, kind: bytes, start: bytes) -> None:
    """Straight ASGI: a client that never says its size, and would send for ever."""
    read = 0
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        body = (start if read == 1 else b"") + b"x" * 50_000
        return {"type": "http.request", "body": body, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": SEARCH,
        "raw_path": SEARCH.encode(),
        "query_string": b"",
        "headers": [(b"content-type", kind)],
    }
    asyncio.run(app(scope, receive, send))
    assert read <= 6
    assert [message.get("status") for message in sent] == [413, None]


def test_request_ids_are_kept_if_harmless_and_made_otherwise(client: TestClient) -> None:
    assert client.get("/healthz", headers={"x-request-id": "abc-1.2"}).headers["x-request-id"] == "abc-1.2"
    for hostile in ("a b", "x" * 500, "<script>", ""):
        made = client.get("/healthz", headers={"x-request-id": hostile}).headers["x-request-id"]
        assert made != hostile
        assert len(made) == 32


def test_an_unexpected_failure_is_a_problem_that_tells_nothing(
    client: TestClient, engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret at /home/me")

    monkeypatch.setattr(engine, "search", fail)
    body = assert_problem(client.post(SEARCH, json=caption()), 500, "error")
    assert "secret" not in json.dumps(body)


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConflictError("taken"), 409), (CorruptError("broken"), 500), (StorageError("full"), 500)],
)
def test_errors_of_other_rooms_have_a_status(
    client: TestClient, engine: SearchEngine, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(engine, "search", fail)
    assert_problem(client.post(SEARCH, json=caption()), status, error.code)  # type: ignore[attr-defined]


def test_collections_models_and_modalities_are_described(client: TestClient) -> None:
    (collection,) = schemas.CollectionsOut.model_validate(client.get("/v1/collections").json()).collections
    assert collection.num_items == 60
    assert collection.attributes["year"] == "int"
    assert (
        client.get("/v1/collections/photos").json() == client.get("/v1/collections").json()["collections"][0]
    )
    (model,) = schemas.ModelsOut.model_validate(client.get("/v1/models").json()).models
    assert model.license == "none needed"
    modalities = {m["name"]: m for m in client.get("/v1/modalities").json()["modalities"]}
    assert modalities["caption"]["models"] == ["fake"]
    assert modalities["caption"]["content"] == ["text", "data", "upload"]
    assert modalities["normal"]["models"] == []


def test_items_are_listed_page_by_page(client: TestClient, library: Any) -> None:
    found: list[str] = []
    after = ""
    while after is not None:
        page = client.get("/v1/collections/photos/items", params={"after": after, "limit": 20}).json()
        found += [item["id"] for item in page["items"]]
        after = page["next"]
    assert found == sorted(library.items)


def test_an_item_is_found_with_its_slashes_encoded_or_not(client: TestClient, library: Any) -> None:
    item_id = next(iter(library.items))
    assert "/" in item_id
    assert " " in item_id
    for written in (quote(item_id), quote(item_id, safe="")):
        body = client.get(f"/v1/collections/photos/items/{written}").json()
        assert body["id"] == item_id
        schemas.ItemOut.model_validate(body)


def test_ids_that_look_like_routes_are_reached_encoded(
    tmp_path: Any, make_library: Callable[..., Any], model: Any
) -> None:
    from anyseek.storage import Asset, Item, Rows

    made = make_library(tmp_path, 2, fresh=1)
    ids = ["a/thumbnail", "a", "a/media/caption", "b?c#d% e", "ü/x y"]
    embedded = model.embedder.embed([{"caption": model.embedder.read("caption", "twin")}] * len(ids))
    with made.store.writer() as writer:
        writer.commit(
            "photos",
            items=[Item(i, [Asset("caption", value=f"words of {i}")]) for i in ids],
            rows=Rows(
                ids,
                ["joint"] * len(ids),
                {n: s.vectors for n, s in embedded.items()},
                {n: s.tokens for n, s in embedded.items()},
            ),
        )
    with made.store:
        client = TestClient(create_app(SearchEngine(made.store, model)))
        for item_id in ids:
            base = f"/v1/collections/photos/items/{quote(item_id, safe='')}"
            assert client.get(base).json()["id"] == item_id
            assert client.get(f"{base}/media/caption").text == f"words of {item_id}"
            assert client.get(f"{base}/thumbnail").json()["code"] == "media.missing"
        assert client.get("/v1/collections/photos/items/a/media/caption").text == "words of a"


def item_with(library: Any, modality: str) -> tuple[str, Any]:
    return next(
        (quote(i, safe=""), asset)
        for i, item in library.items.items()
        for asset in item.assets
        if asset.modality == modality
    )


def test_media_is_the_file_as_it_was_indexed(client: TestClient, library: Any) -> None:
    item_id, asset = item_with(library, "rgb")
    answer = client.get(f"/v1/collections/photos/items/{item_id}/media/rgb")
    with open(asset.path, "rb") as file:  # noqa: PTH123
        assert answer.content == file.read()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    again = client.get(
        f"/v1/collections/photos/items/{item_id}/media/rgb", headers={"if-none-match": answer.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    missing = client.get(f"/v1/collections/photos/items/{item_id}/media/depth")
    assert "rgb, caption" in assert_problem(missing, 404, "media.missing")["detail"]


def test_media_of_the_library_and_values_are_served(client: TestClient, library: Any) -> None:
    item_id, asset = item_with(library, "depth")
    answer = client.get(f"/v1/collections/photos/items/{item_id}/media/depth")
    assert answer.content == library.store.assets.read(asset.sha256)
    words = client.get(f"/v1/collections/photos/items/{item_id}/media/caption")
    assert words.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("modality", ["rgb", "depth"])
@pytest.mark.parametrize(("accept", "kind"), [("image/webp,*/*", "WEBP"), ("image/png", "JPEG")])
def test_thumbnails_fit_and_are_cached(
    client: TestClient, library: Any, modality: str, accept: str, kind: str
) -> None:
    item_id, _ = item_with(library, modality)
    url = f"/v1/collections/photos/items/{item_id}/thumbnail"
    answer = client.get(url, params={"size": 16}, headers={"accept": accept})
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == kind
        assert max(image.size) == 16
        if modality == "depth":  # stretched to its own range
            assert np.asarray(image).min() < 60
            assert np.asarray(image).max() > 190
    assert answer.headers["vary"] == "Accept"
    headers = {"accept": accept, "if-none-match": f'"x", {answer.headers["etag"]}'}
    assert client.get(url, params={"size": 16}, headers=headers).status_code == 304
    assert client.get(url, params={"size": 17}, headers=headers).status_code == 200
    assert_problem(client.get(url, params={"size": 100_000}), 422, "request.invalid")


def test_files_that_vanished_or_broke_are_problems(
    tmp_path: Any, make_library: Callable[..., Any], model: Any
) -> None:
    made = make_library(tmp_path, 12, fresh=3)
    with made.store:
        client = TestClient(create_app(SearchEngine(made.store, model)))
        item_id, asset = item_with(made, "rgb")
        base = f"/v1/collections/photos/items/{item_id}"
        with open(asset.path, "wb") as file:  # noqa: PTH123
            file.write(b"\x89PNG\r\n\x1a\n and nothing more")
        assert_problem(client.get(f"{base}/thumbnail"), 422, "input.invalid")
        for path in made.folder.glob("*.png"):
            path.unlink()
        assert_problem(client.get(f"{base}/thumbnail"), 404, "media.missing")
        assert_problem(client.get(f"{base}/media/rgb"), 404, "media.missing")
        assert client.get(base).status_code == 200
        assert client.post(SEARCH, json=caption()).status_code == 200


def test_health_tells_process_and_readiness_apart(client: TestClient, library: Any) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["models"] == ["fake"]

    def no_model(name: str) -> Any:
        from anyseek.errors import CheckpointError

        raise CheckpointError(f"{name}: the file is damaged.")

    unready = TestClient(create_app(SearchEngine(library.store, no_model)))
    assert unready.get("/healthz").status_code == 200
    assert_problem(unready.get("/readyz"), 503, "model.checkpoint")


def test_a_key_is_asked_for_under_v1_only(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine, api_key="s3cret"))
    for path in ("/", "/healthz", "/readyz", "/openapi.json"):
        assert client.get(path).status_code == 200
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic s3cret"},
        {"authorization": "s3cret"},
    ):
        answer = client.get("/v1/collections", headers=headers)
        assert_problem(answer, 401, "request.key")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/collections", headers={"authorization": "bearer s3cret"}).status_code == 200
    assert_problem(client.post(SEARCH, content=b"x" * 10**6), 401, "request.key")


def test_a_form_from_another_site_is_refused_unless_it_has_the_key(engine: SearchEngine) -> None:
    files = {"request": json.dumps(caption()).encode()}
    foreign = {"sec-fetch-site": "cross-site"}
    client = TestClient(create_app(engine))
    assert_problem(client.post(SEARCH, files=files, headers=foreign), 403, "request.cross_site")
    assert client.post(SEARCH, files=files, headers={"sec-fetch-site": "same-origin"}).status_code == 200
    assert client.post(SEARCH, json=caption(), headers=foreign).status_code == 200
    assert client.get("/", headers=foreign).status_code == 200
    keyed = TestClient(create_app(engine, api_key="k"))
    assert keyed.post(SEARCH, files=files, headers=foreign | {"authorization": "Bearer k"}).status_code == 200


def test_routers_of_other_rooms_share_prefix_key_and_problems(engine: SearchEngine) -> None:
    router = APIRouter()

    @router.post("/collections/{collection}/jobs")
    def start(collection: str, file: UploadFile) -> dict[str, str]:
        raise ConflictError(f"{collection} is busy, no place for {file.filename}.")

    client = TestClient(create_app(engine, routers=[router], api_key="k", max_body_bytes=1000))
    url, headers = "/v1/collections/photos/jobs", {"authorization": "Bearer k"}
    assert_problem(client.post(url, files={"file": b"x"}), 401, "request.key")
    assert_problem(client.post(url, files={"file": b"x"}, headers=headers), 409, "storage.conflict")
    assert_problem(client.post(url, headers=headers), 422, "request.invalid")
    assert_problem(client.post(url, files={"file": b"x" * 2000}, headers=headers), 413, "request.too_large")


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "//" not in answer.text.replace("// ", "")
    assert "innerHTML" not in answer.text
    assert answer.text.count("<script>") == 1


def test_it_works_mounted_in_an_application_whose_lifespan_is_its_own(engine: SearchEngine) -> None:
    parent = FastAPI()
    parent.mount("/images", create_app(engine, api_key="k"))
    client = TestClient(parent)
    headers = {"authorization": "Bearer k"}
    assert client.get("/images/").status_code == 200
    assert client.get("/images/healthz").json() == {"status": "ok"}
    assert_problem(client.get("/images/v1/collections"), 401, "request.key")
    assert_problem(client.get("/images/v1/nowhere", headers=headers), 404, "request.no_route")
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(
            lambda i: client.post(f"/images{SEARCH}", json=caption(f"number{i}", limit=1), headers=headers),
            range(24),
        )
        for i, answer in enumerate(answers):
            assert answer.status_code == 200
            expected = engine.search("photos", Caption(f"number{i}"), limit=1)
            assert answer.json()["hits"][0]["id"] == expected[0].id


def test_a_crowd_of_requests_shares_forward_passes(engine: SearchEngine, model: Any) -> None:
    client = TestClient(create_app(engine))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: client.post(SEARCH, json=caption()), range(64)))
    assert sum(model.embedder.batches) == 64
