"""Several processes that encode a long split, each a part of it.

Processes of their own, `python -m MODULE JOB.json`, and not those of multiprocessing: a user's script that trains need
not be one that can be imported again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multistep.errors import DataError

BYTES_A_PROCESS = 2**25  # of text, at least: a process takes half a second to start
MOST_PROCESSES = 32
PARENT = "parent"  # in a job: the process that asked for it


def parts_of(sizes: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Texts of these sizes in bytes, in as many consecutive parts of about one size as processes pay for."""
    count = max(1, int(min(cores(), MOST_PROCESSES, sizes.sum() // BYTES_A_PROCESS)))
    edges = np.searchsorted(np.cumsum(sizes), np.linspace(0, sizes.sum(), count + 1)[1:-1]).tolist()
    return list(zip([0, *edges], [*edges, len(sizes)], strict=True))


def run_all(module: str, folder: Path, jobs: Sequence[Mapping[str, Any]], what: str) -> None:
    """Run a process for each job and wait for all. Raises DataError where one fails; then none goes on."""
    paths = [folder / f"{number}.job.json" for number in range(len(jobs))]
    with ExitStack() as started:
        processes = []
        for path, job in zip(paths, jobs, strict=True):
            path.write_text(json.dumps({**job, PARENT: os.getpid()}), encoding="utf-8")
            processes.append(started.enter_context(_start(module, path)))
        for process in processes:
            started.callback(process.kill)  # those that another's failure leaves
        for process in processes:
            _, said = process.communicate()
            if process.returncode:
                lines = said.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
                raise DataError(f"{what}: a process that encodes it failed ({lines[-1]}); start the run again")
    for path in paths:
        path.unlink()


def _start(module: str, job: Path) -> subprocess.Popen[bytes]:
    home = str(Path(__file__).parents[2])  # of the package, wherever it was found
    found = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", module, str(job)],
        env={**os.environ, "PYTHONPATH": found, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the run to answer
    )


def job_of(path: str) -> dict[str, Any]:
    """What a process is to do."""
    found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return found


def leave_if_alone(parent: int | None) -> None:
    """End a process whose parent is gone."""
    if parent is not None and os.getppid() != parent:
        sys.exit("the process that asked for it is gone")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
