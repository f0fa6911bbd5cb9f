"""What to train of a pretrained causal model when the plan leaves it open: all of it or adapters, how large a step."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import cast

import torch

from multistep.backends.torch.adapters import Origin
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import OptimizerName, Precision, Recipe, Setting
from multistep.core.values.units import Unit
from multistep.tasks.machine import total_memory
from multistep.tasks.pretrained.settle import TUNING
from multistep.tasks.pretrained.timed import faster_in_bfloat16, tuning_speed
from multistep.tasks.recipes import fill_in, fine_tuning_rate, lengths_of
from multistep.tasks.speeds import operations

BATCH_SIZE = 12  # contexts a step; of pretrained weights, at most
STEPS = 150  # that a budget should hold; a third of them is the least that fine-tuning was seen to be worth
LEAST_TOKENS = 256  # of a step
WARMUP_STEPS, WARMUP_SHARE = 100, 0.1
# Of a budget, what scoring a held-out split once may take: validation is scored some four times, the test split twice,
# and together they are to leave six sevenths to training.
# Of a plan's time; of train: pairs of answers alone, which are scored once before they are learnt from. Training on one
# takes three times as long, so that what is left of the time reads them about twice.
# What is written at the end to be shown counts as what could be scored meanwhile.
SCORED_SHARE = {"train": 0.15, "validation": 0.02, "test": 0.025, "shown": 0.02}
# Tokens that are scored where they take twice that share at most: of fewer there is little to say.
ENOUGH_SCORED, DEARER = 4000, 2.0
LEAST_OF_TEXT = 4000  # running text: seven spans or so, whose differences say how sure a score is
OF_SCORING = 2.0  # operations a parameter and token
PER_PARAMETER_AND_TOKEN = {"none": 6.0}  # operations; of adapters, whose base needs no gradients, four
OF_ADAPTERS = 4.0
# Parameters from which on a model is given adapters: a third of the memory, and two thirds of a step's operations.
ADAPTED_FROM = 50e6
# Bytes a parameter of training all weights: these, their average, gradients, two of the optimizer, what was loaded.
BYTES_OF_ALL, SHARE_OF_MEMORY = 24, 0.5
# Of matrices alone. Lion's rate is a part of AdamW's, so it takes that much more decay: arXiv 2302.06675.
WEIGHT_DECAY: Mapping[OptimizerName, float] = {
    "adamw": 0.1,
    "schedule-free": 0.1,
    "soap": 0.1,
    "lion": 1.0,
    "prodigy": 0.1,
}


def tuned_recipe(
    given: Mapping[str, Setting],
    plan: Plan,
    *,
    parameters: int,
    own_dropout: float,
    adapts: bool,
    tokens_per_example: int,
    train_tokens: int,
    device: torch.device,
    most_examples: int = BATCH_SIZE,
) -> Recipe:
    """The recipe with every setting that the plan leaves open, for weights that come from elsewhere.

    `adapts` tells that the model can have adapters. They keep `own_dropout`: they are read a few times, whatever the
    budget, and what they are not used to costs more than it guards against (docs/appendix/experiments.md).
    """
    adapter = given.get("adapter", _adapter(parameters, device) if adapts else "none")
    optimizer = cast(OptimizerName, given.get("optimizer", "adamw"))
    tokens = expected_tokens(
        plan, parameters=parameters, adapter=str(adapter), train_tokens=train_tokens, device=device
    )
    size = most_examples
    if tokens is not None:
        size = max(1, min(most_examples, round(max(LEAST_TOKENS, tokens / STEPS) / tokens_per_example)))
    steps = _steps(plan, tokens, size * tokens_per_example)
    base: dict[str, Setting] = {
        "adapter": adapter,
        "optimizer": optimizer,
        "learning_rate": fine_tuning_rate(parameters, optimizer, adapter),
        "batch_size": size,
        "weight_decay": WEIGHT_DECAY.get(optimizer, 0.0) if adapter == "none" else 0.0,
        "warmup_steps": int(min(WARMUP_STEPS, max(1.0, WARMUP_SHARE * steps))),
        "dropout": own_dropout,
        "precision": _precision(plan, parameters),
    }
    return fill_in(given, base)


def most_scored(plan: Plan, split: str, *, parameters: int, readings: int = 1, least: int = 0) -> int | None:
    """How many tokens of a split a plan's time bears to have scored; None where it is not told in time.

    By the speed that was measured where the run began, whatever this machine can do: one that goes on elsewhere scores
    the same rows. `readings` is how often an evaluation reads them: where answers are judged, they are written or
    compared beside the loss. `least` is what is scored in any case.
    """
    seconds = sum(amount.value for amount in lengths_of(plan) if amount.unit is Unit.SECONDS)
    if not seconds:
        return None
    tuning_speed(plan)  # measures it, the first time
    share = SCORED_SHARE[split] * seconds * operations(TUNING) / (readings * OF_SCORING * parameters)
    return max(least, int(max(share, min(ENOUGH_SCORED, DEARER * share))))


def bears_all(parameters: int, device: torch.device) -> bool:
    """Whether a device's memory holds the training of all weights."""
    return BYTES_OF_ALL * parameters <= SHARE_OF_MEMORY * total_memory(device)


def expected_tokens(
    plan: Plan, *, parameters: int, adapter: str, train_tokens: int, device: torch.device
) -> float | None:
    """About how many tokens a plan's budget trains on. None where it is in steps."""
    rate = tuning_speed(plan)
    each = parameters * PER_PARAMETER_AND_TOKEN.get(adapter, OF_ADAPTERS)
    total = 0.0
    for amount in lengths_of(plan):
        match amount.unit:
            case Unit.STEPS:
                return None
            case Unit.SECONDS:
                total += amount.value * rate / each
            case Unit.EPOCHS:
                total += amount.value * train_tokens
            case Unit.TOKENS:
                total += amount.value
    return total or None


def _steps(plan: Plan, tokens: float | None, tokens_per_step: int) -> float:
    """That the plan's length holds, as far as one can tell; without any length, as many as you like."""
    if tokens is not None:
        return tokens / tokens_per_step
    return sum(amount.value for amount in lengths_of(plan)) or math.inf


def _precision(plan: Plan, parameters: int) -> Precision:
    """bfloat16 for large models on CPUs that are faster in it, too (docs/how-to/adapters.md)."""
    return "bfloat16" if parameters >= ADAPTED_FROM and faster_in_bfloat16(plan) else "auto"


def adapts(origin: Origin | None) -> bool:
    """Whether weights from there can have adapters here."""
    return origin is not None and origin.share is not None and importlib.util.find_spec("peft") is not None


def _adapter(parameters: int, device: torch.device) -> str:
    return "lora" if parameters >= ADAPTED_FROM or not bears_all(parameters, device) else "none"
