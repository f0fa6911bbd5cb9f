"""What `show` and `train` print in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.events import ACCOUNTS
from multistep.core.units import format_seconds
from multistep.engine.rundir import RunDirectory
from multistep.report.summary import answer, clean, number, summary, with_interval

if TYPE_CHECKING:
    from rich.console import Console


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
        left = f", left: {phase['stopped']}" if phase["stopped"] else ""
        _say(console, f"Phase {index}: {phase['name']}, {phase['metric']}{left}", style="bold")
        _say(console, f"{phase['model']}, {phase['parameters']:,} parameters")
        _print_trials(phase["trials"], console)
        for trial in phase["trials"]:
            _print_curve(trial, console)
    console.print()
    _print_budget(record, console)


def print_result(result_record: Mapping[str, Any], folder: Path, samples: Sequence[str], console: Console) -> None:
    """Print what `train` came to: the answer, a sample, and where the model and the report are."""
    print_answer(result_record, console)
    if samples:
        console.print()
        _say(console, "A sample of what it writes:", style="bold")
        _say(console, samples[0])
    console.print()
    _say(console, f"model   {folder / str(result_record['model'])}")
    _say(console, f"report  {folder / 'report.html'}")


def print_answer(record: Mapping[str, Any], console: Console) -> None:
    """Print the score beside the baseline's, and whether the network earns its compute."""
    found = answer(record)
    if found is None:
        last = record.get("latest")
        step = f"; validation sample {number(last['score'])} {record['unit']} at step {last['step']}" if last else ""
        return _say(console, f"Nothing was scored in full yet{step}")
    width = max(len("network"), len(found.baseline_name or ""))
    _say(console, f"{found.split} {found.metric}, {found.unit} ({found.goal}), 95% interval")
    _say(console, f"  {'network':{width}}  {with_interval(found.score)}", style="bold")
    if found.baseline and found.baseline_name:
        _say(console, f"  {found.baseline_name:{width}}  {with_interval(found.baseline)}")
    if found.others:
        _say(console, "  " + ", ".join(f"{name} {number(value)}" for name, value in found.others.items()))
    style = {"beats": "green", "loses": "bold red", "unproven": "yellow", "unknown": ""}[found.standing]
    return _say(console, found.sentence, style=style)


def _say(console: Console, text: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(clean(text), style=style), highlight=False, soft_wrap=True)


def _print_trials(trials: Sequence[Mapping[str, Any]], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("trial", "steps", "time", "rate", "score", "verdict"):
        table.add_column(name, justify="left" if name in ("trial", "verdict") else "right", no_wrap=True)
    table.add_column("why", ratio=1)
    for trial in trials:
        score = number(trial["score"]["score"]) if trial["score"] else ""
        why = trial["why"] or trial["reason"]
        cells = (
            trial["id"], str(trial["steps"]), format_seconds(trial["seconds"]),
            f"{trial['learning_rate']:.3g}", score, trial["verdict"] or "", why,
        )  # fmt: skip
        table.add_row(*(Text(clean(cell)) for cell in cells))
    console.print(table)


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
    looks = record["looks_at_validation"]
    _say(console, f"{record['steps']:,} steps, {record['tokens']:,} tokens, {looks} looks at validation")
