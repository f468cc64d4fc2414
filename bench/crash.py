"""Kill indexing with SIGKILL at random moments, and see that nothing is lost and nothing is shown twice.

    python bench/crash.py --rounds 200

Each round lets a real indexing process work on a folder of small pictures and kills it, while it indexes or
while it publishes. Then a fresh process opens the library and checks that

- every item reported as done is found by its own picture, with the vectors of its newest version;
- no item is shown twice;
- what the newest generation consists of is whole, byte for byte.

A library goes through two states of the folder: all of it new; then some pictures changed, added, broken and
removed. Whenever a state is reached, rows, attributes and listed errors must be those of a library that was
never interrupted: to the bit, with a model whose vectors depend on what else is in the batch.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Before the imports that read them: children are forked, which wants a single thread.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}

import numpy as np
from anyseek.errors import NotFoundError
from anyseek.indexer import FolderSource, Indexer, IndexProgress
from anyseek.indexer.reading import ItemReader, ReadItem
from anyseek.storage import Snapshot, Store
from anyseek.storage.generations import verify_generation
from PIL import Image
from stand_in import StandInModel

COLLECTION = "photos"
STATES = ("new", "changed")
VIEWS = ("joint", "rgb")
ITEMS_PER_SEGMENT, BATCH_SIZE = 8, 4


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200, help="kills (default 200)")
    parser.add_argument("--items", type=int, default=120, help="pictures in the folder (default 120)")
    parser.add_argument("--seed", type=int, default=0, help="of pictures and moments (default 0)")
    options = parser.parse_args()
    result = run(options.rounds, num_items=options.items, seed=options.seed)
    print(json.dumps(result))
    return 1 if result["faults"] else 0


def run(num_rounds: int, *, num_items: int = 120, seed: int = 0) -> dict[str, Any]:
    """Do the rounds; `faults` of the result is empty when every promise held."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="anyseek-crash-") as home:
        trial = Trial(Path(home), num_items, random.Random(seed))
        trial.measure()
        while trial.num_kills < num_rounds:
            trial.next_library()
            for state in STATES:
                trial.reach(state, num_rounds)
    return {
        "rounds": trial.num_kills,
        "killed": trial.killed_in,
        "libraries": trial.num_libraries,
        "states_compared": trial.num_compared,
        "faults": trial.faults,
        "seconds": round(time.perf_counter() - started, 1),
    }


@dataclass
class Trial:
    """Libraries that are filled under fire, and what they must become."""

    home: Path
    num_items: int
    random: random.Random
    faults: list[str] = field(default_factory=list)
    killed_in: dict[str, int] = field(default_factory=lambda: {"index": 0, "publish": 0, "after": 0})
    num_kills: int = 0
    num_libraries: int = 0
    num_compared: int = 0

    def measure(self) -> None:
        """Make both states without interruption: what they must be, and how long they take."""
        self.expected: dict[str, Any] = {}
        self.seconds: dict[str, dict[str, float]] = {}
        for state in STATES:
            folder = self.folder(state)
            events = Child(do_index, library=self.home / "reference", folder=folder).wait()
            self.seconds[state] = events[-1]["seconds"]
            self.expected[state] = ask(do_dump, library=self.home / "reference")

    def folder(self, state: str) -> Path:
        """Put the folder into a state, with the same bytes and times whenever it is called."""
        folder = self.home / "pictures"
        shutil.rmtree(folder, ignore_errors=True)
        write_pictures(folder, self.num_items, changed=state == "changed")
        return folder

    def next_library(self) -> None:
        """Begin with nothing."""
        self.num_libraries += 1
        self.library = self.home / f"library{self.num_libraries}"

    def reach(self, state: str, num_rounds: int) -> None:
        """Index until the state is reached, killing on the way while rounds are left."""
        folder = self.folder(state)
        reported: set[str] = set()
        done = False
        while not done:
            kill = self.num_kills < num_rounds
            worker = Child(do_index, library=self.library, folder=folder)
            events = self.shoot(worker, self.seconds[state]) if kill else worker.wait()
            done = bool(events) and events[-1]["event"] == "report"
            reported |= {id_ for event in events for id_ in event.get("ids", [])}
            faults = ask(do_check, library=self.library, folder=folder, reported=reported)
            self.faults += [f"round {self.num_kills}: {fault}" for fault in faults]
        found = ask(do_dump, library=self.library)
        self.num_compared += 1
        for key, value in self.expected[state].items():
            if found[key] != value:
                self.faults.append(f"{self.library.name} {state}: {key} differs from the uninterrupted run")
        if state == STATES[-1]:
            shutil.rmtree(self.library)

    def shoot(self, worker: "Child", seconds: dict[str, float]) -> list[dict[str, Any]]:
        """Kill a worker at a random moment: of its indexing, or of its publishing."""
        publishing = self.random.random() < 0.4
        if publishing:
            events = worker.wait(until="publish")
            delay = self.random.uniform(0, 1.2 * seconds["publish"])
        else:
            events = worker.wait(until="start")
            delay = self.random.uniform(0, 1.1 * seconds["index"])
        time.sleep(delay)
        os.kill(worker.pid, signal.SIGKILL)
        events += worker.wait()
        self.num_kills += 1
        stage = "index"
        for event in events:
            stage = {"publish": "publish", "report": "after"}.get(event["event"], stage)
        self.killed_in[stage] += 1
        return events


