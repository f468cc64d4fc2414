"""A small library on disk, and a model whose embeddings are computed by hand."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import InputError
from anyseek.model.token_likelihood import LIKELIHOOD_SHARE
from anyseek.search import SearchEngine
from anyseek.storage import Asset, Item, Rows, SpaceRecord, Store
from PIL import Image

LATENT, HEADS, VOCABULARY = 24, 4, 16
DIMS = {"dinov2_global": 12, "imagebind_global": 20}
COLORS = ("red", "green", "blue", "grey")
THINGS = ("ball", "cube", "cone", "harbour", "dog")


@dataclass(frozen=True)
class FakeSpace:
    name: str
    dim: int
    num_tokens: int = HEADS
    codebook_size: int = VOCABULARY


@dataclass
class FakeEmbeddings:
    vectors: np.ndarray
    tokens: np.ndarray
    log_probs: np.ndarray | None


def vector_of(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=LATENT)


class FakeEmbedder:
    """Content becomes words, words become fixed random vectors, an item is the sum of its words."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        rng = np.random.default_rng(0)
        self.to_space = {name: rng.normal(size=(LATENT, dim)) for name, dim in DIMS.items()}
        self.to_logits = {name: rng.normal(size=(LATENT, HEADS, VOCABULARY)) for name in DIMS}

    def read(self, modality: str, content: Any) -> np.ndarray:
        if isinstance(content, Path):
            try:
                content = content.read_bytes()
            except OSError as error:
                raise InputError(f"{content}: cannot be read.") from error
        if modality in ("rgb", "depth"):
            if not isinstance(content, bytes) or not content.startswith(b"\x89PNG"):
                raise InputError(f"{modality}: not an image.")
            words = [f"{modality}{hashlib.sha256(content).hexdigest()}"]
        else:
            text = content.decode() if isinstance(content, bytes) else content
            if not text:
                raise InputError(f"{modality}: empty.", code="input.empty")
            words = text.split() if isinstance(text, str) else [json.dumps(value) for value in text]
        return np.stack([vector_of(word) for word in words])

    def embed(
        self,
        items: Sequence[Mapping[str, np.ndarray]],
        *,
        log_probs: bool = False,
        decoding: str = "soft",  # noqa: ARG002 (one code each: all decodings are the same)
        seed: int = 0,  # noqa: ARG002
    ) -> dict[str, FakeEmbeddings]:
        self.batches.append(len(items))
        latent = np.stack([sum(array.sum(0) for _, array in sorted(item.items())) for item in items])
        out: dict[str, FakeEmbeddings] = {}
        for name in DIMS:
            vectors = np.stack([row @ self.to_space[name] for row in latent])
            logits = np.stack([np.tensordot(row, self.to_logits[name], 1) for row in latent])
            probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            out[name] = FakeEmbeddings(
                (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
                logits.argmax(-1).astype(np.uint16),
                probs.astype(np.float32) if log_probs else None,
            )
        return out

    def embed_guided(
        self, queries: Sequence[Sequence[tuple[float, Mapping[str, np.ndarray]]]], *, log_probs: bool = False
    ) -> dict[str, FakeEmbeddings]:
        """As with weighted words: everything before the embedding is linear here, and nothing gives 0."""
        blended = [
            {"words": sum(weight * sum(a.sum(0) for a in given.values())[None] for weight, given in query)}
            for query in queries
        ]
        return self.embed(blended, log_probs=log_probs)


@dataclass
class FakeModel:
    name: str = "fake"
    fingerprint: str = "f00d" * 16
    license: str = "none needed"
    inputs: tuple[str, ...] = ("rgb", "caption", "color_palette", "det", "metadata", "depth")
    targets: tuple[str, ...] = ("caption",)
    spaces: dict[str, FakeSpace] = field(
        default_factory=lambda: {n: FakeSpace(n, d) for n, d in DIMS.items()}
    )
    embedder: FakeEmbedder = field(default_factory=FakeEmbedder)
    bytes_read: int = 0
    of_modality: dict[str, dict[str, float]] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)

    def space_weights(self, modalities: Mapping[str, float]) -> dict[str, float]:
        """Those of the modality that counts most; all alike where it has none."""
        most = max(modalities, key=modalities.__getitem__, default="")
        return self.of_modality.get(most, {space: 1 / len(self.spaces) for space in self.spaces})

    def likelihood_share(self, modalities: Mapping[str, float]) -> float:
        """That of the modality that counts most; the usual one where it has none."""
        return self.shares.get(max(modalities, key=modalities.__getitem__, default=""), LIKELIHOOD_SHARE)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@dataclass
