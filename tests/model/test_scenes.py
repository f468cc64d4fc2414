import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from anyseek.model.scenes import (
    COLORS,
    MAX_DEPTH,
    SEMSEG_CLASSES,
    SHAPES,
    Scene,
    SceneObject,
    View,
    caption,
    describe_scene,
    encode_depth,
    metadata,
    render,
    write_scenes,
)
from anyseek.model.scenes.shapes import UNIT_SHAPES
from PIL import Image

VIEW = View(
    azimuth=0.3,
    elevation=0.35,
    distance=7.5,
    target_z=0.8,
    field_of_view=0.82,
    sun_azimuth=1.0,
    sun_elevation=0.9,
    sun_color=(2.0, 2.0, 2.0),
    ambient=0.5,
)


def one_object(shape: str, **changes: object) -> Scene:
    values = {
        "shape": shape,
        "color": "red",
        "material": "matte",
        "size": "large",
        "x": 0.0,
        "y": 0.0,
        "radius": 1.0,
        "yaw": 0.4,
        **changes,
    }
    item = SceneObject(**values)  # type: ignore[arg-type]
    return Scene(0, 0, "unseen", (item,), "grey", "plain", 1.0, 0.0, "grey sky")


def test_equal_seeds_give_equal_scenes_and_pixels():
    first, second = Scene.sample(3, 17), Scene.sample(3, 17)
    assert first == second
    assert np.array_equal(render(first, 48).rgb, render(second, 48).rgb)


def test_scenes_differ_by_seed_index_and_split():
    scenes = [Scene.sample(0, 0), Scene.sample(1, 0), Scene.sample(0, 1), Scene.sample(0, 0, split="train")]
    assert len({scene.objects for scene in scenes}) == len(scenes)


def test_scene_of_an_index_does_not_depend_on_how_many_are_drawn(tmp_path: Path):
    write_scenes(tmp_path / "few", 2, size=32)
    write_scenes(tmp_path / "more", 3, size=32)
    for path in (tmp_path / "few").iterdir():
        assert path.read_bytes() == (tmp_path / "more" / path.name).read_bytes()


def test_another_rendering_shows_the_same_scene_from_elsewhere():
    scene = Scene.sample(0, 5)
    first, second = scene.view(0), scene.view(1)
    moved = abs(first.azimuth - second.azimuth)
    assert np.deg2rad(19) < moved < np.deg2rad(51)
    assert first.sun_azimuth != second.sun_azimuth
    assert not np.array_equal(render(scene, 32, 0).rgb, render(scene, 32, 1).rgb)


def test_objects_never_touch():
    for index in range(200):
        objects = Scene.sample(9, index).objects
        for i, a in enumerate(objects):
            for b in objects[i + 1 :]:
                assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius


@pytest.mark.parametrize("name", SHAPES)
def test_rays_meet_shapes_on_their_surface_with_outward_normals(name: str):
    shape = UNIT_SHAPES[name]
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(3, 4000)).astype(np.float32)
    origins *= 3 / np.sqrt((origins**2).sum(0))
    aims = rng.uniform(-0.6, 0.6, origins.shape).astype(np.float32)
    directions = aims - origins
    directions /= np.sqrt((directions**2).sum(0))
    t = shape.intersect(origins, directions)
    hit = np.isfinite(t)
    assert 0.2 < hit.mean() <= 1
    points = origins[:, hit] + t[hit] * directions[:, hit]
    assert np.sqrt((points**2).sum(0)).max() < shape.bound + 0.02
    assert np.abs(points[2]).max() < shape.half_height + 0.02
    normals = shape.normals(points)
    assert np.allclose((normals**2).sum(0), 1, atol=0.02)
    # A ray that comes from outside meets a surface that faces it.
    assert ((normals * directions[:, hit]).sum(0) < 0.08).mean() > 0.995


@pytest.mark.parametrize("name", SHAPES)
def test_window_of_an_object_cuts_nothing_off(name: str, monkeypatch: pytest.MonkeyPatch):
    scene = one_object(name, x=1.4, y=-1.2)
    near = render(scene, 48, VIEW)
    # By name: the package's `render` is the function, not the module.
    monkeypatch.setattr(
        import_module("anyseek.model.scenes.render"), "_window", lambda *_: (slice(0, 96), slice(0, 96))
    )
    assert np.array_equal(near.instances, render(scene, 48, VIEW).instances)


def test_depth_and_normals_are_those_of_the_ground():
    view = render(one_object("sphere", radius=0.2, x=2.0, y=2.0), 64, VIEW)
    ground = view.semseg == SEMSEG_CLASSES.index("ground")
    bottom = view.depth[-1][ground[-1]]
    # The lowest ray meets the ground where trigonometry says.
    angle = VIEW.elevation + np.arctan(np.tan(VIEW.field_of_view / 2) * (1 - 0.5 / 128 * 2))
    height = VIEW.target_z + VIEW.distance * np.sin(VIEW.elevation)
    expected = height / np.sin(angle) * np.cos(angle - VIEW.elevation)
    assert np.allclose(bottom, expected, rtol=0.02)
    up = np.array([0, np.cos(VIEW.elevation), np.sin(VIEW.elevation)])
    assert np.allclose(view.normal[ground], up, atol=1e-3)
    assert np.isinf(view.depth[view.semseg == 0]).all()


