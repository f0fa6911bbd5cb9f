"""A gigabyte of text or of a table: memory, and seconds to the first step of a first start and of one that finds the
cache.

    python bench/large.py --megabytes 1000 --budget 1m --folder /tmp/large
    python bench/large.py --kind table --megabytes 1000 --budget 10m --folder /tmp/large

The text is the source code of Python's standard library and tiny Shakespeare (MULTISTEP_DATA), its lines shuffled, with
numbers among them that never come again, so that no table of words and no compression makes it easy. A row of the table
has one to fifteen such lines and one of five classes, which most of its lines are of: those of a fifth of the sources.
The runs are those of the command line; the largest process is what getrusage says, all together what was seen four
times a second.
"""

from __future__ import annotations

import argparse
import csv
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
CLASSES = 5


def source_lines() -> list[str]:
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return [line for source in sources for line in source.read_text(encoding="utf-8", errors="ignore").split("\n")]


def write_text(path: Path, megabytes: int) -> None:
    """Shuffled lines with numbers among them, always the same."""
    lines = source_lines()
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


def write_table(path: Path, megabytes: int) -> None:
    """Rows of some lines and the class that most of them are of, always the same."""
    lines = [line for line in source_lines() if line.strip()]
    size = len(lines) // CLASSES
    of_class = [lines[i * size : (i + 1) * size] for i in range(CLASSES)]
    draw = random.Random(0)
    left, number = megabytes * 10**6, 0
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "label"])
        while left > 0:
            label = draw.randrange(CLASSES)
            some = [draw.choice(of_class[label] if draw.random() < 0.6 else lines) for _ in range(draw.randint(1, 15))]
            left -= rows.writerow([number, "\n".join(some) + f" {draw.getrandbits(20)}", f"part {label + 1}"])
            number += 1


def measure(text: Path, task: str, run: Path, cache: Path, budget: str) -> dict[str, float]:
    """Seconds until the first step of a run, and the memory of it and its processes."""
    began = time.monotonic()
    command = [sys.executable, "-m", "multistep", "train", "--task", task, "--data", str(text)]
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
    parser.add_argument("--kind", choices=("text", "table"), default="text")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--budget", default="1m")
    parser.add_argument("--folder", type=Path, required=True, help="is emptied afterwards")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True)
    try:
        of_text = chosen.kind == "text"
        text = chosen.folder / ("large.txt" if of_text else "large.csv")
        (write_text if of_text else write_table)(text, chosen.megabytes)
        task = "text-generation" if of_text else "text-classification"
        for start in ("first", "cached"):
            found = measure(text, task, chosen.folder / start, chosen.folder / "cache", chosen.budget)
            print(f"{start} start of {chosen.megabytes:,} MB of {chosen.kind}: {json.dumps(found)}", flush=True)
    finally:
        shutil.rmtree(chosen.folder)


if __name__ == "__main__":
    main()
