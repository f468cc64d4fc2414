"""Read single tensors out of a safetensors file by byte range, and trust nothing in its header.

Format: 8 bytes little-endian header length, a JSON header of name to dtype, shape and offsets, then the data
(https://github.com/huggingface/safetensors). Nothing is unpickled and nothing is mapped into memory, so a
file that shrinks under a reader is an error and not a crash.

A tensor may be stored in 8 bits: `name` as int8, and `name.int8_scale` in float32, one number for each of its
rows (`scale_shape`). It reads as the float32 product of both, and under `name` only.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ..errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000
SCALE = ".int8_scale"

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: type, shape, and the bytes `start..end` of the file.

    One stored in 8 bits has the type that it reads as, float32, and `scale` says where its scales lie.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int
    scale: "TensorInfo | None" = None


class TensorFile:
    """An opened safetensors file: its header, and its tensors on demand.

    Attributes:
        path: the file.
        metadata: strings of its `__metadata__`.
        tensors: what it holds, by name.
        bytes_read: of header and tensors so far.

    Raises:
        CheckpointError: not a safetensors file, damaged, or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header, self._data_start, size = self._read_header()
        self.metadata = self._parse_metadata(header.pop("__metadata__", {}))
        stored = {name: self._parse_entry(name, entry, size) for name, entry in header.items()}
        self._require_whole(stored, size)
        self.tensors: Mapping[str, TensorInfo] = self._with_scales(stored)
        self.bytes_read = self._data_start

    def read(self, name: str) -> Tensor:
        """The tensor in its stored type, on the CPU. Raises KeyError for an unknown name."""
        info = self.tensors[name]
        if info.scale is None:
            return self._read(name, info, info.dtype)
        scale = self._read(name, info.scale, torch.float32)
        rows = self._read(name, info, torch.int8)
        return rows * scale.view(*scale.shape, *[1] * (rows.ndim - scale.ndim))

    def _read(self, name: str, info: TensorInfo, dtype: torch.dtype) -> Tensor:
        # Allocated in its own type, so that its memory is aligned for it.
        tensor = torch.empty(info.shape, dtype=dtype)
        view = tensor.view(-1).view(torch.uint8).numpy().data
        with self._open() as file:
            file.seek(info.start)
            if file.readinto(view) != len(view):
                raise self._damaged(f"it ended while {name!r} was read")
        self.bytes_read += len(view)
        return tensor

    def _open(self) -> BufferedReader:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise CheckpointError(f"Cannot read {self.path}: {error.strerror or error}.") from error

    def _read_header(self) -> tuple[dict[str, object], int, int]:
        with self._open() as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 0 < length <= min(size - 8, MAX_HEADER_BYTES):
                raise self._damaged("it has no readable header")
            text = file.read(length)
        try:
            header = json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            raise self._damaged("its header is not JSON") from error
        if not isinstance(header, dict):
            raise self._damaged("its header is not an object")
        return header, 8 + length, size

    def _parse_metadata(self, value: object) -> dict[str, str]:
        if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
            return value
        raise self._damaged("its metadata are not strings")

    def _parse_entry(self, name: str, entry: object, size: int) -> TensorInfo:
        match entry:
            case {"dtype": str(code), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
                lengths = cast("list[object]", shape)
            case _:
                raise self._damaged(f"the entry of {name!r} lacks type, shape or offsets")
        if code not in _DTYPES:
            raise CheckpointError(
                f"{self.path}: tensor {name!r} has type {code}. Known: {', '.join(_DTYPES)}."
            )
        if not all(type(n) is int and 0 <= n < 2**40 for n in lengths):
            raise self._damaged(f"the shape of {name!r} is {lengths!r:.80}")
        sizes = tuple(cast("list[int]", lengths))
        if begin < 0 or end - begin != math.prod(sizes) * _DTYPES[code].itemsize:
            raise self._damaged(f"the offsets of {name!r} do not fit its shape {sizes}")
        if self._data_start + end > size:
            raise self._damaged(f"{name!r} ends at byte {self._data_start + end} of {size}")
        return TensorInfo(_DTYPES[code], sizes, self._data_start + begin, self._data_start + end)

    def _with_scales(self, stored: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        """Join tensors stored in 8 bits with their scales."""
        tensors = {name: info for name, info in stored.items() if not name.endswith(SCALE)}
        for name in stored.keys() - tensors.keys():
            base, scale = tensors.get(name.removesuffix(SCALE)), stored[name]
            if base is None or base.dtype != torch.int8 or scale.dtype != torch.float32:
                raise self._damaged(f"{name!r} scales no tensor in 8 bits")
            if scale.shape != scale_shape(base.shape):
                raise self._damaged(f"{name!r} has shape {scale.shape}, not {scale_shape(base.shape)}")
            joined = replace(base, dtype=torch.float32, scale=scale)
            tensors[name.removesuffix(SCALE)] = joined
        return tensors

    def _require_whole(self, stored: Mapping[str, TensorInfo], size: int) -> None:
        """Tensors lie side by side and fill the file: neither overlaps nor hidden bytes."""
        at = self._data_start
        for name, info in sorted(stored.items(), key=lambda pair: (pair[1].start, pair[1].end)):
            if info.start != at:
                raise self._damaged(f"{name!r} overlaps another tensor or leaves a gap")
            at = info.end
        if at != size:
            raise self._damaged(f"its tensors end at byte {at} of {size}")

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is not a whole safetensors file: {why}. Download or export it again."
        )


def scale_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Which rows of a tensor have a scale of their own: all but the last axis; of kernels, the first."""
    return shape[:-1] if len(shape) <= 3 else shape[:1]


def in_8_bits(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A floating tensor as int8 -127..127 and float32 scales: off by half a step of each row at most."""
    shape = scale_shape(tuple(tensor.shape))
    rows = tensor.float().reshape(*shape, -1)
    scale = rows.abs().amax(-1) / 127
    steps = rows / scale.clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    return steps.round().to(torch.int8).view(tensor.shape), scale
