"""A model's identity: equal fingerprints, comparable vectors."""

import hashlib
import json
from collections.abc import Mapping

from ..errors import CheckpointError
from .tensor_file import TensorFile

PREPROCESSING = 1
"""Version of everything that turns files into model input; raise it when vectors would change."""

SAMPLE_BYTES = 4096


def checkpoint_digest(file: TensorFile, config: Mapping[str, object]) -> str:
    """Hash a checkpoint: configuration, and of every tensor its name, type, shape, first and last 4 kB.

    Training moves every number of a tensor, so its ends tell versions apart at a thousandth of the cost of
    reading it; this is no protection against tampering. Where in the file a tensor lies plays no part.

    Raises:
        CheckpointError: the file cannot be read any more.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=list).encode())
    try:
        with file.path.open("rb") as data:
            for name, info in sorted(file.tensors.items()):
                digest.update(f"{name} {info.dtype} {info.shape}".encode())
                for part in filter(None, (info, info.scale)):
                    for start in (part.start, max(part.start, part.end - SAMPLE_BYTES)):
                        data.seek(start)
                        sample = data.read(min(SAMPLE_BYTES, part.end - start))
                        digest.update(sample)
                        file.bytes_read += len(sample)
    except OSError as error:
        raise CheckpointError(f"Cannot read {file.path}: {error.strerror or error}.") from error
    return digest.hexdigest()


def model_fingerprint(fourm: str, text_tokenizer: str, tokenizers: Mapping[str, str]) -> str:
    """Combine digests of the 4M checkpoint, the text tokenizer and the tokenizer of each space."""
    parts = {
        "fourm": fourm,
        "text": text_tokenizer,
        "spaces": dict(tokenizers),
        "preprocessing": PREPROCESSING,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
