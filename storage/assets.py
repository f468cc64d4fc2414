"""Files by content hash: the same bytes are kept once, and a name can never lead outside the folder."""

import hashlib
import shutil
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ..errors import CorruptError, InputError, NotFoundError
from .checks import is_sha256
from .files import new_file, sha256_of, sync_new_folder

_BLOCK = 1 << 20


class AssetFiles:
    """The asset files of a library, under `assets/<first 2 hex digits>/<sha256>`.

    Files that stay where they are (referenced by absolute path in `Asset.path`) are not read here. To add is
    for the process that has the library's writer: a writer deletes unfinished files of others when it opens.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, content: bytes | Path | BinaryIO) -> str:
        """Keep content (bytes, a file to copy, or an open binary file) and return its sha256 in hex.

        Durable when it returns; adding the same bytes again costs one hash.

        Raises:
            InputError: the file to copy cannot be read.
            StorageError: it cannot be written (a full disk); nothing is left behind.
        """
        if isinstance(content, Path):
            try:
                file = content.open("rb")
            except OSError as error:
                raise InputError(f"Cannot read '{content}': {error.strerror or error}.") from error
            with file:
                return self.add(file)
        if isinstance(content, bytes):
            content = BytesIO(content)
        start = content.tell()
        # Not `file_digest`: it hashes all of a BytesIO, wherever it stands.
        digest = hashlib.sha256()
        while block := content.read(_BLOCK):
            digest.update(block)
        sha256 = digest.hexdigest()
        path = self._path(sha256)
        if path.is_file() and sha256_of(path) == sha256:
            return sha256
        content.seek(start)
        sync_new_folder(path.parent)
        with new_file(path) as temporary, temporary.open("wb") as file:
            shutil.copyfileobj(content, file, _BLOCK)
        return sha256

    def path(self, sha256: str) -> Path:
        """Where that file lies, for serving; its bytes are not checked.

        Raises:
            NotFoundError: no such file, or not a sha256 in lower-case hex.
        """
        if not is_sha256(sha256) or not self._path(sha256).is_file():
            raise NotFoundError(f"The library has no asset file '{sha256[:80]}'.")
        return self._path(sha256)

    def read(self, sha256: str) -> bytes:
        """Its bytes, checked against the hash.

        Raises:
            NotFoundError: no such file. CorruptError: the bytes on disk are others.
        """
        content = self.path(sha256).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise CorruptError(f"The asset file '{self._path(sha256)}' is damaged; add it again.")
        return content

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256
