"""What is shipped: the package list, the data files, and a wheel that works in a clean environment."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_SHIPPED = {"tests", "bench", "docs", "build", "dist", "demo", "runs"}


def setuptools_config() -> dict[str, list[str]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_package_list_names_every_package_folder() -> None:
    found = {"anyseek"}
    for init in ROOT.rglob("__init__.py"):
        parts = init.parent.relative_to(ROOT).parts
        if parts and parts[0] not in NOT_SHIPPED and not any(p.startswith(".") for p in parts):
            found.add(".".join(("anyseek", *parts)))
    assert set(setuptools_config()["packages"]) == found


def test_root_modules_are_exactly_these() -> None:
    names = {p.name for p in ROOT.glob("*.py")}
    assert names == {"__init__.py", "__main__.py", "cli.py", "config.py", "errors.py"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools ships what an earlier build left there
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(build, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("anyseek-*.whl"))


@pytest.mark.slow
def test_wheel_holds_every_tracked_file_of_the_package(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    folders = ("model/", "storage/", "indexer/", "search/")
    wanted = {f"anyseek/{name}" for name in tracked.stdout.split("\n") if name.startswith(folders)}
    wanted |= {f"anyseek/{p.name}" for p in ROOT.glob("*.py")} | {"anyseek/py.typed"}
    with zipfile.ZipFile(wheel) as archive:
        shipped = {n for n in archive.namelist() if not n.split("/")[0].endswith(".dist-info")}
    assert shipped == wanted


@pytest.mark.slow
def test_wheel_answers_help_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    # The command itself needs only these: that they suffice is the proof that help imports nothing heavy.
    light = ["click", "pydantic-settings", "platformdirs", "rich"]
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    quiet = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*quiet, "--no-deps", str(wheel)], check=True)
    subprocess.run([*quiet, *constraint, *light], check=True)
    # Started outside the checkout, so that nothing but the wheel can answer.
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    for command in ([str(venv / "bin" / "anyseek"), "--help"], [str(python), "-m", "anyseek", "--version"]):
        done = subprocess.run(command, cwd=tmp_path, env=clean, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "anyseek" in done.stdout
