"""NumPy files (.npy, .npz) from anywhere: type and size are checked in the header, before values are read.

Nothing is unpickled. An archive's members are decompressed only as far as their headers say, so a small file
cannot grow beyond the limit.
"""

import io
import math
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ...errors import InputError, LimitError
from .content import Content, read_bytes

FORMATS = "NumPy files (.npy, or .npz with numbers)"

_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MAX_DIMS = 8
_MAX_ITEM_BYTES = 8


def is_numpy(data: bytes) -> bool:
    """Whether a file begins as .npy or .npz does."""
    return data.startswith((_NPY, _ZIP))


def read_array(content: Content, *, name: str, max_bytes: int, keys: tuple[str, ...] = ()) -> np.ndarray:
    """Read one array of booleans, integers or real numbers.

    Args:
        content: path or bytes of a .npy or .npz file, an array, or nested lists of numbers.
        name: what messages call it.
        max_bytes: limit of the file and of the array in memory.
        keys: names to look for in an archive, the first that is there; an archive of one array needs none.

    Returns:
        The array in native byte order, as the header says: any shape that is not empty.

    Raises:
        LimitError: it is larger than the limit.
        InputError: no NumPy file, damaged, empty, of another type, or an archive without the array.
    """
    if isinstance(content, np.ndarray):
        _check(content.shape, content.dtype, name, max_bytes)
        return content
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        return read_array(_listed_numbers(content, name), name=name, max_bytes=max_bytes)
    data = _data(content, name, max_bytes)
    if data.startswith(_NPY):
        return _read_npy(io.BytesIO(data), name, max_bytes)
    with _opened(data, name) as archive:
        members = _members(archive)
        key = next((key for key in keys if key in members), None)
        if key is None and len(members) != 1:
            wanted = " or ".join(map(repr, keys)) or "one only"
            raise InputError(f"{name}: holds the arrays {_listed(members)}; expected {wanted}.")
        return _read_member(archive, members, key or next(iter(members)), name, max_bytes)


def read_arrays(
    content: Content, keys: tuple[str, ...], *, name: str, max_bytes: int
) -> dict[str, np.ndarray]:
    """Read those arrays of a .npz archive that have one of these names; together within the limit.

    Raises as `read_array`; InputError also where none of the names is there.
    """
    data = _data(content, name, max_bytes)
    if not data.startswith(_ZIP):
        raise InputError(f"{name}: expected a .npz archive with arrays by name.")
    found: dict[str, np.ndarray] = {}
    with _opened(data, name) as archive:
        members = _members(archive)
        for key in filter(members.__contains__, keys):
            found[key] = _read_member(archive, members, key, name, max_bytes)
            max_bytes -= found[key].nbytes
    if not found:
        raise InputError(f"{name}: holds the arrays {_listed(members)}; known are {', '.join(keys)}.")
    return found


def _data(content: Content, name: str, max_bytes: int) -> bytes:
    if not isinstance(content, Path | bytes):
        raise InputError(f"{name}: expected an array or one of {FORMATS}, got {type(content).__name__}.")
    data = read_bytes(content, max_bytes, name)
    if not data:
        raise InputError(f"{name}: the file is empty; {FORMATS} are read.", code="input.empty")
    if not is_numpy(data):
        raise InputError(f"{name}: not one of {FORMATS}.")
    return data


def _listed_numbers(content: Sequence[object], name: str) -> np.ndarray:
    try:
        return np.array(content, np.float64)
    except Exception as error:  # texts, lists of different lengths, numbers beyond 64 bits, ...
        raise InputError(f"{name}: the lists are no array of numbers ({str(error)[:200]}).") from error


def _opened(data: bytes, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # a damaged directory may fail in any way
        raise _damaged(name, error) from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {
        info.filename.removesuffix(".npy"): info
        for info in archive.infolist()
        if info.filename.endswith(".npy")
    }


def _listed(members: Iterable[str]) -> str:
    names = sorted(members)
    return ", ".join(name[:40] for name in names[:8]) + (", ..." if names[8:] else "") or "(none)"


def _read_member(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], key: str, name: str, max_bytes: int
) -> np.ndarray:
    info = members[key]
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{name}: {key} is compressed in a way that NumPy does not write.")
    try:
        with archive.open(info) as file:
            return _read_npy(file, f"{name}: {key}", max_bytes)
    except InputError:
        raise
    except Exception as error:  # encrypted, cut short, wrong checksum, ...
        raise _damaged(name, error) from error


def _read_npy(file: IO[bytes], name: str, max_bytes: int) -> np.ndarray:
    try:
        shape, is_fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # the header is a Python literal: it may fail in any way
        raise _damaged(name, error) from error
    size = _check(shape, dtype, name, max_bytes)
    data = file.read(size)
    if len(data) < size:
        raise InputError(f"{name}: ends too soon, {len(data):,} of {size:,} bytes are there.")
    values = np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
    return np.array(values, dtype.newbyteorder("="), order="C")


def _check(shape: tuple[int, ...], dtype: np.dtype, name: str, max_bytes: int) -> int:
    """Refuse what is no array of plain numbers or too large; its bytes."""
    if dtype.kind not in "biuf" or dtype.itemsize > _MAX_ITEM_BYTES:
        raise InputError(f"{name}: an array of {dtype}; integers or real numbers of up to 64 bits are read.")
    if len(shape) > _MAX_DIMS or min(shape, default=1) < 1:
        code = "input.empty" if 0 in shape else None
        raise InputError(f"{name}: an array of shape {shape} holds no values to read.", code=code)
    size = math.prod(shape) * dtype.itemsize
    if size > max_bytes:
        raise LimitError(
            f"{name}: {dtype} {shape} takes {size:,} bytes, the limit is {max_bytes:,}; give a smaller one."
        )
    return size


def _damaged(name: str, error: Exception) -> InputError:
    return InputError(f"{name}: the file is damaged ({str(error)[:200] or type(error).__name__}).")
