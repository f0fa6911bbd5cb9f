"""The report in a real browser: it renders offline, wide and narrow, without errors."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from runs import execute, plan
from test_report import iterated

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


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; apt-get install chromium")
def test_a_run_with_many_trials_fits_the_page(tmp_path: Path) -> None:
    """Whether something is wider than the window is asked of the browser: only the page's own boxes may scroll."""
    assert CHROMIUM is not None
    run = iterated(tmp_path / "run")
    run.journal.close()
    page = write_page(run.directory)
    measure = (
        "<script>document.title = document.documentElement.scrollWidth + ' wide in ' + "
        "document.documentElement.clientWidth</script></body>"
    )
    html = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8")).replace("</body>", measure)
    page.write_text(html, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,2000", "--dump-dom"]
    done = subprocess.run([*command, page.resolve().as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<title>(\d+) wide in (\d+)</title>", done.stdout)
    assert found is not None
    assert int(found[1]) <= int(found[2])
    assert done.stdout.count("<svg") == 4
