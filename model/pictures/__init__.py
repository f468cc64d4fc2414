"""Values of every modality as pictures for people."""

from .draw import draw_value
from .lettering import Lettering
from .overview import draw_overview

__all__ = ["Lettering", "draw_overview", "draw_value"]
