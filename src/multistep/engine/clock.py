"""The budget clock: seconds by account, that go on after a kill instead of starting again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Flag
from threading import Thread

from multistep.core.values.events import Account

BEAT_SECONDS = 1.0


class BudgetClock:
    """Measures what is spent, by account; whatever is not accounted is "other".

    `now` gives seconds from any origin and can be injected; `began` is where counting starts, for time that
    was spent before the clock was made (imports).
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, began: float | None = None) -> None:
        self._now = now
        self._last = now() if began is None else began
        self._accounts: dict[Account, float] = {}
        self.injected = now is not time.monotonic

    @contextmanager
    def account(self, name: Account) -> Iterator[None]:
        """Charge what happens inside to one account."""
        self._charge("other")
        try:
            yield
        finally:
            self._charge(name)

    def drain(self) -> dict[Account, float]:
        """The seconds spent since the last call, by account."""
        self._charge("other")
        spent, self._accounts = self._accounts, {}
        return {name: seconds for name, seconds in spent.items() if seconds > 0}

    def pending(self) -> float:
        """The seconds spent since the last `drain`, without taking them."""
        return sum(self._accounts.values()) + self._now() - self._last

    def stamp(self) -> str:
        """The wall time for people to read; empty under an injected clock, whose runs are compared by bytes."""
        return "" if self.injected else datetime.now(UTC).isoformat(timespec="milliseconds")

    def _charge(self, name: Account) -> None:
        now = self._now()
        self._accounts[name] = self._accounts.get(name, 0.0) + max(0.0, now - self._last)
        self._last = now


class Heartbeat:
    """Writes the budget clock beside the journal each second, so that a kill cannot hide what was spent.

    `journaled` gives the seconds that the journal holds; a clean end removes the file.
    """

    def __init__(self, clock: BudgetClock, path: Path, journaled: Callable[[], float]) -> None:
        self._clock = clock
        self._path = path
        self._journaled = journaled
        self._stop = Flag()
        self._thread = Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> Heartbeat:
        if not self._clock.injected:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if kind is None:
            self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self._path.write_text(f"{self._journaled() + self._clock.pending():.3f}\n", encoding="ascii")
            except OSError:
                return  # a full disk is reported where it matters: by the journal


def seconds_lost(path: Path, journaled: float) -> float:
    """What the last heartbeat of a killed process says was spent beyond what the journal holds; 0 if none."""
    try:
        return max(0.0, float(path.read_text(encoding="ascii")) - journaled)
    except (OSError, ValueError):
        return 0.0
