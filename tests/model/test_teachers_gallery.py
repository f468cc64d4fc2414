"""True vectors of teachers in place of predicted ones."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import ModelError
from anyseek.model import Model, Teacher, TeacherEmbedder, load_teacher
from anyseek.model.teachers import TEACHERS, TeacherSource
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

Item = Mapping[str, np.ndarray]
DINO, BIND = "dinov2_global", "imagebind_global"


def toy_source(space: str, dim: int, image_size: int = 64) -> TeacherSource:
    """A teacher that says how bright each quarter is, in `dim` numbers."""

    def build(_: str, __: int) -> nn.Module:
        return nn.Linear(12, dim)

    def features(network: nn.Module, pixels: Tensor) -> Mapping[str, Tensor]:
        return {space: network(functional.adaptive_avg_pool2d(pixels, 2).flatten(1))}

    name = space.removesuffix("_global")
    return replace(
        TEACHERS[name],
        modalities=(space,),
        build=build,
        features=features,
        prefixes=("",),
        fit=None,
        package=None,
        image_size=image_size,
    )


@pytest.fixture
def model(any_model: Model) -> Model:
    return any_model


@pytest.fixture
def teach(tmp_path: Path) -> Callable[..., Teacher]:
    def open_(space: str, dim: int, image_size: int = 64, seed: int = 0) -> Teacher:
        generator = torch.Generator().manual_seed(seed)
        state = {
            "weight": torch.randn(dim, 12, generator=generator),
            "bias": torch.randn(dim, generator=generator),
        }
        path = tmp_path / f"{space}-{seed}-{dim}.safetensors"
        save_file(state, path)
        return load_teacher(toy_source(space, dim, image_size), path)

    return open_


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def tokens_of(model: Model, space: str, vector: np.ndarray) -> np.ndarray:
    values = torch.from_numpy(vector[None, :, None, None].astype(np.float32))
    with torch.inference_mode():
        return model.parts.encoder(space).encode(values).flatten(1)[0].numpy()


def test_a_picture_has_its_teacher_s_vector_and_that_vector_s_tokens(model: Model, teach: Any) -> None:
    dino, bind = teach(DINO, 768), teach(BIND, 1280, seed=1)
    gallery = TeacherEmbedder(model, [dino, bind])
    caption = model.embedder.read("caption", "a red cube")
    items: list[Item] = [{"rgb": pixels(0)}, {"rgb": pixels(1), "caption": caption}]
    found = gallery.embed(items)
    for teacher, space in ((dino, DINO), (bind, BIND)):
        for i, item in enumerate(items):
            raw = teacher.extract(item["rgb"][None])[space][0]
            np.testing.assert_allclose(found[space].vectors[i], unit(raw), atol=1e-6)
            assert found[space].tokens[i].tolist() == tokens_of(model, space, raw).tolist()
        assert found[space].vectors.dtype == np.float32
        assert found[space].tokens.dtype == np.uint16
        assert found[space].vectors.shape == (2, model.spaces[space].dim)


def test_what_has_no_picture_is_predicted_as_before(model: Model, teach: Any) -> None:
    gallery = TeacherEmbedder(model, [teach(DINO, 768)])
    captions = [{"caption": model.embedder.read("caption", text)} for text in ("a dog", "a wall")]
    items: list[Item] = [captions[0], {"rgb": pixels(0)}, captions[1]]
    found, predicted = gallery.embed(items), model.embedder.embed(items)
    for i in (0, 2):
        for space in (DINO, BIND):
            np.testing.assert_allclose(found[space].vectors[i], predicted[space].vectors[i], atol=1e-5)
            assert found[space].tokens[i].tolist() == predicted[space].tokens[i].tolist()
    # No teacher of this space was given, so the picture's vector is predicted too.
    np.testing.assert_allclose(found[BIND].vectors[1], predicted[BIND].vectors[1], atol=1e-5)
    assert not np.allclose(found[DINO].vectors[1], predicted[DINO].vectors[1], atol=1e-2)


def test_an_item_s_own_vector_goes_before_its_picture(model: Model, teach: Any) -> None:
    own = np.random.default_rng(3).standard_normal(768).astype(np.float32) * 7
    for gallery in (TeacherEmbedder(model, [teach(DINO, 768)]), TeacherEmbedder(model)):
        found = gallery.embed([{"rgb": pixels(0), DINO: own}])
        np.testing.assert_allclose(found[DINO].vectors[0], unit(own), atol=1e-6)
        assert found[DINO].tokens[0].tolist() == tokens_of(model, DINO, own).tolist()


def test_pictures_whose_vectors_are_given_are_not_shown_to_a_teacher(
    model: Model, teach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = teach(DINO, 768)
    gallery = TeacherEmbedder(model, [teacher])
    seen: list[int] = []
    original = teacher.extract

    def extract(images: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(len(images))
        return original(images)

    monkeypatch.setattr(teacher, "extract", extract)
    own = np.ones(768, np.float32)
    gallery.embed([{"rgb": pixels(0), DINO: own}, {"rgb": pixels(1)}, {"rgb": pixels(2)}])
    gallery.embed([{"rgb": pixels(0), DINO: own}])
    assert seen == [2]


def test_nothing_is_predicted_where_all_is_known(
    model: Model, teach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = TeacherEmbedder(model, [teach(DINO, 768), teach(BIND, 1280)])
    counts: list[int] = []
    original = model.embedder.embed

    def embed(items: Any, **options: Any) -> Any:
        counts.append(len(items))
        return original(items, **options)

    monkeypatch.setattr(model.embedder, "embed", embed)
    gallery.embed([{"rgb": pixels(0)}, {"caption": model.embedder.read("caption", "a dog")}])
    gallery.embed([{"rgb": pixels(0)}])
    assert counts == [1, 0]


def test_it_says_in_which_spaces_an_item_is_predicted(model: Model, teach: Any) -> None:
    gallery = TeacherEmbedder(model, [teach(DINO, 768)])
    assert gallery.predicted_spaces(["caption"]) == (DINO, BIND)
    assert gallery.predicted_spaces(["caption", "rgb"]) == (BIND,)
    assert gallery.predicted_spaces(["rgb", BIND]) == ()
    assert TeacherEmbedder(model).predicted_spaces(["rgb"]) == (DINO, BIND)


def test_no_items_give_no_vectors(model: Model, teach: Any) -> None:
    found = TeacherEmbedder(model, [teach(DINO, 768)]).embed([])
    assert {name: value.vectors.shape for name, value in found.items()} == {DINO: (0, 768), BIND: (0, 1280)}


def test_a_vector_without_direction_has_no_finite_numbers(model: Model) -> None:
    found = TeacherEmbedder(model).embed([{DINO: np.zeros(768, np.float32)}])
    assert np.isnan(found[DINO].vectors).all()
    assert np.isfinite(found[BIND].vectors).all()


def test_the_name_tells_teachers_and_weights_apart(model: Model, teach: Any) -> None:
    first, second = teach(DINO, 768), teach(DINO, 768, seed=1)
    bind = teach(BIND, 1280)
    names = [TeacherEmbedder(model, pick).name for pick in ([], [first], [second], [first, bind])]
    assert len(set(names)) == 4
    assert names[0] == "teacher"
    assert re.fullmatch(r"teacher: dinov2 [0-9a-f]{12}, imagebind [0-9a-f]{12}", names[3])
    assert TeacherEmbedder(model, [bind, first]).name == names[3]


@pytest.mark.parametrize(
    ("space", "dim", "image_size", "message"),
    [
        ("clip", 512, 64, "none of which is a space of model .*dinov2, imagebind"),
        (DINO, 767, 64, "767-d vectors, the space dinov2_global .* has 768"),
        (DINO, 768, 224, "sees pictures of 224 pixels"),
    ],
    ids=["no space", "dim", "picture size"],
)
def test_a_teacher_that_does_not_fit_is_refused(
    model: Model, teach: Any, space: str, dim: int, image_size: int, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        TeacherEmbedder(model, [teach(space, dim, image_size)])
