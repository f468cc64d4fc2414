"""Text in pictures: one size of Pillow's own typeface, measured, wrapped and cut.

The typeface has Latin letters only; others show as empty boxes.
"""

from bisect import bisect_right

from PIL import ImageFont

PAPER, INK, FAINT, TILE = (255, 255, 255), (28, 28, 30), (112, 114, 118), (239, 241, 243)
"""Colours of page, text, secondary text, and places without a picture."""

_MAX_CHARS = 400  # of one line; no line of a picture is that long


class Lettering:
    """Text at one size.

    Args:
        size: in pixels.

    Attributes:
        font: to draw with.
        line: height of a line in pixels.
    """

    def __init__(self, size: int) -> None:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont), "Pillow is built without FreeType"
        self.font = font
        self.line = round(size * 1.3)

    def cut(self, text: str, width: float) -> str:
        """The text on one line of `width` pixels, `...` in place of what does not fit."""
        text = " ".join(printable(text[: 4 * _MAX_CHARS]).split())
        if self._num_fitting(text, width) >= len(text):
            return text
        return text[: self._num_fitting(text, width - self.font.getlength("..."))].rstrip() + "..."

    def cut_start(self, text: str, width: float) -> str:
        """The same for what tells more by its end than by its start, as ids: `...harbour/0012`."""
        text = " ".join(printable(text[-4 * _MAX_CHARS :]).split())
        turned = text[::-1]
        if self._num_fitting(turned, width) >= len(text):
            return text
        keep = self._num_fitting(turned, width - self.font.getlength("..."))
        return "..." + text[len(text) - keep :]

    def wrap(self, text: str, width: float, max_lines: int) -> list[str]:
        """At most `max_lines` lines of `width` pixels, cut between words where that is possible."""
        lines: list[str] = []
        for paragraph in text[: max_lines * _MAX_CHARS].splitlines():
            rest = " ".join(printable(paragraph).split())
            while (end := self._num_fitting(rest, width)) < len(rest) and len(lines) < max_lines:
                space = rest.rfind(" ", 1, end + 1)
                place = space if space > 0 else max(1, end)
                lines.append(rest[:place])
                rest = rest[place:].lstrip()
            lines.append(rest)
        if len(lines) > max_lines:
            lines = [*lines[: max_lines - 1], self.cut(lines[max_lines - 1] + " ...", width)]
        return lines

    def _num_fitting(self, text: str, width: float) -> int:
        lengths = range(1, min(len(text), _MAX_CHARS) + 1)
        return bisect_right(lengths, width, key=lambda n: self.font.getlength(text[:n]))


def printable(text: str) -> str:
    """The text with a blank for each control character and `?` for each lone surrogate."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(char if char.isprintable() else " " for char in text)
