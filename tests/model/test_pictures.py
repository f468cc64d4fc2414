"""Pictures for people: what they show is where and what the value says."""

from typing import Any

import numpy as np
import pytest
from anyseek.errors import InputError, LimitError, ModelError
from anyseek.model.body import DEFAULT_CAMERA, FACING_CAMERA, JOINTS, find_joints
from anyseek.model.classes import COCO_CLASSES, class_colors
from anyseek.model.modalities import RAW_NAMES
from anyseek.model.pictures import draw_overview, draw_value
from anyseek.model.pictures.lettering import Lettering
from anyseek.model.pictures.overlays import color_of, instance_mask
from anyseek.model.pictures.tables import palette_shares
from anyseek.model.pictures.vectors import principal_colors
from anyseek.model.values import INSTANCE, PERSON, Predicted
from PIL import Image

PHOTO = np.full((64, 64, 3), (40, 90, 60), np.uint8)
TALE = "Ein Hafen, 日本語の文章, نص عربي, 😀 \ud800 \x00\x1b[31m\t\u202e\n\n" + "supercalifragilistic" * 30


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def predicted(raw: str, value: Any, problem: str | None = None) -> Predicted:
    return Predicted(raw, value, np.zeros(1, np.int64), problem)


def has_color(image: np.ndarray, color: Any) -> bool:
    return bool((image == np.asarray(color)).all(-1).any())


def a_value(raw: str) -> Any:
    rng = np.random.default_rng(0)
    match raw:
        case "rgb" | "normal":
            return rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)
        case "depth":
            return rng.standard_normal((9, 9)).astype(np.float32)
        case "semseg" | "canny_edge" | "sam_edge":
            return rng.integers(0, 256, (9, 9)).astype(np.uint8)
        case "human_poses":
            return np.zeros(0, PERSON)
        case "sam_instance":
            return np.zeros(0, INSTANCE)
        case "caption":
            return TALE
        case "det":
            return [{"box": [0.1, 0.2, 0.3, 0.4], "label": "dog"}]
        case "metadata":
            return {"brightness": 120.0}
        case "color_palette":
            return ["#102030"]
        case _:
            return rng.standard_normal((5,) * (1 if "global" in raw else 2 if raw == "t5_caption" else 3))


@pytest.mark.parametrize("size", [32, 256])
@pytest.mark.parametrize("raw", RAW_NAMES)
def test_every_modality_draws_as_wide_as_asked(raw: str, size: int) -> None:
    for over in (None, PHOTO):
        image = draw_value(raw, a_value(raw), over=over, size=size)
        assert image.width == size
        assert image.mode == "RGB"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("det", []),
        (
            "det",
            [
                {"box": [i / 400, i / 300, i / 400 + 0.3, i / 300 + 0.3], "label": TALE[:50]}
                for i in range(200)
            ],
        ),
        ("det", [{"box": [0.5, 0.5, 0.5, 0.5], "label": "a point"}, {"box": [0, 0, 1, 1], "label": "all"}]),
        ("human_poses", np.zeros(0, PERSON)),
        ("human_poses", np.zeros(2, PERSON)),
        ("sam_instance", np.zeros(0, INSTANCE)),
        ("sam_instance", np.zeros(300, INSTANCE)),
        ("sam_instance", np.full(2, np.frombuffer(b"\xff" * INSTANCE.itemsize, INSTANCE)[0])),
        ("semseg", np.zeros((4, 4), np.uint8)),
        ("semseg", np.arange(256, dtype=np.uint8).reshape(16, 16)),
        ("depth", np.zeros((4, 4), np.float32)),
        ("depth", np.full((1, 1), 1e30, np.float32)),
        ("depth", np.array([[0.0] * 300 + [1.0]], np.float32)),
        ("rgb", np.zeros((1, 1, 3), np.uint8)),
        ("rgb", np.zeros((1, 500, 3), np.uint8)),
        ("rgb", np.zeros((500, 1, 3), np.uint8)),
        ("dinov2", np.zeros((768, 1, 1), np.float32)),
        ("clip", np.ones((2, 3, 3), np.float32)),
        ("imagebind_global", np.zeros(1280, np.float32)),
        ("dinov2_global", np.ones(1, np.float32)),
        ("t5_caption", np.ones((1, 4096), np.float32)),
        ("color_palette", []),
        ("metadata", {}),
        ("metadata", {"brightness": -5.0, "entropy": 1e9, "aesthetic_score": 99, "n_humans": 10**9}),
        ("caption", ""),
        ("caption", " \n "),
        ("caption", "word " * 2000),
        ("caption", "x" * 10_000),
    ],
)
def test_nothing_too_much_and_too_small_are_drawn(raw: str, value: Any) -> None:
    for over in (None, PHOTO):
        image = draw_value(raw, value, over=over, classes=COCO_CLASSES, size=96)
        assert image.width == 96
        assert image.height <= 5 * 96


