"""fold(entries) -> History: all that decisions may know of a run."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from multistep.core.values.events import (
    Account,
    BaselineScored,
    CheckpointSaved,
    Entry,
    Evaluated,
    Event,
    Fitted,
    GuardScored,
    LaneLost,
    LanesOpened,
    MovesEnded,
    PhaseFinished,
    PhaseReused,
    PhaseStarted,
    RunFinished,
    RunResumed,
    RunStarted,
    ShipDecided,
    StabilityRead,
    TrialEnded,
    TrialStarted,
    VerdictGiven,
    WindowDone,
    WindowPlanned,
)
from multistep.core.values.trial import Fit, Progress, Trial, Weighed, Window


@dataclass(frozen=True)
class WindowRecord:
    """A window as planned, what it did once done, the seconds it took, and the look at its end."""

    window: Window
    step: int  # of the phase, at the window's end
    progress: Progress | None = None
    train_seconds: float = 0.0
    evaluation: Evaluated | None = None
    evaluate_seconds: float = 0.0


@dataclass(frozen=True)
class TrialRecord:
    trial: Trial
    first_step: int  # of the phase, where the trial forks
    windows: tuple[WindowRecord, ...] = ()
    readings: tuple[StabilityRead, ...] = ()
    checkpoints: tuple[CheckpointSaved, ...] = ()
    full: Evaluated | None = None
    full_seconds: float = 0.0
    guard: GuardScored | None = None
    guard_seconds: float = 0.0
    verdict: VerdictGiven | None = None
    reason: str = ""
    weighed: tuple[Weighed, ...] = ()
    over: str | None = None  # who led when it was proposed
    ended: bool = False
    for_probes: bool = False
    lane: int = 0  # where it runs, counted from 1; 0 where trials follow each other
    began: float = 0.0  # the budget clock when it was begun there,
    until: float = 0.0  # and when its own work was last told of: its verdict may wait for others
    beside: tuple[str, ...] = ()  # the trials that were under way when it was begun
    fits_before: int = 0  # of its phase, when it was begun

    @property
    def forecast(self) -> Weighed | None:
        """What was expected of the trial when it was chosen; None where nothing was weighed."""
        return next((w for w in self.weighed if w.chosen), None)

    @property
    def done(self) -> tuple[WindowRecord, ...]:
        return tuple(record for record in self.windows if record.progress is not None)

    @property
    def pending(self) -> WindowRecord | None:
        """The window that was planned and not finished, if any."""
        return self.windows[-1] if self.windows and self.windows[-1].progress is None else None

    @property
    def step(self) -> int:
        """The phase's steps at the end of what is done."""
        return self.done[-1].step if self.done else self.first_step

    @property
    def curve(self) -> tuple[Evaluated, ...]:
        """The looks at the fixed part of the validation split, in order."""
        return tuple(record.evaluation for record in self.windows if record.evaluation is not None)

    @property
    def last_checkpoint(self) -> CheckpointSaved | None:
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def seconds(self) -> float:
        """What its training and its looks took."""
        return sum(r.train_seconds + r.evaluate_seconds for r in self.windows)

    @property
    def reading(self) -> StabilityRead | None:
        return self.readings[-1] if self.readings else None


@dataclass(frozen=True)
class PhaseRecord:
    started: PhaseStarted
    start_seconds: float  # the budget clock when the phase began
    trials: Mapping[str, TrialRecord] = field(default_factory=dict)
    finished: PhaseFinished | None = None
    moves_ended: MovesEnded | None = None
    fitted: tuple[Fitted, ...] = ()

    def fits_at(self, trial: str, step: int) -> dict[str, Fit]:
        """How steps were computed when a trial came to a step of the phase, by what it is of: as it found itself, and
        others before it was begun.
        """
        before = self.trials[trial].fits_before
        known = [f for i, f in enumerate(self.fitted) if (f.step <= step if f.trial == trial else i < before)]
        return {f.fit.of: f.fit for f in known}

    def of_kind(self, kind: str) -> tuple[TrialRecord, ...]:
        return tuple(record for record in self.trials.values() if record.trial.kind == kind)

    @property
    def trunk(self) -> TrialRecord | None:
        """The trunk that is going on: the last one proposed."""
        return trunks[-1] if (trunks := self.of_kind("trunk")) else None

    @property
    def control(self) -> TrialRecord | None:
        """The last control of the plain run, which belongs to no round."""
        found = [record for record in self.of_kind("control") if record.trial.length is None]
        return found[-1] if found else None

    @property
    def base(self) -> TrialRecord | None:
        """The phase's start as a judged trial, where there is one: weights that the phase has not touched."""
        return found[0] if (found := self.of_kind("base")) else None

    @property
    def unfinished(self) -> TrialRecord | None:
        """The trial that was started and has not ended: what a resumed run goes on with."""
        return next(iter(self.under_way), None)

    @property
    def under_way(self) -> tuple[TrialRecord, ...]:
        """The trials that were begun and have not ended, in the order in which they were proposed."""
        return tuple(record for record in self.trials.values() if not record.ended)

    def checkpoint(self, name: str) -> CheckpointSaved | None:
        return next((c for t in self.trials.values() for c in t.checkpoints if c.id == name), None)


