"""Examples in the API's description. The tests send the requests and check the answers."""

from __future__ import annotations

from typing import Any

from .bodies import description

# Eight by eight pixels.
PNG = (
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
    "picture": {"parts": [{"modality": "rgb", "data": PNG}], "composition": "late"},
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

SEARCH_BODY = description(
    "SearchRequest",
    SEARCHES,
    {
        "request": '{"parts": [{"modality": "rgb", "upload": "photo"}]}',
        "photo": "(the bytes of a picture)",
    },
)

PREDICTIONS: dict[str, Any] = {
    "photo": {"inputs": [{"modality": "rgb", "data": PNG}], "to": ["caption", "color_palette"]},
    "mix": {
        "inputs": [
            {"modality": "caption", "text": "a quiet harbour at dusk"},
            {"modality": "color_palette", "values": ["#20324a", "#e0a35a"]},
        ],
        "to": ["metadata"],
        "seed": 3,
        "overview": True,
    },
}

PREDICT_BODY = description(
    "PredictRequest",
    PREDICTIONS,
    {
        "request": '{"inputs": [{"modality": "depth", "upload": "room"}], "to": ["rgb", "normal"]}',
        "room": "(the bytes of a depth map)",
    },
)

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
        "likelihood_share": 0.8,
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
                "targets": ["caption", "dinov2_global", "imagebind_global"],
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
                "predicted_by": ["scenes"],
            }
        ]
    }
)
PREDICT = _answers(
    {
        "model": "scenes",
        "license": "Apache-2.0",
        "seed": 0,
        "predicted": [
            {"modality": "caption", "value": "a red cube on grass", "file": None, "problem": None},
            {
                "modality": "depth",
                "value": None,
                "file": {"name": "depth.png", "data": PNG},
                "problem": None,
            },
        ],
        "overview": None,
        "timing_ms": {"read": 3.1, "predict": 412.0, "write": 8.5},
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
            "image/png": {"schema": {"type": "string", "format": "binary"}, "example": "(bytes)"},
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
