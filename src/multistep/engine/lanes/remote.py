"""What an actor of a Ray cluster does for a lane, on whatever node it is."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

from multistep.engine.lanes.alive import Signs
from multistep.engine.lanes.nodes import sees
from multistep.engine.lanes.store import Filled, Parcel, Slot, Store, carried
from multistep.engine.lanes.worker import Doing, sendable


class Starts(Protocol):
    """An opener of what begins with weights that were given in Python."""

    def start_in(self, folder: Path) -> None:
        """Take the first weights from there, or keep them there."""


class Remote:
    """What runs in an actor: `do` for one thing after the other, the others beside it."""

    def __init__(self, opener: bytes, environment: Mapping[str, str], folder: str, store: str | None) -> None:
        """`folder` is where the run was started: what its plan calls by relative paths is looked for there."""
        os.environ.update(environment)
        with suppress(OSError):
            os.chdir(folder)
        self._signs = Signs()
        self._opener = opener
        self._doing: Doing | None = None
        self._store = Store(store, self._signs.gets_on) if store else None

    def do(self, what: str, *rest: Any) -> tuple[Any, Exception | None, float]:
        began = time.perf_counter()
        try:
            value, error = self._answer(what, list(rest)), None
        except Exception as met:
            value, error = None, sendable(met)
        return value, error, time.perf_counter() - began

    def _answer(self, what: str, rest: list[Any]) -> Any:
        if self._doing is None:  # not before: on a node with other versions this fails, and they are compared first
            self._doing = Doing(pickle.loads(self._opener), self._signs)
        match what:
            case "open" if self._store:
                *rest, start = rest
                return self._open(self._doing, self._store, rest, start)
            case "ask" if self._store:
                verb, arguments, keywords = rest
                self._signs.begins("carry")
                with carried(self._store, arguments) as (here, answer):
                    value = self._doing.answer(what, [verb, tuple(here), keywords])
                    self._signs.begins("carry")
                    return answer(value)
        return self._doing.answer(what, rest)

    def _open(self, doing: Doing, store: Store, rest: list[Any], start: Parcel | Slot | None) -> Any:
        """With the first weights of a module that lives in Python, which the first lane writes."""
        with TemporaryDirectory(prefix="multistep-") as made:
            folder = Path(made)
            if isinstance(start, Parcel):
                store.fetch(start, folder)
            if start is not None:
                cast(Starts, doing.opener).start_in(folder)
            ready = doing.answer("open", rest)
            return Filled(ready, store.send(folder)) if isinstance(start, Slot) else ready

    def stop(self) -> None:
        self._signs.stop.set()

    def alive(self) -> bool:
        """Whether it gets on with what it does, since this was asked last."""
        return self._signs.seen()

    def sees(self, place: str, name: str, content: bytes, answer: str) -> tuple[str, str, dict[str, str]]:
        return sees(place, name, content, answer)
