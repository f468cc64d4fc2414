"""Searches against a brute-force answer computed from what was put into the library."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import InputError, NotFoundError, QueryError
from anyseek.model.token_likelihood import LIKELIHOOD_SHARE, SMOOTHING
from anyseek.search import Caption, F, Like, Metadata, Palette, Query, QueryPart, SearchEngine, candidates


def brute_force(
    library: Any,
    model: Any,
    predictions: list[tuple[dict[str, np.ndarray], float]],
    *,
    scoring: str = "cosine",
    spaces: dict[str, float] | None = None,
    likelihood_share: float = LIKELIHOOD_SHARE,
    view: str = "joint",
    keep: Callable[[Any], bool] = lambda _: True,
) -> list[tuple[str, float]]:
    """The whole ranking, by the formula, one item at a time."""
    spaces = spaces or {"dinov2_global": 0.5, "imagebind_global": 0.5}
    embedded = model.embedder.embed([inputs for inputs, _ in predictions], log_probs=True)
    total = sum(abs(weight) for _, weight in predictions)
    ranking = []
    for item_id, (vectors, tokens) in library.rows[view].items():
        if not keep(library.items[item_id]):
            continue
        score = 0.0
        for i, (_, weight) in enumerate(predictions):
            for space, share in spaces.items():
                cosine = float(vectors[space].astype(float) @ embedded[space].vectors[i].astype(float))
                probs = np.exp(embedded[space].log_probs[i].astype(float))
                picked = [
                    (1 - SMOOTHING) * probs[h, t] + SMOOTHING / probs.shape[1]
                    for h, t in enumerate(tokens[space])
                ]
                likelihood = 1 + np.mean(np.log(picked)) / math.log(probs.shape[1])
                mixed = (1 - likelihood_share) * cosine + likelihood_share * likelihood
                measure = {"cosine": cosine, "likelihood": likelihood, "both": mixed}[scoring]
                score += weight / total * share * measure
        ranking.append((item_id, score))
    return sorted(ranking, key=lambda pair: (-pair[1], pair[0]))


def picture(content: bytes, modality: str = "rgb") -> QueryPart:
    return QueryPart(modality, content)


def assert_same(hits: Any, expected: list[tuple[str, float]]) -> None:
    assert [hit.id for hit in hits] == [item_id for item_id, _ in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-5)


@pytest.fixture
def read(model: Any) -> Callable[[str, Any], dict[str, np.ndarray]]:
    return lambda modality, content: {modality: model.embedder.read(modality, content)}


@pytest.fixture(params=["scan", "index"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to candidates must give the same answer."""
    if request.param == "index":
        monkeypatch.setattr(candidates, "SCAN_ROWS", 0)
        monkeypatch.setattr(candidates, "FIRST_DEPTH", 2)
    return request.param


@pytest.mark.parametrize("scoring", ["cosine", "likelihood", "both"])
def test_one_part_ranks_like_brute_force(
    engine: SearchEngine, library: Any, model: Any, read: Any, scoring: Any
) -> None:
    hits = engine.search("photos", Caption("red ball number3"), limit=100, scoring=scoring)
    assert_same(
        hits, brute_force(library, model, [(read("caption", "red ball number3"), 1)], scoring=scoring)
    )
    assert hits.plan.exact
    assert hits.total_allowed == 60


def test_equal_weights_join_in_one_pass_and_negatives_are_subtracted(
    engine: SearchEngine, library: Any, model: Any, read: Any, png: bytes, way: str
) -> None:
    query = 0.5 * (Caption("red ball") + picture(png)) - 0.3 * Caption("dog")
    hits = engine.search("photos", query, limit=20, scoring="cosine")
    joined = read("caption", "red ball") | read("rgb", png)
    expected = brute_force(library, model, [(joined, 1.0), (read("caption", "dog"), -0.3)])
    assert_same(hits, expected[:20])
    assert (hits.plan.composition, hits.plan.candidates, hits.plan.exact) == ("joint", way, True)