@dataclass(frozen=True)
class History:
    phases: tuple[PhaseRecord, ...] = ()
    spent: Mapping[Account, float] = field(default_factory=dict)
    took: Mapping[Account, float] = field(default_factory=dict)  # the same, summed over lanes that ran side by side
    lanes: tuple[str, ...] = ()  # that were opened last
    lost: tuple[LaneLost, ...] = ()
    plan: str | None = None
    leader: VerdictGiven | None = None  # the verdict of the trial with the highest expected score
    baselines: tuple[BaselineScored, ...] = ()
    shipping: ShipDecided | None = None
    test: Evaluated | None = None
    base_test: Evaluated | None = None  # the model before training on the test split, where it does not lead
    finished: RunFinished | None = None
    looks: int = 0  # at the validation split, sampled or whole
    reused: tuple[int, ...] = ()  # phases that another run has done
    kills: int = 0

    @property
    def seconds(self) -> float:
        """The budget clock."""
        return sum(self.spent.values())

    @property
    def phase(self) -> PhaseRecord:
        """The phase that is going on, or the last one."""
        return self.phases[-1]

    @property
    def trained(self) -> bool:
        """Whether there is any window to show, be it of this run or of a phase that another has done."""
        return any(t.done for p in self.phases for t in p.trials.values())

    @property
    def steps(self) -> int:
        return sum(r.progress.steps for r in self._windows() if r.progress)

    @property
    def examples(self) -> int:
        return sum(r.progress.examples for r in self._windows() if r.progress)

    @property
    def tokens(self) -> int:
        return sum(r.progress.tokens for r in self._windows() if r.progress)

    @property
    def expected(self) -> Mapping[str, float]:
        """Each judged trial's expected gain over the first one of its phase, in the metric's unit."""
        last = [v for v in self.verdicts if v.expected]
        return last[-1].expected if last else {}

    @property
    def verdicts(self) -> tuple[VerdictGiven, ...]:
        return tuple(t.verdict for p in self.phases for t in p.trials.values() if t.verdict)

    @property
    def base(self) -> TrialRecord | None:
        """The model as the last phase found it, if that was scored."""
        found = self.phase.of_kind("base") if self.phases else ()
        return found[0] if found and found[0].full else None

    @property
    def untrained_leads(self) -> bool:
        """Whether who leads is a model before its training."""
        return self.leader is not None and self.trial(self.leader.trial).trial.kind == "base"

    def trial(self, name: str) -> TrialRecord:
        return next(p.trials[name] for p in self.phases if name in p.trials)

    def _windows(self) -> Iterable[WindowRecord]:
        return (r for p in self.phases for t in p.trials.values() for r in t.windows)


def fold(entries: Iterable[Entry], history: History | None = None) -> History:
    """The history after these entries."""
    return functools.reduce(_after, entries, history or History())


def _after(history: History, entry: Entry) -> History:
    spent = dict(history.spent)
    for account, seconds in entry.spent.items():
        spent[account] = spent.get(account, 0.0) + seconds
    took = dict(history.took)
    for account, seconds in (entry.spent if entry.took is None else entry.took).items():
        took[account] = took.get(account, 0.0) + seconds
    history = replace(history, spent=spent, took=took)
    event = entry.event
    history = _after_event(history, event, entry)
    if entry.lane and (name := getattr(event, "trial", None)) and isinstance(name, str):
        record = history.trial(name)
        began = record.began if entry.lane == record.lane else history.seconds  # one that was lost goes on elsewhere
        history = _with_trial(history, replace(record, lane=entry.lane, began=began, until=history.seconds))
    return history


