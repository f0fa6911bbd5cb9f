"""The loop: propose -> run -> decide -> journal, for each phase of a plan, and the end of the run.

It yields each entry of the journal as it is written; whoever shows a run reads those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from multistep.core.controller import best_checkpoint, decide, propose, read_stability, stopped
from multistep.core.events import (
    BaselineScored,
    CheckpointSaved,
    Entry,
    Evaluated,
    Event,
    PhaseFinished,
    PhaseStarted,
    ReplayDiffered,
    RunFinished,
    RunResumed,
    RunStarted,
    TrialEnded,
    TrialStarted,
    VerdictGiven,
    WindowDone,
    WindowPlanned,
)
from multistep.core.history import History, TrialRecord
from multistep.core.metric import METRICS, Evaluation, metric_named
from multistep.core.plan import Plan
from multistep.core.recipe import rates
from multistep.core.trial import Progress, Window
from multistep.core.windows import next_window
from multistep.engine.card import model_card
from multistep.engine.checkpoints import Checkpoints, publish
from multistep.engine.clock import BudgetClock, Heartbeat, seconds_lost
from multistep.engine.journal import Journal
from multistep.engine.learner import Interrupted, Learner, Readiness, Split, Workshop
from multistep.engine.plain import to_json
from multistep.engine.result import result_of
from multistep.engine.rundir import RunDirectory, plan_hash, write_atomically
from multistep.errors import RunDirectoryError, RunFailed

SAVE_COST = 50  # a timed trunk is saved again once training since took so many times a save's seconds
SAVE_SECONDS = 5.0  # and never more often, so that tiny models do not save all the time


class Run:
    """One execution of one plan in one directory, resumed if it was begun."""

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        workshop: Workshop,
        clock: BudgetClock,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._workshop = workshop
        self._clock = clock
        self._should_stop = should_stop
        self._resuming = directory.exists
        self._journal = Journal(directory.journal, clock)
        self._checkpoints = Checkpoints(directory.checkpoints)
        self._learner: Learner | None = None
        self._at: str | None = None  # the checkpoint whose state the learner is in, if any
        self._save_seconds = 0.0

    @property
    def history(self) -> History:
        return self._journal.history

    def entries(self) -> Iterator[Entry]:
        """Run the plan to its end. Raises Interrupted, RunFailed, PlanError, DataError."""
        try:
            with Heartbeat(self._clock, self._directory.heartbeat):
                yield from self._begin()
                if self.history.finished:
                    return
                for index in range(self._plan.phase_count):
                    known = self.history.phases[index : index + 1]
                    if not (known and known[0].finished):
                        yield from self._phase(index)
                        self._winner()
                yield from self._finish()
        finally:
            self._journal.close()

    def _append(self, event: Event) -> Entry:
        return self._journal.append(event)

    def _begin(self) -> Iterator[Entry]:
        plan = plan_hash(self._plan)
        if not self._resuming or self.history.plan is None:
            yield self._append(RunStarted(plan))
        elif self.history.plan != plan:
            raise RunDirectoryError(
                f"{self._directory.folder}: holds the run of another plan ({self.history.plan}, this one is {plan}); "
                "name another folder with --out DIR, or resume that run with `multistep resume`"
            )
        elif not self.history.finished:
            yield self._append(RunResumed(seconds_lost(self._directory.heartbeat)))

    # Phases -----------------------------------------------------------------------------------------

    def _phase(self, index: int) -> Iterator[Entry]:
        learner = yield from self._open_phase(index)
        while True:
            if (record := self.history.phase.unfinished) is None:
                proposal = propose(self._plan, self.history)
                if proposal is None:
                    break
                yield self._append(TrialStarted(proposal.trial, proposal.reason))
                record = self.history.trial(proposal.trial.id)
            yield from self._trial(learner, record)
        head = self._head()
        yield self._append(PhaseFinished(index, head, stopped(self._plan, self.history)))

    def _head(self) -> str | None:
        """Where the next phase goes on: the incumbent, if this phase made it, else the last control."""
        incumbent, control = self.history.incumbent, self.history.phase.control
        if incumbent and incumbent.trial in self.history.phase.trials:
            return incumbent.checkpoint
        return control.checkpoints[-1].id if control and control.checkpoints else None

    def _open_phase(self, index: int) -> Generator[Entry, None, Learner]:
        learner, ready = self._workshop.open(self._plan, index, self._should_stop)
        self._learner, self._at = learner, None
        started = len(self.history.phases) > index
        self._record_readiness(index, ready, started=started)
        if not started:
            phase = self._plan.phase(index)
            previous = self.history.phases[-1] if self.history.phases else None
            metric = metric_named(phase.metric or "loss").name
            yield self._append(
                PhaseStarted(
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
                )
            )
        if index == self._plan.phase_count - 1 and not self.history.baselines:
            yield self._baseline(learner, "validation")
        return learner

    def _record_readiness(self, index: int, ready: Readiness, *, started: bool) -> None:
        """Write resolved.json, or make sure that a resumed phase sees the data that it began with."""
        if started:
            if (before := self._fingerprint(index)) != ready.fingerprint:
                raise RunDirectoryError(
                    f"{self._directory.folder}: the data of phase {index + 1} changed since this run began "
                    f"({before} -> {ready.fingerprint}); put it back, or start a new run with --out DIR"
                )
            return
        phases = self._directory.read_resolved()["phases"] if self._directory.resolved.exists() else []
        assert isinstance(phases, list)
        content = {
            "plan": self._plan,
            "versions": self._workshop.versions(),
            "phases": [
                *phases[:index],
                {"recipe": ready.recipe, "facts": ready.facts, "data": ready.fingerprint},
            ],
        }
        write_atomically(self._directory.resolved, to_json(content, indent=1))

    def _fingerprint(self, index: int) -> str:
        phases = self._directory.read_resolved()["phases"]
        assert isinstance(phases, list)
        return str(phases[index]["data"])

    def _baseline(self, learner: Learner, split: Split) -> Entry:
        with self._clock.account("evaluate"):
            name, evaluation = learner.baseline(split)
        metric = metric_named(self.history.phase.started.metric)
        table = self._directory.write_table(evaluation)
        return self._append(BaselineScored(name, split, metric.interval(evaluation), _scores(evaluation), table))

    # Trials -----------------------------------------------------------------------------------------

    def _trial(self, learner: Learner, record: TrialRecord) -> Iterator[Entry]:
        name = record.trial.id
        if record.step > record.first_step or record.trial.start != self._at or self._at is None:
            yield from self._restore(learner, record)
        while window := self._next_window(name):
            if self.history.trial(name).pending is None:
                yield self._append(WindowPlanned(window))
            progress = self._advance(learner, window)
            yield self._append(WindowDone(name, progress))
            yield from self._look(learner, window)
            if reading := read_stability(self._plan, self.history, name):
                yield self._append(reading)
            if self._save_due(name):
                yield self._save(learner, name)
        yield from self._close_trial(learner, name)

    def _next_window(self, name: str) -> Window | None:
        if self._should_stop():
            raise Interrupted
        pending = self.history.trial(name).pending
        return pending.window if pending else next_window(self._plan, self.history, name)

    def _advance(self, learner: Learner, window: Window) -> Progress:
        self._at = None
        with self._clock.account("train"):
            return learner.advance(rates(window.segments))

    def _look(self, learner: Learner, window: Window) -> Iterator[Entry]:
        last = self.history.trial(window.trial).windows[-1]
        if window.look and last.progress and last.progress.finite and last.evaluation is None:
            yield self._evaluate(learner, window.trial, "validation", sample=True)

    def _evaluate(self, learner: Learner, trial: str, split: Split, *, sample: bool) -> Entry:
        with self._clock.account("evaluate"):
            evaluation = learner.evaluate(split, sample=sample)
        metric = metric_named(self.history.phase.started.metric)
        return self._append(
            Evaluated(
                trial,
                self.history.trial(trial).step,
                split,
                sample,
                metric.interval(evaluation),
                _scores(evaluation),
                self._directory.write_table(evaluation),
            )
        )

    def _close_trial(self, learner: Learner, name: str) -> Iterator[Entry]:
        """The checkpoint at a trial's end and, for a control, its full evaluation and the verdict."""
        record = self.history.trial(name)
        ok = not record.done or (record.done[-1].progress is not None and record.done[-1].progress.finite)
        if ok and record.trial.kind != "probe" and not self._saved_at(record):
            yield self._save(learner, name)
        if record.trial.kind == "control" and record.verdict is None:
            if ok and record.full is None:
                yield self._evaluate(learner, name, "validation", sample=False)
            yield self._append(self._verdict(name))
        yield self._append(TrialEnded(name))
        self._discard()

    def _verdict(self, name: str) -> Event:
        record = self.history.trial(name)
        rival = self.history.incumbent
        rival_look = self.history.trial(rival.trial).full if rival else None
        return decide(
            self.history,
            name,
            checkpoint=record.checkpoints[-1].id if record.checkpoints else None,
            new=self._directory.read_table(record.full.table) if record.full else None,
            rival=self._directory.read_table(rival_look.table) if rival_look else None,
        )

    # Checkpoints ------------------------------------------------------------------------------------

    def _restore(self, learner: Learner, record: TrialRecord) -> Iterator[Entry]:
        """Put the learner where the journal says the trial is, repeating what was done after the last save."""
        trial = record.trial
        step, folder = record.first_step, None
        for saved in reversed(record.checkpoints):
            if folder := self._checkpoints.find(saved.id):
                step, self._at = saved.step, saved.id
                break
        if folder:
            learner.load(folder, trial.recipe, trial.seed)
        elif trial.start is None:
            learner.initial(trial.recipe, trial.seed)
        elif trial.start == self.history.phase.started.start:
            learner.adopt(self._checkpoints.path(trial.start), trial.recipe, trial.seed)
        else:
            learner.load(self._checkpoints.path(trial.start), trial.recipe, trial.seed)
        for done in record.done:
            if done.step > step and done.progress:
                repeated = learner.advance(rates(done.window.segments))
                self._at = None
                if not _same(repeated.loss, done.progress.loss):
                    yield self._append(ReplayDiffered(trial.id, done.progress.loss, repeated.loss))
        if record.done and record.pending is None:
            # A kill may have come between a window and its look or its reading.
            yield from self._look(learner, record.done[-1].window)
            read = record.readings[-1].step if record.readings else -1
            if read < record.step and (reading := read_stability(self._plan, self.history, trial.id)):
                yield self._append(reading)

    def _saved_at(self, record: TrialRecord) -> bool:
        return any(saved.step == record.step and self._checkpoints.find(saved.id) for saved in record.checkpoints)

    def _save_due(self, name: str) -> bool:
        """A trunk is saved where its look is the best so far, since that is what overfitting goes back to.

        Under a clock only as often as is cheap. In other trials, and in phases of a given length, what a kill
        would cost decides.
        """
        record = self.history.trial(name)
        last = record.done[-1]
        if last.progress is None or not last.progress.finite:
            return False
        saved = record.checkpoints[-1].step if record.checkpoints else record.first_step
        unsaved = sum(r.train_seconds for r in record.done if r.step > saved)
        cheap = unsaved >= max(SAVE_SECONDS, SAVE_COST * self._save_seconds)
        if record.trial.kind == "trunk" and last.evaluation and not self._plan.timed:
            metric = metric_named(self.history.phase.started.metric)
            scores = [look.interval.score for look in record.curve]
            return all(metric.improvement(scores[-1], score) > 0 for score in scores[:-1])
        return cheap

    def _save(self, learner: Learner, name: str) -> Entry:
        step = self.history.trial(name).step
        checkpoint = f"{name}@{step}"
        with self._clock.account("save"):
            self._checkpoints.save(checkpoint, learner.save)
        self._at = checkpoint
        entry = self._append(CheckpointSaved(checkpoint, name, step))
        self._save_seconds = entry.spent.get("save", 0.0)
        self._discard()
        return entry

    def _discard(self) -> None:
        """Delete the checkpoints that neither a rollback nor a resumed run can ask for any more."""
        phase = self.history.phase
        needed = {phase.started.start}
        if self.history.incumbent:
            needed.add(self.history.incumbent.checkpoint)
        if best := best_checkpoint(phase):
            needed.add(best.id)
        for record in list(phase.trials.values())[-2:]:
            needed |= {record.trial.start, *(saved.id for saved in record.checkpoints[-2:])}
        self._checkpoints.keep_only(name for name in needed if name)

    # The end ----------------------------------------------------------------------------------------

    def _finish(self) -> Iterator[Entry]:
        incumbent = self._winner()
        assert incumbent.checkpoint is not None, "a kept trial has a checkpoint"
        index = self._plan.phase_count - 1
        if self._learner is None:
            self._learner, ready = self._workshop.open(self._plan, index, self._should_stop)
            self._record_readiness(index, ready, started=True)
        learner = self._learner
        if self._at != incumbent.checkpoint:
            trial = self.history.trial(incumbent.trial).trial
            learner.load(self._checkpoints.path(incumbent.checkpoint), trial.recipe, trial.seed)
            self._at = incumbent.checkpoint
        if self.history.phase.started.facts.test_tokens and self.history.test is None:
            # The one look at the test split: after the last verdict, for the winner alone.
            yield self._evaluate(learner, incumbent.trial, "test", sample=False)
        if self.history.test and not any(b.split == "test" for b in self.history.baselines):
            yield self._baseline(learner, "test")
        with self._clock.account("evaluate"):
            samples = [text.encode("utf-8", "replace").decode("utf-8") for text in learner.samples()]
        write_atomically(self._directory.samples, to_json(samples, indent=1))
        weights = self._export(learner)
        yield self._append(RunFinished(self.history.phase.finished.stopped, weights))  # type: ignore[union-attr]
        write_atomically(self._directory.result, to_json(result_of(self.history, self._directory.read_table), indent=1))

    def _winner(self) -> VerdictGiven:
        """The incumbent. Raises RunFailed if the run has none."""
        if self.history.incumbent is None:
            raise RunFailed(
                f"phase '{self.history.phase.started.name}' diverged and no checkpoint could be evaluated; lower "
                "recipe.learning_rate, raise recipe.warmup_steps, or check the data"
            )
        return self.history.incumbent

    def _export(self, learner: Learner) -> str:
        weights = ""

        def write(folder: Path) -> None:
            nonlocal weights
            weights = learner.export(folder, model_card(self._plan, self.history))

        with self._clock.account("save"):
            publish(self._directory.model, write)
        return weights


def _scores(evaluation: Evaluation) -> dict[str, float]:
    """Every metric whose columns the evaluation holds."""
    columns = evaluation.columns
    return {
        metric.name: metric.score(evaluation)
        for metric in METRICS.values()
        if metric.numerator in columns and metric.denominator in columns
    }


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
