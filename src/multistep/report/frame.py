"""The screen of a run that goes on, for whatever size the terminal has, and what is left of it at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from multistep.report.layout import Fit, Flexible, Lines, beside, share
from multistep.report.plainly import doing
from multistep.report.sections import Shown as Shown
from multistep.report.sections import (
    all_notes,
    curve,
    header,
    notes,
    numbers,
    progress,
    rest,
    sentences,
    trials,
    understood,
)

TWO_COLUMNS = 116  # terminal columns, from which on the right part shows what was understood
LEFT_SHARE = 0.56
LEAST_HEIGHT = 12  # lines, below which only the numbers are shown
MOST_SENTENCE = 2  # lines of what is done and why
LESS_SENTENCE = 1  # where the screen is low
LOW = 22  # lines
HINT = "Ctrl-C stops the run and keeps what it has; the same command goes on from there."


def frame(shown: Shown, width: int, height: int, console: Console) -> Lines:
    """At most `height` lines, none of them wider than `width` cells."""
    width = max(1, width)
    fit = Fit(console, width)
    if height < LEAST_HEIGHT:
        return fit.cut([*header(shown, fit), *numbers(shown, fit), *progress(shown, fit), *sentences(shown, fit, 1)])[
            : max(1, height)
        ]
    head = [*header(shown, fit), Text("\N{BOX DRAWINGS LIGHT HORIZONTAL}" * width, style="dim")]
    body = height - len(head)
    foot: Lines = []
    if shown.hint and height >= LOW and shown.history.finished is None:
        foot = fit.cut([Text(HINT, style="dim")])
        body -= 1
    if width < TWO_COLUMNS:
        one = _column(shown, fit, body, [curve, trials, all_notes, rest])
        return [*head, *one, *([Text()] * (body - len(one) if foot else 0)), *foot]
    left = Fit(console, int(width * LEFT_SHARE))
    right = Fit(console, width - left.width - 3)
    one = _column(shown, left, body, [curve, trials])
    other = share([understood(shown, right), notes(shown, right)], body)
    return [*head, *beside(one, other, left.width, body), *foot]


def closing(shown: Shown, width: int, console: Console) -> Lines:
    """What is left on the terminal when the screen is given back: what was understood, tried and said."""
    fit = Fit(console, width)
    history = shown.history
    sections = [understood(shown, fit), trials(shown, fit), notes(shown, fit)]
    now = fit.named("now" if history.finished is None else "end", doing(shown.entry, history))
    return fit.cut([*header(shown, fit), *now, *(line for part in sections if part for line in part.lines(part.most))])


def _column(shown: Shown, fit: Fit, height: int, sections: Sequence[Callable[[Shown, Fit], Flexible | None]]) -> Lines:
    most = MOST_SENTENCE if height >= LOW - 2 else LESS_SENTENCE
    fixed = [*sentences(shown, fit, most), *numbers(shown, fit), *progress(shown, fit)]
    return fit.cut([*fixed, *share([section(shown, fit) for section in sections], height - len(fixed))])[:height]
