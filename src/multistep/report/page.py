"""report.html: one file that says what a run came to and how, readable offline, light or dark, wide or narrow."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.evidence.metric import METRICS, Interval
from multistep.core.evidence.scores import Form, counted_word, form_of, goal_word, metric_words, rank, width_of
from multistep.core.values.events import ACCOUNTS, Entry, ReplayDiffered
from multistep.core.values.history import History, fold
from multistep.core.values.judging import metric_of
from multistep.core.values.units import format_seconds
from multistep.engine.journal import read_entries
from multistep.engine.plain import to_json
from multistep.engine.rundir import RunDirectory, write_atomically
from multistep.engine.shipping import BASELINE_USAGE
from multistep.errors import RunDirectoryError
from multistep.report.answers import questions
from multistep.report.charts import MANY, charts_of
from multistep.report.drawing import chart_html, data_of
from multistep.report.lanes import drawn as drawn_lanes
from multistep.report.outcome import Answer, answer
from multistep.report.plot import AXIS_NAMES, Scale
from multistep.report.state import stopped_words
from multistep.report.summary import describe
from multistep.report.tracks import tracks_of
from multistep.report.tree import tree_of, weighed_lines
from multistep.report.words import changes, clean, cost_unit, moves_ended_sentence, reused_sentence, title

if TYPE_CHECKING:
    from jinja2 import Environment

ACCOUNT_WORDS = {
    "train": "training",
    "evaluate": "measuring (looks at validation, the baseline, test)",
    "save": "saving checkpoints",
    "compile": "compiling",
    "other": "the rest: reading data, starting up, deciding",
}
EXPLAINED = {
    "gap": "A gap that grows while validation gets worse is overfitting. The training loss is the mean of the window "
    "before each look, taken while the weights moved, so the gap may start below zero; it is taken with the recipe's "
    "dropout, smoothing and augmentation at work, so part of a smaller gap is theirs.",
}


def write_page(directory: RunDirectory) -> Path:
    """Render report.html of a run, finished or not, and return its path."""
    from markupsafe import Markup

    entries = list(read_entries(directory.require().journal))
    history = fold(entries)
    record = describe(directory, entries)
    found = answer(record)
    tracks = tracks_of(entries, history)
    names = {trial["id"]: title(trial) for phase in record["phases"] for trial in phase["trials"]}
    charts, scale = charts_of(history, tracks, names), Scale(tracks.end)
    forms = [_form(history, index) for index in range(len(history.phases))]
    form = forms[-1] if forms else Form()
    way = [stretch.track.id for stretch in tracks.way]
    # The charts are our own drawings: their texts were escaped when drawn.
    drawn = [(c.title, Markup(chart_html(c, scale)), EXPLAINED.get(c.id.split("-")[0], "")) for c in charts]
    page = environment().get_template("report.html.j2").render(
        run=record,
        task=str(record["task"] or "A run").replace("-", " "),
        found=found,
        form=form,
        forms=forms,
        metric_title=metric_words(str(record["metric"])),
        goal=goal_word(record["goal"]),
        counted=counted_word(record["unit"]),
        strip=_strip(found) if found else [],
        others=_others(record, found) if found else [],
        questions=questions(record, found, form),
        charts=drawn,
        drawn_trials=MANY if len(names) > MANY else None,
        curves=Markup(data_of(charts, scale, names)) if charts else "",
        trees=[
            tree_of(phase["trials"], record["leader"], way, form)
            for phase, form in zip(record["phases"], forms, strict=True)
        ],
        cost_unit=cost_unit(record),
        budget=_budget(record),
        lanes=drawn_lanes(record["lanes"], names),
        notes=_notes(record, entries),
        understood=understood_of(directory, record),
        exhibits=exhibits_of(directory),
        load=_load_lines(directory, record),
        resolved=_resolved(directory),
        times=[entry.at for entry in (entries[:1] + entries[-1:]) if entry.at],
    )  # fmt: skip
    write_atomically(directory.report, page + "\n")
    return directory.report


def environment() -> Environment:
    """The templates, with what all pages have in common."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    found = Environment(
        loader=PackageLoader("multistep.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    found.filters.update(
        changes=changes,
        seconds=format_seconds,
        moves_ended=moves_ended_sentence,
        stopped=stopped_words,
        first_up=lambda text: text[:1].upper() + text[1:],  # Jinja's capitalize lowers the rest
        weighed=weighed_lines,
        reused=lambda phase: reused_sentence(phase["name"], **phase["reused"]),
    )
    script = part("report.js")
    found.globals.update(
        style=Markup(part("report.css")),  # ours, as the script is
        script=Markup(script),
        # The page runs this script and no other, whatever stands in the texts of others.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        axis_names=AXIS_NAMES,
    )
    return found


@cache
def part(name: str) -> str:
    """The page's style or script, without what only its authors need."""
    text = files("multistep.report").joinpath("templates", name).read_text(encoding="utf-8")
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _form(history: History, index: int) -> Form:
    phase = history.phases[index]
    metric = metric_of(phase.started)
    scored = [t.full.interval for t in phase.trials.values() if t.full]
    return form_of(metric, width_of(scored[-1]) if scored else None)


