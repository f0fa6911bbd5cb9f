"""What training is expected to come to, told before it begins: a step, the budget's steps and epochs, memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Facts
from multistep.core.values.understood import one_or_many
from multistep.core.values.units import Unit
from multistep.tasks.machine import total_memory
from multistep.tasks.recipes import lengths_of
from multistep.tasks.speeds import TRAINED_SHARE, Work, operations, was_measured

BYTES = 4  # of a number
# Of each trained number: itself, its gradient, its average, and what the optimizer keeps of it.
KEPT_BY_OPTIMIZER = {"adamw": 2, "adam": 2, "soap": 4, "prodigy": 4, "schedule-free": 2, "sgd": 1, "muon": 1, "lion": 1}
LARGE_UNITS = ((1e15, "quadrillion"), (1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


@dataclass(frozen=True)
class Costs:
    """Of training on an example: so many operations, of a kind of work that has a speed of its own."""

    work: Work
    operations: float


def training_words(
    facts: Facts, plan: Plan, recipe: Recipe, costs: Costs | None, device: torch.device
) -> tuple[str, ...]:
    """Sentences for people; what cannot be told is missing."""
    if recipe.batch_size is None:
        return ()
    said = (_step(facts, recipe), _expected(facts, plan, recipe, costs), _memory(facts, recipe, device))
    return tuple(sentence for sentence in said if sentence)


def _step(facts: Facts, recipe: Recipe) -> str:
    size, each = recipe.batch_size or 0, facts.tokens_per_example
    if each == 1:
        return f"{size:,} {one_or_many(size, 'examples')} a step"
    return f"a step reads {size:,} x {each:,} {facts.counted}"


def _expected(facts: Facts, plan: Plan, recipe: Recipe, costs: Costs | None) -> str:
    """Steps and epochs of a plan that is told in time alone."""
    lengths = lengths_of(plan)
    if costs is None or recipe.batch_size is None or not lengths or any(a.unit is not Unit.SECONDS for a in lengths):
        return ""
    rate = operations(costs.work)
    examples = TRAINED_SHARE * sum(a.value for a in lengths) * rate / max(1.0, costs.operations)
    steps, epochs = examples / recipe.batch_size, examples / max(1, facts.train_examples)
    how = "measured here" if was_measured(costs.work) else "that such devices usually do"
    epochs_said = f"{epochs:,.0f}" if epochs >= 10 else f"{epochs:.2g}"
    return (
        f"the budget is expected to hold about {float(f'{steps:.2g}'):,.0f} steps, {epochs_said} epochs, at "
        f"{_large(rate)} operations a second {how}, beside scoring and what is tried"
    )


def _memory(facts: Facts, recipe: Recipe, device: torch.device) -> str:
    """Of adapters hardly more than the weights, of which nothing else is kept."""
    times = 1 if recipe.adapter != "none" else 3 + KEPT_BY_OPTIMIZER.get(recipe.optimizer, 2)
    what = "weights" if times == 1 else "weights, gradients, averages and the optimizer's state"
    needed, there = BYTES * times * facts.parameters, total_memory(device)
    return f"{what} take about {_bytes(needed)} of {_bytes(there)}"


def _bytes(count: float) -> str:
    return f"{count / 2**30:.3g} GB" if count >= 2**30 else f"{max(1, round(count / 2**20)):,} MB"


def _large(count: float) -> str:
    """`92 billion`."""
    size, name = next(((size, name) for size, name in LARGE_UNITS if count >= size), (1.0, ""))
    return f"{count / size:.3g} {name}".rstrip()
