"""Tasks with a real model: the tiny one with every modality, on data sets of a few samples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import ModelError, QueryError
from anyseek.model import Model, load_model
from anyseek.model.instances import decode_masks
from anyseek.model.tasks import RunSettings, evaluate
from anyseek.model.tasks.box_prompts import BoxPrompts, ask_box, read_codes_after
from anyseek.model.tokenizers.instances import InstanceCode
from anyseek.model.values import INSTANCE
from PIL import Image

RNG = np.random.default_rng(0)

pytestmark = pytest.mark.usefixtures("quick_predictions")


@pytest.fixture(scope="module")
def model(any_bundle: Path) -> Model:
    return load_model(any_bundle, spaces=())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each task, in the layouts of the data sets."""
    root = tmp_path_factory.mktemp("data")
    write_diode(root / "diode")
    write_coco(root / "coco")
    write_imagenet(root / "imagenet")
    write_people(root / "3dpw")
    return root


def picture(path: Path, size: tuple[int, int] = (90, 70)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)).save(path)


def write_diode(folder: Path) -> None:
    for group in ("indoors", "outdoor"):
        stem = folder / group / "scene_00019" / "scan_00183" / f"00019_00183_{group}_000_010"
        picture(stem.with_suffix(".png"))
        np.save(f"{stem}_depth.npy", RNG.uniform(1, 9, (70, 90, 1)).astype(np.float32))
        np.save(f"{stem}_depth_mask.npy", np.ones((70, 90), np.float32))
        np.save(f"{stem}_normal.npy", RNG.normal(size=(70, 90, 3)))


def write_coco(folder: Path) -> None:
    picture(folder / "val2017" / "1.jpg")
    image = {"id": 1, "file_name": "1.jpg", "width": 90, "height": 70}
    maps = folder / "annotations" / "panoptic_val2017"
    maps.mkdir(parents=True)
    Image.fromarray(np.tile(np.uint8([5, 0, 0]), (70, 90, 1))).save(maps / "1.png")
    segment = {"id": 5, "category_id": 7, "iscrowd": 0}
    panoptic = {"image_id": 1, "file_name": "1.png", "segments_info": [segment]}
    things = [
        {"id": 1, "image_id": 1, "iscrowd": 0, "segmentation": [[20, 10, 60, 10, 60, 50, 20, 50]]},
        {"id": 2, "image_id": 1, "iscrowd": 0, "segmentation": [[30, 20, 70, 20, 70, 60]]},
    ]
    for name, annotations in (("panoptic", [panoptic]), ("instances", things)):
        content: dict[str, Any] = {"images": [image], "annotations": annotations}
        content["categories"] = [{"id": 7, "name": "hot dog"}]
        (folder / "annotations" / f"{name}_val2017.json").write_text(json.dumps(content))


