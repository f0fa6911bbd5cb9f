"""The live view of a run, on stderr: a small panel on a terminal, one plain line per event elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from multistep.core.choice.allowance import seconds_per_step
from multistep.core.choice.windows import left_by_curve
from multistep.core.values.events import (
    BaselineScored,
    Entry,
    Evaluated,
    GuardScored,
    MovesEnded,
    PhaseReused,
    PhaseStarted,
    ReplayDiffered,
    RunFinished,
    RunInterrupted,
    RunResumed,
    ShipDecided,
    StabilityRead,
    TrialStarted,
    VerdictGiven,
    WindowDone,
    WindowPlanned,
)
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.units import Unit, format_seconds
from multistep.engine.result import trial_entry
from multistep.report.state import stopped_words
from multistep.report.summary import used
from multistep.report.words import (
    changes,
    clean,
    moves_ended_sentence,
    number,
    over_control,
    reused_sentence,
    title,
    with_interval,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

REFRESHES_PER_SECOND = 2  # more would take time from training on a small machine
VERDICTS_SHOWN = 3
WRAPPED = ("verdict", "moves")  # rows that are said in full


class LiveView:
    """Shows a run while it goes on. `on_entry` gets each journal entry and the history after it.

    Everything shown is read off the history, so that a resumed run looks as if it had never stopped. `now` is
    the view's own clock, which ticks between entries.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        out: Path,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.console import Console

        self._plan = plan
        self._out = out
        self._quiet = False
        self._console = console or Console(stderr=True)
        self._now = now
        # One tuple, so that the refreshing thread never sees an entry with another one's history.
        self._seen: tuple[Entry | None, History, float] = (None, History(), now())
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal and not self._console.is_dumb_terminal:
            from rich.live import Live

            # stdout is left alone: what is piped from there is the run's result.
            self._live = Live(
                console=self._console,
                get_renderable=self.render,
                refresh_per_second=REFRESHES_PER_SECOND,
                redirect_stdout=False,
            )
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def on_entry(self, entry: Entry, history: History) -> None:
        """Take notice of one entry."""
        self._seen = (entry, history, self._now())
        if self._quiet or self._live is not None:
            return
        if line := plain_line(self._plan, entry, history):
            try:
                self._console.file.write(f"{format_seconds(history.seconds):>7}  {clean(line)}\n")
                self._console.file.flush()
            except OSError:
                self._quiet = True  # nobody reads any more, which is no reason to end a run

    # The panel --------------------------------------------------------------------------------------

    def render(self) -> RenderableType:
        """The panel as it stands now."""
        from rich import box
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        entry, history, seen_at = self._seen
        ticking = 0.0 if history.finished else max(0.0, self._now() - seen_at)
        rows = Table.grid(padding=(0, 2))
        rows.add_column(no_wrap=True, style="dim")
        rows.add_column(ratio=1)
        rows.add_row("budget", self._budget(history, ticking))
        for name, text in self._rows(entry, history):
            rows.add_row(name, Text(clean(text), overflow="ellipsis", no_wrap=name not in WRAPPED))
        title = Text(clean(f"{self._plan.task}, {self._plan.data}"), style="bold", overflow="ellipsis")
        below = Text(clean(str(self._out)))
        return Panel(rows, title=title, subtitle=below, box=box.ROUNDED, title_align="left", subtitle_align="right")

    def _budget(self, history: History, ticking: float) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        spent = history.seconds + ticking
        share, words = _used(self._plan, history, spent)
        if share is None:
            return words
        row = Table.grid(padding=(0, 2))
        row.add_column(ratio=1, min_width=8)
        row.add_column(no_wrap=True)
        row.add_row(ProgressBar(total=1.0, completed=min(1.0, share)), words)
        return row

    def _rows(self, entry: Entry | None, history: History) -> list[tuple[str, str]]:
        if not history.phases:
            return [("phase", "reading the data and building the model")]
        phase = history.phase
        metric = metric_of(phase.started)
        trial = phase.unfinished or next(reversed(list(phase.trials.values())), None)
        rows = [("phase", f"{_place(self._plan, history)}{_doing(entry, history)}")]
        if trial is not None:
            rows.append(("trial", _trial_words(history, trial)))
            if progress := trial.done[-1].progress if trial.done else None:
                last = trial.done[-1].window.segments[-1].rates()[-1]
                rows.append(("training", f"step {trial.step:,}   loss {number(progress.loss)}   rate {last:.3g}"))
            else:
                rows.append(("why", trial.reason))
            if trial.curve:
                rows.append(("validation", _look_words(trial)))
        if baseline := next((b for b in history.baselines if b.split == "validation"), None):
            rows.append(("baseline", f"{with_interval(baseline.interval)}   {baseline.name}"))
        if (trunk := phase.trunk) and trunk.reading:
            rows.append(
                (
                    "stability",
                    f"{trunk.reading.stability.value}: {_forecast_words(trunk.reading, metric.unit)}",
                )
            )
        shown = history.verdicts[-VERDICTS_SHOWN:]
        if history.leader and history.leader not in shown:
            shown = (history.leader, *shown[1:])  # what stands is told as long as it stands
        rows += [("verdict", _verdict_words(history, verdict)) for verdict in shown]
        if phase.moves_ended:
            rows.append(("moves", moves_ended_sentence(phase.moves_ended.reason)))
        if history.test:
            rows.append(("test", f"{with_interval(history.test.interval)}   {metric.unit}"))
        return rows


# Words ----------------------------------------------------------------------------------------------


