"""What `train --dry-run` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from multistep.core.evidence.scores import metric_words, rate_words
from multistep.core.values.plan import Plan
from multistep.core.values.units import format_seconds
from multistep.engine.dry import DryPhase, Pace
from multistep.report.words import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

NAME_WIDTH = 10  # of `duplicates`
LEAST_HANGING = 50  # columns, below which names stand above what they name


def print_dry_run(plan: Plan, phases: Sequence[DryPhase], console: Console) -> None:
    """What was understood of each phase, what its budget would hold, and that nothing was trained."""
    print_phases(plan, phases, console)
    said = "This was a dry run: nothing was trained and no folder was made. Leave out --dry-run to train."
    console.print(said, markup=False, highlight=False)


def print_phases(plan: Plan, phases: Sequence[DryPhase], console: Console) -> None:
    """What was understood of each phase, and what its budget would hold."""
    for phase in phases:
        if len(phases) > 1:
            console.print(f"Phase {phase.name}", style="bold", markup=False, highlight=False)
        understood, pace = phase.understood, phase.pace
        if pace and pace.steps is not None:
            understood = replace(understood, expected="")  # steps that were timed tell it better
        rows = [("task", f"{phase.task}, judged by {metric_words(phase.metric)}"), *understood.lines()]
        if pace:
            rows.append(("expected", pace_words(plan, pace)))
        console.print(named_lines(rows, console))
        console.print(named_lines([("note", note) for note in phase.understood.notes], console))


def pace_words(plan: Plan, pace: Pace) -> str:
    """What the budget holds, by steps that were timed."""
    rate = rate_words(pace.examples_per_second)
    speed = f"{rate} examples a second, {format_seconds(pace.step_seconds)} a step"
    if pace.steps is None or pace.epochs is None:
        return f"{speed}, by steps that were timed"
    if pace.steps < 1:
        return (
            f"{plan.budget} is too short for a step of {format_seconds(pace.step_seconds)} and the scoring at the end"
        )
    held = f"about {pace.steps:,} steps, {rate_words(pace.epochs)} epochs, beside scoring"
    return f"{held}, by steps that were timed: {speed}"


def named_lines(rows: Iterable[tuple[str, str]], console: Console) -> RenderableType:
    """A name and a sentence a row, the sentence in a column of its own; no line is longer than the console is wide."""
    from rich.console import Group
    from rich.text import Text

    indent = NAME_WIDTH + 2 if console.width >= LEAST_HANGING else 0
    lines = []
    for name, said in rows:
        text = Text(clean(said) if indent else f"{name}: {clean(said)}")
        for number, line in enumerate(text.wrap(console, max(1, console.width - indent))):
            line.rstrip()
            before = name if number == 0 and indent else ""
            lines.append(Text(f"{before:{indent}}", style="dim").append_text(line) if indent else line)
    return Group(*lines)