def _after_event(history: History, event: Event, entry: Entry) -> History:
    match event:
        case RunStarted():
            return replace(history, plan=event.plan)
        case RunResumed():
            lost = {**history.spent, "other": history.spent.get("other", 0.0) + event.lost_seconds}
            return replace(history, spent=lost, kills=history.kills + 1)
        case PhaseReused():
            return replace(history, reused=(*history.reused, event.phase))
        case PhaseStarted():
            record = PhaseRecord(event, history.seconds)
            return replace(
                history,
                phases=(*history.phases, record),
                leader=history.leader if event.comparable else None,
            )
        case TrialStarted():
            return _with_trial(
                history,
                TrialRecord(
                    event.trial,
                    _first_step(history.phase, event.trial),
                    reason=event.reason,
                    weighed=event.weighed,
                    over=history.leader.trial if history.leader else None,
                    lane=entry.lane,
                    began=history.seconds,
                    until=history.seconds,
                    beside=tuple(t.trial.id for t in history.phase.under_way),
                    fits_before=len(history.phase.fitted),
                ),
            )
        case Fitted():
            return _with_phase(history, replace(history.phase, fitted=(*history.phase.fitted, event)))
        case WindowPlanned():
            trial = history.trial(event.window.trial)
            record_ = WindowRecord(event.window, trial.step + event.window.steps)
            return _with_trial(history, replace(trial, windows=(*trial.windows, record_)))
        case WindowDone():
            trial = history.trial(event.trial)
            done = replace(trial.windows[-1], progress=event.progress, train_seconds=entry.own("train"))
            return _with_trial(history, replace(trial, windows=(*trial.windows[:-1], done)))
        case Evaluated():
            return _with_evaluation(history, event, entry.own("evaluate"))
        case GuardScored():
            trial = history.trial(event.trial)
            return _with_trial(history, replace(trial, guard=event, guard_seconds=entry.own("evaluate")))
        case StabilityRead():
            trial = history.trial(event.trial)
            return _with_trial(history, replace(trial, readings=(*trial.readings, event)))
        case CheckpointSaved():
            trial = history.trial(event.trial)
            return _with_trial(history, replace(trial, checkpoints=(*trial.checkpoints, event)))
        case VerdictGiven():
            trial = history.trial(event.trial)
            history = _with_trial(history, replace(trial, verdict=event, over=held_against(history, trial)))
            leader = history.trial(event.leader).verdict if event.leader else None
            return replace(history, leader=leader or history.leader)
        case TrialEnded():
            return _with_trial(history, replace(history.trial(event.trial), ended=True, for_probes=event.for_probes))
        case LanesOpened():
            return replace(history, lanes=event.lanes)
        case LaneLost():
            return replace(history, lost=(*history.lost, event))
        case MovesEnded():
            return _with_phase(history, replace(history.phase, moves_ended=event))
        case BaselineScored():
            return replace(history, baselines=(*history.baselines, event))
        case ShipDecided():
            return replace(history, shipping=event)
        case PhaseFinished():
            return _with_phase(history, replace(history.phase, finished=event))
        case RunFinished():
            return replace(history, finished=event)
        case _:
            return history


def held_against(history: History, record: TrialRecord) -> str | None:
    """Who led when what is expected of a trial was told; where nothing was weighed, who leads when it is judged: of
    trials side by side as of those that follow each other.
    """
    return record.over if record.forecast or history.leader is None else history.leader.trial


def _with_evaluation(history: History, event: Evaluated, seconds: float) -> History:
    if event.split == "test":
        leads = history.leader is not None and history.leader.trial == event.trial
        untouched = history.trial(event.trial).trial.kind == "base" and not leads
        return replace(history, base_test=event) if untouched else replace(history, test=event)
    history = replace(history, looks=history.looks + 1)
    trial = history.trial(event.trial)
    if not event.sample:
        trial = replace(trial, full=event, full_seconds=seconds)
    else:
        last = replace(trial.windows[-1], evaluation=event, evaluate_seconds=seconds)
        trial = replace(trial, windows=(*trial.windows[:-1], last))
    return _with_trial(history, trial)


def _first_step(phase: PhaseRecord, trial: Trial) -> int:
    if trial.start is None:
        return 0
    checkpoint = phase.checkpoint(trial.start)
    return checkpoint.step if checkpoint else 0  # a checkpoint of an earlier phase is this phase's step 0


def _with_trial(history: History, record: TrialRecord) -> History:
    phase = history.phases[record.trial.phase]
    trials = {**phase.trials, record.trial.id: record}
    phases = list(history.phases)
    phases[record.trial.phase] = replace(phase, trials=trials)
    return replace(history, phases=tuple(phases))


def _with_phase(history: History, record: PhaseRecord) -> History:
    return replace(history, phases=(*history.phases[:-1], record))
