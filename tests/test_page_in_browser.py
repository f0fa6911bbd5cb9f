"""The report in a real browser: it renders offline, wide and narrow, without errors."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from runs import execute, plan

from multistep.engine.rundir import RunDirectory
from multistep.report.page import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; apt-get install chromium")
def test_a_browser_shows_the_answer_and_the_charts(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    execute(plan(budget="3m"), tmp_path / "run")
    page = write_page(RunDirectory(tmp_path / "run"))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count("<svg") >= 2
    assert "simulated baseline" in done.stdout
    shot = tmp_path / "page.png"
    command[-2:] = [f"--screenshot={shot}", "--window-size=500,1600", page.resolve().as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    assert shot.stat().st_size > 20_000
