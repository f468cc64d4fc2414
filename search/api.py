"""The HTTP application. Every route is a thin layer over the engine and the store."""

from __future__ import annotations

import base64
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from ..errors import AnyseekError
from ..model import MODALITIES, Model
from ..storage import Collection, Item
from . import examples, problems, schemas
from .engine import SearchEngine
from .gate import Gate
from .hits import asset_as_dict
from .media import item_of, media_answer, thumbnail_answer

MAX_UPLOADS = 32
T = TypeVar("T", bound=BaseModel)

CollectionName = Annotated[str, Path(description="Name of a collection.", max_length=200)]
ItemId = Annotated[
    str, Path(description="Id of an item; percent-encode it as one segment (%2F for /).", max_length=4096)
]


def create_app(
    engine: SearchEngine,
    *,
    routers: Sequence[APIRouter] = (),
    api_key: str | None = None,
    max_body_bytes: int = 64 * 2**20,
) -> FastAPI:
    """The application, to serve by itself or to mount in another.

    Nothing hangs on its lifespan, so it works wherever it is mounted:
    `parent.mount("/images", create_app(engine))`.

    Args:
        engine: answers the searches; the caller keeps its store open.
        routers: more routes under /v1, such as the indexer's.
        api_key: asked for as a bearer token on everything under /v1; None leaves it open.
        max_body_bytes: larger request bodies are refused with 413.
    """
    app = _App(
        title="anyseek",
        summary="Search visual collections with any mix of modalities.",
        version="1",
        redoc_url=None,
        responses={"default": {"model": schemas.ProblemOut, "description": "A problem (RFC 9457)."}},
    )
    app.state.engine = engine
    key = [Depends(HTTPBearer(auto_error=False))] if api_key is not None else []  # the gate checks it
    for router in (_pages, _health):
        app.include_router(router)
    for router in (_about, _collections, *routers):
        app.include_router(router, prefix="/v1", dependencies=key)
    problems.add_handlers(app)
    app.add_middleware(Gate, api_key=api_key, max_body_bytes=max_body_bytes)
    return app


