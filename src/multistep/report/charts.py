"""The page's charts: a history -> SVG that follows the page's colours, light or dark.

matplotlib is told stand-in colours, which become the page's CSS variables; identifiers differ from chart to
chart, so that several stand in one page, and the same journal gives the same bytes.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from multistep.core.events import Evaluated
from multistep.core.history import History, PhaseRecord, TrialRecord, WindowRecord
from multistep.core.metric import Metric, metric_named
from multistep.report.summary import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "ink": "#010101", "muted": "#020202", "grid": "#030303", "train": "#040404",
    "look": "#050505", "baseline": "#060606", "shade": "#070707", "mark": "#080808",
}  # fmt: skip
INK, MUTED, GRID, TRAIN, LOOK, BASELINE, SHADE, MARK = COLOURS.values()
MOST_POINTS = 300  # of a line; more cannot be told apart at this width
FEW_POINTS = 8  # are marked
WIDTH = 8.2  # inches
Points = list[tuple[float, float]]


def loss_chart(history: History) -> str:
    """Training loss and validation score over the run's steps; empty before the first window."""
    if not history.steps:
        return ""
    metric = metric_named(history.phase.started.metric)
    panels = ["loss"] if metric.name == "loss" else ["loss", metric.name]

    def draw(axes: Sequence[Axes]) -> None:
        for ax, name in zip(axes, panels, strict=True):
            values = _draw_scores(ax, history, metric_named(name), with_training=name == "loss")
            _limit(ax, values)
            _draw_stretches(ax, history, labels=ax is axes[0])
            ax.set_ylabel(f"{name.replace('_', ' ')}\n({metric_named(name).unit})")
        axes[-1].set_xlabel("step")

    looks = [look for phase in history.phases for trial in phase.trials.values() for look in trial.curve]
    said = f"Training loss and validation {metric.name} over {history.steps} steps"
    if looks:
        first, last = looks[0].interval.score, looks[-1].interval.score
        said += f"; the looks at validation went from {number(first)} to {number(last)}"
    return _svg(
        "loss", said, draw, heights=[3.4, *[2.4] * (len(panels) - 1)], top=0.45 if len(history.phases) > 1 else 0.27
    )


def rate_chart(history: History) -> str:
    """The learning rate of every step taken; empty before the first window."""
    if not history.steps:
        return ""

    def draw(axes: Sequence[Axes]) -> None:
        for offset, _, trial in _trials(history):
            points: Points = []
            for record in trial.done:
                step = offset + record.step - record.window.steps
                for segment in record.window.segments:
                    ends = [0, segment.steps - 1] if segment.shape in ("constant", "linear", "warmup") else None
                    rates, last = segment.rates(), segment.steps - 1
                    picked = ends or sorted({round(i * last / 12) for i in range(13)})
                    points += [(step + i + 1, rates[i]) for i in picked]
                    step += segment.steps
            _line(axes[0], points, marker="", **_style(trial, TRAIN))
        axes[0].set_ylim(bottom=0)
        axes[0].set_ylabel("learning rate")
        axes[0].set_xlabel("step")
        _draw_stretches(axes[0], history, labels=False)

    return _svg("rate", "Learning rate over steps", draw, heights=[1.9])


def gap_chart(history: History) -> str:
    """Validation loss minus training loss at each look; empty with fewer than two."""
    drawn = [(o, trial, gaps(trial)) for o, _, trial in _trials(history) if trial.trial.kind != "probe"]
    if sum(len(points) for _, _, points in drawn) < 2:
        return ""

    def draw(axes: Sequence[Axes]) -> None:
        for offset, trial, points in drawn:
            _line(axes[0], [(offset + step, gap) for step, gap in points], **_style(trial, LOOK))
        axes[0].axhline(0, color=MUTED, linewidth=0.8)
        _limit(axes[0], [0.0] + [gap for _, _, points in drawn for _, gap in points])
        axes[0].set_ylabel("validation - training\n(nats per token)")
        axes[0].set_xlabel("step")
        _draw_stretches(axes[0], history, labels=False)

    last = next(points[-1][1] for _, _, points in reversed(drawn) if points)
    return _svg("gap", f"Gap between validation and training loss over steps, at last {last:.4f}", draw, heights=[2.1])


def gaps(trial: TrialRecord) -> Points:
    """(step, validation loss minus the mean training loss of the window before) at each look of a trial."""
    return [
        (record.step, record.evaluation.scores["loss"] - record.progress.loss)
        for record in trial.done
        if record.evaluation and record.progress and "loss" in record.evaluation.scores
    ]


# What is drawn --------------------------------------------------------------------------------------


