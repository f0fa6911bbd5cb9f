"""Trackio: a group for the run, in it one of its runs for the whole and one for each trial.

The project is TRACKIO_PROJECT (else multistep); it lies in TRACKIO_DIR, by default in the cache of Hugging Face, or in
the Space that TRACKIO_SPACE_ID names. `trackio show --project multistep` opens it. https://huggingface.co/docs/trackio.
"""

from __future__ import annotations

import math
import os
from typing import Any

from multistep.engine.rundir import RunDirectory
from multistep.tracking.account import Account, Told
from multistep.tracking.artefacts import send_files
from multistep.tracking.marks import Marks


class Tracker:
    """Tells accounts of one run to Trackio, each point once: what was told stands in RUN/.tracked.json."""

    def __init__(self, directory: RunDirectory, *, with_model: bool) -> None:
        self._with_model = with_model
        self._project = os.environ.get("TRACKIO_PROJECT") or "multistep"
        where = os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL") or ""
        self.destination = f"Trackio project {self._project}" + (f" in {where}" if where else "")
        place = where or os.environ.get("TRACKIO_DIR", "")
        self._marks = Marks(directory, f"trackio {self._project} {place}".strip())
        self._open: dict[str, Any] = {}

    def send(self, account: Account) -> None:
        """Tell what was not told yet."""
        import trackio

        for told in account.runs:
            if self._marks.closed(told):
                continue
            run = self._run(account, told)
            for numbers in self._marks.new(told):
                run.log({tag: value for tag, value in numbers.by_tag.items() if math.isfinite(value)}, numbers.step)
            if told.ended:
                # There is no other place for words of a run that has begun than a point of its log.
                step = told.curve[-1].step if told.curve else 0
                run.log({**{k: v for k, v in told.scores.items() if math.isfinite(v)}, **told.said}, step)
                if told.name == ".":
                    send_files(trackio, run, account, with_model=self._with_model)
                run.finish()
                del self._open[told.name]
                self._marks.close(told)

    def _run(self, account: Account, told: Told) -> Any:
        import trackio

        if told.name not in self._open:
            whole = told.name == "."
            self._open[told.name] = trackio.init(
                project=self._project,
                name=f"{told.title} {account.id}" if whole else f"{told.name} {account.id}",
                group=f"{account.title} {account.id}",
                config=told.config,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return self._open[told.name]

    def close(self) -> None:
        """End what is open here; a later tracker goes on with it under the same name."""
        for run in self._open.values():
            run.finish()
        self._open.clear()
