"""TensorBoard, by the protocol of the other trackers: RUN/events grows while the run goes on.

Once it has finished, the files are what `report.tensorboard` writes from the whole journal, the way to the model too.
"""

from __future__ import annotations

from multistep.engine.rundir import RunDirectory
from multistep.report.scalars import CHOSEN
from multistep.report.tensorboard import FILE_NAME, EventFile, write_events
from multistep.tracking.account import Account

LIVE_NAME = FILE_NAME.replace(".0.", ".1.")  # beside the file that holds what came before


class Tracker:
    """Tells accounts of one run to the event files in its folder."""

    def __init__(self, directory: RunDirectory, *, with_model: bool) -> None:
        self._directory = directory
        self.destination = f"TensorBoard in {directory.events}"
        self._files: dict[str, EventFile] = {}
        self._counts: dict[str, int] | None = None  # of the points in the files, once there are any

    def send(self, account: Account) -> None:
        """Add what the event files do not have; of a finished run, see that they are there."""
        if account.finished:
            self.close()
            if not self._directory.events.exists():
                write_events(self._directory)
            return
        if self._counts is None:
            write_events(self._directory)  # what came before, whole
            self._counts = {told.name: len(told.curve) for told in account.runs}
        for told in account.runs:
            if told.name == CHOSEN:
                continue
            for numbers in told.curve[self._counts.get(told.name, 0) :]:
                if told.name not in self._files:
                    folder = self._directory.events / told.name
                    self._files[told.name] = EventFile(folder, numbers.seconds, LIVE_NAME)
                self._files[told.name].write(numbers.seconds, numbers.step, numbers.by_tag)
            self._counts[told.name] = len(told.curve)
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()
