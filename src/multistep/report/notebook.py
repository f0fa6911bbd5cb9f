"""The live view of a run in a notebook's cell: what a terminal shows, as HTML that is replaced as the run goes on."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from multistep.core.values.events import Entry
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.report.live import LiveView

COLUMNS, LINES = 100, 30
LEAST_SECONDS = 0.5  # between two pictures, so that training is not held up
# Colours are the notebook's own, so that it is read in a dark one too.
FRAME = '<pre style="line-height:1.25;font-family:Menlo,Consolas,monospace;background:none;color:inherit">{code}</pre>'


class NotebookView:
    """Shows a run below the cell that called for it. `on_entry` gets each journal entry and the history after it.

    Nothing but IPython is needed, no widgets; a notebook that is saved keeps the last picture.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        out: Path,
        show: Callable[[str], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`show` takes each picture (None: the notebook's cell)."""
        from rich.console import Console

        self._inner = LiveView(plan, out=out, console=Console(file=io.StringIO(), width=COLUMNS, force_jupyter=False))
        self._put = show or _in_cell()
        self._now = now
        self._shown_at: float | None = None

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()

    def on_entry(self, entry: Entry, history: History) -> None:
        """Take notice of one entry."""
        self._inner.on_entry(entry, history)
        if self._shown_at is None or self._now() - self._shown_at >= LEAST_SECONDS:
            self._show()

    def _show(self) -> None:
        self._put(self.html())
        self._shown_at = self._now()

    def html(self) -> str:
        """The picture as it stands now, self-contained."""
        from rich.console import Console

        console = Console(
            file=io.StringIO(), width=COLUMNS, height=LINES, record=True, force_jupyter=False, color_system="truecolor"
        )
        console.print(self._inner.render())
        return console.export_html(inline_styles=True, code_format=FRAME)


def _in_cell() -> Callable[[str], None]:
    """What shows a picture below the cell that is running, in the place of the one before."""
    from IPython.display import HTML, display

    cell: Any = None

    def put(picture: str) -> None:
        nonlocal cell
        if cell is None:
            cell = display(HTML(picture), display_id=True)
        else:
            cell.update(HTML(picture))

    return put
