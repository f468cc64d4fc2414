"""Small collections whose vectors follow from item, view and version: any test can tell what is right."""

import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from anyseek.storage import Asset, Collection, Item, Rows, SpaceRecord, Store, Writer


class Samples:
    spaces = (SpaceRecord("dino", 8, 4, 64), SpaceRecord("bind", 12, 4, 4096))
    views = ("joint", "rgb", "caption")

    def create(self, writer: Writer, name: str = "photos", fingerprint: str = "f1") -> Collection:
        return writer.create_collection(
            name, model="tiny", fingerprint=fingerprint, spaces=self.spaces, views=self.views
        )

    def vector(self, space: str, item: str, view: str, version: int = 0) -> np.ndarray:
        """As stored: rounded to float16, returned as float32."""
        dim = next(each.dim for each in self.spaces if each.name == space)
        seed = zlib.crc32(f"{space}/{item}/{view}/{version}".encode())
        vector = np.random.default_rng(seed).standard_normal(dim)
        return (vector / np.linalg.norm(vector)).astype(np.float16).astype(np.float32)

    def tokens(self, space: str, item: str, view: str, version: int = 0) -> np.ndarray:
        seed = zlib.crc32(f"tokens/{space}/{item}/{view}/{version}".encode())
        return np.random.default_rng(seed).integers(0, 64, 4).astype(np.uint16)

    def rows(self, ids: Sequence[str], views: Sequence[str] = ("joint",), version: int = 0) -> Rows:
        return self.rows_of([(id, view) for id in ids for view in views], version)

    def rows_of(self, pairs: Sequence[tuple[str, str]], version: int = 0) -> Rows:
        """Rows of (item, view) pairs."""
        return Rows(
            item_ids=[id for id, _ in pairs],
            views=[view for _, view in pairs],
            vectors={
                s.name: np.array([self.vector(s.name, *pair, version) for pair in pairs]).reshape(-1, s.dim)
                for s in self.spaces
            },
            tokens={
                s.name: np.array([self.tokens(s.name, *pair, version) for pair in pairs], np.uint16).reshape(
                    -1, s.num_tokens
                )
                for s in self.spaces
            },
        )

    def items(self, ids: Sequence[str], version: int = 0) -> list[Item]:
        return [
            Item(
                id,
                (Asset("rgb", path=f"/photos/{id}.jpg"), Asset("caption", value=f"picture {id}")),
                {"version": version, "name": id},
                signature=f"{id}-{version}",
                source="/photos",
            )
            for id in ids
        ]

    def commit(self, writer: Writer, ids: Sequence[str], version: int = 0, **options: object) -> None:
        writer.commit(
            "photos",
            items=self.items(ids, version),
            rows=self.rows(ids, version=version),
            **options,  # type: ignore[arg-type]
        )

    def found(self, store: Store, item: str, version: int = 0, view: str = "joint") -> bool:
        """Whether the best match of an item's own vector is that item, in that version."""
        snapshot = store.snapshot("photos")
        query = self.vector("dino", item, view, version)[None]
        matches = snapshot.search("dino", view, query, 1)
        if matches.rows[0, 0] < 0 or matches.scores[0, 0] < 0.99:
            return False
        return snapshot.item_ids[snapshot.items_of(view, matches.rows[0])[0]] == item


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power, and waiting for the disk would take most of their time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def samples() -> Samples:
    return Samples()


@pytest.fixture(scope="session")
def empty_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to copy: most of the time of making one goes into its tables."""
    path = tmp_path_factory.mktemp("empty") / "library"
    Store.open(path, create=True).close()
    return path


@pytest.fixture
def store(tmp_path: Path, empty_library: Path) -> Iterator[Store]:
    shutil.copytree(empty_library, tmp_path / "library")
    with Store.open(tmp_path / "library") as store:
        yield store


@pytest.fixture
def writer(store: Store, samples: Samples) -> Iterator[Writer]:
    """Writes to `store`, which has an empty collection `photos`."""
    with store.writer() as writer:
        samples.create(writer)
        yield writer


@pytest.fixture
def photos(store: Store, writer: Writer) -> Path:
    """The folder of the collection `photos`."""
    assert writer
    return store.path / "collections" / store.collection("photos").id
