"""What runs cost on this machine, remembered for `multistep check`. A convenience: losing it loses nothing."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from multistep.core.values.history import History
from multistep.engine.rundir import write_atomically

KEPT = 50


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


def cost_of(task: str, history: History) -> Cost | None:
    """The cost of a finished run; None if it trained nothing, or took phases from another run."""
    train = history.spent.get("train", 0.0)
    if not train or not history.steps or history.reused:
        return None
    facts = history.phase.started.facts
    return Cost(
        task,
        facts.parameters,
        facts.device,
        history.tokens / train,
        history.steps / train,
        history.seconds,
        train / history.seconds,
    )


def remember(cost: Cost | None) -> None:
    """Add a run's cost to this machine's record."""
    if cost is None:
        return
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        costs = [*(asdict(known) for known in recall()), asdict(cost)][-KEPT:]
        write_atomically(path, json.dumps(costs, indent=1))
    except OSError:
        return  # a home that cannot be written is no reason to fail a finished run


def recall() -> list[Cost]:
    """This machine's record, oldest first; empty if there is none."""
    try:
        return [Cost(**fields) for fields in json.loads(_path().read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "multistep" / "costs.json"
