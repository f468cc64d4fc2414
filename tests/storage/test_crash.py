"""`kill -9` at any moment: what was reported is there, nothing is there twice, generations are whole.

Run as a script it is the victim: it imports everything once, then forks one process after another that each
does the same work until it is killed: before its n-th durable step (fsync, rename, commit, delete), or by a
timer anywhere, also inside C++.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from anyseek.errors import NotFoundError
from anyseek.storage import Item, Rows, SpaceRecord, Store, Writer

SPACE = SpaceRecord("dino", 8, 4, 64)
# (verb, ids, version); `add` is one shard of a job.
WORK = [
    ("add", ("a", "b", "c"), 0),
    ("publish", (), 0),
    ("add", ("d", "e"), 1),
    ("add", ("a", "f"), 2),
    ("remove", ("b", "d"), 0),
    ("publish", (), 0),
    ("add", ("b", "g"), 3),
    ("publish", (), 0),
]


def vector(id: str, version: int) -> np.ndarray:
    vector = np.random.default_rng(zlib.crc32(f"{id}/{version}".encode())).standard_normal(8)
    return (vector / np.linalg.norm(vector)).astype(np.float16).astype(np.float32)


def expected(num_done: int) -> dict[str, int]:
    """id -> version after some of the work."""
    state: dict[str, int] = {}
    for verb, ids, version in WORK[:num_done]:
        if verb == "add":
            state |= dict.fromkeys(ids, version)
        for id in ids if verb == "remove" else ():
            del state[id]
    return state


def do(writer: Writer, step: int) -> None:
    verb, ids, version = WORK[step]
    if verb == "publish":
        writer.publish("photos")
    elif verb == "remove":
        writer.remove("photos", ids)
    else:
        job = writer.start_job("photos", {"source": "x"})
        vectors = np.array([vector(id, version) for id in ids])
        tokens = np.full((len(ids), 4), version)
        rows = Rows(ids, ["joint"] * len(ids), {"dino": vectors}, {"dino": tokens})
        items = [Item(id, attributes={"version": version}) for id in ids]
        writer.commit("photos", items=items, rows=rows, job=job.id, shard=step)


def create(writer: Writer) -> None:
    writer.create_collection("photos", model="tiny", fingerprint="f", spaces=[SPACE], views=["joint"])


class Killer:
    """Ends the process at its n-th durable step, and counts them."""

    def __init__(self, last: int) -> None:
        self.left = last
        self.count = 0
        for name in ("replace", "rename", "unlink", "rmdir"):
            setattr(os, name, self.before(getattr(os, name)))
        os.fsync = self.before(lambda _: None)
        from anyseek.storage.database import Database
        from sqlalchemy import Engine, event

        event.listen(Engine, "commit", self.before(lambda _: None))
        write = Database.write

        def then_step(self_: Database):  # type: ignore[no-untyped-def]
            yield from write.__wrapped__(self_)  # type: ignore[attr-defined]
            self.step()

        import contextlib

        Database.write = contextlib.contextmanager(then_step)  # type: ignore[method-assign]

    def before(self, function):  # type: ignore[no-untyped-def]
        def wrapped(*arguments: object, **options: object) -> object:
            self.step()
            return function(*arguments, **options)

        return wrapped

    def step(self) -> None:
        self.count += 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def victim(path: Path, log: int, kill: str) -> None:
    """Do all the work in a library, writing a byte to `log` after each part of it."""
    killer = Killer(int(kill.removeprefix("step ")) if kill.startswith("step") else -1)
    if kill.startswith("time"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, float(kill.removeprefix("time ")))
    with Store.open(path, create=True) as store, store.writer() as writer:
        create(writer)
        for step in range(len(WORK)):
            do(writer, step)
            os.write(log, b".")
    print(killer.count, flush=True)


def main(folder: Path) -> None:
    """For each line `<name> <kill>` on standard input, fork a victim; print how it ended."""
    for line in sys.stdin:
        name, kill = line.strip().split(" ", 1)
        log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        child = os.fork()
        if child == 0:
            victim(folder / name, log, kill)
            os._exit(0)
        os.close(log)
        _, status = os.waitpid(child, 0)
        print(
            f"ended {os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)}", flush=True
        )


class Crasher:
    """Talks to the script."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.num_rounds = 0
        self.last_count = 0

    def run(self, kill: str) -> tuple[Path, int, bool]:
        """(library, parts of the work reported done, whether it was killed)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.num_rounds += 1
        name = f"round{self.num_rounds}"
        self.process.stdin.write(f"{name} {kill}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline().strip()
        if not line.startswith("ended"):
            self.last_count = int(line)
            line = self.process.stdout.readline().strip()
        assert line in ("ended 0", "ended 9", "ended 14"), line
        return self.folder / name, len((self.folder / f"{name}.log").read_bytes()), line != "ended 0"


@pytest.fixture(scope="module")
def crasher(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("crash")
    command = [sys.executable, __file__, str(folder)]
    # One thread: a fork takes no others along.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Crasher(process, folder)
        assert process.stdin is not None
        process.stdin.close()


def check(store: Store, state: dict[str, int]) -> None:
    """Exactly these items are found, each once, by id, by filter and by vector."""
    snapshot = store.snapshot("photos")
    ids = list(snapshot.item_ids)
    assert len(ids) == len(set(ids)) == store.collection("photos").num_items
    versions = snapshot.attributes.column("version").to_pylist() if ids else []
    assert dict(zip(ids, versions, strict=True)) == state
    assert snapshot.num_rows("joint") == len(state)
    for id, version in state.items():
        matches = snapshot.search("dino", "joint", vector(id, version)[None], 1)
        assert matches.scores[0, 0] > 0.99
        assert ids[snapshot.items_of("joint", matches.rows[0])[0]] == id
    assert store.health().state == "ok"


def survives(path: Path, num_done: int) -> None:
    """The library holds what was reported, perhaps with the change under way; then work goes on."""
    try:
        store = Store.open(path, create=True)
        store.collection("photos")
    except NotFoundError:
        assert num_done == 0
        with store.writer() as writer:
            create(writer)
    with store:
        try:
            check(store, expected(num_done))
        except AssertionError:
            num_done += 1
            check(store, expected(num_done))
        with store.writer() as writer:
            folder = path / "collections" / store.collection("photos").id
            segments = {f"{segment.name}.parquet" for segment in store.catalog.segments("photos")}
            generations = {generation.name for generation in store.catalog.generations("photos")}
            assert {file.name for file in folder.glob("segments/*")} == segments
            assert {file.name for file in folder.glob("generations/*")} == generations
            job = writer.start_job("photos", {"source": "x"})
            adds = {step for step in range(num_done) if WORK[step][0] == "add"}
            assert writer.done_shards(job.id) == adds
            for step in range(num_done, len(WORK)):
                do(writer, step)
            assert len(store.catalog.jobs()) == 1
        check(store, expected(len(WORK)))
    shutil.rmtree(path)


def test_nothing_is_lost_at_any_step(crasher: Crasher) -> None:
    path, num_done, _ = crasher.run("no")
    assert num_done == len(WORK)
    survives(path, num_done)
    for step in random.Random(1).sample(range(crasher.last_count), 8):
        path, num_done, was_killed = crasher.run(f"step {step}")
        assert was_killed
        survives(path, num_done)


def test_nothing_is_lost_at_any_time(crasher: Crasher) -> None:
    for number in range(4):
        survives(*crasher.run(f"time {random.Random(number).uniform(0.001, 0.8)}")[:2])


@pytest.mark.slow
def test_nothing_is_lost_at_every_step(crasher: Crasher) -> None:
    crasher.run("no")
    for step in range(crasher.last_count):
        survives(*crasher.run(f"step {step}")[:2])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
