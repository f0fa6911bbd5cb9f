"""What `check`, `simulate` and `evaluate` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from multistep.core.evidence.function_metric import metric_known_as
from multistep.core.evidence.metric import METRICS, Interval, metric_named
from multistep.core.evidence.scores import form_of, metric_words, unit_words
from multistep.core.values.plan import DataSpec, Phase, Plan
from multistep.core.values.tasks import BUILT_IN, OWN_MODEL, guarded_as, task_named
from multistep.core.values.units import Amount, Unit, format_seconds
from multistep.engine.costs import Cost, network_of, recall
from multistep.engine.kept import PREFIX
from multistep.engine.names import is_here, misspelt
from multistep.engine.origins import Origins, Place
from multistep.engine.plain import plain
from multistep.engine.plancheck import place_of
from multistep.engine.planfile import to_yaml
from multistep.engine.rundir import default_folder, plan_hash
from multistep.errors import PlanError
from multistep.report.words import below_one_folder, clean

if TYPE_CHECKING:
    from multistep.engine.simulate import Outcome


def check_plan(plan: Plan, origins: Origins | None = None) -> dict[str, Any]:
    """The plan as it will be run, and what it will cost as far as this machine's last runs tell.

    Reads no data. Raises PlanError for a local path that does not exist; `origins` tells where the plan names it.
    """
    _require_models(plan, origins or Origins("plan"))
    phases = []
    for index in range(plan.phase_count):
        phase = plan.phase(index)
        _require_paths(plan, index, origins or Origins("plan"))
        phases.append(
            {
                "name": phase.name,
                "task": phase.task,
                "data": str(phase.data),
                "metric": _metric(phase),
                "until": str(phase.until or ("the budget or stable" if plan.budget else "stable")),
                "recipe": {**{key: plain(value) for key, value in phase.recipe.items()}},
                "moves": phase.moves,
                "guard": _guard(phase),
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


def _guard(phase: Phase) -> dict[str, Any] | None:
    """What a phase must not forget; `at_most_worse` is null where it follows from the score before the phase."""
    guard, task = phase.guard, guarded_as(str(phase.task))
    if guard is None or task is None:
        return None
    metric = metric_named(guard.metric or task_named(task).metric).name
    return {"data": str(guard.data), "metric": metric, "at_most_worse": guard.at_most_worse}


def _require_paths(plan: Plan, index: int, origins: Origins) -> None:
    phase = plan.phase(index)
    assert phase.data is not None, "a plan has data"
    if phase.task == OWN_MODEL:
        return  # whose data are Python values
    _require_sources(phase.data, place_of(plan, index, "data"), origins)
    if phase.guard:
        _require_sources(phase.guard.data, ("phases", index, "guard", "data"), origins)


def _require_sources(data: DataSpec, place: Place, origins: Origins) -> None:
    name = "guard.data" if "guard" in place else "data"
    for key in ("source", "train", "validation", "test"):
        source = getattr(data, key)
        if not source or source.startswith(PREFIX) or source in BUILT_IN:
            continue
        if not is_here(source) and (wrong := misspelt(source, BUILT_IN)):
            raise PlanError(f"{origins.at((*place, key))}: {name}: {wrong}")


def _require_models(plan: Plan, origins: Origins) -> None:
    presets = [name for i in range(plan.phase_count) for name in task_named(str(plan.phase(i).task)).presets]
    for model in plan.model.names if plan.task != OWN_MODEL else ():
        known = ("auto", "scratch", *presets)
        if model not in known and not is_here(model) and (wrong := misspelt(model, known)):
            raise PlanError(f"{origins.at(('model', 'name'))}: model: {wrong}")


def _cost(plan: Plan) -> dict[str, Any] | None:
    """Steps or seconds by the last run of this network on this machine; None if there was none of the task.

    Where only others were trained, `same_network` is false, and what a step takes is not guessed from theirs.
    """
    known = [cost for cost in recall() if cost.task == plan.task]
    if not known:
        return None
    same = [cost for cost in known if cost.network == network_of(plan)]
    last = (same or known)[-1]
    found: dict[str, Any] = {
        "last_run": {
            "parameters": last.parameters,
            "device": last.device,
            "steps_per_second": round(last.steps_per_second, 3),
            "tokens_per_second": round(last.tokens_per_second, 1),
            "train_share": round(last.train_share, 3),
        },
        "same_network": bool(same),
    }
    if not same:
        return found
    seconds = _expected_seconds(plan, last)
    if seconds is not None:
        found["seconds"] = round(seconds, 1)
        if plan.budget and plan.budget.unit is Unit.SECONDS:
            found["steps"] = round(seconds * last.train_share * last.steps_per_second)
    return found


def _expected_seconds(plan: Plan, last: Cost) -> float | None:
    """What the plan's lengths take, no more than its budget allows; None where that is not known beforehand."""
    budget = _seconds_of(plan.budget, last)
    lengths = [phase.until for phase in plan.phases]
    if not lengths or not all(isinstance(length, Amount) for length in lengths):
        return budget
    each = [_seconds_of(length, last) for length in lengths]
    total = sum(seconds for seconds in each if seconds is not None)
    return None if None in each else min(total, budget) if budget is not None else total


def _seconds_of(amount: object, last: Cost) -> float | None:
    if not isinstance(amount, Amount) or amount.unit is Unit.EPOCHS:
        return None  # an epoch's length is known only when the data is read
    if amount.unit is Unit.SECONDS:
        return amount.value
    speed = last.steps_per_second if amount.unit is Unit.STEPS else last.tokens_per_second
    return amount.value / speed / last.train_share


