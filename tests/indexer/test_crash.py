import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "bench" / "crash.py"


def test_killing_it_at_random_loses_nothing_and_shows_nothing_twice() -> None:
    # In a process of its own: the script forks, which a test runner with threads must not.
    command = [sys.executable, str(SCRIPT), "--rounds", "10", "--items", "48"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["faults"] == []
    assert (done.returncode, result["rounds"]) == (0, 10)
    assert result["states_compared"] >= 2
