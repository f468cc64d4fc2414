"""The wire format of the indexer's routes."""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..errors import InputError
from ..storage import Job
from .reading import NewItem
from .runner import BackgroundJob
from .sources import Layout

ITEMS_EXAMPLE: dict[str, Any] = {
    "items": [
        {
            "id": "harbour",
            "assets": [
                {"modality": "caption", "text": "a quiet harbour at dusk"},
                {"modality": "color_palette", "values": ["#20324a", "#e0a35a"]},
            ],
            "attributes": {"year": 2024},
        }
    ]
}
"""A request to add items."""

_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.ASCII)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


Predict = Annotated[
    list[str],
    Field(
        max_length=32,
        description="Modalities that become attributes by prediction: metadata, palette, caption.",
    ),
]


class JobIn(_Strict):
    """A folder to index."""

    folder: str = Field(
        min_length=1, max_length=4096, description="On the server, inside one of its configured roots."
    )
    prefix: str = Field(default="", max_length=200, description="Put before every item id.")
    layout: Layout = Field(default="auto", description="Side files, one folder per modality, or look.")
    prune: bool = Field(default=False, description="Remove items of this folder whose files are gone.")
    publish: bool = Field(default=True, description="Build a new generation at the end.")
    predict: Predict = []


class CollectionIn(_Strict):
    """What a new collection is like."""

    views: list[str] | None = Field(
        default=None, max_length=32, description="`joint`, or modalities alone; `joint` where left out."
    )


class CreatedOut(BaseModel):
    """A collection that exists now."""

    name: str
    model: str
    views: list[str]
    num_items: int


class AssetIn(_Strict):
    """Content of one modality, said in exactly one way."""

    modality: str = Field(min_length=1, max_length=200)
    text: str | None = Field(default=None, max_length=100_000, description="A caption.")
    values: JsonValue = Field(default=None, description="Boxes, colours, numbers by name.")
    data: str | None = Field(default=None, description="A file as data URI with base64.")
    upload: str | None = Field(default=None, description="Name of a file in the same multipart request.")


class ItemIn(_Strict):
    """An item to add; one added before under this id is replaced."""

    id: str = Field(min_length=1, max_length=1024)
    assets: list[AssetIn] = Field(min_length=1, max_length=64)
    attributes: dict[str, JsonValue] = Field(default_factory=dict)


class ItemsIn(_Strict):
    """Items to add in one commit."""

    items: list[ItemIn] = Field(min_length=1, max_length=1000)
    predict: Predict = []


class ErrorOut(BaseModel):
    """One input that could not be used."""

    path: str
    modality: str
    code: str
    message: str


class AddedOut(BaseModel):
    """What became of added items."""

    ids: list[str] = Field(description="Committed and findable.")
    failed: list[str] = Field(description="Nothing of these could be used.")
    errors: list[ErrorOut]


class ProgressOut(BaseModel):
    """How far a job of this server is; counts are items."""

    stage: str
    total: int
    done: int
    failed: int
    skipped: int
    pending: int
    rate: float = Field(description="Items per second.")
    eta_s: float | None


class FailureOut(BaseModel):
    """Why a job stopped."""

    code: str
    message: str


class JobOut(BaseModel):
    """A job; `progress` and `failure` are known while the server that runs it is up."""

    id: str
    collection: str
    source: str
    state: str
    num_items: int = Field(description="Items that its shards committed.")
    num_errors: int
    created_at: datetime
    updated_at: datetime
    progress: ProgressOut | None = None
    failure: FailureOut | None = None


class JobsOut(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobOut]


class JobErrorsOut(BaseModel):
    """A page of what a job could not use."""

    errors: list[ErrorOut]
    next: int | None = Field(description="Offset of the next page.")


def job_out(job: Job, live: BackgroundJob | None) -> JobOut:
    """A job of the catalog with what this process knows of it."""
    progress = None if live is None or live.progress is None else live.progress
    error = None if live is None else live.error
    return JobOut(
        id=job.id,
        collection=job.collection,
        source=str(job.spec.get("source", "")),
        state=job.state,
        num_items=job.num_items,
        num_errors=job.num_errors,
        created_at=job.created_at,
        updated_at=job.updated_at,
        progress=progress and ProgressOut.model_validate(progress, from_attributes=True),
        failure=error and FailureOut(code=getattr(error, "code", "error"), message=str(error)),
    )


def new_item(item: ItemIn, uploads: Mapping[str, bytes]) -> NewItem:
    """The item that a request describes.

    Args:
        item: as sent.
        uploads: files of the request, by name.

    Raises:
        InputError: content said twice or not at all, or a modality given twice.
    """
    assets: dict[str, Any] = {}
    for asset in item.assets:
        if asset.modality in assets:
            raise InputError(f"Item {item.id!r} gives {asset.modality} twice.", code="item.content")
        assets[asset.modality] = _content(item.id, asset, uploads)
    return NewItem(item.id, assets, item.attributes)


def _content(id_: str, asset: AssetIn, uploads: Mapping[str, bytes]) -> Any:
    where = f"{asset.modality} of item {id_!r}"
    given = [name for name in ("text", "values", "data", "upload") if getattr(asset, name) is not None]
    if len(given) != 1:
        message = f"{where}: say it in exactly one of text, values, data and upload, got {given or 'none'}."
        raise InputError(message, code="item.content")
    if asset.upload is not None:
        if asset.upload not in uploads:
            known = ", ".join(uploads) or "none; send multipart/form-data"
            raise InputError(f"{where}: no file {asset.upload!r}; uploaded: {known}.", code="item.content")
        return uploads[asset.upload]
    if asset.data is None:
        return asset.values if asset.text is None else asset.text
    match = _DATA_URI.match(asset.data)
    if match is None:
        message = f"{where}: data is a data URI with base64; paths and URLs are not fetched."
        raise InputError(message, code="item.content")
    try:
        return base64.b64decode(asset.data[match.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where}: data is not valid base64: {error}.", code="item.content") from error


def items_body() -> dict[str, Any]:
    """How the API describes a request to add items, which comes in two content types."""
    schema = ItemsIn.model_json_schema()
    parts: dict[str, Any] = schema.pop("$defs")
    parts["AssetIn"]["properties"]["values"] = {"description": "Boxes, colours, numbers by name."}
    parts["ItemIn"]["properties"]["attributes"]["additionalProperties"] = True
    parts["ItemIn"]["properties"]["assets"]["items"] = parts["AssetIn"]
    schema["properties"]["items"]["items"] = parts["ItemIn"]
    files = {
        "type": "object",
        "required": ["request"],
        "properties": {"request": {"type": "string", "description": "The JSON."}},
        "additionalProperties": {"type": "string", "format": "binary"},
    }
    return {
        "required": True,
        "content": {
            "application/json": {"schema": schema, "example": ITEMS_EXAMPLE},
            "multipart/form-data": {"schema": files},
        },
    }
