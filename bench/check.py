"""How many wrong files `anyseek eval check` finds.

    python bench/check.py                          # 600 scenes, 2 trials: half an hour on one core
    python bench/check.py --scenes 100 --trials 1  # to see that it runs

Renders scenes, gives 1 % of them each other's captions and another 1 % each other's depth maps, indexes them
with the packaged model and checks them. Prints the share of swapped items among the first k findings (k being
how many were swapped, so that recall is precision there), among the first 2 k and 3 k, and of how many the
swapped modality was named.
"""

import argparse
import os
import random
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import anyseek
import numpy as np
from anyseek.model.scenes import write_scenes
from anyseek.search import CheckSettings

SIDE_FILES = {"caption": "caption.txt", "depth": "depth.png"}
DEPTHS = (1, 2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=600, help="scenes, 100 or more (default 600)")
    parser.add_argument(
        "--trials", type=int, default=2, help="times that other files are swapped (default 2)"
    )
    parser.add_argument("--seed", type=int, default=7, help="which scenes (default 7)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        original = Path(home) / "original"
        write_scenes(original, args.scenes, seed=args.seed)
        results = [trial(original, Path(home), number, args.scenes // 100) for number in range(args.trials)]
    print(f"{args.scenes} scenes, {2 * (args.scenes // 100)} wrong files a trial, {args.trials} trials")
    *recalls, named = np.mean(results, 0)
    for depth, recall in zip(DEPTHS, recalls, strict=True):
        print(f"found among the first {depth} k: {recall:.2f}")
    print(f"right modality named: {named:.2f}")


def trial(original: Path, home: Path, number: int, num_each: int) -> list[float]:
    """Shares found at each depth, and named."""
    wrong = swap(original, home / "scenes", number, num_each)
    with anyseek.open(home / f"library{number}") as library:
        library.index(home / "scenes", to="scenes", model="scenes", views=["rgb"])
        report = library["scenes"].check(CheckSettings(top=len(library["scenes"])))
    ids = [finding.id for finding in report.findings]
    found = [np.mean([id in ids[: depth * len(wrong)] for id in wrong]) for depth in DEPTHS]
    suspects = {finding.id: finding.suspect for finding in report.findings}
    return [*map(float, found), float(np.mean([suspects[id] == modality for id, modality in wrong.items()]))]


def swap(original: Path, folder: Path, seed: int, num_each: int) -> dict[str, str]:
    """Copy the scenes and pass files round in each modality; gives the wrong modality of each item."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    names = sorted(path.name.split(".")[0] for path in original.glob("*.caption.txt"))
    drawn = random.Random(seed).sample(names, num_each * len(SIDE_FILES))
    wrong: dict[str, str] = {}
    for i, (modality, suffix) in enumerate(SIDE_FILES.items()):
        chosen = drawn[i * num_each : (i + 1) * num_each]
        for to, of in zip(chosen, chosen[1:] + chosen[:1], strict=True):
            shutil.copy(original / f"{of}.{suffix}", folder / f"{to}.{suffix}")
            wrong[to] = modality
    return wrong


if __name__ == "__main__":
    main()
