import pytest
from anyseek.errors import ModelError
from anyseek.model.modalities import MODALITIES, get_modality

# Numeric ids label tokens inside checkpoints' training data and recordings: they must never change.
PUBLISHED_IDS = {
    "rgb@224": 20716,
    "caption": 32652,
    "det": 30982,
    "tok_rgb@224": 11606,
    "tok_depth@224": 20063,
    "tok_normal@224": 16656,
    "tok_semseg@224": 12515,
    "tok_clip@224": 11422,
    "t5_caption": 28551,
    "metadata": 1951,
    "human_poses": 30584,
    "color_palette": 12967,
    "sam_instance": 1938,
    "tok_canny_edge@224": 12520,
    "tok_sam_edge@224": 7842,
    "tok_dinov2@224": 26275,
    "tok_imagebind@224": 6200,
    "tok_dinov2_global": 29172,
    "tok_imagebind_global": 12099,
    "rgb@448": 27924,
    "tok_rgb@448": 1057,
    "tok_depth@448": 11499,
    "tok_normal@448": 32321,
    "tok_semseg@448": 10291,
    "tok_clip@448": 3585,
}


def test_table_holds_every_published_modality_under_its_id() -> None:
    assert {name: row.id for name, row in MODALITIES.items()} == PUBLISHED_IDS


def test_rows_are_keyed_by_their_own_name() -> None:
    assert all(row.name == name for name, row in MODALITIES.items())


@pytest.mark.parametrize("row", MODALITIES.values(), ids=lambda row: row.name)
def test_row_is_consistent(row) -> None:
    assert row.raw_format
    assert row.is_target == (row.kind in {"img", "seq"}) == (row.tokenizer is not None)
    if row.kind in {"pix", "img"}:
        assert row.grid is not None
        assert row.image_size is not None
        assert row.patch_size is not None
        assert row.max_tokens == row.grid[0] * row.grid[1]
        assert row.image_size == row.grid[0] * row.patch_size
        assert row.positions == ("learned" if row.name.endswith("_global") else "2d")
    else:
        assert (row.grid, row.positions) == (None, "1d")


def test_names_and_raw_names_differ_where_one_kind_of_data_has_several_forms() -> None:
    assert {row.raw for row in MODALITIES.values()} == {
        *("rgb", "caption", "det", "metadata", "color_palette", "depth", "normal", "semseg", "canny_edge"),
        *("sam_edge", "human_poses", "sam_instance", "t5_caption", "clip", "dinov2", "imagebind"),
        *("dinov2_global", "imagebind_global"),
    }


def test_another_size_takes_the_given_patches() -> None:
    small = get_modality("rgb@96", patch_size=12)
    assert (small.name, small.raw, small.kind, small.grid, small.max_tokens) == (
        "rgb@96",
        "rgb",
        "pix",
        (8, 8),
        64,
    )
    assert small.id != MODALITIES["rgb@224"].id


def test_rows_of_the_table_keep_their_patches() -> None:
    assert get_modality("tok_dinov2@224", patch_size=32) is MODALITIES["tok_dinov2@224"]


def test_vocabulary_can_be_replaced() -> None:
    assert get_modality("tok_dinov2_global", vocab_size=64).vocab_size == 64
    assert MODALITIES["tok_dinov2_global"].vocab_size == 8192


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("rbg@224", {}, "Unknown modality 'rbg@224'. Known: rgb@224, caption,"),
        ("rgb", {}, "Unknown modality"),
        ("rgb@", {}, "Unknown modality"),
        ("rgb@0", {}, "Unknown modality"),
        ("rgb@99999999999", {}, "Unknown modality"),
        ("caption@96", {}, "Unknown modality"),
        ("tok_dinov2_global@96", {}, "Unknown modality"),
        ("rgb@٩٦", {}, "Unknown modality"),
        ("rgb@100", {"patch_size": 16}, "patches of 16 pixels do not fill a side of 100"),
        ("rgb@96", {"patch_size": 0}, "patches of 0 pixels"),
        ("rgb@224", {"vocab_size": 5}, "no vocabulary"),
        ("caption", {"vocab_size": 0}, "vocabulary of 1 id or more"),
    ],
)
def test_names_and_sizes_that_mean_nothing_are_refused(
    name: str, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        get_modality(name, **settings)
    assert message in str(caught.value)