def test_near_is_bright_far_is_dark_and_the_scale_says_so() -> None:
    depth = np.linspace(0, 3, 64, dtype=np.float32)[None].repeat(64, 0)
    image = pixels(draw_value("depth", depth, size=128)).sum(-1)
    picture, scale = image[60], image[131]
    assert picture[4] > picture[64] > picture[123]
    assert scale[2] > scale[64] > scale[125]
    assert abs(int(picture[2]) - int(scale[2])) < 40, "the scale has the colours of the map"


def test_one_far_pixel_leaves_the_colours_of_the_rest() -> None:
    depth = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100)
    with_sky = depth.copy()
    with_sky[0, 0] = 1e6
    plain, spoilt = (pixels(draw_value("depth", one, size=100))[20:100] for one in (depth, with_sky))
    assert np.abs(plain - spoilt).max() < 12


def test_legend_has_the_colours_of_the_map_and_the_largest_classes() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[:, :30], labels[:, 30:35], labels[:, 35:38] = 19, 1, 58
    image = pixels(draw_value("semseg", labels, classes=COCO_CLASSES, size=240))
    cow, person, couch = class_colors(133)[[18, 0, 57]]
    np.testing.assert_array_equal(image[120, 10], cow)
    np.testing.assert_array_equal(image[120, 195], person)
    np.testing.assert_array_equal(image[120, 235], 0)
    legend = image[240:]
    assert all(has_color(legend, color) for color in (cow, person, couch, (0, 0, 0)))
    assert first(legend, cow) < first(legend, person), "what covers most comes first"


def first(image: np.ndarray, color: Any) -> int:
    """Where a colour appears first, line by line."""
    return int(np.flatnonzero((image == np.asarray(color)).all(-1))[0])


def test_outline_of_a_box_is_where_the_box_is() -> None:
    box = {"box": [0.25, 0.5, 0.75, 0.9], "label": "dog"}
    image = pixels(draw_value("det", [box], over=PHOTO, size=200))
    color = color_of("dog")
    rows, columns = np.nonzero((image == color).all(-1))
    below = rows > 105  # without the label, which sits on top
    assert abs(int(columns[below].min()) - 50) <= 2
    assert abs(int(columns[below].max()) - 149) <= 2
    assert abs(int(rows.max()) - 179) <= 2
    np.testing.assert_array_equal(image[140, 100], PHOTO[0, 0])
    np.testing.assert_array_equal(image[20, 20], PHOTO[0, 0])


def test_label_has_one_colour_in_every_picture_and_another_one_has_another() -> None:
    boxes = [{"box": [0.1, 0.5, 0.9, 0.9], "label": label} for label in ("dog", "zebra")]
    for box in boxes:
        assert has_color(pixels(draw_value("det", [box], size=100)), color_of(box["label"]))
    assert color_of("dog") != color_of("zebra")


def test_instance_covers_its_pixels_and_shows_the_photo_through() -> None:
    instances = np.zeros(1, INSTANCE)
    instances["box"], instances["point"] = [56, 112, 168, 224], [60, 20]
    instances["mask"][0, :, :32] = 1
    image = pixels(draw_value("sam_instance", instances, over=PHOTO, size=224))
    np.testing.assert_array_equal(image[60, 60], PHOTO[0, 0])
    np.testing.assert_array_equal(image[180, 150], PHOTO[0, 0])
    inside = image[180, 90]
    mixed = 0.55 * PHOTO[0, 0] + 0.45 * class_colors(64)[0]
    np.testing.assert_allclose(inside, mixed, atol=1)
    np.testing.assert_array_equal(image[180, 56], class_colors(64)[0], "the outline is solid")
    assert has_color(image[15:26, 55:66], (255, 255, 255)), "the point that was asked"


