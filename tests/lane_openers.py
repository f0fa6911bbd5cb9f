"""What processes of lanes open in tests: simulated learners, whose steps take as long as they are told; real tasks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multistep.core.evidence.curves import Curve
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Progress
from multistep.engine.learner import Interrupted, Learner, Readiness
from multistep.engine.simulate import FakeClock, SimulatedWorkshop, World
from multistep.interface.lanes import TaskOpener


@dataclass
class SimulatedOpener:
    """`window_seconds` of waiting before each window; `differs`: lanes after the first one see other data.

    Of the process whose id stands in the file `dies`, nothing is left after its next window has begun; the one whose id
    stands in `hangs` then computes in vain, and the one whose id stands in `slow` has one window of two seconds.
    """

    curve: Curve
    world: World | None = None
    window_seconds: float = 0.0
    differs: bool = False
    dies: Path | None = None
    hangs: Path | None = None
    slow: Path | None = None
    was_slow: bool = False

    def open(
        self, plan: Plan, phase: int, should_stop: Callable[[], bool], begun: Mapping[str, Any], *, again: bool
    ) -> tuple[Learner, Readiness]:
        learner, ready = SimulatedWorkshop(self.curve, FakeClock(), world=self.world).open(plan, phase, should_stop)
        advance = learner.advance

        def waiting(rates: Sequence[float], *, resolution: int | None = None) -> Progress:
            once = is_meant(self.slow) and not self.was_slow
            self.was_slow |= once
            until = time.monotonic() + (2.0 if once else self.window_seconds)
            while time.monotonic() < until:
                if should_stop():
                    raise Interrupted
                time.sleep(0.01)
            if is_meant(self.dies):
                os.abort()
            while is_meant(self.hangs):
                pass
            return advance(rates, resolution=resolution)

        learner.advance = waiting  # type: ignore[method-assign]
        return learner, replace(ready, fingerprint="another") if self.differs and again else ready

    def versions(self) -> Mapping[str, str]:
        return {"device": "simulated"}


def is_meant(file: Path | None) -> bool:
    return file is not None and file.exists() and file.read_text() == str(os.getpid())


@dataclass
class AnyTask:
    """Opens plans of any task, one after the other: the processes of one test serve the next one, too."""

    last: TaskOpener | None = None

    def open(
        self, plan: Plan, phase: int, should_stop: Callable[[], bool], begun: Mapping[str, Any], *, again: bool
    ) -> tuple[Learner, Readiness]:
        if self.last is not None:
            self.last.close()
        self.last = TaskOpener(plan)
        return self.last.open(plan, phase, should_stop, begun, again=again)

    def versions(self) -> Mapping[str, str]:
        assert self.last is not None
        return self.last.versions()
