"""The tests of `bench/gpu.py`: tests/test_cuda.py in a process of its own, read while it goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from gpu_kit import Form, Rows

ROOT = Path(__file__).resolve().parents[1]
MOST_WORKERS = 6
OUTCOME = re.compile(r"(?:tests/)?test_cuda\.py::(?P<test>\S+)")
ENDED = re.compile(r"\b(PASSED|FAILED|SKIPPED|ERROR)\b")
WHY = re.compile(r"^(?:FAILED|ERROR) \S*::(?P<test>\S+) - (?P<why>.*)")
SKIPPED = re.compile(r"^SKIPPED \[(?P<count>\d+)\] \S+ (?P<why>.*)")


def measure(rows: Rows, form: Form) -> None:
    """Outcomes as they come, so that what is cut keeps them; then why tests failed, and what the tests report."""
    report = rows.path.with_name("cuda-report.jsonl")
    report.unlink(missing_ok=True)
    environment = {**os.environ, "MULTISTEP_CUDA_REPORT": str(report), "COLUMNS": "400"}  # reasons are not cut short
    if form == "cpu":
        environment["MULTISTEP_REHEARSE"] = "cpu"
    # A newer library's warnings are no failures here: what is asked is what the device does.
    command = [sys.executable, "-m", "pytest", "tests/test_cuda.py", "-v", "-rfEs", "--tb=short"]
    command += ["-o", "filterwarnings=default", "-p", "no:cacheprovider"]
    workers = min(MOST_WORKERS, (os.cpu_count() or 1) // 2)
    if workers > 1 and importlib.util.find_spec("xdist"):
        command += ["--numprocesses", str(workers)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for line in process.stdout:
        print(line, end="", flush=True)
        if found := WHY.match(line):
            rows.add(found["test"], outcome="failed", why=found["why"][:300])
        elif found := SKIPPED.match(line):
            reasons[found["why"]] += int(found["count"])
        elif OUTCOME.search(line) and (ended := ENDED.search(line)):
            outcomes[ended[1].lower()] += 1
            rows.facts = {"outcomes": dict(outcomes)}
            rows.write()
    process.wait()
    for why, count in reasons.items():
        rows.leave_out(f"{count} of them", why[:200])
    for line in report.read_text(encoding="utf-8").splitlines() if report.exists() else ():
        entry = json.loads(line)
        rows.add(entry.pop("what"), **entry)
    if not outcomes:
        raise SystemExit(f"pytest ended with code {process.returncode} before any test")
