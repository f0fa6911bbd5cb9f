"""The page's charts over steps: loss and score, learning rate, and the gap between validation and training.

Trials that were kept stand out; probes, reruns and what was rejected are thin and grey.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from multistep.core.evidence.metric import Metric
from multistep.core.values.events import Evaluated
from multistep.core.values.history import History, PhaseRecord, TrialRecord, WindowRecord
from multistep.core.values.judging import loss_of, metric_of
from multistep.engine.result import round_of, sibling_control
from multistep.report.svg import (
    BASELINE,
    INK,
    LOOK,
    MARK,
    MUTED,
    SHADE,
    TRAIN,
    WIDTH,
    Points,
    above,
    in_font,
    label_points,
    limit,
    line,
    svg,
    text_width,
    thinned,
)
from multistep.report.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Role = Literal["trunk", "probe", "winner", "kept", "open", "faint"]
STRONG = ("trunk", "winner", "kept", "open")
Labels = list[tuple[float, float, str, bool]]


def loss_chart(history: History) -> str:
    """Training loss and validation score over the run's steps; empty before the first window."""
    if not history.trained:
        return ""
    metric = metric_of(history.phase.started)
    panels = [metric] if metric.name == "loss" else [loss_of(history.phase.started), metric]

    def draw(axes: Sequence[Axes]) -> None:
        for ax, shown in zip(axes, panels, strict=True):
            values, labels = _draw_scores(ax, history, shown, with_training=shown.name == "loss")
            limit(ax, values, rising=shown.goal == "maximize")
            _draw_stretches(ax, history, labels=ax is axes[0])
            label_points(ax, labels)
            ax.set_ylabel(f"{shown.name.replace('_', ' ')}\n({shown.unit})")
        axes[-1].set_xlabel("step")

    looks = [look for _, phase, t in _trials(history) if _role(history, phase, t) in STRONG for look in t.curve]
    said = f"Training loss and validation {metric.name} over {history.steps} steps"
    if looks:
        first, last = looks[0].interval.score, looks[-1].interval.score
        said += f"; the looks at validation went from {number(first)} to {number(last)}"
    top = 0.45 if len(history.phases) > 1 else 0.27
    return svg("loss", said, draw, heights=[3.4, *[2.4] * (len(panels) - 1)], top=top)


def rate_chart(history: History) -> str:
    """The learning rate of every step taken; empty before the first window."""
    if not history.trained:
        return ""

    def draw(axes: Sequence[Axes]) -> None:
        for offset, phase, trial in _trials(history):
            points: Points = []
            for record in trial.done:
                step = offset + record.step - record.window.steps
                for segment in record.window.segments:
                    ends = [0, segment.steps - 1] if segment.shape in ("constant", "linear", "warmup") else None
                    rates, last = segment.rates(), segment.steps - 1
                    picked = ends or sorted({round(i * last / 12) for i in range(13)})
                    points += [(step + i + 1, rates[i]) for i in picked]
                    step += segment.steps
            line(axes[0], points, **{**_style(_role(history, phase, trial), TRAIN), "marker": ""})
        axes[0].set_ylim(bottom=0)
        axes[0].set_ylabel("learning rate")
        axes[0].set_xlabel("step")
        _draw_stretches(axes[0], history, labels=False)

    return svg("rate", "Learning rate over steps", draw, heights=[1.9])


def gap_chart(history: History) -> str:
    """Validation loss minus training loss at each look, with and without kept moves; empty with fewer than two."""
    drawn = [(o, phase, trial, gaps(trial)) for o, phase, trial in _trials(history) if trial.trial.kind != "probe"]
    if sum(len(points) for *_, points in drawn) < 2:
        return ""

    def draw(axes: Sequence[Axes]) -> None:
        labels: Labels = []
        for offset, phase, trial, points in drawn:
            said = _with_or_without(phase, trial)
            role: Role = "open" if said.startswith("without") else _role(history, phase, trial)
            line(axes[0], [(offset + step, gap) for step, gap in points], **_style(role, LOOK))
            if said and points:
                labels.append((offset + points[-1][0], points[-1][1], said, said.startswith("with ")))
        axes[0].axhline(0, color=MUTED, linewidth=0.8)
        limit(axes[0], [0.0] + [gap for *_, points in drawn for _, gap in points])
        axes[0].set_ylabel(f"validation - training\n({history.phase.started.facts.loss_unit})")
        axes[0].set_xlabel("step")
        _draw_stretches(axes[0], history, labels=False)
        label_points(axes[0], labels)

    last = next(points[-1][1] for *_, points in reversed(drawn) if points)
    return svg("gap", f"Gap between validation and training loss over steps, at last {last:.4f}", draw, heights=[2.3])


