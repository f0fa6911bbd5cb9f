"""The events of a run, as they stand in its journal. Everything else about a run is folded from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from multistep.core.evidence.metric import Goal, Interval
from multistep.core.evidence.stability import Stability
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Facts, Fit, Progress, Trial, Weighed, Window

Account = Literal["train", "evaluate", "save", "compile", "other"]
ACCOUNTS: tuple[Account, ...] = ("train", "evaluate", "save", "compile", "other")


@dataclass(frozen=True)
class RunStarted:
    plan: str  # its hash
    event: Literal["run_started"] = "run_started"


@dataclass(frozen=True)
class RunResumed:
    """`lost_seconds` were spent after the last entry and before the kill; they count against the budget."""

    lost_seconds: float
    event: Literal["run_resumed"] = "run_resumed"


@dataclass(frozen=True)
class RunInterrupted:
    signal: str
    event: Literal["run_interrupted"] = "run_interrupted"


@dataclass(frozen=True)
class Guarded:
    """What a phase must not forget, resolved: `data` as people read it, the metric and its unit.

    `at_most_worse` in that unit is the plan's; None leaves it to the score before the phase.
    """

    data: str
    metric: str
    unit: str
    at_most_worse: float | None = None


@dataclass(frozen=True)
class PhaseStarted:
    """`recipe` is the resolved one; `comparable` whether the leader of earlier phases may be compared.

    `goal` and `unit` are those of a metric that is a user's function, since its name tells them to nobody.
    """

    phase: int
    name: str
    metric: str
    recipe: Recipe
    facts: Facts
    rate_open: bool
    comparable: bool
    start: str | None
    goal: Goal | None = None
    unit: str | None = None
    guard: Guarded | None = None
    event: Literal["phase_started"] = "phase_started"


@dataclass(frozen=True)
class TrialStarted:
    """`weighed` are the candidates that stood beside the trial when it was proposed, itself among them."""

    trial: Trial
    reason: str
    weighed: tuple[Weighed, ...] = ()
    event: Literal["trial_started"] = "trial_started"


@dataclass(frozen=True)
class Fitted:
    """From `step` of the phase on, a trial's steps are computed so: it was measured, or memory ran out meanwhile."""

    trial: str
    step: int
    fit: Fit
    event: Literal["fitted"] = "fitted"


@dataclass(frozen=True)
class WindowPlanned:
    window: Window
    event: Literal["window_planned"] = "window_planned"


@dataclass(frozen=True)
class WindowDone:
    trial: str
    progress: Progress
    event: Literal["window_done"] = "window_done"


@dataclass(frozen=True)
class Evaluated:
    """A look at the validation split (`sample`: its fixed part), or the one at the test split.

    `table` names the evaluation's columns beside the journal by their hash; `step` counts the phase's steps
    up to this checkpoint; `scores` holds every metric of the task.
    """

    trial: str
    step: int
    split: Literal["validation", "test"]
    sample: bool
    interval: Interval
    scores: Mapping[str, float]
    table: str
    event: Literal["evaluated"] = "evaluated"


@dataclass(frozen=True)
class GuardScored:
    """A judged trial's score on the fixed sample of what its phase must not forget; `table` as of `Evaluated`."""

    trial: str
    interval: Interval
    table: str
    event: Literal["guard_scored"] = "guard_scored"


@dataclass(frozen=True)
class StabilityRead:
    """What a curve shows after a look: what the horizon is expected to bring still, at most `high` (95%).

    `loss` is what the loss shows beside a metric that is not the loss; None where there is no such.
    """

    trial: str
    step: int
    stability: Stability
    expected: float
    high: float
    tolerance: float
    reason: str
    loss: Stability | None = None
    event: Literal["stability_read"] = "stability_read"


@dataclass(frozen=True)
class CheckpointSaved:
    id: str
    trial: str
    step: int
    event: Literal["checkpoint_saved"] = "checkpoint_saved"


@dataclass(frozen=True)
class ReplayDiffered:
    """A window repeated after a kill did not give the loss it gave before: this machine is not exact."""

    trial: str
    loss: float
    repeated: float
    event: Literal["replay_differed"] = "replay_differed"


