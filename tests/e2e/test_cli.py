"""The command line on real files with the packaged model: what it does, and what it says when it cannot."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from anyseek.cli import main
from click.testing import Result
from PIL import Image

ROOT = Path(__file__).parents[2]
Run = Callable[..., Result]


def answer(result: Result) -> dict[str, object]:
    """The JSON object on the last line of standard output."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_what_was_indexed_is_found_by_its_own_picture(run: Run, scenes: Path) -> None:
    report = answer(run("index", scenes, "--to", "scenes", "--view", "rgb", "--view", "joint", "--json"))
    assert (report["done"], report["failed"], report["errors"]) == (24, 0, [])
    for name in ("0001", "0013", "0024"):
        found = answer(run("search", "scenes", "--rgb", scenes / f"{name}.png", "--view", "rgb", "--json"))
        assert found["hits"][0]["id"] == name  # type: ignore[index]


def test_every_modality_and_mix_is_a_query(run: Run, scenes: Path) -> None:
    run("index", scenes, "--to", "scenes")
    side = {m: scenes / f"0005.{m}.json" for m in ("det", "metadata", "color_palette")}
    queries = [
        ["--caption", "a red cube", "--not", "a sphere"],
        ["--det", side["det"]],
        ["--metadata", side["metadata"], "--metadata", '{"brightness": 90}'],
        ["--color-palette", side["color_palette"]],
        ["--color-palette", "#20324a,#e0a35a", "--caption", "a torus"],
        ["--like", "0002"],
        ["--part", "caption", "a cone", "0.5", "--part", "rgb", scenes / "0003.png", "-1"],
    ]
    for query in queries:
        found = answer(run("search", "scenes", *query, "--limit", "3", "--explain", "--json"))
        assert len(found["hits"]) == 3, query  # type: ignore[arg-type]


def test_filters_limit_what_is_found(run: Run, scenes: Path) -> None:
    run("index", scenes, "--to", "scenes")
    everything = answer(run("search", "scenes", "--caption", "a cube", "--limit", "24", "--json"))
    counts = {hit["id"]: hit["attributes"]["num_objects"] for hit in everything["hits"]}  # type: ignore[union-attr]
    found = answer(
        run(
            "search",
            "scenes",
            "--caption",
            "a cube",
            "--where",
            "num_objects >= 3",
            "--limit",
            "24",
            "--json",
        )
    )
    assert {hit["id"] for hit in found["hits"]} == {i for i, n in counts.items() if n >= 3}  # type: ignore[union-attr]


def test_the_grid_is_drawn(run: Run, scenes: Path, tmp_path: Path) -> None:
    run("index", scenes, "--to", "scenes")
    grid = tmp_path / "grid.png"
    assert run("search", "scenes", "--caption", "a cube", "--save-grid", grid).exit_code == 0
    with Image.open(grid) as picture:
        assert min(picture.size) > 100
    unwritable = run("search", "scenes", "--caption", "a cube", "--save-grid", tmp_path / "no" / "grid.png")
    assert unwritable.exit_code == 2
    assert "grid.png" in unwritable.stderr


