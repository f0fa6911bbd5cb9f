"""How many operations a second this device does in training encoders and language models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from multistep.backends.torch.devices import pick_device
from multistep.backends.torch.timing import seconds_per_step
from multistep.core.values.plan import Plan
from multistep.tasks.pretrained.settle import TUNING
from multistep.tasks.speeds import operations

PER_PARAMETER_AND_TOKEN = 6.0  # operations: arXiv 2001.08361
HEAD_WIDTH = 32


@dataclass(frozen=True)
class Sizes:
    """Layers of some width, reading `rows` texts of `length` tokens a step."""

    layers: int
    width: int
    rows: int
    length: int


# Two layers of MiniLM on a CPU, where larger ones are hardly faster; elsewhere of BERT, and enough to be busy with.
ON_CPU, ELSEWHERE = Sizes(2, 384, 8, 64), Sizes(2, 768, 32, 128)


def tuning_speed(plan: Plan) -> float:
    """Operations a second in tuning pretrained weights, measured where the plan's time asks for it."""
    sizes = ON_CPU if pick_device().type == "cpu" else ELSEWHERE
    return operations(TUNING, plan, lambda _, seconds: transformer_speed(sizes, seconds))


def transformer_speed(sizes: Sizes, at_most: float) -> float:
    """Operations a second, six a parameter and token, in training such layers for about `at_most` seconds."""
    device = pick_device()
    heads = max(1, sizes.width // HEAD_WIDTH)
    with torch.random.fork_rng([]):
        layer = nn.TransformerEncoderLayer(sizes.width, heads, 4 * sizes.width, batch_first=True, activation="gelu")
        model = nn.TransformerEncoder(layer, sizes.layers, enable_nested_tensor=False).to(device)
    x_BTW = torch.zeros(sizes.rows, sizes.length, sizes.width, device=device)
    parameters = sum(p.numel() for p in model.parameters())
    seconds = seconds_per_step(model, lambda: model(x_BTW).square().mean(), "adamw", device, at_most)
    return PER_PARAMETER_AND_TOKEN * parameters * sizes.rows * sizes.length / seconds
