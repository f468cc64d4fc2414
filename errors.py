"""Every error that anyseek raises on purpose.

AnyseekError
├── ConfigError          a setting is missing or has no meaning
├── InputError           a file or value from outside cannot be used
│   └── LimitError       it is larger than the configured limits
├── QueryError           a query asks for something that does not exist or cannot be combined
├── ModelError           a model cannot be found, loaded or asked this
│   └── CheckpointError  its files are missing, damaged or of another shape
└── StorageError         the library on disk cannot do this
    ├── NotFoundError    no such library, collection, item, asset or job
    ├── ConflictError    it exists already, with other settings
    ├── WriterBusyError  another process is writing to the library
    └── CorruptError     a stored file fails its checksum or cannot be parsed

Each carries a stable `code` (for HTTP bodies and JSON lines) beside its message. A message says what was
wrong, where, and what to do.
"""


class AnyseekError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: one or two sentences: what was wrong, where, what to do.
        code: stable dotted identifier; the class's own where the caller gives none.

    Attributes:
        part: which part of a query it is about, counted from 0; None where it is about no one part.
    """

    code = "error"
    part: int | None = None

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or type(self).code


class ConfigError(AnyseekError):
    """A setting is missing or has no meaning."""

    code = "config.invalid"


class InputError(AnyseekError):
    """A file or value from outside cannot be used."""

    code = "input.invalid"


class LimitError(InputError):
    """An input is larger than the configured limits."""

    code = "input.too_large"


class QueryError(AnyseekError):
    """A query asks for something that does not exist or cannot be combined."""

    code = "query.invalid"


class ModelError(AnyseekError):
    """A model cannot be found, loaded or asked this."""

    code = "model.invalid"


class CheckpointError(ModelError):
    """A model's files are missing, damaged or of another shape."""

    code = "model.checkpoint"


class StorageError(AnyseekError):
    """The library on disk cannot do this."""

    code = "storage.failed"


class NotFoundError(StorageError):
    """No such library, collection, item, asset or job."""

    code = "storage.not_found"


class ConflictError(StorageError):
    """It exists already, with other settings."""

    code = "storage.conflict"


class WriterBusyError(StorageError):
    """Another process is writing to the library."""

    code = "storage.writer_busy"


class CorruptError(StorageError):
    """A stored file fails its checksum or cannot be parsed."""

    code = "storage.corrupt"
