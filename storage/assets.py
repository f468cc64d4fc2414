"""Files by content hash: the same bytes are kept once, and a name can never lead outside the folder."""

from pathlib import Path
from typing import BinaryIO


class AssetFiles:
    """The asset files of a library, under `assets/<first 2 hex digits>/<sha256>`.

    Files that stay where they are (referenced by absolute path in `Asset.path`) are not read here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, content: bytes | Path | BinaryIO) -> str:
        """Keep content (bytes, a file to copy, or an open binary file) and return its sha256 in hex.

        Durable when it returns; adding the same bytes again costs one hash.

        Raises:
            StorageError: it cannot be written (a full disk); nothing is left behind.
        """
        raise NotImplementedError

    def path(self, sha256: str) -> Path:
        """Where that file lies, for serving; its bytes are not checked.

        Raises:
            NotFoundError: no such file, or not a sha256 in lower-case hex.
        """
        raise NotImplementedError

    def read(self, sha256: str) -> bytes:
        """Its bytes, checked against the hash.

        Raises:
            NotFoundError: no such file. CorruptError: the bytes on disk are others.
        """
        raise NotImplementedError