def gaps(trial: TrialRecord) -> Points:
    """(step, validation loss minus the mean training loss of the window before) at each look of a trial."""
    return [
        (record.step, record.evaluation.scores["loss"] - record.progress.loss)
        for record in trial.done
        if record.evaluation and record.progress and "loss" in record.evaluation.scores
    ]


def _with_or_without(phase: PhaseRecord, trial: TrialRecord) -> str:
    """Which part a trial has where a move was kept: `with dropout-up`, `without dropout-up`; else empty."""
    kept = [r for r in phase.of_kind("move") if r.verdict and r.verdict.leads]
    if trial in kept:
        return f"with {in_font(trial.trial.move or '')}"
    without = [in_font(r.trial.move or "") for r in kept if sibling_control(phase, r) is trial]
    return f"without {' or '.join(without)}" if without else ""


# What is drawn --------------------------------------------------------------------------------------


def _trials(history: History) -> Iterable[tuple[int, PhaseRecord, TrialRecord]]:
    """Each trial with the steps that lie before its phase: phases count from 0, the page's axis does not.

    Faint ones come first, to be drawn below the others.
    """
    offset = 0
    for phase in history.phases:
        records = sorted(phase.trials.values(), key=lambda t: _role(history, phase, t) in STRONG)
        for trial in records:
            yield offset, phase, trial
        offset += _length(phase)


def _length(phase: PhaseRecord) -> int:
    return max((trial.step for trial in phase.trials.values()), default=0)


def _role(history: History, phase: PhaseRecord, record: TrialRecord) -> Role:
    """How strongly a trial is drawn: an open one has no verdict yet, a faint one was not kept."""
    kind = record.trial.kind
    if kind in ("probe", "trunk"):
        return kind
    if history.leader and history.leader.trial == record.trial.id:
        return "winner"
    if record.verdict:
        return "kept" if record.verdict.leads else "faint"
    return "faint" if record.ended or kind == "rerun" else "open"


def _style(role: Role, colour: str) -> dict[str, object]:
    match role:
        case "probe":
            return {"color": MUTED, "linewidth": 0.8, "linestyle": (0, (1, 1.5))}
        case "faint":
            return {"color": MUTED, "linewidth": 0.6, "alpha": 0.7, "marker": ""}
        case "trunk":
            return {"color": colour, "linewidth": 1.5}
        case _:
            return {"color": colour, "linewidth": 2.0 if role == "winner" else 1.3, "linestyle": (0, (5, 1))}


def _draw_scores(ax: Axes, history: History, metric: Metric, *, with_training: bool) -> tuple[list[float], Labels]:
    """Draw one panel; returns every number in it, for its limits, and the labels of what was kept."""
    values: list[float] = []
    labels: Labels = []
    for offset, phase, trial in _trials(history):
        role = _role(history, phase, trial)
        before = _before_fork(phase, trial)
        if with_training and role != "faint":  # ten more lines would hide those that matter
            # A window's loss is a mean over its steps, so it stands at their middle.
            points = [(offset + _middle(r), r.progress.loss) for r in (*before, *trial.done) if r.progress]
            line(ax, points, **_style(role, TRAIN))
            values += [loss for _, loss in points]
        looks = [r.evaluation for r in (*before, *trial.done) if r.evaluation]
        scores: Points = [(offset + look.step, look.scores.get(metric.name, math.nan)) for look in looks]
        line(ax, scores, **_style(role, LOOK))
        values += [score for _, score in scores]
        if role in STRONG and metric.name == phase.started.metric:
            _band(ax, offset, looks)
        if trial.full and metric.name in trial.full.scores:
            score, x = trial.full.scores[metric.name], offset + _place(phase, trial)
            values.append(score)
            if role == "faint":
                ax.plot([x], [score], "o", markerfacecolor="none", markeredgecolor=MUTED, markersize=3.5, zorder=4)
                continue
            ax.plot([x], [score], "o", color=MARK, markersize=5, zorder=5, clip_on=False)
            labels.append((x, score, f"{_short(trial)} {number(score)}", role == "winner"))
    if baseline := next((b for b in history.baselines if metric.name in b.scores), None):
        ax.axhline(baseline.scores[metric.name], color=BASELINE, linestyle=(0, (4, 3)), linewidth=1.3)
        values.append(baseline.scores[metric.name])
    return values, labels


