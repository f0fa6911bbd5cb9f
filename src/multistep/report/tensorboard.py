"""TensorBoard's event files, derived from the journal and replaced whole each time; `scalars` says what they hold."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory
from multistep.report.scalars import numbers_of

FILE_NAME = "events.out.tfevents.0.multistep"


def write_events(directory: RunDirectory) -> None:
    """Write the folder `events`: losses, learning rates, looks, the gap, the budget by account."""
    beside = directory.events.with_name(f".{directory.events.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    files: dict[str, EventFile] = {}
    try:
        for numbers in numbers_of(list(read_entries(directory.require().journal))):
            if numbers.run not in files:
                files[numbers.run] = EventFile(beside / numbers.run, numbers.seconds)
            files[numbers.run].write(numbers.seconds, numbers.step, numbers.by_tag)
    finally:
        for file in files.values():
            file.close()
    for last in (False, False, True):  # a tracker of the same run may make a file meanwhile
        shutil.rmtree(directory.events, ignore_errors=True)
        try:
            beside.rename(directory.events)
            return
        except OSError:
            if last:
                raise


class EventFile:
    """One event file, with a name that does not change from machine to machine."""

    def __init__(self, folder: Path, wall_time: float, name: str = FILE_NAME) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        self._event, self._summary = Event, Summary
        self._records = RecordWriter((folder / name).open("wb"))
        self._records.write(Event(wall_time=wall_time, file_version="brain.Event:2").SerializeToString())

    def write(self, wall_time: float, step: int, scalars: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        event = self._event(wall_time=wall_time, step=step, summary=self._summary(value=values))
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        self._records.flush()

    def close(self) -> None:
        self._records.close()
