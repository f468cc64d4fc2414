"""The renderer: equal seeds give equal scenes, and every map says what geometry says."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import ModelError
from anyseek.model.body import find_joints, project
from anyseek.model.inputs import InputReader
from anyseek.model.modalities import MODALITIES as ROWS
from anyseek.model.scenes import (
    COLORS,
    MAX_DEPTH,
    MODALITIES,
    OBJECTS,
    PERSON,
    SEMSEG_CLASSES,
    Decoration,
    Place,
    Rendering,
    Scene,
    SceneObject,
    View,
    caption,
    describe_scene,
    encode_depth,
    instances,
    known_queries,
    metadata,
    people,
    render,
    scene_file,
    write_scenes,
)
from anyseek.model.scenes.cast import camera, screen
from anyseek.model.scenes.parts import CLUTTER, KINDS, between
from anyseek.model.scenes.people import ACTIONS, joints, sample_pose
from anyseek.model.scenes.shapes import UNIT_SHAPES
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.training.vocabulary import build_vocabulary
from PIL import Image

VIEW = View(
    azimuth=0.3,
    elevation=0.35,
    distance=7.0,
    target_z=0.8,
    field_of_view=0.82,
    sun_azimuth=1.0,
    sun_elevation=0.9,
    sun_color=(2.0, 2.0, 2.0),
    ambient=0.5,
)
OUTSIDE = Place("square", "0", "grey sky", "", False, 0.0, 0.2, 1.0, ())
ROOM = Place("room", "grey", "", "white", False, 4.0, 0.2, 1.0, (Decoration(2, "red", 0.0, 2.2, (0.8, 0.5)),))
CLASS = {name: number for number, name in enumerate(SEMSEG_CLASSES)}
SYNONYMS = {"sphere": "ball", "cube": "box", "torus": "ring", "large": "big", "metal": "metallic"}
SYNONYMS |= {"spotted": "dotted"}


def thing(kind: str, **changes: Any) -> SceneObject:
    values = {"color": "red", "material": "matte", "texture": "plain", "size": "large", "x": 0.0, "y": 0.0}
    return SceneObject(kind, **{**values, "radius": 1.0, "yaw": 0.4, **changes})


def somebody(action: str = "standing", seed: int = 0, **changes: Any) -> SceneObject:
    pose = sample_pose(action, np.random.default_rng(seed))
    return thing(PERSON, **{"action": action, "pose": pose, "radius": 1.15, **changes})


def of(*objects: SceneObject, place: Place = OUTSIDE) -> Scene:
    return Scene(0, 0, "unseen", objects, (), place)


def points_of(image: Rendering, view: View) -> np.ndarray:
    """Places (3, H, W) that depth says the pixels' first samples show."""
    size = len(image.depth)
    axes, eye = camera(view)
    rays = screen(2 * size, view.field_of_view)[:, ::2, ::2]
    along = image.depth / rays[2]
    return eye[:, None, None] + np.einsum("ji,jhw->ihw", axes, rays * along)


def normals_of(image: Rendering, view: View) -> np.ndarray:
    """Normals (3, H, W) in the scene's axes."""
    axes, _ = camera(view)
    return np.einsum("ji,hwj->ihw", axes, image.normal * [1, 1, -1])


# Which scene a seed gives


