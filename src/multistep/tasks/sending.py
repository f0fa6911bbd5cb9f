"""Tensors from the process to the device, without either waiting for the other where the device can do that."""

from __future__ import annotations

import torch
from torch import Tensor

from multistep.tasks.machine import total_memory

DEVICE_SHARE = 0.125  # of a device's memory


def device_room(device: torch.device) -> float:
    """Bytes that the data of a split may take on a device, to be gathered there."""
    return DEVICE_SHARE * total_memory(device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device.

    To CUDA it is copied from pinned memory, behind what the device still has to do: a copy from ordinary memory makes
    the process wait until the device has caught up.
    """
    if tensor.device.type == device.type:
        return tensor
    if device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
