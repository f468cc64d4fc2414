"""The Python of the documentation runs as it stands, with the tiny model in place of the published one."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import anyseek.model
import numpy as np
import pytest
from anyseek.model import load_model
from fastapi import FastAPI
from PIL import Image

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("quick_predictions")


@pytest.fixture
def page(any_bundle: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A folder with the files that the pages name, and what they take for granted by name."""
    for name in ("harbour.jpg", "boat.jpg", "photos/one.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(scenes / "0001.png", tmp_path / name)
    (tmp_path / "photos" / "one.json").write_text(json.dumps({"year": 2025, "license": "cc0"}))
    (tmp_path / "out").mkdir()
    Image.new("L", (64, 64), 2).save(tmp_path / "edited.semseg.png")

    def load(_name: str = "", **options: Any) -> anyseek.model.Model:
        return load_model(any_bundle, device="cpu", dtype="float32", spaces=options.get("spaces"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANYSEEK_MODEL", str(any_bundle))
    monkeypatch.setattr(anyseek.model, "load_model", load, raising=False)
    return {"np": np, "app": FastAPI(), "model": load(spaces=())}


@pytest.mark.parametrize(
    "name", ["README.md", "docs/searching.md", "docs/predicting.md", "docs/predictions.md"]
)
def test_snippets_run(name: str, page: dict[str, Any]) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert snippets
    for snippet in snippets:
        exec(snippet.replace("(224, 224)", "(64, 64)"), page)
