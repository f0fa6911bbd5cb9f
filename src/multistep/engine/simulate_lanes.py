"""Simulated lanes: learners with clocks of their own, and the wall's, which is moved to whoever is done next."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from multistep.core.values.plan import Plan
from multistep.engine.asking import Ask, Hand
from multistep.engine.lanes.hands import Answer, HandLost
from multistep.engine.learner import Workshop
from multistep.engine.simulate import FakeClock


class SimulatedHands:
    """Hands whose work takes as long as their simulated learners say. Implements engine.lanes.hands.Hands.

    `workshop` makes a lane's workshop on its clock; `loses` tells whether a hand is lost when it is asked.
    """

    def __init__(
        self,
        wall: FakeClock,
        lanes: int,
        workshop: Callable[[int, FakeClock], Workshop],
        *,
        open_seconds: float = 0.0,
        loses: Callable[[int, Ask], bool] = lambda lane, ask: False,
    ) -> None:
        self._wall, self._open_seconds, self._loses = wall, open_seconds, loses
        self._clocks = [FakeClock() for _ in range(lanes)]
        self._workshops = [workshop(lane, clock) for lane, clock in enumerate(self._clocks)]
        self._hands: dict[int, Hand] = {}
        self._due: list[tuple[float, int, int, Answer]] = []  # when, in what order asked, lane, what
        self._asked = 0

    @property
    def names(self) -> Sequence[str]:
        return [f"simulated {lane + 1}" for lane in range(len(self._clocks))]

    def open(self, lane: int, plan: Plan, phase: int) -> None:
        learner, ready = self._workshops[lane].open(plan, phase, lambda: False)
        self._hands[lane] = Hand(learner)
        self._clocks[lane].seconds = self._wall.seconds + (self._open_seconds if lane else 0.0)
        self._put(lane, Answer(ready))

    def begin(self, lane: int, ask: Ask) -> None:
        clock = self._clocks[lane]
        clock.seconds = began = self._wall.seconds
        if self._loses(lane, ask):
            self._put(lane, Answer(error=HandLost("simulated")))
            return
        try:
            value = self._hands[lane].answer(ask.verb, ask.arguments, ask.keywords)
        except Exception as error:
            self._put(lane, Answer(error=error, seconds=clock.seconds - began))
        else:
            self._put(lane, Answer(value, seconds=clock.seconds - began))

    def _put(self, lane: int, answer: Answer) -> None:
        self._asked += 1
        heapq.heappush(self._due, (self._clocks[lane].seconds, self._asked, lane, answer))

    def wait(self, lane: int | None = None) -> tuple[int, Answer]:
        due = min(each for each in self._due if lane is None or each[2] == lane)
        self._due.remove(due)
        heapq.heapify(self._due)
        self._wall.seconds = max(self._wall.seconds, due[0])
        return due[2], due[3]

    def versions(self) -> Mapping[str, str]:
        return self._workshops[0].versions()
