"""One process writes while others read: no lock between them, and nothing half done is ever seen."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from anyseek.storage import Item, Rows, SpaceRecord, Store

NUM_COMMITS = 12
PER_COMMIT = 5


def write(path: Path) -> None:
    """Commit, replace, remove and publish, five items at a time."""
    with Store.open(path) as store, store.writer() as writer:
        for number in range(NUM_COMMITS):
            ids = [f"{number}.{i}" for i in range(PER_COMMIT)]
            if number % 4 == 3:
                writer.remove("photos", [f"{number - 1}.{i}" for i in range(PER_COMMIT)])
            vectors = np.eye(PER_COMMIT, 8)
            tokens = np.full((PER_COMMIT, 4), number)
            rows = Rows(ids, ["joint"] * PER_COMMIT, {"dino": vectors}, {"dino": tokens})
            writer.commit("photos", items=[Item(id, attributes={"n": number}) for id in ids], rows=rows)
            if number % 3 == 2:
                writer.publish("photos")


def test_a_reader_follows_a_writer_in_another_process(store: Store) -> None:
    with store.writer() as writer:
        space = SpaceRecord("dino", 8, 4, 64)
        writer.create_collection("photos", model="tiny", fingerprint="f", spaces=[space], views=["joint"])
    query = np.eye(1, 8, dtype=np.float32)
    seen = {-1}
    generations = set()
    with subprocess.Popen([sys.executable, __file__, str(store.path)]) as process:
        while process.poll() is None:
            snapshot = store.snapshot("photos")
            assert snapshot.revision >= max(seen)
            seen.add(snapshot.revision)
            generations.add(snapshot.generation)
            batches = {id.split(".")[0] for id in snapshot.item_ids}
            assert snapshot.num_items == snapshot.num_rows("joint") == PER_COMMIT * len(batches)
            assert snapshot.attributes.num_rows == snapshot.num_items
            # One item of each batch has this very vector.
            found = snapshot.search("dino", "joint", query, snapshot.num_items or 1)
            assert np.count_nonzero(found.scores > 0.99) == len(batches)
        assert process.returncode == 0
    assert store.health().state == "ok"
    assert store.snapshot("photos").num_items == PER_COMMIT * (NUM_COMMITS - 3)
    assert store.snapshot("photos").generation == "g_000004"
    assert len(seen) > 3
    assert len(generations) > 1


if __name__ == "__main__":
    write(Path(sys.argv[1]))
