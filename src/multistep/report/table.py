"""What `show` and `train` print in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.values.events import ACCOUNTS
from multistep.core.values.units import format_seconds
from multistep.engine.rundir import RunDirectory
from multistep.report.state import stopped_words
from multistep.report.summary import answer, summary
from multistep.report.words import (
    asked,
    changes,
    clean,
    difference,
    moves_ended_sentence,
    number,
    over_control,
    reused_sentence,
    title,
    weighed_rows,
    with_interval,
)

if TYPE_CHECKING:
    from rich.console import Console

FULL_WIDTH = 100  # columns, from which on a difference and its interval stand in one line
LEAST_WIDTH = 72  # columns, below which the story tells the cost, and the table only what came of it
SHOWN_ROWS, SHOWN_CHARACTERS = 6, 100  # of an exhibit
VERDICT_STYLE = {"leads": "green", "behind": "dim", "failed": "red", None: ""}


def print_run(directory: RunDirectory, console: Console) -> None:
    """Print a run for `multistep show`: the answer, its phases and trials, the curve, the budget."""
    record = summary(directory)
    state = "" if record["state"] == "finished" else f"{record['state']}, "
    _say(console, f"{record['folder']}: {state}{record['where']}", style="bold")
    if record["state"] == "unfinished":
        _say(console, f"Go on with: {record['resume']}")
    print_answer(record, console)
    for index, phase in enumerate(record["phases"], start=1):
        console.print()
        left = f", left: {stopped_words(phase['stopped'])}" if phase["stopped"] else ""
        _say(console, f"Phase {index}: {phase['name']}, {phase['metric']}{left}", style="bold")
        _say(console, f"{phase['model']}, {phase['parameters']:,} parameters")
        if reused := phase["reused"]:
            _say(console, reused_sentence(f"{index}", reused["run"], reused["key"]))
        console.print()
        _print_trials(phase["trials"], console)
        console.print()
        _print_stories(phase["trials"], console)
        if phase["guard"]:
            _say(console, phase["guard"]["sentence"])
        if phase["moves_ended"]:
            _say(console, moves_ended_sentence(phase["moves_ended"]))
        _print_decisions(phase, console)
        for trial in phase["trials"]:
            if trial["kind"] == "trunk" or trial["id"] == record["winner"]:
                _print_curve(trial, console)
    said = record["said"]
    for sentence in (*said["noise"], *said["overfitting"], said["optimism"]):
        if sentence:
            _say(console, sentence)
    console.print()
    _print_budget(record, console)


def print_result(
    result_record: Mapping[str, Any], folder: Path, exhibits: Sequence[Mapping[str, Any]], console: Console
) -> None:
    """Print what `train` came to: the answer, a look at its outputs, and where the model and the report are."""
    print_answer(result_record, console)
    if exhibits:
        console.print()
        if result_record.get("ships") == "baseline":
            _say(console, "Of the network, which does not ship:")
        _print_exhibit(exhibits[0], console)
    console.print()
    _say(console, f"model   {folder / str(result_record['model'])}")
    if result_record.get("ships") == "baseline":
        _say(console, f"network {folder / 'model'}")
    _say(console, f"report  {folder / 'report.html'}")


def _print_exhibit(exhibit: Mapping[str, Any], console: Console) -> None:
    """The first text, or the first rows: the report has the rest."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    _say(console, f"{exhibit['title']}:", style="bold")
    for text in exhibit["texts"][:1]:
        _say(console, text)
    if exhibit["rows"]:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name in exhibit["columns"]:
            table.add_column(clean(name), overflow="fold")
        for row in exhibit["rows"][:SHOWN_ROWS]:
            table.add_row(*(Text(clean(cell)[:SHOWN_CHARACTERS]) for cell in row))
        console.print(table)


def print_answer(record: Mapping[str, Any], console: Console) -> None:
    """Print the score beside the baseline's, and whether the network earns its compute."""
    found = answer(record)
    if found is None:
        last = record.get("latest")
        step = f"; validation sample {number(last['score'])} {record['unit']} at step {last['step']}" if last else ""
        return _say(console, f"Nothing was scored in full yet{step}")
    if because := record.get("ships_because"):
        _say(console, because, style="bold")
    before = "before training"
    width = max(len("network"), len(found.baseline_name or ""), len(before) if found.base else 0)
    _say(console, f"{found.split} {found.metric}, {found.unit} ({found.goal}), 95% interval")
    _say(console, f"  {'network':{width}}  {with_interval(found.score)}", style="bold")
    if found.baseline and found.baseline_name:
        _say(console, f"  {found.baseline_name:{width}}  {with_interval(found.baseline)}")
    if found.base:
        _say(console, f"  {before:{width}}  {with_interval(found.base)}")
    if found.others:
        _say(console, "  " + ", ".join(f"{name} {number(value)}" for name, value in found.others.items()))
    style = {"beats": "green", "loses": "bold red", "unproven": "yellow", "unknown": ""}[found.standing]
    _say(console, found.sentence, style=style)
    if found.trained:
        _say(console, found.trained)
    return _say(console, record["leader"]["sentence"]) if record.get("leader") else None


