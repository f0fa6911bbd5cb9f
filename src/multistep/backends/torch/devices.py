"""The device that is trained on, and in which precision products are computed there."""

from __future__ import annotations

import os

import torch

from multistep.core.values.recipe import Recipe
from multistep.errors import PlanError


def pick_device() -> torch.device:
    """The device that MULTISTEP_DEVICE names, else the accelerator that torch finds (CUDA, MPS, ...), else the CPU.

    Raises PlanError for a device that is not here.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    wanted = os.environ.get("MULTISTEP_DEVICE", "").strip().lower()
    if wanted in ("", "auto"):
        return found or torch.device("cpu")
    count = torch.accelerator.device_count() if found else 0
    here = ["cpu", *([found.type, *(f"{found.type}:{i}" for i in range(count))] if found else [])]
    named = {"gpu": found.type if found else "cuda"}.get(wanted, f"cuda:{wanted}" if wanted.isdecimal() else wanted)
    if named not in here:
        raise PlanError(f"device is '{wanted}'; torch finds {', '.join(here)} on this machine")
    return torch.device(named)


def reduces(recipe: Recipe, device: torch.device) -> bool:
    """Whether products are computed in bfloat16."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    # It pays on GPUs that have it; on CPUs without AMX it is 3.4 times slower.
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
