"""Several runs on one page: what each came to, their curves over each other, and in what their plans differ."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multistep.core.evidence.function_metric import metric_known_as
from multistep.core.evidence.scores import Form, counted_word, form_of, goal_word, metric_words, width_of
from multistep.core.values.history import History, fold
from multistep.core.values.judging import loss_of, metric_of
from multistep.core.values.units import format_seconds
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory, write_atomically, writing
from multistep.errors import PlanError, RunDirectoryError
from multistep.report.drawing import chart_html, data_of
from multistep.report.outcome import Answer, answer
from multistep.report.page import environment
from multistep.report.plot import MOST_POINTS, Chart, Dot, Line, Scale, limits_of, thinned
from multistep.report.summary import describe
from multistep.report.tracks import Tracks, farthest, tracks_of

COLOURS = 6  # of runs; of more, they are used again
MOST_VALUE = 80  # characters of a setting
EXAMPLES = ("label", "words", "characters", "bytes", "block")  # columns of a table that tell of the examples alone


@dataclass(frozen=True)
class Compared:
    """One of the runs, read."""

    name: str
    look: str
    directory: RunDirectory
    history: History
    tracks: Tracks
    record: Mapping[str, Any]
    found: Answer | None

    @property
    def judged_by(self) -> tuple[str, str] | None:
        """The deciding metric and its split; only what has the same may be ranked."""
        return (self.found.metric, self.found.split) if self.found else None

    @property
    def rows(self) -> str | None:
        """A hash of what is known of the examples that it was scored on, whatever it said of them; None: not known."""
        phase = self.history.phase if self.history.phases else None
        leader = self.history.leader
        full = self.history.test if self.found and self.found.split == "test" else None
        full = full or (self.history.trial(leader.trial).full if phase and leader else None)
        if full is None:
            return None
        try:
            table = self.directory.read_table(full.table)
        except RunDirectoryError:
            return None
        said = [table.columns[name].tobytes() for name in EXAMPLES if name in table.columns]
        return hashlib.sha256(b"|".join([str(len(table)).encode(), *said])).hexdigest()

    @property
    def data(self) -> str:
        return json.dumps(_settings(self, "plan").get("data", ""), sort_keys=True)


def write_comparison(directories: Sequence[RunDirectory], out: Path) -> Path:
    """Write one page about several runs, finished or not, and return its path.

    Raises PlanError for fewer than two different runs, RunDirectoryError for a folder that holds none.
    """
    from markupsafe import Markup

    folders = list(dict.fromkeys(directory.require().folder.resolve() for directory in directories))
    if len(folders) < 2:
        raise PlanError("a comparison needs two different runs or more; name each run's folder")
    if out.exists() and out.is_dir():
        raise PlanError(f"{out}: is a folder; name the HTML file to write, such as --out {out / 'runs.html'}")
    runs = [
        _read(folder, name, index) for index, (folder, name) in enumerate(zip(folders, _names(folders), strict=True))
    ]
    scale = Scale(farthest(run.tracks.way_end for run in runs))
    charts = _charts(runs)
    page = environment().get_template("compare.html.j2").render(
        rows=[_row(run, runs) for run in runs],
        notes=_notes(runs),
        charts=[(chart.title, Markup(chart_html(chart, scale)), "") for chart in charts],  # our own drawings
        curves=Markup(data_of(charts, scale, {})) if charts else "",
        settings=_different([_settings(run) for run in runs]),
        names=[(run.name, run.look) for run in runs],
    )  # fmt: skip
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page + "\n")
    return out


def _read(folder: Path, name: str, index: int) -> Compared:
    directory = RunDirectory(folder)
    entries = list(read_entries(directory.journal))
    history = fold(entries)
    record = describe(directory, entries)
    look = f"run{index % COLOURS + 1}"
    return Compared(name, look, directory, history, tracks_of(entries, history), record, answer(record))


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders without what all have in common before it."""
    common = Path(os.path.commonpath([folder.parent for folder in folders]))
    return [str(folder.relative_to(common)) for folder in folders]


# The table ---------------------------------------------------------------------------------------------


