"""A phase's trials in several lanes at once: proposed one after the other, judged in the order of their proposals.

Where the clock decides nothing (`Plan.timed` is false), a trial is proposed when as many verdicts are known as lanes
allow, never by which lane was faster: such a run comes to the same trials and verdicts on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from multistep.core.choice.beside import propose_beside
from multistep.core.choice.verdicts import JUDGED
from multistep.core.values.events import Account, Entry, Event, LaneLost, TrialStarted
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Proposal
from multistep.engine.asking import Ask, Asking
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import Journal
from multistep.engine.lanes.hands import Answer, HandLost, Hands, differs
from multistep.engine.learner import Readiness
from multistep.engine.trials import TrialRunner, Worked
from multistep.errors import RunDirectoryError, RunFailed

MOST_LOSSES = 3  # of hands in the middle of one trial, before it is the trial that is thought to be at fault


class LaneJournal:
    """The run's journal as one lane writes it: each entry says where it happened, and what it took there."""

    def __init__(self, journal: Callable[[], Journal], lane: int) -> None:
        self._journal, self.lane = journal, lane
        self._took: dict[Account, float] = {}

    @property
    def history(self) -> History:
        return self._journal().history

    def charge(self, account: Account, seconds: float) -> None:
        self._took[account] = self._took.get(account, 0.0) + seconds

    def append(self, event: Event) -> Entry:
        took, self._took = self._took, {}
        return self._journal().append(event, lane=self.lane + 1, took=took)


@dataclass
class Job:
    """A trial under way in a lane, and what it has asked for."""

    name: str
    asking: Asking[Worked]
    asked: Ask | None = None


