"""Running one trial: its windows, looks, readings, checkpoints and verdict, and going on with it after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from multistep.core.choice.allowance import SAVE_COST, probes_pay, require_time
from multistep.core.choice.moves import RESTART
from multistep.core.choice.readings import read_stability
from multistep.core.choice.retained import look_gain, needed
from multistep.core.choice.verdicts import JUDGED, decide, sibling_control
from multistep.core.choice.windows import next_window
from multistep.core.evidence.calibration import without_logits
from multistep.core.evidence.metric import Evaluation, Interval, scores_of
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import (
    Account,
    CheckpointSaved,
    Entry,
    Evaluated,
    Event,
    Fitted,
    GuardScored,
    ReplayDiffered,
    TrialEnded,
    VerdictGiven,
    WindowDone,
    WindowPlanned,
)
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.judging import guard_metric_of, metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe, rates
from multistep.core.values.trial import Fit, Trial, Window
from multistep.core.values.units import Unit
from multistep.engine.asking import Ask, Asking, answered
from multistep.engine.checkpoints import Checkpoints
from multistep.engine.clock import BudgetClock
from multistep.engine.learner import HeldOut, Interrupted, Learner
from multistep.engine.rundir import RunDirectory
from multistep.errors import DataError, PlanError, RunFailed

SAVE_SECONDS = 5.0  # from one save to the next at least, so that tiny models do not save all the time


@dataclass(frozen=True)
class Worked:
    """What came of a trial's work: why it failed, if it did; whether a trunk made way for probes of the rate."""

    failure: str | None = None
    for_probes: bool = False


class Writes(Protocol):
    """The run's journal, or a lane's view of it."""

    @property
    def history(self) -> History: ...

    def append(self, event: Event) -> Entry: ...


