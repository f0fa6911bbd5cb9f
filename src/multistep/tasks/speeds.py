"""How fast this device trains, which decides what size of a model a plan's time bears.

Where a plan has a time, it is measured: a few steps of what the sizes come to. A run that goes on has the speeds that
it began with, wherever it goes on, and a plan that is not timed has those that such devices usually reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from multistep.backends.torch.devices import pick_device
from multistep.core.values.plan import Plan
from multistep.core.values.units import Unit
from multistep.engine.costs import steady_speed
from multistep.tasks.begun import THREADS, measures, note_speed, planned_cores, planned_device, speed_then
from multistep.tasks.machine import device_name
from multistep.tasks.recipes import lengths_of

TRAINED_SHARE = 0.7  # of a time, that goes into the weights which come out: the rest scores, and tries moves
SHARE, ROUNDS = 0.02, 3  # of a plan's time that measuring may take, in up to so many rounds
BUSY, WORTH_IT = 0.25, 1.5  # of the usual speed: below, one thread is tried, and kept where it is so much faster
SMALLER = 8.0  # of the speed, for whose sizes is measured where larger ones do not fit into memory
NEAR = math.log(1.25)  # between a speed and the one before: their sizes are the same, or nearly

# `rate`, `seconds` -> the operations a second of what is trained where the device does `rate`, in so many seconds.
Measure = Callable[[float, float], float]


@dataclass(frozen=True)
class Work:
    """A kind of work that devices do at a speed of its own.

    `rates` are operations a second by the type of the device, as such devices were seen to reach; `a_core` those of
    one core of a CPU, to which each further core adds the share `further`.
    """

    name: str
    a_core: float
    further: float = 1.0
    rates: Mapping[str, float] = field(default_factory=lambda: {"mps": 1e12, "cuda": 5e13})

    def by_rule(self, device: str, cores: int) -> float:
        """Operations a second of such a device, where nothing is measured."""
        return self.rates.get(device, self.a_core * (1 + self.further * (cores - 1)))


def was_measured(work: Work) -> bool:
    """Whether the speed that a run goes by was measured, by it or where it began."""
    return speed_then(work.name) is not None


def operations_usually(work: Work) -> float:
    """Operations a second that such devices reach as a rule."""
    return work.by_rule(planned_device(pick_device()), planned_cores())


def operations(work: Work, plan: Plan | None = None, measure: Measure | None = None) -> float:
    """Operations a second, in training, of the device that sizes are chosen for.

    Measured the first time that a run with a time asks with `measure`; what was measured stays for the run. A device
    without memory for what it usually bears is measured with less.
    """
    if (then := speed_then(work.name)) is not None:
        return then
    rate = rule = operations_usually(work)
    seconds = sum(a.value for a in lengths_of(plan) if a.unit is Unit.SECONDS) if plan else 0.0
    if measure is None or not seconds or not measures():
        return rate
    asked, share = rule, SHARE * seconds / ROUNDS
    for _ in range(ROUNDS):
        try:
            rate = measure(asked, share)
        except torch.OutOfMemoryError:
            # What such a device usually bears does not fit beside what else lies on this one: a smaller model tells.
            asked /= SMALLER
            continue
        near, asked = abs(math.log(rate / asked)) < NEAR, rate
        if near:
            break
    rate = _with_fewer_threads(rate, rule, lambda: measure(rate, share))
    # Remembered, so that a plan that is run again comes to the same sizes, and its phases can be taken over.
    device = pick_device()
    machine = f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    rate = steady_speed(work.name, machine, float(f"{rate:.3g}"), NEAR)
    note_speed(work.name, rate)
    return rate


def _with_fewer_threads(rate: float, usual: float, measure: Callable[[], float]) -> float:
    """The speed of one thread where that is faster, which then stays for the run; else `rate`.

    Threads wait for each other, so that on a machine which other programs keep busy two can be thirty times slower than
    one.
    """
    threads = torch.get_num_threads()
    if pick_device().type != "cpu" or threads == 1 or rate > BUSY * usual:
        return rate
    torch.set_num_threads(1)
    if (alone := measure()) > WORTH_IT * rate:
        note_speed(THREADS, 1.0)  # a resumed run goes on so, since sums of several threads round differently
        return alone
    torch.set_num_threads(threads)
    return rate
