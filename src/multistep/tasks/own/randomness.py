"""The global random states, set so that what user code draws from them is a function of the place in the data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from multistep.backends.torch.randomness import seed_torch, undisturbed


def seed_everything(*place: int, device: torch.device) -> None:
    """Seed Python's, numpy's and torch's global generators by a place, for instance (seed, position)."""
    seed = hash(place) % 2**63  # of integers: the same in every process
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed, device)


@contextmanager
def as_at(*place: int) -> Iterator[None]:
    """Global random states as `seed_everything` sets them, and afterwards as they were (of torch, the CPU's)."""
    with undisturbed(cpu := torch.device("cpu")):
        seed_everything(*place, device=cpu)
        yield
