"""A plan and a run directory -> a result: the run as a whole, and what is read and written where it ends."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from multistep.core.values.events import RunInterrupted, RunStarted
from multistep.core.values.history import History, fold
from multistep.core.values.plan import Plan
from multistep.engine.cleaning import clean as clean_directory
from multistep.engine.clock import BudgetClock
from multistep.engine.costs import cost_of, remember, require_time_to_start
from multistep.engine.journal import Journal
from multistep.engine.kept import require_kept, spoken
from multistep.engine.learner import Interrupted, Workshop
from multistep.engine.loop import Run
from multistep.engine.moved import placed
from multistep.engine.queried import require_rows
from multistep.engine.rundir import RunDirectory, full_disk_told, goes_on_by, plan_hash, writing
from multistep.engine.signals import Stop, stopping
from multistep.engine.sources import changed_sources
from multistep.errors import PlanError, RunDirectoryError, RunFailed, Stopped, UserError
from multistep.interface.fleet import LeadingWorkshop, follow, joined
from multistep.interface.lanes import ONE_AFTER_THE_OTHER, Lanes, hands_for
from multistep.interface.result import Result
from multistep.interface.view import OnEntry
from multistep.report.outcome import interval_of

if TYPE_CHECKING:
    from multistep.backends.torch.many.group import Group
    from multistep.data.memory import Kept


def run(
    plan: Plan,
    directory: RunDirectory,
    *,
    clock: BudgetClock,
    on_entry: OnEntry | None = None,
    workshop: Workshop | None = None,
    kept: Sequence[Kept] = (),
    lanes: Lanes = ONE_AFTER_THE_OTHER,
) -> Result:
    """Run or resume a plan in a directory, where `kept` are written first; `lanes` tells of trials side by side."""
    with joined(plan) as group:
        if group is not None and not group.leads:
            follow(group, _workshop_for if workshop is None else lambda _: workshop)
        else:
            crew = Crew(lanes, group)
            return _first(plan, directory, clock, on_entry, workshop, kept, crew)
    return read_result(directory)  # written by the first process, which has ended the run


@dataclass(frozen=True)
class Crew:
    """Who works at a run beside this process: lanes, on this machine or a cluster, or the processes of a group."""

    asked: Lanes
    group: Group | None = None

    def require_possible(self, plan: Plan) -> None:
        """Before anything is written. Raises PlanError."""
        if self.asked.on is not None and self.group is not None:
            raise PlanError("--on runs trials side by side, torchrun one model on several processes: use one of them")
        self.asked.require_possible(plan)

    @property
    def lanes(self) -> Lanes:
        return self.asked if self.group is None else replace(self.asked, parallel=self.asked.parallel or 1)


def _workshop_for(plan: Plan) -> Workshop:
    from multistep.tasks import workshop_for

    return workshop_for(plan)


def _first(
    plan: Plan,
    directory: RunDirectory,
    clock: BudgetClock,
    on_entry: OnEntry | None,
    workshop: Workshop | None,
    kept: Sequence[Kept],
    crew: Crew,
) -> Result:
    """What the process does that is alone, or the first of several."""
    if directory.result.exists() and directory.exists:
        return _finished_before(plan, directory)
    from multistep.tasks.reach import names_of_plan, within_reach

    begun = directory.exists or directory.resolved.exists()
    if not begun and not clock.injected and workshop is None:
        require_time_to_start(plan)
    _read_queries(plan, directory)
    models = [directory.places.get(name, name) for name in plan.model.names]
    here = replace(placed(plan, directory.places), model=plan.model.named(*models))
    crew.require_possible(plan)
    with within_reach(names_of_plan(here) if workshop is None else (), begun=begun):
        return _run(plan, directory, clock, on_entry, workshop, kept, crew)


def _read_queries(plan: Plan, directory: RunDirectory) -> None:
    """Have the rows of the plan's queries in files, which a run that was begun goes on with. Raises DataError."""
    if unread := require_rows(plan, directory):
        from multistep.data.elastic import fetched

        directory.places = {**directory.places, **{source: str(fetched(source)) for source in unread}}


def _run(
    plan: Plan,
    directory: RunDirectory,
    clock: BudgetClock,
    on_entry: OnEntry | None,
    workshop: Workshop | None,
    kept: Sequence[Kept],
    crew: Crew,
) -> Result:
    again = goes_on_by(plan.task, directory.folder)
    directory.create()
    with directory.locked(), stopping() as stop, full_disk_told(directory.folder, again):
        try:
            _execute(plan, directory, clock, on_entry, workshop, kept, crew, stop)
        except (Interrupted, KeyboardInterrupt):
            if not stop.asked():
                raise
            name = signal.Signals(stop.number).name
            _note_interruption(directory, clock, name, on_entry)
            how = "stopped at once" if stop.at_once else "stopped"
            raise Stopped(f"{how} by {name}; go on with `{again}`", stop.number) from None
    return read_result(directory)


