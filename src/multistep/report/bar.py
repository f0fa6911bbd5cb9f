"""A bar that tells how far something is, on a terminal alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(what: str, *, shown: bool = True) -> Iterator[Callable[[int, float | None], None]]:
    """Called with how many are done and, where that is known, their share of all; on standard error, if `shown`."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True) as bar:
        task = bar.add_task(f"0 {what}", total=None)

        def on_progress(done: int, share: float | None) -> None:
            bar.update(task, description=f"{done:,} {what}", completed=share or 0.0, total=None if share is None else 1)

        yield on_progress
