"""The stand-in model of the benchmarks, and folders of small generated pictures."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
if str(ROOT / "bench") not in sys.path:
    sys.path.append(str(ROOT / "bench"))


@pytest.fixture
def make_model() -> Callable[..., Any]:
    from stand_in import StandInModel

    return StandInModel


@pytest.fixture
def model(make_model: Callable[..., Any]) -> Any:
    return make_model()


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Write a small picture whose content depends on the seed alone."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (12, 9), **options: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size
        pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def pictures(tmp_path: Path, picture: Callable[..., Path]) -> Callable[..., Path]:
    """Write a folder of numbered pictures and return it."""

    def write(num: int, folder: str = "photos", skip: Sequence[int] = ()) -> Path:
        root = tmp_path / folder
        for i in range(num):
            if i not in skip:
                picture(root / f"{i:04d}.png", seed=i)
        return root

    return write
