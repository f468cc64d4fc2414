"""What docs/training.md shows is run as it stands there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from anyseek.cli import main
from anyseek.model.training.fourm_recipes import FourMRun, Modalities
from anyseek.model.training.masking import Component
from anyseek.model.training.run_files import parse_run
from click.testing import CliRunner
from PIL import Image
from pydantic import TypeAdapter

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_every_configuration_is_one() -> None:
    seen = 0
    for text in blocks("yaml"):
        values = yaml.safe_load(text)
        if set(values) == {"mixture"}:
            TypeAdapter(tuple[Component, ...]).validate_python(values["mixture"])
        else:
            parse_run(values, FourMRun, where="docs/training.md")
        seen += 1
    assert seen == 5


def test_every_key_is_explained() -> None:
    keys = {*FourMRun.model_fields, *FourMRun.model_fields["training"].default.__dataclass_fields__}
    assert not [key for key in sorted(keys) if key not in PAGE]
    assert {*Modalities.model_fields} <= {*FourMRun.model_fields}


@pytest.mark.slow
def test_the_new_modality_is_learned_by_the_commands_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANYSEEK_DEVICE", "cpu")
    for folder in ("rgb", "inspection"):
        (tmp_path / "parts" / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(1, 41):
        is_rusty = number % 2
        pixels = random.integers(0, 60, (96, 96, 3)) + ([180, 80, 0] if is_rusty else [60, 120, 180])
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"parts/rgb/{number:04d}.png")
        words = "a red metal" if is_rusty else "a blue metal"
        (tmp_path / f"parts/inspection/{number:04d}.txt").write_text(words)
    (config,) = (text for text in blocks("yaml") if text.startswith("# inspection.yaml"))
    (tmp_path / "inspection.yaml").write_text(config)
    (commands,) = (text for text in blocks("bash") if "inspection.yaml" in text)
    for line in commands.splitlines():
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
    (program,) = blocks("python")
    for number, color in ((1, "red"), (2, "blue")):
        exec(program.replace("0001.png", f"{number:04d}.png"), {})
        assert color in capsys.readouterr().out