def ask(order: Callable[..., None], **arguments: Any) -> Any:
    """Let a fresh process look at a library."""
    return Child(order, **arguments).wait()[-1]["answer"]


class Child:
    """A process of its own that carries out one order and tells of it, line by line.

    Forked from this one, which has imported everything and opened nothing: what takes time in a new
    interpreter are the imports, and a kill during those shows nothing.
    """

    def __init__(self, order: Callable[..., None], **arguments: Any) -> None:
        self._lines, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(write, sys.stdout.fileno())
            status = 1
            try:
                order(**arguments)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(write)
        self._stream = os.fdopen(self._lines)

    def wait(self, until: str | None = None) -> list[dict[str, Any]]:
        """Read its events up to one of that kind, or all until it ends."""
        events: list[dict[str, Any]] = []
        for line in self._stream:
            events.append(json.loads(line))
            if events[-1]["event"] == until:
                return events
        self._stream.close()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if status not in (0, -signal.SIGKILL):
            raise RuntimeError(f"A child failed with status {status}.")
        return events


def write_pictures(folder: Path, num_items: int, *, changed: bool) -> None:
    """Small pictures, captions, attributes, a few broken: the same bytes and times for the same state."""
    folder.mkdir(parents=True)
    for i in range(num_items + (num_items // 10 if changed else 0)):
        if changed and i % 11 == 3:
            continue  # removed
        version = 1 if changed and i % 7 == 0 else 0
        pixels = np.random.default_rng([i, version]).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        path = folder / f"{i}.png"
        if i % 13 == 5 or (version and i % 5 == 0):
            path.write_bytes(b"no picture" + bytes([i % 256, version]))
        else:
            Image.fromarray(pixels).save(path)
        if i % 3 == 0:
            (folder / f"{i}.caption.txt").write_text(f"picture {i}, version {version}")
        if i % 2 == 0:
            (folder / f"{i}.json").write_text(json.dumps({"number": i, "version": version}))
        for file in folder.glob(f"{i}.*"):
            os.utime(file, ns=(10**18, 10**18 + version))


def tell(event: str, **fields: Any) -> None:
    # One write of a whole line: what the parent reads was said before the kill.
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def do_index(library: Path, folder: Path) -> None:
    """Index as any program would, reporting ids as they are committed."""
    model = StandInModel(batch_sensitive=True)
    seen: dict[str, Any] = {"stage": "", "done": 0, "started": 0.0}

    def watch(progress: IndexProgress) -> None:
        if not seen["started"]:
            seen["started"] = time.perf_counter()
            tell("start")
        if progress.done > seen["done"]:
            ids = todo[seen["done"] : progress.done]
            seen["done"] = progress.done
            tell("done", ids=ids)
        if progress.stage == "publish" and seen["stage"] != "publish":
            seen["index"] = time.perf_counter() - seen["started"]
            tell("publish")
        seen["stage"] = progress.stage

    with Store.open(library, create=True) as store:
        source = FolderSource(folder)
        todo = expected_order(store, source)
        indexer = Indexer(
            store,
            model,
            views=VIEWS,
            batch_size=BATCH_SIZE,
            items_per_segment=ITEMS_PER_SEGMENT,
        )
        report = indexer.index(COLLECTION, source, progress=watch, prune=True)
    seconds = {"index": seen["index"], "publish": max(report.seconds["publish"], 0.01)}
    tell("report", done=report.done, seconds=seconds)


def expected_order(store: Store, source: FolderSource) -> list[str]:
    """The ids that this run will commit, in order: those that can be read and are not stored as they are."""
    try:
        known = dict(store.catalog.signatures(COLLECTION))
    except NotFoundError:
        known = {}
    reader = ItemReader(StandInModel(), store.assets, source.name)
    reads = (reader.read(item) for item in source.scan())
    return [read.item.id for read in reads if read.inputs and known.get(read.item.id) != read.item.signature]


def do_check(library: Path, folder: Path, reported: set[str]) -> None:
    """Look at the library as a search does."""
    tell("answer", answer=list(faults_of(library, folder, reported)))


def faults_of(library: Path, folder: Path, reported: set[str]) -> Iterator[str]:
    """What is wrong with a library of which these items were reported as done."""
    if not (library / "catalog.db").exists():
        if reported:
            yield "items were reported, and there is no library"
        return
    with Store.open(library) as store:
        try:
            snapshot = store.snapshot(COLLECTION)
        except NotFoundError:
            if reported:
                yield "items were reported, and there is no collection"
            return
        for problem in store.health().problems:
            yield f"health: {problem.message}"
        for generation in store.catalog.generations(COLLECTION):
            path = library / "collections" / snapshot.collection.id / "generations" / generation.name
            try:
                verify_generation(path, generation, snapshot.collection)
            except Exception as error:
                yield f"generation {generation.name} is not whole: {error}"
        ids = list(snapshot.item_ids)
        if len(set(ids)) != len(ids) or len(ids) != snapshot.collection.num_items:
            yield f"{len(ids)} items, {len(set(ids))} different, {snapshot.collection.num_items} counted"
        if missing := reported - set(ids):
            yield f"reported and not there: {sorted(missing)}"
        reader = ItemReader(StandInModel(), store.assets, "check")
        reads = {item.id: reader.read(item) for item in FolderSource(folder).scan()}
        yield from rows_faults(snapshot, reads, ids, reported)


def rows_faults(
    snapshot: Snapshot, reads: dict[str, ReadItem], ids: list[str], reported: set[str]
) -> Iterator[str]:
    """Search for every item by its own content, in each view and space."""
    model = StandInModel()
    for view in VIEWS:
        ordinals = snapshot.items_of(view, np.arange(snapshot.num_rows(view)))
        if len(set(ordinals.tolist())) != len(ordinals):
            yield f"view {view} shows an item twice"
        readable = {id_: reads[id_].inputs for id_ in ids if id_ in reads and reads[id_].inputs}
        if view != "joint":
            readable = {id_: {view: inputs[view]} for id_, inputs in readable.items() if view in inputs}
        if not readable:
            continue
        for space, embedded in model.embedder.embed(list(readable.values())).items():
            matches = snapshot.search(space, view, embedded.vectors, 3)
            for id_, scores, rows in zip(readable, matches.scores, matches.rows, strict=True):
                found = [snapshot.item_ids[int(i)] for i in snapshot.items_of(view, rows[rows >= 0])]
                if len(set(found)) != len(found):
                    yield f"search shows an item twice: {found}"
                # An old version may stand until the item is indexed again, but not once that was reported.
                if id_ in reported and (found[:1] != [id_] or scores[0] < 0.98):
                    yield f"{id_} is not found by itself in {view}/{space}: {found[:1]} at {scores[0]:.3f}"


def do_dump(library: Path) -> None:
    """All that an uninterrupted run must give as well, without names that are drawn anew each time."""
    with Store.open(library) as store:
        snapshot = store.snapshot(COLLECTION)
        rows: dict[str, str] = {}
        for view in VIEWS:
            numbers = np.arange(snapshot.num_rows(view))
            spaces = [space.name for space in snapshot.collection.spaces]
            vectors = [snapshot.vectors(space, view, numbers) for space in spaces]
            tokens = [snapshot.tokens(space, view, numbers) for space in spaces]
            for i, ordinal in enumerate(snapshot.items_of(view, numbers)):
                content = b"".join(array[i].tobytes() for array in (*vectors, *tokens))
                key = f"{snapshot.item_ids[int(ordinal)]}/{view}"
                assert key not in rows
                rows[key] = hashlib.sha256(content).hexdigest()
        items = {
            item.id: [dict(item.attributes), [asset.path for asset in item.assets], item.signature]
            for item in store.catalog.items(COLLECTION, list(snapshot.item_ids))
        }
        jobs = [job for job in store.catalog.jobs(COLLECTION) if job.state == "done"]
        errors = sorted([error.path, error.code] for error in store.catalog.job_errors(jobs[0].id))
    tell("answer", answer={"rows": rows, "items": items, "errors": errors})


if __name__ == "__main__":
    sys.exit(main())
