"""Models by name, and how one is opened: weights, tokenizers and readers put together."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from ..errors import CheckpointError, ModelError
from .checkpoint import load_fourm, load_tokenizer, open_checkpoint
from .embedder import Embedder, Space
from .fingerprint import checkpoint_digest, model_fingerprint
from .fourm import FourM
from .inputs import READABLE, InputReader
from .modalities import Modality
from .prediction import PaddedPredictor, Predictor
from .presets import FourMConfig
from .ragged import RaggedPredictor
from .tokenizers.text import TextTokenizer, download_text_tokenizer

BUNDLE_FILE = "model.json"
"""What makes a folder a model: names its files, see `ModelSource.from_folder`."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model lies and what it may be used for.

    Attributes:
        name: as `load_model` takes it.
        weights: what a list shows: `packaged`, a hub repository or a folder.
        license: of the weights and what comes with them.
        description: one sentence.
        fourm: hub repository, or file, of the 4M checkpoint.
        tokenizers: likewise for the tokenizer of each space, by the space's name.
        text_tokenizer: file, or URL with `text_sha256`.
        text_sha256: hash of what the URL gives.
    """

    name: str
    weights: str
    license: str
    description: str
    fourm: str | Path
    tokenizers: Mapping[str, str | Path]
    text_tokenizer: str | Path
    text_sha256: str = ""

    @classmethod
    def from_folder(cls, folder: Path) -> "ModelSource":
        """Read `model.json` of a folder: `{name, license, description, fourm, tokenizers: {space: file},
        text_tokenizer}`, files being named relative to the folder and lying in it.

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
                files = {str(space): _inside(folder, file) for space, file in tokenizers.items()}
            case _:
                raise CheckpointError(
                    f"{path} must hold name, license, description, fourm, text_tokenizer (texts) and "
                    "tokenizers (space to file)."
                )
        return cls(
            name, str(folder), license, description, _inside(folder, fourm), files, _inside(folder, text)
        )


def _inside(folder: Path, name: object) -> Path:
    path = folder / str(name)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"{folder / BUNDLE_FILE} names {name!r}, which lies outside the folder.")
    return path


_SCENES = Path(__file__).parent / "weights" / "scenes"
_TEXT_URL = (
    "https://raw.githubusercontent.com/apple/ml-4m/main/"
    "fourm/utils/tokenizer/trained/text_tokenizer_4m_wordpiece_30k.json"
)
_TEXT_SHA256 = "8e684e9a0673e39f70702a698869f909ba697f871a0c6b2a07b5f61e91b3526e"
_LICENSE_4M21 = (
    "4M-21 weights: Apple sample code licence, non-commercial use only; imagebind_global: ImageBind, "
    "CC-BY-NC-4.0, non-commercial use only"
)


def _published(letter: str, parameters: str) -> ModelSource:
    tokenizer = "EPFL-VILAB/4M_tokenizers_{}-global_8k_16_224"
    return ModelSource(
        name=f"4m21-{letter.lower()}",
        weights=f"EPFL-VILAB/4M-21_{letter}",
        license=_LICENSE_4M21,
        description=f"4M-21 {letter} for photos: {parameters} parameters and embeddings; downloaded on use.",
        fourm=f"EPFL-VILAB/4M-21_{letter}",
        tokenizers={
            "dinov2_global": tokenizer.format("DINOv2-B14"),
            "imagebind_global": tokenizer.format("ImageBind-H14"),
        },
        text_tokenizer=_TEXT_URL,
        text_sha256=_TEXT_SHA256,
    )


MODELS: Mapping[str, ModelSource] = MappingProxyType(
    {
        source.name: source
        for source in (
            ModelSource(
                name="scenes",
                weights="packaged",
                license="Apache-2.0",
                description="Small model of rendered 3D scenes, for demo and tests; it knows no photos.",
                fourm=_SCENES / "fourm.safetensors",
                tokenizers={
                    space: _SCENES / f"tok_{space}.safetensors"
                    for space in ("dinov2_global", "imagebind_global")
                },
                text_tokenizer=_SCENES / "text_tokenizer.json",
            ),
            _published("B", "199 M"),
            _published("L", "706 M"),
            _published("XL", "2.8 B"),
        )
    }
)
"""Models that `load_model` knows by name."""


@dataclass(frozen=True)
class Model:
    """An opened model.

    Attributes:
        name: what opens it again: a name in MODELS, or the full path of its folder.
        fingerprint: sha256 over weights, configurations, vocabulary and the version of preprocessing; vectors
            of equal fingerprints can be compared. Inputs, device and number type play no part, spaces do.
        license: under which its weights may be used.
        inputs: what it was opened to read, by the user's names.
        spaces: what it embeds into, by name.
        embedder: does both.
        bytes_read: of all its files.
    """

    name: str
    fingerprint: str
    license: str
    inputs: tuple[str, ...]
    spaces: Mapping[str, Space]
    embedder: Embedder
    bytes_read: int


