"""How long who works together waits for one another: a number of seconds from the environment."""

from __future__ import annotations

import math
import os

from multistep.errors import PlanError


def seconds_given(name: str, usual: float) -> float:
    """The seconds that the environment's `name` sets, else `usual`. Raises PlanError for what is no such number."""
    given = os.environ.get(name, "")
    try:
        seconds = float(given) if given else usual
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise PlanError(f"{name} is {given!r}; give a number of seconds, such as {usual:g}")
    return seconds
