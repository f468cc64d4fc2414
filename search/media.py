"""Files of items over HTTP: the originals, thumbnails, and the headers that make them cacheable and harmless.

Only what the catalog names is read; a request holds ids and modalities, never a path.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
from fastapi import Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from ..errors import InputError, NotFoundError
from ..model import Content, Model, draw_value, shown_value
from ..storage import Asset, Item, Store
from .pictures import file_of, shown_asset, thumbnail

# A file that someone indexed may be anything: no script of it runs in this origin.
HARMLESS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
CACHED = {"Cache-Control": "private, max-age=3600", **HARMLESS}
_SHOWN_TYPES = ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp", "image/gif", "text/plain")


def item_of(store: Store, collection: str, item_id: str) -> Item:
    """One item from the catalog. Raises NotFoundError for the collection or the item."""
    found = store.catalog.items(store.collection(collection).name, [item_id])
    if not found:
        raise NotFoundError(f"No item {item_id!r} in collection {collection!r}.", code="item.not_found")
    return found[0]


def media_answer(store: Store, item: Item, modality: str, request: Request) -> Response:
    """The item's asset of one modality: its file, or its value as text or JSON."""
    asset = _asset(item, modality)
    if asset.value is not None:
        kind = PlainTextResponse if isinstance(asset.value, str) else JSONResponse
        return kind(asset.value, headers=HARMLESS)
    path = file_of(asset, store.assets)
    headers = {"ETag": _etag(asset, path, "original"), **CACHED}
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    media_type = asset.media_type if asset.media_type in _SHOWN_TYPES else "application/octet-stream"
    return FileResponse(path, media_type=media_type, headers=headers)


def picture_answer(store: Store, model: Model, item: Item, modality: str, size: int) -> Response:
    """The item's asset of one modality as a picture for people, whatever it is; over the item's photo."""
    value = shown_value(model, modality, _content(store, _asset(item, modality)))
    if value is None:
        raise InputError(f"The {modality} of item {item.id!r} says nothing that model {model.name!r} knows.")
    photo = None
    if any(asset.modality == "rgb" for asset in item.assets):
        with suppress(InputError, NotFoundError):  # then without it
            photo = shown_value(model, "rgb", _content(store, _asset(item, "rgb")))
    over = photo if isinstance(photo, np.ndarray) else None
    buffer = io.BytesIO()
    draw_value(modality, value, over=over, classes=model.parts.classes, size=size).save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png", headers=CACHED)


def _asset(item: Item, modality: str) -> Asset:
    asset = next((asset for asset in item.assets if asset.modality == modality), None)
    if asset is None:
        known = ", ".join(asset.modality for asset in item.assets) or "nothing"
        raise NotFoundError(f"Item {item.id!r} has no {modality!r}; it has {known}.", code="media.missing")
    return asset


def _content(store: Store, asset: Asset) -> Content:
    return file_of(asset, store.assets) if asset.value is None else cast("Content", asset.value)


def thumbnail_answer(store: Store, item: Item, size: int, request: Request) -> Response:
    """A small picture of the item, WebP where the client takes it, else JPEG."""
    asset = shown_asset(item.assets)
    if asset is None:
        raise NotFoundError(f"Item {item.id!r} has no picture to show.", code="media.missing")
    path = file_of(asset, store.assets)
    kind = "WEBP" if "image/webp" in request.headers.get("accept", "") else "JPEG"
    headers = {"ETag": _etag(asset, path, f"{size}{kind}"), "Vary": "Accept", **CACHED}
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    content = _encoded(path, path.stat().st_mtime_ns, asset.modality, size, kind)
    return Response(content, media_type=f"image/{kind.lower()}", headers=headers)


@lru_cache(maxsize=256)  # some 10 kB each, 150 kB at the largest size
def _encoded(path: Path, _mtime_ns: int, modality: str, size: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    thumbnail(path, modality, size).save(buffer, format=kind, quality=82)
    return buffer.getvalue()


def _etag(asset: Asset, path: Path, variant: str) -> str:
    """Changes with the file: files outside the library may be edited in place."""
    stat = path.stat()
    told = f"{asset.sha256} {stat.st_mtime_ns} {stat.st_size} {asset.modality} {variant}"
    return f'"{hashlib.sha256(told.encode()).hexdigest()[:24]}"'


def _is_known(request: Request, etag: str) -> bool:
    known = request.headers.get("if-none-match", "")
    return known.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in known.split(",")]
