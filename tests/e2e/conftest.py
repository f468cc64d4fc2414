"""A folder of rendered scenes, and the command line run in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from anyseek.cli import main
from anyseek.model.scenes import write_scenes
from click.testing import CliRunner, Result

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
