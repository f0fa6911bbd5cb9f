"""report.html: one file that says what a run came to and how, readable offline, light or dark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multistep.core.values.events import ACCOUNTS, Entry, ReplayDiffered
from multistep.core.values.history import fold
from multistep.core.values.units import format_seconds
from multistep.engine.journal import read_entries
from multistep.engine.plain import to_json
from multistep.engine.rundir import RunDirectory, write_atomically
from multistep.engine.shipping import BASELINE_USAGE
from multistep.report.charts import gap_chart, loss_chart, rate_chart
from multistep.report.forest import attempts_chart
from multistep.report.state import stopped_words
from multistep.report.summary import answer, describe
from multistep.report.words import (
    asked,
    changes,
    clean,
    moves_ended_sentence,
    number,
    reused_sentence,
    signed,
    title,
    weighed_rows,
    with_interval,
)


def write_page(directory: RunDirectory) -> Path:
    """Render report.html of a run, finished or not, and return its path."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    entries = list(read_entries(directory.require().journal))
    history = fold(entries)
    record = describe(directory, entries)
    environment = Environment(
        loader=PackageLoader("multistep.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters.update(
        number=number,
        signed=signed,
        seconds=format_seconds,
        title=title,
        changes=changes,
        asked=asked,
        moves_ended=moves_ended_sentence,
        stopped=stopped_words,
        first_up=lambda text: text[:1].upper() + text[1:],  # Jinja's capitalize lowers the rest
        weighed=weighed_rows,
        reused=lambda phase: reused_sentence(phase["name"], **phase["reused"]),
    )
    page = environment.get_template(
        "report.html.j2"
    ).render(
        run=record,
        found=answer(record),
        with_interval=with_interval,
        loss=Markup(loss_chart(history)),  # our own drawings: their texts were escaped when drawn
        rate=Markup(rate_chart(history)),
        gap=Markup(gap_chart(history)),
        attempts=Markup(attempts_chart(history)),
        budget=_budget(record),
        notes=_notes(record, entries),
        exhibits=exhibits_of(directory),
        load=_load_lines(directory, record),
        resolved=_resolved(directory),
        times=[entry.at for entry in (entries[:1] + entries[-1:]) if entry.at],
    )
    write_atomically(directory.report, page + "\n")
    return directory.report


def _budget(record: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Account, seconds and share in percent of what was spent, for the accounts that were charged."""
    seconds = record["seconds"]
    total = seconds["total"] or 1.0
    return [(name, seconds[name], 100 * seconds[name] / total) for name in ACCOUNTS if seconds[name]]


def _notes(record: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    """What the learner said of its data, once each, and windows that were not repeated exactly."""
    notes = dict.fromkeys(note for phase in record["phases"] for note in phase["notes"])
    for entry in entries:
        if isinstance(event := entry.event, ReplayDiffered):
            notes[
                f"{event.trial}: a window repeated after a kill gave the loss {event.repeated:.6g} instead "
                f"of {event.loss:.6g}; this machine does not repeat its arithmetic exactly"
            ] = None
    return list(notes)


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
    """The resolved plan as text and the versions as pairs; empty where the run died before both."""
    if not directory.resolved.exists():
        return {}
    content = directory.read_resolved()
    return {"text": to_json(content, indent=2), "versions": content.get("versions", {})}
