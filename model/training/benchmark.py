"""How well a model finds scenes that it has never seen, asked as a user asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..embedder import Embedder, Embeddings
from ..registry import load_model
from ..scenes import Scene, SceneRecord, describe_scene
from ..scenes.scene import Split
from .evaluate import likelihood, ranks

# What each line of the table asks with. `rgb` is another rendering than the one to be found.
QUERIES: Mapping[str, tuple[str, ...]] = {
    name: tuple(name.split("+"))
    for name in (
        "rgb",
        "caption",
        "det",
        "color_palette",
        "metadata",
        "caption+color_palette",
        "caption+metadata",
        "caption+det",
        "color_palette+metadata",
        "color_palette+det",
        "det+metadata",
        "rgb+caption",
    )
}
RANKINGS = ("cosine", "likelihood", "both")
_LIKELIHOOD_WEIGHT = 0.25
_BATCH = 250

Report = dict[str, dict[str, dict[str, float]]]
"""Ranking or space, then query, then `r1`, `r5`, `r10`, `median_rank`."""


def benchmark(
    folder: Path,
    num: int = 1000,
    *,
    seed: int = 0,
    split: Split = "unseen",
    size: int = 96,
    queries: Sequence[str] = tuple(QUERIES),
) -> Report:
    """Let every scene be found among `num` by each query.

    The gallery is predicted from the pixels of rendering 0 alone. Rankings sum both spaces; each space alone
    is reported with both scores.
    """
    embedder = load_model(folder, dtype="float32").embedder
    scenes = [Scene.sample(seed, index, split=split) for index in range(num)]
    records = [[describe_scene(scene, size, rendering) for scene in scenes] for rendering in (0, 1)]
    given = [_read(embedder, record) for record in records[0]]
    moved = [embedder.read("rgb", record.rendering.rgb) for record in records[1]]
    gallery = _embed(embedder, [{"rgb": item["rgb"]} for item in given])
    report: Report = {}
    for query in queries:
        names = QUERIES[query]
        asked = [
            {name: moved[i] if name == "rgb" else item[name] for name in names if name in item}
            for i, item in enumerate(given)
        ]
        # A scene whose objects are all hidden has no boxes to ask with.
        rows = np.array([i for i, item in enumerate(asked) if item])
        found = _embed(embedder, [asked[i] for i in rows])
        for ranking, score in _scores(found, gallery).items():
            others = np.setdiff1d(np.arange(num), rows)
            report.setdefault(ranking, {})[query] = ranks(score[:, np.concatenate([rows, others])])
    return report


def _read(embedder: Embedder, record: SceneRecord) -> dict[str, NDArray[np.generic]]:
    item = {
        "rgb": embedder.read("rgb", record.rendering.rgb),
        "caption": embedder.read("caption", record.caption),
        "color_palette": embedder.read("color_palette", record.palette),
        "metadata": embedder.read("metadata", record.metadata),
    }
    if record.boxes:
        item["det"] = embedder.read("det", record.boxes)
    return item


def _embed(embedder: Embedder, items: Sequence[Mapping[str, NDArray[np.generic]]]) -> dict[str, Embeddings]:
    parts = [
        embedder.embed(items[start : start + _BATCH], log_probs=True)
        for start in range(0, len(items), _BATCH)
    ]
    joined: dict[str, Embeddings] = {}
    for space in parts[0]:
        log_probs = [part[space].log_probs for part in parts]
        joined[space] = Embeddings(
            np.concatenate([part[space].vectors for part in parts]),
            np.concatenate([part[space].tokens for part in parts]),
            np.concatenate([values for values in log_probs if values is not None]),
        )
    return joined


def _scores(
    queries: Mapping[str, Embeddings], gallery: Mapping[str, Embeddings]
) -> dict[str, NDArray[np.float32]]:
    """Score all items for all queries, `(Q, N)`, by ranking and by space."""
    total = {ranking: np.zeros((), dtype=np.float32) for ranking in RANKINGS}
    spaces: dict[str, NDArray[np.float32]] = {}
    for space, found in queries.items():
        assert found.log_probs is not None
        cosine = found.vectors @ gallery[space].vectors.T
        tokens = likelihood(found.log_probs, gallery[space].tokens.astype(np.int64))
        spaces[space] = cosine + _LIKELIHOOD_WEIGHT * tokens
        for ranking, score in (("cosine", cosine), ("likelihood", tokens), ("both", spaces[space])):
            total[ranking] = total[ranking] + score
    return {**total, **spaces}
