"""The plan that keywords beside a model of the user's own come to, whichever framework the model is of."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

from multistep.core.values.plan import Plan
from multistep.core.values.tasks import OWN_MODEL
from multistep.engine.elsewhere import SHORT_KEYS
from multistep.engine.planfile import plan_from

OF_THE_PLAN = ("metric", "budget", "recipe", "seed", "moves", "phases", "tolerance", "ship", "keep")


def plan_of(
    given: Mapping[str, Any], splits: Mapping[str, Sized], *, model: str, identity: str, metric: str | None
) -> Plan:
    """`model` is its name, `identity` a hash of code and data, `metric` the name of a function that judges it.

    Raises PlanError for settings that mean nothing.
    """
    content = {key: given[key] for key in OF_THE_PLAN if given.get(key) is not None}
    short = {key: given[key] for key in SHORT_KEYS if given.get(key) is not None}
    if metric:
        content["metric"] = metric
    sizes = " + ".join(f"{len(split):,} {name}" for name, split in splits.items())
    content |= {"task": OWN_MODEL, "data": f"in memory, {sizes} ({identity})", "model": {"name": model}}
    return plan_from(content, over=short)
