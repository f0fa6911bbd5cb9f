"""The process of one lane: `python -m multistep.engine.lanes.worker HANDLE`, started by `processes`.

It opens phases and does what it is asked, one thing after the other. It ends when whoever started it does: then the
other end of the pipe is gone.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Protocol

from multistep.core.values.plan import Plan
from multistep.engine.asking import Hand
from multistep.engine.lanes.alive import Signs, pulse_seconds
from multistep.engine.learner import Interrupted, Learner, Readiness
from multistep.errors import MultistepError


class Opener(Protocol):
    """What a lane's process is given to work with: it opens phases, and says what results depend on."""

    def open(
        self, plan: Plan, phase: int, should_stop: Callable[[], bool], begun: Mapping[str, Any], *, again: bool
    ) -> tuple[Learner, Readiness]:
        """`begun` tells of the machine on which the run began; `again`: it was opened before, in another process."""

    def versions(self) -> Mapping[str, str]: ...


class Messages(logging.Handler):
    """Sends what is logged to whoever shows the run."""

    def __init__(self, send: Callable[[tuple[Any, ...]], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(("log", record.levelno, record.getMessage()))


class Doing:
    """What a lane does, one thing after the other; its `signs` are read, and it is stopped, from elsewhere."""

    def __init__(self, opener: Opener, signs: Signs | None = None) -> None:
        self.opener = opener
        self._hand: Hand | None = None
        self.signs = signs or Signs()

    def answer(self, what: str, rest: list[Any]) -> Any:
        self.signs.begins(rest[0] if what == "ask" else what)
        match what:
            case "open":
                plan, phase, begun, again = rest
                self._hand = None  # what the phase before held is let go of first
                learner, ready = self.opener.open(plan, phase, self.signs.stopping, begun, again=again)
                self._hand = Hand(learner)
                return ready
            case "versions":
                return dict(self.opener.versions())
        assert self._hand is not None, "a phase is open"
        verb, arguments, keywords = rest
        return self._hand.answer(verb, arguments, keywords)


class Worker:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self._sending = threading.Lock()
        self._doing = Doing(pickle.loads(connection.recv_bytes()))

    def listen(self) -> None:
        """In a thread of its own, so that a request to stop is heard in the middle of a window."""
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)  # nobody is left to answer
            if message[0] == "stop":
                self._doing.signs.stop.set()
            else:
                self._asked.put(message)

    def pulse(self) -> None:
        """In a thread of its own: tell whoever waits that this process gets on."""
        pause = pulse_seconds()
        with suppress(OSError):  # whoever listens finds that nobody is left
            self.send(("alive",))
            while True:
                time.sleep(pause)
                if self._doing.signs.seen():
                    self.send(("alive",))

    def send(self, message: tuple[Any, ...]) -> None:
        with self._sending:
            self._connection.send(message)

    def serve(self) -> None:
        while True:
            what, ticket, *rest = self._asked.get()
            began = time.perf_counter()
            answer: tuple[Any, ...]
            try:
                value = self._doing.answer(what, rest)
                answer = ("answer", ticket, value, None, time.perf_counter() - began)
            except Exception as error:
                answer = ("answer", ticket, None, sendable(error), time.perf_counter() - began)
            try:
                self.send(answer)
            except (BrokenPipeError, ConnectionResetError):
                os._exit(0)


def sendable(error: Exception) -> Exception:
    """The error as another process can have it, with where it happened."""
    if not isinstance(error, MultistepError | Interrupted):
        error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.add_note(traceback.format_exc())
        return told
    return error


def main() -> None:
    worker = Worker(Connection(int(sys.argv[1])))
    for each in (worker.listen, worker.pulse):
        threading.Thread(target=each, daemon=True, name=each.__name__).start()
    logger = logging.getLogger("multistep")
    logger.addHandler(Messages(worker.send))
    logger.propagate = False
    worker.serve()


if __name__ == "__main__":
    main()
