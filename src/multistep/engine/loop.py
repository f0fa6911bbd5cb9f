"""The loop: propose -> run -> decide -> journal, for each phase of a plan, and the end of the run.

It yields each entry of the journal as it is written; whoever shows a run reads those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from multistep.core.allowance import CLOSING_SECONDS
from multistep.core.controller import propose, stopped
from multistep.core.events import (
    BaselineScored,
    Entry,
    Event,
    PhaseFinished,
    PhaseStarted,
    RunFinished,
    RunResumed,
    RunStarted,
    TrialStarted,
)
from multistep.core.history import History
from multistep.core.metric import metric_named
from multistep.core.plan import Plan
from multistep.core.units import Unit
from multistep.engine.card import model_card
from multistep.engine.checkpoints import publish
from multistep.engine.clock import BudgetClock, Heartbeat, seconds_lost
from multistep.engine.journal import Journal
from multistep.engine.learner import Learner, Readiness, Split, Workshop
from multistep.engine.plain import to_json
from multistep.engine.result import result_of
from multistep.engine.rundir import RunDirectory, plan_hash, write_atomically
from multistep.engine.trials import TrialRunner, scores_of
from multistep.errors import PlanError, RunDirectoryError, RunFailed


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
        self._trials: TrialRunner | None = None  # of the phase that is open

    @property
    def history(self) -> History:
        return self._journal.history

    def entries(self) -> Iterator[Entry]:
        """Run the plan to its end. Raises Interrupted, RunFailed, PlanError, DataError."""
        try:
            with Heartbeat(self._clock, self._directory.heartbeat, lambda: self.history.seconds):
                yield from self._begin()
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
        if not self._resuming or self.history.plan is None:
            yield self._append(RunStarted(plan))
        elif self.history.plan != plan:
            raise RunDirectoryError(
                f"{self._directory.folder}: holds the run of another plan ({self.history.plan}, this one is {plan}); "
                "name another folder with --out DIR, or resume that run with `multistep resume`"
            )
        elif not self.history.finished:
            yield self._append(RunResumed(seconds_lost(self._directory.heartbeat, self.history.seconds)))

    # Phases -----------------------------------------------------------------------------------------

    def _phase(self, index: int) -> Iterator[Entry]:
        trials = yield from self._open_phase(index)
        while True:
            if (record := self.history.phase.unfinished) is None:
                proposal = propose(self._plan, self.history)
                if proposal is None:
                    break
                yield self._append(TrialStarted(proposal.trial, proposal.reason))
                record = self.history.trial(proposal.trial.id)
            yield from trials.run(record)
        head = self._head()
        yield self._append(PhaseFinished(index, head, stopped(self._plan, self.history)))

    def _head(self) -> str | None:
        """Where the next phase goes on: the incumbent, if this phase made it, else the last control."""
        phase = self.history.phase
        incumbent = self.history.incumbent
        if incumbent and incumbent.trial in phase.trials:
            return incumbent.checkpoint
        judged = [t for t in phase.of_kind("control") if t.verdict and t.verdict.decision != "failed"]
        return judged[-1].checkpoints[-1].id if judged else None

    def _open_phase(self, index: int) -> Generator[Entry, None, TrialRunner]:
        trials, ready = self._opened(index)
        started = len(self.history.phases) > index
        self._record_readiness(index, ready, started=started)
        if not started:
            self._require_time()
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
            yield self._baseline(trials.learner, "validation")
        return trials

    def _opened(self, index: int) -> tuple[TrialRunner, Readiness]:
        learner, ready = self._workshop.open(self._plan, index, self._should_stop)
        self._trials = TrialRunner(self._plan, self._directory, self._journal, self._clock, learner, self._should_stop)
        return self._trials, ready

    def _require_time(self) -> None:
        """Raises PlanError if the budget is spent before a first step could be taken and evaluated."""
        budget = self._plan.budget
        if budget is None or budget.unit is not Unit.SECONDS or self.history.phases:
            return
        needed = self.history.seconds + self._clock.pending() + CLOSING_SECONDS
        if budget.value < needed:
            raise PlanError(
                f"budget is {budget}; starting and finishing alone take {needed:.0f}s here, and one evaluation comes "
                f"on top: give it at least {math.ceil(2 * needed)}s"
            )

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
            "folder": str(Path.cwd()),
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
        return self._append(BaselineScored(name, split, metric.interval(evaluation), scores_of(evaluation), table))

    # The end ----------------------------------------------------------------------------------------

    def _finish(self) -> Iterator[Entry]:
        incumbent = self.history.incumbent
        assert incumbent is not None, "a phase without a head has failed before"
        assert incumbent.checkpoint is not None, "a kept trial has a checkpoint"
        index = self._plan.phase_count - 1
        if (trials := self._trials) is None:
            trials, ready = self._opened(index)
            self._record_readiness(index, ready, started=True)
        learner = trials.learner
        trials.stand_at(incumbent.checkpoint, incumbent.trial)
        if self.history.phase.started.facts.test_tokens and self.history.test is None:
            # The one look at the test split: after the last verdict, for the winner alone.
            yield trials.evaluate(incumbent.trial, "test", sample=False)
        if self.history.test and not any(b.split == "test" for b in self.history.baselines):
            yield self._baseline(learner, "test")
        with self._clock.account("evaluate"):
            samples = [text.encode("utf-8", "replace").decode("utf-8") for text in learner.samples()]
        write_atomically(self._directory.samples, to_json(samples, indent=1))
        weights = self._export(learner)
        yield self._append(RunFinished(self.history.phase.finished.stopped, weights))  # type: ignore[union-attr]
        self._write_result()

    def _write_result(self) -> None:
        record = result_of(self.history, self._directory.read_table)
        write_atomically(self._directory.result, to_json(record, indent=1))

    def _failure(self, index: int) -> RunFailed:
        name = self.history.phases[index].started.name
        return RunFailed(
            f"phase '{name}' diverged and no checkpoint could be evaluated; lower recipe.learning_rate, raise "
            "recipe.warmup_steps, or check the data, and start a new run"
        )

    def _export(self, learner: Learner) -> str:
        weights = ""

        def write(folder: Path) -> None:
            nonlocal weights
            weights = learner.export(folder, model_card(self._plan, self.history))

        with self._clock.account("save"):
            publish(self._directory.model, write)
        return weights