def test_equal_seeds_give_equal_scenes_and_pixels():
    first, second = Scene.sample(3, 17), Scene.sample(3, 17)
    assert first == second
    one, two = render(first, 48), render(second, 48)
    for name in ("rgb", "depth", "normal", "semseg", "instances", "edges"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


def test_splits_seeds_and_indices_never_give_the_same_scene():
    scenes = [
        Scene.sample(seed, index, split=split)
        for split in ("unseen", "train", "validation")
        for seed in (0, 1, 7)
        for index in range(40)
    ]
    assert len({(scene.objects, scene.clutter, scene.place) for scene in scenes}) == len(scenes)
    assert len({scene.rng("view0").integers(2**62) for scene in scenes}) == len(scenes)


def test_sampling_ends_and_keeps_things_apart_for_thousands_of_seeds():
    counts: set[int] = set()
    for seed in range(3000):
        scene = Scene.sample(seed, seed % 7)
        counts.add(len(scene.objects))
        for i, a in enumerate(scene.objects):
            for b in scene.objects[i + 1 :]:
                assert np.hypot(a.x - b.x, a.y - b.y) > 0.3
    assert counts == set(range(1, 7))


def test_objects_hardly_ever_overlap():
    gaps = [
        np.hypot(a.x - b.x, a.y - b.y) - reach(a) - reach(b)
        for seed in range(300)
        for objects in [Scene.sample(seed).objects]
        for i, a in enumerate(objects)
        for b in objects[i + 1 :]
    ]
    assert np.mean(np.array(gaps) > 0) > 0.97


def reach(item: SceneObject) -> float:
    return 0.55 if item.kind == PERSON else item.radius


@pytest.mark.parametrize("seed", [0, 2**63, 10**30])
def test_any_seed_that_is_a_number_works(seed: int):
    assert Scene.sample(seed, 10**12).objects


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_negative_seeds_are_refused(seed: int, index: int):
    with pytest.raises(ValueError, match=r"negative|unsigned"):
        Scene.sample(seed, index)


def test_a_moved_camera_shows_the_same_scene():
    for index in range(30):
        scene = Scene.sample(0, index)
        first, second = scene.view(0), scene.view(1)
        assert np.deg2rad(19) < abs(first.azimuth - second.azimuth) < np.deg2rad(51)
        assert first.sun_azimuth != second.sun_azimuth
    scene = of(thing("sphere", radius=0.8, x=0.5, y=-0.3))
    for azimuth in (0.0, 1.0, 4.0):
        view = View(azimuth, *[getattr(VIEW, name) for name in list(VIEW.__dataclass_fields__)[1:]])
        image = render(scene, 48, view)
        points = points_of(image, view)[:, image.instances == 1]
        assert np.allclose(np.linalg.norm(points.T - [0.5, -0.3, 0.8], axis=1), 0.8, atol=2e-3)


# Geometry


@pytest.mark.parametrize("name", UNIT_SHAPES)
def test_rays_meet_shapes_on_their_surface_with_outward_normals(name: str):
    shape = UNIT_SHAPES[name]
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(3, 4000)).astype(np.float32)
    origins *= 3 / np.sqrt((origins**2).sum(0))
    directions = rng.uniform(-0.6, 0.6, origins.shape).astype(np.float32) - origins
    directions /= np.sqrt((directions**2).sum(0))
    t = shape.intersect(origins, directions)
    hit = np.isfinite(t)
    assert 0.2 < hit.mean() <= 1
    points = origins[:, hit] + t[hit] * directions[:, hit]
    assert (np.abs(points).max(1) < np.array(shape.half) + 0.02).all()
    normals = shape.normals(points)
    assert np.allclose((normals**2).sum(0), 1, atol=0.02)
    # A ray that comes from outside meets a surface that faces it.
    assert ((normals * directions[:, hit]).sum(0) < 0.08).mean() > 0.995


@pytest.mark.parametrize("kind", [*KINDS, *CLUTTER])
def test_parts_lie_within_their_bounds_and_stand_on_the_ground(kind: str):
    item = thing(kind, x=1.0, y=-2.0, radius=0.7, yaw=1.1)
    rng = np.random.default_rng(0)
    lowest, centre, radius = np.inf, *item.ball
    for one in item.parts:
        outside = rng.normal(size=(3, 2000))
        outside = (one.centre[:, None] + 4 * outside / np.linalg.norm(outside, axis=0)).astype(np.float32)
        towards = one.centre[:, None] + 0.3 * one.scale.min() * rng.uniform(-1, 1, (3, 2000)) - outside
        towards = (towards / np.linalg.norm(towards, axis=0)).astype(np.float32)
        t = one.meet(outside, towards)
        points = (outside + t * towards)[:, np.isfinite(t)]
        assert points.shape[1] > 500 or one.shape == "torus"
        assert (np.linalg.norm(points - one.centre[:, None], axis=0) < one.bound + 1e-2).all()
        assert (np.linalg.norm(points - centre[:, None], axis=0) < radius + 1e-2).all()
        assert np.allclose(np.linalg.norm(one.normals(points), axis=0), 1, atol=1e-3)
        lowest = min(lowest, points[2].min()) if points.size else lowest
    assert -0.12 < lowest < 0.2


