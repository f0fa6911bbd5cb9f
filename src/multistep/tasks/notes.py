"""What is to be said of data while a model is used: rows left out, columns guessed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


def say(notes: Iterable[str]) -> None:
    """Log each note once: on standard error unless the caller logs elsewhere."""
    for note in dict.fromkeys(notes):
        logging.getLogger("multistep").warning(note)
        if (heard := _heard.get()) is not None:
            heard.append(note)


@contextmanager
def hearing() -> Iterator[list[str]]:
    """What is said while it is open, beside being logged."""
    found: list[str] = []
    token = _heard.set(found)
    try:
        yield found
    finally:
        _heard.reset(token)
