"""The threads that decode images.

Threads, since Pillow decodes and resizes without Python's lock: processes are no faster, and must copy all that they
decode (bench/decoding.py).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")
CHUNK = 64  # items that a thread takes at once: a future for each of a million would take a gigabyte


@functools.cache
def threads() -> ThreadPoolExecutor:
    """As many as this process has cores; at its end they finish the few chunks that they have begun."""
    return ThreadPoolExecutor(cores(), "images")


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Given], Made], items: Sequence[Given]) -> list[Made]:
    """What a function makes of each, in order."""

    def chunk(start: int) -> list[Made]:
        return [function(item) for item in items[start : start + CHUNK]]

    return [made for part in threads().map(chunk, range(0, len(items), CHUNK)) for made in part]
