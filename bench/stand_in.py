"""A stand-in for a model: what it reads becomes vectors by hashing, in no time and without torch.

For tests and benchmarks of everything around a model. Equal inputs give equal vectors, whatever their batch;
or, `batch_sensitive`, vectors that shift a little with it, as a GPU's do, to see whether batches are equal.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from anyseek.errors import InputError
from PIL import Image


@dataclass(frozen=True)
class Space:
    """What the indexer asks of a space."""

    name: str
    dim: int = 16
    num_tokens: int = 4
    codebook_size: int = 32


@dataclass
class Embeddings:
    """Vectors (N, D) and tokens (N, T) of one space."""

    vectors: np.ndarray
    tokens: np.ndarray
    log_probs: None = None


class Embedder:
    """Reads with Pillow alone and embeds by hashing; `batches` lists the sizes that it saw."""

    def __init__(self, spaces: Mapping[str, Space], batch_sensitive: bool) -> None:
        self.spaces = spaces
        self.batch_sensitive = batch_sensitive
        self.batches: list[int] = []

    def read(self, modality: str, content: Any) -> np.ndarray:
        """One value to bytes."""
        if modality == "rgb":
            with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
                return np.asarray(image.convert("RGB").resize((8, 8)))
        if isinstance(content, Path):
            content = content.read_text()
        text = content if isinstance(content, str) else json.dumps(content)
        if not text.strip():
            raise InputError(f"{modality}: nothing to read in it.", code="input.empty")
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def embed(self, items: Sequence[Mapping[str, np.ndarray]], **_: Any) -> dict[str, Embeddings]:
        """Bytes to vectors."""
        self.batches.append(len(items))
        return {name: self._embed(space, items) for name, space in self.spaces.items()}

    def _embed(self, space: Space, items: Sequence[Mapping[str, np.ndarray]]) -> Embeddings:
        vectors = np.empty((len(items), space.dim), np.float32)
        tokens = np.empty((len(items), space.num_tokens), np.uint16)
        for i, item in enumerate(items):
            digest = hashlib.sha256(space.name.encode())
            for modality in sorted(item):
                digest.update(modality.encode() + item[modality].tobytes())
            random = np.random.default_rng(list(digest.digest()))
            vector = random.standard_normal(space.dim)
            vectors[i] = vector / np.linalg.norm(vector)
            tokens[i] = random.integers(0, space.codebook_size, space.num_tokens)
        if self.batch_sensitive:
            vectors += 0.01 * vectors.mean(axis=0)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Embeddings(vectors, tokens)


class StandInModel:
    """What the indexer asks of a model."""

    name = "stand-in"
    fingerprint = "stand-in-1"
    license = "Apache-2.0"
    bytes_read = 0

    def __init__(
        self,
        inputs: Sequence[str] = ("rgb", "caption", "det", "metadata", "color_palette"),
        *,
        batch_sensitive: bool = False,
    ) -> None:
        self.inputs = tuple(inputs)
        self.spaces = {name: Space(name) for name in ("dinov2_global", "imagebind_global")}
        self.embedder = Embedder(self.spaces, batch_sensitive)
