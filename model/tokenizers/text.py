"""WordPiece text tokenizer of the 4M models: text to ids and back, by local file or checked download.

The vocabulary file belongs to the model: it holds `[PAD] [UNK] [SOS] [EOS]`, the sentinels `[S_0]`, `[S_1]`,
..., the numbers `v0=0` to `v3=999` that boxes, metadata and palettes are spelt with, class names, and pieces
of words (4M-21: 30,000 in all). Ids are looked up by name, so a model may bring a smaller vocabulary.
"""

import hashlib
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import platformdirs
from tokenizers import Tokenizer

from ...errors import CheckpointError

MAX_FILE_BYTES = 16 * 2**20  # the published file has 1.4 MB
_MAX_CHARS_PER_TOKEN = 200  # WordPiece gives up on words longer than 100; the rest is white space
_CONTROL_TOKEN = re.compile(r"\[(?=(?:PAD|UNK|SOS|EOS|S_\d+)\])")
_NUMBER_TOKEN = re.compile(r"\b(v[0-3])(?==\d)")


def plain_text(text: str) -> str:
    """Return `text` so that nothing in it is read as a control or number token.

    People may write `[EOS]` or `v0=5` in a caption; to the model these would be the end of a sequence or a
    coordinate. A space breaks such a spelling and gives the ids that the words would have in any other text.
    Class names (`dog`, `train`) stay single tokens: captions were learnt that way. Lone surrogates, which
    UTF-8 cannot carry, become `?`.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    return _NUMBER_TOKEN.sub(r"\1 ", _CONTROL_TOKEN.sub("[ ", text))


class TextTokenizer:
    """Text to token ids and back. Thread-safe; immutable after construction.

    Args:
        content: the bytes of a HuggingFace `tokenizers` JSON file with a WordPiece model.
        source: where they came from, for messages.

    Attributes:
        num_bytes: size of the file.
        sha256: hash of its bytes.
        vocab_size: number of ids.
        pad_id, unk_id, sos_id, eos_id: ids of the control tokens.
        sentinels: ids of `[S_1]`, `[S_2]`, ... in this order (`[S_0]` is never used).

    Raises:
        CheckpointError: the bytes are no such file, or a control token is missing.
    """

    def __init__(self, content: bytes, *, source: str = "bytes") -> None:
        try:
            self._tokenizer = Tokenizer.from_str(content.decode("utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(
                f"Text tokenizer {source} is not a HuggingFace tokenizers file ({error}); fetch it again."
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._source = source
        self.num_bytes = len(content)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.vocab_size = self._tokenizer.get_vocab_size()
        self.pad_id, self.unk_id, self.sos_id, self.eos_id = map(
            self.id_of, ("[PAD]", "[UNK]", "[SOS]", "[EOS]")
        )
        self.sentinels = tuple(self._numbered("[S_{}]", start=1))
        if len(self.sentinels) < 2:
            raise CheckpointError(
                f"Text tokenizer {source} has no sentinel tokens [S_1], [S_2]; take the model's own."
            )

    @classmethod
    def from_file(cls, path: str | Path) -> "TextTokenizer":
        """Read a tokenizer file.

        Raises:
            CheckpointError: the file is missing, too large or of another format.
        """
        path = Path(path)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise CheckpointError(
                    f"Text tokenizer {path} is larger than {MAX_FILE_BYTES} bytes; it cannot be one."
                )
            content = path.read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"Text tokenizer {path} cannot be read ({error.strerror or error}); "
                "download_text_tokenizer() fetches the published one."
            ) from error
        return cls(content, source=str(path))

    def id_of(self, token: str) -> int:
        """Return the id of one token, e.g. `v0=17`.

        Raises:
            CheckpointError: the vocabulary does not hold it.
        """
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise CheckpointError(
                f"Text tokenizer {self._source} has no token {token!r}; take the model's own file."
            )
        return token_id

    def has(self, token: str) -> bool:
        """Say whether `token` is one entry of the vocabulary."""
        return self._tokenizer.token_to_id(token) is not None

    def encode(self, text: str, *, max_tokens: int | None = None) -> np.ndarray:
        """Return the ids of `text`, int32 `(L,)`, cut after `max_tokens`.

        Special tokens spelt in the text are taken as such; pass text written by users through `plain_text`.
        """
        if max_tokens is not None:
            text = text[: max_tokens * _MAX_CHARS_PER_TOKEN]  # bounds the work on hostile input
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return np.asarray(ids[:max_tokens], np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`. Special tokens stay, class names such as `dog` being among them."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the vocabulary entry of each id (`[UNK]` for ids beyond the vocabulary)."""
        return [self._tokenizer.id_to_token(int(i)) or "[UNK]" for i in ids]

    def _numbered(self, pattern: str, start: int) -> Iterable[int]:
        while (token_id := self._tokenizer.token_to_id(pattern.format(start))) is not None:
            yield token_id
            start += 1


def download_text_tokenizer(url: str, sha256: str, *, cache_dir: Path | None = None) -> Path:
    """Fetch a tokenizer file once and return its path in the cache.

    The file is kept under its hash in `cache_dir` (the user's cache folder by default), so a file that is
    there was checked; a download is renamed into place only when its hash is right.

    Raises:
        CheckpointError: no connection, or the bytes are not those expected.
    """
    folder = cache_dir or platformdirs.user_cache_path("anyseek") / "tokenizers"
    path = folder / f"{sha256}.json"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            content = response.read(MAX_FILE_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise CheckpointError(
            f"Cannot download the text tokenizer {url} ({error}); put the file at {path} by hand, "
            "or load the model from a folder that holds it."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise CheckpointError(f"Text tokenizer {url} has sha256 {found}, expected {sha256}; it was not kept.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".download-", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
    return path
