"""Transfer of a 4M encoder to tasks with data of their own (arXiv 2406.09406, section 4)."""

from .config import TransferConfig, read_config
from .running import TransferRun
from .using import Transferred, open_transfer

__all__ = ["TransferConfig", "TransferRun", "Transferred", "open_transfer", "read_config"]
