"""`anyseek eval task` on a small data set."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from anyseek.cli import TASK_NAMES, main
from anyseek.model.tasks import TASKS
from click.testing import CliRunner, Result
from PIL import Image

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("quick_predictions")


@pytest.fixture
def run(any_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("ANYSEEK_DEVICE", "cpu")

    def invoke(*arguments: object, model: object = any_bundle) -> Result:
        words = ["eval", "task", *map(str, arguments), "--model", str(model)]
        return CliRunner().invoke(main, words)

    return invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for modality in ("rgb", "depth"):
        (tmp_path / modality).mkdir()
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (70, 90, 3)).astype(np.uint8)).save(tmp_path / f"rgb/{name}.png")
        np.save(tmp_path / f"depth/{name}.npy", rng.uniform(1, 5, (70, 90)))
    (tmp_path / "depth" / "c.npy").write_bytes(b"\x93NUMPY and no more")
    return tmp_path


def test_json_has_metrics_failures_and_settings(run: Callable[..., Result], folder: Path) -> None:
    result = run("depth", "--data", folder, "--seed", 3, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert {"l1", "abs_rel", "delta1"} == told["metrics"].keys()
    assert (told["task"], told["num_samples"], told["settings"]["seed"]) == ("depth", 2, 3)
    (failure,) = told["failures"]
    assert (failure["name"], "c.npy" in failure["message"]) == ("c", True)
    assert told["license"]


def test_table_has_metrics_and_errors_go_to_standard_error(run: Callable[..., Result], folder: Path) -> None:
    result = run("depth", "--data", folder)
    assert result.exit_code == 0, result.output
    assert "abs_rel" in result.stdout
    assert "failed 1" in result.stdout
    assert "c.npy" in result.stderr
    assert "c.npy" not in result.stdout


def test_wrong_uses_end_with_their_codes(
    run: Callable[..., Result], folder: Path, narrow_bundle: Path, tmp_path: Path
) -> None:
    missing = run("depth", "--data", tmp_path / "missing")
    assert (missing.exit_code, "_depth_mask.npy" in missing.stderr) == (2, True)
    assert run("nothing", "--data", folder).exit_code == 2
    assert run("knn", "--data", folder).exit_code == 2
    unable = run("depth", "--data", folder, model=narrow_bundle)
    assert (unable.exit_code, "does not predict depth" in unable.stderr) == (3, True)


def test_help_and_page_name_every_task() -> None:
    shown = CliRunner().invoke(main, ["eval", "task", "--help"]).output
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert tuple(TASKS) == TASK_NAMES
    for name, source in TASKS.items():
        assert f"\n  {name} " in shown
        assert f"anyseek eval task {name} " in page
        assert f"`{source.metric}`" in page