def _strip(found: Answer) -> list[dict[str, Any]]:
    """The network, the model before training and the baseline on one scale; positions in percent of its width."""
    rows = [
        ("this network", "network", found.score),
        ("the model before training", "isbase", found.base),
        (f"baseline: {found.baseline_name}", "isbaseline", found.baseline),
    ]
    if found.used:
        place, look = (1, "network") if found.used.of == "network" else (3, "isbaseline")
        rows.insert(
            place, (f"the {found.used.of}'s labels {found.used.name}, as predict says them", look, found.used.score)
        )
    kept = [(name, look, score) for name, look, score in rows if score is not None]
    finite = [v for *_, score in kept for v in (score.low, score.score, score.high) if math.isfinite(v)]
    if not finite:
        return []
    low, high = min(finite), max(finite)
    room = 0.06 * (high - low) or 1.0
    low, high = low - room, high + room

    def at(value: float, score: Interval) -> float:
        value = value if math.isfinite(value) else score.score
        return round(100 * (value - low) / (high - low), 1) if math.isfinite(value) else 0.0

    return [
        {
            "name": name, "look": look, "score": score, "at": at(score.score, score), "left": at(score.low, score),
            "width": round(at(score.high, score) - at(score.low, score), 1),
        }
        for name, look, score in kept
    ]  # fmt: skip


def _others(record: Mapping[str, Any], found: Answer) -> list[tuple[str, str, str]]:
    """The task's other metrics, the most asked for first: title, score, the baseline's."""
    theirs = ((record["baseline"] or {}).get(found.split) or {}).get("scores", {}) if found.baseline else {}
    rows = []
    for name in sorted(found.others, key=rank):
        form = form_of(METRICS[name]) if name in METRICS else Form(name)
        rival = form.of(float(theirs[name])) if name in theirs else ""
        rows.append((metric_words(name), form.of(found.others[name]), rival))
    return rows


def _budget(record: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """Account, its words, seconds and share in percent of what was spent, for the accounts that were charged."""
    seconds = record["seconds"]
    total = seconds["total"] or 1.0
    return [(n, ACCOUNT_WORDS[n], seconds[n], 100 * seconds[n] / total) for n in ACCOUNTS if seconds[n]]


def _notes(record: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    """What the learner said of its data, once each, and windows that were not repeated exactly."""
    # Where a phase tells what it understood, that says most of its notes already.
    told = [
        phase.get("other_notes", phase["notes"]) if phase.get("understood") else phase["notes"]
        for phase in record["phases"]
    ]
    notes = dict.fromkeys(note for phase in told for note in phase)
    for entry in entries:
        if isinstance(event := entry.event, ReplayDiffered):
            notes[
                f"{event.trial}: steps that were repeated after a kill gave the loss {event.repeated:.6g} instead "
                f"of {event.loss:.6g}; this machine does not repeat its arithmetic exactly"
            ] = None
    return list(notes)


def understood_of(directory: RunDirectory, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the run took its data and its plan to mean, as lines of name, value and detail.

    Each phase may tell its own; a run that tells it once has it in resolved.json or beside its exhibits.
    """
    told = [(phase["name"], pair) for phase in record["phases"] for pair in phase.get("understood", ())]
    several = len(record["phases"]) > 1
    found = [{"name": f"{at}: {name}" if several else name, "value": value, "detail": ""} for at, (name, value) in told]
    lines = found or (_resolved(directory).get("understood"))
    if not isinstance(lines, list):
        return []
    return [{"detail": "", **line} for line in lines if isinstance(line, dict) and {"name", "value"} <= line.keys()]


def exhibits_of(directory: RunDirectory) -> list[dict[str, Any]]:
    """What the winner's outputs look like, with each count's share of the largest where a table is shaded."""
    if not directory.exhibits.exists():
        return []
    found: list[dict[str, Any]] = json.loads(directory.exhibits.read_text(encoding="utf-8"))
    for exhibit in found:
        cells = [cell for row in exhibit["rows"] for cell in row[1:]] if exhibit["shaded"] else []
        largest = max((int(cell) for cell in cells), default=0) or 1
        exhibit["shades"] = [[round(int(cell) / largest, 3) for cell in row[1:]] for row in exhibit["rows"] if cells]
    return found


def _load_lines(directory: RunDirectory, record: Mapping[str, Any]) -> str:
    usage = str(record["phases"][-1]["usage"]) if record["phases"] else ""
    usage = BASELINE_USAGE if record["ships"] == "baseline" else usage
    return usage.replace("{model}", repr(str(Path(record["model"]).resolve()))) if record["model"] else ""


def _resolved(directory: RunDirectory) -> dict[str, Any]:
    """The resolved plan as text and the versions as pairs; empty where the run died before, or they are damaged."""
    try:
        content = directory.read_resolved()
    except (FileNotFoundError, RunDirectoryError):
        return {}
    return {
        "text": to_json(content, indent=2),
        "versions": content.get("versions", {}),
        "understood": content.get("understood"),
    }
