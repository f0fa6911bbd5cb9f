"""Phases of earlier runs, taken over instead of trained again.

A phase's key is a hash of all that its bits depend on; it stands in resolved.json. Where a run directory beside
this one finished a phase with the same key, its tables, checkpoints and journal entries become this run's.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multistep.core.choice.allowance import fixed_steps
from multistep.core.values.events import (
    BaselineScored,
    CheckpointSaved,
    Entry,
    Evaluated,
    Event,
    GuardScored,
    PhaseFinished,
    PhaseReused,
    PhaseStarted,
    RunInterrupted,
    RunResumed,
    TrialStarted,
    VerdictGiven,
)
from multistep.core.values.history import History, fold
from multistep.core.values.plan import Plan
from multistep.core.values.understood import Understood
from multistep.core.values.units import Amount, Unit
from multistep.engine.checkpoints import MANIFEST, Checkpoints, sha256, sync
from multistep.engine.journal import line_of, read_entries
from multistep.engine.plain import to_json
from multistep.engine.rundir import RunDirectory

# What reading another run's files may raise: they may be damaged, of another version, or be deleted meanwhile.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration)


# Keys -----------------------------------------------------------------------------------------------


def phase_key(
    plan: Plan,
    history: History,
    begins: PhaseStarted,
    *,
    data: Sequence[str],
    versions: Mapping[str, str],
    parent: Sequence[str],
) -> str:
    """The key of a phase as it begins, after the phases of `history` before it; `parent` as `parent_of` gives it.
    `data` are the fingerprints of its data and of its guard's.

    It holds no names and nothing of later phases but what they leave of the budget.
    """
    phase = plan.phase(begins.phase)
    before = replace(history, phases=history.phases[: begins.phase])
    depends = {
        "task": phase.task,
        "metric": begins.metric,
        "guard": begins.guard and (begins.guard.metric, begins.guard.at_most_worse),
        "model": [plan.model, _files_of_model(plan, begins)],
        "recipe": begins.recipe,
        "given": {} if isinstance(phase.until, Amount) else phase.recipe,  # what no move may change
        "rate_open": begins.rate_open,
        "facts": replace(begins.facts, understood=Understood()),  # told to people, and nothing is decided by it
        "data": data,
        "until": phase.until,
        "moves": phase.moves,
        "tolerance": plan.tolerance,
        "seed": plan.seed,
        "steps": fixed_steps(plan, fold([Entry(begins)], before)),
        "timed": plan.timed,  # whether the clock decides when a checkpoint is saved
        "seconds": _share_of_time(plan, begins.phase),
        "code": code_digest(),
        "versions": versions,
        "parent": parent,
    }
    return hashlib.blake2b(to_json(depends).encode(), digest_size=16).hexdigest()


def _share_of_time(plan: Plan, index: int) -> list[Any]:
    """What a budget in seconds leaves to a phase, apart from what was spent before; empty without one."""
    if plan.budget is None or plan.budget.unit is not Unit.SECONDS:
        return []
    if isinstance(plan.phase(index).until, Amount):
        return [plan.budget]
    later = [plan.phase(i).until for i in range(index + 1, plan.phase_count)]
    own = [amount for amount in later if isinstance(amount, Amount)]
    return [plan.budget, bool(later), len(later) - len(own), [amount for amount in own if amount.unit is Unit.SECONDS]]


def _files_of_model(plan: Plan, begins: PhaseStarted) -> list[Any]:
    """Names, sizes and times of a local model folder, whose content the facts do not tell; of a hub id the commit."""
    if not begins.facts.pretrained and not begins.facts.rivals:
        return []
    found: list[list[Any]] = []
    for name in plan.model.names:
        folder = Path(name)
        if not folder.is_dir() and (commit := commit_of(name)):
            found.append([name, commit])
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        found += [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return found


def commit_of(model: str) -> str | None:
    """The commit that a hub id's main branch stands at in the local cache, from which it has been loaded; None where
    it does not lie there. A model that is published anew under its name is another one.
    """
    from huggingface_hub import constants

    branch = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}" / "refs" / "main"
    try:
        return branch.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


@functools.cache
def code_digest() -> str:
    """A hash of the package's own source files, and of the tables that they decide by."""
    package = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.json")]):
        digest.update(f"{path.relative_to(package).as_posix()}\n{sha256(path)}\n".encode())
    return digest.hexdigest()


