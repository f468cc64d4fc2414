# pyarrow's classes come from compiled code without types: as annotations they are Any, not unknown.
from typing import Any

def __getattr__(name: str) -> Any: ...
