"""What training is expected to come to, told before it begins: a step, the budget's steps and epochs, memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Facts
from multistep.core.values.understood import one_or_many
from multistep.core.values.units import Amount, Unit
from multistep.engine.costs import last_of
from multistep.engine.launched import Place, place_of
from multistep.tasks.machine import total_memory
from multistep.tasks.recipes import lengths_of
from multistep.tasks.speeds import TRAINED_SHARE, Work, operations, was_measured

BYTES = 4  # of a number
# Of each trained number: itself, its gradient, its average, and what the optimizer keeps of it.
KEPT_BY_OPTIMIZER = {"adamw": 2, "adam": 2, "soap": 4, "prodigy": 4, "schedule-free": 2, "sgd": 1, "muon": 1, "lion": 1}
SHARE_OF_MEMORY = 0.5  # of a device, that all this may take: the rest is for activations
ROWS_OF_TOKENS = ("tokens of running text", "documents")  # units of texts that are cut into rows of a context
LARGE_UNITS = ((1e15, "quadrillion"), (1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


@dataclass(frozen=True)
class Costs:
    """Of training on an example: so many operations, of a kind of work that has a speed of its own."""

    work: Work
    operations: float


def training_words(facts: Facts, recipe: Recipe, unit: str, device: torch.device) -> tuple[str, ...]:
    """What a step reads and what memory training takes, for people; `unit` is what the training split is counted in."""
    if recipe.batch_size is None:
        return ()
    memory = _memory(facts.parameters, recipe, device)
    sharded = sharding_words(facts.parameters, recipe, device, place_of())
    return _step(facts, recipe, unit), memory, *((sharded,) if sharded else ())


def is_sharded(parameters: int, recipe: Recipe, device: torch.device, place: Place | None) -> bool:
    """Whether several processes hold a part of the model each. Settled by the first of them, by its device."""
    if place is None or recipe.sharding != "auto" or recipe.outer is not None:
        return place is not None and recipe.sharding == "full"
    return _bytes_kept(parameters, recipe) > SHARE_OF_MEMORY * _memory_of(device, place)


def sharding_words(parameters: int, recipe: Recipe, device: torch.device, place: Place | None) -> str:
    """Where the model lies, for people; empty where nothing need be said."""
    if place is not None and is_sharded(parameters, recipe, device, place):
        share = f"sharded over {place.size} processes, {_bytes(_bytes_kept(parameters, recipe) / place.size)} each"
        if recipe.sharding == "full":
            return f"{share}, as recipe.sharding says"
        return f"{share}, since that is more than half of the {_bytes(_memory_of(device, place))} that one has"
    if place is not None:
        return f"each of {place.size} processes holds all of it"
    if recipe.sharding == "full":
        return (
            "recipe.sharding is full, but one process trains, which holds all of it; start several with "
            "`torchrun --nproc-per-node N -m multistep train PLAN`"
        )
    if recipe.sharding == "auto" and _bytes_kept(parameters, recipe) > SHARE_OF_MEMORY * total_memory(device):
        return "more than half of it, which leaves little for activations; several processes (torchrun) would shard it"
    return ""


def _memory_of(device: torch.device, place: Place) -> float:
    """Bytes that one process may have: those of a CPU are shared by all on its machine."""
    return total_memory(device) / (place.local_size if device.type == "cpu" else 1)


def _step(facts: Facts, recipe: Recipe, unit: str) -> str:
    size = recipe.batch_size or 0
    if unit in ROWS_OF_TOKENS and facts.tokens_per_example > 1:
        return f"{size:,} x {facts.tokens_per_example:,} tokens a step"
    return f"{size:,} {one_or_many(size, unit)} a step"


def foreseen_steps(plan: Plan, phase: int, recipe: Recipe, costs: Costs | None) -> float | None:
    """Of a phase with a time of its own, or of a plan that is told in time alone; None where they cannot be told."""
    until = plan.phase(phase).until
    lengths = [until] if isinstance(until, Amount) else lengths_of(plan)
    if costs is None or recipe.batch_size is None or not lengths or any(a.unit is not Unit.SECONDS for a in lengths):
        return None
    seconds = TRAINED_SHARE * sum(a.value for a in lengths)
    examples = seconds * operations(costs.work) / max(1.0, costs.operations) * _by_growing(recipe)
    return examples / recipe.batch_size


def expected_words(facts: Facts, recipe: Recipe, costs: Costs | None, plan: Plan) -> str:
    """Steps and epochs that the facts expect, or else the speed of the last run; empty where nothing is known."""
    if facts.foreseen_steps is None or costs is None or recipe.batch_size is None:
        return _as_last_time(facts, recipe, plan)
    how = "as measured here" if was_measured(costs.work) else "which such devices usually do"
    return (
        f"{_held(facts.foreseen_steps, facts, recipe)}, beside scoring and what is tried, at "
        f"{_large(operations(costs.work))} operations a second, {how}"
    )


def _as_last_time(facts: Facts, recipe: Recipe, plan: Plan) -> str:
    """By the last run of the network here: what a step costs is not known beforehand of a user's own module."""
    budget = plan.budget
    if budget is None or budget.unit is not Unit.SECONDS or plan.phase_count > 1 or recipe.batch_size is None:
        return ""
    last = last_of(plan, facts.parameters, facts.device)
    if last is None:
        return ""
    steps = budget.value * last.train_share * last.steps_per_second
    return (
        f"{_held(steps, facts, recipe)}, with what is tried, as the last run of it here did "
        f"{last.steps_per_second:.3g} steps a second"
    )


def _held(steps: float, facts: Facts, recipe: Recipe) -> str:
    """`about 480 steps, 40 epochs`."""
    epochs = steps * (recipe.batch_size or 1) / max(1, facts.train_examples)
    epochs_said = f"{epochs:,.0f}" if epochs >= 10 else f"{epochs:.2g}"
    return f"about {float(f'{steps:.2g}'):,.0f} steps, {epochs_said} epochs"


def _by_growing(recipe: Recipe) -> float:
    """Examples that are read in the time that one takes at full size: a trunk that grows reads smaller ones."""
    *small, full = recipe.resolution or (1,)
    if not small or not recipe.cooldown_fraction:
        return 1.0
    of_full = sum((side / full) ** 2 for side in small) / len(small)
    return (1.0 - recipe.cooldown_fraction) / of_full + recipe.cooldown_fraction


def _bytes_kept(parameters: int, recipe: Recipe) -> int:
    """Of adapters hardly more than the weights, of which nothing else is kept."""
    times = 1 if recipe.adapter != "none" else 3 + KEPT_BY_OPTIMIZER.get(recipe.optimizer, 2)
    return BYTES * times * parameters


def _memory(parameters: int, recipe: Recipe, device: torch.device) -> str:
    what = "weights" if recipe.adapter != "none" else "weights, gradients and the optimizer"
    return f"{_bytes(_bytes_kept(parameters, recipe))} for {what}, of {_bytes(total_memory(device))}"


def _bytes(count: float) -> str:
    return f"{count / 2**30:.3g} GB" if count >= 2**30 else f"{max(1, round(count / 2**20)):,} MB"


def _large(count: float) -> str:
    """`92 billion`."""
    size, name = next(((size, name) for size, name in LARGE_UNITS if count >= size), (1.0, ""))
    return f"{count / size:.3g} {name}".rstrip()
