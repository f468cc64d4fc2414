"""Every error as `application/problem+json` (RFC 9457), mapped to a status in one place."""

from __future__ import annotations

import http
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .. import errors
from .schemas import LocatedError

REQUEST_ID = "anyseek.request_id"
"""Key of the request's id in the ASGI scope."""

STATUSES: tuple[tuple[type[errors.AnyseekError], int], ...] = (
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.WriterBusyError, 409),
    (errors.StorageError, 500),
    (errors.LimitError, 413),
    (errors.InputError, 422),
    (errors.QueryError, 422),
    (errors.CheckpointError, 503),
    (errors.ModelError, 422),
    (errors.AnyseekError, 500),
)
STATUS_OF_CODE = {"collection.model_mismatch": 409}

logger = logging.getLogger("anyseek.search")


def problem(
    request_scope: Any,
    status: int,
    code: str,
    detail: str,
    *,
    faults: Sequence[tuple[str, str]] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """A problem+json answer.

    Args:
        request_scope: the ASGI scope of the request.
        status: HTTP status, 400..599.
        code: stable identifier.
        detail: what was wrong, where, what to do.
        faults: pairs of JSON pointer and detail.
        headers: to send along.
    """
    body: dict[str, Any] = {
        "type": f"urn:anyseek:problem:{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request_scope.get("path", ""),
        "code": code,
        "request_id": request_scope.get(REQUEST_ID, ""),
        "errors": [{"pointer": pointer, "detail": text} for pointer, text in faults],
    }
    return JSONResponse(body, status, headers, media_type="application/problem+json")


class RefusedError(Exception):
    """A request that is refused before it means anything."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


def add_handlers(app: FastAPI) -> None:
    """Answer every error raised in a route, ours and the framework's, as a problem."""
    app.add_exception_handler(errors.AnyseekError, _on_anyseek_error)
    app.add_exception_handler(RefusedError, _on_refused_error)
    app.add_exception_handler(LocatedError, _on_located_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def of_error(scope: Any, error: errors.AnyseekError, faults: Sequence[tuple[str, str]] = ()) -> JSONResponse:
    """The problem that an error of anyseek is."""
    status = STATUS_OF_CODE.get(error.code) or next(s for kind, s in STATUSES if isinstance(error, kind))
    if status >= 500:
        logger.error("%s failed: %s", scope.get("path"), error, exc_info=error)
    return problem(scope, status, error.code, str(error), faults=faults)


def _on_anyseek_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.AnyseekError)
    return of_error(request.scope, error)


def _on_located_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LocatedError)
    return of_error(request.scope, error.error, [(error.pointer, str(error))])


def _on_refused_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    return problem(request.scope, error.status, error.code, str(error))


def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [
        ("/" + "/".join(map(escaped, fault["loc"])), str(fault["msg"])) for fault in error.errors()[:20]
    ]
    detail = "; ".join(f"{pointer}: {text}" for pointer, text in faults[:3])
    return problem(
        request.scope, 422, "request.invalid", f"The request cannot be understood: {detail}.", faults=faults
    )


def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code in (404, 405):
        detail = f"{request.method} {request.url.path} is no route here; /docs lists them."
    codes = {404: "request.no_route", 405: "request.method", 413: "request.too_large"}
    return problem(
        request.scope,
        error.status_code,
        codes.get(error.status_code, "request.invalid"),
        detail,
        headers=dict(error.headers or {}),
    )


def escaped(part: object) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return str(part).replace("~", "~0").replace("/", "~1")