def _row(run: Compared, runs: Sequence[Compared]) -> dict[str, Any]:
    """What stands in the table of a run; `best` where what ships leads the runs that are judged by the same thing."""
    record, found = run.record, run.found
    row: dict[str, Any] = {
        "name": run.name,
        "look": run.look,
        "task": str(record["task"] or "").replace("-", " "),
        "state": record["where"] if record["state"] == "finished" else f"{record['state']}: {record['where']}",
        "model": record["phases"][-1]["model"] if record["phases"] else "",
        "parameters": f"{record['phases'][-1]['parameters']:,}" if record["phases"] else "",
        "time": format_seconds(float(record["seconds"]["total"])),
        "steps": f"{record['steps']:,}",
        "metric": "", "score": "", "interval": "", "best": False, "ships": record["ships"], "network": "",
        "baseline": "", "baseline_gain": "", "base": "", "base_gain": "",
    }  # fmt: skip
    if found is None:
        return row
    form = form_of(metric_known_as(found.metric, found.goal, found.unit), width_of(found.score))
    mine = (run.judged_by, run.data, run.rows)
    rivals = [r.found.shipped.score for r in runs if r.found and (r.judged_by, r.data, r.rows) == mine]
    sign = 1.0 if found.goal == "maximize" else -1.0
    best = max((sign * score for score in rivals if math.isfinite(score)), default=math.nan)
    return row | {
        "metric": f"{metric_words(found.metric)} ({found.split}), {goal_word(found.goal)}",
        "score": form.of(found.shipped.score),
        "interval": form.between(found.shipped) or "not known",
        "network": form.of(found.score.score) if found.ships == "baseline" else "",
        "baseline": form.of(found.baseline.score) if found.baseline else "",
        "baseline_gain": _gain(record["baseline"], found.split, form) if found.baseline else "",
        "base": form.of(found.base.score) if found.base else "",
        "base_gain": _gain(record["base"], found.split, form) if found.base else "",
        "best": len(rivals) > 1 and sign * found.shipped.score == best,
    }


def _gain(rival: Mapping[str, Any], split: str, form: Form) -> str:
    """`gain over it +2.7 points (+0.6 to +4.2)`; empty where it was not worked out."""
    gain = rival[split].get("gain")
    return f"gain over it {form.gap(float(gain['improvement']))} ({form.within(gain)})" if gain else ""


def _notes(runs: Sequence[Compared]) -> list[str]:
    """What to know before the numbers are held against each other."""
    said = []
    judged = {run.judged_by for run in runs if run.judged_by}
    if len(judged) > 1:
        kinds = ", ".join(sorted(f"{metric_words(metric)} on {split}" for metric, split in judged))
        said.append(f"The runs are judged by different things ({kinds}), so only like is held against like.")
    if len({run.data for run in runs}) > 1:
        said.append("The runs read different data, so a difference between their scores need not come from the recipe.")
    else:
        said += _different_parts(runs)
    scored = [run for run in runs if run.found]
    if len(scored) > 1:
        said.append(
            "An interval says how far a score may be from that on new data of the same kind; where those of two runs "
            "overlap widely, neither is shown to be better."
        )
    return said


def _different_parts(runs: Sequence[Compared]) -> list[str]:
    """Where runs name the same data and were scored on different examples of it."""
    said = []
    for split in dict.fromkeys(run.found.split for run in runs if run.found):
        same = [run for run in runs if run.found and run.found.split == split]
        if len({run.rows for run in same}) > 1:
            many = ", ".join(f"{run.name} {run.found.score.n:,}" for run in same if run.found)
            said.append(
                f"The runs were scored on different parts of the {split} split ({many} {counted(same)}), so a "
                "difference between their scores may come from the examples; none of them is marked as the best."
            )
    return said


def counted(runs: Sequence[Compared]) -> str:
    return counted_word(runs[0].found.unit if runs[0].found else None)


# The curves --------------------------------------------------------------------------------------------


