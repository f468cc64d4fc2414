"""Parts of transfer with known answers: positions, heads, views, measures, losses, files, batches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import InputError
from anyseek.model.embeddings import sincos_2d
from anyseek.model.fourm import FourM
from anyseek.model.presets import FourMConfig
from anyseek.model.tokens import Tokens
from anyseek.model.transfer.augment import cut, random_area, random_square, scaled, vary_colors, whole
from anyseek.model.transfer.backbone import TransferEncoder, grid_input, one_channel_input, resize_positions
from anyseek.model.transfer.config import DataConfig, TransferConfig
from anyseek.model.transfer.feeding import Feed, evaluation_batches, mixed, standard_depth, training_batches
from anyseek.model.transfer.goals import Classification, Depth, Segmentation
from anyseek.model.transfer.heads import ClassHead, ConvNeXtHead, token_map
from anyseek.model.transfer.measures import Accuracy, DepthError, Overlap
from anyseek.model.transfer.pyramid import FeaturePyramid
from anyseek.model.transfer.rand_augment import rand_augment
from anyseek.model.transfer.reading import IGNORED, read_arrays
from anyseek.model.transfer.samples import TransferSample, find_samples, with_labels
from PIL import Image


def fourm(**changed: Any) -> FourM:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"encoder_depth": 2, "decoder_depth": 1, "dim": 32, "num_heads": 4}
    names = ("rgb@64", "tok_depth@64")
    return FourM(
        FourMConfig(names, ("tok_depth@64",), vocab_overrides={"tok_depth@64": 16}, **sizes | changed)
    ).eval()


def config(**changed: Any) -> TransferConfig:
    values = {
        "out": "x",
        "task": "segmentation",
        "data": {"train": "a", "val": "b", "num_classes": 3},
        "image_size": 64,
    }
    return TransferConfig.model_validate(values | changed)


# The encoder


@pytest.mark.parametrize("registers", [0, 2])
def test_backbone_is_the_encoder_of_the_model(registers: int) -> None:
    model = fourm(num_register_tokens=registers)
    pixels, ids = torch.randn(2, 3, 64, 64), torch.randint(0, 16, (2, 4, 4))
    names = {"rgb": "rgb@64", "depth": "tok_depth@64"}
    given = {
        name: Tokens(x, torch.zeros(2, 16, dtype=torch.bool))
        for name, x in zip(names.values(), (pixels, ids), strict=True)
    }
    wanted = model.encode(given).hidden[:, registers:]
    encoder = TransferEncoder(
        model, {raw: grid_input(model, name, 64) for raw, name in names.items()}, 0.5
    ).eval()
    found = encoder({"rgb": pixels, "depth": ids})
    torch.testing.assert_close(torch.cat([found["rgb"], found["depth"]], dim=1), wanted, rtol=1e-4, atol=1e-5)


def test_other_sizes_have_other_grids() -> None:
    model = fourm()
    encoder = TransferEncoder(model, {"rgb": grid_input(model, "rgb@64", 96)}).eval()
    assert encoder({"rgb": torch.randn(1, 3, 96, 96)})["rgb"].shape == (1, 36, 32)


def test_positions_keep_rows_and_columns_apart() -> None:
    table = sincos_2d((4, 4), 32)
    assert torch.equal(resize_positions(table, (4, 4), (4, 4)), table)
    finer = resize_positions(table, (4, 4), (8, 8)).view(8, 8, 32)
    # The first half of a row tells the row alone, the second the column alone, before and after.
    torch.testing.assert_close(finer[:, :1, :16].expand(8, 8, 16), finer[..., :16])
    torch.testing.assert_close(finer[:1, :, 16:].expand(8, 8, 16), finer[..., 16:])
    assert not torch.allclose(finer[0, 0], finer[7, 7])
    back = resize_positions(finer.view(1, 64, 32), (8, 8), (4, 4))
    assert (back - table).abs().mean() < 0.1


def test_a_map_starts_as_a_grey_picture() -> None:
    model = fourm()
    colors = grid_input(model, "rgb@64", 64)
    grey = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(
        one_channel_input(colors)(grey), colors(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
    )


def test_drop_path_skips_in_training_only_and_keeps_the_mean() -> None:
    model = fourm()
    encoder = TransferEncoder(model, {"rgb": grid_input(model, "rgb@64", 64)}, 0.5)
    pixels = {"rgb": torch.randn(1, 3, 64, 64)}
    assert torch.equal(encoder.eval()(pixels)["rgb"], encoder(pixels)["rgb"])
    encoder.train()
    assert not torch.equal(encoder(pixels)["rgb"], encoder(pixels)["rgb"])
    branch = torch.ones(4000, 1, 1)
    torch.manual_seed(0)
    kept = encoder._skipped(branch, 0.25)
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert kept.mean().item() == pytest.approx(1, abs=0.05)


# Heads


def test_class_head_sees_the_mean_of_all_tokens() -> None:
    head = ClassHead(8, 3)
    a, b = torch.randn(2, 4, 8), torch.randn(2, 6, 8)
    wanted = head.linear(head.norm(torch.cat([a, b], 1).mean(1)))
    torch.testing.assert_close(head({"rgb": a, "depth": b}), wanted)


def test_cells_lie_where_their_token_is() -> None:
    head = ConvNeXtHead(4, 1, 16, width=16, cells=2, depth=0).eval()
    tokens = torch.zeros(1, 16, 4)  # 4 x 4, each token 4 px
    tokens[0, 1 * 4 + 2] = 1.0  # row 1, column 2
    with torch.no_grad():
        head.project.weight.zero_()
        head.project.weight[2 * 4] = 1.0  # cell in row 1, column 0 of the token; channel 0
        head.last.weight.zero_()
        head.last.weight[0, 0] = 1.0
        head.last.bias.zero_()
        found = head({"rgb": tokens})[0, 0]
    assert found.shape == (16, 16)
    row, column = divmod(int(found.argmax()), 16)
    assert 4 + 2 <= row < 8
    assert 8 <= column < 10
    assert token_map(torch.arange(16.0).view(1, 16, 1))[0, 0, 1, 2] == 6


def test_pyramid_has_five_sizes_and_learns_through() -> None:
    model = fourm()
    encoder = TransferEncoder(model, {"rgb": grid_input(model, "rgb@64", 128)})
    pyramid = FeaturePyramid(encoder, channels=8)
    maps = pyramid(encoder({"rgb": torch.randn(1, 3, 128, 128)}))
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        "p2": (1, 8, 32, 32), "p3": (1, 8, 16, 16), "p4": (1, 8, 8, 8), "p5": (1, 8, 4, 4), "p6": (1, 8, 2, 2)
    }  # fmt: skip
    assert pyramid.strides == {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
    sum(x.square().mean() for x in maps.values()).backward()
    assert encoder.layer("rgb").content.weight.grad is not None


# Views


def test_whole_pictures_are_padded_and_nothing_is_cut() -> None:
    labels = np.arange(8, dtype=np.int32).reshape(2, 4)
    view = whole(4, 2, 8)
    assert (view.width, view.height) == (8, 4)
    found = cut(labels, view, 8, IGNORED)
    assert (found[:4] == np.kron(labels, np.ones((2, 2)))).all()
    assert (found[4:] == IGNORED).all()
    assert (cut(labels, view.mirror(), 8, IGNORED)[:4] == found[:4, ::-1]).all()


def test_larger_scales_cut_and_smaller_ones_pad() -> None:
    view = scaled(100, 50, 64, 2.0, np.array([1.0, 1.0]))
    assert (view.width, view.height) == (64, 64)
    assert view.box == pytest.approx((50, 0, 100, 50), abs=1e-6)
    small = scaled(100, 50, 64, 0.5, np.zeros(2))
    assert (small.width, small.height) == (32, 16)


def test_drawn_views_stay_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        width, height = rng.integers(1, 200, 2).tolist()
        for view in (random_square(rng, width, height, 32), random_area(rng, width, height, 32, (0.08, 1.0))):
            left, top, right, bottom = view.box
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
        cut(np.zeros((height, width, 3), np.uint8), view, 32, 0)


def test_colours_vary_only_by_chance_and_by_seed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    assert (vary_colors(np.random.default_rng(1), pixels, color=0, grey=0) == pixels).all()
    grey = vary_colors(np.random.default_rng(1), pixels, color=0, grey=1)
    assert (grey.min(-1) == grey.max(-1)).all()
    changed = [vary_colors(np.random.default_rng(s), pixels, color=1, grey=0) for s in (1, 1, 2)]
    assert (changed[0] == changed[1]).all()
    assert (changed[0] != changed[2]).any()


def test_every_operation_of_rand_augment_gives_a_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8)
    found = [rand_augment(np.random.default_rng(seed), pixels, 9) for seed in range(200)]
    assert all(one.shape == pixels.shape and one.dtype == np.uint8 for one in found)
    assert (rand_augment(np.random.default_rng(3), pixels, 9) == found[3]).all()
    assert sum((one != pixels).any() for one in found) > 100


# Measures and losses


def test_accuracy_of_known_ranks() -> None:
    measure = Accuracy()
    logits = torch.tensor([[3.0, 2, 1, 0, -1, -2], [3, 2, 1, 0, -1, -2], [0, 0, 0, 0, 0, 0]])
    measure.add(logits, torch.tensor([0, 4, 2]))
    measure.add(logits[:1], torch.tensor([5]))
    assert measure.result() == {"top1": 0.25, "top5": 0.5}


def test_overlap_of_a_known_confusion() -> None:
    truth = torch.tensor([[[0, 0, 1, IGNORED]]])
    output = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 2]]]), 3).permute(0, 3, 1, 2).float()
    measure = Overlap(3)
    measure.add(output, truth)
    assert measure.result() == {"mean_iou": 0.5, "pixel_accuracy": pytest.approx(2 / 3)}


def test_depth_errors_of_known_depths() -> None:
    measure = DepthError()
    truth = torch.tensor([[[2.0, 4.0, 0.0]], [[0.0, 0.0, 0.0]]])
    measure.add(torch.tensor([[[[2.0, 6.0, 9.0]]], [[[1.0, 1.0, 1.0]]]]), truth)
    assert measure.result() == {
        "delta1": 0.5, "delta2": 1.0, "delta3": 1.0, "abs_rel": 0.25, "rmse": pytest.approx(2**0.5),
    }  # fmt: skip
    assert np.isnan(DepthError().result()["delta1"])


def test_reverse_huber_is_linear_below_a_fifth_and_quadratic_beyond() -> None:
    goal = Depth(config(task="depth"), 1.0, 2.0)
    truth = torch.tensor([[[1.0, 1.0, 0.0]]])
    output = torch.tensor([[[[0.1, 5.0, 77.0]]]])  # errors 0.1 and 5, bend 1
    assert goal.loss(output, truth).item() == pytest.approx((0.1 + (25 + 1) / 2) / 2)
    assert goal.answer(output)[0, 0, 0, 1].item() == 11
    assert goal.loss(output, torch.zeros(1, 1, 3)).item() == 0


def test_segmentation_loss_leaves_nothing_out_of_the_mean_but_the_ignored() -> None:
    goal = Segmentation(config())
    output = torch.zeros(1, 3, 1, 2)
    assert goal.loss(output, torch.tensor([[[0, IGNORED]]])).item() == pytest.approx(np.log(3))
    assert goal.loss(output, torch.full((1, 1, 2), IGNORED)).item() == 0


# Files


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def one(name: str, values: np.ndarray) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
        return path

    return one


def test_the_layouts_give_the_same_samples(tmp_path: Path, write: Callable[..., Path]) -> None:
    picture, labels = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    for name in ("b", "a"):
        for path in (f"folders/rgb/x/{name}.jpg", f"beside/x/{name}.png"):
            write(path, picture)
        for path in (f"folders/semseg/x/{name}.png", f"beside/x/{name}.semseg.png"):
            write(path, labels)
    named = {"rgb": tmp_path / "folders/rgb", "semseg": tmp_path / "folders/semseg"}
    for source in (tmp_path / "folders", tmp_path / "beside", named):
        samples = find_samples(source, ["semseg"])
        assert [s.files["rgb"].stem for s in samples] == ["a", "b"]
        assert [s.files["semseg"].name.split(".")[0] for s in samples] == ["a", "b"]
    (tmp_path / "beside/x/b.semseg.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 pictures have no semseg, the first is x/b"):
        find_samples(tmp_path / "beside", ["semseg"])
    with pytest.raises(InputError, match="holds no pictures"):
        find_samples(write("empty/a.semseg.png", labels).parent, [])
    with pytest.raises(InputError, match="is no folder"):
        find_samples(tmp_path / "nowhere", [])
    with pytest.raises(InputError, match="No folder is named for depth"):
        find_samples(named, ["depth"])


def test_classes_come_from_folders_or_attributes(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write("cats/a.png", np.zeros((4, 4, 3), np.uint8))
    samples = find_samples(tmp_path, [])
    assert with_labels(samples, None)[0].label == "cats"
    with pytest.raises(InputError, match=r"a.json"):
        with_labels(samples, "color")
    for content, told in (
        ('{"color": 1.5}', "no text or whole number"),
        ("[", "not valid JSON"),
        ("[1]", "no text"),
    ):
        path.with_suffix(".json").write_text(content)
        with pytest.raises(InputError, match=told):
            with_labels(samples, "color")
    path.with_suffix(".json").write_text(json.dumps({"color": "red"}))
    assert with_labels(samples, "color")[0].label == "red"


@pytest.mark.parametrize(
    ("first", "ids", "labels"),
    [(0, [[0, 1], [2, 255]], [[0, 1], [2, IGNORED]]), (1, [[1, 2], [3, 0]], [[0, 1], [2, IGNORED]])],
)
def test_ids_become_labels(write: Callable[..., Path], first: int, ids: list[Any], labels: list[Any]) -> None:
    rgb = write("a.png", np.zeros((2, 2, 3), np.uint8))
    data = DataConfig.model_validate({"train": "a", "val": "b", "num_classes": 3, "first_class": first})
    path = write("a.semseg.png", np.array(ids, np.uint8))
    assert read_arrays(TransferSample({"rgb": rgb, "semseg": path}), data)["semseg"].tolist() == labels
    bad = write("b.png", np.full((2, 2), 3 + first, np.uint8))
    with pytest.raises(
        InputError, match=f"4 pixels have id {3 + first}; classes are {first}..{2 + first}, 255"
    ):
        read_arrays(TransferSample({"rgb": rgb, "semseg": bad}), data)


def test_maps_are_brought_to_their_picture_unless_they_show_another_part(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    rgb = write("a.png", np.zeros((4, 8, 3), np.uint8))
    data = DataConfig.model_validate({"train": "a", "val": "b", "depth_scale": 0.5})
    path = write("d.png", np.array([[2, 4]], np.uint16))
    depth = read_arrays(TransferSample({"rgb": rgb, "depth": path}), data)["depth"]
    assert depth.tolist() == [[1.0] * 4 + [2.0] * 4] * 4
    with pytest.raises(InputError, match="4 x 4 pixels, its picture has 8 x 4"):
        read_arrays(TransferSample({"rgb": rgb, "depth": write("e.png", np.ones((4, 4), np.uint16))}), data)
    np.save(tmp_path / "n.npy", np.full((4, 8), -1.0))
    with pytest.raises(InputError, match="none is below 0"):
        read_arrays(TransferSample({"rgb": rgb, "depth": tmp_path / "n.npy"}), data)


def test_standard_depth_knows_no_unit_and_no_holes() -> None:
    depth = np.random.default_rng(0).uniform(1, 5, (32, 32)).astype(np.float32)
    depth[:4] = 0
    found = standard_depth(depth)
    np.testing.assert_allclose(found, standard_depth(depth * 1000), atol=1e-4)
    assert (found[:4] == 0).all()
    middle = np.sort(found[4:], axis=None)[int(0.1 * 896) : int(0.9 * 896)]
    assert middle.mean() == pytest.approx(0, abs=1e-3)
    assert middle.std() == pytest.approx(1, abs=1e-2)
    assert not standard_depth(np.zeros((4, 4), np.float32)).any()
    assert not standard_depth(np.ones((4, 4), np.float32)).any()


# Batches


def feed(write: Callable[..., Path], **changed: Any) -> Feed:
    rng = np.random.default_rng(0)
    samples = [
        TransferSample(
            {
                "rgb": write(f"{i}.png", rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)),
                "semseg": write(f"{i}.semseg.png", rng.integers(0, 3, (20, 30)).astype(np.uint8)),
            }
        )
        for i in range(7)
    ]
    settings = config(recipe={"batch": 3}, augment={"color": 1.0}, **changed)
    return Feed(settings, Segmentation(settings), samples)


def test_step_n_has_the_same_batch_wherever_the_run_starts(write: Callable[..., Path]) -> None:
    of = feed(write)
    first, later = training_batches(of, 0), training_batches(of, 3)
    whole_run = [next(first) for _ in range(5)]
    for inputs, truth in whole_run[3:]:
        again, labels = next(later)
        assert torch.equal(inputs["rgb"], again["rgb"])
        assert torch.equal(truth, labels)
    assert not torch.equal(whole_run[0][0]["rgb"], whole_run[2][0]["rgb"])  # another epoch


def test_evaluation_sees_every_sample_once_and_unchanged(write: Callable[..., Path]) -> None:
    of = feed(write)
    batches = list(evaluation_batches(of))
    assert [len(truth) for _, truth in batches] == [3, 3, 1]
    again = [truth for _, truth in evaluation_batches(of)]
    assert all(torch.equal(a, b[1]) for a, b in zip(again, batches, strict=True))


def test_mixed_pictures_have_mixed_classes() -> None:
    for augment in ({"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}):
        settings = config(task="classification", augment=augment, image_size=64)
        x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 64, 64)
        truth = torch.tensor([0, 1, 2, 3])
        for step in range(20):
            inputs, shares = mixed({"rgb": x}, truth, 4, settings, step)
            torch.testing.assert_close(shares.sum(1), torch.ones(4))
            # Values are class numbers: a mix by area or by strength has the mean of its classes.
            wanted = (shares * torch.arange(4.0)).sum(1)
            torch.testing.assert_close(inputs["rgb"].mean((1, 2, 3)), wanted, atol=1e-4, rtol=0)
    goal = Classification(settings, ("a", "b", "c", "d"))
    assert goal.loss(torch.zeros(4, 4), shares).item() == pytest.approx(np.log(4))
