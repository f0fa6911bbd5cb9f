"""The sections of a run's screen: what it does, its numbers, its curve, its trials, its notes, what it understood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len
from rich.text import Text

from multistep.core.evidence.metric import Interval, Metric
from multistep.core.evidence.scores import between, metric_words, rate_words, score_words, unit_words
from multistep.core.values.events import Entry
from multistep.core.values.history import History, TrialRecord, WindowRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.units import Unit, format_seconds
from multistep.report.blocks import bounds, plot
from multistep.report.layout import NAME, Fit, Flexible, Lines
from multistep.report.plainly import doing, name_of, outcome, place
from multistep.report.summary import used
from multistep.report.words import clean, moves_ended_sentence

CURVE_LINES = (1, 12)  # at least and at most, without its caption
NARROW = 70  # columns, below which names are said alone
LEAST_NAME, MOST_NAME = 12, 56  # cells of a trial's name
STEPS_AND_SCORE = 23  # cells between a trial's name and what became of it


@dataclass(frozen=True)
class Shown:
    """What a frame is made of; `ticking` are the seconds since the last entry, `messages` what was said meanwhile.

    `hint` tells to say how the run is stopped, which is another thing in a notebook.
    """

    plan: Plan
    out: Path
    entry: Entry | None
    history: History
    ticking: float = 0.0
    messages: tuple[str, ...] = ()
    hint: bool = False


# What is always there -------------------------------------------------------------------------------


def header(shown: Shown, fit: Fit) -> Lines:
    where = place(shown.plan, shown.history)
    data = str(shown.plan.data)
    on = "data given in Python" if data.startswith("in memory, ") else data
    title = f"{shown.plan.task} on {on}" + (f", {where}" if where else "")
    line = Text(clean(title), style="bold")
    folder = clean(str(shown.out))
    if cell_len(line.plain) + cell_len(folder) + 3 <= fit.width:
        line.append(" " * (fit.width - cell_len(line.plain) - cell_len(folder))).append(folder, style="dim not bold")
    return fit.cut([line])


def sentences(shown: Shown, fit: Fit, most: int) -> Lines:
    found = fit.named("now", doing(shown.entry, shown.history), most)
    if not shown.history.phases:
        found += fit.named("asked", asked_words(shown.plan), most)
    trial = _current(shown.history)
    if shown.history.finished is None and trial is not None and not trial.ended and trial.reason:
        found += fit.named("why", trial.reason, most)
    if shown.history.finished is None and trial is not None and trial.ended and shown.history.phase.moves_ended:
        found += fit.named("why", moves_ended_sentence(shown.history.phase.moves_ended.reason), most)
    return found


def asked_words(plan: Plan) -> str:
    """What the plan asks for, in a sentence: `model scratch, judged by accuracy, for 10m, seed 0`."""
    metric = f"judged by {metric_words(plan.metric)}" if plan.metric else "judged by the task's own metric"
    length = f"for {plan.budget}" if plan.budget else "until the score no longer gets better"
    phases = f", in {plan.phase_count} phases" if plan.phase_count > 1 else ""
    return f"model {' or '.join(plan.model.names)}, {metric}, {length}{phases}, seed {plan.seed}"


def _current(history: History) -> TrialRecord | None:
    """The trial that goes on, or the last one."""
    if not history.phases:
        return None
    return history.phase.unfinished or next(reversed(list(history.phase.trials.values())), None)


def numbers(shown: Shown, fit: Fit) -> Lines:
    """The score now, the best so far, what the baseline has, each with what it is of."""
    history = shown.history
    if not history.phases:
        return []
    metric = metric_of(history.phase.started)
    unit = f", {unit_words(metric)}" if "nats" in metric.unit and fit.width >= NARROW else ""
    found = []
    trial = _current(history)
    if history.test:
        found.append(
            _score(metric, f"test {metric_words(metric.name)}", history.test.interval, f"the best model{unit}")
        )
    if trial and trial.curve and not history.test:
        look = trial.curve[-1]
        found.append(_score(metric, metric_words(metric.name), look.interval, f"at step {look.step:,}{unit}"))
    if history.leader and history.leader.interval:
        what = name_of(history, history.trial(history.leader.trial)).partition(",")[0].partition(":")[0]
        on = ", on all of validation" if fit.width >= NARROW else ""
        found.append(_score(metric, "best", history.leader.interval, f"{what}{on}"))
    split = "test" if history.test and any(b.split == "test" for b in history.baselines) else "validation"
    rivals = [baseline for baseline in history.baselines if baseline.split == split]
    found += [_score(metric, "baseline", rival.interval, rival.name) for rival in rivals]
    return fit.cut(found)


def _score(metric: Metric, name: str, interval: Interval, what: str) -> Text:
    """`accuracy     79.2%  (77.9 to 80.5)  at step 640`."""
    line = Text(f"{name:{NAME - 1}} ", style="dim")
    line.append(f"{score_words(metric, interval.score):7}", style="bold")
    if about := between(metric, interval):
        line.append(f"{f'({about})':17} ", style="dim")
    return line.append(clean(what))


def progress(shown: Shown, fit: Fit) -> Lines:
    history = shown.history
    line = _bar(shown, fit)
    trial, window = _current(history), _last_window(history)
    if trial is None or window is None or window.progress is None:
        return [line]
    facts = history.phase.started.facts
    batch = trial.trial.recipe.batch_size or 1
    said = [f"epoch {rate_words(trial.step * batch / facts.train_examples)}", f"step {trial.step:,}"]
    if window.train_seconds > 0:
        tokens = "token" in facts.loss_unit
        seen = window.progress.tokens if tokens else window.progress.examples
        said.append(f"{rate_words(seen / window.train_seconds)} {'tokens' if tokens else 'examples'}/s")
    said.append(f"training loss {window.progress.loss:.3f}")
    said.append(f"rate {window.window.segments[-1].rates()[-1]:.2g}")
    while len(said) > 1 and NAME + len("   ".join(said)) > fit.width:
        said.pop()
    return [*fit.named("progress", "   ".join(said), 1), line]


def _last_window(history: History) -> WindowRecord | None:
    """What was trained last, be it by the trial before the one that goes on."""
    records = history.phase.trials.values() if history.phases else ()
    done = [window for record in records for window in record.done]
    trial = _current(history)
    return trial.done[-1] if trial and trial.done else done[-1] if done else None


def _bar(shown: Shown, fit: Fit) -> Text:
    """A bar of the whole budget, and what is left of it."""
    history, budget = shown.history, shown.plan.budget
    spent = history.seconds + (0.0 if history.finished else shown.ticking)
    if budget is None:
        words = f"{_clock(spent)} spent, no limit"
        return fit.named("time", words, 1)[0]
    real = used(budget, history, spent)
    if budget.unit is Unit.SECONDS:
        words = f"{_clock(max(0.0, budget.value - real))} left of {budget}"
    else:
        done = f"{real:.1f}" if budget.unit is Unit.EPOCHS else f"{real:,.0f}"
        words = f"{done} of {budget}, {_clock(spent)} so far{_remaining(budget.value, real, spent)}"
    line = fit.named("budget", "", 1)[0] if fit.width >= 3 * NAME else Text()
    room = min(40, fit.width - NAME - cell_len(words) - 2)
    if room >= 6:
        full = round(room * min(1.0, real / budget.value))
        line.append("━" * full, style="green").append("━" * (room - full), style="bright_black").append("  ")
    return line.append(words)


def _remaining(whole: float, real: float, spent: float) -> str:
    """About how long the rest takes, at the pace so far."""
    return f", about {_clock(spent * (whole - real) / real)} to go" if 0 < real < whole else ""


def _clock(seconds: float) -> str:
    """Whole seconds: a digit behind the point would flicker."""
    return format_seconds(float(round(seconds)))


# What grows with the screen -------------------------------------------------------------------------


def path_of(history: History, record: TrialRecord) -> list[tuple[int, float]]:
    """The looks on the way to a trial's end, through the trials that it forked from, as (step, score)."""
    found = [(look.step, look.interval.score) for look in record.curve]
    phase = history.phases[record.trial.phase]
    start = phase.checkpoint(record.trial.start) if record.trial.start else None
    if start is not None and start.trial != record.trial.id:
        before = path_of(history, phase.trials[start.trial])
        found = [(step, score) for step, score in before if step <= record.first_step] + found
    return found


