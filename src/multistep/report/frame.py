"""The screen of a run that goes on: sections of lines, fitted into whatever width and height the terminal has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from multistep.core.evidence.metric import Interval, Metric
from multistep.core.evidence.scores import between, metric_words, rate_words, score_words, unit_words
from multistep.core.values.events import Entry
from multistep.core.values.history import History, TrialRecord, WindowRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.plan import Plan
from multistep.core.values.units import Unit, format_seconds
from multistep.report.blocks import bounds, plot
from multistep.report.plainly import doing, name_of, outcome, place
from multistep.report.summary import used
from multistep.report.words import clean, moves_ended_sentence

TWO_COLUMNS = 116  # terminal columns, from which on the right part shows what was understood
LEFT_SHARE = 0.56
NAME = 13  # columns for names at the left
LEAST_HEIGHT = 12  # lines, below which only the numbers are shown
CURVE_LINES = (1, 12)  # at least and at most, without its caption
MOST_SENTENCE = 2  # lines of what is done and why
LESS_SENTENCE = 1  # where the screen is low
LOW = 22  # lines
NARROW = 70  # columns, below which names are said alone

HINT = "Ctrl-C stops the run and keeps what it has; the same command goes on from there."

Lines = list[Text]


@dataclass(frozen=True)
class Shown:
    """What a frame is made of; `ticking` are the seconds since the last entry, `messages` what was said meanwhile."""

    plan: Plan
    out: Path
    entry: Entry | None
    history: History
    ticking: float = 0.0
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flexible:
    """A section that can do with `least` lines and is whole with `most`; `lines(n)` gives at most n of them."""

    least: int
    most: int
    lines: Callable[[int], Lines]


def frame(shown: Shown, width: int, height: int, console: Console) -> Lines:
    """At most `height` lines, none of them wider than `width` cells."""
    width = max(1, width)
    fit = _Fit(console, width)
    if height < LEAST_HEIGHT:
        return fit.cut(
            [*_header(shown, fit), *_numbers(shown, fit), *_progress(shown, fit), *_sentences(shown, fit, 1)]
        )[: max(1, height)]
    head = [*_header(shown, fit), Text("\N{BOX DRAWINGS LIGHT HORIZONTAL}" * width, style="dim")]
    body = height - len(head)
    foot: Lines = []
    if height >= LOW and shown.history.finished is None:
        foot = fit.cut([Text(HINT, style="dim")])
        body -= 1
    if width < TWO_COLUMNS:
        one = _column(shown, fit, body, [_curve, _trials, _all_notes, _rest])
        return [*head, *one, *([Text()] * (body - len(one))), *foot]
    left = _Fit(console, int(width * LEFT_SHARE))
    right = _Fit(console, width - left.width - 3)
    one = _column(shown, left, body, [_curve, _trials])
    other = _share([_understood(shown, right), _notes(shown, right)], body)
    return [*head, *_beside(one, other, left.width, body), *foot]


def closing(shown: Shown, width: int, console: Console) -> Lines:
    """What is left on the terminal when the screen is given back: what was understood, tried and said."""
    fit = _Fit(console, width)
    history = shown.history
    sections = [_understood(shown, fit), _trials(shown, fit), _notes(shown, fit)]
    now = fit.named("now" if history.finished is None else "end", doing(shown.entry, history))
    return fit.cut([*_header(shown, fit), *now, *(line for part in sections if part for line in part.lines(part.most))])


class _Fit:
    """Makes lines of a width."""

    def __init__(self, console: Console, width: int) -> None:
        self.console, self.width = console, max(1, width)

    def cut(self, lines: Iterable[Text]) -> Lines:
        found = []
        for line in lines:
            line.truncate(self.width, overflow="ellipsis")
            found.append(line)
        return found

    def wrapped(self, text: str, style: str = "", most: int = 99, indent: int = 0) -> Lines:
        """The text in lines; of more than `most` the last one tells by an ellipsis that there is more."""
        room = max(1, self.width - indent)
        lines = list(Text(clean(text).replace("\n", " ")).wrap(self.console, room))
        if len(lines) > most:
            last = Text(f"{lines[most - 1].plain.rstrip()}")
            last.truncate(room - 1)
            lines = [*lines[: most - 1], last.append("\N{HORIZONTAL ELLIPSIS}")]
        for line in lines:
            line.rstrip()
            line.stylize(style)
        return [Text(" " * indent).append_text(line) for line in lines]

    def item(self, text: str) -> Lines:
        """A text behind a dash, its other lines below its first word."""
        lines = self.wrapped(text, most=5, indent=2 if self.width > 20 else 0)
        lines[0] = Text("- ").append_text(lines[0][2:]) if self.width > 20 else lines[0]
        return lines

    def named(self, name: str, text: str, most: int = 99, style: str = "") -> Lines:
        """A name at the left and its text, wrapped, beside it; above it where there is no room."""
        if self.width < 3 * NAME:
            return self.wrapped(f"{name}: {text}", style, most)
        lines = self.wrapped(text, style, most, NAME)
        lines[0] = Text(f"{name:{NAME}}", style="dim").append_text(lines[0][NAME:])
        return lines

    def heading(self, text: str) -> Text:
        line = f"{text} "
        return Text(line, style="bold").append(
            "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * max(0, self.width - len(line)), style="dim"
        )


def _column(
    shown: Shown, fit: _Fit, height: int, sections: Sequence[Callable[[Shown, _Fit], Flexible | None]]
) -> Lines:
    most = MOST_SENTENCE if height >= LOW - 2 else LESS_SENTENCE
    fixed = [*_sentences(shown, fit, most), *_numbers(shown, fit), *_progress(shown, fit)]
    return fit.cut([*fixed, *_share([section(shown, fit) for section in sections], height - len(fixed))])[:height]


def _share(sections: Sequence[Flexible | None], height: int) -> Lines:
    """Give each section the lines that it needs at least, in their order, then what is left, one line at a time."""
    known = [section for section in sections if section is not None]
    given = []
    left = height
    for section in known:
        given.append(section.least if section.least <= left else 0)
        left -= given[-1]
    growing = True
    while left > 0 and growing:
        growing = False
        for k, section in enumerate(known):
            if left > 0 and 0 < given[k] < section.most:
                given[k] += 1
                left -= 1
                growing = True
    return [line for section, lines in zip(known, given, strict=True) if lines for line in section.lines(lines)]


def _beside(one: Lines, other: Lines, width: int, height: int) -> Lines:
    found = []
    for k in range(height):
        line = one[k] if k < len(one) else Text()
        line.pad_right(width - cell_len(line.plain))
        found.append(line.append(" \N{BOX DRAWINGS LIGHT VERTICAL} ", style="dim"))
        if k < len(other):
            found[-1].append_text(other[k])
    return found


# What is always there -------------------------------------------------------------------------------


def _header(shown: Shown, fit: _Fit) -> Lines:
    where = place(shown.plan, shown.history)
    title = f"{shown.plan.task} on {shown.plan.data}" + (f", {where}" if where else "")
    line = Text(clean(title), style="bold")
    folder = clean(str(shown.out))
    if cell_len(line.plain) + cell_len(folder) + 3 <= fit.width:
        line.append(" " * (fit.width - cell_len(line.plain) - cell_len(folder))).append(folder, style="dim not bold")
    return fit.cut([line])


def _sentences(shown: Shown, fit: _Fit, most: int) -> Lines:
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


def _numbers(shown: Shown, fit: _Fit) -> Lines:
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


def _progress(shown: Shown, fit: _Fit) -> Lines:
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


def _bar(shown: Shown, fit: _Fit) -> Text:
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


def _curve(shown: Shown, fit: _Fit) -> Flexible | None:
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

    return Flexible(CURVE_LINES[0] + 1, CURVE_LINES[1] + 1, lines)


def _trials(shown: Shown, fit: _Fit) -> Flexible | None:
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
        return fit.cut([fit.heading(f"trials{more}"), *(_trial_line(history, r, fit.width) for r in shown_records)])

    return Flexible(2, len(records) + 1, lines)


def _trial_line(history: History, record: TrialRecord, width: int) -> Text:
    metric = metric_of(history.phases[record.trial.phase].started)
    leads = history.leader is not None and history.leader.trial == record.trial.id
    failed = record.verdict is not None and record.verdict.failed
    style = "green" if leads else "red" if failed else "" if not record.ended else "dim"
    score = score_words(metric, record.full.interval.score) if record.full else ""
    steps = f"{record.step - record.first_step:,} steps"
    name = name_of(history, record)
    said = outcome(history, record, short=True)
    room = max(14, min(56, width - 24 - min(36, cell_len(said))))
    if cell_len(name) > room:
        name = name.partition(",")[0]  # `cooldown, the learning rate going to zero`
    line = Text(clean(name), style=style)
    line.truncate(room, overflow="ellipsis", pad=True)
    line.append(f" {steps:>12} {score:>7}  ", style="dim" if style == "dim" else "")
    return line.append(clean(said), style=style)


def _all_notes(shown: Shown, fit: _Fit) -> Flexible | None:
    """The notes and, first, what of the understood must not be missed where there may be no room for it."""
    facts = shown.history.phase.started.facts if shown.history.phases else None
    aside = (*facts.understood.duplicates, *facts.understood.left_out) if facts else ()
    return _notes(shown, fit, aside)


def _notes(shown: Shown, fit: _Fit, aside: Sequence[str] = ()) -> Flexible | None:
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

    return Flexible(2, sum(map(len, each)) + 1, lines)


def _rest(shown: Shown, fit: _Fit) -> Flexible | None:
    """What was understood without what stands among the notes."""
    facts = shown.history.phase.started.facts if shown.history.phases else None
    noted = {"duplicates": facts.understood.duplicates, "left out": facts.understood.left_out} if facts else {}
    return _understood(shown, fit, without=[name for name, notes in noted.items() if notes])


def _understood(shown: Shown, fit: _Fit, without: Sequence[str] = ()) -> Flexible | None:
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

    return Flexible(3, len(whole) + 1, lines)