def plain_line(plan: Plan, entry: Entry, history: History) -> str | None:
    """What a log says of an entry; None where it is not worth a line."""
    event = entry.event
    match event:
        case PhaseStarted():
            facts = event.facts
            what = f"{facts.description}, {facts.parameters:,} parameters, on {facts.device}"
            return f"phase {_place(plan, history)}: {what}" + "".join(
                f"\n         note: {note}" for note in facts.notes
            )
        case TrialStarted():
            record = history.trial(event.trial.id)
            place = (
                f", from step {record.first_step}, rate {event.trial.learning_rate:.3g}" if not event.trial.of else ""
            )
            return f"{_trial_words(history, record)}{place}: {event.reason}"
        case WindowDone() if not event.progress.finite:
            return f"{event.trial}: the training loss is not finite after step {history.trial(event.trial).step}"
        case Evaluated(split="test"):
            of = " before training" if history.trial(event.trial).trial.kind == "base" else ""
            return f"test{of} {with_interval(event.interval)}"
        case Evaluated(sample=True):
            record = history.trial(event.trial)
            progress = record.done[-1].progress if record.done else None
            loss = f"training loss {number(progress.loss)}, " if progress else ""
            return f"{_title(history, event.trial)}, step {event.step}: {loss}validation {_look_words(record)}"
        case Evaluated():
            return f"{event.trial}, step {event.step}: validation in full {with_interval(event.interval)}"
        case GuardScored():
            guard = history.phase.started.guard
            what = f"{guard.metric} on {guard.data}" if guard else "guard"
            return f"{event.trial}: {what}, not to be forgotten, {with_interval(event.interval)}"
        case StabilityRead() if left_by_curve(plan, history.trial(event.trial)):
            place = f"{_title(history, event.trial)} left at step {event.step}"
            return f"{place}, {event.stability.value}: {event.reason}"
        case VerdictGiven():
            return f"verdict: {_verdict_words(history, event)}"
        case MovesEnded():
            return moves_ended_sentence(event.reason)
        case PhaseReused():
            return reused_sentence(plan.phase(event.phase).name, event.run, event.key)
        case ShipDecided():
            return event.reason
        case BaselineScored():
            return f"baseline {event.name}, {event.split} {with_interval(event.interval)}"
        case RunResumed():
            return f"resumed; {format_seconds(history.seconds)} were spent before"
        case RunInterrupted():
            return f"stopped by {event.signal}"
        case ReplayDiffered():
            return f"{event.trial}: a repeated window gave {event.repeated:.6g}, before {event.loss:.6g}"
        case RunFinished():
            took = f"{history.steps:,} steps in {format_seconds(history.seconds)}"
            return f"finished ({stopped_words(event.stopped)}): {took}"
        case _:
            return None


def _place(plan: Plan, history: History) -> str:
    started = history.phase.started
    return f"{started.phase + 1} of {plan.phase_count}, {started.name}"


def _doing(entry: Entry | None, history: History) -> str:
    match entry.event if entry else None:
        case WindowPlanned(window=window):
            speed = seconds_per_step(history.phase)
            about = f", about {format_seconds(window.steps * speed)}" if speed else ""
            return f": training {window.steps:,} steps{about}"
        case WindowDone():
            return ": evaluating"
        case RunFinished():
            return ": finished"
        case _:
            return ""


def _look_words(record: TrialRecord) -> str:
    curve = record.curve
    words = with_interval(curve[-1].interval)
    if len(curve) > 1:
        words += f", {curve[-1].interval.score - curve[-2].interval.score:+.4f}"
    return words


def _forecast_words(reading: StabilityRead, unit: str) -> str:
    if not math.isfinite(reading.expected):
        return reading.reason
    return (
        f"{reading.expected:.3g} {unit} still to come, at most {reading.high:.3g} (tolerance {reading.tolerance:.2g})"
    )


def _title(history: History, name: str) -> str:
    record = history.trial(name)
    return title(trial_entry(history.phases[record.trial.phase], record))


def _trial_words(history: History, record: TrialRecord) -> str:
    entry = trial_entry(history.phases[record.trial.phase], record)
    changed = changes(entry) if record.trial.kind not in ("trunk", "probe") else ""  # their rate is said anyway
    return f"{title(entry)} ({changed})" if changed else title(entry)


def _verdict_words(history: History, verdict: VerdictGiven) -> str:
    """`keep 0.round-1.dropout-up (move dropout-up, round 1) 1.58 [..]: why; over 0.round-1.control: +0.02 [..]`."""
    record = history.trial(verdict.trial)
    entry = trial_entry(history.phases[record.trial.phase], record)
    who = f"{verdict.word} {verdict.trial}"
    if record.trial.kind in ("move", "average"):
        who += f" ({title(entry)})"
    score = f" {with_interval(verdict.interval)}" if verdict.interval else ""
    gain = f"; {over_control(entry)}" if entry["gain"] else ""
    return f"{who}{score}: {verdict.reason}{gain}"


def _used(plan: Plan, history: History, spent: float) -> tuple[float | None, str]:
    """The used share of the budget, and how that is said; no share without a budget."""
    budget = plan.budget
    if budget is None:
        return None, f"{format_seconds(spent)} spent, no limit; {history.steps:,} steps"
    real = used(budget, history, spent)
    if budget.unit is Unit.SECONDS:
        return real / budget.value, f"{_clock(max(0.0, budget.value - real))} left of {budget}"
    done = f"{real:.1f}" if budget.unit is Unit.EPOCHS else f"{real:,.0f}"
    return real / budget.value, f"{done} of {budget}, {_clock(spent)} spent"


def _clock(seconds: float) -> str:
    """Whole seconds: a digit behind the point would flicker."""
    return format_seconds(float(round(seconds)))
