"""The loop: propose -> run -> decide -> journal, for each phase of a plan, and the end of the run.

It yields each entry of the journal as it is written; whoever shows a run reads those. Of a phase that another
run has done already, it yields only that it is reused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from multistep.core.choice.allowance import CLOSING_SECONDS
from multistep.core.choice.controller import propose, stopped
from multistep.core.choice.guards import holds
from multistep.core.evidence.function_metric import declared_metric
from multistep.core.evidence.metric import scores_of
from multistep.core.values.events import (
    BaselineScored,
    Entry,
    Event,
    LanesOpened,
    MovesEnded,
    PhaseFinished,
    PhaseStarted,
    RunFinished,
    RunResumed,
    RunStarted,
    TrialStarted,
)
from multistep.core.values.history import History
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.tasks import OWN_MODEL
from multistep.core.values.units import Unit
from multistep.engine.calibrated import calibration_of, exhibit_of, findings, for_card, write_about
from multistep.engine.card import model_card
from multistep.engine.checkpoints import publish
from multistep.engine.clock import BudgetClock, Heartbeat, seconds_lost
from multistep.engine.costs import remember_start
from multistep.engine.journal import Journal
from multistep.engine.judged import guard_of, metric_name
from multistep.engine.kept import with_kept, with_notes
from multistep.engine.lanes.hands import HandLearner, Hands, HandWorkshop
from multistep.engine.lanes.side_by_side import LaneJournal, SideBySide
from multistep.engine.learner import HeldOut, Learner, Readiness, Workshop
from multistep.engine.moved import placed
from multistep.engine.plain import to_json
from multistep.engine.queried import queries_of_phase
from multistep.engine.result import result_of
from multistep.engine.reuse import entries_of, lines_of, parent_of, phase_key
from multistep.engine.revisions import revisions_of_phase
from multistep.engine.rundir import RunDirectory, plan_hash, write_atomically
from multistep.engine.shipping import baseline_is_wanted, decided
from multistep.engine.sources import Marks, marks_of_phase
from multistep.engine.trials import TrialRunner
from multistep.errors import PlanError, RunDirectoryError, RunFailed


class Run:
    """One execution of one plan in one directory, resumed if it was begun.

    `reuse` tells whether phases are taken over from the runs beside it; None: unless the clock is injected, since
    such runs are compared with each other. `hands` run trials side by side; else `workshop` opens what does all.
    """

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        workshop: Workshop,
        clock: BudgetClock,
        should_stop: Callable[[], bool] = lambda: False,
        *,
        reuse: bool | None = None,
        hands: Hands | None = None,
    ) -> None:
        self._plan = plan
        self._placed = placed(plan, directory.places)  # with its data where they lie now
        self._settled = with_kept(self._placed, directory.folder)  # and later with the models that `auto` came to
        self._directory = directory
        self._workshop = workshop
        self._clock = clock
        self._should_stop = should_stop
        self._hands = hands
        if hands is not None:
            self._workshop = HandWorkshop(hands)
        self._reuse = not clock.injected if reuse is None else reuse
        self._resuming = directory.exists
        self._journal = Journal(directory.journal, clock)
        self._trials: TrialRunner | None = None  # of the phase that is open

    @property
    def history(self) -> History:
        return self._journal.history

    def entries(self) -> Generator[Entry, None, None]:
        """Run the plan to its end. Raises Interrupted, RunFailed, PlanError, DataError."""
        try:
            with Heartbeat(self._clock, self._directory.heartbeat, lambda: self.history.seconds):
                yield from self._begin()
                yield from self._open_lanes()
                if self.history.finished:
                    self._write_result()  # a kill may have come just before
                    return
                for index in range(self._plan.phase_count):
                    known = self.history.phases[index : index + 1]
                    if not (known and known[0].finished):
                        yield from self._phase(index)
                    if self.history.phases[index].finished.head is None:  # type: ignore[union-attr]
                        raise self._failure(index)
                yield from self._finish()
        finally:
            self._journal.close()

    def _append(self, event: Event) -> Entry:
        return self._journal.append(event)

    def _begin(self) -> Iterator[Entry]:
        plan = plan_hash(self._plan)
        self._directory.require_record(len(self.history.phases))
        if not self._resuming or self.history.plan is None:
            yield self._append(RunStarted(plan))
        elif self.history.plan != plan:
            raise RunDirectoryError(
                f"{self._directory.folder}: holds the run of another plan ({self.history.plan}, this one is {plan}); "
                "name another folder with --out DIR, or resume that run with `multistep resume`"
            )
        elif not self.history.finished:
            yield self._append(RunResumed(seconds_lost(self._directory.heartbeat, self.history.seconds)))

    def _open_lanes(self) -> Iterator[Entry]:
        lanes = tuple(self._hands.names) if self._hands else ()
        if lanes != self.history.lanes and not self.history.finished:
            yield self._append(LanesOpened(lanes))

    # Phases -----------------------------------------------------------------------------------------

    def _phase(self, index: int) -> Iterator[Entry]:
        # Before the data is read: it may change meanwhile.
        marks = marks_of_phase(self._placed, index, self._directory.folder)
        learner, ready = self._open(index)
        yield from self._begin_phase(index, ready, marks)
        trials = self._runner(learner)
        if index == self._plan.phase_count - 1 and not self.history.baselines:
            yield self._baseline(learner, "validation")
        beside = self._side_by_side(trials, ready) if self._hands else None
        while self.history.phase.finished is None:
            if (record := self.history.phase.unfinished) is None:
                proposal = propose(self._plan, self.history)
                if proposal is None:
                    yield self._append(PhaseFinished(index, self._head(), stopped(self._plan, self.history)))
                    break
                if isinstance(proposal, MovesEnded):
                    yield self._append(proposal)
                    continue
                started = TrialStarted(proposal.trial, proposal.reason, proposal.weighed)
                yield beside.started(proposal) if beside else self._append(started)
                record = self.history.trial(proposal.trial.id)
            yield from beside.run() if beside else trials.run(record)

    def _side_by_side(self, trials: TrialRunner, ready: Readiness) -> SideBySide:
        """What runs the trials of the phase that is open in several lanes, the first of which is open."""
        hands, index = self._hands, self.history.phase.started.phase
        assert hands is not None, "asked for where there are some"

        def runner(journal: LaneJournal) -> TrialRunner:
            learner = HandLearner(hands, journal.lane)
            directory, checkpoints = self._directory, trials.checkpoints
            return TrialRunner(self._plan, directory, journal, self._clock, learner, self._should_stop, checkpoints)

        def open_lane(lane: int) -> None:
            hands.open(lane, self._settled, index)

        return SideBySide(
            self._plan,
            lambda: self._journal,
            self._clock,
            hands,
            trials,
            runner,
            open_lane=open_lane,
            ready=ready,
        )

    def _open(self, index: int) -> tuple[Learner, Readiness]:
        """What trains a phase, on the models that this run began with: a cache filled meanwhile changes nothing."""
        if self.history.phases:
            self._settle(self._directory.resolved_phases()[0].get("models") or ())
        learner, ready = self._workshop.open(self._settled, index, self._should_stop)
        self._settle(ready.models)
        return learner, replace(ready, facts=with_notes(ready.facts, self._plan, index, self._directory.folder))

    def _settle(self, models: Sequence[str]) -> None:
        if models:
            self._settled = replace(self._settled, model=self._plan.model.named(*models))

    def _head(self) -> str | None:
        """Where the next phase goes on: the leader, if this phase made it, else the last control that may lead, or the
        phase's own start.
        """
        phase = self.history.phase
        leader = self.history.leader
        if leader and leader.trial in phase.trials:
            return leader.checkpoint
        judged = [t for t in phase.of_kind("control") if t.verdict and not t.verdict.failed and holds(t)]
        judged = judged or list(phase.of_kind("base"))
        return judged[-1].checkpoints[-1].id if judged else None

    def _begin_phase(self, index: int, ready: Readiness, marks: Marks) -> Iterator[Entry]:
        """Start a phase, go on with it, or have it from another run."""
        begins = self._beginning(index, ready)
        key = self._key(begins, ready)
        if len(self.history.phases) > index:
            self._require_same_data(index, ready)
            if self._directory.resolved_phases()[index].get("key") != key:
                # Begun with other code or on another machine: what comes of it is nobody else's.
                self._directory.amend_phase(index, key=None)
            if self._directory.resolved_phases()[index].get("files") != marks:
                self._directory.amend_phase(index, files=marks)  # the same data, perhaps put back
            return
        self._record_readiness(index, ready, key, marks)
        self._require_time()
        taken = entries_of(key, begins, self._plan, self._directory, self.history) if key and self._reuse else []
        if taken:
            yield self._take_over(taken)
        else:
            yield self._append(begins)

    def _beginning(self, index: int, ready: Readiness) -> PhaseStarted:
        phase = self._plan.phase(index)
        previous = self.history.phases[index - 1] if index else None
        metric = metric_name(phase, ready)
        own = declared_metric(metric)
        return PhaseStarted(
            phase=index,
            name=phase.name,
            metric=metric,
            recipe=ready.recipe,
            facts=ready.facts,
            rate_open=ready.rate_open,
            comparable=previous is not None
            and previous.started.metric == metric
            and self._fingerprint(index - 1) == ready.fingerprint,
            start=previous.finished.head if previous and previous.finished else None,
            goal=own.goal if own else None,
            unit=own.unit if own else None,
            guard=guard_of(phase, ready, begins_trained=index > 0 or ready.facts.pretrained),
        )

    def _key(self, begins: PhaseStarted, ready: Readiness) -> str | None:
        """The phase's key; None where that of the phase before is not known."""
        parent = parent_of(self._directory, self.history, begins.phase)
        if parent is None:
            return None
        versions = self._workshop.versions()
        data = [ready.fingerprint, *([ready.guard.fingerprint] if ready.guard else [])]
        return phase_key(self._settled, self.history, begins, data=data, versions=versions, parent=parent)

    def _take_over(self, entries: Sequence[Entry]) -> Entry:
        """Add another run's phase to the journal, whole or not at all: a kill never leaves half of it."""
        said = replace(entries[0], spent=self._clock.drain(), at=self._clock.stamp())
        journal = self._directory.journal
        self._journal.close()
        write_atomically(journal, journal.read_text(encoding="utf-8") + lines_of([said, *entries[1:]]))
        self._journal = Journal(journal, self._clock)
        return said

    def _runner(self, learner: Learner) -> TrialRunner:
        self._trials = TrialRunner(self._plan, self._directory, self._journal, self._clock, learner, self._should_stop)
        return self._trials

    def _require_time(self) -> None:
        """Raises PlanError if the budget is spent before a first step could be taken and evaluated."""
        budget = self._plan.budget
        if budget is None or budget.unit is not Unit.SECONDS or self.history.phases:
            return
        started = self.history.seconds + self._clock.pending()
        if not self._clock.injected:
            remember_start(self._plan.task, started)
        needed = started + CLOSING_SECONDS
        if budget.value < needed:
            raise PlanError(
                f"budget is {budget}; starting and finishing alone take {needed:.0f}s here, and one evaluation comes "
                f"on top: give it at least {math.ceil(2 * needed)}s"
            )

    def _require_same_data(self, index: int, ready: Readiness) -> None:
        """Raises RunDirectoryError if a resumed phase does not see the data that it began with."""
        found = [("data", self._fingerprint(index), ready.fingerprint)]
        if (began := self.history.phases[index].started.facts.parameters) != ready.facts.parameters:
            raise RunDirectoryError(
                f"{self._directory.folder}: phase {index + 1} began with a model of {began:,} parameters, and this one "
                f"has {ready.facts.parameters:,}; name the model that it began with"
            )
        if ready.guard:
            guarded = str(self._directory.resolved_phases()[index].get("guard"))
            found.append(("guard's data", guarded, ready.guard.fingerprint))
        for what, before, now in found:
            if before != now:
                raise RunDirectoryError(
                    f"{self._directory.folder}: the {what} of phase {index + 1} changed since this run began "
                    f"({before} -> {now}); put it back, or start a new run with --out DIR"
                )
        self._directory.note_place()

    def _record_readiness(self, index: int, ready: Readiness, key: str | None, marks: Marks) -> None:
        """Write resolved.json."""
        phase = {"recipe": ready.recipe, "facts": ready.facts, "data": ready.fingerprint, "files": marks, "key": key}
        phase["models"] = self._settled.model.names
        if ready.guard:
            phase["guard"] = ready.guard.fingerprint
        if hub := revisions_of_phase(self._settled, index):
            phase["hub"] = hub
        if queries := queries_of_phase(self._plan, index, self._directory.places):
            phase["queries"] = queries
        before = self._directory.resolved_phases()[:index]
        self._directory.write_resolved(self._plan, self._workshop.versions(), [*before, phase])

    def _fingerprint(self, index: int) -> str:
        return str(self._directory.resolved_phases()[index]["data"])

    def _baseline(self, learner: Learner, split: HeldOut) -> Entry:
        with self._clock.account("evaluate"):
            name, evaluation = learner.baseline(split)
            metric = metric_of(self.history.phase.started)
            interval, scores = metric.interval(evaluation), scores_of(evaluation, metric)
        return self._append(BaselineScored(name, split, interval, scores, self._directory.write_table(evaluation)))

    # The end ----------------------------------------------------------------------------------------

    def _finish(self) -> Iterator[Entry]:
        leader = self.history.leader
        assert leader is not None, "a phase without a head has failed before"
        assert leader.checkpoint is not None, "a kept trial has a checkpoint"
        index = self._plan.phase_count - 1
        if (trials := self._trials) is None:
            learner, ready = self._open(index)
            self._require_same_data(index, ready)
            trials = self._runner(learner)
        learner = trials.learner
        base = self.history.base
        tested = self.history.phase.started.facts.test_tokens > 0
        if base and not (base.checkpoints and trials.has(base.checkpoints[-1].id)):
            base = None  # of a phase that another run has done and gone on from, without it
        if tested and base and base.trial.id != leader.trial and self.history.base_test is None:
            trials.stand_at(base.checkpoints[-1].id, base.trial.id)
            yield from trials.evaluate(base.trial.id, "test", sample=False)
        trials.stand_at(leader.checkpoint, leader.trial)
        if not self.history.baselines:
            yield self._baseline(learner, "validation")
        if self.history.shipping is None:
            yield self._decide_what_ships(learner)
        if tested and self.history.test is None:
            # The one look at the test split: after the last verdict, for the winner alone.
            yield from trials.evaluate(leader.trial, "test", sample=False)
        if self.history.test and not any(b.split == "test" for b in self.history.baselines):
            yield self._baseline(learner, "test")
        with self._clock.account("evaluate"):
            found = exhibit_of(findings(self.history, self._directory.read_table))
            shown = to_json([*learner.exhibits(), *found], indent=1)
        write_atomically(self._directory.exhibits, shown.encode("utf-8", "replace").decode("utf-8"))
        weights = self._export(learner)
        yield self._append(RunFinished(self.history.phase.finished.stopped, weights))  # type: ignore[union-attr]
        self._write_result()

    def _decide_what_ships(self, learner: Learner) -> Entry:
        """On validation alone. The folder comes first: once the journal has the decision, the folder is there."""
        why_not = ""

        def write(folder: Path) -> bool:
            nonlocal why_not
            why_not = learner.write_baseline(folder)
            self._describe(folder, "baseline", folded=False)
            return not why_not

        if baseline_is_wanted(self._plan, self.history):
            with self._clock.account("save"):
                publish(self._directory.baseline, write)
        return self._append(decided(self._plan, self.history, why_not))

    def _write_result(self) -> None:
        record = result_of(self.history, self._directory.read_table)
        write_atomically(self._directory.result, to_json(record, indent=1))

    def _describe(self, folder: Path, model: str, *, folded: bool) -> None:
        """Say in an exported folder what using it takes beyond its weights."""
        found = calibration_of(self.history, self._directory.read_table, model)
        write_about(folder, found, self._plan.phase(self._plan.phase_count - 1).data, folded=folded)

    def _failure(self, index: int) -> RunFailed:
        name = self.history.phases[index].started.name
        return RunFailed(
            f"phase '{name}' diverged and no checkpoint could be evaluated; lower recipe.learning_rate, raise "
            "recipe.warmup_steps, or check the data, and start a new run"
        )

    def _export(self, learner: Learner) -> str:
        weights = ""

        found = calibration_of(self.history, self._directory.read_table)
        folded = found is not None and found.temperature != 1.0 and learner.fold(found.temperature)

        def write(folder: Path) -> None:
            nonlocal weights
            hub = [phase.get("hub", {}) for phase in self._directory.resolved_phases()]
            card = model_card(self._plan, self.history, hub) + for_card(
                found, folded=folded, predicts=self._plan.task != OWN_MODEL
            )
            weights = learner.export(folder, card)
            self._describe(folder, "network", folded=folded)

        with self._clock.account("save"):
            publish(self._directory.model, write)
        return weights
