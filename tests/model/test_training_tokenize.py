import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import ConfigError, InputError
from anyseek.model import Model, encode_value
from anyseek.model.encoding import ValueEncoder
from anyseek.model.tokenizers.sequences import Box
from anyseek.model.training.commands import modalities_of, tokenize_source
from anyseek.model.training.fourm_recipes import Modalities
from anyseek.model.training.sample_crops import Crop, crop_boxes, crop_value, draw_crops
from anyseek.model.training.setups import set_up
from anyseek.model.training.shards import item_shards, open_shards, unzipped
from anyseek.model.training.token_data import TokenData
from anyseek.model.training.tokenize import TokenizeReport, tokenize
from PIL import Image

TEXTS: Mapping[str, tuple[str, str]] = {
    "caption": ("txt", "a red cube stands behind a small dog"),
    "det": ("json", json.dumps([{"box": [0.1, 0.2, 0.5, 0.9], "label": "dog"}])),
    "metadata": ("json", json.dumps({"brightness": 120, "contrast": 30})),
    "color_palette": ("json", json.dumps(["#102030", "#ffffff"])),
}
NAMES = [f"{folder}/{number}" for folder in ("a", "b") for number in range(3)]


@pytest.fixture(scope="module")
def items(any_model: Model, draw_values: Any) -> dict[str, dict[str, np.ndarray]]:
    return {name: draw_values(any_model, seed) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def root(any_model: Model, items: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six items with every modality, one folder per modality."""
    root = tmp_path_factory.mktemp("source")
    for name, values in items.items():
        for raw, value in values.items():
            path = root / raw / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if raw in TEXTS:
                path.with_suffix(f".{TEXTS[raw][0]}").write_text(TEXTS[raw][1])
            else:
                if raw == "human_poses":
                    value["pose"], value["rotation"], value["box"] = (
                        np.eye(3),
                        np.eye(3),
                        (0.1, 0.1, 0.5, 0.9),
                    )
                suffix, content = encode_value(raw, value, classes=any_model.parts.classes)
                path.with_suffix(suffix).write_bytes(content)
    return root


def run(source: Path | str, bundle: Path, folder: Path, **options: Any) -> TokenizeReport:
    options = {"items": list, "shard_size": 4, "device": "cpu", "batch_size": 3, **options}
    return tokenize_source(str(source), Modalities(bundle=str(bundle)), folder, **options)


def every(root: Path) -> list[tuple[str, dict[str, Path]]]:
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(root.rglob("*.*")):
        raw, name = path.relative_to(root).parts[0], path.relative_to(root / path.relative_to(root).parts[0])
        found.setdefault(name.with_suffix("").as_posix(), {}).setdefault(raw, path)
    return list(found.items())


def by_name(folder: Path) -> tuple[TokenData, dict[str, int]]:
    names = (folder / "names.txt").read_text().splitlines()
    return TokenData.load(folder), {name: row for row, name in enumerate(names)}


def test_every_modality_becomes_the_tokens_that_the_model_is_asked_with(
    any_model: Model, any_bundle: Path, root: Path, items: Any, tmp_path: Path
) -> None:
    report = run(root, any_bundle, tmp_path, items=lambda: every(root))
    data, place = by_name(tmp_path)
    config = any_model.parts.config
    assert set(report.modalities) == set(data.columns) == {*config.domains_in, *config.domains_out}
    assert (report.num_samples, report.num_failed, report.skipped, report.finished) == (6, 0, (), True)
    assert sorted(place) == NAMES
    assert not (tmp_path / "parts").exists()
    inputs = dict(any_model.parts.inputs)
    for name, item in items.items():
        read = {raw: any_model.embedder.read(raw, next((root / raw).glob(f"{name}.*"))) for raw in item}
        (expected,) = ValueEncoder(inputs, any_model.parts).encode([read])
        for modality, value in expected.items():
            found = data.columns[modality][place[name], 0]
            if modality == "rgb@64":
                np.testing.assert_array_equal(found, value)
                continue
            found = found[0]
            if modality == "t5_caption":
                np.testing.assert_allclose(found[: len(value)], value, rtol=1e-3, atol=1e-6)
                assert not found[len(value) :].any()
                continue
            if modality == "metadata":
                assert value[-1] == any_model.parts.text.sentinels[0]
                value = value[:-1]  # "there may be more" is for queries
            np.testing.assert_array_equal(found[: len(value)], value, modality)
            assert not found[len(value) :].any()
    assert data.columns["tok_rgb@64"].shape == (6, 1, 1, 16)


def test_an_interrupted_run_ends_up_with_the_same_tokens(
    any_bundle: Path, root: Path, tmp_path: Path
) -> None:
    names = ["rgb@64", "caption", "tok_depth@64"]
    options: dict[str, Any] = {"items": lambda: every(root), "modalities": names, "shard_size": 2}
    run(root, any_bundle, tmp_path / "whole", **options)
    asked = iter([False, True])
    told: list[tuple[int, int, int]] = []
    report = run(
        root,
        any_bundle,
        tmp_path / "cut",
        should_stop=lambda: next(asked),
        progress=lambda *state: told.append(state),
        **options,
    )
    assert not report.finished
    assert told == [(1, 3, 0)]
    with pytest.raises(InputError, match="no tokenized data"):
        TokenData.load(tmp_path / "cut")
    (tmp_path / "cut" / "parts" / ".000001.tmp").mkdir()  # left by a kill
    done = tmp_path / "cut" / "parts" / "000000" / "caption.npy"
    before = done.stat().st_mtime_ns
    asked = iter([False, False])
    run(root, any_bundle, tmp_path / "cut", should_stop=lambda: next(asked), **options)
    assert before  # the first shard was not done again: two questions were enough
    for name in (*names, "names"):
        file = "names.txt" if name == "names" else f"{name}.npy"
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert run(root, any_bundle, tmp_path / "cut", **options).num_samples == 6
    with pytest.raises(InputError, match="tokens of another source, model or setting"):
        run(root, any_bundle, tmp_path / "cut", **(options | {"seed": 1}))


def test_bad_values_are_listed_and_never_fatal(any_bundle: Path, root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for raw in ("rgb", "depth", "caption"):
        (source / raw).mkdir(parents=True)
    good = next((root / "rgb" / "a").glob("0.*"))
    for name in ("good", "torn", "lone"):
        (source / "rgb" / f"{name}.png").write_bytes(good.read_bytes()[: None if name == "good" else 60])
        if name != "lone":
            (source / "caption" / f"{name}.txt").write_text("a red cube")
    np.save(source / "depth" / "good.npy", np.array([[1.0, np.nan]], np.float32))
    report = run(source, any_bundle, tmp_path / "tokens", items=lambda: every(source))
    data, place = by_name(tmp_path / "tokens")
    assert (report.num_samples, report.num_failed) == (2, 3 + 2)  # rgb is read for its pixels and its tokens
    assert set(place) == {"good", "torn"}
    assert (data.columns["tok_depth@64"] == -1).all()
    assert not data.columns["rgb@64"][place["torn"]].any()
    assert data.columns["caption"][place["torn"]].any()
    failures = [
        json.loads(line) for line in (tmp_path / "tokens" / "failures.jsonl").read_text().splitlines()
    ]
    assert {(failure["sample"], failure["modality"]) for failure in failures} == {
        ("torn", "rgb"),
        ("lone", "rgb"),
        ("good", "depth"),
    }
    only_bad = [("lone", {"rgb": source / "rgb" / "lone.png"})]
    with pytest.raises(InputError, match="No sample can be used"):
        run(source, any_bundle, tmp_path / "none", items=lambda: only_bad)


def test_texts_alone_are_a_data_set(any_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "texts" / "caption").mkdir(parents=True)
    for number in range(5):
        (tmp_path / "texts" / "caption" / f"{number}.txt").write_text("a small dog " * (number + 1))
    report = run(tmp_path / "texts", any_bundle, tmp_path / "tokens", items=lambda: every(tmp_path / "texts"))
    assert report.modalities == ("caption",)
    assert TokenData.load(tmp_path / "tokens").columns["caption"].shape[:3] == (5, 1, 1)


# --- tar files and token ids that are there already


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two shards with token ids of three crops, pictures, and texts that one sample lacks."""
    random, root = np.random.default_rng(0), tmp_path / "tars"
    for shard in range(2):
        stems = [f"{shard}{i}" for i in range(3)]
        ids = {f"{stem}.npy": npy(random.integers(0, 64, (3, 16)).astype(np.int16)) for stem in stems}
        write_tar(root / "tok_depth@64" / f"shard-{shard:05d}.tar", ids)
        crops = np.array([[0, 0, 80, 80, 0], [10, 20, 40, 40, 0], [10, 20, 40, 40, 1]])
        write_tar(
            root / "crop_settings" / f"shard-{shard:05d}.tar", {f"{stem}.npy": npy(crops) for stem in stems}
        )
        pictures = {f"{stem}.png": png(random.integers(0, 256, (80, 100, 3), np.uint8)) for stem in stems}
        write_tar(root / "rgb" / f"shard-{shard:05d}.tar", pictures)
        texts = {f"{stem}.txt.gz": gzip.compress(f"a dog {stem}".encode()) for stem in stems[1:]}
        write_tar(root / "caption" / f"shard-{shard:05d}.tar", texts)
    return root


def test_tar_shards_keep_crops_aligned(any_bundle: Path, tars: Path, tmp_path: Path) -> None:
    names = ["rgb@64", "tok_depth@64", "caption"]
    report = run(tars, any_bundle, tmp_path / "tokens", crops=3, modalities=names)
    data, place = by_name(tmp_path / "tokens")
    assert (report.num_samples, report.num_failed) == (6, 0)
    assert data.columns["tok_depth@64"].shape == (6, 3, 1, 16)
    with tarfile.open(tars / "tok_depth@64" / "shard-00001.tar") as tar:
        file = tar.extractfile("11.npy")
        assert file is not None
        np.testing.assert_array_equal(
            data.columns["tok_depth@64"][place["11"], :, 0], np.load(io.BytesIO(file.read()))
        )
    pixels = data.columns["rgb@64"][place["11"]]
    np.testing.assert_array_equal(pixels[1][:, ::-1], pixels[2])
    assert not np.array_equal(pixels[0], pixels[1])
    assert not data.columns["caption"][place["10"]].any()
    assert data.columns["caption"][place["11"]].any()


def test_patterns_name_shards_and_modalities(any_bundle: Path, tars: Path, tmp_path: Path) -> None:
    run(f"{tars}/[caption,tok_depth@64]/shard-{{00001..00001}}.tar", any_bundle, tmp_path / "tokens")
    data, place = by_name(tmp_path / "tokens")
    assert set(data.columns) == {"caption", "tok_depth@64"}
    assert set(place) == {"10", "11", "12"}
    for pattern, message in {
        "[caption]/shard-{00000..00009}.tar": "8 of 10 files",
        "[rgb,nonsense]/shard-00000.tar": "is not there",
        "[caption]/shard-{0..99999999}.tar": "more than 1,000,000",
    }.items():
        with pytest.raises(InputError, match=message):
            open_shards(f"{tars}/{pattern}", {"caption", "rgb"}, 10)


def test_ids_that_do_not_fit_are_listed(any_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "tok_depth@64"
    folder.mkdir(parents=True)
    np.save(folder / "good.npy", np.zeros((1, 16), np.int16))
    np.save(folder / "high.npy", np.full((1, 16), 64, np.int16))
    np.save(folder / "low.npy", np.full((1, 16), -1, np.int16))
    np.save(folder / "long.npy", np.zeros((1, 17), np.int16))
    np.save(folder / "real.npy", np.zeros((1, 16), np.float32))
    np.save(folder / "evil.npy", np.array([{}], object), allow_pickle=True)
    report = run(tmp_path / "data", any_bundle, tmp_path / "tokens")
    assert (report.num_samples, report.num_failed) == (1, 5)


def test_damaged_sources_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "rgb").mkdir()
    (tmp_path / "rgb" / "shard-00000.tar").write_bytes(b"no tar at all" * 100)
    (shard,) = open_shards(tmp_path, {"rgb"}, 10)
    with pytest.raises(InputError, match=r"shard-00000\.tar"):
        list(shard.samples())
    with pytest.raises(InputError, match="found no samples"):
        open_shards(tmp_path, {"depth"}, 10)
    with pytest.raises(InputError, match="gzip"):
        unzipped(b"\x1f\x8bnonsense")
    with pytest.raises(InputError, match="more than 100 bytes"):
        unzipped(gzip.compress(bytes(10_000)), 100)


# --- crops


def test_crops_are_the_same_place_in_every_modality(any_bundle: Path, tmp_path: Path) -> None:
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[:, 64:] = 255  # left black, right white
    labels = np.where(picture[..., 0] > 0, 2, 1).astype(np.uint8)
    source = tmp_path / "source"
    for raw, array in {"rgb": picture, "semseg": labels}.items():
        (source / raw).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(array).save(source / raw / f"{number}.png")
    (source / "det").mkdir()
    boxes = json.dumps([{"box": [0.5, 0, 1, 1], "label": "dog"}])
    for number in range(4):
        (source / "det" / f"{number}.json").write_text(boxes)
    setup = set_up(Modalities(bundle=str(any_bundle)))
    names = ["rgb@64", "det"]
    report = tokenize(
        item_shards(every(source), 2), setup, tmp_path / "tokens", crops=6, modalities=names, device="cpu"
    )
    assert report.num_failed == 0
    data = TokenData.load(tmp_path / "tokens")
    assert data.columns["rgb@64"].shape[:2] == data.columns["det"].shape[:2] == (4, 6)
    places: set[int] = set()
    for pixels, ids in zip(
        data.columns["rgb@64"].reshape(-1, 64, 64, 3), data.columns["det"].reshape(24, -1), strict=True
    ):
        white = pixels[32, :, 0] > 128
        text = setup.text.decode([i for i in ids.tolist() if i]).split()
        if text and white.any() and not white.all():
            left, right = (int(word[3:]) / 999 for word in (text[0], text[2]))
            shown = np.flatnonzero(white)
            assert abs(left - shown[0] / 64) < 0.05
            assert abs(right - (shown[-1] + 1) / 64) < 0.05
            places.add(int(shown[0]))
    assert len(places) > 3  # other places, some mirrored
    assert 0 in places


def test_maps_are_cut_as_what_they_are() -> None:
    from anyseek.model.modalities import get_modality

    crop = Crop(0.25, 0.25, 0.5, mirrored=True)
    labels = np.arange(16, dtype=np.uint8).repeat(8).reshape(1, 128).repeat(128, 0)
    cut = crop_value(get_modality("tok_semseg@64"), labels, crop)
    assert set(np.unique(cut)) == set(range(4, 12))  # no label that was not there
    assert cut[0, 0] == 11
    normals = np.full((128, 128, 3), (200, 128, 220), np.uint8)
    assert tuple(crop_value(get_modality("tok_normal@64"), normals, crop)[5, 5]) == (55, 128, 220)
    edges = np.zeros((128, 128), np.uint8)
    edges[:, 50] = 255
    cut = crop_value(get_modality("tok_canny_edge@64"), edges, Crop())
    assert set(np.unique(cut)) == {0, 255}
    assert cut.any(1).all()


def test_random_crops_are_reproducible_and_large_enough() -> None:
    crops = draw_crops(200, np.random.default_rng(3))
    assert crops == draw_crops(200, np.random.default_rng(3))
    assert crops[0] == Crop()
    assert all(crop.side**2 >= 0.2 and crop.top + crop.side <= 1 + 1e-9 for crop in crops)
    assert 60 < sum(crop.mirrored for crop in crops) < 140
    kept = crop_boxes([Box(0, 0, 0.1, 0.1, "a"), Box(0.4, 0.4, 0.6, 0.6, "b")], Crop(0.3, 0.3, 0.4, True))
    assert [box.label for box in kept] == ["b"]
    np.testing.assert_allclose(kept[0][:4], (0.25, 0.25, 0.75, 0.75))


def test_what_cannot_be_cut_is_said_before_anything_is_read(
    any_bundle: Path, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"Crops of .*human_poses.*dinov2_global"):
        run(root, any_bundle, tmp_path, items=lambda: every(root), crops=2)
    with pytest.raises(ConfigError, match="no modality 'depth'"):
        run(root, any_bundle, tmp_path, items=lambda: every(root), modalities=["depth"])
    with pytest.raises(ConfigError, match="Nothing to tokenize"):
        run(root, any_bundle, tmp_path, items=lambda: [("a", {"audio": Path("a.wav")})])
    assert modalities_of("scenes").bundle == "scenes"
