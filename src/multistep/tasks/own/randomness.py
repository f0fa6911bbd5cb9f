"""The global random states, set so that what user code draws from them is a function of the place in the data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(*place: int, device: torch.device) -> None:
    """Seed Python's, numpy's and torch's global generators by a place, for instance (seed, position)."""
    seed = hash(place) % 2**63  # of integers: the same in every process
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed, which formats a stack trace for each kind of device that is not there: 0.2 ms.
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def as_at(*place: int) -> Iterator[None]:
    """Global random states as `seed_everything` sets them, and afterwards as they were (of torch, the CPU's)."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([]):
        seed_everything(*place, device=torch.device("cpu"))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
