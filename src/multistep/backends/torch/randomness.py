"""The global random states that models and data sets draw from: seeded by the place, else left as they are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's generators, in a microsecond.

    Not by torch.manual_seed, which formats a stack trace for each kind of device that is not there: 0.1 ms.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Python's, numpy's and torch's random states afterwards as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [] if device.type == "cpu" else [device]
    kind = device.type if devices else "cuda"  # named even where nothing of it is forked
    with torch.random.fork_rng(devices, device_type=kind):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