def test_mask_fills_its_box_at_any_size() -> None:
    instance = np.zeros((), INSTANCE)
    instance["box"], instance["mask"] = [56, 0, 112, 224], 1
    for size in (56, 224, 448):
        mask = instance_mask(instance[()], size)
        assert mask[:, size // 4 : size // 2].all()
        assert mask.sum() == size * size // 4


def test_bones_lie_between_the_joints_and_left_is_told_from_right() -> None:
    person = np.zeros(1, PERSON)
    person["box"], person["camera"] = [0.1, 0.1, 0.9, 0.9], DEFAULT_CAMERA
    person["pose"], person["rotation"] = np.eye(3), FACING_CAMERA
    places = dict(zip(JOINTS, find_joints(person)[0] * 300, strict=True))
    image = pixels(draw_value("human_poses", person, over=PHOTO, size=300))
    colors = {
        side: image[tuple(np.round((places[f"{side}_hip"] + places[f"{side}_knee"]) / 2).astype(int)[::-1])]
        for side in ("left", "right")
    }
    assert (colors["left"] != colors["right"]).any()
    for color in colors.values():
        assert (color != PHOTO[0, 0]).any()
    rows, columns = np.nonzero((image == colors["left"]).all(-1))
    assert columns.min() > 140, "who faces the camera has the left side on our right"
    assert abs(int(rows.max()) - places["left_foot"][1]) < 8
    np.testing.assert_array_equal(image[5, 5], PHOTO[0, 0])


@pytest.mark.parametrize("camera", [(0, 0, 0), (19, 19, 19), (-1, -1, -1), (1e30, 0, 0)])
def test_people_beyond_the_picture_do_no_harm(camera: tuple[float, ...]) -> None:
    people = np.zeros(3, PERSON)
    people["box"], people["camera"] = [0.9, 0.9, 0.1, 0.1], camera
    people["pose"], people["rotation"] = np.eye(3), np.eye(3)
    assert draw_value("human_poses", people, size=64).size == (64, 64)


def test_equal_features_have_equal_colours_whatever_the_sign_of_a_component() -> None:
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((5, 16)) @ rng.standard_normal((16, 16))).T.repeat(4, 0)
    colors = principal_colors(features)
    np.testing.assert_array_equal(colors[::4], colors[1::4])
    np.testing.assert_allclose(principal_colors(features + 3).astype(int), colors, atol=1)
    order = rng.permutation(len(features))
    np.testing.assert_allclose(principal_colors(features[order]).astype(int), colors[order], atol=1)


def test_feature_map_shows_what_differs() -> None:
    features = np.zeros((6, 8, 8), np.float32)
    features[:, :, 4:] = np.arange(1, 7)[:, None, None]
    image = pixels(draw_value("dinov2", features, size=80))
    assert (image[:, :40] == image[0, 0]).all()
    assert np.abs(image[0, 0] - image[0, 79]).max() > 200