def test_a_part_between_two_places_reaches_both():
    start, end = np.array([0.2, 0.1, 0.5]), np.array([-0.4, 0.3, 1.9])
    one = between("cylinder", start, end, 0.1, None)
    ends = one.local(np.stack([start, end], axis=1).astype(np.float32))
    assert np.allclose(ends[:2], 0, atol=1e-5)
    assert (np.abs(ends[2]) <= 1).all()


def test_depth_of_spheres_boxes_and_planes_is_exact():
    view = VIEW
    ball = render(of(thing("sphere", radius=1.0)), 64, view)
    points, normals = points_of(ball, view), normals_of(ball, view)
    on = ball.instances == 1
    assert np.allclose(np.linalg.norm(points[:, on] - [[0], [0], [1]], axis=0), 1, atol=2e-3)
    assert np.allclose(normals[:, on], points[:, on] - [[0], [0], [1]], atol=5e-3)
    ground = ball.semseg == CLASS["ground"]
    assert np.abs(points[2, ground]).max() < 5e-3
    assert np.allclose(normals[:, ground].T, [0, 0, 1], atol=1e-4)

    cube = render(of(thing("cube", radius=1.0, yaw=0.7)), 64, view)
    points, normals = points_of(cube, view), normals_of(cube, view)
    on = cube.instances == 1
    turn = thing("cube", yaw=0.7).turn
    local, facing = turn.T @ points[:, on] - [[0], [0], [0.74]], turn.T @ normals[:, on]
    assert np.allclose(np.abs(local).max(0), 0.74, atol=2e-3)
    face = np.abs(facing).argmax(0)
    assert np.allclose(np.abs(facing).max(0), 1, atol=1e-3)
    assert np.allclose(np.take_along_axis(local, face[None], 0), 0.74 * np.sign(facing.sum(0)), atol=3e-3)

    room = render(of(thing("sphere", radius=0.3), place=ROOM), 64, view)
    points, normals = points_of(room, view), normals_of(room, view)
    wall = np.isin(room.semseg, [CLASS["wall"], CLASS["picture"]])
    assert wall.any()
    distance = np.abs((normals * points).sum(0))[wall]
    assert np.allclose(distance, 4.0, atol=5e-3)
    assert np.abs(normals[2, wall]).max() < 1e-4


def test_normals_are_unit_and_face_the_camera_and_sky_has_none():
    for index in range(12):
        scene = Scene.sample(5, index)
        view = scene.view(0)
        image = render(scene, 48, view)
        solid = np.isfinite(image.depth)
        assert np.array_equal(solid, ~np.isin(image.semseg, [CLASS["sky"], CLASS["hill"]]))
        assert not image.normal[~solid].any()
        assert np.allclose(np.linalg.norm(image.normal[solid], axis=-1), 1, atol=5e-3)
        rays = np.moveaxis(screen(96, view.field_of_view)[:, ::2, ::2], 0, -1) * [1, 1, -1]
        assert (((image.normal * rays).sum(-1) < 0.05)[solid]).mean() > 0.998
        assert (image.depth[solid] > 0).all()


def test_every_pixel_of_a_thing_lies_in_its_ball():
    for index in range(12):
        scene = Scene.sample(6, index)
        view = scene.view(0)
        image = render(scene, 48, view)
        points = points_of(image, view)
        for number, item in enumerate(scene.objects, start=1):
            mine = image.instances == number
            centre, radius = item.ball
            away = np.linalg.norm(points[:, mine] - centre[:, None], axis=0)
            assert (away < radius + 0.02).all()
            assert set(image.semseg[mine].tolist()) <= {CLASS[item.kind]}
        things = np.isin(image.semseg, [CLASS[kind] for kind in (*OBJECTS, PERSON)])
        assert np.array_equal(things, image.instances > 0)


def test_edges_are_where_things_meet():
    for index in range(8):
        image = render(Scene.sample(8, index), 48)
        labels = image.semseg.astype(int) + 100 * image.instances
        change = np.zeros(labels.shape, bool)
        change[:, :-1] |= labels[:, :-1] != labels[:, 1:]
        change[:-1] |= labels[:-1] != labels[1:]
        assert set(np.unique(image.edges)) <= {0, 255}
        # Beyond these, two walls or two pieces of clutter meet.
        assert (image.edges[change] == 255).all()
        apart = np.isin(image.semseg, [CLASS["wall"], CLASS["clutter"]])
        assert not image.edges[~change & ~apart].any()


