"""How long a training step takes here: sizes are chosen by it where a plan's time decides them."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from multistep.backends.torch.devices import multiplying, rounding, rounds
from multistep.backends.torch.optimizers import build_optimizer
from multistep.backends.torch.randomness import undisturbed
from multistep.core.values.recipe import OptimizerName, Precision, Recipe

WARM_STEPS, LEAST_STEPS, MOST_STEPS = 1, 2, 8
RATE = 1e-6  # of learning: whatever is timed is thrown away


def seconds_per_step(
    model: nn.Module,
    loss: Callable[[], Tensor],
    optimizer: OptimizerName,
    device: torch.device,
    at_most: float,
    precision: Precision = "auto",
) -> float:
    """The fastest of some steps as the learner takes them: forward, backward and the optimizer's.

    `loss` is a mean over one batch, which lies on the device like the model; weights change, random states do not. It
    takes about `at_most` seconds, three steps at the least. The fastest, since what else runs for a moment only
    makes steps slower, and what runs all the time slows all of them.
    """
    recipe = Recipe(optimizer=optimizer, precision=precision)
    found: list[float] = []
    with undisturbed(device), rounding(rounds(recipe, device)):
        rule = build_optimizer(optimizer, model.train(), learning_rate=RATE)
        began = time.perf_counter()
        while len(found) < WARM_STEPS + MOST_STEPS:
            if len(found) >= WARM_STEPS + LEAST_STEPS and time.perf_counter() - began > at_most:
                break
            before = time.perf_counter()
            rule.zero_grad()
            with multiplying(recipe, device):
                value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            rule.step(RATE)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            found.append(time.perf_counter() - before)
    return min(found[WARM_STEPS:])