class TrialRunner:
    """Runs the trials of one phase with one learner. `at` is the checkpoint whose state the learner is in, if any."""

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        journal: Writes,
        clock: BudgetClock,
        learner: Learner,
        should_stop: Callable[[], bool],
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Of several that run side by side, all have the same `checkpoints`."""
        self.learner = learner
        self._plan = plan
        self._directory = directory
        self._journal = journal
        self._clock = clock
        self._should_stop = should_stop
        self.checkpoints = checkpoints or Checkpoints(directory.checkpoints)
        self._at: str | None = None
        self._recipe: Recipe | None = None  # of the state that the learner is in
        self._save_seconds = 0.0

    @property
    def history(self) -> History:
        return self._journal.history

    def forget(self) -> None:
        """The learner is another one, which is in no state yet."""
        self._at = self._recipe = None

    def has(self, checkpoint: str) -> bool:
        """Whether a checkpoint is still there."""
        return self.checkpoints.find(checkpoint) is not None

    def stand_at(self, checkpoint: str, trial: str) -> None:
        """Have the learner in the state of a checkpoint that this trial saved."""
        if self._at != checkpoint:
            made = self.history.trial(trial).trial
            self.learner.load(self.checkpoints.path(checkpoint), made.recipe, made.seed)
            self._at, self._recipe = checkpoint, made.recipe

    def run(self, record: TrialRecord) -> Iterator[Entry]:
        """Run a trial to its verdict. What a move asks for and cannot be had fails the move, not the run."""
        worked = yield from answered(self.work(record), self.learner, self._clock)
        yield from self.judge(record.trial.id, worked)

    def work(self, record: TrialRecord) -> Asking[Worked]:
        """All that a trial takes before it is judged."""
        if record.trial.kind not in ("move", "rerun", "average"):
            return (yield from self._work(record))
        try:
            return (yield from self._work(record))
        except (PlanError, DataError, RunFailed) as error:
            self._at = None
            return Worked(failure=str(error).splitlines()[0])

    def judge(self, name: str, worked: Worked) -> Iterator[Entry]:
        """The verdict about a trial whose work is done, and its end."""
        record = self.history.trial(name)
        if record.trial.kind in JUDGED and record.verdict is None:
            failed = self._failed(name, worked.failure) if worked.failure is not None else None
            yield self._journal.append(failed or self._verdict(name))
        yield self._journal.append(TrialEnded(name, worked.for_probes))
        if worked.failure is None:
            self._discard()

    def _work(self, record: TrialRecord) -> Asking[Worked]:
        name = record.trial.id
        if record.step > record.first_step or not self._stands_where(record.trial):
            yield from self._restore(record)
        self._recipe = record.trial.recipe
        if self._next_window(name):
            yield from self._fit(name, self.history.trial(name).step)
        while window := self._next_window(name):
            if self._cooldown_begins(name, window):
                yield from self._save(name)  # what is kept goes on from here
            if self.history.trial(name).pending is None:
                yield self._journal.append(WindowPlanned(window))
            progress = yield self._advance(window)
            yield self._journal.append(WindowDone(name, progress))
            yield from self._note_fit(name, self.history.trial(name).step)
            require_time(self._plan, self.history)
            yield from self._look(window)
            if reading := read_stability(self._plan, self.history, name):
                yield self._journal.append(reading)
            if self._save_due(name):
                yield from self._save(name)
        # Asked before anything more is spent.
        for_probes = record.trial.kind == "trunk" and probes_pay(self._plan, self.history)
        yield from self._close(name)
        return Worked(for_probes=for_probes)

    def _next_window(self, name: str) -> Window | None:
        if self._should_stop():
            raise Interrupted
        pending = self.history.trial(name).pending
        return pending.window if pending else next_window(self._plan, self.history, name)

    def _stands_where(self, trial: Trial) -> bool:
        """Whether the learner is in the state that a trial begins from: its checkpoint, under its own recipe."""
        here = self._at is not None and trial.start == self._at and self._recipe == trial.recipe
        return here and trial.seed == self._plan.seed and not trial.skip_examples and trial.kind != "average"

    def _cooldown_begins(self, name: str, window: Window) -> bool:
        record = self.history.trial(name)
        first = window.segments[0]
        begins = first.shape == record.trial.recipe.cooldown and first.progress_from == 0.0
        sibling = record.trial.length is not None and record.trial.kind != "rerun"
        return sibling and begins and record.step > record.first_step and not self._saved_at(record)

    def _fit(self, name: str, step: int) -> Asking[None]:
        """Have the learner compute steps as it did when the trial came to this step, or as it now finds best."""
        if (yield Ask("prepare", (self.history.phase.fits_at(name, step), self._seconds_left()))):
            yield Ask("do", account="compile")
        yield from self._note_fit(name, step)

    def _note_fit(self, name: str, step: int) -> Asking[None]:
        fit: Fit | None = yield Ask("fit")
        if fit is not None and self.history.phase.fits_at(name, step).get(fit.of) != fit:
            yield self._journal.append(Fitted(name, step, fit))

    def _seconds_left(self) -> float | None:
        """Of a budget that is told in time."""
        budget = self._plan.budget
        if budget is None or budget.unit is not Unit.SECONDS:
            return None
        return max(0.0, budget.value - self.history.seconds - self._clock.pending())

    def _advance(self, window: Window, account: Account = "train") -> Ask:
        self._at = None
        return Ask("advance", (rates(window.segments),), {"resolution": window.resolution}, account)

    def _look(self, window: Window) -> Asking[None]:
        last = self.history.trial(window.trial).windows[-1]
        if window.look and last.progress and last.progress.finite and last.evaluation is None:
            yield from self._evaluate(window.trial, "validation", sample=True)

    def evaluate(self, trial: str, split: HeldOut, *, sample: bool) -> Iterator[Entry]:
        yield from answered(self._evaluate(trial, split, sample=sample), self.learner, self._clock)

    def _evaluate(self, trial: str, split: HeldOut, *, sample: bool) -> Asking[None]:
        metric = metric_of(self.history.phase.started)

        def scored(evaluation: Evaluation) -> tuple[Evaluation, Interval, Mapping[str, float]]:
            # A user's function may take longer than the model does.
            return evaluation, metric.interval(evaluation), scores_of(evaluation, metric)

        ask = Ask("evaluate", (split,), {"sample": sample}, "evaluate", then=scored)
        evaluation, interval, scores = yield ask
        kept = (
            without_logits(evaluation) if sample else evaluation
        )  # a sample is looked at often, and calibrates nothing
        step, table = self.history.trial(trial).step, self._directory.write_table(kept)
        yield self._journal.append(Evaluated(trial, step, split, sample, interval, scores, table))

    def _score_guard(self, name: str) -> Asking[None]:
        """Score what the phase must not forget. Raises RunFailed where its start cannot be scored on that."""
        guard = self.history.phase.started.guard
        assert guard is not None, "asked for where there is one"
        metric = guard_metric_of(guard)

        def scored(evaluation: Evaluation) -> tuple[Evaluation, Interval]:
            return evaluation, metric.interval(evaluation)

        evaluation, interval = yield Ask("evaluate", ("guard",), {"sample": True}, "evaluate", then=scored)
        if self.history.trial(name).trial.kind == "base" and not math.isfinite(interval.score):
            raise RunFailed(
                f"phase '{self.history.phase.started.name}': the model that it starts from has no finite "
                f"{guard.metric} on {guard.data}, so that nothing can be told of what is forgotten; leave the guard out"
            )
        yield self._journal.append(GuardScored(name, interval, self._directory.write_table(evaluation)))

    def _close(self, name: str) -> Asking[None]:
        """The checkpoint at a trial's end and, of one that is judged, what it is judged by."""
        record = self.history.trial(name)
        ok = not record.done or (record.done[-1].progress is not None and record.done[-1].progress.finite)
        ok &= not (record.reading and record.reading.stability is Stability.DIVERGED)
        if ok and record.trial.kind not in ("probe", "rerun") and not self._saved_at(record):
            yield from self._save(name)
        if record.trial.kind in (*JUDGED, "rerun") and record.verdict is None and ok:
            if record.full is None:
                yield from self._evaluate(name, "validation", sample=False)
            if record.guard is None and record.trial.kind in JUDGED and self.history.phase.started.guard:
                yield from self._score_guard(name)

    def _verdict(self, name: str) -> Event:
        record = self.history.trial(name)
        control = sibling_control(self.history, record)
        scored = [t.trial.id for p in self.history.phases for t in p.trials.values() if t.verdict and t.full]
        return decide(
            self.history,
            name,
            checkpoint=record.checkpoints[-1].id if record.checkpoints else None,
            new=self._table(name),
            tables={trial: table for trial in scored if (table := self._table(trial))},
            control=self._table(control.trial.id) if control else None,
            guards=self._guards(record),
        )

    def _guards(self, record: TrialRecord) -> tuple[Evaluation, Evaluation] | None:
        """What a trial and the phase's start make of what must not be forgotten."""
        base = self.history.phase.base
        if record.guard is None or base is None or base.guard is None:
            return None
        return self._directory.read_table(record.guard.table), self._directory.read_table(base.guard.table)

    def _failed(self, name: str, reason: str) -> VerdictGiven:
        leader = self.history.leader.trial if self.history.leader else None
        return VerdictGiven(name, reason, None, None, failed=True, leader=leader)

    def _table(self, trial: str) -> Evaluation | None:
        """A trial's evaluation of the whole validation split."""
        look = self.history.trial(trial).full
        return self._directory.read_table(look.table) if look else None

    def _restore(self, record: TrialRecord) -> Asking[None]:
        """Put the learner where the journal says the trial is, repeating what was done after the last save."""
        trial = record.trial
        step, folder = record.first_step, None
        for saved in reversed(record.checkpoints):
            if folder := self.checkpoints.find(saved.id):
                step, self._at = saved.step, saved.id
                break
        if folder:
            yield Ask("load", (folder, trial.recipe, trial.seed))
        elif trial.kind == "average":
            yield Ask("average", ([self.checkpoints.path(c) for c in trial.of], trial.recipe, trial.seed))
        elif trial.start is None:
            yield Ask("initial", (trial.recipe, trial.seed), {"skip_examples": trial.skip_examples})
        elif trial.start == self.history.phase.started.start:
            start = self.checkpoints.path(trial.start)
            yield Ask("adopt", (start, trial.recipe, trial.seed), {"skip_examples": trial.skip_examples})
        else:
            yield Ask(
                "load",
                (self.checkpoints.path(trial.start), trial.recipe, trial.seed),
                {"carry": trial.carry, "skip_examples": trial.skip_examples},
            )
        for done in record.done:
            if done.step > step and done.progress:
                window = done.window
                yield from self._fit(trial.id, done.step - window.steps)
                repeated = yield self._advance(window, account="other")
                yield from self._note_fit(trial.id, done.step)
                if not _same(repeated.loss, done.progress.loss):
                    yield self._journal.append(ReplayDiffered(trial.id, done.progress.loss, repeated.loss))
        if record.done and record.pending is None:
            # A kill may have come between a window and its look or its reading.
            yield from self._look(record.done[-1].window)
            read = record.readings[-1].step if record.readings else -1
            if read < record.step and (reading := read_stability(self._plan, self.history, trial.id)):
                yield self._journal.append(reading)
            if not self._saved_at(self.history.trial(trial.id)) and self._save_due(trial.id):
                yield from self._save(trial.id)

    def _saved_at(self, record: TrialRecord) -> bool:
        return any(saved.step == record.step and self.checkpoints.find(saved.id) for saved in record.checkpoints)

    def _save_due(self, name: str) -> bool:
        """Saved is as often as is cheap, so that a kill costs little.

        A look that is the best so far is what overfitting goes back to: where no clock may decide anything it is saved
        whatever that takes. Of a trunk from nothing, whose cooldown begins well before its best look where it overfits,
        and of a restart, which follows on overfitting, it waits for no least number of seconds.
        """
        record = self.history.trial(name)
        last = record.done[-1]
        if last.progress is None or not last.progress.finite:
            return False
        saved = record.checkpoints[-1].step if record.checkpoints else record.first_step
        unsaved = sum(r.train_seconds for r in record.done if r.step > saved)
        share = SAVE_COST * self._save_seconds
        best = False
        if record.trial.kind != "probe" and last.evaluation:
            phase, last_look = self.history.phase, record.curve[-1]
            best = all(look_gain(phase, last_look, look) > 0 for look in record.curve[:-1])
        if best and not self._plan.timed:
            return True
        from_nothing = record.trial.kind == "trunk" and not self.history.phase.started.facts.pretrained
        soon = best and (from_nothing or record.trial.move == RESTART)
        return unsaved >= (share if soon else max(SAVE_SECONDS, share))

    def _save(self, name: str) -> Asking[None]:
        step = self.history.trial(name).step
        checkpoint = f"{name}@{step}"
        staged = self.checkpoints.stage(checkpoint)
        yield Ask("save", (staged,), account="save", then=lambda _: self.checkpoints.put(checkpoint, staged))
        self._at = checkpoint
        entry = self._journal.append(CheckpointSaved(checkpoint, name, step))
        self._save_seconds = entry.own("save")
        self._discard()
        yield entry

    def _discard(self) -> None:
        """Delete the checkpoints that nothing can ask for any more."""
        self.checkpoints.keep_only(needed(self.history))


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
