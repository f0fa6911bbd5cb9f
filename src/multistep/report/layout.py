"""Lines of a fixed width, and sections of them that share the height of a screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from multistep.report.words import clean

NAME = 13  # columns for names at the left
Lines = list[Text]


@dataclass(frozen=True)
class Flexible:
    """A section that can do with `least` lines and is whole with `most`; `lines(n)` gives at most n of them.

    `good` is what it should have before others have more; a `late` one comes after all others have that.
    """

    least: int
    most: int
    good: int
    lines: Callable[[int], Lines]
    late: bool = False


class Fit:
    """Makes lines of a width."""

    def __init__(self, console: Console, width: int) -> None:
        self.console, self.width = console, max(1, width)

    def cut(self, lines: Iterable[Text]) -> Lines:
        found = []
        for line in lines:
            line.truncate(self.width, overflow="ellipsis")
            found.append(line)
        return found

    def wrapped(self, text: str, style: str = "", most: int = 99, indent: int = 0) -> Lines:
        """The text in lines; of more than `most` the last one tells by an ellipsis that there is more."""
        room = max(1, self.width - indent)
        lines = list(Text(clean(text).replace("\n", " ")).wrap(self.console, room))
        if len(lines) > most:
            last = Text(f"{lines[most - 1].plain.rstrip()}")
            last.truncate(room - 1)
            lines = [*lines[: most - 1], last.append("\N{HORIZONTAL ELLIPSIS}")]
        for line in lines:
            line.rstrip()
            line.stylize(style)
        return [Text(" " * indent).append_text(line) for line in lines]

    def item(self, text: str) -> Lines:
        """A text behind a dash, its other lines below its first word."""
        lines = self.wrapped(text, most=5, indent=2 if self.width > 20 else 0)
        lines[0] = Text("- ").append_text(lines[0][2:]) if self.width > 20 else lines[0]
        return lines

    def named(self, name: str, text: str, most: int = 99, style: str = "") -> Lines:
        """A name at the left and its text, wrapped, beside it; above it where there is no room."""
        if self.width < 3 * NAME:
            return self.wrapped(f"{name}: {text}", style, most)
        lines = self.wrapped(text, style, most, NAME)
        lines[0] = Text(f"{name:{NAME}}", style="dim").append_text(lines[0][NAME:])
        return lines

    def heading(self, text: str) -> Text:
        line = f"{text} "
        return Text(line, style="bold").append(
            "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * max(0, self.width - len(line)), style="dim"
        )


def share(sections: Sequence[Flexible | None], height: int) -> Lines:
    """Give each section what it needs at least, in their order, then what serves it well, then all that it can have."""
    known = [section for section in sections if section is not None]
    given = [0] * len(known)
    left = height
    for early in (True, False):
        for k, section in enumerate(known):
            if section.late is not early and section.least <= left:
                given[k] = section.least
                left -= section.least
        left = _grow(given, [min(section.good, section.most) for section in known], left)
    _grow(given, [section.most for section in known], left)
    return [line for section, lines in zip(known, given, strict=True) if lines for line in section.lines(lines)]


def _grow(given: list[int], wanted: Sequence[int], left: int) -> int:
    """Hand out lines one at a time to whoever has some and wants more; returns how many are left."""
    growing = True
    while left > 0 and growing:
        growing = False
        for k, most in enumerate(wanted):
            if left > 0 and 0 < given[k] < most:
                given[k] += 1
                left -= 1
                growing = True
    return left


def beside(one: Lines, other: Lines, width: int, height: int) -> Lines:
    found = []
    for k in range(height):
        line = one[k] if k < len(one) else Text()
        line.pad_right(width - cell_len(line.plain))
        found.append(line.append(" \N{BOX DRAWINGS LIGHT VERTICAL} ", style="dim"))
        if k < len(other):
            found[-1].append_text(other[k])
    return found
