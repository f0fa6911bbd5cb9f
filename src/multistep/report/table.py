"""What `show` and `train` print in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.evidence.function_metric import metric_known_as
from multistep.core.evidence.metric import METRICS, Interval, Metric
from multistep.core.evidence.scores import Form, between, form_of, full_score, metric_words, score_words, unit_words
from multistep.core.values.events import ACCOUNTS
from multistep.core.values.units import format_seconds
from multistep.engine.cleaning import what_is_left
from multistep.engine.rundir import RunDirectory
from multistep.report.dry import named_lines
from multistep.report.lanes import lane_words, stretch_words
from multistep.report.outcome import USED, answer
from multistep.report.state import stopped_words
from multistep.report.summary import summary
from multistep.report.words import (
    asked,
    below_one_folder,
    better_still,
    changes,
    clean,
    cost_unit,
    difference,
    is_as_it_is,
    moves_ended_sentence,
    over_control,
    reused_sentence,
    sentence,
    shortened,
    title,
    weighed_rows,
)

if TYPE_CHECKING:
    from rich.console import Console

FULL_WIDTH = 100  # columns, from which on a difference and its interval stand in one line
LEAST_WIDTH = 72  # columns, below which the story tells the cost, and the table only what came of it
LEAST_ROOM = 20  # columns, below which what hangs below its beginning would be a thread
TERMS = (
    "What was tried. The trunk trains at a constant learning rate; other trials start from its checkpoints (NAME@STEP) "
    "and end with a cooldown, in which the learning rate goes to zero. The trunk with its own cooldown, and nothing "
    "changed, is the plain run. Trials are scored on all of validation: 'better by' is the gain over the plain run as "
    "it stood when the trial was judged, or over the model before training; which one, its line below says (95% "
    "interval in brackets). 'to prove' is the gain that would have proved it. 'expected' is the gain over the plain "
    "run's best end given all that was measured in the end, the loss and what was forecast too: the highest is chosen."
)
SHOWN_ROWS, SHOWN_CHARACTERS = 6, 100  # of an exhibit
VERDICT_WORDS = {"leads": "it led when it was judged", "behind": "it did not lead", "failed": "it failed"}
CHOSEN_WORDS = {
    "leads": "it led when it was judged, and was chosen",
    "behind": "it did not lead when it was judged, and was chosen when all were weighed anew",
}
CURVE_WORDS = {
    "improving": "it was still improving at its end",
    "stable": "it no longer improved",
    "overfitting": "it overfitted",
    "diverged": "it diverged",
    "undecided": "its curve shows no clear trend",
}
SO_FAR_WORDS = {
    "improving": "it is still improving",
    "stable": "it no longer improves",
    "overfitting": "it overfits",
    "diverged": "it diverged",
    "undecided": "its curve shows no clear trend so far",
}
VERDICT_STYLE = {"chosen": "bold green", "leads": "green", "behind": "dim", "failed": "red", None: ""}


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
        left = f"; ended: {stopped_words(phase['stopped'])}" if phase["stopped"] else ""
        title = f"Phase {index}, {phase['name']}: judged by {metric_words(phase['metric'])}{left}"
        _say(console, title, style="bold")
        if phase["understood"]:
            console.print(named_lines([*phase["understood"], *_notes(phase)], console))
        else:
            _say(console, f"{phase['model']}, {phase['parameters']:,} parameters")
        if reused := phase["reused"]:
            _say(console, reused_sentence(f"{index}", reused["run"], reused["key"]))
        console.print()
        console.print(TERMS, style="dim", markup=False, highlight=False)
        metric = metric_known_as(phase["metric"], record["goal"], record["unit"])
        _print_trials(phase["trials"], metric, console, record)
        console.print()
        _print_stories(phase["trials"], metric, console, record)
        if phase["guard"]:
            _say(console, phase["guard"]["sentence"])
        if phase["moves_ended"]:
            _say(console, moves_ended_sentence(phase["moves_ended"]))
        _print_decisions(phase, metric, console, cost_unit(record))
        for trial in phase["trials"]:
            if trial["kind"] == "trunk" or trial["id"] == record["winner"]:
                _print_curve(trial, metric, console)
    said = record["said"]
    for about in (*said["noise"], *said["overfitting"], said["optimism"]):
        if about:
            _say(console, about)
    console.print()
    _print_budget(record, console)


def _notes(phase: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The notes that are no part of what was understood."""
    return [("note", note) for note in phase["other_notes"]]


def print_result(
    result_record: Mapping[str, Any], folder: Path, exhibits: Sequence[Mapping[str, Any]], console: Console
) -> None:
    """Print what `train` came to: a look at its outputs, the answer, and where the model and the report are.

    The answer comes behind the outputs, which may be long: on a low screen the end is what stays in sight.
    """
    if exhibits:
        if result_record.get("ships") == "baseline":
            _say(console, "What the network gives, which does not ship:")
        _print_exhibit(exhibits[0], console)
        console.print()
    print_answer(result_record, console)
    console.print()
    console.print(named_lines(_places(result_record, folder), console))
    if left := result_record.get("checkpoints"):
        _say(console, what_is_left(left))