class Library:
    """A store with a collection "photos", and what was put into it."""

    store: Store
    folder: Path
    items: dict[str, Item]
    rows: dict[str, dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]]  # view -> id -> per space


def make_items(folder: Path, store: Store, count: int) -> list[Item]:
    """Items with captions of two words; most with a photo, every seventh with depth in the library only."""
    rng = np.random.default_rng(7)
    items: list[Item] = []
    for i in range(count):
        item_id = f"{2020 + i % 6}/{COLORS[i % 4]} {THINGS[i % 5]}-{i:03}"
        assets = [Asset("caption", value=f"{COLORS[i % 4]} {THINGS[i % 5]} number{i}")]
        if i % 7:
            path = folder / f"{i}.png"
            pixels = np.full((24, 32, 3), rng.integers(0, 256, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            assets.insert(0, Asset("rgb", path=str(path), media_type="image/png"))
        elif i % 14:
            path = folder / "depth.png"
            Image.fromarray((rng.random((20, 20)) * 65535).astype(np.uint16)).save(path)
            assets.append(Asset("depth", sha256=store.assets.add(path), media_type="image/png"))
        attributes: dict[str, Any] = {
            "year": 2020 + i % 6,
            "color": COLORS[i % 4],
            "tags": [THINGS[i % 5], "all"],
        }
        if i % 3 == 0:
            attributes["score"] = i / 2
        if i % 4 == 0:
            attributes["flag"] = i % 8 == 0
        items.append(Item(item_id, assets, attributes, f"s{i}", "test"))
    return items


def view_inputs(embedder: FakeEmbedder, item: Item, view: str) -> dict[str, np.ndarray]:
    inputs: dict[str, np.ndarray] = {}
    for asset in item.assets:
        if asset.modality == "depth" or (view != "joint" and asset.modality != view):
            continue
        content = asset.value if asset.value is not None else Path(asset.path or "")
        inputs[asset.modality] = embedder.read(asset.modality, content)
    return inputs


@pytest.fixture(scope="session")
def make_library() -> Callable[..., Library]:
    def make(folder: Path, count: int = 60, *, fresh: int = 10) -> Library:
        """`count` items, the last `fresh` of them newer than the published generation."""
        embedder, files = FakeEmbedder(), folder / "files"
        files.mkdir()
        store = Store.open(folder / "library", create=True)
        items = make_items(files, store, count)
        kept: dict[str, dict[str, Any]] = {"joint": {}, "caption": {}}
        spaces = [SpaceRecord(name, dim, HEADS, VOCABULARY) for name, dim in DIMS.items()]
        with store.writer() as writer:
            writer.create_collection(
                "photos",
                model="fake",
                fingerprint=FakeModel().fingerprint,
                spaces=spaces,
                views=["joint", "caption"],
            )
            for part in (items[: count - fresh], items[count - fresh :]):
                if not part:
                    continue
                ids = [item.id for item in part for _ in kept]
                views = [view for _ in part for view in kept]
                inputs = [view_inputs(embedder, item, view) for item in part for view in kept]
                embedded = embedder.embed(inputs)
                vectors = {name: space.vectors.astype(np.float16) for name, space in embedded.items()}
                tokens = {name: space.tokens for name, space in embedded.items()}
                for i, (item_id, view) in enumerate(zip(ids, views, strict=True)):
                    kept[view][item_id] = (
                        {name: vectors[name][i].astype(np.float32) for name in DIMS},
                        {name: tokens[name][i] for name in DIMS},
                    )
                writer.commit("photos", items=part, rows=Rows(ids, views, vectors, tokens))
                if part is not items[count - fresh :] and len(part) == count - fresh:
                    writer.publish("photos")
        return Library(store, files, {item.id: item for item in items}, kept)

    return make


@pytest.fixture(scope="session")
def library(
    tmp_path_factory: pytest.TempPathFactory, make_library: Callable[..., Library]
) -> Iterator[Library]:
    """60 items, read-only."""
    made = make_library(tmp_path_factory.mktemp("library"))
    yield made
    made.store.close()


@pytest.fixture
def engine(library: Library, model: FakeModel) -> SearchEngine:
    return SearchEngine(library.store, model)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def png() -> bytes:
    """A picture that no item has."""
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (10, 8), (1, 2, 3)).save(buffer, format="PNG")
    return buffer.getvalue()
