"""Ctrl-C and SIGTERM as a request that a run meets between two steps."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

HEARD = "stopping after what is being done now; once more stops at once"


class Stop:
    """Whether a signal asked to stop, and which."""

    def __init__(self) -> None:
        self.number = 0
        self.at_once = False

    def asked(self) -> bool:
        return self.number != 0

    def note(self, number: int) -> None:
        """Another process of this run was asked."""
        self.number = self.number or number

    def receive(self, number: int, _frame: FrameType | None) -> None:
        self.at_once, self.number = self.number != 0, number
        if self.at_once:
            # Asked twice: whoever sits there does not want to wait for the window's last step.
            raise KeyboardInterrupt
        with suppress(RuntimeError):  # the stream may be in the middle of another line
            logging.getLogger("multistep").warning(HEARD)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Turn Ctrl-C and SIGTERM into a request; the second one raises KeyboardInterrupt."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, stop.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
