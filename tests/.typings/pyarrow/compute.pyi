# Its functions are made at run time from those of the compiled library.
from typing import Any

def __getattr__(name: str) -> Any: ...
