"""What was committed is found by name, id, page and job."""

from typing import Any

import pytest
from anyseek.errors import InputError, NotFoundError
from anyseek.storage import Asset, Item, JobError, Rows, Store, Writer
from sqlalchemy import event

_NO_ROWS = Rows((), (), {}, {})


def test_unknown_names_list_the_known(store: Store, writer: Writer, samples) -> None:
    samples.create(writer, "birds")
    for ask in (
        store.collection,
        store.snapshot,
        store.catalog.segments,
        writer.publish,
        writer.delete_collection,
    ):
        with pytest.raises(NotFoundError, match=r"no collection 'cats'.*'birds', 'photos'"):
            ask("cats")
    assert [each.name for each in store.collections()] == ["birds", "photos"]


def test_an_empty_library_says_so(store: Store) -> None:
    with pytest.raises(NotFoundError, match="none yet"):
        store.collection("cats")


def test_items_come_in_the_order_asked_for(store: Store, writer: Writer, samples) -> None:
    ids = [f"item {number}" for number in range(30)]
    samples.commit(writer, ids)
    asked = [ids[7], "unknown", ids[3], ids[29], ids[3]]
    found = store.catalog.items("photos", asked)
    expected = {item.id: item for item in samples.items(ids)}
    assert found == [expected[id] for id in asked if id != "unknown"]
    assert store.catalog.items("photos", []) == []