class SideBySide:
    """Runs the trials of a phase that is open in its first lane; the other lanes open meanwhile."""

    def __init__(
        self,
        plan: Plan,
        journal: Callable[[], Journal],
        clock: BudgetClock,
        hands: Hands,
        judges: TrialRunner,
        runner: Callable[[LaneJournal], TrialRunner],
        *,
        open_lane: Callable[[int], None],
        ready: Readiness,
    ) -> None:
        """`open_lane` asks a lane to open the phase that `ready` tells of; `runner` makes what runs trials in one, and
        `judges` gives the verdicts.
        """
        self._judges = judges
        self._plan, self._journal, self._clock, self._hands = plan, journal, clock, hands
        self._open_lane, self._ready = open_lane, ready
        self._journals = [LaneJournal(journal, lane) for lane in range(len(hands.names))]
        self._runners = [runner(each) for each in self._journals]
        self._jobs: dict[int, Job] = {}
        self._free = [0]  # lanes that are open and have nothing to do
        self._worked: dict[str, Worked] = {}
        self._losses: dict[str | None, int] = {}
        self._known: tuple[int, ...] | None = None  # what was known when there was last nothing to propose
        for lane in range(1, len(self._journals)):
            open_lane(lane)

    @property
    def history(self) -> History:
        return self._journal().history

    def started(self, proposal: Proposal) -> Entry:
        """Have a trial begun in the lane that is free next."""
        return self._journals[min(self._free)].append(TrialStarted(proposal.trial, proposal.reason, proposal.weighed))

    def run(self) -> Iterator[Entry]:
        """Until nothing is under way any more."""
        while self.history.phase.under_way:
            if self._plan.timed and (due := self._due()):
                yield from self._judge(due)
                continue
            yield from self._fill()
            if due := self._due():
                yield from self._judge(due)
                continue
            yield from self._turn()

    # Proposing and judging --------------------------------------------------------------------------

    def _fill(self) -> Iterator[Entry]:
        """Give each lane that is free something to do: what was begun and is in no lane first."""
        while self._free:
            busy = {*self._worked, *(job.name for job in self._jobs.values())}
            if left := [name for t in self.history.phase.under_way if (name := t.trial.id) not in busy]:
                lane = min(self._free)
                self._free.remove(lane)
                self._jobs[lane] = Job(left[0], self._runners[lane].work(self.history.trial(left[0])))
                yield from self._step(lane, None)
                continue
            if not self._may_propose() or (proposal := propose_beside(self._plan, self.history)) is None:
                self._known = self._now_known()
                return
            yield self.started(proposal)

    def _may_propose(self) -> bool:
        if not self._plan.timed and len(self.history.phase.under_way) >= len(self._journals):
            return False
        return self._known != self._now_known()

    def _now_known(self) -> tuple[int, ...]:
        """What changes proposals: trials that were begun, judged and ended."""
        trials = self.history.phase.trials.values()
        return (len(trials), sum(t.verdict is not None for t in trials), sum(t.ended for t in trials))

    def _due(self) -> TrialRecord | None:
        """The trial that is judged next, if its turn has come."""
        going = self.history.phase.under_way
        for place, record in enumerate(going):
            if record.trial.id not in self._worked:
                if record.trial.kind in JUDGED or not self._plan.timed:
                    return None  # those after it wait for its verdict
                continue
            full = len(going) >= len(self._journals) or self._known == self._now_known()
            return record if self._plan.timed or (place == 0 and full) else None
        return None

    def _judge(self, record: TrialRecord) -> Iterator[Entry]:
        name = record.trial.id
        yield from self._judges.judge(name, self._worked.pop(name))

    # Working ----------------------------------------------------------------------------------------

    def _turn(self) -> Iterator[Entry]:
        """Wait for the next answer of any lane, and go on with what asked for it."""
        lane, answer = self._hands.wait()
        if isinstance(answer.error, HandLost):
            yield from self._lost(lane, answer.error)
            return
        if lane not in self._jobs:
            self._opened(lane, answer)
            return
        yield from self._step(lane, answer)

    def _step(self, lane: int, answer: Answer | None) -> Iterator[Entry]:
        """Tell a trial what it asked for, and go on until it asks again or is done."""
        job = self._jobs[lane]
        error, value = (answer.error, answer.value) if answer else (None, None)
        if answer and job.asked:
            began = self._clock.pending()
            if error is None and job.asked.then:
                try:
                    value = job.asked.then(value)
                except Exception as met:
                    error = met
            after = self._clock.pending() - began
            self._journals[lane].charge(job.asked.account, answer.seconds + after)
        try:
            found = job.asking.throw(error) if error else job.asking.send(value)
            while isinstance(found, Entry):
                yield found
                found = next(job.asking)
        except StopIteration as end:
            del self._jobs[lane]
            self._free.append(lane)
            self._worked[job.name] = end.value
            return
        job.asked = found
        self._hands.begin(lane, found)

    # Hands that come and go -------------------------------------------------------------------------

    def _opened(self, lane: int, answer: Answer) -> None:
        if answer.error:
            raise answer.error
        if wrong := differs(self._ready, answer.value):
            raise RunDirectoryError(
                f"lane {lane + 1} ({self._hands.names[lane]}) does not see what the first one sees; {wrong}. Have the "
                "same data and the same versions everywhere, or run without that lane"
            )
        self._free.append(lane)
        self._known = None

    def _lost(self, lane: int, error: HandLost) -> Iterator[Entry]:
        """Go on with a lane's trial from its last save, in a hand of its own, unless it is thought to be at fault."""
        job = self._jobs.pop(lane, None)
        name = job.name if job else None
        yield self._journal().append(LaneLost(lane + 1, name, str(error)))
        self._losses[name] = self._losses.get(name, 0) + 1
        self._runners[lane].forget()
        self._free = [each for each in self._free if each != lane]
        if self._losses[name] >= MOST_LOSSES:
            if job is None:
                raise RunFailed(f"lane {lane + 1} ({self._hands.names[lane]}) cannot be started: {error}")
            failed = RunFailed(f"its process was lost {MOST_LOSSES} times ({error})")
            self._jobs[lane] = job
            job.asked = None
            yield from self._step(lane, Answer(error=failed))
            self._free.remove(lane)
        self._open_lane(lane)
