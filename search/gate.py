"""What every request passes first and last: its id, the key, the size of its body, the clock, the safety net.

Plain ASGI, so that bodies stream through uncopied, and a refusal happens before anything is read.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import REQUEST_ID, problem

logger = logging.getLogger("anyseek.search")
_GIVEN_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class _BodyTooLargeError(Exception):
    """More was sent than is taken."""


class Gate:
    """Wraps an application.

    Args:
        app: what to wrap.
        api_key: asked for as a bearer token on everything under /v1; None asks for none.
        max_body_bytes: larger bodies are refused with 413.
    """

    def __init__(self, app: ASGIApp, *, api_key: str | None, max_body_bytes: int) -> None:
        self.app = app
        self._key = None if api_key is None else _digest(api_key)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        scope[REQUEST_ID] = given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        answer = _Answer(scope, send)
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, answer.send)
            return
        body = _LimitedBody(receive, self._max_body_bytes)
        answer.body = body
        try:
            await self.app(scope, body.receive, answer.send)
        except Exception as error:
            if not body.exceeded:
                logger.error("request %s to %s failed", scope[REQUEST_ID], scope["path"], exc_info=error)
            if answer.started:
                raise
            if not body.exceeded:
                detail = "An unexpected error; the server's log has it under this request's id."
                await problem(scope, 500, "error", detail)(scope, receive, answer.send)
        if body.exceeded and not answer.started:
            answer.body = None
            await self._too_large(scope)(scope, receive, answer.send)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further, None for the others."""
        headers = Headers(scope=scope)
        if self._key is not None and _local_path(scope).startswith("/v1") and not self._has_key(headers):
            detail = "This server asks for its key: send the header Authorization: Bearer KEY."
            return problem(scope, 401, "request.key", detail, headers={"WWW-Authenticate": "Bearer"})
        if (
            self._key is None
            and scope["method"] not in ("GET", "HEAD", "OPTIONS")
            and _is_foreign_form(headers)
        ):
            detail = "A form from another site is refused; send JSON, or give the server a key."
            return problem(scope, 403, "request.cross_site", detail)
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return problem(scope, 400, "request.invalid", "The Content-Length is not a number.")
        return self._too_large(scope) if int(length[:20]) > self._max_body_bytes else None

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(_digest(token.strip()), self._key or b"")

    def _too_large(self, scope: Scope) -> Response:
        detail = f"The request's body is larger than {self._max_body_bytes:,} bytes; send smaller files."
        return problem(scope, 413, "request.too_large", detail, headers={"Connection": "close"})


class _LimitedBody:
    """Hands a body on until it is too large."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._left = limit
        self.exceeded = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.exceeded = True
            raise _BodyTooLargeError
        return message


class _Answer:
    """Adds headers to an answer, and holds back one to a body that proved too large."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._start = time.perf_counter()
        self.body: _LimitedBody | None = None
        self.started = False

    async def send(self, message: Message) -> None:
        if self.body is not None and self.body.exceeded and not self.started:
            return  # whatever the framework made of the broken body
        if message["type"] == "http.response.start":
            self.started = True
            self._add_headers(MutableHeaders(scope=message))
        await self._send(message)

    def _add_headers(self, headers: MutableHeaders) -> None:
        total = f"total;dur={(time.perf_counter() - self._start) * 1000:.1f}"
        stages = headers.get("server-timing")
        headers["server-timing"] = f"{stages}, {total}" if stages else total
        headers["x-request-id"] = str(self._scope[REQUEST_ID])
        headers["x-content-type-options"] = "nosniff"
        headers.setdefault("cache-control", "no-store")


def _local_path(scope: MutableMapping[str, Any]) -> str:
    """The path below the point where this application is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root) else path


def _is_foreign_form(headers: Headers) -> bool:
    """Whether a page of another site sends this through its visitor's browser, as it may any form.

    JSON it may not send without being allowed to, so nothing more is needed there.
    """
    kind = headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
    forms = ("multipart/form-data", "application/x-www-form-urlencoded", "text/plain")
    return headers.get("sec-fetch-site") == "cross-site" and kind in forms


def _digest(text: str) -> bytes:
    """Hashing first makes the comparison's time independent of the key's length."""
    return hashlib.sha256(text.encode()).digest()
