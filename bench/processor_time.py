"""A clock that stands still while other work has the core, for runs of one thread on a machine that is not quiet.

    MULTISTEP_BENCH_CLOCK=processor python bench/more_time.py ...
    MULTISTEP_BENCH_CLOCK=processor python bench/processor_time.py train PLAN ...

With it every second of a budget is a second that this process had on a core, so that a run trains as long as on a
quiet machine, whatever else goes on beside it; caches that are shared still make it slower by some percent. It is for
processes that compute: seconds that are spent waiting (for files, for other processes) are not counted.

Imported before anything that asks for the time, since functions take `time.monotonic` as their default when they are
defined. The second form runs the command line by this clock.
"""

from __future__ import annotations

import os
import time

ON = os.environ.get("MULTISTEP_BENCH_CLOCK") == "processor"
if ON:
    time.monotonic = time.process_time
    time.perf_counter = time.process_time


def of_children() -> float:
    """Seconds by which what this process has started, and waited for, is timed."""
    if not ON:
        return time.monotonic()
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    from multistep.cli import main

    main()
