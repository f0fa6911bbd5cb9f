"""Whether this process is one of several that a launcher started for one run, as its environment tells."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from multistep.errors import PlanError

ASKED = "`torchrun --nproc-per-node N -m multistep train PLAN`"


@dataclass(frozen=True)
class Place:
    """One of `size` processes, counted from 0, and one of `local_size` on its machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def place_of(environment: Mapping[str, str] = os.environ) -> Place | None:
    """This process's place; None where it is alone.

    Raises PlanError where a launcher was asked for several processes and started one, or tells half of the place.
    """
    size = environment.get("WORLD_SIZE", "")
    if not size:
        _require_all_started(environment)
        return None
    try:
        found = Place(
            int(environment.get("RANK", "")),
            int(size),
            int(environment.get("LOCAL_RANK", environment.get("RANK", ""))),
            int(environment.get("LOCAL_WORLD_SIZE", size)),
        )
    except ValueError:
        if size == "1":
            return None
        raise PlanError(
            f"WORLD_SIZE is {size!r} and RANK {environment.get('RANK')!r}, which do not say which process of how many "
            f"this is; start all of them with {ASKED}, or unset WORLD_SIZE to train with one"
        ) from None
    if found.size < 2:
        return None
    if not environment.get("MASTER_ADDR") or not environment.get("MASTER_PORT"):
        raise PlanError(
            f"WORLD_SIZE is {size}, but MASTER_ADDR and MASTER_PORT, where the processes meet, are not set; start them "
            f"with {ASKED}"
        )
    return found


def _require_all_started(environment: Mapping[str, str]) -> None:
    """`accelerate launch --cpu --num_processes 2` tells where two processes are to meet, and starts one of them."""
    if "MASTER_ADDR" in environment and "ACCELERATE_MIXED_PRECISION" in environment:
        raise PlanError(
            "accelerate was asked for several processes and has started this one alone, as it does with --cpu; start "
            f"them with {ASKED}, or leave --num_processes out"
        )


def follows() -> bool:
    """Whether this process is one of several, and not the first, which alone writes and shows anything."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0"
