"""How fast a library takes, publishes and finds rows, against the bare FAISS call on the same index.

    python bench/storage.py [--rows 100000] [--dim 256] [--batch 1024]

One space, one view, one thread for search. Latencies are medians of single queries, k = 10.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from anyseek.storage import Asset, Item, Rows, SpaceRecord, Store, Writer

SHARES = (0.001, 0.01, 0.1, 0.5)
ASSETS = (Asset("rgb", path="/photos/2024/0001.jpg"), Asset("caption", value="a quiet harbour at dusk"))
ATTRIBUTES = {"license": "cc0", "width": 640.5, "tags": ["sea", "boat"]}


def median_ms(work: Callable[[], object], repeats: int = 100) -> float:
    work()
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e3, 3)


def resident_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20


def unit(rng: np.random.Generator, num: int, dim: int) -> np.ndarray:
    vectors = rng.standard_normal((num, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(writer: Writer, num_rows: int, dim: int, batch: int) -> list[float]:
    """Commit all rows; returns the seconds of each commit, without those of making the data."""
    rng = np.random.default_rng(0)
    times: list[float] = []
    for first in range(0, num_rows, batch):
        ids = [f"2024/{number:08d}" for number in range(first, min(first + batch, num_rows))]
        items = [Item(id, ASSETS, ATTRIBUTES | {"number": number}, id) for number, id in enumerate(ids)]
        vectors = unit(rng, len(ids), dim)
        tokens = rng.integers(0, 8192, (len(ids), 16))
        rows = Rows(ids, ["joint"] * len(ids), {"dino": vectors}, {"dino": tokens})
        start = time.perf_counter()
        writer.commit("photos", items=items, rows=rows)
        times.append(time.perf_counter() - start)
    return times


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return round(time.perf_counter() - start, 3)


def search_latencies(store: Store, dim: int) -> dict[str, float]:
    """Of the whole way (is there something new, filter to rows, search, rows to items) and of bare FAISS."""
    query = unit(np.random.default_rng(1), 1, dim)
    snapshot = store.snapshot("photos")
    index = snapshot.parts[0].part.views["joint"].indexes["dino"]._index  # type: ignore[attr-defined]

    def ours(allowed: np.ndarray | None = None) -> np.ndarray:
        now = store.snapshot("photos")
        return now.items_of("joint", now.search("dino", "joint", query, 10, allowed).rows[0])

    def bare(allowed: np.ndarray) -> object:
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        return index.search(query, 10, params=faiss.SearchParameters(sel=selector))

    found = {"revision_ms": median_ms(lambda: store.snapshot("photos"))}
    found |= {"search_ms": median_ms(ours), "bare_ms": median_ms(lambda: index.search(query, 10))}
    for share in SHARES:
        allowed = np.random.default_rng(2).random(snapshot.num_items) < share
        found[f"search_{share}_ms"] = median_ms(lambda allowed=allowed: ours(allowed))
        found[f"bare_{share}_ms"] = median_ms(lambda allowed=allowed: bare(allowed))
    ids = snapshot.item_ids.take(np.arange(10))
    return found | {
        "items_10_ms": median_ms(lambda: snapshot.items(ids)),
        "ordinals_1_ms": median_ms(lambda: snapshot.ordinals_of(ids[:1])),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1024)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    result: dict[str, object] = vars(options)
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "library", create=True) as store:
        with store.writer() as writer:
            space = SpaceRecord("dino", options.dim, 16, 8192)
            writer.create_collection("photos", model="m", fingerprint="f", spaces=[space], views=["joint"])
            before = resident_mb()
            times = fill(writer, options.rows, options.dim, options.batch)
            tenth = max(1, len(times) // 10)
            result |= {
                "commit_items_per_s": round(options.rows / sum(times)),
                "last_to_first_tenth": round(sum(times[-tenth:]) / sum(times[:tenth]), 2),
                "commit_grew_mb": resident_mb() - before,
                "fresh_snapshot_s": timed(lambda: store.snapshot("photos")),
                "publish_s": timed(lambda: writer.publish("photos")),
            }
        files = [path.stat().st_size for path in store.path.rglob("*") if path.is_file()]
        result["disk_bytes_per_item"] = round(sum(files) / options.rows)
        with Store.open(store.path) as reader:
            before = resident_mb()
            result["open_generation_s"] = timed(lambda: reader.snapshot("photos"))
            result["open_grew_mb"] = resident_mb() - before
            result |= search_latencies(reader, options.dim)
        with store.writer() as writer:  # one commit after the generation
            fill(writer, options.batch, options.dim, options.batch)
            result["search_with_fresh_ms"] = search_latencies(store, options.dim)["search_ms"]
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
