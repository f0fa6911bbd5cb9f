"""What all presets share: how long a plan is, and what optimizers bring where the plan leaves it open."""

from __future__ import annotations

import math
from collections.abc import Mapping

from multistep.core.values.optimizers import convert_rate
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import OptimizerName, Recipe, Setting
from multistep.core.values.units import Amount, Unit
from multistep.errors import PlanError

# Decoupled, of small classifiers and encoders; Lion's rates are lower by the same factor: arXiv 2302.06675.
WEIGHT_DECAY: Mapping[OptimizerName, float] = {
    "adamw": 0.01,
    "schedule-free": 0.01,
    "soap": 0.01,
    "lion": 0.1,
    "prodigy": 0.01,
}

# AdamW's for BERT with its 110 million parameters (arXiv 1810.04805). Smaller models are fine-tuned at higher rates,
# larger ones at lower: arXiv 1908.08962 has up to 3e-4 for four million. Measured: docs/appendix/measured-moves.md.
FINE_TUNING_RATE, FINE_TUNED = 5e-5, 110e6
HIGHEST_FINE_TUNING_RATE = 1e-3
ADAPTER_RATE = 10.0  # times the rate of all weights: arXiv 2106.09685, and "LoRA without regret" (2025)


def fine_tuning_rate(parameters: int, optimizer: OptimizerName, adapter: Setting = "none") -> float:
    """The rate at which weights from elsewhere are trained on: it falls with the root of their number."""
    rate = min(HIGHEST_FINE_TUNING_RATE, FINE_TUNING_RATE * math.sqrt(FINE_TUNED / max(1, parameters)))
    return beside(adapter, convert_rate(float(f"{rate:.2g}"), "adamw", optimizer), optimizer)


def beside(adapter: Setting, rate: float, optimizer: OptimizerName) -> float:
    """The rate of what is trained if `rate` is that of all weights; Prodigy finds its own."""
    return rate if adapter in ("none", None) or optimizer == "prodigy" else ADAPTER_RATE * rate


def measured_rate(measured: Mapping[OptimizerName, float], optimizer: OptimizerName) -> float:
    """The rate that was measured for a task's nets from nothing; for other optimizers what the first of them says."""
    known = next(iter(measured))
    return measured.get(optimizer) or convert_rate(measured[known], known, optimizer)


def lengths_of(plan: Plan) -> list[Amount]:
    """The plan's budget; without one, what its phases are given."""
    amounts = [plan.budget] if plan.budget else [phase.until for phase in plan.phases]
    return [amount for amount in amounts if isinstance(amount, Amount)]


def epochs_of(plan: Plan, per_epoch: Mapping[Unit, float]) -> float:
    """About how often a plan's lengths read the training split, by what an epoch takes in each unit."""
    return sum(amount.value / max(per_epoch[amount.unit], 1e-9) for amount in lengths_of(plan))


def refuse_model(model: str | None) -> None:
    """What a task with a single network says to a recipe that names one."""
    if model is not None:
        raise PlanError(f"recipe.model is {model}, but this task trains one network, plan.model's; leave it out")


def fill_in(given: Mapping[str, Setting], base: Mapping[str, Setting]) -> Recipe:
    """The recipe of what is given, else of `base`, which names the optimizer, else of what the optimizer asks for."""
    settings = dict(base)
    settings.setdefault("gradient_clip", 0.0 if base["optimizer"] == "muon" else 1.0)
    if base["optimizer"] == "sgd":
        settings["momentum"] = 0.9
    if base["optimizer"] == "schedule-free":
        settings["cooldown_fraction"] = 0.0  # it averages instead: arXiv 2405.15682
    return Recipe(**{**settings, **given})  # type: ignore[arg-type]  # planfile has validated what is given
