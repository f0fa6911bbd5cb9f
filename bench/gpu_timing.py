"""How `bench/gpu.py` times: windows of steps, operations of a step, copies that wait for the device."""

from __future__ import annotations

import resource
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_kit import Rows, wait
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

Advance = Callable[[int], object]  # takes so many steps
TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Length:
    """Steps before anything is timed, steps of a timed window, and how many windows; of slow steps a window holds
    fewer, so that it takes no more than `seconds`.
    """

    warm_up: int
    steps: int
    windows: int
    seconds: float = 1.0


LENGTHS = {"gpu": Length(5, 40, 3), "cpu": Length(1, 2, 2)}
WAITS_STEPS = 4  # of a window that waits are counted in


def timed(make: Callable[[], Advance], device: torch.device, length: Length) -> dict[str, Any]:
    """Seconds a step (the median of windows), the memory that training took, and what waited for the device.

    `start_seconds` are those of making what steps, compiling included, and of its first steps.
    """
    wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    advance = make()
    advance(length.warm_up)
    wait(device)
    start = time.perf_counter() - began
    steps = int(min(length.steps, max(2.0, length.seconds / _seconds(advance, device, 1))))
    seconds = [_seconds(advance, device, steps) for _ in range(length.windows)]
    peak = peak_memory(device)
    per_step, per_window, places = waits(advance, device, min(WAITS_STEPS, steps))
    return {
        "seconds_a_step": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "start_seconds": start,
        "steps": steps * length.windows,
        "peak_bytes": peak,
        "waits_a_step": per_step,
        "waits_a_window": per_window,
        "waits_at": places,
    }


def _seconds(advance: Advance, device: torch.device, steps: int) -> float:
    """Of a step, the mean of a window."""
    began = time.perf_counter()
    advance(steps)
    wait(device)
    return (time.perf_counter() - began) / steps


def rates(found: dict[str, Any], rows: Rows, *, count: int, unit: str, operations: float | None) -> dict[str, Any]:
    """What follows from seconds a step: `count` examples or tokens of it, `operations` of it."""
    seconds = found["seconds_a_step"]
    per_second = operations / seconds if operations else None
    share = per_second / rows.peak if per_second and rows.peak else None
    return {"per_second": count / seconds, "unit": unit, "operations_a_second": per_second, "mfu": share, **found}


def peak_memory(device: torch.device) -> int:
    """Bytes: of a GPU what tensors took since the last reset, of a CPU the most that the process has had."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def operations_of(once: Callable[[], object]) -> float | None:
    """Operations of the products, convolutions and attention in a step, as torch counts them; None if it cannot.

    On CPUs it does not count attention.
    """
    try:
        with FlopCounterMode(display=False) as counter:
            once()
    except Exception:
        return None
    return float(counter.get_total_flops()) or None


# Waiting for the device -------------------------------------------------------------------------------


def waits(advance: Advance, device: torch.device, steps: int) -> tuple[float, float, dict[str, int]]:
    """How often the host waits for the device: per step, per window beside that, and where (of a window).

    Two windows of different length tell them apart.
    """
    with counting(device) as short:
        advance(steps)
    with counting(device) as long:
        advance(2 * steps)
    per_step = (long.total() - short.total()) / steps
    return per_step, short.total() - steps * per_step, dict(short.most_common(8))


@contextmanager
def counting(device: torch.device) -> Iterator[Counter[str]]:
    """Counts copies that wait for the device, by the line of Python that asks for them.

    Where there is no device, what would wait for one: `.item()` and all that calls it, `.tolist()`, `.cpu()`.
    """
    found: Counter[str] = Counter()
    if device.type != "cuda":
        with _asked_on_cpu(found):
            yield found
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
            for one in caught:
                if "synchronizing CUDA operation" in str(one.message):
                    found[f"{Path(one.filename).name}:{one.lineno}"] += 1


def asked_by() -> str:
    """The line outside torch and this file that is being run."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((TORCH, __file__)):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


class _Scalars(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self._found[asked_by()] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def _asked_on_cpu(found: Counter[str]) -> Iterator[None]:
    originals = {name: getattr(torch.Tensor, name) for name in ("tolist", "cpu")}

    def counted(name: str) -> Callable[..., Any]:
        def method(self: torch.Tensor, *args: Any, **keywords: Any) -> Any:
            found[asked_by()] += 1
            return originals[name](self, *args, **keywords)

        return method

    try:
        for name in originals:
            setattr(torch.Tensor, name, counted(name))
        with _Scalars(found):
            yield
    finally:
        for name, original in originals.items():
            setattr(torch.Tensor, name, original)
