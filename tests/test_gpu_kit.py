"""The kit for the day when a GPU is at hand: its short form runs here, and what hangs or fails stops nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import gpu
import gpu_page
import pytest
import torch
from gpu_kit import Rows, peak_of
from gpu_language import GPT, operations_a_token, rows_that_fit
from gpu_tests import ENDED, follow, pytest_of
from gpu_timing import Length, operations_of, timed, waits

from multistep.tasks.text.lean import LeanConfig, LeanGPT

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def test_the_short_form_measures_on_this_machine_and_says_so(tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    command = [sys.executable, "bench/gpu.py", "--form", "cpu", "--parts", "language,tests", "--out", str(out)]
    done = subprocess.run(
        [*command, "--page", str(tmp_path / "gpu.md")],
        cwd=ROOT,
        env={**os.environ, "OUT": str(back), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((out / "gpu.json").read_text())
    assert (back / "gpu.json").read_bytes() == (out / "gpu.json").read_bytes()
    assert record["form"] == "cpu"
    assert record["device"]["type"] == "cpu"
    assert record["parts"]["language"]["status"] == "done", done.stdout
    rows = record["parts"]["language"]["rows"]
    assert [row["what"] for row in rows] == ["bare loop", "multistep, AdamW", "multistep, Muon"]
    for row in rows:
        assert row["per_second"] > 0
        assert row["seconds_a_step"] > 0
        assert row["peak_bytes"] > 2**20
        assert row["waits_a_step"] == 0
    assert rows[1]["share_of_bare"] == pytest.approx(rows[1]["per_second"] / rows[0]["per_second"])
    assert rows[1]["waits_a_window"] == 1, "the one transfer of a window"
    assert {"what": "tests", "why": "needs a GPU"} in record["left_out"]
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "No GPU has run this yet" in page
    assert f"| device | {record['device']['name']} |" in page
    assert f"{rows[0]['per_second']:,.0f}" in page


@pytest.mark.slow
@pytest.mark.parametrize("part", ["preset", "images", "encoder"])
def test_a_part_of_the_short_form_comes_to_its_end_here_if_it_has_the_time(part: str, tmp_path: Path) -> None:
    result = tmp_path / "part.json"
    command = [sys.executable, "bench/gpu.py", "--part", part, "--form", "cpu", "--result", str(result)]
    cache = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=cache, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text())
    assert all(row["per_second"] > 0 for row in found["rows"])
    assert any(row["what"].startswith("multistep") for row in found["rows"])
    assert not [one for one in found["left_out"] if "failed" in one["why"]]


def test_a_part_that_hangs_is_cut_with_all_that_it_started_and_one_that_fails_says_why(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(2); pathlib.Path({str(mark)!r}).touch()"
    hangs = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    began = time.monotonic()
    assert gpu.run_part([sys.executable, "-c", hangs], os.environ, 0.7, tmp_path / "log") == ("cut", "cut after 1 s")
    fails = "raise RuntimeError('CUDA error: an illegal memory access was encountered')"
    why = "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert gpu.run_part([sys.executable, "-c", fails], os.environ, 20.0, tmp_path / "log") == ("failed", why)
    assert gpu.run_part([sys.executable, "-c", "print(1)"], os.environ, 20.0, tmp_path / "log") == ("done", "")
    time.sleep(max(0.0, began + 2.7 - time.monotonic()))
    assert not mark.exists(), "what the part had started went with it"


def test_the_parts_fit_into_six_minutes_and_the_short_form_into_one() -> None:
    assert sum(part.seconds for part in gpu.PARTS) <= gpu.TOTAL["gpu"] <= 350
    assert sum(part.short for part in gpu.PARTS) <= gpu.TOTAL["cpu"] <= 57


def test_a_part_that_was_cut_keeps_what_it_had_measured(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "part.json")
    rows.add("bare loop", per_second=3.0)
    with rows.attempting("ours"):
        raise RuntimeError("no kernel\nand a long trace")
    found = json.loads((tmp_path / "part.json").read_text())
    assert found["rows"] == [{"what": "bare loop", "per_second": 3.0}]
    assert found["left_out"] == [{"what": "ours", "why": "failed: RuntimeError: no kernel"}]


def test_what_is_missing_is_named_with_its_version_and_wheels_that_lie_there_are_installed(tmp_path: Path) -> None:
    lock = "torch==2.13.0\npydantic==2.1\nruamel.yaml==0.19\nscikit-learn==1.5\n"
    packages = {"pydantic": None, "ruamel.yaml": None, "sklearn": None, "numpy": "2.0"}
    assert gpu.to_carry(packages, lock) == ["pydantic==2.1", "ruamel.yaml==0.19", "scikit-learn==1.5"]
    (wheels := tmp_path / "wheels").mkdir()
    assert "holds no wheels" in gpu.install_wheels(wheels, tmp_path / "site")
    about = "tiny_carried-1.0.dist-info"
    with zipfile.ZipFile(wheels / "tiny_carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_carried.py", "FOUND = 7\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-carried\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: by hand\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", f"tiny_carried.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    assert gpu.install_wheels(wheels, tmp_path / "site") == ""
    assert (tmp_path / "site" / "tiny_carried.py").read_text() == "FOUND = 7\n"


def test_what_pytest_says_is_read_while_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import os, pytest\n"
        "@pytest.mark.parametrize('what', ['a task', 'b'])\n"
        "def test_good(what):\n"
        "    with open(os.environ['MULTISTEP_CUDA_REPORT'], 'a') as file:\n"
        '        file.write(\'{"what": "\' + what + \'", "bits": "the same bits"}\\n\')\n'
        "def test_bad(): raise RuntimeError('CUDA error: - PASSED - on the device')\n"
        "def test_none(): pytest.skip('needs two devices')\n"
        "def test_broken(nothing): pass\n"
    )
    rows = Rows(tmp_path / "part.json")
    assert follow([*pytest_of("test_some.py"), "-p", "no:xdist"], rows, tmp_path, {}, tmp_path / "report.jsonl") == 1
    assert rows.facts == {"outcomes": {"passed": 2, "failed": 1, "skipped": 1, "error": 1}}
    assert rows.left_out == [{"what": "1 of them", "why": "needs two devices"}]
    failed = {row["what"]: row["why"] for row in rows.rows if "outcome" in row}
    assert rows.rows[:2] == [{"what": what, "bits": "the same bits"} for what in ("a task", "b")]
    assert failed["test_bad"] == "RuntimeError: CUDA error: - PASSED - on the device"
    assert failed.keys() == {"test_bad", "test_broken"}
    assert ENDED.search("[gw3] [  7%] PASSED tests/test_cuda.py::test_good[a task] "), "as workers say it"
    assert not ENDED.search("tests/test_cuda.py::test_good[a task] "), "where it only begins"


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Tesla T4", None),
    ],
)
def test_the_peak_of_a_device_follows_from_its_name_or_is_left_out(name: str, peak: float | None) -> None:
    assert peak_of(name) == peak


def test_operations_are_those_that_torch_counts_and_batches_fit_the_memory() -> None:
    config = LeanConfig("gpt2", vocabulary=512, layers=2, width=64, heads=2, context=64)
    model = LeanGPT(config).initialise(0)
    tokens = torch.zeros(4, 64, dtype=torch.long)
    counted = operations_of(lambda: model.loss(tokens, tokens)[0].backward())  # type: ignore[no-untyped-call]
    assert counted is not None
    products = operations_a_token(config) - 12 * config.layers * config.width * config.context
    assert counted / (4 * 64) == pytest.approx(products), "attention is not counted on CPUs"
    large = GPT["gpu"]
    assert large.parameters == pytest.approx(124e6, rel=0.005)
    assert [rows_that_fit(large, "gpu", gib * 2**30) for gib in (140, 80, 24, 8)] == [32, 16, 4, 2]


def test_waiting_is_counted_by_the_step_and_by_the_window_at_its_line() -> None:
    total = torch.zeros(())

    def advance(steps: int) -> None:
        for _ in range(steps):
            float(total + 1)
        total.tolist()

    a_step, a_window, places = waits(advance, CPU, 3)
    assert (a_step, a_window) == (1.0, 1.0)
    assert {re.sub(r"\d+$", "", place) for place in places} == {"test_gpu_kit.py:"}
    assert sorted(places.values()) == [1, 3]
    found = timed(lambda: lambda steps: time.sleep(0.01 * steps), CPU, Length(1, 2, 3))
    assert found["steps"] == 6
    assert found["seconds_a_step"] == pytest.approx(0.01, rel=0.5)
    assert found["fastest"] <= found["seconds_a_step"] <= found["slowest"]


def record(**changes: Any) -> dict[str, Any]:
    speed = {
        "what": "multistep, AdamW",
        "unit": "tokens",
        "per_second": 456_000.0,
        "seconds_a_step": 0.072,
        "fastest": 0.071,
        "slowest": 0.075,
        "mfu": 0.41,
        "share_of_bare": 0.97,
        "peak_bytes": 40 * 2**30,
        "start_seconds": 31.0,
        "fit": "compiled blocks are kept",
        "waits_a_step": 1.0,
        "waits_a_window": 1.0,
        "waits_at": {"task.py:99": 20, "learner.py:303": 1},
    }
    bits = {"what": "speech-recognition", "precision": "float32", "bits": "close; no deterministic form of ctc"}
    waits = {"what": "speech", "waits_a_step": 4.0, "waits_a_window": 1.0, "waits_at": {"corpus.py:66": 3}}
    failed = {"what": "test_x", "outcome": "failed", "why": "AssertionError: a | b"}
    cut = {"status": "cut", "why": "cut after 95 s", "seconds": 95.0}
    return {
        "form": "gpu",
        "started": "2026-12-01 10:00 UTC",
        "seconds": 331.0,
        "commands": ["make gpu", "python bench/gpu.py"],
        "device": {"name": "NVIDIA H200", "driver": "580.1", "memory_bytes": 140 * 2**30, "peak": 989e12},
        "missing": ["pydantic==2.1"],
        "left_out": [{"what": "encoder", "why": "not installed: transformers"}],
        "parts": {
            "tests": {**cut, "rows": [failed, bits, waits], "facts": {"outcomes": {"passed": 40, "failed": 1}}},
            "language": {**cut, "rows": [speed], "facts": {"parameters": 124_000_000}},
        },
        **changes,
    }


def test_the_page_names_the_device_what_failed_and_what_was_left_out(tmp_path: Path) -> None:
    page = gpu_page.page_of(record())
    assert "No GPU" not in page
    assert "| device | NVIDIA H200 |" in page
    assert "| driver | 580.1 |" in page
    assert "1 failed, 40 passed (cut after 95 s)" in page
    assert "| test_x | AssertionError: a \\| b |" in page
    assert "| speech-recognition | float32 | close; no deterministic form of ctc |" in page
    assert "| 456,000 | 72.00 (71.00 to 75.00) | 41.0% | 0.97 | 40.00 | 31.0 | 1 a step, 1 a window |" in page
    assert "- multistep, AdamW: compiled blocks are kept." in page
    assert "| speech | 4 a step, 1 a window | corpus.py:66 (3) |" in page
    assert "waits at task.py:99 (20), learner.py:303 (1)" in page
    assert "| encoder | not installed: transformers |" in page
    assert "`pydantic==2.1`" in page
    (path := tmp_path / "gpu.md").write_text(page, encoding="utf-8")
    assert gpu_page.replaces(path, record())
    assert not gpu_page.replaces(path, record(form="cpu")), "a CPU's short form leaves a GPU's numbers alone"
    assert gpu_page.replaces(tmp_path / "none.md", record(form="cpu"))
