"""The tests of `bench/gpu.py`: tests/test_cuda.py in a process of its own, read while it goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpu_kit import Form, Rows

ROOT = Path(__file__).resolve().parents[1]
MOST_WORKERS = 6
# Each test as it ends, `a.py::test PASSED [ 2%]`, or from a worker `[gw0] [ 2%] PASSED a.py::test`.
ENDED = re.compile(r"^(?:\[gw\d+\] .*)?\b(?:PASSED|FAILED|SKIPPED|ERROR)\b.*::|::.* (?:PASSED|FAILED|SKIPPED|ERROR)\b")
OUTCOME = re.compile(r"\b(PASSED|FAILED|SKIPPED|ERROR)\b")
# What is said of them in the end.
WHY = re.compile(r"^(?:FAILED|ERROR) \S*?::(?P<test>.*?)(?: - (?P<why>.*))?$")
SKIPPED = re.compile(r"^SKIPPED \[(?P<count>\d+)\] \S+ (?P<why>.*)")


def measure(rows: Rows, form: Form) -> None:
    """Outcomes as they come, so that what is cut keeps them; then why tests failed, and what the tests report."""
    report = rows.path.with_name("cuda-report.jsonl")
    report.unlink(missing_ok=True)
    rehearse = {"MULTISTEP_REHEARSE": "cpu"} if form == "cpu" else {}
    command = pytest_of("tests/test_cuda.py")
    workers = min(MOST_WORKERS, (os.cpu_count() or 1) // 2)
    if workers > 1 and importlib.util.find_spec("xdist"):
        command += ["--numprocesses", str(workers)]
    code = follow(command, rows, ROOT, rehearse, report)
    if not rows.facts:
        raise SystemExit(f"pytest ended with code {code} before any test")


def pytest_of(path: str) -> list[str]:
    # A newer library's warnings are no failures here: what is asked is what the device does.
    settings = ["-o", "filterwarnings=default", "-o", "addopts=--strict-markers", "-p", "no:cacheprovider"]
    return [sys.executable, "-m", "pytest", path, "-v", "-rfEs", "--tb=short", "--color=no", *settings]


def follow(command: Sequence[str], rows: Rows, folder: Path, more: Mapping[str, str], report: Path) -> int:
    """Run pytest and keep what it says, and what its tests write to `report`, line by line; its exit code."""
    # Wide, so that reasons are not cut short.
    environment = {**os.environ, **more, "COLUMNS": "400", "MULTISTEP_CUDA_REPORT": str(report)}
    told = 0
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    outcomes: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    summary = False
    with process:
        for line in process.stdout:
            print(line, end="", flush=True)
            summary |= "short test summary info" in line
            if summary:
                if found := SKIPPED.match(line):
                    skipped[found["why"]] += int(found["count"])
                elif found := WHY.match(line):
                    rows.add(found["test"], outcome="failed", why=(found["why"] or "")[:300])
            elif ENDED.search(line) and (ended := OUTCOME.search(line)):
                outcomes[ended[1].lower()] += 1
                rows.facts = {"outcomes": dict(outcomes)}
                rows.write()
                told = _take(report, told, rows)
    _take(report, told, rows)
    for why, count in skipped.items():
        rows.leave_out(f"{count} of them", why[:200])
    return process.returncode


def _take(report: Path, told: int, rows: Rows) -> int:
    """Add what tests have written since; how many lines are taken in all."""
    lines = report.read_text(encoding="utf-8").splitlines(keepends=True) if report.exists() else []
    whole = [line for line in lines if line.endswith("\n")]  # the last one may still be written
    for line in whole[told:]:
        entry = json.loads(line)
        rows.add(entry.pop("what"), **entry)
    return len(whole)
