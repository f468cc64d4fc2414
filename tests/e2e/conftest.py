"""A folder of rendered scenes, and the command line run in this process."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import anyseek
import pytest
from anyseek.cli import main
from anyseek.model import Model, load_model
from anyseek.model.scenes import write_scenes
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient

NUM_SCENES = 24

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes with all their side files; read-only by agreement."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, NUM_SCENES, seed=3)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command on a library of this test's own."""
    for name in ("MODEL", "DEVICE", "DTYPE", "DATABASE_URL", "API_KEY", "INDEX_ROOTS"):
        monkeypatch.delenv(f"ANYSEEK_{name}", raising=False)
    monkeypatch.setenv("ANYSEEK_LIBRARY", str(tmp_path / "library.anyseek"))

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return invoke


@cache
def opened_model(source: str) -> Model:
    """A model, opened once: commands of one process would open it again and again."""
    return load_model(source, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def any_library(
    tmp_path_factory: pytest.TempPathFactory, any_bundle: Path, scenes: Path
) -> Iterator[tuple[anyseek.Library, TestClient]]:
    """Three scenes as photos, indexed by a model that takes and gives everything; commands find it too."""
    home = tmp_path_factory.mktemp("every")
    (home / "photos").mkdir()
    for name in ("0001.png", "0002.png", "0003.png"):
        shutil.copy(scenes / name, home / "photos" / name)

    def load(source: str | Path, **_: Any) -> Model:
        return opened_model(str(source))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYSEEK_LIBRARY", str(home / "x.anyseek"))
        patch.setenv("ANYSEEK_MODEL", str(any_bundle))
        patch.setattr("anyseek.model.load_model", load, raising=False)
        with anyseek.open() as opened:
            assert opened.index(home / "photos", to="photos").failed == 0
            yield opened, TestClient(opened.app(), raise_server_exceptions=False)
