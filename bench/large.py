"""A gigabyte of text: memory, and seconds to the first step of a first start and of one that finds the cache.

    python bench/large.py --megabytes 1000 --budget 1m --folder /tmp/large

The text is the source code of Python's standard library and tiny Shakespeare (MULTISTEP_DATA), its lines shuffled, with
numbers among them that never come again, so that no table of words and no compression makes it easy. The runs are those
of the command line; the largest process is what getrusage says, all together what was seen four times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

LINES_AT_ONCE = 20_000


def write_text(path: Path, megabytes: int) -> None:
    """Shuffled lines with numbers among them, always the same."""
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    lines = [line for source in sources for line in source.read_text(encoding="utf-8", errors="ignore").split("\n")]
    if (play := Path(os.environ.get("MULTISTEP_DATA", "")) / "tinyshakespeare" / "input.txt").is_file():
        lines += play.read_text(encoding="utf-8").split("\n")
    draw = random.Random(0)
    left = megabytes * 10**6
    with path.open("w", encoding="utf-8") as file:
        while left > 0:
            some = [
                line if draw.random() < 0.8 else f"{line} {draw.getrandbits(20)}"
                for line in draw.choices(lines, k=LINES_AT_ONCE)
            ]
            left -= file.write("\n".join(some) + "\n")


def measure(text: Path, run: Path, cache: Path, budget: str) -> dict[str, float]:
    """Seconds until the first step of a run, and the memory of it and its processes."""
    began = time.monotonic()
    command = [sys.executable, "-m", "multistep", "train", "--task", "text-generation", "--data", str(text)]
    process = subprocess.Popen(
        [*command, "--model", "scratch", "--budget", budget, "--out", str(run)],
        env={**os.environ, "MULTISTEP_CACHE": str(cache)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    first, together = 0.0, 0
    while process.poll() is None:
        if not first and _begins_to_train(run):
            first = time.monotonic() - began
        together = max(together, _memory_below(process.pid))
        time.sleep(0.25)
    if process.returncode:
        sys.exit(f"the run failed with exit code {process.returncode}")
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {
        "first step, s": round(first, 1),
        "largest, MB": round(largest / 1e6),
        "together, MB": round(together / 1e6),
    }


def _begins_to_train(run: Path) -> bool:
    journal = run / "journal.jsonl"
    lines = journal.read_text(encoding="utf-8").split("\n")[:-1] if journal.is_file() else []  # the last is not whole
    return any(json.loads(line)["event"]["event"] == "window_planned" for line in lines)


def _memory_below(process: int) -> int:
    """Bytes that a process and its children hold (Linux)."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if process in (int(folder.name), int(fields[1])):
                total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--budget", default="1m")
    parser.add_argument("--folder", type=Path, required=True, help="is emptied afterwards")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True)
    try:
        text = chosen.folder / "large.txt"
        write_text(text, chosen.megabytes)
        for start in ("first", "cached"):
            found = measure(text, chosen.folder / start, chosen.folder / "cache", chosen.budget)
            print(f"{start} start of {chosen.megabytes:,} MB: {json.dumps(found)}", flush=True)
    finally:
        shutil.rmtree(chosen.folder)


if __name__ == "__main__":
    main()
