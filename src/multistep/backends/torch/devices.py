"""The device that is trained on, and in which precision products are computed there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

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


def device_of(local_rank: int, local_size: int) -> torch.device:
    """The device of one of `local_size` processes on this machine: each has an accelerator of its own, or the CPU.

    Raises PlanError for more processes than accelerators, and where a single one of these is named for all.
    """
    device = pick_device()
    if device.type == "cpu" or local_size == 1:
        return device
    if device.index is not None:
        raise PlanError(
            f"device is '{device}', but {local_size} processes on this machine need one each; name '{device.type}', or "
            "start one process"
        )
    count = torch.accelerator.device_count()
    if local_size > count:
        raise PlanError(
            f"{local_size} processes were started on this machine, and torch finds {count} devices ({device.type}); "
            f"start {count} of them (--nproc-per-node {count}), or train on the CPU with --device cpu"
        )
    return torch.device(device.type, local_rank)


def on(device: torch.device, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on the device, without waiting for it where that can be had."""
    if device.type == "cpu":
        return tensors
    if device.type == "cuda":
        return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors)
    return tuple(tensor.to(device) for tensor in tensors)


def number(value: float, device: torch.device) -> Tensor:
    """A number on the device; `torch.tensor` would wait until all that was asked of it is done."""
    return torch.full((), value, device=device)


def places_of(mask: Tensor, count: int | None) -> Tensor:
    """Where a mask is set, of the mask made flat. With the `count` of those places the device is not asked for it."""
    flat = mask.flatten()
    found = flat.nonzero() if count is None else torch.nonzero_static(flat, size=count)
    return found.squeeze(1)


def products_in(recipe: Recipe, device: torch.device) -> torch.dtype:
    """What products are computed in: what the recipe says, else bfloat16 or float16 where that is what a GPU is for.

    Weights, their gradients and sums are float32 whatever this is.
    """
    match recipe.precision:
        case "float32":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
        case "float16":
            return torch.float16
    if device.type != "cuda":
        return torch.float32  # on CPUs without AMX bfloat16 is 3.4 times slower
    major = torch.cuda.get_device_capability(device)[0]
    if torch.version.hip or major >= 8:
        return torch.bfloat16
    return torch.float16 if major >= 7 else torch.float32  # 6 and less compute float16 no faster, or more slowly


def reduces(recipe: Recipe, device: torch.device) -> bool:
    """Whether products are computed in 16 bits."""
    return products_in(recipe, device) != torch.float32


def precision_name(recipe: Recipe, device: torch.device) -> str:
    """As people call it."""
    if (kind := products_in(recipe, device)) != torch.float32:
        return str(kind).removeprefix("torch.")
    return "32-bit (TF32 products)" if rounds(recipe, device) else "32-bit"


def rounds(recipe: Recipe, device: torch.device) -> bool:
    """Whether float32 products are computed by TF32, which keeps 10 bits of a number's 23 and is many times faster."""
    if device.type != "cuda" or torch.version.hip or reduces(recipe, device):
        return False
    return torch.cuda.get_device_capability(device)[0] >= 8


def multiplying(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """Within, forward passes compute products as the recipe says."""
    kind = products_in(recipe, device)
    return nullcontext() if kind == torch.float32 else torch.autocast(device.type, dtype=kind)


@contextmanager
def rounding(wanted: bool) -> Iterator[None]:
    """Within, float32 products of CUDA are TF32's if `wanted`, backward passes included; afterwards as they were."""
    if not wanted:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