class _App(FastAPI):
    """Adds the search request to the components: its route reads two content types, unknown to FastAPI."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = get_openapi(
                title=self.title,
                version=self.version,
                summary=self.summary,
                routes=self.routes,
                description=__doc__,
            )
            template = "#/components/schemas/{model}"
            request = schemas.SearchRequest.model_json_schema(ref_template=template)
            schema["components"]["schemas"] |= request.pop("$defs") | {"SearchRequest": request}
            self.openapi_schema = schema
        return self.openapi_schema


def _engine(request: Request) -> SearchEngine:
    return request.app.state.engine


Engine = Annotated[SearchEngine, Depends(_engine)]
_pages = APIRouter(include_in_schema=False)
_health = APIRouter(tags=["health"])
_about = APIRouter(tags=["about"])
_collections = APIRouter(prefix="/collections", tags=["collections"])


@_pages.get("/")
def page() -> HTMLResponse:
    """The search page."""
    text, policy = _page()
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


@functools.cache
def _page() -> tuple[str, str]:
    """The page and its content policy, which lets no script run but the page's own."""
    text = (pathlib.Path(__file__).parent / "static/index.html").read_text(encoding="utf-8")
    script = text[text.index("<script>") + len("<script>") : text.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return text, (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )


@_health.get("/healthz", responses={200: {"content": {"application/json": {"example": {"status": "ok"}}}}})
def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@_health.get("/readyz", responses=examples.READY)
def readyz(engine: Engine, request: Request) -> Response:
    """Whether searches can be answered: the catalog is read and the models of all collections are loaded."""
    try:
        models = [model.name for model in engine.models()]
        health = engine.store.health()
    except AnyseekError as error:
        return problems.problem(request.scope, 503, error.code, f"Not ready: {error}")
    return JSONResponse(
        {"status": health.state, "models": models, "problems": [p.message for p in health.problems]}
    )


@_about.get("/models", response_model=schemas.ModelsOut, responses=examples.MODELS)
def models(engine: Engine) -> Any:
    """The models that embed queries here, with their licences."""
    return {
        "models": [
            {
                "name": model.name,
                "fingerprint": model.fingerprint,
                "license": model.license,
                "inputs": list(model.inputs),
                "spaces": [{"name": space.name, "dim": space.dim} for space in model.spaces.values()],
            }
            for model in engine.models()
        ]
    }


@_about.get("/modalities", response_model=schemas.ModalitiesOut, responses=examples.MODALITIES)
def modalities(engine: Engine) -> Any:
    """All modalities: which can be a query here, and how a part says them."""
    loaded = engine.models()
    formats = {row.raw: row.raw_format for row in MODALITIES.values()}
    return {"modalities": [_modality_out(name, said, loaded) for name, said in formats.items()]}


def _modality_out(name: str, said: str, loaded: Sequence[Model]) -> dict[str, Any]:
    values = {"det", "metadata", "color_palette", "human_poses", "sam_instance"}
    own = ["text"] if name == "caption" else ["values"] if name in values else []
    return {
        "name": name,
        "content": [*own, "data", "upload"],
        "format": said,
        "models": [model.name for model in loaded if name in model.inputs],
    }


@_collections.get("", response_model=schemas.CollectionsOut, responses=examples.COLLECTIONS)
def collections(engine: Engine) -> Any:
    """All collections."""
    return {"collections": [_collection_out(collection) for collection in engine.store.collections()]}


@_collections.get("/{collection}", response_model=schemas.CollectionOut, responses=examples.COLLECTION)
def collection(collection: CollectionName, engine: Engine) -> Any:
    """One collection: its views, spaces and filterable attributes."""
    return _collection_out(engine.store.collection(collection))


def _collection_out(found: Collection) -> dict[str, Any]:
    return {
        "name": found.name,
        "model": found.model,
        "fingerprint": found.fingerprint,
        "num_items": found.num_items,
        "revision": found.revision,
        "views": list(found.views),
        "spaces": [{"name": space.name, "dim": space.dim} for space in found.spaces],
        "attributes": dict(found.attributes),
    }


@_collections.post(
    "/{collection}/search",
    response_model=schemas.SearchAnswer,
    responses=examples.SEARCH,
    openapi_extra={"requestBody": examples.SEARCH_BODY},
)
async def search(collection: CollectionName, engine: Engine, request: Request) -> Response:
    """Search with any mix of parts.

    JSON, or multipart/form-data with the JSON in the field `request` and files named by the parts' `upload`.
    """
    wire, uploads = await _search_request(request)
    return await run_in_threadpool(_search_answer, engine, collection, wire, uploads)


def _search_answer(
    engine: SearchEngine, collection: str, wire: schemas.SearchRequest, uploads: dict[str, bytes]
) -> Response:
    hits = engine.search(
        collection,
        schemas.query_from_wire(wire.parts, uploads),
        where=schemas.filter_from_wire(wire.where),
        limit=wire.limit,
        offset=wire.offset,
        view=wire.view,
        composition=wire.composition,
        spaces=wire.spaces,
        scoring=wire.scoring,
        explain=wire.explain,
    )
    timing = ", ".join(f"{stage};dur={spent:.1f}" for stage, spent in hits.timing_ms.items())
    return JSONResponse(hits.as_dict(), headers={"Server-Timing": timing})


async def _search_request(request: Request) -> tuple[schemas.SearchRequest, dict[str, bytes]]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _parsed(schemas.SearchRequest, await request.body()), {}
    if kind != "multipart/form-data":
        raise problems.RefusedError(
            415, "request.content_type", "Send application/json, or multipart/form-data with files."
        )
    async with request.form(max_files=MAX_UPLOADS, max_fields=MAX_UPLOADS) as form:
        uploads: dict[str, bytes] = {}
        texts: dict[str, bytes] = {}
        for name, value in form.multi_items():
            into = texts if name == "request" else uploads
            if name in into:
                raise problems.RefusedError(400, "request.invalid", f"The field {name!r} is sent twice.")
            into[name] = await value.read() if isinstance(value, UploadFile) else value.encode()
    if "request" not in texts:
        raise problems.RefusedError(400, "request.invalid", "The field 'request' with the JSON is missing.")
    return _parsed(schemas.SearchRequest, texts["request"]), uploads


def _parsed(schema: type[T], body: bytes) -> T:
    """Read JSON strictly; pydantic's parser has a depth limit, where json's would overflow the stack."""
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if any(fault["type"] == "json_invalid" for fault in faults):
            raise problems.RefusedError(
                400, "request.json", f"The body is no JSON: {faults[0]['msg']}."
            ) from error
        raise RequestValidationError(faults) from error


@_collections.get("/{collection}/items", response_model=schemas.ItemsOut, responses=examples.ITEMS)
def items(
    collection: CollectionName,
    engine: Engine,
    after: Annotated[str, Query(max_length=4096, description="The previous page's `next`.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Any:
    """Items in the order of their ids, page by page."""
    found = engine.store.catalog.page(engine.store.collection(collection).name, after=after, limit=limit)
    return {
        "items": [_item_out(item) for item in found],
        "next": found[-1].id if len(found) == limit else None,
    }


@_collections.get(
    "/{collection}/items/{item_id:path}/media/{modality}", response_class=Response, responses=examples.MEDIA
)
def item_media(
    collection: CollectionName,
    item_id: ItemId,
    modality: Annotated[str, Path(max_length=200)],
    engine: Engine,
    request: Request,
) -> Response:
    """What an item holds in one modality: the file as it was indexed, or the value as text or JSON."""
    if not _ends_in(request, b"media", places=2):
        return _item_answer(engine, collection, f"{item_id}/media/{modality}")
    return media_answer(engine.store, item_of(engine.store, collection, item_id), modality, request)


@_collections.get(
    "/{collection}/items/{item_id:path}/thumbnail", response_class=Response, responses=examples.THUMBNAIL
)
def item_thumbnail(
    collection: CollectionName,
    item_id: ItemId,
    engine: Engine,
    request: Request,
    size: Annotated[int, Query(ge=16, le=1024, description="Longest side in pixels.")] = 256,
) -> Response:
    """A small picture of an item."""
    if not _ends_in(request, b"thumbnail", places=1):
        return _item_answer(engine, collection, f"{item_id}/thumbnail")
    return thumbnail_answer(engine.store, item_of(engine.store, collection, item_id), size, request)


@_collections.get(
    "/{collection}/items/{item_id:path}", response_model=schemas.ItemOut, responses=examples.ITEM
)
def item(collection: CollectionName, item_id: ItemId, engine: Engine) -> Response:
    """One item: its attributes and what it holds."""
    return _item_answer(engine, collection, item_id)


def _item_answer(engine: SearchEngine, collection: str, item_id: str) -> Response:
    return JSONResponse(_item_out(item_of(engine.store, collection, item_id)))


def _item_out(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "attributes": dict(item.attributes),
        "assets": [asset_as_dict(asset) for asset in item.assets],
    }


def _ends_in(request: Request, word: bytes, *, places: int) -> bool:
    """Whether `word` is a step of the path as it was sent, `places` from its end.

    The server decodes %2F before it looks for a route; an item called "x/thumbnail" would be out of reach.
    """
    sent: bytes | None = request.scope.get("raw_path")
    return sent is None or sent.split(b"/")[-places] == word