@dataclass(frozen=True)
class VerdictGiven:
    """What is thought of a judged trial: whether it leads now, and whether that is proven; or that it failed.

    `leader` is the trial that leads after this verdict, which may be an older one: everything that was measured is
    weighed anew. `expected` holds each judged trial's expected gain over the first one, in the metric's unit, and
    `ahead` by how much this trial is expected to be better than the plain run's `rival`, with standard deviation
    `spread`; `presumed` is the standard deviation of what it would bring, before its score was seen. The claim is
    about the same two: `improvement` as it was measured with its 95% interval, and of attempts, numbered by
    `attempt`, the `critical` number of standard errors that was asked. `gain` is what a move brought over its
    sibling `control`, with its 95% interval. In a phase with a guard, `worse` is by how much the trial is worse
    than the phase's start on the guard's data, in its metric's unit (below 0: better), with its 95% interval; one
    that `forgets` is worse by more than `at_most_worse`, and cannot lead.

    Where another trial that forgets nothing scored higher than who leads, `passed_over` names it, and `passed_errors`
    says by how many standard errors. `passed_loss` is its loss beside the metric, and `leading_loss` that of who leads,
    where that is the lower one.
    """

    trial: str
    reason: str
    checkpoint: str | None
    interval: Interval | None
    leads: bool = False
    proven: bool = False
    failed: bool = False
    leader: str | None = None
    expected: Mapping[str, float] = field(default_factory=dict)
    rival: str | None = None
    ahead: float | None = None
    spread: float | None = None
    presumed: float | None = None
    improvement: float | None = None
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    attempt: int | None = None
    critical: float | None = None
    control: str | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    worse: float | None = None
    worse_low: float | None = None
    worse_high: float | None = None
    at_most_worse: float | None = None
    forgets: bool = False
    passed_over: str | None = None
    passed_errors: float | None = None
    passed_loss: float | None = None
    leading_loss: float | None = None
    event: Literal["verdict"] = "verdict"

    @property
    def word(self) -> str:
        """`leads`, `behind` or `failed`, as it was when the verdict was given."""
        return "failed" if self.failed else "leads" if self.leads else "behind"


@dataclass(frozen=True)
class TrialEnded:
    """`for_probes`: a trunk that had measured the machine's speed and made way for probes of the rate."""

    trial: str
    for_probes: bool = False
    event: Literal["trial_ended"] = "trial_ended"


@dataclass(frozen=True)
class LanesOpened:
    """From here on trials run side by side, in so many lanes; each is told by what it computes on."""

    lanes: tuple[str, ...]
    event: Literal["lanes_opened"] = "lanes_opened"


@dataclass(frozen=True)
class LaneLost:
    """The process of a lane ended by itself, or hung and was ended.

    The trial that ran there (None: none yet) goes on from its last save.
    """

    lane: int
    trial: str | None
    reason: str
    event: Literal["lane_lost"] = "lane_lost"


@dataclass(frozen=True)
class MovesEnded:
    """Why no further move is tried in a phase; `budget` tells that there was no time for another."""

    phase: int
    reason: str
    budget: bool
    weighed: tuple[Weighed, ...] = ()
    event: Literal["moves_ended"] = "moves_ended"


@dataclass(frozen=True)
class PhaseReused:
    """The entries of this phase that follow were taken from another run, whose phase had the same key."""

    phase: int
    key: str
    run: str
    event: Literal["phase_reused"] = "phase_reused"


@dataclass(frozen=True)
class BaselineScored:
    name: str
    split: Literal["validation", "test"]
    interval: Interval
    scores: Mapping[str, float]
    table: str
    event: Literal["baseline"] = "baseline"


@dataclass(frozen=True)
class ShipDecided:
    """What the run gives to its user, decided on validation, before the test split is opened."""

    ships: Literal["network", "baseline"]
    reason: str  # one sentence, with the numbers
    event: Literal["ship_decided"] = "ship_decided"


@dataclass(frozen=True)
class PhaseFinished:
    phase: int
    head: str | None
    stopped: str
    event: Literal["phase_finished"] = "phase_finished"


@dataclass(frozen=True)
class RunFinished:
    stopped: str
    weights: str  # SHA-256 of the exported weights
    event: Literal["run_finished"] = "run_finished"


Event = (
    RunStarted
    | RunResumed
    | RunInterrupted
    | PhaseStarted
    | TrialStarted
    | Fitted
    | WindowPlanned
    | WindowDone
    | Evaluated
    | GuardScored
    | StabilityRead
    | CheckpointSaved
    | ReplayDiffered
    | VerdictGiven
    | TrialEnded
    | LanesOpened
    | LaneLost
    | MovesEnded
    | PhaseReused
    | BaselineScored
    | ShipDecided
    | PhaseFinished
    | RunFinished
)


@dataclass(frozen=True)
class Entry:
    """One line of the journal: an event, and the seconds of each account spent since the line before.

    Where trials run side by side, `lane` is where it happened, counted from 1 (0: nowhere), and `took` the seconds that
    this lane spent since its own line before; `spent` is the wall's time, which passes for all lanes at once.
    """

    event: Event
    spent: Mapping[Account, float] = field(default_factory=dict)
    at: str = ""  # wall time, ISO 8601, for people alone
    lane: int = 0
    took: Mapping[Account, float] | None = None

    def own(self, account: Account) -> float:
        """The seconds that whatever this tells of took."""
        return (self.spent if self.took is None else self.took).get(account, 0.0)