def print_check(found: Mapping[str, Any]) -> None:
    """The resolved plan for people."""
    console = Console()
    console.print(f"plan {found['plan']} is valid; it would run in {found['out']}", highlight=False, markup=False)
    console.print(found["yaml"].rstrip(), markup=False, highlight=False)
    table = Table(
        "phase",
        "data",
        "metric",
        "until",
        "recipe",
        title="phases (settings that are not given come from a preset, chosen when the data are read)",
        title_justify="left",
    )
    for phase in found["phases"]:
        recipe = ", ".join(f"{key}={value}" for key, value in phase["recipe"].items()) or "the preset's"
        table.add_row(*_plainly(phase["name"], phase["data"], phase["metric"], phase["until"], recipe))
    console.print(table)
    for phase in found["phases"]:
        if phase["guard"]:
            console.print(Text(clean(guard_words(phase))), highlight=False)
    console.print(f"reproducible: {found['reproducible']}", highlight=False)


def print_cost(cost: Mapping[str, Any] | None) -> None:
    """What the plan will cost, as far as runs of before tell."""
    console = Console()
    if cost is None:
        console.print("cost: unknown; no run of this task on this machine yet", highlight=False)
        return
    last = cost["last_run"]
    if not cost["same_network"]:
        other = f"{last['parameters']:,} parameters, {last['steps_per_second']:g} steps a second"
        console.print(
            f"cost: unknown; the last run of this task here trained another network ({other})", highlight=False
        )
        return
    text = (
        f"cost: the last run here ({last['parameters']:,} parameters) did {last['steps_per_second']:g} steps a second"
    )
    if "steps" in cost:
        text += f"; about {cost['steps']:,} steps"
    elif "seconds" in cost:
        text += f"; about {format_seconds(cost['seconds'])}"
    console.print(text, highlight=False)


def guard_words(phase: Mapping[str, Any]) -> str:
    """`guard of instructions: loss on corpus.txt may get worse by at most 0.05 (else ...)`."""
    guard = phase["guard"]
    most = guard["at_most_worse"]
    allowed = (
        f"{most:g}"
        if most is not None
        else "what is worth waiting for, five times over (1.5% of a loss, one point of accuracy)"
    )
    return (
        f"guard of {phase['name']}: {guard['metric']} on {guard['data']} may get worse by at most {allowed}; a "
        "trial that forgets more is ruled out, and if all of them do, the run goes on from the model that the phase "
        "began with"
    )


def _plainly(*cells: str) -> list[Text]:
    """Cells as they are: brackets of names and paths are no markup, and nothing steers the terminal."""
    return [Text(clean(cell)) for cell in cells]


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """What a plan decided along simulated curves."""
    table = Table("curve", "steps", "time", "trunk left at", "stopped", "why", "score")
    for outcome in outcomes:
        score = "" if outcome.score is None else f"{outcome.score:.4f}"
        trunk = f"{outcome.trunk_steps:,}"
        length = (f"{outcome.steps:,}", format_seconds(outcome.seconds), trunk)
        table.add_row(*_plainly(outcome.family, *length, outcome.stopped, outcome.reason, score))
    Console().print(table)


def print_scores(scores: Mapping[str, Any]) -> None:
    """The scores of `evaluate` with their intervals."""
    split = f", {scores['split']} split" if scores["split"] else ""
    title = Text(clean(f"{scores['examples']:,} examples of {scores['data']}{split}"))
    cut, halves = scores.get("threshold"), any("at_half" in found for found in scores["scores"].values())
    table = Table("metric", f"above {cut:.2f}" if halves else "score", "95% interval", "counted in", title=title)
    if halves:
        table.add_column("at 0.5")
    for name, found in scores["scores"].items():
        interval = Interval(found["score"], found["low"], found["high"], scores["examples"])
        metric = metric_known_as(name, found.get("goal"), found["unit"])
        form = form_of(metric, interval.high - interval.low)
        unit = "" if form.percent else unit_words(metric)
        half = [form.of(found.get("at_half", interval.score))] if halves else []
        table.add_row(*_plainly(metric_words(name), form.of(interval.score), form.between(interval), unit, *half))
    Console().print(table)


def print_export(found: Any) -> None:
    """What an export holds, and how it was checked; of a quantized one its scores beside those of the original."""
    files = ", ".join(f"{name} ({size:,.3g} MB)" for name, size in found.megabytes.items())
    print(f"{found.folder}: {files}")
    print(
        f"checked against torch on {found.checked} batches of several shapes; largest difference {found.difference:.1g}"
    )
    for note in found.notes:
        print(note)
    if not found.quantized:
        return
    table = Table("metric on validation", "as trained", "int8", title="what 8 bits cost")
    for name, score in found.scores.items():
        form = form_of(METRICS[name], score["high"] - score["low"])
        table.add_row(*_plainly(metric_words(name), form.of(score["score"]), form.of(found.quantized[name]["score"])))
    Console().print(table)


def print_predictions(predictions: Sequence[Any], top_k: int | None = None) -> None:
    """Each input with what the model says of it, as `predict` gives them, and so many classes in all (None: three)."""
    folder, names = below_one_folder([str(found.input) for found in predictions])
    rows = []
    for found, name in zip(predictions, names, strict=True):
        likely = sorted(found.others.items(), key=lambda pair: -pair[1])
        others = ", ".join(f"{name} {share:.3f}" for name, share in likely[: top_k or 3] if name != found.output)
        probability = "" if found.probability is None else f"{found.probability:.3f}"
        rows.append(_plainly(name, found.output, probability, others))
    columns = (f"input, below {folder}" if folder else "input", "output", "probability", "others")
    # Numbers have no probability, and transcripts no others.
    shown = [k for k in range(len(columns)) if k < 2 or any(str(row[k]) for row in rows)]
    table = Table(*(columns[k] for k in shown))
    for row in rows:
        table.add_row(*(row[k] for k in shown))
    Console().print(table)