def parent_of(directory: RunDirectory, history: History, index: int) -> list[str] | None:
    """What a phase goes on from: key, head and the head's checksums of the one before; None if not known.

    The first phase has no parent. The checksums tell apart what the clock made different under one key.
    """
    if index == 0:
        return []
    finished = history.phases[index - 1].finished
    key = directory.resolved_phases()[index - 1].get("key")
    if key is None or finished is None or finished.head is None:
        return None
    manifest = directory.checkpoints / finished.head / MANIFEST
    return [key, finished.head, sha256(manifest)] if manifest.exists() else None


# Taking over ----------------------------------------------------------------------------------------


def entries_of(key: str, begins: PhaseStarted, plan: Plan, directory: RunDirectory, history: History) -> list[Entry]:
    """The entries of a finished phase with that key, of the newest run beside this one that has it whole.

    Their tables and checkpoints have become this run's. The first entry says that the phase is reused; nothing
    was spent. Empty if there is none, or if what there is cannot be used.
    """
    for sibling in directory.siblings():
        with contextlib.suppress(*UNREADABLE):
            if sibling.resolved_phases()[begins.phase].get("key") != key:
                continue
            baseline = not history.baselines and _is_as_the_last(plan, begins.phase)
            reused = Entry(PhaseReused(begins.phase, key, sibling.folder.name))
            entries = [reused, *_phase_of(sibling, begins, baseline=baseline)]
            fold(entries, history)  # who cannot be folded raises here
            if _take_files([entry.event for entry in entries], sibling, directory):
                return entries
    return []


def _phase_of(sibling: RunDirectory, begins: PhaseStarted, *, baseline: bool) -> list[Entry]:
    """A phase's entries in another run's journal, under its name here, without what was that run's alone.

    Raises LookupError if the phase has not finished there.
    """
    entries = list(read_entries(sibling.journal))
    events = [entry.event for entry in entries]
    start = next((i for i, e in enumerate(events) if isinstance(e, PhaseStarted) and e.phase == begins.phase), None)
    end = next((i for i, e in enumerate(events) if isinstance(e, PhaseFinished) and e.phase == begins.phase), None)
    if start is None or end is None:
        raise LookupError(f"{sibling.folder}: phase {begins.phase + 1} has not finished")
    foreign = (RunResumed, RunInterrupted) if baseline else (RunResumed, RunInterrupted, BaselineScored)
    kept = [entry for entry in entries[start + 1 : end + 1] if not isinstance(entry.event, foreign)]
    return [replace(entry, spent={}) for entry in (replace(entries[start], event=begins), *kept)]


def _is_as_the_last(plan: Plan, index: int) -> bool:
    """Whether this phase's baseline is the run's, which is scored on the last phase's data."""
    own, last = plan.phase(index), plan.phase(plan.phase_count - 1)
    return (own.task, own.data, own.metric) == (last.task, last.data, last.metric)


def _take_files(events: Sequence[Event], sibling: RunDirectory, directory: RunDirectory) -> bool:
    """Link the tables that the events name and the checkpoints that a later phase starts from or falls back to."""
    heads = [e.head for e in events if isinstance(e, PhaseFinished)]
    verdicts = {e.trial: e for e in events if isinstance(e, VerdictGiven)}
    leader = verdicts.get(next(reversed(verdicts.values())).leader or "") if verdicts else None
    needed = {name for name in (*heads, leader.checkpoint if leader else None) if name}
    if None in heads or not all((sibling.checkpoints / name / MANIFEST).is_file() for name in needed):
        return False  # a run that has ended keeps few
    for event in events:
        if isinstance(event, Evaluated | GuardScored | BaselineScored):
            directory.take_table(event.table, sibling)
    sync(directory.evaluations)
    checkpoints = Checkpoints(directory.checkpoints)
    bases = {e.trial.id for e in events if isinstance(e, TrialStarted) and e.trial.kind == "base"}
    for saved in (e.id for e in events if isinstance(e, CheckpointSaved) and e.trial in bases):
        if (sibling.checkpoints / saved).is_dir():  # it goes with its phase, unless that was the last
            checkpoints.take(saved, sibling.checkpoints / saved)
    return all(checkpoints.take(name, sibling.checkpoints / name) for name in needed)


def lines_of(entries: Sequence[Entry]) -> str:
    """The entries as a journal holds them."""
    return "".join(map(line_of, entries))
