"""Values of every modality as pictures for people."""

from .draw import draw_value
from .overview import draw_overview

__all__ = ["draw_overview", "draw_value"]
