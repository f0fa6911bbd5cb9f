"""What a plan's budget would buy on many devices: arithmetic from costs that were measured, and models that are stated.

Nothing here was run on many devices. Each number says whether it was measured on this machine, given, or assumed.

Failures and checkpoints: Daly, Future Generation Computer Systems 22 (2006), whose expectation holds also where a
failure comes about as often as a checkpoint. Ring all-reduce: Patarasuk and Yuan, J. Parallel Distrib. Comput. 69
(2009); nothing of it is assumed to hide behind the backward pass, so it is an upper bound of what it costs.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Outer
from multistep.core.values.units import Unit, parse_amount
from multistep.engine.checkpoints import sha256, sync
from multistep.engine.costs import Cost, network_of, recall, start_seconds
from multistep.errors import PlanError

GRADIENT_BYTES = 4  # a parameter, as they are summed in float32
STATE_BYTES = 16  # a parameter, in a checkpoint: weights, their average, two moments of the optimizer, in float32
HOP_SECONDS = 20e-6  # from one device to the next in the ring, assumed
TRIED_BYTES = 2**25  # that are written to see how fast a checkpoint is
_BANDWIDTH = re.compile(r"([0-9.]+)\s*([kKMGT]?)(bit|bits|bit/s|b/s|bps|B|B/s)")
_SCALE = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Given:
    """What is known of the work and the machines: a number, and where it is from."""

    name: str
    value: float
    words: str  # the value, for people
    source: str  # "measured", "given" or "assumed", and how


@dataclass(frozen=True)
class Bought:
    """What so many devices make of the budget, as one model on all of them or as trials side by side.

    `communicating` is the share of a step in which gradients are summed; `useful` the share of the time that is left
    when checkpoints, failures and what is done again are taken off. `steps` are useful ones: of the one model, or of
    all trials together.
    """

    devices: int
    step_seconds: float
    communicating: float
    failures: float
    save_every_seconds: float | None
    useful: float
    steps: float


@dataclass(frozen=True)
class Scaled:
    given: tuple[Given, ...]
    one_model: tuple[Bought, ...]
    lanes: tuple[Bought, ...]
    notes: tuple[str, ...]


def parse_bandwidth(text: str) -> float:
    """Bits a second in `100Gbit`, `10 Mbit/s`, `12.5GB/s`. Raises PlanError."""
    match = _BANDWIDTH.fullmatch(text.strip())
    if match is None or not 0 < (value := float(match[1]) * _SCALE[match[2]]) < math.inf:
        raise PlanError(f"--bandwidth is '{text}'; allowed: 100Gbit, 400Mbit, 12.5GB, of one device, a second")
    return value * (8 if match[3].startswith("B") else 1)


def parse_count(text: str) -> int:
    """Parameters in `135M`, `1.5G`, `7B` or digits. Raises PlanError."""
    match = re.fullmatch(r"([0-9][0-9_.]*)\s*([kKMGBT]?)", text.strip())
    value = float(match[1].replace("_", "")) * {**_SCALE, "B": 1e9}[match[2]] if match else 0.0
    if not 1 <= value < 1e15:
        raise PlanError(f"--parameters is '{text}'; allowed: a number, such as 135M")
    return round(value)


def seconds_of_time(text: str, option: str) -> float:
    """Seconds in `50h`. Raises PlanError for what is no time."""
    amount = parse_amount(text)
    if amount.unit is not Unit.SECONDS:
        raise PlanError(f"{option} is '{text}'; allowed: a time, such as 50h")
    return amount.value


def useful_share(between_failures: float, save_seconds: float, restart_seconds: float) -> tuple[float, float | None]:
    """The share of the time that goes to steps which are not lost again, and how often to save for that.

    `between_failures` is the mean time to a failure of the whole (infinite: there are none, and nothing is saved).
    """
    if math.isinf(between_failures):
        return 1.0, None
    every = math.sqrt(2.0 * save_seconds * between_failures)
    exponent = (every + save_seconds + restart_seconds) / between_failures
    if exponent > 50:
        return 0.0, every
    renewed = math.exp(restart_seconds / between_failures) * math.expm1((every + save_seconds) / between_failures)
    return min(1.0, every / (between_failures * renewed)), every


def scaled(
    plan: Plan,
    devices: int,
    *,
    between_failures: float,
    bits_per_second: float,
    step_seconds: float | None = None,
    parameters: int | None = None,
    save_bytes_per_second: float | None = None,
) -> Scaled:
    """What the plan's budget buys on 1, 4, 16 ... and `devices` devices. Raises PlanError without costs or a time.

    Costs are those that this machine remembers of the plan's network (`costs.recall`) unless they are given.
    """
    if devices < 1:
        raise PlanError(f"--devices is {devices}; allowed: 1 or more")
    if plan.budget is None or plan.budget.unit is not Unit.SECONDS:
        raise PlanError(f"budget is {plan.budget or 'none'}; what more devices buy is told for a budget in time: 10h")
    cost = _measured(plan)
    if cost is None and (step_seconds is None or parameters is None):
        raise PlanError(
            "no run of this plan's model was measured on this machine: run it once with a short budget (--set "
            "budget=2m), or say what it costs with --step-seconds 0.2 --parameters 135M"
        )
    known = _Costs.of(plan, cost, step_seconds, parameters, save_bytes_per_second)
    counts = sorted({*(4**k for k in range(20) if 4**k < devices), devices})
    recipe = plan.phase(0).recipe
    batch, outer = recipe.get("batch_size"), recipe.get("outer")
    outer = outer if isinstance(outer, Outer) else None
    most = int(batch) if isinstance(batch, int | float) else None
    budget = max(0.0, plan.budget.value - known.start)
    one = tuple(_one_model(known, n, most, outer, budget, between_failures, bits_per_second) for n in counts)
    lanes = tuple(_lanes(known, n, budget, between_failures) for n in counts)
    given = (
        *known.told,
        Given("mean time to failure", between_failures, _hours(between_failures), "given, of one device; independent"),
        Given("bandwidth", bits_per_second, f"{bits_per_second / 1e9:.3g} Gbit/s", "given, of one device"),
        Given("latency", HOP_SECONDS, f"{HOP_SECONDS * 1e6:.0f} µs a hop", "assumed"),
    )
    return Scaled(given, one, lanes, _notes(most, outer, devices))


def _measured(plan: Plan) -> Cost | None:
    found = [cost for cost in recall() if cost.network == network_of(plan) and cost.task == plan.task]
    return found[-1] if found else None


@dataclass(frozen=True)
class _Costs:
    step: float
    parameters: int
    save: float
    start: float
    train_share: float
    told: tuple[Given, ...]

    @classmethod
    def of(
        cls, plan: Plan, cost: Cost | None, step: float | None, parameters: int | None, disk: float | None
    ) -> _Costs:
        here = f"measured here, on {cost.device}" if cost else ""
        of_step = "given" if step else here
        step = step or (1.0 / cost.steps_per_second if cost else 0.0)
        of_size = "given" if parameters else here
        parameters = parameters or (cost.parameters if cost else 0)
        of_disk = "given" if disk else f"measured here, {TRIED_BYTES // 2**20} MB written, hashed and synced"
        disk = disk or write_speed()
        share, of_share = (cost.train_share, here) if cost else (0.8, "assumed")
        start, save = start_seconds(plan.task), STATE_BYTES * parameters / disk
        told = (
            Given("a step", step, f"{step:.3g} s on one device", of_step),
            Given("parameters", parameters, f"{parameters:,}", of_size),
            Given("training", share, f"{share:.0%} of the time; the rest is scored, saved, decided", of_share),
            Given("starting", start, f"{start:.3g} s, also after a failure", "measured here, or a second"),
            Given("writing", disk, f"{disk / 1e6:,.0f} MB/s, {save:.3g} s a checkpoint", of_disk),
            Given("a checkpoint", STATE_BYTES * parameters, f"{STATE_BYTES} bytes a parameter", "assumed"),
        )
        return cls(step, parameters, save, start, share, told)


def _one_model(
    known: _Costs,
    devices: int,
    batch: int | None,
    outer: Outer | None,
    budget: float,
    between_failures: float,
    bits: float,
) -> Bought:
    """The same batch on all: each device computes its part, then gradients are summed, or changes every so often."""
    parts = min(devices, batch) if batch else devices
    computing = known.step / parts
    summing = 0.0 if devices == 1 else _waiting(known, devices, outer, computing, bits)
    step = computing + summing
    whole = between_failures / devices
    useful, every = useful_share(whole, known.save, known.start)
    steps = budget * known.train_share * useful / step
    return Bought(devices, step, summing / step, _failures(budget, whole), every, useful, steps)


def _waiting(known: _Costs, devices: int, outer: Outer | None, computing: float, bits: float) -> float:
    """Seconds a step for what is sent, of which only `overlap` steps of an outer step hide some."""
    hops = 2 * (devices - 1) * HOP_SECONDS
    summed = 8 * GRADIENT_BYTES * known.parameters * 2 * (devices - 1) / devices / bits
    if outer is None:
        return summed + hops
    if outer.bits < 32:  # each sends all of it to each other one
        summed = outer.bits * known.parameters * (devices - 1) / bits
    one = summed / outer.fragments + hops
    return max(0.0, one - outer.overlap * computing) * outer.fragments / outer.every


def _lanes(known: _Costs, devices: int, budget: float, between_failures: float) -> Bought:
    """A trial on each: a failure costs one lane what it did since its last save."""
    useful, every = useful_share(between_failures, known.save, known.start)
    steps = devices * budget * known.train_share * useful / known.step
    failures = _failures(budget, between_failures / devices)
    return Bought(devices, known.step, 0.0, failures, every, useful, steps)


def _failures(budget: float, between: float) -> float:
    return budget / between


def _notes(batch: int | None, outer: Outer | None, devices: int) -> tuple[str, ...]:
    one = (
        "One model: the batch stays as it is, so the steps are those of one device, only faster; computing is divided "
        "evenly, and summing gradients hides behind nothing."
    )
    if outer is not None:
        one = (
            f"One model, with outer steps {outer}: each device takes steps alone, on its part of the batch, so a step "
            "is worth less than one of all; what is sent where windows end is not counted."
        )
    found = [
        one,
        "Trials side by side: the plain run is one line and gets no longer. More lanes try more; what that is worth "
        "falls, since a round has only so many moves.",
        "Scoring, saving and deciding take the same share of the time as on one device; a checkpoint is written whole, "
        "by one.",
    ]
    if batch and devices > batch:
        found.append(f"A batch of {batch} examples has no more than {batch} parts: devices beyond that only wait.")
    return tuple(found)


def _hours(seconds: float) -> str:
    return "no failures" if math.isinf(seconds) else f"{seconds / 3600:,.3g} h"


def write_speed(folder: Path | None = None) -> float:
    """Bytes a second in which a checkpoint is written here: to disk, hashed and synced."""
    content = os.urandom(2**20)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = Path(made) / "tried"
        began = time.perf_counter()
        with path.open("wb") as file:
            for _ in range(TRIED_BYTES // len(content)):
                file.write(content)
        sync(path)
        sha256(path)
        return TRIED_BYTES / max(1e-6, time.perf_counter() - began)


def chosen(found: Sequence[Bought]) -> Bought:
    """The number of devices with which one model takes most steps."""
    return max(found, key=lambda each: each.steps)
