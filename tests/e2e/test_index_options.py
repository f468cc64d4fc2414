"""`anyseek index` with galleries of teachers and with predicted attributes, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.torch import save_file

Run = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("quick_predictions")


@pytest.fixture
def photos(scenes: Path, tmp_path: Path) -> Path:
    """Four pictures, one with its own vectors."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(1, 5):
        (folder / f"{i}.png").write_bytes((scenes / f"{i:04d}.png").read_bytes())
    for space, dim in (("dinov2_global", 768), ("imagebind_global", 1280)):
        np.save(folder / f"1.{space}.npy", np.linspace(-1, 2, dim, dtype=np.float32))
    return folder


def answer(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_own_vectors_are_the_gallery(run: Run, photos: Path, any_bundle: Path) -> None:
    report = answer(
        run("index", photos, "--to", "p", "--model", any_bundle, "--gallery", "teacher", "--json")
    )
    assert (report["done"], report["without_teacher"], report["errors"]) == (4, 3, [])
    assert answer(run("collections", "--json"))["collections"][0]["gallery"] == "teacher"
    found = answer(
        run("search", "p", "--part", "dinov2_global", photos / "1.dinov2_global.npy", "1", "--json")
    )
    assert len(found["hits"]) == 4
    text = run("index", photos, "--to", "q", "--model", any_bundle, "--gallery", "teacher")
    assert "3 items hold a predicted vector among the teachers'" in text.stdout


def test_another_gallery_is_refused(run: Run, photos: Path, any_bundle: Path) -> None:
    run("index", photos, "--to", "p", "--model", any_bundle, "--gallery", "teacher")
    refused = run("index", photos, "--to", "p")
    assert refused.exit_code == 6
    assert "the gallery 'teacher', not of 'predicted'" in refused.stderr
    assert "[collection.gallery]" in refused.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--teacher", "dinov2"], 2, "--teacher makes vectors only with --gallery teacher"),
        (["--gallery", "teacher", "--teacher", "dino"], 3, "Unknown teacher 'dino'. Known: clip, dinov2"),
        (["--gallery", "teacher", "--teacher", "imagebind"], 3, "No weights of imagebind are published"),
        (["--gallery", "teacher", "--teacher", "imagebind={pickle}"], 3, "pickle"),
        (["--gallery", "teacher", "--teacher", "imagebind={other}"], 3, "is no imagebind (huge)"),
        (["--gallery", "true"], 2, "'true' is not one of"),
        (["--predict", "depth"], 2, "No attribute is made of depth"),
        (["--predict", "mood"], 3, "Unknown modality 'mood'"),
        (["--predict", "metadata", "--model", "{narrow}"], 2, "does not predict metadata, only dino"),
    ],
)
def test_what_cannot_be_is_said(
    run: Run,
    photos: Path,
    any_bundle: Path,
    narrow_bundle: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    message: str,
) -> None:
    pickle, other = tmp_path / "imagebind_huge.pth", tmp_path / "other.safetensors"
    torch.save({}, pickle)
    save_file({"x": torch.zeros(1)}, other)
    words = [option.format(pickle=pickle, other=other, narrow=narrow_bundle) for option in options]
    result = run("index", photos, "--to", "p", "--model", any_bundle, *words)
    told = "Licence of the teacher imagebind: CC-BY-NC-4.0" in result.stderr
    assert told == any("imagebind" in word for word in words)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())


def test_predicted_attributes_are_there_or_listed(run: Run, photos: Path, any_bundle: Path) -> None:
    """The little model writes noise: what of it can be read is kept, what cannot is listed, nothing fails."""
    options = ["--predict", "metadata,palette, caption", "--json"]
    report = answer(run("index", photos, "--to", "p", "--model", any_bundle, *options))
    assert (report["done"], report["failed"]) == (4, 0)
    assert {error["code"] for error in report["errors"]} <= {"attributes.unreadable"}
    hits = answer(run("search", "p", "--caption", "a cube", "--json"))["hits"]
    told = {error["path"]: error["message"] for error in report["errors"]}
    for hit in hits:
        keys = [key for key in hit["attributes"] if key.startswith("predicted.")]
        assert keys or str(photos / f"{hit['id']}.png") in told


def test_the_same_wish_again_changes_nothing(run: Run, photos: Path, any_bundle: Path) -> None:
    first = ["index", photos, "--to", "p", "--model", any_bundle]
    assert answer(run(*first, "--predict", "caption", "--json"))["done"] == 4
    bad = len(answer(run(*first, "--predict", "caption", "--json"))["errors"])
    again = answer(run(*first, "--predict", "caption", "--json"))
    assert (again["skipped"], again["done"]) == (4 - bad, bad)
    assert answer(run(*first, "--json"))["done"] == 4
