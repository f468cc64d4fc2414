"""`anyseek eval retrieval|index|check` on rendered scenes with the packaged model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyseek
import pytest
from anyseek.cli import main
from anyseek.model.scenes import write_scenes
from click.testing import CliRunner, Result
from PIL import Image

NUM = 40
WRONG = ("0003", "0011")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of which two have each other's depth, in two views, and the same from another place."""
    home = tmp_path_factory.mktemp("eval")
    write_scenes(home / "scenes", NUM, seed=9)
    write_scenes(home / "moved", NUM, seed=9, rendering=1)
    a, b = (home / "scenes" / f"{name}.depth.png" for name in WRONG)
    shutil.copy(a, home / "spare")
    shutil.copy(b, a)
    shutil.copy(home / "spare", b)
    with anyseek.open(home / "library") as library:
        library.index(home / "scenes", to="scenes", model="scenes", views=("joint", "rgb"))
    return home


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for name in ("MODEL", "DEVICE", "DTYPE", "DATABASE_URL"):
        monkeypatch.delenv(f"ANYSEEK_{name}", raising=False)

    def invoke(*arguments: object) -> Result:
        words = ["--library", str(home / "library"), "eval", *map(str, arguments)]
        return CliRunner().invoke(main, words)

    return invoke


def answer(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def is_picture(path: Path) -> bool:
    with Image.open(path) as picture:
        return min(picture.size) > 200


def test_other_photos_find_their_scenes(run: Callable[..., Result], home: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.png" for name in ("matrix", "gaps")}
    found = answer(
        run(
            *(
                "retrieval",
                "scenes",
                "--queries",
                f"rgb={home / 'moved'}",
                "--mix",
                "caption+palette",
                "--json",
            ),
            *("--no-compare", "--save-matrix", files["matrix"], "--save-gaps", files["gaps"]),
        )
    )
    cells = {(cell["query"], cell["view"]): cell for cell in found["matrix"]}
    assert cells["rgb", "rgb"]["figures"]["r1"] > 0.7
    assert not cells["rgb", "rgb"]["own"]
    assert cells["caption", "joint"]["own"]
    (gap,) = found["gaps"]
    assert (gap["mix"], gap["view"]) == ("caption+color_palette", "rgb")
    assert all(is_picture(path) for path in files.values())


def test_choices_are_shown_as_tables(run: Callable[..., Result]) -> None:
    result = run("retrieval", "scenes", "--modality", "caption", "--modality", "palette", "--limit", 8)
    assert result.exit_code == 0, result.output
    for word in ("argmax", "likelihood", "imagebind_global", "guided", "overlap", "No ceiling"):
        assert word in result.stdout, word


def test_indexes_are_measured_without_a_model(run: Callable[..., Result], tmp_path: Path) -> None:
    plot = tmp_path / "index.png"
    found = answer(run("index", "scenes", "--limit", 10, "--selectivity", 0.5, "--save-plot", plot, "--json"))
    assert len(found["indexes"]) == 4
    assert all(index["searches"][0]["recall"]["10"] == 1 for index in found["indexes"])
    assert is_picture(plot)
    table = run("index", "scenes", "--limit", 10)
    assert "bare FAISS" in table.stdout


def test_swapped_depth_is_found(run: Callable[..., Result], tmp_path: Path) -> None:
    pictures = tmp_path / "worst.png"
    words = ("check", "scenes", "--modality", "rgb", "--modality", "depth", "--modality", "semseg")
    found = answer(run(*words, "--json", "--save-pictures", pictures))
    suspects = {finding["id"]: finding["suspect"] for finding in found["findings"][:4]}
    assert set(WRONG) <= set(suspects)
    assert [suspects[name] for name in WRONG] == ["depth"] * 2
    assert is_picture(pictures)
    assert "suspect" in run(*words, "--top", 3).stdout


def test_wrong_use_is_told(run: Callable[..., Result], tmp_path: Path) -> None:
    for words, code, said in (
        (("retrieval", "nothing"), 4, "nothing"),
        (("retrieval", "scenes", "--mix", "caption+clip"), 2, "clip"),
        (("retrieval", "scenes", "--queries", tmp_path / "nowhere"), 2, "nowhere"),
        (("index", "scenes", "--view", "depth"), 2, "depth"),
        (("check", "scenes", "--modality", "rgb"), 2, "Two modalities"),
        (("index", "scenes", "--limit", 5, "--save-plot", tmp_path / "no" / "a.png"), 2, "a.png"),
    ):
        result = run(*words)
        assert (result.exit_code, said in result.stderr) == (code, True), (words, result.output)


def test_the_library_measures_as_the_command_does(home: Path) -> None:
    from anyseek.search import CheckSettings, IndexSettings, RetrievalSettings

    with anyseek.open(home / "library", create=False) as library:
        scenes = library["scenes"]
        settings = RetrievalSettings(limit=5, modalities=["caption"], compare=False)
        assert scenes.evaluate(settings).cell("caption", "rgb").figures is not None
        assert scenes.evaluate_index(IndexSettings(limit=5)).num_items == NUM
        assert len(scenes.check(CheckSettings(modalities=["rgb", "color_palette"], top=2)).findings) == 2
