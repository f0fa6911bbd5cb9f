"""What a run depends on beside its plan: versions and hardware, as they stand in resolved.json."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import torch

from multistep.backends.torch.learner import pick_device


def versions_of(*packages: str) -> Mapping[str, str]:
    """Python, these packages, platform, device, threads and cores."""
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "platform": platform.platform(),
        "device": device_name(pick_device()),
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine() if device.type == "cpu" else device.type


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # of an extra: who needs it says so, or something simpler takes its place
        return "not installed"
