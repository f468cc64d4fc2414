"""Opening a model: weights, tokenizers and readers put together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from ..errors import CheckpointError, ModelError, QueryError
from .blending import Nothing
from .embedder import Embedder, Space
from .encoding import ValueEncoder
from .fingerprint import checkpoint_digest, model_fingerprint
from .fourm import FourM
from .inputs import Content, InputReader
from .modalities import raw_name
from .parts import ModelParts
from .prediction import PaddedPredictor, Predictor
from .predictor import Kept, ModalityPredictor, Report, Setting
from .ragged import RaggedPredictor
from .readers.same_view import check_same_view
from .sources import find_source
from .token_likelihood import LIKELIHOOD_SHARE
from .values import Predicted


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
        parts: its other parts, each read when it is first needed.
        predictor: predicts modalities of batches of values, likewise.
    """

    name: str
    fingerprint: str
    license: str
    inputs: tuple[str, ...]
    spaces: Mapping[str, Space]
    embedder: Embedder
    parts: ModelParts
    predictor: ModalityPredictor

    @property
    def targets(self) -> tuple[str, ...]:
        """What it predicts, by the user's names."""
        return tuple(self.parts.targets)

    @property
    def bytes_read(self) -> int:
        """Of all its files, so far."""
        return self.parts.bytes_read

    def space_weights(self, modalities: Mapping[str, float]) -> dict[str, float]:
        """How much each space counts in a search that does not say, adding up to 1.

        What a modality tells of an image, one space keeps and another leaves out: see
        `ModelSource.space_weights`. Where the model does not know, all count alike.

        Args:
            modalities: those asked by, by the user's names, and the weight of each, from 0; a query of
                several takes the mean.
        """
        equal = dict.fromkeys(self.spaces, 1.0)
        sums = dict.fromkeys(self.spaces, 0.0)
        for modality, weight in modalities.items():
            known = self.parts.source.space_weights.get(modality, equal)
            row = {space: known.get(space, 0.0) for space in self.spaces}
            row = row if any(row.values()) else equal
            for space, of_space in row.items():
                sums[space] += weight * of_space / sum(row.values())
        sums = sums if any(sums.values()) else equal
        return {space: weight / sum(sums.values()) for space, weight in sums.items() if weight}

    def likelihood_share(self, modalities: Mapping[str, float]) -> float:
        """How much of the score of a search that does not say is likelihood, 0..1; the rest is cosine.

        Args:
            modalities: as of `space_weights`; a query of several takes the mean.
        """
        known, total = self.parts.source.likelihood_shares, sum(modalities.values())
        if not total:
            return LIKELIHOOD_SHARE
        return sum(weight / total * known.get(raw, LIKELIHOOD_SHARE) for raw, weight in modalities.items())

    def read(self, contents: Mapping[str, Content]) -> dict[str, np.ndarray]:
        """Read what is known of one item by the user's names, as `Embedder.read`.

        Raises:
            InputError: a value cannot be used, or a map shows another view than the photo.
            LimitError, ModelError: as `Embedder.read`.
        """
        for raw, content in contents.items() if "rgb" in contents else ():
            check_same_view(raw, content, contents["rgb"])
        return {raw: self.embedder.read(raw, content) for raw, content in contents.items()}

    def predict(
        self,
        inputs: Mapping[str, Content],
        to: Iterable[str],
        *,
        keep: Mapping[str, tuple[Content, np.ndarray]] | None = None,
        seed: int = 0,
        num_steps: Setting = None,
        temperature: Setting = None,
        top_p: Setting = None,
        guidance: Setting = None,
        super_resolution: bool = False,
        diffusion_steps: int | None = None,
        progress: Report | None = None,
    ) -> dict[str, Predicted]:
        """Read what is known of one item and predict other modalities of it.

        Args:
            inputs: content as `Embedder.read` takes it, by any word for the modality.
            to: what to predict, likewise.
            keep: targets of which a part is kept: content, and what to predict anew as in `Kept.redraw`.
            seed: 0 or more; the same seed gives the same result.
            num_steps, temperature, top_p, guidance, super_resolution, diffusion_steps, progress: as for
                `ModalityPredictor.predict`.

        Returns:
            By the user's names, in the order asked.

        Raises:
            InputError, LimitError: a value cannot be used.
            QueryError: two words for one modality, and as `ModalityPredictor.predict`.
            ModelError, CheckpointError: as `ModalityPredictor.predict`.
        """
        contents = {self._raw(word): content for word, content in inputs.items()}
        if len(contents) < len(inputs):
            raise QueryError(f"A modality is given twice in {', '.join(inputs)}; two words can mean one.")
        item = self.read(contents)
        kept = {
            raw: Kept(self.embedder.read(raw, content), redraw)
            for word, (content, redraw) in (keep or {}).items()
            for raw in [self._raw(word)]
        }
        found = self.predictor.predict(
            [item],
            [self._raw(word) for word in ([to] if isinstance(to, str) else to)],
            keep=[kept],
            seed=seed,
            num_steps=num_steps,
            temperature=temperature,
            top_p=top_p,
            guidance=guidance,
            super_resolution=super_resolution,
            diffusion_steps=diffusion_steps,
            progress=progress,
        )
        return found[0]

    def _raw(self, word: str) -> str:
        """The user's name of a modality: one of the model's own, or any word for a known one."""
        is_own = word in self.parts.inputs or word in self.parts.targets
        return word if is_own else raw_name(word)


