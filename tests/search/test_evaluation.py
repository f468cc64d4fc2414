"""Where the right item lands."""

import pytest
from anyseek.search import Caption, SearchEngine, evaluate_retrieval


def ranking(engine: SearchEngine, text: str) -> list[str]:
    return [hit.id for hit in engine.search("photos", Caption(text), limit=1000)]


def test_ranks_are_those_of_the_search(engine: SearchEngine) -> None:
    order = ranking(engine, "red ball")
    places = [1, 3, 5, 10, 11]
    queries = [(Caption("red ball"), order[place - 1]) for place in places]
    found = evaluate_retrieval(engine, "photos", queries)
    assert (found.num_queries, found.r1, found.r5, found.r10, found.median_rank) == (5, 0.2, 0.6, 0.8, 5)


def test_an_item_beyond_the_depth_counts_as_last(engine: SearchEngine) -> None:
    order = ranking(engine, "red ball")
    found = evaluate_retrieval(engine, "photos", [(Caption("red ball"), order[30])], depth=10)
    assert (found.r10, found.median_rank) == (0, 11)


def test_rankings_without_items_have_the_same_order_and_scores(engine: SearchEngine) -> None:
    full = engine.search("photos", Caption("red ball"), limit=20)
    bare = engine.search("photos", Caption("red ball"), limit=20, with_items=False)
    assert [(hit.id, hit.score) for hit in bare] == [(hit.id, hit.score) for hit in full]
    assert all(hit.assets for hit in full)
    assert not any(hit.assets or hit.attributes for hit in bare)


def test_progress_counts_to_the_end(engine: SearchEngine) -> None:
    told: list[int] = []
    order = ranking(engine, "red ball")
    evaluate_retrieval(engine, "photos", [(Caption("red ball"), order[0])] * 4, progress=told.append)
    assert told == [1, 2, 3, 4]


@pytest.mark.parametrize("depth", [9, 10_001])
def test_senseless_arguments_are_refused(engine: SearchEngine, depth: int) -> None:
    with pytest.raises(ValueError, match="depth"):
        evaluate_retrieval(engine, "photos", [(Caption("red ball"), "x")], depth=depth)
    with pytest.raises(ValueError, match="queries"):
        evaluate_retrieval(engine, "photos", [])
