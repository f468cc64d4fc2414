import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from anyseek.errors import InputError, ModelError
from anyseek.indexer.attributes import AttributeTypes
from anyseek.indexer.pipeline import BatchEmbedder, Shard, check_views, read_ahead
from anyseek.indexer.reading import ReadItem
from anyseek.storage import Item

Inputs = Mapping[str, np.ndarray]


def inputs(seed: int, *modalities: str) -> Inputs:
    random = np.random.default_rng(seed)
    return {modality: random.integers(0, 255, 8, dtype=np.int32) for modality in modalities or ("rgb",)}


def fail_on(model: Any, poison: Callable[[Sequence[Inputs]], bool]) -> list[int]:
    """Make a model raise on batches that a function picks; gives the sizes of all batches it was given."""
    real, sizes = model.embedder.embed, list[int]()

    def embed(items: Sequence[Inputs], **options: Any) -> Any:
        sizes.append(len(items))
        if poison(items):
            raise MemoryError("out of memory")
        return real(items, **options)

    model.embedder.embed = embed
    return sizes


def test_views_are_checked() -> None:
    assert check_views(["rgb", "joint", "rgb"], ["rgb", "caption"]) == ("rgb", "joint")
    for wrong in (["depth"], []):
        with pytest.raises(InputError, match="joint, rgb, caption"):
            check_views(wrong, ["rgb", "caption"])


def test_reading_ahead_keeps_order_and_is_bounded() -> None:
    begun, taken, most = 0, 0, 0
    lock = threading.Lock()

    def read(number: int) -> int:
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun - taken)
        return number

    with ThreadPoolExecutor(4) as pool:
        results: list[int] = []
        for result in read_ahead(pool, read, range(200), window=8):
            results.append(result)
            taken += 1
    assert results == list(range(200))
    assert most <= 9


def test_reading_ahead_stops_when_nobody_takes() -> None:
    with ThreadPoolExecutor(1) as pool:
        stream = read_ahead(pool, lambda number: number, iter(range(10**9)), window=4)
        assert next(stream) == 0
        stream.close()


def test_an_item_has_a_row_in_each_view_that_it_can_fill(model: Any) -> None:
    embedder = BatchEmbedder(model, ["joint", "rgb", "caption"], batch_size=8)
    found = embedder.embed([inputs(0, "rgb", "caption"), inputs(1, "caption"), {}])
    assert list(zip(found.owners, found.views, strict=True)) == [
        (0, "joint"),
        (1, "joint"),
        (0, "rgb"),
        (0, "caption"),
        (1, "caption"),
    ]
    vectors = found.vectors["dinov2_global"]
    assert np.array_equal(vectors[1], vectors[4])
    assert not np.array_equal(vectors[0], vectors[2])
    assert sum(model.embedder.batches) == 4  # joint and caption of item 1 are one request


def test_batches_are_those_asked_for(model: Any) -> None:
    BatchEmbedder(model, ["joint"], batch_size=4).embed([inputs(i) for i in range(10)])
    assert model.embedder.batches == [4, 4, 2]


def test_a_batch_that_fails_is_halved_down_to_the_item_at_fault(make_model: Callable[[], Any]) -> None:
    model, batch = make_model(), [inputs(i) for i in range(16)]
    expected = BatchEmbedder(model, ["joint"], 16).embed(batch).vectors
    bad = batch[5]["rgb"]
    sizes = fail_on(model, lambda items: any(item["rgb"] is bad for item in items))
    found = BatchEmbedder(model, ["joint"], 16).embed(batch)
    assert found.owners == [i for i in range(16) if i != 5]
    assert list(found.failures) == [5]
    for space, vectors in found.vectors.items():
        assert np.array_equal(vectors, np.delete(expected[space], 5, axis=0))
    assert sizes == [16, 8, 4, 4, 2, 1, 1, 2, 8]


