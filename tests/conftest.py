"""Options and fixtures that several rooms share."""

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run: a change that passed here passes elsewhere. No deadline on shared machines.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        type=Path,
        default=ROOT / "tests" / "golden",
        metavar="DIR",
        help="folder of recorded reference outputs for tests/model/test_golden.py (default: tests/golden)",
    )
