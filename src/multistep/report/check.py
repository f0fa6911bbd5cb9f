"""What `check`, `simulate` and `evaluate` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from multistep.core.metric import metric_named
from multistep.core.plan import DataSpec, Phase, Plan
from multistep.core.tasks import OWN_MODEL, task_named
from multistep.core.units import Amount, Unit, format_seconds
from multistep.engine.costs import recall
from multistep.engine.plain import plain
from multistep.engine.planfile import to_yaml
from multistep.engine.rundir import default_folder, plan_hash
from multistep.errors import PlanError
from multistep.report.words import clean

if TYPE_CHECKING:
    from multistep.engine.simulate import Outcome


def check_plan(plan: Plan) -> dict[str, Any]:
    """The plan as it will be run, and what it will cost as far as this machine's last runs tell.

    Reads no data. Raises PlanError for a local path that does not exist.
    """
    phases = []
    for index in range(plan.phase_count):
        phase = plan.phase(index)
        assert phase.data is not None
        _require_paths(phase.data)
        phases.append(
            {
                "name": phase.name,
                "task": phase.task,
                "data": str(phase.data),
                "metric": _metric(phase),
                "until": str(phase.until or ("the budget or stable" if plan.budget else "stable")),
                "recipe": {**{key: plain(value) for key, value in phase.recipe.items()}},
                "moves": phase.moves,
            }
        )
    return {
        "plan": plan_hash(plan),
        "task": plan.task,
        "model": plain(plan.model),
        "budget": str(plan.budget) if plan.budget else None,
        "seed": plan.seed,
        "out": str(default_folder(plan)),
        "reproducible": "bit for bit" if not plan.timed else "by its journal (a clock decides lengths)",
        "phases": phases,
        "yaml": to_yaml(plan),
        "cost": _cost(plan),
    }


def _metric(phase: Phase) -> str:
    """The name of what decides; of a model of the user's own it may be a function's."""
    if phase.task == OWN_MODEL and phase.metric:
        return phase.metric
    return metric_named(phase.metric or task_named(str(phase.task)).metric).name


def _require_paths(data: DataSpec) -> None:
    for path in (data.source, data.train, data.validation, data.test):
        # What looks like "owner/name" may be a hub id; a leading dot or slash, or a file's ending, may not.
        if path and (path.startswith((".", "/")) or Path(path).suffix) and not Path(path).exists():
            raise PlanError(f"data: {path}: no such file or folder; the path is relative to {Path.cwd().name}/")


def _cost(plan: Plan) -> dict[str, Any] | None:
    """Steps or seconds by the last run of this task on this machine; None if there was none."""
    known = [cost for cost in recall() if cost.task == plan.task]
    if not known:
        return None
    last = known[-1]
    found: dict[str, Any] = {
        "last_run": {
            "parameters": last.parameters,
            "device": last.device,
            "steps_per_second": round(last.steps_per_second, 3),
            "tokens_per_second": round(last.tokens_per_second, 1),
            "train_share": round(last.train_share, 3),
        }
    }
    amounts = [phase.until for phase in plan.phases] or [plan.budget]
    seconds = 0.0
    for amount in amounts:
        if not isinstance(amount, Amount) or amount.unit is Unit.EPOCHS:
            return found  # an epoch's length is known only when the data is read
        if amount.unit is Unit.SECONDS:
            seconds += amount.value
            continue
        speed = last.steps_per_second if amount.unit is Unit.STEPS else last.tokens_per_second
        seconds += amount.value / speed / last.train_share
    found["seconds"] = round(seconds, 1)
    if plan.budget and plan.budget.unit is Unit.SECONDS:
        found["steps"] = round(plan.budget.value * last.train_share * last.steps_per_second)
    return found


def print_check(found: Mapping[str, Any]) -> None:
    """The resolved plan for people."""
    console = Console()
    console.print(f"plan {found['plan']} is valid; it would run in {found['out']}", highlight=False)
    console.print(found["yaml"].rstrip(), markup=False, highlight=False)
    table = Table(
        "phase",
        "data",
        "metric",
        "until",
        "recipe",
        title="phases (what is not given is the preset's, chosen with the data)",
        title_justify="left",
    )
    for phase in found["phases"]:
        recipe = ", ".join(f"{key}={value}" for key, value in phase["recipe"].items()) or "the preset's"
        table.add_row(phase["name"], phase["data"], phase["metric"], phase["until"], recipe)
    console.print(table)
    console.print(f"reproducible: {found['reproducible']}", highlight=False)
    cost = found["cost"]
    if cost is None:
        console.print("cost: unknown; no run of this task on this machine yet", highlight=False)
        return
    last = cost["last_run"]
    text = (
        f"cost: the last run here ({last['parameters']:,} parameters) did {last['steps_per_second']:g} steps a second"
    )
    if "steps" in cost:
        text += f"; about {cost['steps']:,} steps for a model of that size"
    elif "seconds" in cost:
        text += f"; about {format_seconds(cost['seconds'])} for a model of that size"
    console.print(text, highlight=False)


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """What a plan decided along simulated curves."""
    table = Table("curve", "steps", "time", "trunk left at", "stopped", "why", "score")
    for outcome in outcomes:
        table.add_row(
            outcome.family,
            f"{outcome.steps:,}",
            format_seconds(outcome.seconds),
            f"{outcome.trunk_steps:,}",
            outcome.stopped,
            outcome.reason,
            "" if outcome.score is None else f"{outcome.score:.4f}",
        )
    Console().print(table)


def print_scores(scores: Mapping[str, Any]) -> None:
    """The scores of `evaluate` with their intervals."""
    table = Table("metric", "score", "95% interval", "unit", title=f"{scores['examples']} examples of {scores['data']}")
    for name, found in scores["scores"].items():
        interval = f"[{found['low']:.4f}, {found['high']:.4f}]"
        table.add_row(name, f"{found['score']:.4f}", interval, found["unit"])
    Console().print(table)


def print_predictions(predictions: Sequence[Any]) -> None:
    """Each input with what the model says of it, as `predict` gives them."""
    table = Table("input", "output", "probability", "others")
    for found in predictions:
        likely = sorted(found.others.items(), key=lambda pair: -pair[1])
        others = ", ".join(f"{name} {share:.3f}" for name, share in likely[:3] if name != found.output)
        probability = "" if found.probability is None else f"{found.probability:.3f}"
        table.add_row(*(Text(clean(part)) for part in (found.input, found.output, probability, others)))
    Console().print(table)
