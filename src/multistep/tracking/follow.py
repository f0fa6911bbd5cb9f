"""Trackers by name, told of a run afterwards, or while it goes on by a process that only reads its journal."""

from __future__ import annotations

import importlib.util
import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError, RunFailed, nearest
from multistep.report.words import clean
from multistep.tracking.account import Account, account_of

EVERY_SECONDS = 2.0  # between two readings of the journal
PATIENCE = 5  # failures in a row, after which a tracker is left alone until the end
NICENESS = 10  # of the process that follows a run: training comes first


class Tracker(Protocol):
    """What is told accounts of one run; each holds all of the one before it."""

    destination: str  # in words

    def send(self, account: Account) -> None:
        """Tell what was not told yet; telling the same account twice changes nothing."""

    def close(self) -> None:
        """Let go of what is open."""


# The package that each needs; all but TensorBoard's are extras of the same names.
PACKAGES: Mapping[str, str] = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
}


def tracker_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names of trackers from `mlflow,wandb` or a list.

    Raises PlanError for an unknown name, and for one whose package is not installed.
    """
    several = [given] if isinstance(given, str) else list(given)
    names = tuple(dict.fromkeys(part.strip().lower() for each in several for part in str(each).split(",")))
    for name in names:
        if name not in PACKAGES:
            close = nearest(name, PACKAGES)
            raise PlanError(f"track: unknown tracker '{name}'; allowed: {', '.join(PACKAGES)}.{close}")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise PlanError(f'track: {name} is not installed; get it with `pip install "multistep[{name}]"`')
    return names


def open_tracker(name: str, directory: RunDirectory, *, with_model: bool = True) -> Tracker:
    """The tracker of that name for that run. Raises whatever its library raises where it cannot be reached."""
    made: Any
    match name:
        case "tensorboard":
            from multistep.tracking import tensorboard as made
        case "mlflow":
            from multistep.tracking import mlflow as made
        case "wandb":
            from multistep.tracking import wandb as made
        case "trackio":
            from multistep.tracking import trackio as made
        case _:
            raise AssertionError(name)
    tracker: Tracker = made.Tracker(directory, with_model=with_model)
    return tracker


def track(directory: RunDirectory, to: str | Sequence[str], *, with_model: bool = True) -> list[str]:
    """Tell trackers all of a run that they do not have; returns where it went, in words.

    Raises PlanError for a tracker that there is not, RunDirectoryError where there is no run, and RunFailed where a
    tracker could not be told.
    """
    names = tracker_names(to)
    account = account_of(directory)
    if account is None:
        return []
    went, failed = [], []
    for name in names:
        try:
            tracker = open_tracker(name, directory, with_model=with_model)
            try:
                tracker.send(account)
            finally:
                tracker.close()
            went.append(tracker.destination)
        except Exception as error:  # of the tracker's library, its server, its network
            failed.append(f"{name} ({_reason(error)})")
    if failed:
        said = ", ".join(failed)
        raise RunFailed(f"{directory.folder}: not tracked by {said}; the same command sends what is missing")
    return went


def follow(
    directory: RunDirectory,
    to: str | Sequence[str],
    *,
    ended: Callable[[], bool],
    say: Callable[[str], None],
    with_model: bool = True,
    wait: Callable[[float], None] = time.sleep,
) -> bool:
    """Tell trackers of a run while it goes on, until `ended`; returns whether all were told all in the end.

    A tracker that fails is tried again; what it says goes to `say`. The run's directory is only read, but for the
    file of what was told.
    """
    names = tracker_names(to)
    told = _Told(directory, names, say, with_model)
    while not (last := ended()):
        told.send(last)
        wait(EVERY_SECONDS)
    return told.send(last)


class _Told:
    """Trackers that are told again and again; one that fails does not keep the others from it."""

    def __init__(
        self, directory: RunDirectory, names: Sequence[str], say: Callable[[str], None], with_model: bool
    ) -> None:
        self._directory, self._names, self._say, self._with_model = directory, names, say, with_model
        self._trackers: dict[str, Tracker] = {}
        self._failures = dict.fromkeys(names, 0)
        self._size = -1

    def send(self, last: bool) -> bool:
        """Whether all went well; `last` tries those again that were given up, and lets go of all."""
        journal = self._directory.journal
        size = journal.stat().st_size if journal.exists() else 0
        if not size or (size == self._size and not last):
            return True
        self._size = size
        account = account_of(self._directory)
        well = True
        for name in self._names if account else ():
            assert account is not None
            if self._failures[name] >= PATIENCE and not last:
                continue
            well &= self._send(name, account, last)
        return well

    def _send(self, name: str, account: Account, last: bool) -> bool:
        try:
            if name not in self._trackers:
                self._trackers[name] = open_tracker(name, self._directory, with_model=self._with_model)
            self._trackers[name].send(account)
            if last:
                self._trackers.pop(name).close()
        except Exception as error:  # of the tracker's library, its server, its network
            self._failures[name] += 1
            self._say(f"{name}: {_reason(error)}")
            return False
        self._failures[name] = 0
        return True


def _reason(error: Exception) -> str:
    return clean((str(error).strip() or type(error).__name__).splitlines()[0])[:300]


def main() -> None:
    """What `started` runs: follows a run until its standard input is closed, by the end of who trains or by a kill."""
    folder, names, model = sys.argv[1:4]
    os.nice(NICENESS)

    def ended() -> bool:
        return bool(select.select([sys.stdin], [], [], 0)[0]) and not sys.stdin.buffer.read(1)

    well = follow(
        RunDirectory(Path(folder)),
        names,
        ended=ended,
        say=lambda said: print(said, flush=True),
        with_model=model == "model",
    )
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
