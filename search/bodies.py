"""The bodies of requests that bring files: JSON, or a form with the JSON in one field and files in others."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from .problems import RefusedError

MAX_UPLOADS = 32
T = TypeVar("T", bound=BaseModel)


async def read_body(request: Request, schema: type[T]) -> tuple[T, dict[str, bytes]]:
    """The request that the body holds, and its files by name.

    Raises:
        RefusedError: another content type, no JSON, or a form that cannot be read.
        RequestValidationError: JSON that does not fit the schema.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _parsed(schema, await request.body()), {}
    if kind != "multipart/form-data":
        raise RefusedError(
            415, "request.content_type", "Send application/json, or multipart/form-data with files."
        )
    async with request.form(max_files=MAX_UPLOADS, max_fields=MAX_UPLOADS) as form:
        uploads: dict[str, bytes] = {}
        texts: dict[str, bytes] = {}
        for name, value in form.multi_items():
            into = texts if name == "request" else uploads
            if name in into:
                raise RefusedError(400, "request.invalid", f"The field {name!r} is sent twice.")
            into[name] = await value.read() if isinstance(value, UploadFile) else value.encode()
    if "request" not in texts:
        raise RefusedError(400, "request.invalid", "The field 'request' with the JSON is missing.")
    return _parsed(schema, texts["request"]), uploads


def description(schema: str, examples: dict[str, Any], form: dict[str, Any]) -> dict[str, Any]:
    """Such a body in the API's description.

    Args:
        schema: name of the request's schema among the components.
        examples: requests by name.
        form: one request as a form.
    """
    return {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{schema}"},
                "examples": {name: {"value": value} for name, value in examples.items()},
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["request"],
                    "properties": {"request": {"type": "string", "description": "The JSON, as above."}},
                    "additionalProperties": {"type": "string", "format": "binary"},
                },
                "example": form,
            },
        },
    }


def _parsed(schema: type[T], body: bytes) -> T:
    """Read JSON strictly; pydantic's parser has a depth limit, where json's would overflow the stack."""
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if any(fault["type"] == "json_invalid" for fault in faults):
            raise RefusedError(400, "request.json", f"The body is no JSON: {faults[0]['msg']}.") from error
        raise RequestValidationError(faults) from error