@pytest.mark.parametrize("kind", OBJECTS)
def test_window_of_an_object_cuts_nothing_off(kind: str, monkeypatch: pytest.MonkeyPatch):
    scene = of(thing(kind, x=1.4, y=-1.2))
    near = render(scene, 48, VIEW)
    monkeypatch.setattr(
        import_module("anyseek.model.scenes.cast"), "_window", lambda *_: (slice(0, 96), slice(0, 96))
    )
    assert np.array_equal(near.instances, render(scene, 48, VIEW).instances)


def test_hidden_share_is_what_the_object_in_front_hides():
    back = thing("cube", x=-2.0, radius=0.5, yaw=0.0)
    front = thing("cube", x=2.0, yaw=0.0)
    view = View(0.0, 0.1, 8.0, 0.7, 0.82, 1.0, 0.9, (2.0, 2.0, 2.0), 0.5)
    shares = render(of(back, front), 64, view).visible
    assert shares[0] < 0.1
    assert shares[1] == 1


def test_what_is_behind_the_camera_or_around_it_is_not_seen():
    far = render(of(thing("cube", x=60.0, y=20.0)), 32, VIEW)
    assert not far.instances.any()
    assert far.visible == (0.0,)
    _, eye = camera(VIEW)
    around = render(of(thing("sphere", x=float(eye[0]), y=float(eye[1]), radius=3.0)), 32, VIEW)
    assert around.rgb.shape == (32, 32, 3)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_tiny_pictures_render(size: int):
    image = render(Scene.sample(0, 1), size)
    assert image.rgb.shape == (size, size, 3)
    assert image.depth.shape == image.semseg.shape == image.edges.shape == (size, size)


def test_scenes_without_anything_render():
    image = render(of(), 16, VIEW)
    assert image.visible == ()
    assert not image.instances.any()


# Light and colour


@pytest.mark.parametrize("color", ["red", "green", "blue"])
def test_colors_look_like_their_names(color: str):
    image = render(of(thing("sphere", color=color)), 64, VIEW)
    assert image.rgb[image.instances == 1].mean(0).argmax() == np.argmax(COLORS[color])


@pytest.mark.parametrize("texture", ["striped", "checkered", "spotted"])
def test_textures_have_two_tones(texture: str):
    plain = render(of(thing("cube")), 64, VIEW)
    other = render(of(thing("cube", texture=texture)), 64, VIEW)
    on = plain.instances == 1
    changed = (plain.rgb[on].astype(int) - other.rgb[on]).any(-1).mean()
    assert 0.1 < changed < 0.9
    assert np.array_equal(plain.depth, other.depth)


def test_shadow_darkens_the_ground():
    image, empty = render(of(thing("cube")), 64, VIEW), render(of(), 64, VIEW)
    ground = image.semseg == CLASS["ground"]
    ratio = image.rgb[ground].astype(float).mean(-1) / empty.rgb[ground].mean(-1)
    assert (ratio < 0.85).mean() > 0.01
    assert np.median(ratio) > 0.9
    assert ratio.max() < 1.01


# People


@pytest.mark.parametrize("action", ACTIONS)
def test_joints_of_people_are_seen_inside_their_boxes(action: str):
    for seed in range(4):
        scene = of(somebody(action, seed, x=0.3, y=0.2, yaw=1.5 * seed))
        image = render(scene, 96, VIEW)
        (one,) = people(scene, image.instances, VIEW)
        item, (axes, eye) = scene.objects[0], camera(VIEW)
        places = joints(item.pose)[0] @ item.turn.T * item.radius + [item.x, item.y, 0]
        x, y, z = axes @ (places - eye).T
        zoom = 0.5 / np.tan(VIEW.field_of_view / 2)
        seen = np.stack([0.5 + zoom * x / z, 0.5 - zoom * y / z], axis=1)
        low, high = one["box"][:2] - 0.02, one["box"][2:] + 0.02
        assert ((seen > low) & (seen < high)).all()
        # Where our camera sees a joint there is a body, but for hands and toes at its rim.
        rows, columns = (seen.T[::-1] * 96).astype(int).clip(0, 95)
        assert (image.instances[rows, columns] == 1).mean() > 0.8