def write_imagenet(folder: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for name in ("n01", "n02"):
            for i in range(count):
                picture(folder / split / name / f"{i}.JPEG")


def write_people(folder: Path) -> None:
    joints = np.cumsum(RNG.uniform(0, 0.05, (1, 2, 24, 3)), axis=2)
    joints[..., 2] += 4
    (folder / "sequenceFiles" / "test").mkdir(parents=True)
    np.savez(
        folder / "sequenceFiles" / "test" / "street_00.npz",
        jointPositions=joints.reshape(1, 2, 72),
        cam_poses=np.tile(np.eye(4), (2, 1, 1)),
        campose_valid=np.ones((1, 2)),
        cam_intrinsics=np.array([[80, 0, 45], [0, 80, 35], [0, 0, 1.0]]),
    )
    for frame in range(2):
        picture(folder / "imageFiles" / "street_00" / f"image_{frame:05}.jpg")
    vertices = 40
    np.savez(
        folder / "smpl.npz",
        v_template=RNG.normal(size=(vertices, 3)),
        shapedirs=RNG.normal(size=(vertices, 3, 10)) / 10,
        J_regressor=RNG.dirichlet(np.ones(vertices), 24),
    )


@pytest.mark.parametrize(
    ("task", "folder", "metric", "low", "high", "samples"),
    [
        ("depth", "diode", "l1", 0.1, 10, 2),
        ("normal", "diode", "mean_degrees", 20, 120, 2),
        ("semseg", "coco", "mean_iou", 0, 1, 1),
        ("instances", "coco", "mean_iou", 0, 1, 1),
        ("knn", "imagenet", "top1", 0, 1, 6),
    ],
)
def test_a_real_model_answers(
    model: Model, data: Path, task: str, folder: str, metric: str, low: float, high: float, samples: int
) -> None:
    report = evaluate(model, task, data / folder, RunSettings(batch=2))
    assert low <= report.metrics[metric] <= high
    assert (report.num_samples, report.failures) == (samples, [])
    json.dumps(report.as_dict())


def test_poses_by_a_body_model(model: Model, data: Path) -> None:
    report = evaluate(model, "poses", data / "3dpw", smpl=data / "3dpw" / "smpl.npz")
    assert report.num_samples == 2  # noise writes no people: they count as missed
    assert report.notes["num_missed"] == round(2 * (1 - report.metrics["found"]))
    with pytest.raises(QueryError, match="--smpl"):
        evaluate(model, "poses", data / "3dpw")


def test_ensembles_of_a_real_model(model: Model, data: Path) -> None:
    settings = RunSettings(ensemble=3, temperature=2.0)
    one, three = (
        evaluate(model, "normal", data / "diode", s) for s in (RunSettings(temperature=2.0), settings)
    )
    assert one.metrics != three.metrics
    again = evaluate(model, "normal", data / "diode", settings)
    assert again.metrics == three.metrics


def test_own_folder_with_a_real_model(model: Model, tmp_path: Path) -> None:
    picture(tmp_path / "rgb" / "a.png")
    for folder in ("depth", "semseg", "normal"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "depth" / "a.npy", RNG.uniform(1, 5, (70, 90)))
    Image.fromarray(RNG.integers(0, 5, (70, 90)).astype(np.uint8)).save(tmp_path / "semseg" / "a.png")
    picture(tmp_path / "normal" / "a.png")
    for task in ("depth", "semseg", "normal"):
        assert evaluate(model, task, tmp_path).num_samples == 1


def test_models_that_cannot_say_so(narrow_bundle: Path, tmp_path: Path) -> None:
    narrow = load_model(narrow_bundle, spaces=())
    with pytest.raises(ModelError, match=r"does not predict depth from rgb.*4M-21"):
        evaluate(narrow, "depth", tmp_path)
    with pytest.raises(QueryError, match="Known: normal"):
        evaluate(narrow, "nothing", tmp_path)


def test_a_box_is_asked_without_its_mask(model: Model) -> None:
    text = model.parts.text
    draft = ask_box([12, 0, 224, 7], text)
    assert text.decode(draft.tokens[:-1].tolist()).split() == ["polygon", "v0=12", "v1=0", "v2=224", "v3=7"]
    assert draft.redraw.tolist() == [False] * 5 + [True]


def test_codes_after_a_box_are_read_or_nothing(model: Model) -> None:
    text = model.parts.text
    box = "polygon v0=12 v1=0 v2=224 v3=7"
    codes = " ".join(f"v{i % 2}={i}" for i in range(16))
    expected = tuple(i + 512 * (i % 2) for i in range(16))
    assert read_codes_after(text.encode(f"{box} {codes}"), text) == expected
    assert read_codes_after(np.append(text.encode(f"{box} {codes}"), text.sentinels[1]), text) == expected
    assert read_codes_after(text.encode(f"{box} {codes} v0=1"), text) is None
    assert read_codes_after(text.encode(box), text) is None
    assert read_codes_after(text.encode(f"{box} {codes[:-4]} none"), text) is None


def test_written_codes_fill_their_box(model: Model) -> None:
    text = model.parts.text
    codes = [tuple(RNG.integers(0, 1024, 16).tolist()) for _ in range(2)]
    words = [" ".join(f"v1={c - 512}" if c > 511 else f"v0={c}" for c in one) for one in codes]

    class Writer:
        def generate(self, conditions: Any, *_: Any, drafts: Any, **__: Any) -> Any:
            assert len(conditions) == len(drafts) == 3
            shown = ["polygon v0=1 v1=2 v2=9 v3=9 " + one for one in (words[0], "none", words[1])]
            return [{"sam_instance": text.encode(one).astype(np.int64)} for one in shown]

    prompts = BoxPrompts(model.parts)
    prompts.__dict__["_generator"] = Writer()
    item = {"rgb": np.zeros((64, 64, 3), np.uint8), "sam_instance": np.zeros(3, INSTANCE)}
    item["sam_instance"]["box"] = [1, 2, 9, 9]
    (answer,) = prompts.predict([item], ["sam_instance"])
    filled = answer["sam_instance"].value
    assert isinstance(filled, np.ndarray)
    shown = [InstanceCode((1, 2, 9, 9), one) for one in codes]
    expected = decode_masks(shown, model.parts.decoder("sam_instance"))
    assert np.array_equal(filled["mask"][[0, 2]], expected > 0.5)
    assert not filled["mask"][1].any()


def test_boxes_of_a_batch_stay_with_their_pictures(model: Model) -> None:
    pixels = RNG.integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    counts = (2, 0, 1)
    items = [{"rgb": p, "sam_instance": np.zeros(n, INSTANCE)} for p, n in zip(pixels, counts, strict=True)]
    for item in items:
        item["sam_instance"]["box"] = [10, 10, 60, 90]
    prompts = BoxPrompts(model.parts)
    together = [one["sam_instance"].value for one in prompts.predict(items, ["sam_instance"], seed=3)]
    alone = [prompts.predict([item], ["sam_instance"], seed=3)[0]["sam_instance"].value for item in items]
    for one, other, item in zip(together, alone, items, strict=True):
        assert isinstance(one, np.ndarray)
        assert len(one) == len(item["sam_instance"])
        assert np.array_equal(one, other)
        assert not item["sam_instance"]["mask"].any()
