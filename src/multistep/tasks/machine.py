"""What a run depends on beside its plan: versions and hardware, as they stand in resolved.json."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from multistep.backends.torch.devices import pick_device

CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
UNKNOWN_MEMORY = 8 * 2**30
CPU = torch.device("cpu")


def versions_of(*packages: str) -> Mapping[str, str]:
    """Python, these packages, platform, device, threads and cores."""
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "platform": platform.platform(),
        "device": device_name(pick_device()),
        "device_type": pick_device().type,
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine() if device.type == "cpu" else device.type


def total_memory(device: torch.device) -> int:
    """Bytes that a device has: of a CPU what this process may use of the machine's, a container's limit included."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if not hasattr(os, "sysconf"):  # Windows
        return UNKNOWN_MEMORY
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [path.read_text().strip() for path in map(Path, CONTAINER_LIMITS) if path.is_file()]
    return min(machine, *(int(limit) for limit in limits if limit.isdecimal()), machine)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # of an extra: who needs it says so, or something simpler takes its place
        return "not installed"
