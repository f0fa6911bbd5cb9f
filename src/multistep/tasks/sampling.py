"""How much of a long training split is counted, where counting all of it would cost too much."""

from __future__ import annotations

SHARE = 0.02  # of a plan's time
MOST_BYTES = 1e9  # of memory


def characters_counted(seconds: float | None, a_second: float, bytes_each: float, least: int) -> int:
    """The characters that are counted within 2% of `seconds` (None: not told in time) and a gigabyte, at `a_second`
    characters a second and `bytes_each` of memory a character; `least` of them in any case.

    By rule, not by a clock: a run that goes on must come to the same sample.
    """
    in_time = float("inf") if seconds is None else SHARE * seconds * a_second
    return max(least, int(min(in_time, MOST_BYTES / bytes_each)))
