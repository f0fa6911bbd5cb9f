"""Lanes as processes of this machine, each with its device or its share of the cores.

Processes of their own, and not those of multiprocessing: a user's script that trains need not be one that can be
imported again. They have a session of their own, too: Ctrl-C is for the run to answer, which tells them.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

from multistep.core.values.plan import Plan
from multistep.engine.asking import Ask
from multistep.engine.lanes.alive import Patience
from multistep.engine.lanes.hands import Answer, HandLost, said

POLL_SECONDS = 0.2  # between two looks whether the run was asked to stop
CLOSE_SECONDS = 3.0  # for a process to end by itself


@dataclass(frozen=True)
class Place:
    """What a lane computes on, for people, and the environment that has a process compute there."""

    name: str
    environment: Mapping[str, str]


class _Process:
    """One lane's process and the pipe to it."""

    def __init__(self, place: Place, opener: bytes) -> None:
        ours, theirs = socket.socketpair()
        home = str(Path(__file__).parents[3])  # of the package, wherever it was found
        found = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "multistep.engine.lanes.worker", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": found, **place.environment},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.errors,
                start_new_session=True,
            )
        self.connection = Connection(ours.detach())
        with suppress(OSError):  # one that died at once is found by whoever waits for it
            self.connection.send_bytes(opener)

    def last_words(self) -> str:
        """Why it ended, as far as it can be known."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(CLOSE_SECONDS)
        code = self.process.poll()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        how = "it gave no answer" if code is None else f"exit code {code}"
        if code is not None and code < 0:
            how = f"ended by {signal.Signals(-code).name}"
            how += ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"{how}: {lines[-1]}" if lines else how

    def close(self) -> None:
        with suppress(OSError):
            self.connection.close()
        try:
            self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self.errors.close()

    def kill(self) -> None:
        """End it with what it started, which may hold what it waits for."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # the system has it, which waits for a disk: nobody can end that
            self.process.wait(CLOSE_SECONDS)


class ProcessHands:
    """Implements engine.lanes.hands.Hands.

    `opener` is a pickled `worker.Opener`; `begun` tells a process that opens a phase of the machine on which the run
    began.
    """

    def __init__(
        self,
        places: Sequence[Place],
        opener: bytes,
        begun: Callable[[], Mapping[str, Any]],
        should_stop: Callable[[], bool],
    ) -> None:
        """Raises PlanError."""
        self._patience = Patience()
        self._places, self._opener, self._begun, self._should_stop = places, opener, begun, should_stop
        self._processes: list[_Process | None] = [None] * len(places)
        for lane in range(len(places)):
            self._start(lane)
        self._tickets = [0] * len(places)
        self._opened = False
        self._early: list[tuple[int, Answer]] = []  # answers of lanes that nobody waited for
        self._told = False

    @property
    def names(self) -> Sequence[str]:
        return [place.name for place in self._places]

    def processes(self) -> list[int | None]:
        """The ids of the lanes' processes."""
        return [p.process.pid if p else None for p in self._processes]

    def open(self, lane: int, plan: Plan, phase: int) -> None:
        # What it said of a phase before is of no use any more, and that it was lost is mended here.
        self._early = [each for each in self._early if each[0] != lane]
        if self._processes[lane] is None:
            self._start(lane)
        self._send(lane, "open", plan, phase, self._begun(), self._opened)
        self._opened = True

    def _start(self, lane: int) -> None:
        self._processes[lane] = _Process(self._places[lane], self._opener)
        self._patience.starts(lane)

    def begin(self, lane: int, ask: Ask) -> None:
        self._send(lane, "ask", ask.verb, ask.arguments, dict(ask.keywords))

    def versions(self) -> Mapping[str, str]:
        self._send(0, "versions")
        found: dict[str, str] = said(self.wait(0)[1])
        return found

    def _send(self, lane: int, what: str, *rest: Any) -> None:
        self._tickets[lane] += 1
        if (process := self._processes[lane]) is None:
            return  # it was lost when it had nothing to do, as whoever waits finds
        self._patience.begins(lane)
        with suppress(OSError):  # the same
            process.connection.send((what, self._tickets[lane], *rest))

    def wait(self, lane: int | None = None) -> tuple[int, Answer]:
        while True:
            for place, (which, _) in enumerate(self._early):
                if lane in (None, which):
                    return self._early.pop(place)
            for which, answer in self._heard():
                self._early.append((which, answer))

    def _heard(self) -> list[tuple[int, Answer]]:
        """The answers that have come by now, after waiting for some for a moment."""
        open_ = {p.connection: lane for lane, p in enumerate(self._processes) if p}
        found = []
        for connection in wait(list(open_), POLL_SECONDS):
            assert isinstance(connection, Connection)
            lane = open_[connection]
            try:
                what, *rest = connection.recv()
            except (EOFError, OSError):
                found.append((lane, Answer(error=HandLost(self._bury(lane)))))
                continue
            self._patience.heard(lane)
            if what == "log":
                if lane == 0:  # the others have nothing else to say
                    logging.getLogger("multistep").log(*rest)
            elif what == "answer" and rest[0] == self._tickets[lane]:
                self._patience.ends(lane)
                found.append((lane, Answer(*rest[1:])))
        found += [(lane, Answer(error=HandLost(self._end(lane)))) for lane in self._patience.over()]
        if self._should_stop() and not self._told:
            self._told = True
            for process in filter(None, self._processes):
                with suppress(OSError):
                    process.connection.send(("stop",))
        return found

    def _end(self, lane: int) -> str:
        process = self._processes[lane]
        assert process is not None
        process.kill()
        self._bury(lane)
        return self._patience.why

    def _bury(self, lane: int) -> str:
        process = self._processes[lane]
        assert process is not None
        self._processes[lane] = None
        self._patience.ends(lane)
        said_ = process.last_words()
        process.close()
        return said_

    def close(self) -> None:
        """End all processes."""
        for process in filter(None, self._processes):
            with suppress(OSError):
                process.connection.close()
        for process in filter(None, self._processes):
            process.close()
        self._processes = [None] * len(self._processes)
