"""A clock that stands still while other work has the core, for runs of one thread on a machine that is not quiet.

    MULTISTEP_BENCH_CLOCK=processor python bench/more_time.py ...

With it every second of a budget is a second that this process had on a core, so that a run trains as long as on a
quiet machine, whatever else goes on beside it; caches that are shared still make it slower by some percent. It is for
processes that compute: seconds that are spent waiting (for files, for other processes) are not counted.

Imported before anything that asks for the time, since functions take `time.monotonic` as their default when they are
defined.
"""

from __future__ import annotations

import os
import time

if os.environ.get("MULTISTEP_BENCH_CLOCK") == "processor":
    time.monotonic = time.process_time
    time.perf_counter = time.process_time
