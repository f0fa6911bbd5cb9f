"""A journal -> an account of the run as trackers tell it: the whole run, and each trial as a run nested in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multistep.core.values.events import Entry, RunStarted
from multistep.core.values.history import History, PhaseRecord, TrialRecord, fold
from multistep.engine.journal import read_entries
from multistep.engine.plain import plain
from multistep.engine.result import trial_entry
from multistep.engine.rundir import RunDirectory
from multistep.report.scalars import CHOSEN, WHOLE_RUN, Numbers, numbers_of
from multistep.report.words import title

AT_FIRST = ("kind", "move", "seed", "round", "carry", "start", "reason")  # of a trial, known when it begins


@dataclass(frozen=True)
class Told:
    """One run of a tracker. `curve` is in the journal's order, and a longer journal only adds to it.

    `settings` are known when the run begins and never change; `said` are words that may be said anew (verdicts);
    `scores` the numbers that it ends with; `ended` is None while it goes on, then `finished` or `failed`.
    """

    name: str  # "." for the whole run, else the trial's id, or "chosen"
    title: str
    settings: Mapping[str, Any]
    curve: tuple[Numbers, ...]
    said: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    ended: str | None = None

    @property
    def config(self) -> dict[str, int | float | str]:
        """The settings as numbers and words."""
        return {key: value if isinstance(value, int | float) else str(value) for key, value in self.settings.items()}


@dataclass(frozen=True)
class Account:
    """All that a run has to tell now. `id` is the same for the same run wherever its folder lies."""

    id: str
    title: str
    runs: tuple[Told, ...]  # the whole run first
    files: tuple[Path, ...] = ()  # report, result and plan, once the run has finished
    model: Path | None = None  # the folder of what ships

    @property
    def finished(self) -> bool:
        return self.runs[0].ended == "finished"


def account_of(directory: RunDirectory) -> Account | None:
    """The account of a run as its journal stands now; None before its first phase has begun.

    Raises RunDirectoryError where there is no run, or its journal cannot be read.
    """
    entries = list(read_entries(directory.require().journal))
    history = fold(entries)
    if not history.phases:
        return None
    curves: dict[str, list[Numbers]] = {}
    for numbers in numbers_of(entries):
        curves.setdefault(numbers.run, []).append(numbers)
    done = history.finished is not None and directory.result.exists()
    runs = [_whole(directory, history, curves.get(WHOLE_RUN, ()), done)]
    runs += [
        _trial(phase, record, curves.get(name, ())) for phase in history.phases for name, record in phase.trials.items()
    ]
    if done and CHOSEN in curves:
        runs.append(
            Told(CHOSEN, "the way to the model", {"kind": CHOSEN}, tuple(curves[CHOSEN]), {}, {}, ended="finished")
        )
    files = (directory.report, directory.result, directory.plan_file)
    ships = directory.baseline if history.shipping and history.shipping.ships == "baseline" else directory.model
    return Account(
        _id_of(entries),
        directory.folder.resolve().name,
        tuple(runs),
        tuple(path for path in files if path.exists()) if done else (),
        ships if done and ships.is_dir() else None,
    )


def _id_of(entries: Sequence[Entry]) -> str:
    """Twelve hexadecimal digits: of the plan, and of when the run began."""
    begun = next(entry for entry in entries if isinstance(entry.event, RunStarted))
    assert isinstance(begun.event, RunStarted)
    return hashlib.blake2b(f"{begun.event.plan} {begun.at}".encode(), digest_size=6).hexdigest()


def _whole(directory: RunDirectory, history: History, curve: Sequence[Numbers], done: bool) -> Told:
    resolved = directory.read_resolved() if directory.resolved.exists() else {"plan": {}, "phases": []}
    settings = _flat(resolved["plan"])
    first = history.phases[0].started
    settings |= {f"recipe.{key}": value for key, value in plain(first.recipe).items()}
    settings |= {"parameters": first.facts.parameters, "train_examples": first.facts.train_examples}
    said = {"folder": str(directory.folder.resolve())}
    scores: dict[str, float] = {}
    if history.leader is not None:
        said["leader"] = history.leader.trial
    if history.shipping is not None:
        said |= {"ships": history.shipping.ships, "ships_because": history.shipping.reason}
    if history.finished is not None:
        said["stopped"] = history.finished.stopped
        scores["final/seconds"] = round(history.seconds, 3)
    leader = history.trial(history.leader.trial).full if history.leader else None
    for split, found in (("validation", leader), ("test", history.test)):
        if found is not None and done:
            scores |= {f"final/{split}": found.interval.score}
            scores |= {f"final/{split}_low": found.interval.low, f"final/{split}_high": found.interval.high}
    return Told(
        WHOLE_RUN,
        directory.folder.resolve().name,
        settings,
        tuple(curve),
        said,
        scores,
        "finished" if done else None,
    )


def _trial(phase: PhaseRecord, record: TrialRecord, curve: Sequence[Numbers]) -> Told:
    entry = trial_entry(phase, record)
    settings = {"phase": phase.started.name} | {key: entry[key] for key in AT_FIRST if entry[key] is not None}
    settings |= {f"recipe.{key}": value for key, value in plain(record.trial.recipe).items()}
    settings["recipe.learning_rate"] = entry["learning_rate"]
    verdict = record.verdict
    said = {"verdict": verdict.word, "why": verdict.reason} if verdict else {}
    if verdict:
        said["proven"] = "yes" if verdict.proven else "no"
    scores = {"final/score": entry["score"]} if entry["score"] is not None else {}
    if entry["validation"]:
        scores |= {f"final/score_{end}": entry["validation"][end] for end in ("low", "high")}
    failed = verdict is not None and verdict.failed
    ended = None if not record.ended and verdict is None else "failed" if failed else "finished"
    return Told(record.trial.id, title(entry), settings, tuple(curve), said, scores, ended)


def _flat(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys, as `--set` names them; without what says nothing."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{name}.")
        elif isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
            for index, item in enumerate(value):
                found |= _flat(item, f"{name}.{index}.")
        elif value not in (None, [], (), {}, ""):
            found[name] = value
    return found
