"""The report in a real browser: it renders offline, wide and narrow, and answers to pointer and keys."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from runs import execute, plan
from test_report import RecordedRun, iterated, iterated_to_the_end

from multistep.engine.learner import Exhibit
from multistep.engine.plain import plain
from multistep.engine.rundir import RunDirectory
from multistep.report.page import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; apt-get install chromium")

# Boxes that scroll by themselves may hold what is wider; names of parts end in an ellipsis.
CLIPPED = """
const found = [];
for (const element of doc.body.querySelectorAll("*")) {
  if (element.closest("svg") && element.tagName !== "svg") continue;
  if (element.parentElement.closest(".wide, pre, .parts")) continue;
  const box = element.getBoundingClientRect();
  if (box.width && (box.right > win.innerWidth + 0.5 || box.left < -0.5))
    found.push(element.tagName + "." + element.className + " " + box.left + " to " + box.right);
}
const drawings = doc.querySelectorAll("svg").length;
return {wide: doc.documentElement.scrollWidth, window: win.innerWidth, found, drawings};
"""


def browse(page: Path, script: str, folder: Path, width: int = 900) -> Any:
    """What a script returns that looks at the page as `doc` in a frame of this width, under the page's own policy."""
    assert CHROMIUM is not None
    content = html.escape(page.read_text(encoding="utf-8"), quote=True)
    around = folder / "around.html"
    around.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><iframe style="width:{width}px;height:3000px;border:0" '
        f'srcdoc="{content}"></iframe><pre id="found"></pre><script>onload = () => {{'
        'const frame = document.querySelector("iframe"), win = frame.contentWindow, doc = frame.contentDocument;'
        f"const found = (() => {{{script}}})();"
        'document.getElementById("found").textContent = JSON.stringify(found);'
        "}</script>",
        encoding="utf-8",
    )
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1400,3000", "--dump-dom"]
    done = subprocess.run(
        [*command, around.resolve().as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@needs_browser
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


@needs_browser
def test_nothing_is_wider_than_a_telephone(tmp_path: Path) -> None:
    """With many trials, forty classes, and texts without a space; only boxes that scroll by themselves are wider."""
    directory = iterated_to_the_end(tmp_path / "run")
    names = [f"class-{number}" for number in range(40)]
    shaded = Exhibit("Who is taken for whom", columns=("", *names), shaded=True)
    shaded = Exhibit(**{**vars(shaded), "rows": tuple((name, *map(str, range(40))) for name in names)})
    texts = Exhibit("Texts", texts=("从前有座山" * 80, "x" * 500), columns=("text",), rows=(("很长" * 200,),))
    directory.exhibits.write_text(json.dumps(plain([shaded, texts])), encoding="utf-8")
    hover = """
    doc.querySelectorAll(".plot").forEach((plot, i) => {
      const box = plot.getBoundingClientRect();
      plot.dispatchEvent(new win.PointerEvent("pointermove", {
        clientX: box.left + (0.45 + 0.1 * i) * box.width, clientY: box.top + 10}));
    });
    doc.querySelectorAll("details.trial").forEach(trial => { trial.open = true; });
    """
    found = browse(write_page(directory), hover + CLIPPED, tmp_path, width=400)
    assert found["found"] == []
    assert (found["wide"], found["window"], found["drawings"]) == (400, 400, 3)


@needs_browser
def test_pointer_and_keys_show_values_and_the_axis_can_be_changed(tmp_path: Path) -> None:
    page = write_page(iterated_to_the_end(tmp_path / "run"))
    script = """
    const plot = doc.querySelector(".plot"), box = plot.getBoundingClientRect(), tip = plot.querySelector(".tip");
    const line = plot.querySelector("path.look:not(.band)");
    const marks = () => [...plot.querySelectorAll(".x")].map(x => x.textContent);
    const at = share => new win.PointerEvent("pointermove", {
      clientX: box.left + share * box.width, clientY: box.top + 20});
    const seen = {steps: marks(), path: line.getAttribute("d")};
    plot.dispatchEvent(at(0.25));
    seen.hover = tip.innerText;
    plot.dispatchEvent(new win.PointerEvent("pointerleave"));
    seen.hidden = tip.hidden;
    plot.dispatchEvent(new win.KeyboardEvent("keydown", {key: "End"}));
    seen.key = tip.innerText;
    doc.querySelector("input[value=clock]").click();
    seen.clock = marks();
    seen.moved = line.getAttribute("d") !== seen.path;
    seen.axis = plot.querySelector(".axis").textContent;
    plot.dispatchEvent(at(0.25));
    seen.later = tip.innerText;
    const grey = doc.querySelector('.plot path[data-t="0.control"]');
    seen.before = grey.classList.contains("on");
    doc.querySelector('details.trial[data-t="0.control"] > summary').click();
    plot.dispatchEvent(new win.PointerEvent("pointerleave"));
    seen.after = grey.classList.contains("on");
    return seen;
    """
    found = browse(page, script, tmp_path)
    assert found["steps"][:3] == ["0", "200", "400"]
    assert found["hover"].startswith("step 160\n")  # the look that is nearest to a quarter of 720
    assert re.search(r"validation, sample \d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)", found["hover"])
    assert "baseline 1.900" in found["hover"]
    assert found["hidden"]
    assert found["key"].startswith("step 600")  # the last look on the way to the model
    assert found["clock"][:2] == ["0s", "30s"]
    assert (found["moved"], found["axis"]) == (True, "time of the whole run")
    assert "into the run" in found["later"]
    assert (found["before"], found["after"]) == (False, True)


@needs_browser
def test_a_page_without_a_score_still_fits(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", names=("第一阶段" * 30,))
    run.phase(0)
    run.trial("0.trunk", "trunk", None, "the phase's recipe")
    run.constant("0.trunk", 3)
    run.journal.close()
    found = browse(write_page(run.directory), CLIPPED, tmp_path, width=400)
    assert (found["found"], found["wide"]) == ([], 400)


def test_the_still_picture_needs_no_script(tmp_path: Path) -> None:
    run = iterated(tmp_path)
    page = write_page(run.directory).read_text(encoding="utf-8")
    still = page[: page.index('<script type="application/json"')]
    assert len(re.findall(r'<path class="look" data-l="\d+" d="M\d+ \d+L', still)) == 2  # of the loss, and of the gap
    assert 'class="end mark"' in still
    assert '<fieldset class="axes" hidden>' in still  # what does nothing without a script is not shown without one
    assert len(page) < 110_000
