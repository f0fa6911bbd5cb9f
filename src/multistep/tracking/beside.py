"""The process that follows a run for its trackers: started beside the training, which it can neither slow nor break."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from multistep.engine.launched import follows
from multistep.tracking.follow import tracker_names

LOG_NAME = "tracking.log"
WAIT_SECONDS = 120.0  # for the last of it, the model above all, once the run has ended


@contextmanager
def tracked(folder: Path, names: str | Sequence[str] | None, *, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Within, have trackers told of the run in that folder. What goes wrong with them is a note, never an error.

    Raises PlanError, before anything begins, for a tracker that there is not or that is not installed.
    """
    if not names or follows():
        yield
        return
    wanted = tracker_names(names)
    log = folder.with_name(f".{folder.name}.{LOG_NAME}")  # the run's folder must be empty when it begins
    command = [sys.executable, "-m", "multistep.tracking.follow", str(folder.resolve()), ",".join(wanted), "model"]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            # A session of its own, so that Ctrl-C is the training's alone; it ends when its standard input does.
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        _note(f"not tracked: {error}", folder, wanted)
        yield
        return
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            code = process.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            _note(f"trackers were not done after {wait_seconds:.0f}s and go on by themselves", folder, wanted)
        else:
            kept = folder / LOG_NAME if folder.is_dir() else log
            if kept != log:
                log.replace(kept)
            if code:
                _note(f"a tracker failed ({kept} says how)", folder, wanted)


def _note(said: str, folder: Path, names: Sequence[str]) -> None:
    logging.getLogger("multistep").warning(
        f"{said}; the run is not touched by it. `multistep track {folder} --to {','.join(names)}` sends what is missing"
    )