def _short(trial: TrialRecord) -> str:
    """`keep dropout-up`, or the verdict alone where no move was made."""
    words = [trial.verdict.word if trial.verdict else "", trial.trial.move or ""]
    if trial.trial.kind == "average":
        words.append("average")
    return " ".join(in_font(word) for word in words if word)


def _place(phase: PhaseRecord, trial: TrialRecord) -> int:
    """The step at which a trial's result stands; an average's, where the last of its checkpoints does."""
    parts = [found.step for name in trial.trial.of if (found := phase.checkpoint(name))]
    return max(parts, default=trial.full.step if trial.full else trial.step)


def _before_fork(phase: PhaseRecord, trial: TrialRecord) -> tuple[WindowRecord, ...]:
    """The window that ends where a trial forks, so that its line begins on the one that it comes from."""
    start = phase.checkpoint(trial.trial.start) if trial.trial.start else None
    if start is None or trial.trial.kind in ("trunk", "probe"):
        return ()
    return tuple(record for record in phase.trials[start.trial].done if record.step == trial.first_step)


def _middle(record: WindowRecord) -> float:
    return record.step - record.window.steps / 2


def _band(ax: Axes, offset: int, looks: Sequence[Evaluated]) -> None:
    kept = [looks[i] for i in thinned(len(looks))]
    kept = [k for k in kept if math.isfinite(k.interval.low) and math.isfinite(k.interval.high)]
    steps = [offset + k.step for k in kept]
    if len(kept) == 1:
        ax.vlines(steps, kept[0].interval.low, kept[0].interval.high, color=LOOK, alpha=0.4)
    elif kept:
        lows, highs = [k.interval.low for k in kept], [k.interval.high for k in kept]
        ax.fill_between(steps, lows, highs, color=LOOK, alpha=0.18, linewidth=0)


def _draw_stretches(ax: Axes, history: History, *, labels: bool) -> None:
    """Shade what forked from the trunk, part the phases, name the rounds, and say why each trunk was left."""
    total = max(1, sum(_length(phase) for phase in history.phases))
    ax.set_xlim(0, total)
    offset, written = 0, 0.0
    for index, phase in enumerate(history.phases):
        length = _length(phase)
        if index:
            ax.axvline(offset, color=INK, linewidth=0.8)
        if labels and len(history.phases) > 1 and length > 0.06 * total:
            name = in_font(phase.started.name) if length > 0.2 * total else ""
            above(ax, offset, f"phase {index + 1}{name and ': '}{name}", line=1, weight="bold")
        for start, end in _forked(phase):
            ax.axvspan(offset + start, offset + end, color=SHADE, alpha=0.5, linewidth=0, zorder=0)
        for start, text in _stretches(phase) if labels else []:
            at = (offset + start) / total * 72 * (WIDTH - 0.9)
            if at >= written:
                above(ax, offset + start, text, line=0)
                written = at + text_width(text) + 8
        trunk = phase.trunk
        if trunk and (left := _left(phase, trunk)):
            ax.axvline(offset + trunk.step, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
            if labels:
                ax.annotate(
                    f"left: {left}", (offset + trunk.step, 0.98), (-3, 0), xycoords=("data", "axes fraction"),
                    textcoords="offset points", rotation=90, ha="right", va="top", color=MUTED,
                )  # fmt: skip
        offset += length


def _forked(phase: PhaseRecord) -> list[tuple[int, int]]:
    """From where to where trials other than the trunk went, overlapping ones joined."""
    apart = ("trunk", "probe")
    ends = sorted((t.first_step, t.step) for t in phase.trials.values() if t.trial.kind not in apart)
    joined: list[tuple[int, int]] = []
    for start, end in ends:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif end > start:
            joined.append((start, end))
    return joined


def _stretches(phase: PhaseRecord) -> list[tuple[int, str]]:
    """What begins at which step: the trunk, its cooldown, the rounds of siblings."""
    found: dict[str, int] = {}
    for record in phase.trials.values():
        number_ = round_of(phase, record.trial)
        kind = {"trunk": "trunk", "control": "cooldown"}.get(record.trial.kind)
        text = f"round {number_}" if number_ else kind
        if text and record.step > record.first_step:
            found.setdefault(text, record.first_step)
    # Where both begin at one step there is room for the round's name alone.
    return sorted({start: text for text, start in found.items()}.items())


def _left(phase: PhaseRecord, trunk: TrialRecord) -> str:
    if phase.finished and not phase.moves_ended:
        return phase.finished.stopped  # what moves did with the rest of the budget is another matter
    return trunk.reading.stability.value if trunk.ended and trunk.reading else ""
