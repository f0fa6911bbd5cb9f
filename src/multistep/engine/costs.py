"""What runs cost on this machine, remembered for `multistep check`. A convenience: losing it loses nothing."""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from multistep.core.choice.allowance import CLOSING_SECONDS
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.core.values.units import Unit
from multistep.engine.plain import to_json
from multistep.engine.rundir import write_atomically
from multistep.errors import PlanError

KEPT = 50
STARTS_KEPT = 5  # of each task; the shortest counts, since the others may have had a busy machine
FASTER = 0.6  # of that; a machine that was busy each time must not refuse for good what it could do now
AUTO = "auto"  # the name of a model that the data and the time choose
LEAST_START = 1.0  # seconds that loading the libraries takes anywhere


@dataclass(frozen=True)
class Cost:
    """One finished run: its model's size, its speed, and what went to other things than training."""

    task: str
    parameters: int
    device: str
    tokens_per_second: float
    steps_per_second: float
    seconds: float
    train_share: float
    network: str = ""  # what was trained, as `network_of` tells it


def network_of(plan: Plan) -> str:
    """What tells whether two plans train the same network: the model, and the data where these choose it."""
    chosen = AUTO in plan.model.names
    return to_json([plan.model, plan.recipe.get("model"), plan.recipe.get("batch_size"), plan.data if chosen else None])


def cost_of(plan: Plan, history: History) -> Cost | None:
    """The cost of a finished run; None if it trained nothing, took phases from another run, or ran in several lanes."""
    train = history.spent.get("train", 0.0)
    if not train or not history.steps or history.reused or history.lanes:
        return None
    facts = history.phase.started.facts
    return Cost(
        plan.task,
        facts.parameters,
        facts.device,
        history.tokens / train,
        history.steps / train,
        history.seconds,
        train / history.seconds,
        network_of(plan),
    )


def remember(cost: Cost | None) -> None:
    """Add a run's cost to this machine's record."""
    if cost is None:
        return
    _write("costs", [*(asdict(known) for known in recall()), asdict(cost)][-KEPT:])


def recall() -> list[Cost]:
    """This machine's record, oldest first; empty if there is none."""
    try:
        return [Cost(**fields) for fields in json.loads(_path().read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def last_of(plan: Plan, parameters: int, device: str) -> Cost | None:
    """The last run on this machine of a plan's network with as many parameters; None if there was none."""
    wanted = (plan.task, network_of(plan), parameters, device)
    return next((c for c in reversed(recall()) if (c.task, c.network, c.parameters, c.device) == wanted), None)


def remember_start(task: str, seconds: float) -> None:
    """Add to this machine's record what starting a run of a task took: libraries, data and model."""
    known = _starts()
    known[task] = [*known.get(task, []), round(seconds, 2)][-STARTS_KEPT:]
    _write("starts", known)


def start_seconds(task: str) -> float:
    """What starting a run of a task takes on this machine at least, as far as its last runs tell."""
    return max(LEAST_START, FASTER * min(_starts().get(task) or [0.0]))


def steady_speed(work: str, machine: str, measured: float, near: float) -> float:
    """The operations a second that this machine is known for, where what was measured now is `near` (a difference of
    logarithms); else what was measured, by which it is known from now on.
    """
    try:
        known = {str(key): float(rate) for key, rate in json.loads(_path("speeds").read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        known = {}
    key = f"{work}: {machine}"
    before = known.get(key, 0.0)
    if before > 0 and abs(math.log(measured / before)) < near:
        return before
    _write("speeds", known | {key: measured})
    return measured


def require_time_to_start(plan: Plan) -> None:
    """Raises PlanError, before anything is loaded, for a budget in which no run of the task can start and finish."""
    budget = plan.budget
    needed = start_seconds(plan.task) + CLOSING_SECONDS
    if budget is not None and budget.unit is Unit.SECONDS and budget.value < needed:
        raise PlanError(
            f"budget is {budget}; starting and finishing a run of {plan.task} take {needed:.0f}s on this machine, and "
            f"training and evaluations come on top: give it at least {math.ceil(2 * needed)}s, or a number of steps"
        )


def _starts() -> dict[str, list[float]]:
    try:
        found = json.loads(_path("starts").read_text(encoding="utf-8"))
        return {str(task): [float(s) for s in seconds] for task, seconds in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(name: str, content: object) -> None:
    path = _path(name)
    with contextlib.suppress(OSError):  # a home that cannot be written is no reason to fail a run
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content, indent=1))


def _path(name: str = "costs") -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "multistep" / f"{name}.json"