def test_a_batch_too_large_for_memory_is_still_embedded(model: Any) -> None:
    fail_on(model, lambda items: len(items) > 3)
    found = BatchEmbedder(model, ["joint"], 32).embed([inputs(i) for i in range(32)])
    assert found.owners == list(range(32))


def test_a_broken_model_stops_the_job(model: Any) -> None:
    fail_on(model, lambda _: True)
    embedder = BatchEmbedder(model, ["joint"], 8)
    for _ in range(7):
        embedder.embed([inputs(i) for i in range(8)])
    with pytest.raises(ModelError, match="out of memory"):
        embedder.embed([inputs(i) for i in range(8)])


def test_many_bad_items_among_good_ones_do_not_stop_the_job(model: Any) -> None:
    batch = [inputs(i) for i in range(300)]
    bad = {id(item["rgb"]) for item in batch[::2]}
    fail_on(model, lambda items: any(id(item["rgb"]) in bad for item in items))
    found = BatchEmbedder(model, ["joint"], 8).embed(batch)
    assert len(found.failures) == 150


def test_a_vector_that_is_not_finite_is_a_failure(model: Any) -> None:
    real = model.embedder.embed

    def embed(items: Sequence[Inputs], **options: Any) -> Any:
        found = real(items, **options)
        found["imagebind_global"].vectors[1, 3] = np.nan
        return found

    model.embedder.embed = embed
    found = BatchEmbedder(model, ["joint"], 4).embed([inputs(i) for i in range(4)])
    assert found.owners == [0, 2, 3]
    assert "imagebind_global" in str(found.failures[1])


def read_item(id_: str, given: Inputs, **attributes: Any) -> ReadItem:
    return ReadItem(Item(id_, attributes=attributes), given, (), frozenset(attributes))


def test_a_shard_keeps_items_with_their_rows(model: Any) -> None:
    shard = Shard(model, AttributeTypes({}))
    embedder = BatchEmbedder(model, ["joint", "caption"], 4)
    shard.add(
        [read_item("a", inputs(0, "rgb", "caption")), read_item("b", {}), read_item("c", inputs(1))], embedder
    )
    shard.add([read_item("d", inputs(2))], embedder)
    rows = shard.rows()
    assert [item.id for item in shard.items] == ["a", "c", "d"]
    assert list(zip(rows.item_ids, rows.views, strict=True)) == [
        ("a", "joint"),
        ("c", "joint"),
        ("a", "caption"),
        ("d", "joint"),
    ]
    assert rows.vectors["dinov2_global"].shape == (4, 16)
    assert rows.tokens["imagebind_global"].shape == (4, 4)
    assert shard.num_failed == 1


def test_an_empty_shard_has_no_rows(model: Any) -> None:
    rows = Shard(model, AttributeTypes({})).rows()
    assert len(rows) == 0
    assert rows.vectors["dinov2_global"].shape == (0, 16)


def test_an_item_without_any_view_is_listed(model: Any) -> None:
    shard = Shard(model, AttributeTypes({}))
    shard.add([read_item("a", inputs(0))], BatchEmbedder(model, ["caption"], 4))
    assert shard.items == []
    assert [error.code for error in shard.errors] == ["item.no_view"]


def test_an_attribute_of_another_type_is_left_out_and_listed(model: Any) -> None:
    shard = Shard(model, AttributeTypes({"year": "int"}))
    shard.add([read_item("a", inputs(0), year="2024", ok=1)], BatchEmbedder(model, ["joint"], 4))
    assert shard.items[0].attributes == {"ok": 1}
    assert [error.code for error in shard.errors] == ["attributes.type"]


def test_a_fact_that_clashes_with_somebodys_attribute_gives_way_silently(model: Any) -> None:
    shard = Shard(model, AttributeTypes({"width": "str"}))
    read = ReadItem(Item("a", attributes={"width": 7, "height": 8}), inputs(0), ())
    shard.add([read], BatchEmbedder(model, ["joint"], 4))
    assert shard.items[0].attributes == {"height": 8}
    assert shard.errors == []
