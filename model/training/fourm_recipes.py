"""What a YAML can say about training a 4M model: which modalities, from which weights, on which data, how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ..presets import PRESETS
from ..sources import MODELS
from .distributed import Strategy
from .fit import Count, Positive
from .lora import Lora
from .masking import Budget, Component
from .pretrain import PretrainRecipe
from .run_files import FullPath, RunConfig, parse_run, read_values

_SIZES = tuple(PRESETS)


def _full(place: str) -> str:
    # A model's name wins over a folder called like it, as where it is opened.
    return str(Path(place).absolute()) if place not in MODELS and Path(place).exists() else place


Place = Annotated[str, AfterValidator(_full)]
"""A file or folder, kept absolute, or a name or hub id."""


class NewModality(RunConfig):
    """A modality that no published model has.

    Attributes:
        like: the known modality whose values are like it (`tok_depth@224`, `caption`): its readers prepare
            the values, and grid or longest sequence are the same.
        vocab_size: number of ids; that of the tokenizer, or of the texts, where not given.
        tokenizer: of its values, a file, folder or hub id; texts need none.
    """

    like: str
    vocab_size: Count | None = None
    tokenizer: Place | None = None


class NewModel(RunConfig, extra="allow"):
    """A model from scratch, or what to keep of the one that training starts from.

    Attributes:
        preset: a size by name; other keys of the published configurations (`dim`, `num_heads`, `patch_size`,
            ...) may stand beside it and win.
        inputs, targets: modalities by checkpoint name; of a model that training starts from, all where not
            given.
        vocab: numbers of ids that are neither those of a tokenizer given nor the published ones.
    """

    preset: Literal[_SIZES] | None = None  # pyright: ignore[reportInvalidTypeForm]
    inputs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    vocab: dict[str, Count] = Field(default_factory=dict)

    @property
    def others(self) -> dict[str, Any]:
        """The keys of the published configurations."""
        return dict(self.model_extra or {})


class DataSet(RunConfig):
    """One of the data sets.

    Attributes:
        tokens: folder that `anyseek train tokenize` wrote.
        weight: how often batches come from it, relative to the others.
        modalities: those to use; all that the model has where not given.
        mixture: `4m21`, the published one, or components of one's own.
        num_input_tokens, num_target_tokens: budgets of a sample, or their smallest and largest.
        held_out: samples that are only evaluated on.
    """

    tokens: FullPath
    weight: Positive = 1.0
    modalities: tuple[str, ...] = ()
    mixture: Literal["4m21"] | Annotated[tuple[Component, ...], Field(min_length=1)] = "4m21"
    num_input_tokens: Budget = 128
    num_target_tokens: Budget = 128
    held_out: Annotated[int, Field(ge=0)] = 0


class Modalities(RunConfig):
    """Which modalities a model has, and what makes their tokens: all that `anyseek train tokenize` needs.

    Attributes:
        bundle: a model (name or folder) to start from: its weights, tokenizers, texts and classes.
        init: a 4M checkpoint (file, folder or hub id) to start from, in place of the bundle's.
        model: the model, where it does not come from a checkpoint whole.
        new_modalities: by checkpoint name, such as `tok_thermal@224`.
        tokenizers: by the user's name of the modality: a file, folder or hub id.
        text_tokenizer: file of the tokenizer of texts, or a folder with `text_tokenizer.json`.
        semseg_classes: names of the classes of segmentations; those of the bundle, else of COCO.
    """

    bundle: Place | None = None
    init: Place | None = None
    model: NewModel = NewModel()
    new_modalities: dict[str, NewModality] = Field(default_factory=dict)
    tokenizers: dict[str, Place] = Field(default_factory=dict)
    text_tokenizer: FullPath | None = None
    semseg_classes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_which(self) -> Modalities:
        starts = self.bundle is not None or self.init is not None
        if not starts and not (self.model.inputs and self.model.targets):
            raise ValueError("give model.inputs and model.targets, or start from a bundle or init")
        if starts and (self.model.preset or self.model.others or self.model.vocab):
            raise ValueError(
                "what training starts from brings its sizes: model takes inputs and targets only"
            )
        if self.text_tokenizer is None and self.bundle is None:
            raise ValueError("give text_tokenizer, or a bundle that has one")
        return self


class FourMRun(Modalities):
    """A training of a 4M model.

    Attributes:
        output: folder of all that the run makes; a model that `load_model` opens.
        name, license, description: of that model.
        data: the data sets.
        batch_size: samples in a batch; a step has `training.parts` of them.
        training: how long and how fast.
        freeze: let only new modalities learn, and adapters where there are.
        lora: adapters to train in place of the weights.
        retrieval: modalities to ask with in the evaluation, for R@1 and R@10 by predicted vectors.
        held_out_batches: of each data set, in an evaluation.
        strategy: how the processes of `torchrun` share the model.
        device: `auto`, `cpu`, `cuda`, ...
        threads: batches of a step at a time on a processor.
        workers: processes that draw batches ahead; 0 draws when they are needed.
    """

    output: FullPath
    name: str = "mine"
    license: str = "unknown"
    description: str = "Trained with anyseek train 4m."
    data: Annotated[tuple[DataSet, ...], Field(min_length=1)]
    batch_size: Count = 32
    training: PretrainRecipe = PretrainRecipe()
    freeze: bool = False
    lora: Lora | None = None
    retrieval: tuple[str, ...] = ()
    held_out_batches: Count = 4
    strategy: Strategy = "ddp"
    device: str = "auto"
    threads: Count = 2
    workers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> FourMRun:
        if self.bundle is None and self.init is None and (self.freeze or self.lora is not None):
            raise ValueError("freeze and lora train parts of a model: start from a bundle or init")
        if self.retrieval and not any(data.held_out for data in self.data):
            raise ValueError("retrieval needs held_out samples")
        return self


def read_fourm_run(path: Path) -> FourMRun:
    """Read the YAML of a training.

    Raises:
        ConfigError: all that is wrong with it; unknown keys with those that are known.
    """
    return parse_run(read_values(path), FourMRun, where=str(path))