def _trials(history: History) -> Iterable[tuple[int, PhaseRecord, TrialRecord]]:
    """Each trial with the steps that lie before its phase: phases count from 0, the page's axis does not."""
    offset = 0
    for phase in history.phases:
        for trial in phase.trials.values():
            yield offset, phase, trial
        offset += _length(phase)


def _length(phase: PhaseRecord) -> int:
    return max((trial.step for trial in phase.trials.values()), default=0)


def _style(trial: TrialRecord, colour: str) -> dict[str, object]:
    if trial.trial.kind == "probe":
        return {"color": MUTED, "linewidth": 0.8, "linestyle": (0, (1, 1.5))}
    return {
        "color": colour,
        "linewidth": 1.5,
        "linestyle": "-" if trial.trial.kind == "trunk" else (0, (5, 1)),
    }


def _draw_scores(ax: Axes, history: History, metric: Metric, *, with_training: bool) -> list[float]:
    """Draw one panel; returns every number in it, for its limits."""
    values: list[float] = []
    for offset, phase, trial in _trials(history):
        before = _before_fork(phase, trial)
        if with_training:
            # A window's loss is a mean over its steps, so it stands at their middle.
            points = [(offset + _middle(r), r.progress.loss) for r in (*before, *trial.done) if r.progress]
            _line(ax, points, **_style(trial, TRAIN))
            values += [loss for _, loss in points]
        looks = [r.evaluation for r in (*before, *trial.done) if r.evaluation]
        scores: Points = [(offset + look.step, look.scores.get(metric.name, math.nan)) for look in looks]
        _line(ax, scores, **_style(trial, LOOK))
        values += [score for _, score in scores]
        if trial.trial.kind != "probe" and metric.name == phase.started.metric:
            _band(ax, offset, looks)
        if trial.full and metric.name in trial.full.scores:
            score, x = trial.full.scores[metric.name], offset + trial.full.step
            ax.plot([x], [score], "o", color=MARK, markersize=5, zorder=5, clip_on=False)
            verdict = f"{trial.verdict.decision} " if trial.verdict else ""
            ax.annotate(
                f"{verdict}{number(score)}", (x, score), (-5, -11), textcoords="offset points",
                ha="right", color=MARK, weight="bold",
            )  # fmt: skip
            values.append(score)
    if baseline := next((b for b in history.baselines if metric.name in b.scores), None):
        ax.axhline(baseline.scores[metric.name], color=BASELINE, linestyle=(0, (4, 3)), linewidth=1.3)
        values.append(baseline.scores[metric.name])
    return values


def _before_fork(phase: PhaseRecord, trial: TrialRecord) -> tuple[WindowRecord, ...]:
    """The trunk's window that ends where a control forks from it, so that its line begins on the trunk's."""
    trunk = phase.trunk
    if trial.trial.kind != "control" or trunk is None:
        return ()
    return tuple(record for record in trunk.done if record.step == trial.first_step)


def _middle(record: WindowRecord) -> float:
    return record.step - record.window.steps / 2


def _band(ax: Axes, offset: int, looks: Sequence[Evaluated]) -> None:
    kept = [looks[i] for i in _thinned(len(looks))]
    kept = [k for k in kept if math.isfinite(k.interval.low) and math.isfinite(k.interval.high)]
    steps = [offset + k.step for k in kept]
    if len(kept) == 1:
        ax.vlines(steps, kept[0].interval.low, kept[0].interval.high, color=LOOK, alpha=0.4)
    elif kept:
        lows, highs = [k.interval.low for k in kept], [k.interval.high for k in kept]
        ax.fill_between(steps, lows, highs, color=LOOK, alpha=0.18, linewidth=0)