@pytest.mark.parametrize("action", ACTIONS)
def test_people_as_values_project_onto_their_pictures(action: str):
    for seed in range(4):
        scene = of(somebody(action, seed, x=-0.4, yaw=0.8 * seed))
        image = render(scene, 96, VIEW)
        found = people(scene, image.instances, VIEW)
        # The body model's proportions are not our figure's: joints are near it, the trunk is on it.
        near = np.zeros(image.instances.shape, bool)
        rows, columns = np.nonzero(image.instances)
        side = rows.max() - rows.min()
        for row, column in zip(rows, columns, strict=True):
            reach = max(1, side // 12)
            near[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = True
        at = (find_joints(found)[0] * 96).astype(int).clip(0, 95)
        assert near[at[:, 1], at[:, 0]].mean() > 0.8
        trunk = at[[0, 3, 6, 9]]
        assert (image.instances[trunk[:, 1], trunk[:, 0]] == 1).all()


def test_rotations_of_people_are_rotations_and_hidden_people_are_left_out():
    scene = of(somebody("waving"), somebody("walking", 3, x=40.0))
    image = render(scene, 64, VIEW)
    found = people(scene, image.instances, VIEW)
    assert len(found) == 1
    turns = np.concatenate([found[0]["pose"], found[0]["rotation"][None]])
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=1e-3)
    assert np.allclose(np.linalg.det(turns), 1, atol=1e-3)
    assert (found["camera"][0, 0] > 0) & (np.abs(found["camera"]) < 19).all()
    assert project(np.zeros((1, 24, 3)), found["box"], found["camera"]).shape == (1, 24, 2)


# Texts and structures


def test_boxes_are_tight():
    for index in range(12):
        record = describe_scene(Scene.sample(1, index), 96)
        image = record.rendering
        for one in record.values.get("det", []):
            x0, y0, x1, y1 = (round(float(v) * 96) for v in one["box"])
            inside = image.semseg[y0:y1, x0:x1] == CLASS[one["label"]]
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_instances_are_asked_inside_themselves():
    for index in range(12):
        owner = render(Scene.sample(2, index), 64).instances
        found = instances(owner)
        assert len(found) <= 7
        for one in found:
            x, y = one["point"]
            number = owner[int(y * 64 / 224), int(x * 64 / 224)]
            assert number > 0
            x0, y0, x1, y1 = one["box"]
            assert x0 <= x < x1
            assert y0 <= y < y1
            assert one["mask"].any()


def test_caption_names_everything():
    for index in range(60):
        scene = Scene.sample(2, index)
        text = caption(scene, scene.rng("words")).lower()
        for item in scene.objects:
            told = (item.kind, item.color) if item.kind == PERSON else (item.kind, item.color, item.size)
            for word in told:
                assert word in text or SYNONYMS.get(word, word) in text
            if item.texture != "plain":
                assert item.texture in text or SYNONYMS.get(item.texture, "-") in text
        if scene.place.is_room:
            assert "room" in text
            assert scene.place.ground in text
            assert scene.place.wall in text


def test_partial_caption_still_names_an_object():
    for index in range(20):
        scene = Scene.sample(2, index)
        text = caption(scene, np.random.default_rng(0), detail=0.0).lower()
        assert any(kind in text for kind in (*OBJECTS, PERSON, "ball", "box", "ring"))
        assert text.strip(" .")


def test_captions_are_sentences():
    for index in range(200):
        scene = Scene.sample(11, index)
        text = caption(scene, scene.rng("words"), detail=(index % 5) / 4)
        assert text[0].isupper()
        assert text.endswith(".")
        assert "  " not in text
        assert not any(wrong in text for wrong in (" .", " ,", " :", "..", " a a ", " a an ", "None"))


def test_metadata_measures_the_image():
    scene = Scene.sample(4, 4)
    record = describe_scene(scene)
    found = record.values["metadata"]
    assert found["original_width"] == 128
    assert "caption_n_words" not in found
    assert metadata(scene, record.rendering, "two words")["caption_n_words"] == 2
    assert abs(float(found["brightness"]) - record.rendering.rgb.mean()) < 20
    assert 0 <= float(found["objectness"]) <= 1
    assert int(found["n_coco_instances"]) <= len(scene.objects)


def test_attributes_tell_what_there_is():
    for index in range(20):
        scene = Scene.sample(3, index)
        found = describe_scene(scene, 16).attributes
        assert found["num_objects"] == len(scene.objects)
        assert found["num_people"] == sum(item.kind == PERSON for item in scene.objects)
        assert set(found["colors"]) == {item.color for item in scene.objects}
        assert ("walls" in found) == scene.place.is_room
        json.dumps(found)


# Files


def reader(size: int = 64) -> InputReader:
    words = TextTokenizer(build_vocabulary(["a large red sphere on green grass"], (*OBJECTS, PERSON)))
    rows = [row for row in ROWS.values() if row.raw in MODALITIES and "@448" not in row.name]
    small = {row.raw: row.at_size(size, 16) if "@" in row.name else row for row in rows}
    return InputReader(small, words, classes=SEMSEG_CLASSES)


def test_depth_is_scaled_to_16_bits():
    depth = np.array([[0, MAX_DEPTH / 2, 2 * MAX_DEPTH, np.inf]], dtype=np.float32)
    assert encode_depth(depth).tolist() == [[0, 32768, 65535, 65535]]


def test_files_are_read_as_the_values_that_they_were(tmp_path: Path):
    read = reader().read
    write_scenes(tmp_path, 12, size=64, seed=2)
    kinds: set[str] = set()
    for index in range(12):
        values = describe_scene(Scene.sample(2, index), 64).values
        for raw in MODALITIES:
            path = tmp_path / scene_file(f"{index + 1:04d}", raw)
            assert path.exists() == (raw in values)
            if raw not in values:
                continue
            kinds.add(raw)
            found = read(raw, path)
            if raw == "depth":
                assert np.corrcoef(found.ravel(), values[raw].ravel())[0, 1] > 0.9999
            elif raw in ("human_poses", "sam_instance"):
                assert found.dtype == values[raw].dtype
                for name in found.dtype.names:
                    assert np.allclose(found[name], values[raw][name], atol=2e-4)
            elif isinstance(values[raw], np.ndarray):
                assert np.array_equal(found, values[raw])
            else:
                assert found.size
    assert kinds == set(MODALITIES)


def test_scene_of_an_index_does_not_depend_on_how_many_are_drawn(tmp_path: Path):
    write_scenes(tmp_path / "few", 2, size=32)
    write_scenes(tmp_path / "more", 3, size=32)
    for path in (tmp_path / "few").iterdir():
        assert path.read_bytes() == (tmp_path / "more" / path.name).read_bytes()


def test_folder_holds_ordinary_files(tmp_path: Path):
    seen: list[int] = []
    assert write_scenes(tmp_path, 3, size=32, progress=seen.append) == ["0001", "0002", "0003"]
    assert seen == [1, 2, 3]
    record = describe_scene(Scene.sample(0, 1), 32)
    image = record.rendering
    stored = {"": image.rgb, ".depth": encode_depth(image.depth), ".semseg": image.semseg}
    for suffix, pixels in {**stored, ".sam_edge": image.edges}.items():
        with Image.open(tmp_path / f"0002{suffix}.png") as file:
            assert np.array_equal(np.asarray(file), pixels)
    with Image.open(tmp_path / "0002.semseg.png") as file:
        legend = json.loads(file.text["anyseek:classes"])
    assert legend == {str(i): SEMSEG_CLASSES[i] for i in np.unique(image.semseg).tolist()}
    with Image.open(tmp_path / "0002.depth.png") as file:
        scale, pixels = float(file.text["anyseek:scale"]), np.asarray(file)
    near = image.depth < MAX_DEPTH
    assert np.allclose(pixels[near] * scale, image.depth[near], atol=1e-3)
    assert json.loads((tmp_path / "0002.json").read_text()) == record.attributes


def test_some_modalities_alone_are_written(tmp_path: Path):
    write_scenes(tmp_path, 1, size=16, modalities=("rgb", "caption"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001.caption.txt", "0001.json", "0001.png"]
    with pytest.raises(ModelError, match="no 'clip'"):
        write_scenes(tmp_path, 1, modalities=("clip",))


def test_queries_are_those_that_a_model_reads():
    assert known_queries(["caption", "rgb", "clip"]) == ("rgb", "caption", "rgb+caption")
    assert set(MODALITIES) < set(known_queries(MODALITIES))


@pytest.mark.slow
def test_several_workers_write_the_same_files(tmp_path: Path):
    write_scenes(tmp_path / "one", 100, size=32, workers=1)
    write_scenes(tmp_path / "two", 100, size=32, workers=2)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