def curve(shown: Shown, fit: Fit) -> Flexible | None:
    history = shown.history
    trial = _current(history)
    points = path_of(history, trial) if trial else []
    if len(points) < 2:
        return None
    metric = metric_of(history.phase.started)
    margin = NAME if fit.width >= 3 * NAME else 0

    def lines(count: int) -> Lines:
        height = max(1, min(CURVE_LINES[1], count - 1))
        drawn = plot(points, max(2, fit.width - margin), height)
        if not drawn:
            return []
        low, high = bounds([score for _, score in points])
        names = [""] * len(drawn)
        names[-1] = score_words(metric, low)
        names[0] = score_words(metric, high) if len(drawn) > 1 else ""
        found = [
            Text(f"{name:>{margin - 1}} " if margin else "", style="dim").append(row, style="cyan")
            for name, row in zip(names, drawn, strict=True)
        ]
        first, last = points[0], points[-1]
        said = f"validation {metric_words(metric.name)}, {score_words(metric, first[1])} at step {first[0]:,} to "
        said += f"{score_words(metric, last[1])} at step {last[0]:,}"
        return fit.cut([*found, Text(" " * margin).append(said, style="dim")])

    return Flexible(CURVE_LINES[0] + 1, CURVE_LINES[1] + 1, 4, lines)


