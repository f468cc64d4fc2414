"""Where models lie: those known by name, and folders with a `model.json`."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias, TypeGuard, cast

from ..errors import CheckpointError, ModelError
from .classes import COCO_CLASSES, MAX_CLASSES
from .modalities import MODALITIES

BUNDLE_FILE = "model.json"
"""What makes a folder a model: names its files, see `ModelSource.from_folder`."""

SpaceWeights: TypeAlias = Mapping[str, Mapping[str, float]]
"""By modality and space."""

_FEATURES = ("clip", "dinov2", "imagebind", "dinov2_global", "imagebind_global")
_MAX_CHANNELS = 65_536


@dataclass(frozen=True)
class ModelSource:
    """Where a model lies and what it may be used for.

    Attributes:
        name: as `load_model` takes it.
        weights: what a list shows: `packaged`, a hub repository or a folder.
        license: of the weights and what comes with them.
        description: one sentence.
        fourm: hub repository, or file, of the 4M checkpoint.
        tokenizers: likewise for the tokenizer of each modality that has one, by the user's name (`depth`,
            `human_poses`, `dinov2_global`); one file may serve several. Without its tokenizer a modality can
            neither be read nor predicted.
        text_tokenizer: file, or URL with `text_sha256`.
        text_sha256: hash of what the URL gives.
        semseg_classes: names of the labels 1, 2, ... of segmentations.
        channels: of features and vectors that are not as wide as the published ones, by the user's name.
        space_weights: by modality, how much each embedding space counts in a search by it; where a modality
            is not named, all count alike.
        likelihood_shares: by modality, how much of the score of a search by it is likelihood, 0..1; the
            rest is cosine. Where a modality is not named, `LIKELIHOOD_SHARE`.
        super_resolution: hub repository, or file, of the 4M checkpoint that predicts grids of twice the
            resolution from what this one predicts, with the same tokenizers; None where there is none.
    """

    name: str
    weights: str
    license: str
    description: str
    fourm: str | Path
    tokenizers: Mapping[str, str | Path]
    text_tokenizer: str | Path
    text_sha256: str = ""
    semseg_classes: tuple[str, ...] = COCO_CLASSES
    channels: Mapping[str, int] = field(default_factory=dict[str, int])
    space_weights: SpaceWeights = field(default_factory=dict[str, Mapping[str, float]])
    likelihood_shares: Mapping[str, float] = field(default_factory=dict[str, float])
    super_resolution: str | Path | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> "ModelSource":
        """Read `model.json` of a folder: `{name, license, description, fourm, tokenizers: {modality: file},
        text_tokenizer}`, and where they apply `semseg_classes: [name, ...]` (else those of COCO),
        `channels: {modality: number}`, `space_weights: {modality: {space: number}}`,
        `likelihood_shares: {modality: number}` and `super_resolution`.
        Files are named relative to the folder and lie in it.

        Raises:
            CheckpointError: there is none, or it says something else.
        """
        path = folder / BUNDLE_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{folder} is no model: cannot read its {BUNDLE_FILE} ({error})."
            ) from error
        match values:
            case {
                "name": str(name),
                "license": str(license),
                "description": str(description),
                "fourm": str(fourm),
                "text_tokenizer": str(text),
                "tokenizers": {**tokenizers},
            } if tokenizers:
                files = {str(raw): _inside(folder, file) for raw, file in tokenizers.items()}
            case _:
                raise CheckpointError(
                    f"{path} must hold name, license, description, fourm, text_tokenizer (texts) and "
                    "tokenizers (modality to file)."
                )
        finer = values.get("super_resolution")
        return cls(
            name,
            str(folder),
            license,
            description,
            _inside(folder, fourm),
            files,
            _inside(folder, text),
            semseg_classes=_class_names(values.get("semseg_classes", list(COCO_CLASSES)), path),
            channels=_channels(values.get("channels", {}), path),
            space_weights=_space_weights(values.get("space_weights", {}), files, path),
            likelihood_shares=_likelihood_shares(values.get("likelihood_shares", {}), path),
            super_resolution=None if finer is None else _inside(folder, finer),
        )


def _inside(folder: Path, name: object) -> Path:
    if isinstance(name, str) and (folder / name).resolve().is_relative_to(folder.resolve()):
        return folder / name
    raise CheckpointError(f"{folder / BUNDLE_FILE} names {name!r}, which is no file inside the folder.")


def _class_names(value: object, path: Path) -> tuple[str, ...]:
    match value:
        case [*names] if len(names) <= MAX_CLASSES and all(isinstance(name, str) and name for name in names):
            return tuple(str(name) for name in names)
        case _:
            raise CheckpointError(f"{path}: semseg_classes must be a list of at most {MAX_CLASSES} names.")


def _channels(value: object, path: Path) -> Mapping[str, int]:
    match value:
        case {**found} if set(found) <= set(_FEATURES) and all(map(_is_width, found.values())):
            return {str(raw): width for raw, width in found.items() if _is_width(width)}
        case _:
            raise CheckpointError(
                f"{path}: channels must map some of {', '.join(_FEATURES)} to 1..{_MAX_CHANNELS}."
            )


def _is_width(value: object) -> TypeGuard[int]:
    return type(value) is int and 1 <= value <= _MAX_CHANNELS


def _space_weights(value: object, spaces: Collection[str], path: Path) -> SpaceWeights:
    match value:
        case {**rows} if all(_is_row(row) and set(row) <= set(spaces) for row in rows.values()):
            return {str(raw): row for raw, row in rows.items() if _is_row(row)}
        case _:
            raise CheckpointError(
                f"{path}: space_weights must map modalities to {{space: weight}}, weights 0..1, some above "
                "0, of spaces that have a tokenizer here."
            )


def _is_row(value: object) -> TypeGuard[Mapping[str, float]]:
    return isinstance(value, dict) and all(map(_is_share, value.values())) and any(value.values())


def _likelihood_shares(value: object, path: Path) -> dict[str, float]:
    match value:
        case {**shares} if all(map(_is_share, shares.values())):
            return {str(raw): share for raw, share in shares.items() if _is_share(share)}
        case _:
            raise CheckpointError(f"{path}: likelihood_shares must map modalities to numbers from 0 to 1.")


def _is_share(value: object) -> TypeGuard[float]:
    return type(value) in (int, float) and 0 <= cast(float, value) <= 1


_SCENES = Path(__file__).parent / "weights" / "scenes"
_TEXT_URL = (
    "https://raw.githubusercontent.com/apple/ml-4m/main/"
    "fourm/utils/tokenizer/trained/text_tokenizer_4m_wordpiece_30k.json"
)
_TEXT_SHA256 = "8e684e9a0673e39f70702a698869f909ba697f871a0c6b2a07b5f61e91b3526e"
_LICENSE_4M21 = "; ".join(
    [
        "4M-21 weights: Apple sample code licence, non-commercial use only",
        *(
            f"{', '.join(row.raw for row in MODALITIES.values() if row.license == license)}: {license}"
            for license in dict.fromkeys(row.license for row in MODALITIES.values() if row.license)
        ),
    ]
)
_TOKENIZERS_4M21: Mapping[str, str] = MappingProxyType(
    {
        row.raw: row.tokenizer.removeprefix("wordpiece + ")
        for row in MODALITIES.values()
        if row.tokenizer not in (None, "wordpiece")
    }
)


def _published(letter: str, parameters: str) -> ModelSource:
    return ModelSource(
        name=f"4m21-{letter.lower()}",
        weights=f"EPFL-VILAB/4M-21_{letter}",
        license=_LICENSE_4M21,
        description=f"4M-21 {letter} for photos: {parameters} parameters and embeddings; downloaded on use.",
        fourm=f"EPFL-VILAB/4M-21_{letter}",
        tokenizers=_TOKENIZERS_4M21,
        text_tokenizer=_TEXT_URL,
        text_sha256=_TEXT_SHA256,
        super_resolution="EPFL-VILAB/4M-7-SR_L_CC12M",
    )


MODELS: Mapping[str, ModelSource] = MappingProxyType(
    {
        source.name: source
        for source in (
            replace(ModelSource.from_folder(_SCENES), weights="packaged"),
            _published("B", "199 M"),
            _published("L", "706 M"),
            _published("XL", "2.8 B"),
        )
    }
)
"""Models that `load_model` knows by name."""


def find_source(source: str | Path) -> tuple[str, ModelSource]:
    """A model by its name or folder, and what opens it again: that name, or the folder's full path.

    Raises:
        ModelError: neither; the known names are listed.
        CheckpointError: a folder that is no model.
    """
    if isinstance(source, str) and source in MODELS:
        return source, MODELS[source]
    folder = Path(source)
    if folder.is_dir():
        return str(folder.resolve()), ModelSource.from_folder(folder)
    raise ModelError(
        f"Unknown model {str(source)!r}. Known: {', '.join(MODELS)}; a folder with a {BUNDLE_FILE} works too."
    )