def _places(record: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    """Where everything is, and what to do with it next."""
    found = [("model", str(folder / str(record["model"])))]
    if record.get("ships") == "baseline":
        found.append(("network", str(folder / "model")))
    found += [("report", str(folder / "report.html")), ("more", f"multistep show {folder}")]
    return found


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
        shown = exhibit["rows"][:SHOWN_ROWS]
        columns = [below_one_folder([str(cell) for cell in column])[1] for column in zip(*shown, strict=True)]
        for row in zip(*columns, strict=True):
            table.add_row(*(Text(shortened(clean(cell), SHOWN_CHARACTERS)) for cell in row))
        console.print(table)


def print_answer(record: Mapping[str, Any], console: Console) -> None:
    """Print the score beside the baseline's, and whether the network earns its compute."""
    found = answer(record)
    if found is None:
        last, name = record.get("latest"), record.get("metric")
        if not last or not name:
            return _say(console, "Nothing was scored yet.")
        metric = metric_known_as(str(name), record.get("goal"), record.get("unit"))
        seen = full_score(metric, float(last["score"]))
        said = f"No model was scored on all of validation yet; on a sample of it, {seen} at step {last['step']:,}."
        return _say(console, said)
    if because := record.get("ships_because"):
        _say(console, because, style="bold")
    metric = metric_known_as(found.metric, found.goal, found.unit)
    unit = f" in {unit_words(metric)}" if "nats" in metric.unit else ""
    side = "lower is better" if found.goal == "minimize" else "higher is better"
    name = metric_words(found.metric)
    _say(console, f"{name[:1].upper()}{name[1:]}{unit} on the {found.split} split ({side}; 95% interval in brackets):")
    _say(console, f"  network          {_scored(metric, found.score)}", style="bold")
    used = (f"  {found.used.name:<15}  {_scored(metric, found.used.score)}  ", USED) if found.used else ("", "")
    if found.used and found.used.of == "network":
        _say(console, *used, style="bold")
    if found.baseline and found.baseline_name:
        _say(console, f"  baseline         {_scored(metric, found.baseline)}  ", found.baseline_name)
    if found.used and found.used.of == "baseline":
        _say(console, *used)
    if found.base:
        _say(console, f"  before training  {_scored(metric, found.base)}")
    if found.others:
        known = {name: metric_known_as(name, None, None) for name in found.others if name in METRICS}
        others = (f"{metric_words(name)} {score_words(known[name], found.others[name])}" for name in known)
        _say(console, "  also: ", ", ".join(others))
    style = {"beats": "green", "loses": "bold red", "unproven": "yellow", "unknown": ""}[found.standing]
    _say(console, found.sentence, style=style)
    if found.trained:
        _say(console, found.trained)
    if calibration := record.get("calibration"):
        _say(console, calibration["sentence"])
    return _say(console, record["leader"]["sentence"]) if record.get("leader") else None


def _scored(metric: Metric, score: Interval) -> str:
    """`79.2%  (77.9 to 84.6%)`, in columns."""
    about = between(metric, score) or "interval not known"
    return f"{score_words(metric, score.score):>7}  {f'({about})':17}".rstrip()


def _say(console: Console, text: str, more: str = "", style: str = "") -> None:
    """A sentence: wrapped between words on a terminal, `more` below where it begins; one line where others read it."""
    from rich.text import Text

    room = console.width - len(text)
    if not more or not console.is_terminal or room < LEAST_ROOM:
        return console.print(Text(clean(text + more), style=style), highlight=False, soft_wrap=not console.is_terminal)
    for number, part in enumerate(Text(clean(more)).wrap(console, room)):
        part.rstrip()
        console.print(Text(text if not number else " " * len(text), style=style).append_text(part), highlight=False)
    return None


def _print_trials(
    trials: Sequence[Mapping[str, Any]], metric: Metric, console: Console, record: Mapping[str, Any]
) -> None:
    """The numbers, one line a trial; the story below says the rest."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    names = ["trial", "steps", "time", "score", "better by", "to prove", "expected", "verdict"]
    gains = (record["leader"] or {}).get("gains") or {}
    filled = {
        "better by": any(t["improvement"] for t in trials),
        "to prove": any(t["demanded"] for t in trials),
        "expected": any(t["id"] in gains for t in trials),
    }
    dropped = ("steps", "time", "to prove") if console.width < LEAST_WIDTH else ()
    names = [name for name in names if filled.get(name, True) and name not in dropped]
    narrow = console.width < FULL_WIDTH
    form = form_of(metric)
    gap = 0 if narrow else 1  # beside the one that the box draws
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap, 0, 0))
    for name in names:
        left = name in ("trial", "better by", "verdict")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "trial")
    for trial in trials:
        better = difference(trial["improvement"], form) if trial["improvement"] else ""
        verdict = "chosen" if trial["id"] == record["winner"] and record["stopped"] else trial["verdict"]
        cells = {
            "trial": trial["id"],
            "steps": str(trial["steps"]),
            "time": format_seconds(trial["seconds"]),
            "score": score_words(metric, trial["score"]) if trial["score"] is not None else "",
            "better by": better.replace(" (", "\n(") if narrow else better,
            "to prove": asked(trial, form),
            "expected": form.gap(gains[trial["id"]]) if trial["id"] in gains else "",
            "verdict": verdict or "",
        }
        if narrow:
            cells |= {name: cells[name].removesuffix(" points") for name in ("to prove", "expected")}
        table.add_row(*(Text(clean(cells[name]), overflow="fold") for name in names), style=VERDICT_STYLE[verdict])
    console.print(table)


def _print_stories(
    trials: Sequence[Mapping[str, Any]], metric: Metric, console: Console, record: Mapping[str, Any]
) -> None:
    """What each trial tried, from where, what it was held against, and why it was kept or not."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold", max_width=max(10, console.width // 3))
    table.add_column(ratio=1, overflow="fold")
    for trial in trials:
        cost = f"{trial['steps']} steps in {format_seconds(trial['seconds'])}; " if console.width < LEAST_WIDTH else ""
        chosen = bool(trial["id"] == record["winner"] and record["stopped"])
        told = story(trial, form_of(metric), chosen=chosen)
        table.add_row(Text(clean(trial["id"])), Text(clean(cost + told)))
    console.print(table)


def _print_decisions(phase: Mapping[str, Any], metric: Metric, console: Console, unit: str) -> None:
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
    said = (
        "Why this and not that: by how much each candidate was expected to improve the score, with its standard "
        "deviation; what it is worth to try it, if it is kept only where it turned out better; and its cost. What was "
        "taken (>) makes the rest of the budget worth most."
    )
    _say(console, said)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    form = form_of(metric)
    for name in ("candidate", f"expected gain{', ' if form.unit else ''}{form.unit}", "worth", "cost"):
        table.add_column(name, justify="left" if name == "candidate" else "right", no_wrap=name != "candidate")
    for before, weighed in decisions:
        table.add_row(Text(clean(f"before {before}:"), overflow="fold"), "", "", "")
        for name, gain, worth, cost, chosen in weighed_rows(weighed, form, unit):
            cells = (f"{'  > ' if chosen else '    '}{name}", gain, worth, cost)
            table.add_row(*(Text(clean(cell), overflow="fold") for cell in cells), style="bold" if chosen else "dim")
    console.print(table)


def story(trial: Mapping[str, Any], form: Form, *, chosen: bool = False) -> str:
    """`Move dropout-up, round 1: dropout 0 to 0.1, from 0.trunk@480 at a learning rate of 0.02.`, why, and what came of
    it.
    """
    what = ": ".join(part for part in (title(trial), changes(trial)) if part)
    if is_as_it_is(trial):
        what += f", from {trial['start'] or 'the beginning'}"
    elif trial["kind"] not in ("average", "base"):
        what += f", from {trial['start'] or 'the beginning'} at a learning rate of {trial['learning_rate']:.3g}"
    parts = [what, trial["reason"], over_control(trial, form)]
    if trial["verdict"]:
        words = {**VERDICT_WORDS, **(CHOSEN_WORDS if chosen else {})}[trial["verdict"]]
        ahead = (trial["expected"] or {}).get("gain") or 0.0
        forgets = (trial.get("guard") or {}).get("forgets")
        if trial["verdict"] == "behind" and ahead > 0 and better_still(trial) and not forgets:
            words += f", for {trial['leader']} was better still"
        parts.append(f"{words}: {trial['why']}")
    elif trial["stability"]:
        parts.append((CURVE_WORDS if trial["ended"] else SO_FAR_WORDS)[trial["stability"]])
        if trial["stability_by_loss"] == "overfitting" != trial["stability"]:
            parts[-1] += ", but it overfit" + ("ted" if trial["ended"] else "s") + " by its loss"
    return " ".join(sentence(part) for part in parts if part)


def _print_curve(trial: Mapping[str, Any], metric: Metric, console: Console) -> None:
    looks = trial["looks"]
    if len(looks) < 2:
        return
    picked = sorted({round(i * (len(looks) - 1) / 5) for i in range(6)})
    listed = ", ".join(f"{score_words(metric, looks[i]['score'])} at step {looks[i]['step']:,}" for i in picked)
    _say(console, f"{trial['id']}, on a sample of validation: {listed}")


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
    told = record["counted"] and record["tokens"] != record["examples"]
    seen = f"{record['examples']:,} examples" + (f" ({record['tokens']:,} {record['counted']})" if told else "")
    _say(console, f"{record['steps']:,} steps read {seen}; validation was scored {looks} times")
    for lane in record["lanes"]:
        _say(console, f"{lane_words(lane)}: {', '.join(map(stretch_words, lane['trials'])) or 'no trial'}")
    if lost := record["lanes_lost"]:
        _say(console, f"{lost} process{'es' if lost > 1 else ''} of lanes ended early and were replaced")