def test_unequal_weights_are_answered_late(
    engine: SearchEngine, library: Any, model: Any, read: Any, way: str
) -> None:
    query = Caption("red ball") + 0.4 * Caption("blue") - 0.9 * Palette("#20324a") + 0 * Caption("nothing")
    hits = engine.search("photos", query, limit=15, scoring="cosine", spaces={"imagebind_global": 3})
    expected = brute_force(
        library,
        model,
        [
            (read("caption", "red ball"), 1),
            (read("caption", "blue"), 0.4),
            (read("color_palette", ["#20324a"]), -0.9),
        ],
        spaces={"imagebind_global": 1},
    )
    assert_same(hits, expected[:15])
    assert (hits.plan.composition, hits.plan.candidates) == ("late", way)
    assert hits.plan.spaces == {"imagebind_global": 1}


def test_spaces_and_measures_count_as_the_model_says_for_what_is_asked_by_most(
    engine: SearchEngine, library: Any, model: Any, read: Any, way: str
) -> None:
    model.of_modality["caption"] = {"dinov2_global": 0.2, "imagebind_global": 0.8}
    model.of_modality["color_palette"] = {"dinov2_global": 1.0}
    model.shares["color_palette"] = 0.3
    parts = [(read("caption", "red ball"), 1), (read("color_palette", ["#20324a"]), -2)]
    query = Caption("red ball") - 2 * Palette("#20324a")
    for scoring, share in {"both": 0.3, "cosine": 0.0, "likelihood": 1.0}.items():
        hits = engine.search("photos", query, limit=15, scoring=scoring)  # type: ignore[arg-type]
        assert (hits.plan.spaces, hits.plan.likelihood_share) == ({"dinov2_global": 1}, share)
        assert hits.plan.candidates == way
        expected = brute_force(
            library, model, parts, scoring="both", spaces={"dinov2_global": 1}, likelihood_share=share
        )
        assert_same(hits, expected[:15])
    # Two of one kind together count more, and what the caller says goes before what the model knows.
    captions = 1.5 * Caption("red ball") + 1.5 * Caption("blue")
    assert engine.search("photos", captions - 2 * Palette("#20324a")).plan.spaces == {
        "dinov2_global": 0.2,
        "imagebind_global": 0.8,
    }
    asked = engine.search("photos", captions, spaces={"imagebind_global": 1})
    assert asked.plan.spaces == {"imagebind_global": 1}


def test_guided_parts_act_on_one_embedding_by_their_weights(
    engine: SearchEngine, library: Any, model: Any, read: Any, png: bytes, way: str
) -> None:
    query = Caption("red ball") + 0.4 * picture(png) - 0.9 * Caption("dog") + 0 * Caption("nothing")
    hits = engine.search("photos", query, limit=20, scoring="cosine", composition="guided")
    weighted = [("caption", "red ball", 1.0), ("rgb", png, 0.4), ("caption", "dog", -0.9)]
    blended = sum(weight * read(modality, content)[modality].sum(0) for modality, content, weight in weighted)
    expected = brute_force(library, model, [({"blend": blended[None]}, 1.0)])
    assert_same(hits, expected[:20])
    assert (hits.plan.composition, hits.plan.candidates, hits.plan.exact) == ("guided", way, True)
    single = engine.search("photos", Caption("red ball"), limit=20, composition="guided")
    assert [hit.id for hit in single] == [
        hit.id for hit in engine.search("photos", Caption("red ball"), limit=20)
    ]


