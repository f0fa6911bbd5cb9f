"""Drawing: panels above each other -> SVG that follows the page's colours, light or dark.

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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "ink": "#010101", "muted": "#020202", "grid": "#030303", "train": "#040404", "look": "#050505",
    "baseline": "#060606", "shade": "#070707", "mark": "#080808", "paper": "#090909",
}  # fmt: skip
INK, MUTED, GRID, TRAIN, LOOK, BASELINE, SHADE, MARK, PAPER = COLOURS.values()
MOST_POINTS = 300  # of a line; more cannot be told apart at this width
FEW_POINTS = 8  # are marked
WIDTH = 8.2  # inches
Points = list[tuple[float, float]]


def svg(
    name: str,
    said: str,
    draw: Callable[[Sequence[Axes]], None],
    *,
    heights: Sequence[float],
    top: float = 0.1,
    left: float = 0.78,
) -> str:
    """Draw panels of these heights above each other; all in inches, `top` and `left` are left free beside them."""
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
        # The same margins in every chart over steps, so that these stand one above the other.
        figure.subplots_adjust(left / WIDTH, 0.45 / height, 1 - 0.12 / WIDTH, 1 - top / height, hspace=0.12)
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


# What charts have in common --------------------------------------------------------------------------


def in_font(name: str) -> str:
    """A name as far as the charts' font has it."""
    kept = "".join(c for c in name if c.isascii() and c.isprintable()).strip()
    return kept[:28]


def line(ax: Axes, points: Points, **style: object) -> None:
    kept = [points[i] for i in thinned(len(points))]
    ys = [y if math.isfinite(y) else math.nan for _, y in kept]
    # A line of one point would not be seen.
    style = {"marker": "." if len(kept) <= FEW_POINTS else "", **style}
    ax.plot([x for x, _ in kept], ys, **style)  # type: ignore[arg-type]


def thinned(count: int) -> list[int]:
    if count <= MOST_POINTS:
        return list(range(count))
    return sorted({round(i * (count - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})


def limit(ax: Axes, values: Iterable[float], *, rising: bool = False) -> None:
    """Limits that neither one explosion nor the untrained model's first scores can blow up; `rising` is better."""
    sign = -1.0 if rising else 1.0
    finite = sorted(sign * value for value in values if math.isfinite(value))
    if not finite:
        return
    best, worst = finite[0], finite[-1]
    usual = finite[int(0.95 * (len(finite) - 1))]
    if worst - best > 3 * (usual - best) > 0:
        worst = usual + 0.5 * (usual - best)
    room = 0.06 * (worst - best) or 0.05 * abs(worst) or 1.0
    ax.set_ylim(*sorted((sign * (best - 2 * room), sign * (worst + room))))


def above(ax: Axes, x: float, text: str, *, line: int, weight: str = "normal") -> None:
    """Write above an axis, from x on."""
    ax.annotate(
        text, (x, 1.0), (2, 4 + 11 * line), xycoords=("data", "axes fraction"), textcoords="offset points",
        color=MUTED, weight=weight,
    )  # fmt: skip


def text_width(text: str) -> float:
    """About how many points a text of the charts' font is wide."""
    return 5.2 * len(text)


def label_points(ax: Axes, labels: Sequence[tuple[float, float, str, bool]]) -> None:
    """Write (x, y, text, strong) beside points, one under the other where they would overlap. Limits must be set."""
    placed: list[tuple[float, float, float]] = []  # left, right, bottom; in points, as a page's dots are
    for x, y, text, strong in sorted(labels, key=lambda each: -each[1]):
        at_x, at_y = ax.transData.transform((x, y))
        width = text_width(text)
        right = at_x + 7 + width < ax.bbox.x1
        left = at_x + 7 if right or at_x - 7 - width < ax.bbox.x0 else at_x - 7 - width
        bottom = at_y - 3.0
        while any(one < left + width and left < end and abs(y_ - bottom) < 11 for one, end, y_ in placed):
            bottom -= 11.0
        placed.append((left, left + width, bottom))
        ax.annotate(
            text, (x, y), (left - at_x, bottom - at_y), textcoords="offset points", color=MARK if strong else INK,
            weight="bold" if strong else "normal", zorder=6,
            bbox={"facecolor": PAPER, "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
