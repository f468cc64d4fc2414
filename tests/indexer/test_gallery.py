"""Collections of the teachers' own vectors."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import ConflictError
from anyseek.indexer import FolderSource, Indexer, IndexReport, NewItem
from anyseek.model import Model, Teacher, TeacherEmbedder, load_model, load_teacher
from anyseek.model.teachers import TEACHERS
from anyseek.storage import Store
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

DINO, BIND = "dinov2_global", "imagebind_global"


def quarters(network: nn.Module, pixels: Tensor) -> Mapping[str, Tensor]:
    return {DINO: network(functional.adaptive_avg_pool2d(pixels, 2).flatten(1))}


def open_toy(path: Path, seed: int = 0) -> Teacher:
    """A DINOv2 that sees how bright each quarter is."""
    generator = torch.Generator().manual_seed(seed)
    save_file({"weight": torch.randn(768, 12, generator=generator), "bias": torch.zeros(768)}, path)
    source = replace(
        TEACHERS["dinov2"],
        modalities=(DINO,),
        build=lambda *_: nn.Linear(12, 768),
        features=quarters,
        fit=None,
        package=None,
        image_size=64,
    )
    return load_teacher(source, path)


@pytest.fixture(scope="module")
def model(any_bundle: Path) -> Model:
    return load_model(any_bundle, device="cpu", dtype="float32")


@pytest.fixture
def teacher(tmp_path: Path) -> Teacher:
    return open_toy(tmp_path / "toy.safetensors")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "library.anyseek", create=True) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[..., Path]) -> Path:
    root = tmp_path / "mixed"
    for i in range(3):
        picture(root / f"photo{i}.png", seed=i, size=(64, 64))
    (root / "words.caption.txt").write_text("a red cube")
    picture(root / "own.png", seed=9, size=(64, 64))
    np.save(root / f"own.{DINO}.npy", np.linspace(-1, 1, 768, dtype=np.float32))
    np.save(root / f"vector.{BIND}.npy", np.linspace(1, -2, 1280, dtype=np.float32))
    return root


def index(
    store: Store, model: Model, folder: Path, gallery: TeacherEmbedder | None, **options: Any
) -> IndexReport:
    return Indexer(store, model, gallery=gallery, **options).index("photos", FolderSource(folder))


def vectors(store: Store, space: str, view: str = "joint") -> dict[str, np.ndarray]:
    snapshot = store.snapshot("photos")
    numbers = np.arange(snapshot.num_rows(view))
    found = snapshot.vectors(space, view, numbers)
    owners = snapshot.items_of(view, numbers)
    return {snapshot.item_ids[int(owner)]: vector for owner, vector in zip(owners, found, strict=True)}


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_pictures_are_kept_with_their_teacher_s_vectors(
    store: Store, model: Model, teacher: Teacher, folder: Path
) -> None:
    report = index(store, model, folder, TeacherEmbedder(model, [teacher]))
    assert (report.done, report.failed, list(report.errors)) == (6, 0, [])
    found = vectors(store, DINO)
    for i in range(3):
        pixels = np.asarray(Image.open(folder / f"photo{i}.png"))
        truth = unit(teacher.extract(pixels[None])[DINO][0])
        np.testing.assert_allclose(found[f"photo{i}"], truth, atol=1e-3)  # kept as float16
    np.testing.assert_allclose(found["own"], unit(np.linspace(-1, 1, 768)), atol=1e-3)
    predicted = model.embedder.embed([{"caption": model.embedder.read("caption", "a red cube")}])
    np.testing.assert_allclose(found["words"], predicted[DINO].vectors[0], atol=1e-3)
    np.testing.assert_allclose(vectors(store, BIND)["vector"], unit(np.linspace(1, -2, 1280)), atol=1e-3)
    assert store.collection("photos").gallery == TeacherEmbedder(model, [teacher]).name


def test_items_with_a_predicted_vector_are_counted(
    store: Store, model: Model, teacher: Teacher, folder: Path
) -> None:
    # No teacher of ImageBind is there, so only an item with both vectors would be without prediction.
    assert index(store, model, folder, TeacherEmbedder(model, [teacher])).without_teacher == 6
    np.save(folder / f"own.{BIND}.npy", np.ones(1280, np.float32))
    report = index(store, model, folder, TeacherEmbedder(model, [teacher]))
    assert (report.done, report.skipped, report.without_teacher) == (1, 5, 0)
    with Store.open(folder.parent / "plain", create=True) as plain:
        assert index(plain, model, folder, None).without_teacher == 0


def test_a_view_without_the_picture_is_predicted(
    store: Store, model: Model, teacher: Teacher, folder: Path
) -> None:
    (folder / "photo0.caption.txt").write_text("a red cube")
    gallery = TeacherEmbedder(model, [teacher])
    index(store, model, folder, gallery, views=["joint", "rgb", "caption"])
    words = model.embedder.embed([{"caption": model.embedder.read("caption", "a red cube")}])[DINO].vectors[0]
    joint, rgb, caption = (vectors(store, DINO, view)["photo0"] for view in ("joint", "rgb", "caption"))
    np.testing.assert_allclose(joint, rgb, atol=1e-3)
    np.testing.assert_allclose(caption, words, atol=1e-3)
    assert np.abs(joint - caption).max() > 0.01


def test_vectors_of_another_origin_are_refused(
    store: Store, model: Model, teacher: Teacher, folder: Path, tmp_path: Path
) -> None:
    other = open_toy(tmp_path / "other.safetensors", seed=1)
    galleries = {
        "predicted": None,
        "own": TeacherEmbedder(model),
        "teacher": TeacherEmbedder(model, [teacher]),
        "other": TeacherEmbedder(model, [other]),
    }
    for name, gallery in galleries.items():
        Indexer(store, model, gallery=gallery).create(name)
    for name in galleries:
        for other_name, gallery in galleries.items():
            indexer = Indexer(store, model, gallery=gallery)
            if name == other_name:
                indexer.create(name)
                continue
            with pytest.raises(ConflictError, match="the two do not mix") as caught:
                indexer.index(name, FolderSource(folder))
            assert caught.value.code == "collection.gallery"
            with pytest.raises(ConflictError):
                indexer.add(name, [NewItem("a", {"caption": "words"})])
    assert all(collection.num_items == 0 for collection in store.collections())


def test_an_interrupted_job_goes_on_with_the_same_rows(
    tmp_path: Path, model: Model, teacher: Teacher, folder: Path
) -> None:
    rows: list[dict[str, np.ndarray]] = []
    for name, num_stops in (("whole", 0), ("stopped", 2)):
        with Store.open(tmp_path / name, create=True) as store:
            gallery = TeacherEmbedder(model, [teacher])
            indexer = Indexer(store, model, gallery=gallery, batch_size=2, items_per_segment=2)
            for _ in range(num_stops):
                assert (
                    indexer.index("photos", FolderSource(folder), should_stop=lambda: True).state == "stopped"
                )
            assert indexer.index("photos", FolderSource(folder)).state == "done"
            rows.append(vectors(store, DINO))
    assert rows[0].keys() == rows[1].keys()
    assert all(np.array_equal(rows[0][id_], rows[1][id_]) for id_ in rows[0])


def test_a_teacher_that_fails_on_one_picture_costs_that_one(
    store: Store, model: Model, teacher: Teacher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = np.asarray(Image.open(folder / "photo1.png"))
    original = teacher.extract

    def extract(images: np.ndarray) -> dict[str, np.ndarray]:
        if any(np.array_equal(image, bad) for image in images):
            raise MemoryError("out of memory")
        return original(images)

    monkeypatch.setattr(teacher, "extract", extract)
    report = index(store, model, folder, TeacherEmbedder(model, [teacher]))
    assert (report.done, report.failed) == (5, 1)
    (error,) = report.errors
    assert Path(error.path).name == "photo1.png"
    assert "out of memory" in error.message


def test_a_vector_that_is_not_finite_is_no_row(
    store: Store, model: Model, teacher: Teacher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = teacher.extract
    monkeypatch.setattr(teacher, "extract", lambda images: {DINO: original(images)[DINO] * np.float32("nan")})
    report = index(store, model, folder, TeacherEmbedder(model, [teacher]))
    assert report.failed == 3  # `own` has its vector, so it is not shown to the teacher
    assert {error.code for error in report.errors} == {"model.not_finite"}