def test_class_map_instances_and_boxes_agree():
    for index in range(12):
        scene = Scene.sample(1, index)
        record = describe_scene(scene)
        view = record.rendering
        objects = view.semseg >= 2
        assert np.array_equal(objects, view.instances > 0)
        for number, item in enumerate(scene.objects, start=1):
            classes = set(view.semseg[view.instances == number].tolist())
            assert classes <= {SEMSEG_CLASSES.index(item.shape)}
        for box in record.boxes:
            x0, y0, x1, y1 = (round(float(v) * 96) for v in box["box"])  # type: ignore[attr-defined]
            label = SEMSEG_CLASSES.index(str(box["label"]))
            inside = view.semseg[y0:y1, x0:x1] == label
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_hidden_share_is_what_the_object_in_front_hides():
    back = SceneObject("cube", "blue", "matte", "small", -2.0, 0.0, 0.5, 0.0)
    front = SceneObject("cube", "red", "matte", "large", 2.0, 0.0, 1.0, 0.0)
    scene = Scene(0, 0, "unseen", (back, front), "grey", "plain", 1.0, 0.0, "grey sky")
    view = View(0.0, 0.1, 8.0, 0.7, 0.82, 1.0, 0.9, (2.0, 2.0, 2.0), 0.5)
    shares = render(scene, 64, view).visible
    assert shares[0] < 0.1
    assert shares[1] == 1


@pytest.mark.parametrize("color", ["red", "green", "blue"])
def test_colors_look_like_their_names(color: str):
    view = render(one_object("sphere", color=color), 64, VIEW)
    mean = view.rgb[view.instances == 1].mean(0)
    assert mean.argmax() == np.argmax(COLORS[color])


def test_shadow_darkens_the_ground():
    view = render(one_object("cube"), 64, VIEW)
    ground = view.rgb[view.semseg == 1].astype(float).mean(-1)
    assert ground.min() < 0.7 * np.median(ground)


def test_caption_names_everything():
    synonyms = {"sphere": "ball", "cube": "box", "torus": "ring", "large": "big", "metal": "metallic"}
    for index in range(40):
        scene = Scene.sample(2, index)
        text = caption(scene, scene.rng("words")).lower()
        for item in scene.objects:
            for word in (item.shape, item.color, item.size, item.material):
                assert word in text or synonyms.get(word, word) in text
        assert scene.pattern in text
        assert scene.ground in text


def test_partial_caption_still_names_an_object():
    scene = Scene.sample(2, 0)
    text = caption(scene, np.random.default_rng(0), detail=0.0)
    assert any(shape in text.lower() for shape in (*SHAPES, "ball", "box", "ring"))


def test_metadata_measures_the_image():
    scene = Scene.sample(4, 4)
    record = describe_scene(scene)
    found = record.metadata
    assert found["original_width"] == 96
    assert "caption_n_words" not in found
    assert metadata(scene, record.rendering, "two words")["caption_n_words"] == 2
    assert abs(float(found["brightness"]) - record.rendering.rgb.mean()) < 20
    assert 0 <= float(found["objectness"]) <= 1
    assert int(found["n_coco_instances"]) <= len(scene.objects)


def test_depth_is_scaled_to_16_bits():
    depth = np.array([[0, MAX_DEPTH / 2, 2 * MAX_DEPTH, np.inf]], dtype=np.float32)
    assert encode_depth(depth).tolist() == [[0, 32768, 65535, 65535]]


def test_folder_holds_ordinary_files(tmp_path: Path):
    seen: list[int] = []
    names = write_scenes(tmp_path, 3, size=32, progress=seen.append)
    assert names == ["0001", "0002", "0003"]
    assert seen == [1, 2, 3]
    record = describe_scene(Scene.sample(0, 1), 32)
    with Image.open(tmp_path / "0002.png") as image:
        assert np.array_equal(np.asarray(image), record.rendering.rgb)
    with Image.open(tmp_path / "0002.depth.png") as image:
        assert np.array_equal(np.asarray(image), encode_depth(record.rendering.depth))
    with Image.open(tmp_path / "0002.semseg.png") as image:
        assert np.array_equal(np.asarray(image), record.rendering.semseg)
    assert (tmp_path / "0002.caption.txt").read_text() == record.caption + "\n"
    for suffix, value in (
        ("det", record.boxes),
        ("color_palette", record.palette),
        ("metadata", record.metadata),
    ):
        assert json.loads((tmp_path / f"0002.{suffix}.json").read_text()) == value
    assert json.loads((tmp_path / "0002.json").read_text()) == record.attributes


@pytest.mark.slow
def test_several_workers_write_the_same_files(tmp_path: Path):
    write_scenes(tmp_path / "one", 100, size=32, workers=1)
    write_scenes(tmp_path / "two", 100, size=32, workers=2)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