def test_bars_of_a_vector_point_up_and_down() -> None:
    image = pixels(draw_value("dinov2_global", np.array([1.0, -1.0], np.float32), size=64))
    height = len(image)
    left, right = image[:, 16], image[:, 48]
    np.testing.assert_array_equal(left[height // 2 + 3], right[height // 2 - 3], "empty halves")
    assert (left[height // 2 - 3] != right[height // 2 + 3]).any()


def test_palette_shows_its_colours_as_tall_as_their_shares() -> None:
    photo = np.zeros((40, 40, 3), np.uint8)
    photo[30:] = (250, 0, 0)
    palette = ["#000000", "#ff0000"]
    np.testing.assert_allclose(palette_shares([(0, 0, 0), (255, 0, 0)], photo), [0.75, 0.25])
    column = pixels(draw_value("palette", palette, over=photo, size=200))[:, 100]
    assert 1.8 < (column == 0).all(-1).sum() / (column == (255, 0, 0)).all(-1).sum() < 3
    even = pixels(draw_value("palette", palette, size=200))[:, 100]
    assert (even == 0).all(-1).sum() == (even == (255, 0, 0)).all(-1).sum()


def test_bar_of_a_statistic_ends_where_its_value_lies_in_the_range() -> None:
    full, half, empty = (
        (pixels(draw_value("metadata", {"brightness": value}, size=300)) == (43, 108, 176)).all(-1).sum()
        for value in (255.0, 127.5, 0.0)
    )
    assert half / full == pytest.approx(0.5, abs=0.05)
    assert empty < 0.05 * full


def test_text_that_does_not_fit_ends_in_dots() -> None:
    text = Lettering(12)
    lines = text.wrap("word " * 2000, 100, 4)
    assert len(lines) == 4
    assert lines[-1].endswith("...")
    assert all(text.font.getlength(line) <= 100 for line in lines)
    assert text.wrap("one two", 500, 4) == ["one two"]
    assert text.wrap("a\nb\nc", 500, 2)[-1].endswith("...")
    assert text.cut_start("short", 100) == "short"
    assert text.cut_start("folder/" * 300 + "harbour", 100).endswith("/harbour")
    assert text.cut_start("folder/" * 300 + "harbour", 100).startswith("...")


@pytest.mark.parametrize("words", [TALE, "\ud800" * 100, "あ" * 500, "", "\n" * 50])
def test_no_text_breaks_the_lettering(words: str) -> None:
    text = Lettering(11)
    assert all(text.font.getlength(line) <= 90 for line in text.wrap(words, 90, 5))
    for line in (text.cut(words, 90), text.cut_start(words, 90)):
        assert text.font.getlength(line) <= 90


def test_value_that_could_not_be_read_gives_the_reason_on_a_plain_square() -> None:
    image = draw_value("det", predicted("det", None, "nothing in 12 words can be read"), size=128)
    blank = draw_value("det", predicted("det", None, " "), size=128)
    assert image.size == (128, 128)
    assert len(np.unique(pixels(blank).reshape(-1, 3), axis=0)) == 1
    assert (pixels(image) != pixels(blank)).any()


def test_problem_beside_a_value_stands_below_it() -> None:
    plain = draw_value("caption", "a dog", size=128)
    noted = draw_value("caption", predicted("caption", "a dog", "2 words cannot be read"), size=128)
    assert noted.height > plain.height
    np.testing.assert_array_equal(pixels(noted)[:128], pixels(plain))


def test_overview_puts_the_given_first_and_marks_it() -> None:
    given = (43, 108, 176)
    row = {
        "caption": predicted("caption", "a dog"),
        "normal": PHOTO,
        "rgb": predicted("rgb", PHOTO[..., ::-1].copy()),
    }
    sheet = pixels(draw_overview([row], size=64))
    left, right = sheet[:, : 8 + 64], sheet[:, 8 + 64 :]
    assert has_color(left, given)
    assert not has_color(right, given)
    assert has_color(left, PHOTO[0, 0])
    assert has_color(right, PHOTO[0, 0, ::-1])


def test_overview_aligns_rows_and_leaves_missing_places_empty() -> None:
    rows = [{"rgb": PHOTO, "normal": PHOTO}, {"normal": PHOTO}]
    sheet = pixels(draw_overview(rows, size=64))
    photo = (sheet == PHOTO[0, 0]).all(-1)
    half = len(photo) // 2
    assert photo[:half, :72].any()
    assert photo[:half, 80:].any()
    assert not photo[half:, :72].any()
    assert photo[half:, 80:].any()


def test_overview_lays_boxes_over_the_rgb_of_their_own_item() -> None:
    other = np.full((8, 8, 3), 200, np.uint8)
    boxes = predicted("det", [{"box": [0, 0, 0.1, 0.1], "label": "dog"}])
    sheet = pixels(draw_overview([{"rgb": PHOTO, "det": boxes}, {"rgb": other, "det": boxes}], size=64))
    half = len(sheet) // 2
    assert (sheet[:half, 80:] == PHOTO[0, 0]).all(-1).sum() > 1000
    assert (sheet[half:, 80:] == 200).all(-1).sum() > 1000


def test_overview_breaks_long_rows() -> None:
    row = {raw: predicted(raw, a_value(raw)) for raw in RAW_NAMES}
    narrow, wide = (draw_overview([row], size=48, columns=columns) for columns in (3, 50))
    assert narrow.width < 4 * 60
    assert wide.width > len(RAW_NAMES) * 48
    assert narrow.height > 5 * wide.height / 2


def test_overview_replaces_what_cannot_be_drawn_by_the_reason() -> None:
    row = {"depth": predicted("depth", np.full((4, 4), np.nan, np.float32)), "rgb": np.zeros(3)}
    assert has_color(pixels(draw_overview([row], size=64)), (253, 240, 225))


def test_overview_of_nothing_is_a_blank_sheet_with_its_title() -> None:
    assert draw_overview([], title="Nothing").height < draw_overview([{}, {}], title="Nothing").height


def test_overview_refuses_what_it_cannot_lay_out() -> None:
    with pytest.raises(InputError, match="name for each row"):
        draw_overview([{}], names=["a", "b"])
    with pytest.raises(InputError, match="1 column"):
        draw_overview([{}], columns=0)
    with pytest.raises(LimitError, match="fewer items"):
        draw_overview([{"rgb": PHOTO}] * 3000)
    with pytest.raises(ModelError, match="sound"):
        draw_overview([{"sound": "la"}])


def test_size_out_of_range_and_wrong_photo_are_refused() -> None:
    for size in (0, 31, 5000):
        with pytest.raises(InputError, match="size must be"):
            draw_value("rgb", PHOTO, size=size)
    with pytest.raises(InputError, match="rgb: expected uint8"):
        draw_value("det", [], over=np.zeros((4, 4), np.float32))