@pytest.mark.parametrize("scoring", ["cosine", "likelihood", "both"])
def test_indexes_and_scan_agree_on_many_random_queries(
    engine: SearchEngine, library: Any, monkeypatch: pytest.MonkeyPatch, scoring: Any
) -> None:
    rng = np.random.default_rng(3)
    words = ["red", "ball", "blue", "dog", "harbour", "number4", "number31", "other"]
    for _ in range(20):
        parts = [
            Caption(" ".join(rng.choice(words, 2)), float(w)) for w in rng.normal(size=rng.integers(1, 5))
        ]
        query = Query((*parts, Caption("red", 0.1)))
        year, limit = int(rng.integers(2019, 2025)), int(rng.integers(1, 20))
        arguments: Any = {"where": F.year >= year, "limit": limit, "scoring": scoring, "composition": "late"}
        monkeypatch.setattr(candidates, "SCAN_ROWS", 10_000)
        scanned = engine.search("photos", query, **arguments)
        monkeypatch.setattr(candidates, "SCAN_ROWS", 0)
        monkeypatch.setattr(candidates, "FIRST_DEPTH", 1)
        proposed = engine.search("photos", query, **arguments)
        assert (scanned.plan.candidates, proposed.plan.candidates) == ("scan", "index")
        assert proposed.plan.exact
        assert [(hit.id, hit.score) for hit in proposed] == [(hit.id, hit.score) for hit in scanned]
        assert all(library.items[hit.id].attributes["year"] >= year for hit in proposed)


@pytest.mark.parametrize(("scoring", "rows"), [("cosine", 10**6), ("both", 0), ("likelihood", 0)])
def test_answers_that_may_lack_an_item_say_so(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch, scoring: Any, rows: int
) -> None:
    settings = {"SCAN_ROWS": 0, "LIKELIHOOD_ROWS": rows, "MAX_DEPTH": 2, "_depth_for": lambda _: 2}
    for name, value in settings.items():
        monkeypatch.setattr(candidates, name, value)
    hits = engine.search("photos", Caption("red") - Caption("dog"), limit=2, scoring=scoring)
    assert (hits.plan.candidates, hits.plan.exact) == ("index", False)
    assert len(hits) == 2
    assert hits.plan.num_scored < 60


@pytest.mark.usefixtures("way")
def test_a_filter_restricts_and_reports_its_selectivity(
    engine: SearchEngine, library: Any, model: Any, read: Any
) -> None:
    where = (F.year >= 2023) & F.color.isin(["red", "grey"]) & ~(F.flag == True)  # noqa: E712
    hits = engine.search("photos", Caption("red ball"), where=where, limit=60, scoring="cosine")

    def keep(item: Any) -> bool:
        a = item.attributes
        return a["year"] >= 2023 and a["color"] in ("red", "grey") and a.get("flag") is not True

    expected = brute_force(library, model, [(read("caption", "red ball"), 1)], keep=keep)
    assert 0 < len(expected) < 30
    assert_same(hits, expected)
    assert hits.total_allowed == len(expected)
    assert hits.plan.selectivity == len(expected) / 60
    assert hits.plan.filter == str(where)


@pytest.mark.usefixtures("way")
def test_a_filter_that_nothing_passes_gives_no_hits(engine: SearchEngine) -> None:
    hits = engine.search("photos", Caption("red"), where=F.year > 3000)
    assert (len(hits), hits.total_allowed, hits.plan.selectivity) == (0, 0, 0)


def test_another_view_compares_other_vectors(
    engine: SearchEngine, library: Any, model: Any, read: Any
) -> None:
    hits = engine.search("photos", Caption("red ball number3"), view="caption", limit=100, scoring="cosine")
    assert_same(hits, brute_force(library, model, [(read("caption", "red ball number3"), 1)], view="caption"))
    assert hits[0].score > 0.5


@pytest.mark.usefixtures("way")
def test_pages_follow_each_other_without_overlap(engine: SearchEngine) -> None:
    whole = engine.search("photos", Caption("red ball"), limit=60, scoring="cosine")
    pages = [
        engine.search("photos", Caption("red ball"), limit=7, offset=o, scoring="cosine")
        for o in range(0, 70, 7)
    ]
    assert [hit.id for page in pages for hit in page] == [hit.id for hit in whole]
    assert [len(page) for page in pages] == [7] * 8 + [4, 0]


