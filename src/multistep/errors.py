"""What users can get wrong, in one hierarchy.

Every message says where, what, what is allowed, and what to do.
The command line prints the message alone and exits with 2 for `UserError`, with 1 for `RunFailed`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MultistepError(Exception):
    """Anything that `multistep` reports in one message, without a traceback."""

    exit_code = 1
    told = False  # whether another process of the same run has told people of it


class UserError(MultistepError, ValueError):
    """The request cannot be carried out as it stands; the user can mend it."""

    exit_code = 2

    def _render_traceback_(self, *_: object, **__: object) -> list[str]:
        """What IPython shows: the message alone, as the command line does; a traceback would show our code."""
        return [f"{type(self).__name__}: {self}"]


class PlanError(UserError):
    """A plan that cannot be run: unknown key, unit, optimizer, metric, or a contradiction."""


class DataError(UserError):
    """Data that cannot be read or is too little to train on."""


class RunDirectoryError(UserError):
    """A run directory that is occupied by another plan, locked, unreadable or not writable."""


class RunFailed(MultistepError):
    """A run that was started properly and could not go on: disk full, diverged beyond rescue."""


class ProcessLost(MultistepError):
    """One of the processes that train one model together was killed, hangs, or failed in a way of its own.

    No `RunFailed`, of which a run may survive some: nothing can be done with the processes that are left.
    """


def nearest(word: str, allowed: Iterable[str]) -> str:
    """`" Did you mean 'optimizer'?"`, or an empty string if nothing is close."""
    found = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{found[0]}'?" if found else ""


class Stopped(MultistepError):
    """A run that a signal ended; its exit code is the shell's for that signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number