def load_model(
    source: str | Path = "scenes",
    *,
    inputs: Iterable[str] | None = None,
    spaces: Iterable[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Model:
    """Open a model and read what the given inputs and spaces need of it.

    Args:
        source: a name in MODELS, or a folder with `model.json`.
        inputs: modalities by the user's names (`rgb`, `caption`, ...); all that can be read where None.
        spaces: embedding spaces; all that the model has where None.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes a GPU if there is one.
        dtype: `float32` or `bfloat16`; `auto` takes bfloat16 where the hardware multiplies it.

    Raises:
        ModelError: unknown name, modality, space, device or number type; the known ones are listed.
        CheckpointError: files are missing, damaged or of another shape, or cannot be fetched.
    """
    name, found = _find(source)
    place = _device(device)
    kind = _dtype(dtype, place)
    checkpoint = open_checkpoint(found.fourm)
    config = FourMConfig.parse(checkpoint.config, where=str(checkpoint.path))
    rows, targets = _input_rows(config, inputs), _target_rows(config, found, spaces)
    text = _load_text(found)
    opened = {space: open_checkpoint(found.tokenizers[space]) for space in targets}
    fourm = load_fourm(
        checkpoint,
        inputs=[row.name for row in rows.values()],
        targets=[row.name for row in targets.values()],
        device=place,
        dtype=kind,
    )
    tokenizers = {
        space: (row, load_tokenizer(opened[space], encoder=False, device=place, dtype=kind))
        for space, row in targets.items()
    }
    predictor = _predictor(fourm, [row.name for row in targets.values()])
    embedder = Embedder(predictor, InputReader(rows, text), rows, tokenizers)
    fingerprint = model_fingerprint(
        checkpoint_digest(checkpoint.file, config.values()),
        text.sha256,
        {
            space: checkpoint_digest(opened[space].file, tokenizer.config.values())
            for space, (_, tokenizer) in tokenizers.items()
        },
    )
    bytes_read = checkpoint.bytes_read + text.num_bytes + sum(file.bytes_read for file in opened.values())
    return Model(
        name=name,
        fingerprint=fingerprint,
        license=found.license,
        inputs=tuple(rows),
        spaces=MappingProxyType(embedder.spaces),
        embedder=embedder,
        bytes_read=bytes_read,
    )


def _find(source: str | Path) -> tuple[str, ModelSource]:
    if isinstance(source, str) and source in MODELS:
        return source, MODELS[source]
    folder = Path(source)
    if folder.is_dir():
        return str(folder.resolve()), ModelSource.from_folder(folder)
    raise ModelError(
        f"Unknown model {str(source)!r}. Known: {', '.join(MODELS)}; a folder with a {BUNDLE_FILE} works too."
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"Unknown device {name!r}; known are auto, cpu, cuda and cuda:<number>.") from error
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"Device {name!r} is not supported; known are auto, cpu, cuda and cuda:<number>.")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ModelError(f"Device {name!r} is not there: this machine offers {count} CUDA devices; try cpu.")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name == "auto":
        name = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    if name not in known:
        raise ModelError(f"Unknown number type {name!r}; known are auto, {', '.join(known)}.")
    return known[name]


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware; emulated ones are slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    checks = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(check is not None and check() for check in checks)


def _input_rows(config: FourMConfig, wanted: Iterable[str] | None) -> dict[str, Modality]:
    """The rows of the modalities that can be read, by the user's names; pixels before their tokens."""
    rows = [config.modality(name) for name in config.domains_in]
    known = {row.raw: row for row in rows if row.raw in READABLE and row.kind in ("pix", "seq")}
    return {name: known[name] for name in _choose("input", wanted, known)}


def _target_rows(
    config: FourMConfig, source: ModelSource, wanted: Iterable[str] | None
) -> dict[str, Modality]:
    """The rows of the spaces, by the user's names."""
    rows = {row.raw: row for name in config.targets if (row := config.modality(name)).kind == "img"}
    missing = [space for space in source.tokenizers if space not in rows]
    if missing:
        raise CheckpointError(
            f"Model {source.name!r} has a tokenizer for {missing[0]!r}, which it does not predict."
        )
    return {name: rows[name] for name in _choose("space", wanted, source.tokenizers)}


def _choose(what: str, wanted: Iterable[str] | None, known: Iterable[str]) -> tuple[str, ...]:
    known = tuple(known)
    chosen = known if wanted is None else tuple(dict.fromkeys(wanted))
    for name in chosen:
        if name not in known:
            raise ModelError(f"This model has no {what} {name!r}. Known: {', '.join(known)}.")
    if not chosen:
        raise ModelError(f"Name at least one {what}: {', '.join(known)}.")
    return chosen


def _load_text(source: ModelSource) -> TextTokenizer:
    if isinstance(source.text_tokenizer, Path):
        return TextTokenizer.from_file(source.text_tokenizer)
    return TextTokenizer.from_file(download_text_tokenizer(source.text_tokenizer, source.text_sha256))


def _predictor(fourm: FourM, targets: Sequence[str]) -> Predictor:
    on_processor = fourm.mask_token.device.type == "cpu"
    if on_processor and not fourm.config.qk_norm:
        return RaggedPredictor(fourm, targets)
    return PaddedPredictor(fourm, targets)
