"""The journal: one JSON object a line, appended and synced, the only truth about a run."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from multistep.core.values.events import Account, Entry, Event
from multistep.core.values.history import History, fold
from multistep.engine.clock import BudgetClock
from multistep.engine.plain import to_json
from multistep.errors import RunDirectoryError

HEAD = b'{"at": '  # what each line begins with


@functools.cache
def _events() -> TypeAdapter[Event]:
    adapter: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])
    return adapter


def read_entries(path: Path) -> Iterator[Entry]:
    """The entries of a journal. A last line cut short by a kill is left out; it was never acted on.

    Raises RunDirectoryError for any other line that cannot be read.
    """
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]  # a kill may have cut the rest within a letter
    if not whole and not content.startswith(HEAD[: len(content)]):
        raise RunDirectoryError(f"{path}: not the journal of a run; name another folder with --out DIR")
    for number, line in enumerate(whole.split(b"\n"), start=1):
        if not line:
            continue
        try:
            fields = json.loads(line.decode("utf-8"))
            event = _events().validate_python(fields["event"])
            yield Entry(event, fields["spent"], fields["at"], fields.get("lane", 0), fields.get("took"))
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise RunDirectoryError(
                f"{path}:{number}: this journal line cannot be read ({_first_line(error)}); the file was changed "
                "or written by another version. Start a new run with --out DIR."
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def line_of(entry: Entry) -> str:
    """An entry as a journal holds it."""
    beside = {"lane": entry.lane, "took": entry.took} if entry.lane else {}
    return to_json({"at": entry.at, "spent": entry.spent, **beside, "event": entry.event}) + "\n"


class Journal:
    """Appends events with what the clock says was spent, and keeps the history that they fold to."""

    def __init__(self, path: Path, clock: BudgetClock) -> None:
        self._clock = clock
        self.history = History()
        if path.exists():
            self.history = fold(read_entries(path))
            _cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8")

    def append(self, event: Event, *, lane: int = 0, took: Mapping[Account, float] | None = None) -> Entry:
        """Write one event and wait until it is on disk: nothing is acted on before that.

        Of a lane's event, the wall's time goes to the accounts in the shares in which the lane `took` its own.
        """
        entry = Entry(event, _shared(self._clock.drain(), took or {}), self._clock.stamp(), lane, took)
        self._file.write(line_of(entry))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.history = fold([entry], self.history)
        return entry

    def close(self) -> None:
        self._file.close()


def _shared(spent: Mapping[Account, float], took: Mapping[Account, float]) -> Mapping[Account, float]:
    wall, own = sum(spent.values()), sum(took.values())
    return {name: wall * seconds / own for name, seconds in took.items()} if own > 0 else spent


def _cut_torn_line(path: Path) -> None:
    """Drop what a kill left of a line, so that the next one does not continue it."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end != len(content):
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())