@pytest.mark.parametrize(
    ("limit", "offset"), [(0, 0), (-1, 0), (1, -1), (10_001, 0), (1, 10_000), (True, 0), (1.5, 0), ("3", 0)]
)
def test_pages_that_cannot_be_are_refused(engine: SearchEngine, limit: Any, offset: Any) -> None:
    with pytest.raises(QueryError) as caught:
        engine.search("photos", Caption("a"), limit=limit, offset=offset)
    assert caught.value.code == "query.page"


def test_equal_scores_are_ordered_by_id(tmp_path: Path, make_library: Any, model: Any) -> None:
    made = make_library(tmp_path, 12, fresh=6)
    with made.store.writer() as writer:  # all rows the same vector, in another order than the ids
        from anyseek.storage import Item, Rows

        ids = [f"twin{i}" for i in (3, 1, 4, 0, 2)]
        embedded = model.embedder.embed([{"caption": model.embedder.read("caption", "twin")}] * 5)
        rows = Rows(
            ids,
            ["joint"] * 5,
            {n: s.vectors for n, s in embedded.items()},
            {n: s.tokens for n, s in embedded.items()},
        )
        writer.commit("photos", items=[Item(i) for i in ids], rows=rows)
    with made.store:
        hits = SearchEngine(made.store, model).search("photos", Caption("twin"), limit=3)
        assert [hit.id for hit in hits] == ["twin0", "twin1", "twin2"]
        assert hits[0].score == hits[2].score


@pytest.mark.parametrize("scoring", ["cosine", "likelihood", "both"])
@pytest.mark.parametrize("composition", ["joint", "guided", "late"])
def test_contributions_add_up_to_the_score(
    engine: SearchEngine, png: bytes, scoring: Any, composition: Any
) -> None:
    query = Caption("red ball") + picture(png) - 0.7 * Caption("dog")
    hits = engine.search("photos", query, composition=composition, scoring=scoring, explain=True, limit=30)
    for hit in hits:
        assert hit.explain is not None
        assert sum(c.contribution for c in hit.explain) == pytest.approx(hit.score, abs=1e-12)
        assert all(c.contribution == c.weight * c.raw for c in hit.explain)
        assert {i for c in hit.explain for i in c.parts} == {0, 1, 2}
    alone = [c for c in hits[0].explain or () if c.weight == 0]
    expected = {"late": set(), "joint": {(0,), (1,)}, "guided": {(0,), (1,), (2,)}}
    assert {c.parts for c in alone} == expected[composition]
    assert "part 1" in hits[0].why()
    plain = engine.search("photos", query, composition=composition, scoring=scoring, limit=30)
    assert [(hit.id, hit.score) for hit in plain] == [(hit.id, hit.score) for hit in hits]
    assert plain[0].explain is None


def test_hits_bring_the_catalogs_attributes_and_assets(engine: SearchEngine, library: Any) -> None:
    for hit in engine.search("photos", Caption("red ball"), limit=60):
        item = library.items[hit.id]
        assert dict(hit.attributes) == dict(item.attributes)
        assert list(hit.assets) == list(item.assets)


def test_an_item_is_found_by_its_own_assets(engine: SearchEngine, library: Any) -> None:
    item_id = next(i for i, item in library.items.items() if item.assets[0].modality == "rgb")
    hits = engine.search("photos", Like(item_id), limit=1)
    assert hits[0].id == item_id
    assert engine.search("photos", Like(item_id, ["rgb"]) - Caption("dog"), limit=60)
    mixed = engine.search("photos", Like(item_id, ["rgb"]) + Caption("red"), limit=1)
    assert mixed.plan.composition == "joint"
    assert engine.search("photos", Like(item_id) + Caption("red"), limit=1).plan.composition == "late"


def test_an_items_file_in_the_library_can_be_asked_with(engine: SearchEngine, library: Any) -> None:
    item_id = next(i for i, item in library.items.items() if any(a.modality == "depth" for a in item.assets))
    assert len(engine.search("photos", Like(item_id, ["depth"]), limit=2)) == 2


