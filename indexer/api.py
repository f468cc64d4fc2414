"""Routes to fill collections: jobs over the server's own folders, and items sent by clients.

Mounted under /v1 by the application, which also maps errors to answers.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from ..errors import InputError, NotFoundError
from ..storage import Store
from . import schemas
from .indexer import Indexer
from .runner import JobRunner
from .sources import FolderSource
from .writing import writing

_MAX_FILES = 1000
_MAX_JSON_BYTES = 16 << 20


def create_router(
    store: Store, indexer_of: Callable[[str], Indexer], *, roots: Sequence[str | Path] = ()
) -> APIRouter:
    """Make the routes.

    Args:
        store: the library, for jobs and items.
        indexer_of: gives the indexer for a collection's name, also of one that does not exist yet; it may
            raise any AnyseekError.
        roots: folders of the server that jobs may index, with all that is below. None: no folder jobs.
    """
    routes = _Routes(store, indexer_of, roots)
    router = APIRouter(tags=["indexing"])
    add = router.add_api_route
    jobs, items = "/collections/{collection}/jobs", "/collections/{collection}/items"
    add("/collections/{collection}", routes.create, methods=["PUT"], response_model=schemas.CreatedOut)
    add("/collections/{collection}", routes.delete, methods=["DELETE"], status_code=204)
    add(jobs, routes.start_job, methods=["POST"], status_code=202, response_model=schemas.JobOut)
    add("/jobs", routes.jobs, methods=["GET"], response_model=schemas.JobsOut)
    add("/jobs/{job_id}", routes.job, methods=["GET"], response_model=schemas.JobOut)
    add("/jobs/{job_id}/errors", routes.job_errors, methods=["GET"], response_model=schemas.JobErrorsOut)
    add(
        "/jobs/{job_id}:cancel",
        routes.cancel_job,
        methods=["POST"],
        status_code=202,
        response_model=schemas.JobOut,
    )
    add(
        items,
        routes.add_items,
        methods=["POST"],
        response_model=schemas.AddedOut,
        openapi_extra={"requestBody": schemas.items_body()},
    )
    add(items + "/{item_id:path}", routes.remove_item, methods=["DELETE"], status_code=204)
    return router


class _Routes:
    """What the routes do; one of them for each router."""

    def __init__(
        self, store: Store, indexer_of: Callable[[str], Indexer], roots: Sequence[str | Path]
    ) -> None:
        self._store = store
        self._indexer_of = indexer_of
        self._roots = [Path(root).expanduser().resolve() for root in roots]
        self._runner = JobRunner(store)

    def create(self, collection: str, body: schemas.CollectionIn) -> schemas.CreatedOut:
        """Create a collection, embedded by the server's model; the same request again changes nothing."""
        created = self._indexer_of(collection).create(collection, body.views)
        return schemas.CreatedOut.model_validate(created, from_attributes=True)

    def delete(self, collection: str) -> Response:
        """Delete a collection with its vectors; files outside the library are left alone."""
        with writing(self._store) as writer:
            writer.delete_collection(collection)
        return Response(status_code=204)

    def start_job(self, collection: str, body: schemas.JobIn, response: Response) -> schemas.JobOut:
        """Index a folder of the server, or take up an interrupted job over it."""
        source = FolderSource(self._inside_roots(body.folder), prefix=body.prefix, layout=body.layout)
        job_id = self._runner.start(
            self._indexer_of(collection),
            collection,
            source,
            prune=body.prune,
            publish=body.publish,
            predict=body.predict,
        )
        response.headers["Location"] = f"/v1/jobs/{job_id}"
        return self.job(job_id)

    def jobs(
        self, collection: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> schemas.JobsOut:
        """The newest jobs, of one collection or of all."""
        found = self._store.catalog.jobs(collection)[:limit]
        return schemas.JobsOut(jobs=[schemas.job_out(job, self._runner.find(job.id)) for job in found])

    def job(self, job_id: str) -> schemas.JobOut:
        """One job, with its progress if it runs in this server."""
        live = self._runner.find(job_id)
        current_id = live.ids[-1] if live else job_id
        return schemas.job_out(self._store.catalog.job(current_id), live)

    def job_errors(
        self,
        job_id: str,
        offset: Annotated[int, Query(ge=0, description="The previous page's `next`.")] = 0,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> schemas.JobErrorsOut:
        """What a job could not use, page by page, in the order it was met."""
        current_id = self.job(job_id).id
        page = self._store.catalog.job_errors(current_id, offset=offset, limit=limit)
        return schemas.JobErrorsOut(
            errors=[schemas.ErrorOut.model_validate(error, from_attributes=True) for error in page],
            next=offset + limit if len(page) == limit else None,
        )

    def cancel_job(self, job_id: str) -> schemas.JobOut:
        """End a job for good, after the shard that it works on; what it committed stays."""
        self._runner.cancel(job_id)
        return self.job(job_id)

    async def add_items(self, collection: str, request: Request) -> schemas.AddedOut:
        """Add items with any of their modalities; they are findable when this answers.

        JSON, or multipart/form-data with the JSON in the field `request` and the files that the assets'
        `upload` names.
        """
        body, uploads = await _items_request(request)
        return await run_in_threadpool(self._add_items, collection, body, uploads)

    def _add_items(
        self, collection: str, body: schemas.ItemsIn, uploads: dict[str, bytes]
    ) -> schemas.AddedOut:
        items = [schemas.new_item(item, uploads) for item in body.items]
        report = self._indexer_of(collection).add(collection, items, predict=body.predict)
        if not report.ids:
            reasons = " ".join(f"{error.path}: {error.message}" for error in report.errors[:3])
            raise InputError(f"Nothing was added. {reasons}", code="item.unusable")
        return schemas.AddedOut.model_validate(report, from_attributes=True)

    def remove_item(self, collection: str, item_id: str) -> Response:
        """Remove an item; files that it refers to outside the library are left alone."""
        if not self._indexer_of(collection).remove(collection, [item_id]):
            message = f"No item {item_id!r} in collection {collection!r}."
            raise NotFoundError(message, code="item.not_found")
        return Response(status_code=204)

    def _inside_roots(self, folder: str) -> Path:
        """The folder, if it lies in a root; whether anything exists elsewhere is not told."""
        for root in self._roots:
            try:
                path = (root / folder).resolve()  # an absolute folder replaces the root
                if path.is_relative_to(root) and path.is_dir():
                    return path
            except (OSError, ValueError):  # a name too long, a null byte
                continue
        known = ", ".join(map(str, self._roots)) or "none; start the server with some"
        raise InputError(f"No folder {folder!r} in the roots of this server: {known}.", code="job.folder")


async def _items_request(request: Request) -> tuple[schemas.ItemsIn, dict[str, bytes]]:
    """Read the body in either form. Raises InputError or FastAPI's RequestValidationError."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return _parse(await request.body()), {}
    uploads: dict[str, bytes] = {}
    async with request.form(max_files=_MAX_FILES, max_part_size=_MAX_JSON_BYTES) as form:
        for name, value in form.multi_items():
            if name in uploads:
                raise InputError(f"The field {name!r} is sent twice.", code="request.invalid")
            uploads[name] = await value.read() if isinstance(value, UploadFile) else value.encode()
    return _parse(uploads.pop("request", b"")), uploads


def _parse(body: bytes) -> schemas.ItemsIn:
    try:  # pydantic's own parser limits depth
        return schemas.ItemsIn.model_validate_json(body)
    except ValidationError as error:
        faults: list[Any] = list(error.errors(include_url=False, include_context=False, include_input=False))
        raise RequestValidationError(faults) from error
