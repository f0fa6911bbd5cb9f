"""A loaded model that answers requests from many threads in one of its own, those that wait together at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from multistep.errors import DataError, MultistepError
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.folders import existing, read_task, task_of
from multistep.tasks.predicting import load_predictor
from multistep.tasks.prediction import Asked, Prediction

AT_ONCE = 64  # inputs that go through the model together
MOST_WAITING = 256  # requests; more are refused
EVERY_CLASS = 1_000_000  # asked of the model: how many are told is the request's matter
Said = list[Prediction | str]  # of each input what is said, or why nothing is


class Busy(Exception):
    """As many requests are waiting as may."""


@dataclass(frozen=True)
class Waiting:
    inputs: tuple[str, ...]
    answer: Future[Said]


class Service:
    """Answers until it is closed. One thread asks the model, so that requests never compete for its cores."""

    def __init__(self, model: str, *, tokens: int, threshold: float | None = None) -> None:
        """Raises PlanError for what is no model that predicts."""
        folder = existing(model)
        self.predictor = load_predictor(folder, Asked(tokens=tokens, top_k=EVERY_CLASS, threshold=threshold))
        about = read_task(folder)
        names = about.get("names") or about.get("labels")
        self.classes = [str(name) for name in names] if isinstance(names, list) else []
        self.paired = bool(about.get("pairs"))
        self.about: dict[str, Any] = {"model": model, "task": task_of(folder), "input": self.predictor.unit}
        if self.paired:
            self.about["input"] = "pair of texts"
        if self.classes:
            self.about["classes"] = self.classes
        if len(self.classes) == 2 or about.get("labels") == "classes":
            self.about["threshold"] = Calibrated.read(folder, threshold).cut
        # Whether texts of a foreign classifier are pairs is told by all that it is asked at once: by one request.
        guessed = self.about["task"] == "text-classification" and about.get("pairs") is None
        self._at_once = 1 if guessed else AT_ONCE
        self._queue: queue.Queue[Waiting | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="multistep-model", daemon=True)
        self._thread.start()

    def submit(self, inputs: Sequence[str]) -> Future[Said]:
        """What will be said of these inputs. Raises Busy."""
        waiting = Waiting(tuple(inputs), Future())
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise Busy from None
        return waiting.answer

    def close(self) -> None:
        """Answer what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        open_ = True
        while open_:
            first = self._queue.get()
            if first is None:
                return
            together, count = [first], len(first.inputs)
            while count < self._at_once and open_:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    open_ = False
                else:
                    together.append(more)
                    count += len(more.inputs)
            self._answer(together)

    def _answer(self, together: Sequence[Waiting]) -> None:
        try:
            said = self.predictor.says([text for waiting in together for text in waiting.inputs])
        except Exception as error:
            if len(together) > 1:  # whose fault it was is found one by one
                for waiting in together:
                    self._answer([waiting])
                return
            together[0].answer.set_exception(
                error if isinstance(error, MultistepError) else DataError(f"{type(error).__name__}: {error}")
            )
            return
        start = 0
        for waiting in together:
            waiting.answer.set_result(said[start : start + len(waiting.inputs)])
            start += len(waiting.inputs)
