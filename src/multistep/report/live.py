"""The live view of a run, on stderr: the whole screen of a terminal, one plain line per event elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from multistep.core.values.events import Entry
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.core.values.units import format_seconds
from multistep.report.lines import LOOK_SECONDS, is_look, plain_line
from multistep.report.words import clean

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

    from multistep.report.frame import Shown

REFRESHES_PER_SECOND = 2  # more would take time from training on a small machine
MOST_MESSAGES = 50


class LiveView:
    """Shows a run while it goes on. `on_entry` gets each journal entry and the history after it.

    Everything shown is read off the history, so that a resumed run looks as if it had never stopped. `now` is
    the view's own clock, which ticks between entries. On a terminal it takes the screen while it is open; what is
    written to stderr meanwhile stands among the notes, and a summary is printed when it closes.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        out: Path,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.console import Console

        self._plan = plan
        self._out = out
        self._quiet = False
        self._console = console or Console(stderr=True)
        self._now = now
        # One tuple, so that the refreshing thread never sees an entry with another one's history.
        self._seen: tuple[Entry | None, History, float] = (None, History(), now())
        self._told = -LOOK_SECONDS  # when a look was last told, in seconds of the run
        self._live: Live | None = None
        self._said: Messages | None = None

    def __enter__(self) -> Self:
        if not self._quiet and can_draw(self._console):
            from rich.live import Live

            # stdout is left alone: what is piped from there is the run's result.
            self._live = Live(
                console=self._console,
                get_renderable=self.render,
                screen=True,
                refresh_per_second=REFRESHES_PER_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._console.file = self._console.file  # for good: else it would follow sys.stderr
            self._said = Messages(sys.stderr)
            sys.stderr = self._said
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is None:
            return
        live, self._live = self._live, None
        try:
            live.stop()
        finally:
            if self._said is not None:
                if sys.stderr is self._said:
                    sys.stderr = self._said.before
                self._said.close_screen()
        self._close()

    def _close(self) -> None:
        """Print what is left when the screen is given back."""
        from multistep.report.frame import closing

        for line in closing(self.shown(), self._console.width, self._console):
            self._console.print(line, highlight=False, no_wrap=True, overflow="ignore", crop=False)

    def on_entry(self, entry: Entry, history: History) -> None:
        """Take notice of one entry."""
        self._seen = (entry, history, self._now())
        if self._quiet or self._live is not None:
            return
        if is_look(entry, history):
            if history.seconds < self._told + LOOK_SECONDS:
                return
            self._told = history.seconds
        if line := plain_line(self._plan, entry, history):
            self._write(f"{format_seconds(history.seconds):>7}  {clean(line)}")

    def _write(self, line: str) -> None:
        try:
            self._console.file.write(f"{line}\n")
            self._console.file.flush()
        except (OSError, ValueError):
            self._quiet = True  # nobody reads any more, which is no reason to end a run

    def render(self) -> Screenful:
        """The screen as it stands now."""
        return Screenful(self)

    def shown(self) -> Shown:
        """What the screen is made of now."""
        from multistep.report.frame import Shown

        entry, history, seen_at = self._seen
        ticking = max(0.0, self._now() - seen_at)
        messages = tuple(self._said.messages) if self._said else ()
        return Shown(self._plan, self._out, entry, history, ticking, messages, hint=self._live is not None)


class Screenful:
    """A frame in whatever size it is drawn: rich asks for it anew each time."""

    def __init__(self, view: LiveView) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        from multistep.report.frame import frame

        try:
            yield from frame(self._view.shown(), options.max_width, options.height or console.height, console)
        except Exception as error:  # whatever is wrong with a picture, it is no reason to end a run
            yield Text(f"This view cannot be drawn ({type(error).__name__}: {error}); the run goes on.")


def can_draw(console: Console) -> bool:
    """Whether this is a terminal that can be drawn on: one that moves its cursor and shows block characters."""
    return console.is_terminal and not console.is_dumb_terminal and console.encoding.lower().startswith("utf")


class Messages(io.TextIOBase):
    """Stands for stderr while the screen is taken: keeps whole lines, and passes them on once it is given back."""

    def __init__(self, before: TextIO) -> None:
        self.before = before
        self._begun = ""
        self._open = True
        self._lines: list[str] = []

    @property
    def messages(self) -> list[str]:
        return self._lines

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False if self._open else self.before.isatty()

    def write(self, text: str) -> int:
        if not self._open:
            return self.before.write(text)
        *whole, self._begun = (self._begun + text).replace("\r", "\n").split("\n")
        for line in whole:
            line = clean(line).strip()
            if line and line not in self._lines:
                self._lines = [*self._lines, line][-MOST_MESSAGES:]
        return len(text)

    def flush(self) -> None:
        if not self._open:
            self.before.flush()

    def close_screen(self) -> None:
        """From now on, whoever kept this stream writes to the one before."""
        if self._begun.strip():
            self.write("\n")
        self._open = False
