"""The HTTP application. Every route is a thin layer over the engine and the store."""

from __future__ import annotations

import base64
import functools
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer

from ..errors import AnyseekError
from ..model import MODALITIES, Model
from ..storage import Collection, Item
from . import examples, predicting, problems, schemas
from .bodies import read_body
from .engine import SearchEngine
from .gate import Gate
from .hits import asset_as_dict
from .media import item_of, media_answer, picture_answer, thumbnail_answer

CollectionName = Annotated[str, Path(description="Name of a collection.", max_length=200)]
ItemId = Annotated[
    str, Path(description="Id of an item; percent-encode it as one segment (%2F for /).", max_length=4096)
]


def create_app(
    engine: SearchEngine,
    *,
    routers: Sequence[APIRouter] = (),
    model: Callable[[], Model] | None = None,
    api_key: str | None = None,
    max_body_bytes: int = 64 * 2**20,
) -> FastAPI:
    """The application, to serve by itself or to mount in another.

    Nothing hangs on its lifespan, so it works wherever it is mounted:
    `parent.mount("/images", create_app(engine))`.

    Args:
        engine: answers the searches; the caller keeps its store open.
        routers: more routes under /v1, such as the indexer's.
        model: gives the model that predicts where a request names none, and keeps it loaded; by default one
            of the collections'.
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
    app.state.turns = predicting.Turns()
    app.state.models = lambda: _models(engine, model)
    key = [Depends(HTTPBearer(auto_error=False))] if api_key is not None else []  # the gate checks it
    for router in (_pages, _health):
        app.include_router(router)
    for router in (_about, predicting.router, _collections, *routers):
        app.include_router(router, prefix="/v1", dependencies=key)
    problems.add_handlers(app)
    app.add_middleware(Gate, api_key=api_key, max_body_bytes=max_body_bytes)
    return app


def _models(engine: SearchEngine, model: Callable[[], Model] | None) -> list[Model]:
    """The models that answer here, the one that predicts by default in front."""
    first = [] if model is None else [model()]
    return first + [other for other in engine.models() if other not in first]


class _App(FastAPI):
    """Adds requests to the components whose routes read two content types, unknown to FastAPI."""

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
            for body in (schemas.SearchRequest, schemas.PredictRequest):
                request = body.model_json_schema(ref_template=template)
                schema["components"]["schemas"] |= request.pop("$defs") | {body.__name__: request}
            self.openapi_schema = schema
        return self.openapi_schema


def _engine(request: Request) -> SearchEngine:
    return request.app.state.engine


def _loaded(request: Request) -> list[Model]:
    return request.app.state.models()


Engine = Annotated[SearchEngine, Depends(_engine)]
Models = Annotated[list[Model], Depends(_loaded)]
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
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
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
def models(loaded: Models) -> Any:
    """The models that embed queries and predict here, with their licences; the first predicts by default."""
    return {
        "models": [
            {
                "name": model.name,
                "fingerprint": model.fingerprint,
                "license": model.license,
                "inputs": list(model.inputs),
                "targets": list(model.targets),
                "spaces": [{"name": space.name, "dim": space.dim} for space in model.spaces.values()],
            }
            for model in loaded
        ]
    }


@_about.get("/modalities", response_model=schemas.ModalitiesOut, responses=examples.MODALITIES)
def modalities(loaded: Models) -> Any:
    """All modalities: which can be a query or be predicted here, and how a part says them."""
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
        "predicted_by": [model.name for model in loaded if name in model.targets],
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
    wire, uploads = await read_body(request, schemas.SearchRequest)
    return await run_in_threadpool(_search_answer, engine, collection, wire, uploads)


def _search_answer(
    engine: SearchEngine, collection: str, wire: schemas.SearchRequest, uploads: dict[str, bytes]
) -> Response:
    query, where = schemas.query_from_wire(wire.parts, uploads), schemas.filter_from_wire(wire.where)
    try:
        hits = engine.search(
            collection,
            query,
            where=where,
            limit=wire.limit,
            offset=wire.offset,
            view=wire.view,
            composition=wire.composition,
            spaces=wire.spaces,
            scoring=wire.scoring,
            explain=wire.explain,
        )
    except AnyseekError as error:
        if error.part is None:
            raise
        raise schemas.LocatedError(f"/parts/{error.part}", error) from error
    timing = ", ".join(f"{stage};dur={spent:.1f}" for stage, spent in hits.timing_ms.items())
    return JSONResponse(hits.as_dict(), headers={"Server-Timing": timing})


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
    shown_as: Annotated[
        Literal["picture"] | None, Query(alias="as", description="A picture for people, whatever it is.")
    ] = None,
    size: Annotated[int, Query(ge=32, le=1024, description="Width of that picture in pixels.")] = 384,
) -> Response:
    """What an item holds in one modality: the file as it was indexed, or the value as text or JSON."""
    if not _ends_in(request, b"media", places=2):
        return _item_answer(engine, collection, f"{item_id}/media/{modality}")
    item = item_of(engine.store, collection, item_id)
    if shown_as == "picture":
        return picture_answer(engine.store, engine.model(collection), item, modality, size)
    return media_answer(engine.store, item, modality, request)


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
