"""Why what ships is not what scored best on validation."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path

from rich.console import Console
from runs import OVERFITS, execute, plan

from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock, SimulatedWorkshop, World
from multistep.interface.running import read_result
from multistep.report.page import write_page
from multistep.report.table import print_run


def test_a_better_score_that_was_not_chosen_is_explained_with_the_numbers_that_decided(tmp_path: Path) -> None:
    """A run whose leader has another's score above its own: in the result, `show`, the page and Python alike."""
    world = World(between_blocks=0.05, between_seeds=0.002)
    workshop = SimulatedWorkshop(OVERFITS, clock := FakeClock(), None, world)
    wanted = plan(budget="10m", recipe={"learning_rate": 0.02}, seed=5)
    history = execute(wanted, tmp_path / "run", OVERFITS, clock=clock, workshop=workshop)
    directory = RunDirectory(tmp_path / "run")
    found = json.loads(directory.result.read_text(encoding="utf-8"))
    other = found["leader"]["passed_over"]
    assert history.leader is not None
    assert other["trial"] != history.leader.trial
    assert other["score"] < found["validation"]["score"], "a loss"
    assert other["expected"] < 0 < other["standard_errors"]
    assert found["leader"]["gains"][other["trial"]] < found["leader"]["gains"][history.leader.trial]
    for words in ("scored better", "standard errors", "was forecast of it and", "all together", "worse"):
        assert words in other["sentence"]
    out = io.StringIO()
    console = Console(file=out, width=2000, force_terminal=False)
    print_run(directory, console)
    assert out.getvalue().count(other["sentence"]) == 1
    assert re.search(rf"^{re.escape(history.leader.trial)} .*chosen", out.getvalue(), re.M)
    assert html.unescape(write_page(directory).read_text(encoding="utf-8")).count(other["sentence"]) == 1
    assert other["sentence"] in repr(read_result(directory))
