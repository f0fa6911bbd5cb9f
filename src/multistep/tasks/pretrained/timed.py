"""How many operations a second this device does in training encoders and language models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from multistep.backends.torch.devices import pick_device
from multistep.backends.torch.timing import seconds_per_step
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Precision
from multistep.tasks.pretrained.choose import LEAST_SECONDS
from multistep.tasks.pretrained.settle import TUNING, seconds_of
from multistep.tasks.speeds import Work, operations, was_measured

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
IN_HALF = Work("tuning, bfloat16", a_core=9e10)
WORTH_IT = 1.1  # times as fast, from which on bfloat16 is taken
ON_CPU, ELSEWHERE = Sizes(2, 384, 8, 64), Sizes(2, 768, 32, 128)


def tuning_speed(plan: Plan) -> float:
    """Operations a second in tuning pretrained weights, measured where the plan's time asks for it, in the precision
    that it comes to.
    """
    if (seconds_of(plan) or 0.0) < LEAST_SECONDS:
        return operations(TUNING)  # measuring would take a second of a time in which little is tuned
    sizes = ON_CPU if pick_device().type == "cpu" else ELSEWHERE
    usual = operations(TUNING, plan, lambda _, seconds: transformer_speed(sizes, seconds))
    if not was_measured(TUNING) or not faster_in_bfloat16(plan):
        return usual
    return operations(IN_HALF, plan)


def faster_in_bfloat16(plan: Plan) -> bool:
    """Whether this CPU trains large models faster in bfloat16: measured where the plan's time asks for it, else by
    whether it multiplies it at all.

    With AVX512-BF16, MiniLM took 0.49 s a step instead of 0.74, and a Llama of 135 million two thirds; without,
    bfloat16 is 3.4 times slower.
    """
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if pick_device().type != "cpu" or not (known.get("avx512_bf16") or known.get("amx_bf16")):
        return False
    if (seconds_of(plan) or 0.0) < LEAST_SECONDS:
        return operations(IN_HALF) > WORTH_IT * operations(TUNING)
    usual = operations(TUNING, plan, lambda _, seconds: transformer_speed(ON_CPU, seconds))
    half = operations(IN_HALF, plan, lambda _, seconds: transformer_speed(ON_CPU, seconds, "bfloat16"))
    return half > WORTH_IT * usual


def transformer_speed(sizes: Sizes, at_most: float, precision: Precision = "auto") -> float:
    """Operations a second, six a parameter and token, in training such layers for about `at_most` seconds."""
    device = pick_device()
    heads = next(n for n in range(max(1, sizes.width // HEAD_WIDTH), 0, -1) if sizes.width % n == 0)
    with torch.random.fork_rng([]):
        layer = nn.TransformerEncoderLayer(sizes.width, heads, 4 * sizes.width, batch_first=True, activation="gelu")
        model = nn.TransformerEncoder(layer, sizes.layers, enable_nested_tensor=False).to(device)
    x_BTW = torch.zeros(sizes.rows, sizes.length, sizes.width, device=device)
    parameters = sum(p.numel() for p in model.parameters())
    seconds = seconds_per_step(model, lambda: model(x_BTW).square().mean(), "adamw", device, at_most, precision)
    return PER_PARAMETER_AND_TOKEN * parameters * sizes.rows * sizes.length / seconds