def trials(shown: Shown, fit: Fit) -> Flexible | None:
    """The last trials, each with its score and what it came to; of all phases, so that nothing disappears."""
    history = shown.history
    records = [record for phase in history.phases for record in phase.trials.values()]
    if not records:
        return None

    def lines(count: int) -> Lines:
        shown_records = records[-(count - 1) :] if count > 1 else []
        if history.leader and len(shown_records) < len(records) and count > 2:
            leader = history.trial(history.leader.trial)
            if leader not in shown_records:
                shown_records = [leader, *shown_records[1:]]  # what leads stays in sight
        hidden = len(records) - len(shown_records)
        more = f" (the last {len(shown_records)} of {len(records)})" if hidden else ""
        longest = max((cell_len(outcome(history, record, short=True)) for record in shown_records), default=0)
        taken = STEPS_AND_SCORE if fit.width >= NARROW else STEPS_AND_SCORE - len(" steps")
        room = max(LEAST_NAME, min(MOST_NAME, fit.width - taken - min(36, longest)))
        found = [_trial_line(history, record, room, steps=fit.width >= NARROW) for record in shown_records]
        if history.finished:
            found = [part for line in found for part in _folded(line, fit, room + taken)]
        return fit.cut([fit.heading(f"trials{more}"), *found])

    return Flexible(2, len(records) + 1, 7, lines)


def _trial_line(history: History, record: TrialRecord, room: int, *, steps: bool) -> Text:
    """A trial's name in so many cells, its steps, its score, and what became of it."""
    metric = metric_of(history.phases[record.trial.phase].started)
    leads = history.leader is not None and history.leader.trial == record.trial.id
    failed = record.verdict is not None and record.verdict.failed
    style = "green" if leads else "red" if failed else "" if not record.ended else "dim"
    score = score_words(metric, record.full.interval.score) if record.full else ""
    taken = f"{record.step - record.first_step:,}"
    name = name_of(history, record)
    said = outcome(history, record, short=True)
    if cell_len(name) > room:
        name = name.partition(",")[0]  # `cooldown, the learning rate going to zero`
    line = Text(clean(name), style=style)
    line.truncate(room, overflow="ellipsis", pad=True)
    line.append(f" {taken:>6}{' steps' if steps else ''} {score:>7}  ", style="dim" if style == "dim" else "")
    return line.append(clean(said), style=style)


def _folded(line: Text, fit: Fit, indent: int) -> Lines:
    """A line that is too long, its end below the column that it is cut in."""
    if cell_len(line.plain) <= fit.width or fit.width - indent < LEAST_NAME:
        return [line]
    head, tail = line[:indent], line[indent:]
    first, *more = tail.wrap(fit.console, fit.width - indent)
    first.rstrip()
    return [head.append_text(first), *(Text(" " * indent).append_text(part) for part in more)]


def all_notes(shown: Shown, fit: Fit) -> Flexible | None:
    """The notes and, first, what of the understood must not be missed where there may be no room for it."""
    facts = shown.history.phase.started.facts if shown.history.phases else None
    aside = (*facts.understood.duplicates, *facts.understood.left_out) if facts else ()
    return notes(shown, fit, aside)


def notes(shown: Shown, fit: Fit, aside: Sequence[str] = ()) -> Flexible | None:
    """What was guessed or changed, and what was said meanwhile, the newest last."""
    facts = shown.history.phase.started.facts if shown.history.phases else None
    notes = (facts.understood.notes if facts.understood.model else facts.notes) if facts else ()
    said = list(dict.fromkeys([*aside, *notes, *shown.messages]))
    if not said:
        return None
    each = [fit.item(note) for note in said]

    def lines(count: int) -> Lines:
        room = count - 1
        whole = sum(map(len, each))
        if whole <= room:
            return [fit.heading("notes"), *(line for note in each for line in note)]
        short = fit.cut([Text(clean(f"- {note}").replace("\n", " ")) for note in said])
        seen = short[-room:] if room else []
        more = f" ({len(said)}; the report has them all)"
        return [fit.heading(f"notes{more}"), *seen]

    return Flexible(2, sum(map(len, each)) + 1, 4, lines)


def rest(shown: Shown, fit: Fit) -> Flexible | None:
    """What was understood without what stands among the notes."""
    facts = shown.history.phase.started.facts if shown.history.phases else None
    noted = {"duplicates": facts.understood.duplicates, "left out": facts.understood.left_out} if facts else {}
    return understood(shown, fit, without=[name for name, notes in noted.items() if notes])


def understood(shown: Shown, fit: Fit, without: Sequence[str] = ()) -> Flexible | None:
    history = shown.history
    told = history.phase.started.facts.understood.lines() if history.phases else ()
    rows = [line for line in told if line[0] not in without]
    if not rows:
        return None
    each = [fit.named(name, said, 5) for name, said in rows]
    whole = [line for row in each for line in row]

    def lines(count: int) -> Lines:
        if count > len(whole):
            return [fit.heading("understood"), *whole]
        short = [fit.named(name, said, 1)[0] for name, said in rows]
        return [fit.heading("understood"), *(short if count > len(short) else short[: count - 1])]

    return Flexible(3, len(whole) + 1, 3, lines, late=True)