def test_indexing_again_skips_what_is_unchanged_and_lists_what_is_bad(
    run: Run, scenes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("0001.png", "0002.png"):
        (folder / name).write_bytes((scenes / name).read_bytes())
    (folder / "broken.jpg").write_bytes(b"no picture")
    first = answer(run("index", folder, "--to", "photos", "--json"))
    assert (first["done"], first["failed"]) == (2, 1)
    assert [Path(error["path"]).name for error in first["errors"]] == ["broken.jpg"]  # type: ignore[union-attr]
    second = answer(run("index", folder, "--to", "photos", "--json"))
    assert (second["done"], second["skipped"]) == (0, 2)


def test_nothing_usable_is_a_failure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    assert run("index", tmp_path / "photos", "--to", "photos").exit_code == 1


def test_the_packaged_model_predicts_files_that_search_takes(run: Run, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted = ("depth", "normal", "semseg", "canny_edge", "sam_edge", "caption", "color_palette", "metadata")
    into = ("--out", out, "--model", "scenes", "--json")
    told = answer(run("predict", scenes / "0001.png", "--to", ",".join(wanted), *into))
    assert not told["problems"]
    assert (out / "overview.png").is_file()
    run("index", scenes, "--to", "scenes")
    for raw in wanted:
        (file,) = out.glob(f"0001.{raw}.*")
        content = file.read_text() if raw == "caption" else file
        assert run("search", "scenes", "--part", raw, content, "1").exit_code == 0, raw
    asked = ("--semseg", out / "0001.semseg.png", "--caption", "a red car on a meadow")
    made = run("predict", *asked, "--to", "rgb", "--out", tmp_path / "rgb", "--model", "scenes")
    assert made.exit_code == 0, made.output
    (drawn,) = (path for path in (tmp_path / "rgb").glob("*.png") if path.name != "overview.png")
    with Image.open(drawn) as image:
        assert image.size == (128, 128)


def test_errors_say_what_is_known_and_set_the_exit_code(run: Run, scenes: Path, tmp_path: Path) -> None:
    run("index", scenes, "--to", "scenes")
    cases = [
        (("search", "birds", "--caption", "x"), 4, "scenes"),
        (("search", "scenes"), 2, "part"),
        (("search", "scenes", "--not", "x"), 2, "positive"),
        (("search", "scenes", "--caption", "x", "--where", "yeer >= 1"), 2, "num_objects"),
        (("search", "scenes", "--caption", "x", "--where", "year >="), 2, "column"),
        (("search", "scenes", "--caption", "x", "--view", "depth"), 2, "joint"),
        (("search", "scenes", "--rgb", tmp_path / "none.png"), 2, "none.png"),
        (("search", "scenes", "--part", "clip", scenes / "0001.png", "1"), 2, "caption"),
        (("search", "scenes", "--part", "caption", "x", "much"), 2, "much"),
        (("search", "scenes", "--metadata", '{"brightness": '), 2, "metadata"),
        (("index", scenes, "--to", "scenes", "--model", "4m22"), 3, "4m21-b"),
        (("index", scenes, "--to", "scenes", "--view", "smell"), 2, "caption"),
    ]
    for arguments, code, told in cases:
        result = run(*arguments)
        assert (result.exit_code, told in result.stderr) == (code, True), (arguments, result.output)
        assert "Traceback" not in result.output


def test_collections_are_listed_and_deleted(run: Run, scenes: Path) -> None:
    run("index", scenes, "--to", "scenes")
    (row,) = answer(run("collections", "--json"))["collections"]  # type: ignore[misc]
    assert (row["name"], row["items"], row["model"]) == ("scenes", 24, "scenes")  # type: ignore[index]
    assert run("collections", "delete", "scenes", "--yes").exit_code == 0
    assert answer(run("collections", "--json")) == {"collections": []}
    assert (scenes / "0001.png").is_file()


def test_models_tell_their_licences(run: Run) -> None:
    rows = {row["name"]: row for row in answer(run("models", "--json"))["models"]}  # type: ignore[union-attr]
    assert "non-commercial" in rows["4m21-b"]["license"]
    assert rows["scenes"]["license"] == "Apache-2.0"


def commands(group: click.Group, prefix: str = "anyseek") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found[f"{prefix} {name}"] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix} {name}")
    return found


@pytest.mark.parametrize("name", sorted(commands(main)))
def test_every_command_has_help_and_documentation(name: str) -> None:
    command = commands(main)[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help or parameter.show_default, parameter.name
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(re.search(rf"{name}\b", path.read_text(encoding="utf-8")) for path in documents)


@pytest.mark.slow
def test_the_demo_measures_what_it_promises(run: Run, tmp_path: Path) -> None:
    result = run(
        "demo", "--home", tmp_path / "home", "--scenes", "100", "--seed", "5", "--no-serve", "--json"
    )
    told = answer(result)
    assert (told["items"], told["failures"]) == (100, 0)
    assert Path(str(told["grid"])).is_file()
    retrieval: dict[str, dict[str, float]] = told["retrieval"]  # type: ignore[assignment]
    assert {"rgb", "caption", "det", "color_palette", "metadata"} < set(retrieval)
    assert sum("+" in name for name in retrieval) >= 2
    for found in retrieval.values():
        assert 0 <= found["r1"] <= found["r5"] <= found["r10"] <= 1
        assert found["median_rank"] >= 1
    assert retrieval["rgb"]["r1"] >= 0.5
    assert retrieval["caption"]["r10"] >= 0.7
    again = run("demo", "--home", tmp_path / "home", "--scenes", "50", "--no-serve")
    assert again.exit_code == 2
    assert "--home" in again.stderr