def _execute(
    plan: Plan,
    directory: RunDirectory,
    clock: BudgetClock,
    on_entry: OnEntry | None,
    workshop: Workshop | None,
    kept: Sequence[Kept],
    crew: Crew,
    stop: Stop,
) -> None:
    """Take the run to its end, its result and its report."""
    execution: Run | None = None
    try:
        for each in kept:
            each.put(directory.data)
        directory.keep_plan(plan)
        require_kept(plan, directory.folder)
        measures, given = not clock.injected, workshop
        workshop = workshop or _workshop_for(plan)
        if crew.group is not None:
            workshop = LeadingWorkshop(workshop, crew.group, stop)
        with hands_for(plan, directory, crew.lanes, given, may_measure=measures, should_stop=stop.asked) as hands:
            execution = Run(plan, directory, workshop, clock, stop.asked, hands=hands)
            _say_of_device(directory, workshop)
            # Processes of lanes choose as on the machine where the run began; this one chooses nothing then.
            chosen = nullcontext() if hands else _as_begun(directory, may_measure=measures)
            with chosen, closing(execution.entries()) as entries:
                for entry in entries:
                    if on_entry:
                        on_entry(entry, execution.history)
    except UserError as error:
        if execution is None or _nothing_won(execution.history, error):
            directory.discard()  # the mended command may use the same folder
        if (said := spoken(str(error), plan, directory.folder)) != str(error):
            raise type(error)(said) from error
        raise
    except RunFailed as error:
        directory.heartbeat.unlink(missing_ok=True)  # all is journaled, and nobody is at work any more
        with suppress(OSError, RunDirectoryError):
            raise RunFailed(f"{error}; {write_report(directory)} shows what happened") from error
        raise
    remember(cost_of(plan, execution.history))
    write_report(directory)
    if plan.keep == "model":
        clean_directory(directory, execution.history)


def _nothing_won(history: History, error: UserError) -> bool:
    """Whether a run has nothing yet that it could go on with: of one whose plan is wrong, nothing that was judged."""
    if history.leader is not None or len(history.phases) > 1:
        return False
    saved = any(trial.checkpoints for phase in history.phases for trial in phase.trials.values())
    return isinstance(error, PlanError) or not saved


def _say_of_device(directory: RunDirectory, workshop: Workshop) -> None:
    """Say what changes where a run was begun on another kind of device."""
    if not directory.resolved.exists() or not (phases := directory.resolved_phases()):
        return
    from multistep.tasks.begun import another_device

    last = phases[-1]
    precision = last["recipe"].get("precision", "auto")
    understood = last["facts"].get("understood", {}).get("precision", "")
    if said := another_device(directory.began_on, workshop.versions(), understood, precision):
        logging.getLogger("multistep").warning(f"{directory.folder}: {said}.")


def _as_begun(directory: RunDirectory, *, may_measure: bool) -> AbstractContextManager[None]:
    """Where a run has begun before, its sizes are those that were chosen then, perhaps elsewhere."""
    from multistep.tasks.begun import as_begun

    return as_begun(directory.began_on, directory.places, directory.speeds, may_measure=may_measure)


def _note_interruption(directory: RunDirectory, clock: BudgetClock, name: str, on_entry: OnEntry | None) -> None:
    journal = Journal(directory.journal, clock)
    if journal.history.plan is not None:  # else it never began
        entry = journal.append(RunInterrupted(name))
        if on_entry:
            on_entry(entry, journal.history)
    journal.close()
    directory.heartbeat.unlink(missing_ok=True)  # what was spent stands in the journal now


def _finished_before(plan: Plan, directory: RunDirectory) -> Result:
    """The result of a run that is not run again; says so, and whether its data is another by now."""
    from multistep.engine.journal import read_entries

    entries = list(read_entries(directory.journal))
    begun = next((entry.event.plan for entry in entries if isinstance(entry.event, RunStarted)), None)
    if begun not in (None, plan_hash(plan)):
        raise RunDirectoryError(
            f"{directory.folder}: holds the finished run of another plan; name another folder with --out DIR"
        )
    when = f" on {entries[-1].at[:16].replace('T', ' at ')} UTC" if entries and entries[-1].at else " before"
    said = f"{directory.folder}: this run finished{when}; what is shown is its result."
    if changed := changed_sources(placed(plan, directory.places), directory):
        said += f" Since then {', '.join(changed)} changed: to train on it as it is now, name a new folder (--out DIR)."
    logging.getLogger("multistep").warning(said)
    if not directory.report.exists():
        write_report(directory)
    result = read_result(directory)
    if plan.keep == "model" and result.record.get("checkpoints") is None:  # killed between its result and this
        clean_directory(directory, fold(entries))
        result = read_result(directory)
    return result


def read_result(directory: RunDirectory) -> Result:
    """The result of a finished run."""
    from multistep.core.evidence.brief import Brief
    from multistep.core.values.history import fold
    from multistep.engine.journal import read_entries

    try:
        record = json.loads(directory.result.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunDirectoryError(
            f"{directory.result}: damaged, not JSON ({error}); delete it, and `multistep resume {directory.folder}` "
            "writes it anew from the journal"
        ) from error
    history = fold(read_entries(directory.journal))
    return Result(
        metric=record["metric"],
        validation=interval_of(record["validation"]),
        test=interval_of(record["test"]) if record["test"] else None,
        baseline=Brief(record["baseline"]),
        model=directory.folder / record["model"],
        folder=directory.folder,
        stopped=record["stopped"],
        verdicts=history.verdicts,
        record=Brief(record),
    )


def write_report(run: RunDirectory | str | Path) -> Path:
    """Write report.html and the TensorBoard events of a run, finished or not.

    Args
        run: the run directory.

    Returns
        The path of the report.

    Raises
        RunDirectoryError: there is no run, or writing is not allowed.
    """
    from multistep.report.page import write_page
    from multistep.report.tensorboard import write_events

    directory = run if isinstance(run, RunDirectory) else RunDirectory(Path(run)).require()
    with writing(directory.folder):
        write_events(directory)
        return write_page(directory)
