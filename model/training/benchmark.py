"""How well a model finds scenes that it has never seen, asked as a user asks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..embedder import Embedder, Embeddings
from ..registry import load_model
from ..scenes import Scene, SceneRecord, Split, caption, describe_scene, known_queries
from ..token_likelihood import likelihood, likelihood_table
from .evaluate import mixed, ranks

RANKINGS = ("cosine", "likelihood", "both")
_BATCH = 250
WHOLE = "whole caption"
"""Asks by a caption that leaves nothing out, where those of `describe_scene` leave out what people do."""
_Z = 1.96  # deviations of a normal distribution that leave 5 % outside

Item = dict[str, NDArray[np.generic]]
Report = dict[str, dict[str, dict[str, float]]]
"""Ranking or space, then query, then `num` asked, `r1` and its 95 % interval `r1_low`..`r1_high`, `r5`,
`r10`, `median_rank`."""
Progress = Callable[[str, int, int], None]
"""Told of a stage: its name, how much of it is done, of how much."""


def benchmark(
    folder: Path,
    num: int = 1000,
    *,
    seed: int = 0,
    split: Split = "unseen",
    size: int = 128,
    queries: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Let every scene be found among `num` by each query; `rgb` shows it in another rendering.

    The gallery is predicted from the pixels of rendering 0 alone. Rankings weigh both spaces as a search does
    by default, `both` cosine and likelihood too; so is each space alone reported. A scene that has nothing of
    a kind (boxes, people) is not asked for by it.

    Args:
        folder: a bundle.
        num: scenes.
        seed, split: which scenes.
        size: of their pictures.
        queries: modalities joined by +, or `whole caption`; all that the model reads where None.
        progress: told the stage, what is done, of how much.
    """
    model = load_model(folder, dtype="float32")
    if queries is None:
        queries = (*known_queries(model.inputs), *([WHOLE] if "caption" in model.inputs else []))
    raws = sorted({raw for query in queries for raw in query.split("+")} - {WHOLE} | {"rgb"})
    given: list[Item] = []
    moved: list[Item] = []
    told: list[Item] = []
    for index in range(num):
        scene = Scene.sample(seed, index, split=split)
        given.append(read_item(model.embedder, describe_scene(scene, size), raws))
        moved.append(read_item(model.embedder, describe_scene(scene, size, 1), ["rgb"]))
        if WHOLE in queries:
            words = caption(scene, scene.rng("all words")).encode()
            told.append({"caption": model.embedder.read("caption", words)})
        if progress is not None:
            progress("benchmark", index + 1, num)
    gallery = _embed(model.embedder, [{"rgb": item["rgb"]} for item in given])
    report: Report = {}
    for query in queries:
        rows, asked = (list(range(num)), told) if query == WHOLE else _questions(query, given, moved)
        if not rows:
            continue
        found = _embed(model.embedder, asked)
        order = np.concatenate([rows, np.setdiff1d(np.arange(num), rows)]).astype(np.int64)
        alike = dict.fromkeys(asked[0], 1.0)
        scores = _scores(found, gallery, model.space_weights(alike), model.likelihood_share(alike))
        for ranking, score in scores.items():
            report.setdefault(ranking, {})[query] = _measured(score[:, order])
    return report


def _measured(score: NDArray[np.float32]) -> dict[str, float]:
    """Ranks, and Wilson's interval of R@1."""
    found, num = ranks(score), len(score)
    share = found["r1"]
    centre = share + _Z**2 / (2 * num)
    half = _Z * float(np.sqrt(share * (1 - share) / num + (_Z / (2 * num)) ** 2))
    low, high = ((centre + sign * half) / (1 + _Z**2 / num) for sign in (-1, 1))
    return {"num": num, **found, "r1_low": low, "r1_high": high}


def read_item(embedder: Embedder, record: SceneRecord, raws: Sequence[str]) -> Item:
    """Write files of a scene and read them, as a user's are read; of what it has of `raws`."""
    return {raw: embedder.read(raw, content) for raw, content in record.encoded(raws).items()}


def _questions(query: str, given: Sequence[Item], moved: Sequence[Item]) -> tuple[list[int], list[Item]]:
    """Scenes that have all of a query, and what they are asked for by."""
    names = query.split("+")
    rows = [row for row, item in enumerate(given) if set(names) <= set(item)]
    return rows, [{name: (moved if name == "rgb" else given)[row][name] for name in names} for row in rows]


def _embed(embedder: Embedder, items: Sequence[Item]) -> dict[str, Embeddings]:
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
    queries: Mapping[str, Embeddings],
    gallery: Mapping[str, Embeddings],
    weights: Mapping[str, float],
    likelihood_share: float,
) -> dict[str, NDArray[np.float32]]:
    """Score all items for all queries, `(Q, N)`, by ranking and by space; `weights` of spaces in rankings."""
    shares = {"cosine": 0.0, "likelihood": 1.0, "both": likelihood_share}
    total = {ranking: np.zeros((), dtype=np.float32) for ranking in RANKINGS}
    spaces: dict[str, NDArray[np.float32]] = {}
    for space, found in queries.items():
        assert found.log_probs is not None
        cosines = found.vectors @ gallery[space].vectors.T
        likelihoods = likelihood(likelihood_table(found.log_probs), gallery[space].tokens)
        measured = (cosines, likelihoods.astype(np.float32))
        spaces[space] = mixed(measured, likelihood_share)
        for ranking, share in shares.items():
            of_space = weights.get(space, 0.0) * mixed(measured, share)
            total[ranking] = np.asarray(total[ranking] + of_space, dtype=np.float32)
    return {**total, **spaces}
