"""What is to be said of data while a model is used: rows left out, columns guessed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


def say(notes: Iterable[str]) -> None:
    """Log each note once, however often the same data are read: on standard error unless the caller logs elsewhere."""
    heard = _heard.get()
    for note in dict.fromkeys(notes):
        if heard is not None:
            if note in heard:
                continue
            heard.append(note)
        logging.getLogger("multistep").warning(note)


@contextmanager
def hearing() -> Iterator[list[str]]:
    """What is said while it is open, beside being logged."""
    found: list[str] = []
    token = _heard.set(found)
    try:
        yield found
    finally:
        _heard.reset(token)