def _charts(runs: Sequence[Compared]) -> list[Chart]:
    """One chart for each thing that any of the runs is judged by, and for the losses; a line a run."""
    groups: dict[tuple[str, str, bool], list[Compared]] = {}
    trained = [run for run in runs if run.history.trained]
    for run in trained:
        metric, loss = metric_of(run.history.phase.started), loss_of(run.history.phase.started)
        for name, unit, training in {
            (loss.name, loss.unit, True),
            (loss.name, loss.unit, False),
            (metric.name, metric.unit, False),
        }:
            groups.setdefault((name, unit, training), []).append(run)
    deciding = {metric_of(run.history.phase.started).name for run in trained}
    order = sorted(groups, key=lambda key: (key[2], key[0] not in deciding, key[0], key[1]))
    found = [_chart(number, *key, groups[key]) for number, key in enumerate(order)]
    return [chart for chart in found if chart.lines or chart.dots]


def _chart(number: int, name: str, unit: str, training: bool, runs: Sequence[Compared]) -> Chart:
    goal = metric_of(runs[0].history.phase.started).goal
    form = form_of(metric_known_as(name, goal, unit))
    rising = goal == "maximize" and name != "loss"
    lines, dots = [], []
    for run in runs:
        last = len(run.history.phases) - 1
        points = [p for stretch in run.tracks.way if stretch.track.phase == last for p in stretch.points]
        drawn = [(p.middle, p.loss) for p in points if p.loss is not None]
        if not training:
            drawn = [
                (p.place, p.look.scores[name])
                for p in points
                if p.look and math.isfinite(p.look.scores.get(name, math.nan))
            ]
        full = run.tracks.way[-1].track.full if run.tracks.way else None
        if full and not training and math.isfinite(full[1].scores.get(name, math.nan)):
            value = full[1].scores[name]
            dots.append(
                Dot(f"{run.name}, all of validation", run.look, full[0], value, label=f"{run.name} {form.of(value)}")
            )
        if drawn:
            label = "" if any(dot.look == run.look for dot in dots) else run.name
            lines.append(Line(run.name, run.look, thinned(drawn, MOST_POINTS), label=label))
    what = "training loss" if training else f"validation {metric_words(name)}"
    unit = f", {form.unit}" if form.unit else ""
    values = [v for line in lines for _, v in line.points] + [dot.value for dot in dots]
    return Chart(
        f"compared-{number}", f"{what[:1].upper()}{what[1:]}{unit}",
        f"{what} of {len(runs)} runs, over steps", form, lines, dots=dots, rising=rising, pixels=260,
        limits=limits_of(values, rising=rising, always=[dot.value for dot in dots]),
    )  # fmt: skip


# The plans ---------------------------------------------------------------------------------------------


def _settings(run: Compared, part: str = "") -> dict[str, Any]:
    """The plan and each phase's resolved recipe, flat: `recipe.learning_rate`."""
    try:
        content = run.directory.read_resolved()
    except (FileNotFoundError, RunDirectoryError):
        return {}
    plan = content.get("plan") or {}
    if part == "plan":
        return dict(plan)
    flat = dict(_flat({key: value for key, value in plan.items() if key not in ("recipe", "phases")}))
    phases = content.get("phases") or []
    for index, phase in enumerate(phases):
        at = f"phase {index + 1} recipe" if len(phases) > 1 else "recipe"
        flat |= dict(_flat(phase.get("recipe") or {}, at))
    return flat | dict(_flat(content.get("versions") or {}, "versions"))


def _flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{before}.{key}" if before else str(key)
        if isinstance(value, Mapping) and set(value) == {"value", "unit"}:
            yield name, f"{value['value']:g} {value['unit']}"
        elif isinstance(value, Mapping):
            yield from _flat(value, name)
        else:
            yield name, value


def _different(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The settings in which not all runs are the same, and each run's value."""
    keys = dict.fromkeys(key for each in settings for key in each)
    rows = []
    for key in keys:
        values = [_said(each[key]) if key in each else "not told" for each in settings]
        if len(set(values)) > 1:
            rows.append((key, values))
    return rows


def _said(value: Any) -> str:
    if value is None or value == [] or value == "":
        return "the default"
    text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False).strip('"')
    return text if len(text) <= MOST_VALUE else f"{text[: MOST_VALUE - 1]}…"