def test_item_parts_that_ask_for_nothing_there_say_what_is(engine: SearchEngine, library: Any) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        engine.search("photos", Like("nobody"))
    item_id = next(i for i, item in library.items.items() if item.assets[0].modality == "rgb")
    with pytest.raises(QueryError, match="rgb, caption"):
        engine.search("photos", Like(item_id, ["depth"]))
    with pytest.raises(QueryError, match="cannot read 'smell'"):
        engine.search("photos", Like(item_id, ["smell"]))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (-Caption("people"), "only negative"),
        (0 * Caption("people"), "weight 0"),
        (0 * Caption("a") - Caption("b"), "positive"),
        (Caption("a") - Caption("a"), "cancel"),
        (Caption("a") + Metadata({}), "empty"),
    ],
)
def test_queries_without_a_meaning_are_refused(engine: SearchEngine, query: Any, message: str) -> None:
    with pytest.raises((QueryError, InputError), match=message):
        engine.search("photos", query, composition="late", scoring="cosine")


def test_an_unreadable_modality_lists_the_readable_ones(engine: SearchEngine) -> None:
    with pytest.raises(QueryError, match=r"Part 2.*'normal'.*rgb, caption") as caught:
        engine.search("photos", Caption("a") + picture(b"", "normal"))
    assert caught.value.code == "query.modality"


def test_content_that_cannot_be_read_names_its_part(engine: SearchEngine) -> None:
    with pytest.raises(InputError, match=r"^Part 2: rgb"):
        engine.search("photos", Caption("a") + picture(b"no picture"))
    with pytest.raises(InputError) as caught:
        engine.search("photos", Caption(""))
    assert caught.value.code == "input.empty"


def test_joint_of_what_cannot_be_joined_proposes_late(engine: SearchEngine) -> None:
    for query in (Caption("a") + 0.5 * Palette("#000000"), Caption("a") + Caption("b")):
        with pytest.raises(QueryError, match="late"):
            engine.search("photos", query, composition="joint")
        assert engine.search("photos", query).plan.composition == "late"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"view": "depth"}, "joint, caption"),
        ({"composition": "best"}, "auto, joint, guided, late"),
        ({"scoring": "magic"}, "cosine, likelihood, both"),
        ({"spaces": {"clip": 1}}, "dinov2_global, imagebind_global"),
        ({"spaces": {"dinov2_global": 0}}, "above 0"),
        ({"where": F.yaer == 2}, "color, flag, score, tags, year"),
    ],
)
def test_unknown_options_list_the_known(engine: SearchEngine, option: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        engine.search("photos", Caption("a"), **option)


def test_an_unknown_collection_lists_the_known(engine: SearchEngine) -> None:
    with pytest.raises(NotFoundError, match="photos"):
        engine.search("birds", Caption("a"))


def test_another_models_collection_is_refused(library: Any, model: Any) -> None:
    model.fingerprint = "0ther" * 12
    with pytest.raises(QueryError, match="index the collection again") as caught:
        SearchEngine(library.store, model).search("photos", Caption("a"))
    assert caught.value.code == "collection.model_mismatch"


def test_a_function_can_provide_models_by_name(library: Any, model: Any) -> None:
    asked: list[str] = []

    def model_of(name: str) -> Any:
        asked.append(name)
        return model

    engine = SearchEngine(library.store, model_of)
    assert len(engine.search("photos", Caption("red"), limit=2)) == 2
    assert engine.models() == [model]
    assert set(asked) == {"fake"}


def test_an_empty_collection_gives_no_hits(tmp_path: Path, make_library: Any, model: Any) -> None:
    made = make_library(tmp_path, 0, fresh=0)
    with made.store:
        hits = SearchEngine(made.store, model).search("photos", Caption("a"))
        assert (len(hits), hits.total_allowed, hits.plan.selectivity) == (0, 0, 0)
