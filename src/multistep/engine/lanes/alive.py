"""Whether a lane gets on with what it was asked: signs of it where the work is done, patience where it is waited for.

While steps are taken, each step is a sign. All else (reading data, scoring, saving) may take long without a word: there
it is a sign that the thread that does the work computes. A device that hangs keeps its thread busy as well, which is
why that does not count among steps, but for the first ones, where torch may compile, and there for an hour at most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from multistep.engine.patience import seconds_given

LIMIT_SECONDS = 600.0
LIMIT = "MULTISTEP_LANE_SECONDS"  # in the environment: another limit
START_SECONDS = 120.0  # that a process may take to be there, whatever the limit
PULSE_SECONDS = 1.0  # between two looks whether there is a sign, at most
COMPUTED_SECONDS = 0.05  # of the processor's time are a sign; waiting in vain takes less within the limit
FIRST_STEPS = 2  # of an open phase, in which what they need may be compiled or read
FIRST_SECONDS = 3600.0  # for which computing is a sign in one of these


def limit_seconds() -> float:
    """For how long a lane may give no sign of life. Raises PlanError for a limit that is no number of seconds."""
    return seconds_given(LIMIT, LIMIT_SECONDS)


def pulse_seconds() -> float:
    """How long to wait between two looks whether there is a sign."""
    return min(PULSE_SECONDS, limit_seconds() / 4)


class Signs:
    """Of the thread that does what a lane is asked, read by another one."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._asked = 0  # how often the work asked whether to stop: before each step
        self._steps = 0  # since a phase was opened
        self._stepping = False
        self._since = 0.0  # on the clock, this step
        self._computed: Callable[[], float] = time.process_time
        self._seen = (0, 0.0)

    def stopping(self) -> bool:
        """What the work asks before each step."""
        self._asked += 1
        self._steps += self._stepping
        self._since = time.monotonic()
        return self.stop.is_set()

    def begins(self, verb: str) -> None:
        """By the thread that works, which is asked for something new."""
        if verb == "open":
            self._steps = 0
        self._stepping = verb == "advance"
        if hasattr(time, "pthread_getcpuclockid"):
            clock = time.pthread_getcpuclockid(threading.get_ident())
            self._computed = lambda: time.clock_gettime(clock)
        self._since = time.monotonic()
        self._seen = (self._asked, self._computed())

    def gets_on(self) -> None:
        """By whatever waits for something else, such as a store, and has had a piece of it."""
        self._asked += 1

    def seen(self) -> bool:
        """Whether there was a sign since the last one that was seen."""
        asked, computed = self._seen
        now = (self._asked, self._computed())
        first = self._steps <= FIRST_STEPS and time.monotonic() - self._since < FIRST_SECONDS
        counts = not self._stepping or first
        if now[0] == asked and not (counts and now[1] - computed >= COMPUTED_SECONDS):
            return False
        self._seen = now
        return True


class Patience:
    """For how long each lane that was asked for something has given no sign, by whoever waits for them.

    Time counts in which somebody looked: a run that was stopped and goes on takes no lane for hanging.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Raises PlanError for a limit that is none."""
        self.limit = limit_seconds()
        self._now = now
        self._looked = now()
        self._silent: dict[int, float] = {}
        self._starting = set[int]()

    def starts(self, lane: int) -> None:
        """A process that has yet to come."""
        self._starting.add(lane)

    def begins(self, lane: int) -> None:
        self._silent[lane] = 0.0

    def heard(self, lane: int) -> None:
        self._starting.discard(lane)
        if lane in self._silent:
            self._silent[lane] = 0.0

    def ends(self, lane: int) -> None:
        self._silent.pop(lane, None)

    def over(self) -> list[int]:
        """The lanes that have been silent for too long."""
        now = self._now()
        passed, self._looked = min(now - self._looked, PULSE_SECONDS), now
        for lane in self._silent:
            self._silent[lane] += passed
        return [lane for lane, silent in self._silent.items() if silent > self._limit_of(lane)]

    def _limit_of(self, lane: int) -> float:
        return max(self.limit, START_SECONDS) if lane in self._starting else self.limit

    @property
    def why(self) -> str:
        """What is said of a lane that was ended."""
        return f"it hung: no sign of life for {self.limit:g} s"
