"""The live view of a run, on stderr: a small panel on a terminal, one plain line per event elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from multistep.core.allowance import seconds_per_step
from multistep.core.events import (
    BaselineScored,
    Entry,
    Evaluated,
    PhaseStarted,
    ReplayDiffered,
    RunFinished,
    RunInterrupted,
    RunResumed,
    StabilityRead,
    TrialStarted,
    VerdictGiven,
    WindowDone,
    WindowPlanned,
)
from multistep.core.history import History, TrialRecord
from multistep.core.metric import metric_named
from multistep.core.plan import Plan
from multistep.core.units import Unit, format_seconds
from multistep.core.windows import left_by_curve
from multistep.report.summary import clean, number, stretch, with_interval

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

REFRESHES_PER_SECOND = 2  # more would take time from training on a small machine
VERDICTS_SHOWN = 3


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
            rows.add_row(name, Text(clean(text), overflow="ellipsis", no_wrap=name != "verdict"))
        title = Text(clean(f"{self._plan.task}, {self._plan.data}"), style="bold", overflow="ellipsis")
        below = Text(clean(str(self._out)))
        return Panel(rows, title=title, subtitle=below, box=box.ROUNDED, title_align="left", subtitle_align="right")

    def _budget(self, history: History, ticking: float) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        spent = history.seconds + ticking
        used, words = _used(self._plan, history, spent)
        if used is None:
            return words
        row = Table.grid(padding=(0, 2))
        row.add_column(ratio=1, min_width=8)
        row.add_column(no_wrap=True)
        row.add_row(ProgressBar(total=1.0, completed=min(1.0, used)), words)
        return row

    def _rows(self, entry: Entry | None, history: History) -> list[tuple[str, str]]:
        if not history.phases:
            return [("phase", "reading the data and building the model")]
        phase = history.phase
        metric = metric_named(phase.started.metric)
        trial = phase.unfinished or next(reversed(list(phase.trials.values())), None)
        rows = [("phase", f"{_place(self._plan, history)}{_doing(entry, history)}")]
        if trial is not None:
            progress = trial.done[-1].progress if trial.done else None
            if progress:
                last = trial.done[-1].window.segments[-1].rates()[-1]
                rows.append(
                    (
                        stretch(trial),
                        f"step {trial.step:,}   training loss {number(progress.loss)}   rate {last:.3g}",
                    )
                )
            else:
                rows.append((stretch(trial), f"from step {trial.first_step:,}: {trial.reason}"))
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
        rows += [("verdict", _verdict_words(verdict)) for verdict in history.verdicts[-VERDICTS_SHOWN:]]
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
            rate = f"rate {event.trial.learning_rate:.3g}"
            return f"{stretch(record)} from step {record.first_step}, {rate}: {event.reason}"
        case WindowDone() if not event.progress.finite:
            return f"{event.trial}: the training loss is not finite after step {history.trial(event.trial).step}"
        case Evaluated(split="test"):
            return f"test {with_interval(event.interval)}"
        case Evaluated(sample=True):
            record = history.trial(event.trial)
            progress = record.done[-1].progress if record.done else None
            loss = f"training loss {number(progress.loss)}, " if progress else ""
            return f"{stretch(record)}, step {event.step}: {loss}validation {_look_words(record)}"
        case Evaluated():
            return f"{event.trial}, step {event.step}: validation in full {with_interval(event.interval)}"
        case StabilityRead() if left_by_curve(plan, history.trial(event.trial)):
            place = f"{stretch(history.trial(event.trial))} left at step {event.step}"
            return f"{place}, {event.stability.value}: {event.reason}"
        case VerdictGiven():
            return f"verdict: {_verdict_words(event)}"
        case BaselineScored():
            return f"baseline {event.name}, {event.split} {with_interval(event.interval)}"
        case RunResumed():
            return f"resumed; {format_seconds(history.seconds)} were spent before"
        case RunInterrupted():
            return f"stopped by {event.signal}"
        case ReplayDiffered():
            return f"{event.trial}: a repeated window gave {event.repeated:.6g}, before {event.loss:.6g}"
        case RunFinished():
            return f"finished ({event.stopped}): {history.steps:,} steps in {format_seconds(history.seconds)}"
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


def _verdict_words(verdict: VerdictGiven) -> str:
    score = f" {with_interval(verdict.interval)}" if verdict.interval else ""
    return f"{verdict.decision} {verdict.trial}{score}: {verdict.reason}"


def _used(plan: Plan, history: History, spent: float) -> tuple[float | None, str]:
    """The used share of the budget, and how that is said; no share without a budget."""
    budget = plan.budget
    if budget is None:
        return None, f"{format_seconds(spent)} spent, no limit; {history.steps:,} steps"
    if budget.unit is Unit.SECONDS:
        left = max(0.0, budget.value - spent)
        return spent / budget.value, f"{_clock(left)} left of {budget}"
    match budget.unit:
        case Unit.STEPS:
            used = float(history.steps)
        case Unit.TOKENS:
            used = float(history.tokens)
        case _:
            used = history.examples / history.phase.started.facts.train_examples if history.phases else 0.0
    done = f"{used:.1f}" if budget.unit is Unit.EPOCHS else f"{used:,.0f}"
    return used / budget.value, f"{done} of {budget}, {_clock(spent)} spent"


def _clock(seconds: float) -> str:
    """Whole seconds: a digit behind the point would flicker."""
    return format_seconds(float(round(seconds)))
