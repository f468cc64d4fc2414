"""Examples in the API's description. The tests send the requests and check the answers."""

from __future__ import annotations

from typing import Any

_PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNUMPJiwAaYGHCAwSkBAH+G"
    "AKzz9eNIAAAAAElFTkSuQmCC"
)

SEARCHES: dict[str, Any] = {
    "caption": {"parts": [{"modality": "caption", "text": "a quiet harbour at dusk"}]},
    "mix": {
        "parts": [
            {"modality": "caption", "text": "a red ball on grass"},
            {"modality": "color_palette", "values": ["#20324a", "#e0a35a"], "weight": 0.4},
            {"modality": "caption", "text": "people", "weight": -0.7},
        ],
        "limit": 5,
        "explain": True,
    },
    "picture": {"parts": [{"modality": "rgb", "data": _PNG}], "composition": "late"},
    "boxes": {
        "parts": [
            {"modality": "det", "values": [{"box": [0.1, 0.2, 0.5, 0.9], "label": "person"}]},
            {"modality": "metadata", "values": {"brightness": 120}},
        ]
    },
    "filter": {
        "parts": [{"modality": "caption", "text": "a harbour"}],
        "where": {
            "must": [{"key": "year", "range": {"gte": 2024}}],
            "must_not": [{"key": "license", "any": ["unknown"]}],
        },
    },
    "filter_text": {
        "parts": [{"modality": "caption", "text": "a harbour"}],
        "where": "year >= 2024 and license in [cc0, by]",
    },
    "more_like_this": {
        "parts": [{"modality": "item", "id": "2024/harbour", "use": ["rgb"]}],
        "spaces": {"dinov2_global": 0.7, "imagebind_global": 0.3},
    },
}

SEARCH_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/SearchRequest"},
            "examples": {name: {"value": value} for name, value in SEARCHES.items()},
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["request"],
                "properties": {"request": {"type": "string", "description": "The JSON, as above."}},
                "additionalProperties": {"type": "string", "format": "binary"},
            },
            "example": {
                "request": '{"parts": [{"modality": "rgb", "upload": "photo"}]}',
                "photo": "(the bytes of a picture)",
            },
        },
    },
}

_SPACES = [{"name": "dinov2_global", "dim": 768}, {"name": "imagebind_global", "dim": 1280}]
_ITEM = {
    "id": "2024/harbour",
    "attributes": {"year": 2024, "license": "cc0"},
    "assets": [
        {"modality": "rgb", "media_type": "image/jpeg"},
        {"modality": "caption", "value": "a harbour"},
    ],
}
_COLLECTION = {
    "name": "photos",
    "model": "scenes",
    "fingerprint": "9f2c51d0",
    "num_items": 5120,
    "revision": 12,
    "views": ["joint"],
    "spaces": _SPACES,
    "attributes": {"year": "int", "license": "str"},
}
_ANSWER = {
    "generation": "g_000042",
    "revision": 12,
    "plan": {
        "composition": "joint",
        "view": "joint",
        "spaces": {"dinov2_global": 0.5, "imagebind_global": 0.5},
        "scoring": "both",
        "filter": "year >= 2024",
        "selectivity": 0.083,
        "candidates": "scan",
        "num_scored": 425,
        "exact": True,
    },
    "total_allowed": 425,
    "timing_ms": {"filter": 0.2, "read": 0.4, "embed": 24.1, "search": 2.2, "items": 1.1},
    "hits": [
        {
            **_ITEM,
            "score": 0.35,
            "explain": [
                {
                    "parts": [0],
                    "space": "dinov2_global",
                    "measure": "cosine",
                    "raw": 0.7,
                    "weight": 0.5,
                    "contribution": 0.35,
                }
            ],
        }
    ],
}


def _answers(example: Any, kind: str = "application/json") -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {"example": example}}}}


READY = _answers({"status": "ok", "models": ["scenes"], "problems": []})
MODELS = _answers(
    {
        "models": [
            {
                "name": "scenes",
                "fingerprint": "9f2c51d0",
                "license": "Apache-2.0",
                "inputs": ["rgb", "caption"],
                "spaces": _SPACES,
            }
        ]
    }
)
MODALITIES = _answers(
    {
        "modalities": [
            {
                "name": "caption",
                "content": ["text", "data", "upload"],
                "format": "text",
                "models": ["scenes"],
            }
        ]
    }
)
COLLECTIONS = _answers({"collections": [_COLLECTION]})
COLLECTION = _answers(_COLLECTION)
SEARCH = _answers(_ANSWER)
ITEMS = _answers({"items": [_ITEM], "next": "2024/harbour"})
ITEM = _answers(_ITEM)
MEDIA: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}, "example": "(bytes)"},
            "application/json": {"example": {"brightness": 120}},
            "text/plain": {"example": "a harbour"},
        }
    },
    304: {"description": "The client's copy is still right."},
}
THUMBNAIL: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}, "example": "(bytes)"}
            for kind in ("image/webp", "image/jpeg")
        }
    },
    304: {"description": "The client's copy is still right."},
}