def load_model(
    source: str | Path = "scenes",
    *,
    inputs: Iterable[str] | None = None,
    spaces: Iterable[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Model:
    """Open a model and read what the given inputs and spaces need of it.

    Tokenizers of inputs, and all that predicting takes, are read when they are first needed.

    Args:
        source: a name in MODELS, or a folder with `model.json`.
        inputs: modalities by the user's names (`rgb`, `caption`, ...); all that can be read where None.
        spaces: embedding spaces; all that the model has where None. With none at all, `()`, the model is
            opened to predict only, and no weights are read before it does.
        device: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes a GPU if there is one.
        dtype: `float32` or `bfloat16`; `auto` takes bfloat16 where the hardware multiplies it.

    Raises:
        ModelError: unknown name, modality, space, device or number type; the known ones are listed.
        CheckpointError: files are missing, damaged or of another shape, or cannot be fetched.
    """
    name, found = find_source(source)
    place = resolve_device(device)
    parts = ModelParts(found, place, _dtype(dtype, place))
    _require_known_tokenizers(parts)
    rows = {raw: parts.inputs[raw] for raw in _choose("input", inputs, parts.inputs)}
    if not rows:
        raise ModelError(f"Name at least one input: {', '.join(parts.inputs)}.")
    chosen = _choose("space", spaces, parts.spaces)
    targets = {space: (parts.targets[space], parts.decoder(space)) for space in chosen}
    embedder = Embedder(
        _predictor(parts.fourm(rows, chosen)) if chosen else None,
        InputReader(rows, parts.text, classes=parts.classes),
        ValueEncoder(rows, parts),
        rows,
        targets,
        Nothing(list(rows.values()), parts.text.sentinels[0]),
        len(parts.classes),
    )
    return Model(
        name=name,
        fingerprint=_fingerprint(parts, chosen),
        license=found.license,
        inputs=tuple(rows),
        spaces=MappingProxyType(embedder.spaces),
        embedder=embedder,
        parts=parts,
        predictor=ModalityPredictor(parts),
    )


def _choose(what: str, wanted: Iterable[str] | None, known: Iterable[str]) -> tuple[str, ...]:
    known = tuple(known)
    chosen = known if wanted is None else tuple(dict.fromkeys(wanted))
    for name in chosen:
        if name not in known:
            raise ModelError(f"This model has no {what} {name!r}. Known: {', '.join(known)}.")
    return chosen


def _require_known_tokenizers(parts: ModelParts) -> None:
    for raw in parts.source.tokenizers:
        if raw not in parts.inputs and raw not in parts.targets:
            raise CheckpointError(
                f"Model {parts.source.name!r} has a tokenizer for {raw!r}, but the model itself lacks it."
            )


def _fingerprint(parts: ModelParts, spaces: Iterable[str]) -> str:
    """Identify the vectors of some spaces.

    Tokenizers that only read inputs play no part: the weights of the 4M model were trained on the ids of
    one tokenizer for each modality, so these weights stand for it.
    """
    text = parts.text.sha256
    fourm = checkpoint_digest(parts.fourm_checkpoint.file, parts.config.values())
    tokenizers = {
        space: checkpoint_digest(parts.tokenizer_checkpoint(space).file, parts.decoder(space).config.values())
        for space in spaces
    }
    return model_fingerprint(fourm, text, tokenizers)


def _predictor(fourm: FourM) -> Predictor:
    on_processor = fourm.mask_token.device.type == "cpu"
    if on_processor and not fourm.config.qk_norm:
        return RaggedPredictor(fourm, fourm.targets)
    return PaddedPredictor(fourm, fourm.targets)


def resolve_device(name: str) -> torch.device:
    """The device behind `auto`, `cpu`, `cuda` or `cuda:1`. Raises ModelError where it is not there."""
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
