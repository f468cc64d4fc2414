"""A finished scan: every item of a source in order, kept on disk so that a million items cost no memory."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ..errors import StorageError
from ..storage import JobError
from .sources import Source, SourceItem

_MEMORY_BYTES = 32 << 20
_REPORT_EVERY = 1000


class Scan:
    """The items of a source as they were at one moment. Close it.

    A job works through this list, not through a folder that may change meanwhile, so that a position in it
    always means the same item.

    Args:
        source: what to scan, now.
        on_item: called now and then with the number of items found so far.

    Attributes:
        digest: of all ids and signatures, in hex: equal scans found the same files.
        ignored: how many files were passed over, by reason.

    Raises:
        StorageError: there is no space for a long list in the folder for temporary files.
    """

    def __init__(self, source: Source, on_item: Callable[[int], None] | None = None) -> None:
        self.ignored: Counter[str] = Counter()
        self._num = 0
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115 (closed with the scan)
        digest = sha256()
        for item in source.scan(self.ignored):
            line = _to_line(item)
            self._write(line)
            digest.update(line)
            self._num += 1
            if on_item is not None and self._num % _REPORT_EVERY == 0:
                on_item(self._num)
        self.digest = digest.hexdigest()

    def _write(self, line: bytes) -> None:
        try:
            self._file.write(line)
        except OSError as error:
            self._file.close()
            where = tempfile.gettempdir()
            raise StorageError(f"Cannot keep the list of files in {where}: {error.strerror}.") from error

    def __len__(self) -> int:
        return self._num

    def items_from(self, position: int) -> Iterator[SourceItem]:
        """Yield the items from a position on; only one such iteration at a time."""
        self._file.seek(0)
        return map(_from_line, islice(self._file, position, None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _to_line(item: SourceItem) -> bytes:
    files = {modality: str(path) for modality, path in item.files.items()}
    attributes = None if item.attributes_path is None else str(item.attributes_path)
    problems = [[problem.path, problem.modality, problem.code, problem.message] for problem in item.problems]
    # ASCII escapes keep names that are not UTF-8 (lone surrogates) and newlines in names.
    return json.dumps([item.id, files, attributes, item.signature, problems]).encode() + b"\n"


def _from_line(line: bytes) -> SourceItem:
    fields: list[Any] = json.loads(line)
    id_, files, attributes, signature, problems = fields
    return SourceItem(
        id=id_,
        files={modality: Path(path) for modality, path in files.items()},
        attributes_path=None if attributes is None else Path(attributes),
        signature=signature,
        problems=tuple(JobError(*problem) for problem in problems),
    )