def _say(console: Console, text: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(clean(text), style=style), highlight=False, soft_wrap=True)


def _print_trials(trials: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The numbers, one line a trial; the story below says the rest."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    names = ["trial", "steps", "time", "score", "better by", "asked", "verdict"]
    filled = {"better by": any(t["improvement"] for t in trials), "asked": any(t["demanded"] for t in trials)}
    dropped = ("steps", "time", "asked") if console.width < LEAST_WIDTH else ()
    names = [name for name in names if filled.get(name, True) and name not in dropped]
    narrow = console.width < FULL_WIDTH
    gap = 0 if narrow else 1  # beside the one that the box draws
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap, 0, 0))
    for name in names:
        left = name in ("trial", "better by", "verdict")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "trial")
    for trial in trials:
        better = difference(trial["improvement"]) if trial["improvement"] else ""
        cells = {
            "trial": trial["id"],
            "steps": str(trial["steps"]),
            "time": format_seconds(trial["seconds"]),
            "score": number(trial["score"]) if trial["score"] is not None else "",
            "better by": better.replace(" [", "\n[") if narrow else better,
            "asked": asked(trial),
            "verdict": trial["verdict"] or "",
        }
        table.add_row(
            *(Text(clean(cells[name]), overflow="fold") for name in names), style=VERDICT_STYLE[trial["verdict"]]
        )
    console.print(table)


def _print_stories(trials: Sequence[Mapping[str, Any]], console: Console) -> None:
    """What each trial tried, from where, what it was held against, and why it was kept or not."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold", max_width=max(10, console.width // 3))
    table.add_column(ratio=1, overflow="fold")
    for trial in trials:
        cost = f"{trial['steps']} steps in {format_seconds(trial['seconds'])}; " if console.width < LEAST_WIDTH else ""
        table.add_row(Text(clean(trial["id"])), Text(clean(cost + story(trial))))
    console.print(table)


def _print_decisions(phase: Mapping[str, Any], console: Console) -> None:
    """Why this, and not that: at each decision the candidates, with the one that was taken marked."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    decisions = [(trial["id"], trial["weighed"]) for trial in phase["trials"] if trial["weighed"]]
    if phase["weighed_last"]:
        decisions.append(("the end", phase["weighed_last"]))
    if not decisions:
        return
    console.print()
    _say(console, "Why this, and not that: what was weighed, in the metric's unit; cost in seconds or steps")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("candidate", "expected gain", "worth", "cost"):
        table.add_column(name, justify="left" if name == "candidate" else "right", no_wrap=name != "candidate")
    for before, weighed in decisions:
        table.add_row(Text(clean(f"before {before}:"), overflow="fold"), "", "", "")
        for name, gain, worth, cost, chosen in weighed_rows(weighed):
            cells = (f"{'  > ' if chosen else '    '}{name}", gain, worth, cost)
            table.add_row(*(Text(clean(cell), overflow="fold") for cell in cells), style="bold" if chosen else "dim")
    console.print(table)


def story(trial: Mapping[str, Any]) -> str:
    """`move dropout-up, round 1: dropout 0 to 0.1; from 0.trunk@480, rate 0.02; why it was tried; leads: why`."""
    what = ": ".join(part for part in (title(trial), changes(trial)) if part)
    where = f"from {trial['start'] or 'the beginning'}, rate {trial['learning_rate']:.3g}"
    parts = [
        what,
        where if trial["kind"] != "average" else "",
        trial["reason"],
        over_control(trial),
    ]
    if trial["verdict"]:
        parts.append(f"{trial['verdict']}: {trial['why']}")
    elif trial["stability"]:
        parts.append(trial["stability"])
    return "; ".join(part for part in parts if part)


def _print_curve(trial: Mapping[str, Any], console: Console) -> None:
    looks = trial["looks"]
    if len(looks) < 2:
        return
    picked = sorted({round(i * (len(looks) - 1) / 5) for i in range(6)})
    listed = ", ".join(f"{looks[i]['step']}: {number(looks[i]['score'])}" for i in picked)
    _say(console, f"{trial['id']}  {listed}")


def _print_budget(record: Mapping[str, Any], console: Console) -> None:
    seconds = record["seconds"]
    total = seconds["total"] or 1.0
    shares = ", ".join(
        f"{name} {format_seconds(seconds[name])} ({seconds[name] / total:.0%})" for name in ACCOUNTS if seconds[name]
    )
    kills = record["kills_survived"]
    survived = f"; resumed {kills} time{'s' if kills > 1 else ''}" if kills else ""
    _say(
        console,
        f"Budget {record['budget'] or 'none'}, spent {format_seconds(seconds['total'])}: {shares}{survived}",
    )
    _say(console, record["said"]["end"])
    looks = record["looks_at_validation"]
    _say(console, f"{record['steps']:,} steps, {record['tokens']:,} tokens, {looks} looks at validation")
