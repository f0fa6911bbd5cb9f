"""What the parts of `bench/gpu.py` share: the device, its peak and its ceilings, and rows that outlive a cut."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch

Form = Literal["gpu", "cpu"]

# Dense bf16 products with sums in float32, operations a second, by NVIDIA's data sheets of each card (B200, H200, H100,
# A100, L40S, L4, A10, A40) and its white papers on GA102 and Ada. The first name that is found counts; cards in
# laptops and slices of a card (MIG) are other devices under the same name, and of those nothing is said.
PEAKS = (
    ("B200", 2250e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
    ("A40", 150e12),
    ("A10", 125e12),
    ("L4", 121e12),
)
OTHER_DEVICES = re.compile(r"Laptop|Max-Q|\bMIG\b|RTX 4090 D|RTX 3090 Ti|A10G|A100X|A10M")


def peak_of(name: str) -> float | None:
    """Operations a second that the device of that name can do at most in bf16; None where that is not known."""
    if OTHER_DEVICES.search(name):
        return None
    return next((peak for known, peak in PEAKS if re.search(rf"\b{known}\b", name)), None)


def form_here(wanted: str) -> Form:
    """The form that was asked for; of "auto" the one that suits what is here."""
    if wanted in ("gpu", "cpu"):
        return "gpu" if wanted == "gpu" else "cpu"
    return "gpu" if torch.cuda.is_available() else "cpu"


def device_of(form: Form) -> torch.device:
    return torch.device("cuda" if form == "gpu" else "cpu")


def facts_of(device: torch.device) -> dict[str, Any]:
    """What the numbers are of."""
    about: dict[str, Any] = {
        "type": device.type,
        "name": _processor(),
        "driver": None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": None,
        "peak": None,
    }
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        about |= {
            "name": found.name,
            "driver": _driver(),
            "memory_bytes": int(found.total_memory),
            "capability": f"{found.major}.{found.minor}",
            "cuda": torch.version.cuda,
            "peak": peak_of(found.name),
        }
    return about


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str | None:
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return said.splitlines()[0].strip() if said.strip() else None
    return None


class Rows:
    """What a part has measured so far: written after each row, so that a part that is cut keeps what it has."""

    def __init__(self, path: Path, peak: float | None = None) -> None:
        self.path, self.peak = path, peak
        self.rows: list[dict[str, Any]] = []
        self.left_out: list[dict[str, str]] = []
        self.facts: dict[str, Any] = {}

    def add(self, what: str, **numbers: Any) -> dict[str, Any]:
        row = {"what": what, **numbers}
        self.rows.append(row)
        self.write()
        return row

    def leave_out(self, what: str, why: str) -> None:
        self.left_out.append({"what": what, "why": why})
        self.write()

    def write(self) -> None:
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps({"rows": self.rows, "left_out": self.left_out, "facts": self.facts}))
        beside.replace(self.path)

    @contextmanager
    def attempting(self, what: str) -> Iterator[None]:
        """A measurement that fails is named, and the next one goes on."""
        try:
            yield
        except Exception as error:
            self.leave_out(what, f"failed: {first_line(error)}")
            import traceback

            traceback.print_exc()
            with suppress(Exception):
                torch.cuda.empty_cache()


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


# The device itself -------------------------------------------------------------------------------------


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(rows: Rows, form: Form) -> None:
    """What the device reaches in one large product and in one large copy: the ceilings of all that follows."""
    device = device_of(form)
    rows.facts = facts_of(device)
    rows.write()
    side = 8192 if form == "gpu" else 512
    kind = torch.bfloat16 if form == "gpu" else torch.float32
    one, other = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    seconds = _each(lambda: one @ other, device, 20)
    rows.add(
        f"product of {side} x {side}, {str(kind).removeprefix('torch.')}", operations_a_second=2 * side**3 / seconds
    )
    source = torch.randn(2**28 if form == "gpu" else 2**22, device=device)
    target = torch.empty_like(source)
    seconds = _each(lambda: target.copy_(source), device, 20)
    rows.add("copy on the device, read and written", bytes_a_second=2 * 4 * source.numel() / seconds)


def _each(once: Callable[[], object], device: torch.device, times: int) -> float:
    for _ in range(3):
        once()
    wait(device)
    began = time.perf_counter()
    for _ in range(times):
        once()
    wait(device)
    return (time.perf_counter() - began) / times
