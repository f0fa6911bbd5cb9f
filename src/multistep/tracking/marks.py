"""How much of a run a tracker has been told, for those that cannot be asked: RUN/.tracked.json, by destination."""

from __future__ import annotations

import json
from collections.abc import Iterator

from multistep.engine.rundir import RunDirectory, write_atomically
from multistep.report.scalars import Numbers
from multistep.tracking.account import Told

FILE_NAME = ".tracked.json"


class Marks:
    """Counts the points of each run's curve that one destination has been told, and the runs that are closed there."""

    def __init__(self, directory: RunDirectory, destination: str) -> None:
        self._path = directory.folder / FILE_NAME
        self._destination = destination
        self._counts = self._read().get(destination, {})

    def closed(self, told: Told) -> bool:
        """Whether nothing more is to be told of a run there."""
        return self._counts.get(f"{told.name} closed", 0) == 1

    def close(self, told: Told) -> None:
        self._counts[f"{told.name} closed"] = 1
        self._write()

    def new(self, told: Told) -> Iterator[Numbers]:
        """The points that were not told; each counts as told once the next is asked for."""
        begun = self._counts.get(told.name, 0)
        for index, numbers in enumerate(told.curve[begun:], start=begun + 1):
            yield numbers
            self._counts[told.name] = index
        if len(told.curve) > begun:
            self._write()

    def _read(self) -> dict[str, dict[str, int]]:
        try:
            found: dict[str, dict[str, int]] = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def _write(self) -> None:
        """Beside what other destinations have been told meanwhile."""
        write_atomically(self._path, json.dumps({**self._read(), self._destination: self._counts}, indent=1))
