"""What a budget would buy on many devices: the arithmetic against runs of it, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import plan
from typer.testing import CliRunner

from multistep.cli import app
from multistep.core.values.recipe import Outer
from multistep.engine.costs import Cost, network_of, remember
from multistep.engine.scaling import parse_bandwidth, parse_count, scaled, useful_share
from multistep.errors import PlanError


@pytest.mark.parametrize(
    ("between", "save", "restart"), [(3600.0, 20.0, 30.0), (180.0, 30.0, 10.0), (60.0, 20.0, 30.0)]
)
def test_what_failures_leave_is_what_drawn_failures_leave(between: float, save: float, restart: float) -> None:
    """Also where one comes as often as a checkpoint: a stretch is trained again until it and its save are through."""
    share, every = useful_share(between, save, restart)
    assert every is not None
    draws, wall, stretches = np.random.default_rng(0), 0.0, 20_000
    for _ in range(stretches):
        needed = every + save
        while (until := draws.exponential(between)) < needed:
            wall += until
            needed = restart + every + save
        wall += needed
    assert share == pytest.approx(stretches * every / wall, rel=0.06)
    assert useful_share(math.inf, save, restart) == (1.0, None)


def test_one_model_gains_until_summing_costs_more_and_lanes_always_try_more() -> None:
    wanted = plan(budget="10h", recipe={"batch_size": 256})
    known = {"step_seconds": 2.0, "parameters": 135_000_000, "save_bytes_per_second": 1e9}
    found = scaled(wanted, 1000, between_failures=50 * 3600.0, bits_per_second=100e9, **known)  # type: ignore[arg-type]
    one, lanes = found.one_model, found.lanes
    assert [row.devices for row in one] == [1, 4, 16, 64, 256, 1000]
    # 135 million float32 gradients, each sent almost twice, and 126 hops.
    assert one[3].step_seconds == pytest.approx(2.0 / 64 + 8 * 4 * 135e6 * 2 * 63 / 64 / 100e9 + 126 * 20e-6)
    assert one[-1].failures == pytest.approx((36_000 - 1) / 180, rel=0.01)
    assert one[3].steps > one[-1].steps, "beyond the batch there is nothing to divide, and more to wait for"
    assert [row.steps / lanes[0].steps for row in lanes] == pytest.approx([1, 4, 16, 64, 256, 1000])
    assert any("256 parts" in note for note in found.notes)
    assert {given.source.split()[0].rstrip(",") for given in found.given} == {"given", "measured", "assumed"}


def test_outer_steps_are_waited_for_as_often_as_they_are_made_and_hide_behind_steps() -> None:
    known: dict[str, Any] = {"step_seconds": 4.0, "parameters": 1_000_000, "save_bytes_per_second": 1e9}

    def waited(devices: int = 4, **outer: Any) -> float:
        wanted = plan(budget="10h", recipe={"outer": Outer(**outer)} if outer else {})
        found = scaled(wanted, devices, between_failures=math.inf, bits_per_second=1e7, **known)
        assert any("outer steps every" in note for note in found.notes) == bool(outer)
        return found.one_model[-1].step_seconds - 4.0 / devices

    sums, hops = 8 * 4 * 1e6 * 2 * 3 / 4 / 1e7, 6 * 20e-6
    assert waited() == pytest.approx(sums + hops)
    assert waited(every=100) == pytest.approx((sums + hops) / 100)
    assert waited(every=100, fragments=4, overlap=1) == pytest.approx(4 * (sums / 4 + hops - 1.0) / 100)
    assert waited(every=100, fragments=4, overlap=2) == 0.0
    assert waited(every=100, bits=4) == pytest.approx((4 * 1e6 * 3 / 1e7 + hops) / 100)


def test_costs_are_those_of_this_machine_and_without_any_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wanted = plan(budget="1h")
    with pytest.raises(PlanError, match=r"no run of this plan's model was measured .* --step-seconds 0.2 --parameters"):
        scaled(wanted, 8, between_failures=math.inf, bits_per_second=1e9)
    remember(Cost(wanted.task, 1_000_000, "a core", 1e4, 4.0, 60.0, 0.9, network_of(wanted)))
    found = scaled(wanted, 8, between_failures=math.inf, bits_per_second=1e9)
    assert found.one_model[0].step_seconds == 0.25
    assert found.given[0].source == "measured here, on a core"
    with pytest.raises(PlanError, match=r"budget is 500 steps; what more devices buy is told for a budget in time"):
        scaled(plan(budget="500 steps"), 8, between_failures=math.inf, bits_per_second=1e9)
    assert parse_bandwidth("12.5GB/s") == parse_bandwidth("100 Gbit") == 1e11
    assert parse_count("1.5B") == 1_500_000_000
    for wrong in ("fast", "0Gbit", "100"):
        with pytest.raises(PlanError, match=r"--bandwidth is .* allowed: 100Gbit"):
            parse_bandwidth(wrong)


def test_simulate_tells_it_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("task: text-generation\ndata: simulated.txt\nbudget: 10h\n")
    words = ["simulate", str(path), "--devices", "64", "--mean-time-to-failure", "50h", "--step-seconds", "1"]
    told = json.loads(CliRunner().invoke(app, [*words, "--parameters", "1M", "--json"]).stdout)
    assert [row["devices"] for row in told["lanes"]] == [1, 4, 16, 64]
    shown = CliRunner().invoke(app, [*words, "--parameters", "1M"]).stdout
    assert "Reckoned, not run." in shown
    assert "assumed" in shown