def _draw_stretches(ax: Axes, history: History, *, labels: bool) -> None:
    """Shade the cooldowns, part the phases, and say why each trunk was left."""
    total = max(1, sum(_length(phase) for phase in history.phases))
    ax.set_xlim(0, total)
    offset = 0
    for index, phase in enumerate(history.phases):
        length = _length(phase)
        if index:
            ax.axvline(offset, color=INK, linewidth=0.8)
        if labels and len(history.phases) > 1 and length > 0.06 * total:
            name = _ascii(phase.started.name) if length > 0.2 * total else ""
            _above(ax, offset, f"phase {index + 1}{name and ': '}{name}", line=1, weight="bold")
        for trial in phase.trials.values():
            if trial.trial.kind == "probe" or trial.step <= trial.first_step:
                continue
            start, end = offset + trial.first_step, offset + trial.step
            cooling = trial.trial.kind == "control"
            if cooling:
                ax.axvspan(start, end, color=SHADE, alpha=0.5, linewidth=0, zorder=0)
            if labels and end - start > 0.1 * total:
                _above(ax, start, "cooldown" if cooling else "trunk", line=0)
        trunk = phase.trunk
        if trunk and (left := _left(phase, trunk)):
            ax.axvline(offset + trunk.step, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
            if labels:
                ax.annotate(
                    f"left: {left}", (offset + trunk.step, 0.98), (-3, 0), xycoords=("data", "axes fraction"),
                    textcoords="offset points", rotation=90, ha="right", va="top", color=MUTED,
                )  # fmt: skip
        offset += length


def _left(phase: PhaseRecord, trunk: TrialRecord) -> str:
    if phase.finished:
        return phase.finished.stopped
    return trunk.reading.stability.value if trunk.ended and trunk.reading else ""


def _above(ax: Axes, x: float, text: str, *, line: int, weight: str = "normal") -> None:
    ax.annotate(
        text, (x, 1.0), (2, 4 + 11 * line), xycoords=("data", "axes fraction"), textcoords="offset points",
        color=MUTED, weight=weight,
    )  # fmt: skip


def _ascii(name: str) -> str:
    """A name as far as the charts' font has it."""
    kept = "".join(c for c in name if c.isascii() and c.isprintable()).strip()
    return kept[:28]


def _line(ax: Axes, points: Points, **style: object) -> None:
    kept = [points[i] for i in _thinned(len(points))]
    ys = [y if math.isfinite(y) else math.nan for _, y in kept]
    # A line of one point would not be seen.
    style = {"marker": "." if len(kept) <= FEW_POINTS else "", **style}
    ax.plot([x for x, _ in kept], ys, **style)  # type: ignore[arg-type]


def _thinned(count: int) -> list[int]:
    if count <= MOST_POINTS:
        return list(range(count))
    return sorted({round(i * (count - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})


def _limit(ax: Axes, values: Iterable[float]) -> None:
    """Limits that neither one explosion nor the untrained model's first scores can blow up."""
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return
    low, high = finite[0], finite[-1]
    usual = finite[int(0.95 * (len(finite) - 1))]
    if high - low > 3 * (usual - low) > 0:
        high = usual + 0.5 * (usual - low)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    ax.set_ylim(low - 2 * room, high + room)


# SVG ------------------------------------------------------------------------------------------------


def _svg(
    name: str,
    said: str,
    draw: Callable[[Sequence[Axes]], None],
    *,
    heights: Sequence[float],
    top: float = 0.1,
) -> str:
    """Draw panels of these heights above each other; all in inches, `top` is what is left free above them."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": f"multistep-{name}", "font.size": 8.5,
        "font.family": "DejaVu Sans", "text.color": INK, "axes.edgecolor": MUTED, "axes.labelcolor": INK,
        "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
        "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6, "axes.spines.top": False,
        "axes.spines.right": False, "axes.axisbelow": True, "axes.formatter.useoffset": False,
        "path.simplify": True, "path.simplify_threshold": 0.3, "text.usetex": False, "text.parse_math": False,
    }  # fmt: skip
    with mpl.rc_context(settings):
        height = sum(heights)
        figure = Figure(figsize=(WIDTH, height))
        figure.patch.set_alpha(0.0)
        # The same margins in every chart, so that their steps stand one above the other.
        figure.subplots_adjust(0.78 / WIDTH, 0.45 / height, 1 - 0.12 / WIDTH, 1 - top / height, hspace=0.12)
        axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=list(heights))[:, 0]
        for ax in axes:
            ax.patch.set_alpha(0.0)
        draw(list(axes))
        out = StringIO()
        none = {"Date": None, "Creator": None, "Format": None, "Type": None}
        FigureCanvasSVG(figure).print_svg(out, metadata=none)  # type: ignore[no-untyped-call]
    return _inlined(out.getvalue(), name, said)


def _inlined(svg: str, name: str, said: str) -> str:
    """The drawing without its XML head, size and unused names, in the page's colours and font."""
    body = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="[^"]*"', body)
    assert box is not None, "matplotlib writes a viewBox"
    inner = body[body.index(">") + 1 :]
    inner = re.sub(r"\s*<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    # This style would apply to the whole page.
    inner = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", inner, flags=re.DOTALL)
    referred = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', inner))
    inner = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in referred else "", inner)
    inner = re.sub(r'(url\(#|xlink:href="#)', lambda m: f"{m[1]}{name}-".replace("xlink:", ""), inner)
    inner = inner.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans', sans-serif")
    for variable, stand_in in COLOURS.items():
        inner = inner.replace(stand_in, f"var(--{variable})")
    inner = re.sub(r"\n\s*", "\n", inner)
    label = html.escape(said, quote=True)
    return f'<svg {box[0]} role="img" aria-label="{label}"><title>{label}</title>{inner}'