def test_more_ids_than_one_query_holds(store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [str(number) for number in range(50)]
    monkeypatch.setattr("anyseek.storage.catalog._CHUNK", 7)
    writer.commit("photos", items=[Item(id) for id in ids], rows=_NO_ROWS)
    assert [item.id for item in store.catalog.items("photos", ids)] == ids
    assert sorted(store.catalog.signatures("photos")) == sorted((id, "") for id in ids)
    assert writer.remove("photos", [*ids[:20], *ids[:20], "unknown"]) == 20
    assert [item.id for item in store.catalog.items("photos", ids)] == ids[20:]


def test_a_large_batch_of_ids(store: Store, writer: Writer) -> None:
    ids = [str(number) for number in range(40_000)]
    assert store.catalog.items("photos", ids) == []
    assert writer.remove("photos", ids) == 0


def test_no_step_of_indexing_or_searching_reads_all_items(store: Store, writer: Writer, samples) -> None:
    """Each would make the work per item grow with the collection."""
    plans: dict[str, list[str]] = {}

    def explain(connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")) and "items" in statement:
            cursor = connection.connection.driver_connection.cursor()
            steps = cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            plans[statement] = [step[3] for step in steps]

    event.listen(store._database._engine, "before_cursor_execute", explain)
    for version in range(3):
        samples.commit(writer, ["a", "b", "c"], version)
        store.snapshot("photos").items(["a"])
        writer.remove("photos", ["b"])
        writer.publish("photos")
    event.remove(store._database._engine, "before_cursor_execute", explain)
    assert len(plans) > 5
    for statement, plan in plans.items():
        for step in plan:
            assert not step.startswith("SCAN items"), statement
            assert "items" not in step or not step.endswith("(collection_id=?)"), (statement, step)


def test_pages_cover_everything_once(store: Store, writer: Writer) -> None:
    ids = ["ä", "a", "B", "b/c", " ", "10", "9", "\U0001f600"]
    writer.commit("photos", items=[Item(id) for id in ids], rows=_NO_ROWS)
    seen: list[str] = []
    while page := store.catalog.page("photos", after=seen[-1] if seen else "", limit=3):
        seen += [item.id for item in page]
    assert sorted(seen) == sorted(ids)


def test_an_asset_keeps_all_it_was_given(store: Store, writer: Writer) -> None:
    assets = (
        Asset("det", value=[{"box": [0.1, 0, 1, 0.5], "label": "cat"}]),
        Asset("rgb", path="/a b/ü.jpg", sha256="0" * 64, media_type="image/jpeg"),
        Asset("metadata", value={"people": 2, "brightness": 0.25, "none": None}),
        Asset("caption", value=""),
        Asset("rgb", sha256="f" * 64),
    )
    writer.commit("photos", items=[Item("i", assets)], rows=_NO_ROWS)
    assert store.catalog.items("photos", ["i"])[0].assets == assets


@pytest.mark.parametrize(
    "item",
    [
        Item(""), Item("x" * 2000), Item("a\0"), Item("\udcff"), Item("i", signature="\0"),
        Item("i", [Asset("rgb")]), Item("i", [Asset("rgb", path="relative.jpg")]),
        Item("i", [Asset("rgb", sha256="abc")]), Item("i", [Asset("rgb", value=float("nan"))]),
        Item("i", [Asset("rgb", value={1: 2})]), Item("i", [Asset("rgb", value=b"x")]),
        Item("i", [Asset("rgb", value="a\0b")]), Item("i", [Asset("\udc00", value=1)]),
        Item("i", [Asset("rgb", path="/a\0b")]), Item("i", [Asset("rgb", value=10**400)]),
    ],
)  # fmt: skip
def test_an_item_that_no_catalog_can_keep_is_refused(store: Store, writer: Writer, item: Item) -> None:
    with pytest.raises(InputError):
        writer.commit("photos", items=[item], rows=_NO_ROWS)
    assert store.collection("photos").num_items == 0


def test_a_value_nested_without_end_is_refused(writer: Writer) -> None:
    value: list = []
    value.append(value)
    with pytest.raises(InputError, match="nested"):
        writer.commit("photos", items=[Item("i", [Asset("rgb", value=value)])], rows=_NO_ROWS)


@pytest.mark.parametrize("name", ["", " a", "a ", "../x", "a/b", "a\n", "a\0", ".a", "x" * 101])
def test_a_collection_needs_a_name_that_can_be_typed(writer: Writer, samples, name: str) -> None:
    with pytest.raises(InputError):
        samples.create(writer, name)


def test_names_of_people_are_names(store: Store, writer: Writer, samples) -> None:
    assert samples.create(writer, "Ferien in Übersee 2024").name == "Ferien in Übersee 2024"
    assert store.snapshot("Ferien in Übersee 2024").num_items == 0


def test_a_job_counts_what_its_shards_gave(store: Store, writer: Writer, samples) -> None:
    job = writer.start_job("photos", {"source": "/photos", "views": ["joint"]})
    assert (job.state, job.num_shards) == ("running", 0)
    errors = [JobError(f"/photos/{name}.jpg", "rgb", "input.invalid", "broken") for name in "zab"]
    samples.commit(writer, ["a", "b"], job=job.id, shard=1, errors=errors[:2])
    writer.commit("photos", items=[], rows=_NO_ROWS, job=job.id, shard=4, errors=errors[2:])
    job = writer.finish_job(job.id, "done")
    assert (job.state, job.num_shards, job.num_items, job.num_errors) == ("done", 2, 2, 3)
    assert store.catalog.job_errors(job.id) == errors
    assert store.catalog.job_errors(job.id, offset=1, limit=1) == errors[1:2]
    assert store.catalog.jobs() == store.catalog.jobs("photos") == [job]
    assert writer.done_shards(job.id) == {1, 4}


def test_an_error_with_a_broken_name_is_still_listed(store: Store, writer: Writer) -> None:
    job = writer.start_job("photos", {})
    error = JobError("/photos/\udcff.jpg", "rgb", "input.invalid", "NUL \0 in it")
    writer.commit("photos", items=[], rows=_NO_ROWS, job=job.id, errors=[error])
    assert "udcff" in store.catalog.job_errors(job.id)[0].path


def test_unknown_jobs_are_refused(store: Store, writer: Writer) -> None:
    for ask in (store.catalog.job, store.catalog.job_errors, writer.done_shards):
        with pytest.raises(NotFoundError, match="no job 'x'"):
            ask("x")
    with pytest.raises(NotFoundError):
        writer.finish_job("x", "done")
