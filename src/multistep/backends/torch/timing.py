"""How long a training step takes here: sizes are chosen by it where a plan's time decides them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from multistep.backends.torch.devices import reduces
from multistep.backends.torch.optimizers import build_optimizer
from multistep.backends.torch.randomness import undisturbed
from multistep.core.values.recipe import OptimizerName, Recipe

WARM_STEPS, LEAST_STEPS, MOST_STEPS = 1, 2, 8
RATE = 1e-6  # of learning: whatever is timed is thrown away


def seconds_per_step(
    model: nn.Module, loss: Callable[[], Tensor], optimizer: OptimizerName, device: torch.device, at_most: float
) -> float:
    """The median of some steps as the learner takes them: forward, backward and the optimizer's.

    `loss` is a mean over one batch, which lies on the device like the model; weights change, random states do not. It
    takes about `at_most` seconds, three steps at the least. The median, since a core that is busy for a moment says
    little, and one that is busy all the time says what there is.
    """
    reduced = reduces(Recipe(optimizer=optimizer), device)
    found: list[float] = []
    with undisturbed(device):
        rule = build_optimizer(optimizer, model.train(), learning_rate=RATE)
        began = time.perf_counter()
        while len(found) < WARM_STEPS + MOST_STEPS:
            if len(found) >= WARM_STEPS + LEAST_STEPS and time.perf_counter() - began > at_most:
                break
            before = time.perf_counter()
            rule.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=reduced):
                value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            rule.step(RATE)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            found.append(time.perf_counter() - before)
    return statistics.median(found[WARM_STEPS:])
