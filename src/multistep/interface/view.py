"""What shows a run that was started from Python: the live view, its lines, or a cell of a notebook; and the log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from multistep.core.values.events import Entry
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.engine.launched import follows

OnEntry = Callable[[Entry, History], None]


@contextmanager
def watching(plan: Plan, folder: Path, progress: bool | None, on_entry: OnEntry | None) -> Iterator[OnEntry]:
    """A function that takes each journal entry of a run: shows it, logs it, and hands it to `on_entry`.

    `progress` None shows it unless the logger "multistep" is set up to tell the same: at INFO, with a handler.
    """
    logger = logging.getLogger("multistep")
    logged = logger.isEnabledFor(logging.INFO) and logger.hasHandlers()
    shown = not logged if progress is None else progress
    with _view(plan, folder, shown) as show:

        def take(entry: Entry, history: History) -> None:
            show(entry, history)
            if logged:
                from multistep.report.lines import plain_line

                if line := plain_line(plan, entry, history):
                    logger.info(line)
            if on_entry:
                on_entry(entry, history)

        yield take


@contextmanager
def _view(plan: Plan, folder: Path, shown: bool) -> Iterator[OnEntry]:
    if not shown or follows():
        yield lambda entry, history: None
    elif _in_notebook():
        from multistep.report.notebook import NotebookView

        with NotebookView(plan, out=folder) as cell:
            yield cell.on_entry
    else:
        from multistep.report.live import LiveView

        with LiveView(plan, out=folder) as view:
            yield view.on_entry


def _in_notebook() -> bool:
    """Whether a kernel runs this: Jupyter's, VS Code's, Colab's; IPython on a terminal is none."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
