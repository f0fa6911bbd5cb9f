"""Where a resumed run began: the machine that its sizes were chosen for, and where its models lie now.

A net's width, an image's size, what is scored: all are chosen by what a device can do in the time that there is. A run
that goes on elsewhere must come to the same, or its checkpoints fit nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from multistep.backends.torch.devices import pick_device, precision_name
from multistep.core.values.recipe import Precision, Recipe

THREADS = "threads"  # among the speeds: how many of a CPU were chosen by measuring, where others are at work


@dataclass(frozen=True)
class Begun:
    device: str | None = None  # None: this machine's
    threads: int | None = None
    speeds: dict[str, float] = field(default_factory=dict)  # operations a second by the kind of work; perhaps THREADS
    measures: bool = False  # whether speeds that are missing may be measured
    moved: Mapping[str, str] = field(default_factory=dict)  # names of model folders -> where they lie now


_BEGUN: ContextVar[Begun] = ContextVar("begun", default=Begun())  # noqa: B039


@contextmanager
def as_begun(
    machine: Mapping[str, str],
    moved: Mapping[str, str],
    speeds: Mapping[str, float] | None = None,
    *,
    may_measure: bool = False,
) -> Iterator[None]:
    """Choose as on that machine (`device_type` and `threads`, as `versions_of` tells them) while this lasts.

    `speeds` were measured there; `may_measure` tells that others may be measured here. Torch has the threads that were
    chosen by measuring there, and as many afterwards as before.
    """
    named = machine.get("threads", "")
    threads = int(named) if named.isdecimal() else None
    before = torch.get_num_threads()
    known = dict(speeds or {})
    token = _BEGUN.set(Begun(machine.get("device_type"), threads, known, may_measure, moved))
    try:
        if THREADS in known:
            torch.set_num_threads(int(known[THREADS]))
        yield
    finally:
        _BEGUN.reset(token)
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def another_device(began: Mapping[str, str], now: Mapping[str, str], understood: str, precision: Precision) -> str:
    """What changes for a run that goes on on another kind of device than it began on; empty where it does not.

    `began` and `now` are as `machine.versions_of` tells them, `understood` is in what products were computed there,
    `precision` the recipe's.
    """
    before, here = began.get("device_type"), now.get("device_type")
    if None in (before, here) or before == here:
        return ""
    products = precision_name(Recipe(precision=precision), pick_device())
    changed = f"; products are computed in {products} instead of {understood}" if products != understood else ""
    return (
        f"this run began on {began.get('device') or before} ({before}) and goes on on {now.get('device') or here} "
        f"({here}). Weights, the optimizer's state, sizes and the order of the data stay as they are{changed}. What "
        "fits into memory is found anew, what is left of a time budget is spent at this device's speed, and further "
        "steps round differently than they would have there"
    )


def planned_device(device: torch.device) -> str:
    """The type of the device that sizes are chosen for: `device`'s, or that of the machine where the run began."""
    return _BEGUN.get().device or device.type


def planned_cores() -> int:
    """The threads that sizes are chosen for."""
    return _BEGUN.get().threads or torch.get_num_threads()


def measures() -> bool:
    return _BEGUN.get().measures


def speed_then(work: str) -> float | None:
    """Operations a second of that kind of work as this run has measured them; None if it has not."""
    return _BEGUN.get().speeds.get(work)


def note_speed(work: str, operations: float) -> None:
    """Have the run keep what it has measured."""
    _BEGUN.get().speeds[work] = operations


def speeds_then() -> Mapping[str, float]:
    """All that this run has measured so far."""
    return dict(_BEGUN.get().speeds)


def as_machine() -> dict[str, Any]:
    """What `as_begun` is given elsewhere, for the same sizes to be chosen there."""
    begun = _BEGUN.get()
    machine = {"device_type": planned_device(pick_device()), "threads": str(planned_cores())}
    return {"machine": machine, "moved": dict(begun.moved), "speeds": dict(begun.speeds)}


def lies_at(name: str) -> str:
    """Where the model of that name is to be had now: elsewhere if it was moved."""
    return _BEGUN.get().moved.get(name, name)
