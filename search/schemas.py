"""The wire format: the JSON of requests and answers, and queries to it and back.

A part says its content in exactly one way: `text` (a caption), `values` (boxes, colours, numbers by name),
`data` (a data URI with base64), `upload` (the name of a file in the same multipart request), or `id` with
`use` (modality "item": an indexed item's own assets). `classes` beside a file names what a segmentation's
colours or ids mean. There is no way to name a path or a URL.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..errors import AnyseekError, InputError, QueryError
from .filters import Filter, from_wire
from .query import MAX_PARTS, Content, ItemAssets, Query, QueryPart, with_classes
from .ranking import DEFAULT_SCORING
from .where import parse_filter

MAX_TEXT = 2**20  # what the model's reader takes; it cuts long captions
MAX_CLASSES = 256
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]

_DATA_URI = re.compile(r"data:[^,;]{0,100}(?:;[^,;]{0,100})*?;base64,", re.ASCII)


class LocatedError(Exception):
    """An error of anyseek with the place in the request that it is about, as a JSON pointer."""

    def __init__(self, pointer: str, error: AnyseekError) -> None:
        super().__init__(str(error))
        self.pointer = pointer
        self.error = error


@contextmanager
def located(pointer: str) -> Generator[None]:
    """Give errors of anyseek that are raised inside their place in the request."""
    try:
        yield
    except AnyseekError as error:
        raise LocatedError(pointer, error) from error


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PartIn(_Strict):
    """One part of a query: exactly one of text, values, data, upload and id says what it holds."""

    modality: Name = Field(description='Raw name, such as "rgb" or "caption"; "item" goes with id.')
    weight: Number = Field(1.0, description="Signed; negative pushes away, 0 leaves the part out.")
    text: str | None = Field(None, max_length=MAX_TEXT, description="Words of a caption.")
    values: list[JsonValue] | dict[str, JsonValue] | None = Field(
        None, description="Boxes, colours, people, outlines, or numbers by name."
    )
    data: str | None = Field(None, description="A file as a data URI with base64.")
    upload: Name | None = Field(None, description="Name of a file in the same multipart request.")
    classes: dict[str, Name] | None = Field(
        None,
        max_length=MAX_CLASSES,
        description='What the colours or ids of a semseg PNG mean: {"#ff0000": "dog"}.',
    )
    id: str | None = Field(None, min_length=1, max_length=4096, description="An indexed item.")
    use: list[Name] = Field(
        default_factory=list[str], max_length=32, description="Modalities of that item; none: all it can."
    )


class SearchRequest(_Strict):
    """A composite query with a filter and options."""

    parts: list[PartIn] = Field(min_length=1, max_length=MAX_PARTS)
    where: str | dict[str, JsonValue] | None = Field(
        None,
        description='Filter: {"must": [...], "should": [...], "must_not": [...]}, or text such as '
        '"year >= 2024 and license in [cc0, by]".',
    )
    limit: int = Field(20, ge=1, le=10_000)
    offset: int = Field(0, ge=0, le=10_000, description="Hits to step over; limit + offset reach 10,000.")
    view: Name = Field("joint", description="Which of the items' vectors to compare with.")
    composition: Literal["auto", "joint", "guided", "late"] = "auto"
    spaces: dict[str, Number] | None = Field(None, description="Weight of each embedding space.")
    scoring: Literal["cosine", "likelihood", "both"] = DEFAULT_SCORING
    explain: bool = False


class PredictRequest(_Strict):
    """Any modalities of one item, and those to predict from them."""

    inputs: list[PartIn] = Field(
        min_length=1, max_length=MAX_PARTS, description="As the parts of a search, but without weights."
    )
    to: list[Name] = Field(min_length=1, max_length=MAX_PARTS, description="Modalities to predict.")
    model: Name | None = Field(None, description="One of /v1/models; by default the server's own.")
    seed: int = Field(0, ge=0, lt=2**63, description="The same seed gives the same answer.")
    super_resolution: bool = Field(False, description="Predict at twice the size, where the model can.")
    overview: bool = Field(False, description="Also draw everything on one sheet.")


class AssetOut(BaseModel):
    """One file or value of an item; files are fetched from .../items/{id}/media/{modality}."""

    modality: str
    media_type: str | None = None
    value: JsonValue = None


class ContributionOut(BaseModel):
    """What one embedding of the query gave in one space by one measure; contributions add up to the score."""

    parts: list[int] = Field(description="Places in the request's parts; several when joined.")
    space: str
    measure: Literal["cosine", "likelihood"]
    raw: float
    weight: float
    contribution: float


class ItemOut(BaseModel):
    """One item."""

    id: str
    attributes: dict[str, JsonValue]
    assets: list[AssetOut]


class HitOut(ItemOut):
    """One item found."""

    score: float
    explain: list[ContributionOut] | None = None


class PlanOut(BaseModel):
    """How the query was answered."""

    composition: Literal["joint", "guided", "late"]
    view: str
    spaces: dict[str, float]
    scoring: Literal["cosine", "likelihood", "both"]
    likelihood_share: float = Field(description="Of the score; the rest is cosine.")
    filter: str | None
    selectivity: float = Field(description="Fraction of items that pass the filter.")
    candidates: Literal["scan", "index"]
    num_scored: int
    exact: bool = Field(description="Whether no other item can belong among these hits.")


class SearchAnswer(BaseModel):
    """Hits, best first, and how they were found."""

    generation: str | None
    revision: int
    plan: PlanOut
    total_allowed: int
    timing_ms: dict[str, float]
    hits: list[HitOut]


class SpaceOut(BaseModel):
    """One embedding space."""

    name: str
    dim: int


class CollectionOut(BaseModel):
    """A named set of items, all embedded by one model."""

    name: str
    model: str
    fingerprint: str
    num_items: int
    revision: int
    views: list[str]
    spaces: list[SpaceOut]
    attributes: dict[str, str] = Field(description="Keys that can be filtered by, with their types.")


class CollectionsOut(BaseModel):
    """All collections, by name."""

    collections: list[CollectionOut]


class ItemsOut(BaseModel):
    """A page of items in the order of their ids; `next` goes into `after` for the following page."""

    items: list[ItemOut]
    next: str | None


class ModelOut(BaseModel):
    """A loaded model."""

    name: str
    fingerprint: str
    license: str
    inputs: list[str]
    targets: list[str] = Field(description="Modalities that it predicts.")
    spaces: list[SpaceOut]


class ModelsOut(BaseModel):
    """The models that answer here; the first predicts where a request names none."""

    models: list[ModelOut]


class FileOut(BaseModel):
    """An ordinary file."""

    name: str
    data: str = Field(description="Data URI with base64.")


class PredictedOut(BaseModel):
    """One predicted modality: a value or a file, neither where nothing could be read of a generated text."""

    modality: str
    value: JsonValue = Field(None, description="Text, boxes, colours, people, outlines, or numbers by name.")
    file: FileOut | None = Field(None, description="A picture, or an array as .npy.")
    problem: str | None = Field(None, description="What is wrong with a generated text.")


class PredictAnswer(BaseModel):
    """What a model predicted."""

    model: str
    license: str = Field(description="Of the weights.")
    seed: int
    predicted: list[PredictedOut]
    overview: str | None = Field(None, description="A PNG as a data URI, when asked for.")
    timing_ms: dict[str, float]


class ModalityOut(BaseModel):
    """A modality, and whether it can be a query or be predicted here."""

    name: str
    content: list[str] = Field(description="The fields of a part that can say it.")
    format: str = Field(description="What to give.")
    models: list[str] = Field(description="Loaded models that read it; none: it cannot be asked here.")
    predicted_by: list[str] = Field(description="Loaded models that predict it.")


class ModalitiesOut(BaseModel):
    """All modalities."""

    modalities: list[ModalityOut]


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="JSON pointer into the request.")
    detail: str


class ProblemOut(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="Stable; branch on this.")
    request_id: str
    errors: list[Fault] = Field(default_factory=list[Fault])


def query_to_wire(query: Query | QueryPart) -> list[dict[str, Any]]:
    """The `parts` of a request that asks `query`. Files are read and travel as data URIs.

    Raises:
        InputError: a part's file cannot be read.
    """
    return [_part_to_wire(part) for part in Query.of(query)]


def query_from_wire(parts: list[PartIn], uploads: Mapping[str, bytes]) -> Query:
    """The query that `parts` ask; `uploads` are the files of the request by name.

    Raises:
        LocatedError: around a QueryError, with the place of what is wrong.
    """
    return Query(tuple(parts_from_wire(parts, uploads, "/parts")))


def parts_from_wire(parts: list[PartIn], uploads: Mapping[str, bytes], pointer: str) -> list[QueryPart]:
    """Each part by itself; `pointer` is where they lie in the request. Raises LocatedError like the query."""
    found: list[QueryPart] = []
    for i, part in enumerate(parts):
        with located(f"{pointer}/{i}"):
            found.append(QueryPart(part.modality, _content(part, uploads), part.weight))
    return found


def filter_from_wire(where: str | Mapping[str, Any] | None) -> Filter | None:
    """The filter of a request, in either form. Raises LocatedError around a QueryError."""
    if where is None:
        return None
    with located("/where"):
        return parse_filter(where) if isinstance(where, str) else from_wire(where)


def _part_to_wire(part: QueryPart) -> dict[str, Any]:
    content = part.content
    wire: dict[str, Any] = {"modality": part.modality, "weight": part.weight}
    if isinstance(content, Path):
        try:
            content = content.read_bytes()
        except OSError as error:
            raise InputError(f"{content}: cannot be read ({error.strerror}).") from error
    if isinstance(content, bytes):
        wire["data"] = "data:application/octet-stream;base64," + base64.b64encode(content).decode()
    elif isinstance(content, str):
        wire["text"] = content
    elif isinstance(content, ItemAssets):
        wire |= {"id": content.id, "use": list(content.use)}
    else:
        wire["values"] = content
    return wire


def _content(part: PartIn, uploads: Mapping[str, bytes]) -> Content:
    given = [name for name in ("text", "values", "data", "upload", "id") if getattr(part, name) is not None]
    if len(given) != 1:
        raise QueryError(
            "A part has exactly one of text, values, data, upload and id, "
            f"got {' and '.join(given) or 'none of them'}.",
            code="query.content",
        )
    if part.id is not None:
        return ItemAssets(part.id, tuple(part.use))
    if part.use:
        raise QueryError("Only a part with an item's id has a use.", code="query.content")
    content = part.text if part.text is not None else part.values
    if content is None:
        content = _from_data_uri(part.data) if part.data is not None else _uploaded(part.upload, uploads)
    if part.classes is None:
        return content
    if part.modality != "semseg" or not isinstance(content, bytes):
        raise QueryError("classes go with the file of a semseg part.", code="query.content")
    return with_classes(content, part.classes)


def _uploaded(name: str | None, uploads: Mapping[str, bytes]) -> bytes:
    if name is None or name not in uploads:
        known = ", ".join(uploads) or "none; send multipart/form-data"
        raise QueryError(f"No uploaded file {name!r}; uploaded: {known}.", code="query.content")
    return uploads[name]


def _from_data_uri(uri: str) -> bytes:
    match = _DATA_URI.match(uri)
    if match is None:
        raise QueryError(
            "data is a data URI with base64, such as 'data:image/png;base64,...'; paths and URLs are not "
            "fetched.",
            code="query.content",
        )
    try:
        return base64.b64decode(uri[match.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise QueryError(f"data is not valid base64: {error}.", code="query.content") from error
