"""Spikes: rolled back, passed over for good, and gone on from at a lower rate."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from runs import POWER, execute, plan

from multistep.core.evidence.curves import Curve
from multistep.core.values.events import Entry
from multistep.core.values.trial import Progress
from multistep.engine.learner import Readiness
from multistep.engine.simulate import FakeClock, SimulatedWorkshop

SPIKE = Curve("divergence", floor=1.5, drop=2.0, pace=200.0, turn=3000.0, rise=np.inf)
RATE = {"learning_rate": 0.02}


def test_a_spike_is_passed_over_at_a_lower_rate(tmp_path: Path) -> None:
    entries: list[Entry] = []
    recipe = {**RATE, "cooldown_fraction": 0.1}
    history = execute(plan(budget="5m", recipe=recipe, moves=[]), tmp_path / "run", SPIKE, on_entry=entries.append)
    first, second = history.phase.of_kind("trunk")[:2]
    start = next(c for c in first.checkpoints if c.id == second.trial.start)
    assert second.trial.skip_examples == (first.step - start.step) * 12
    assert "passes over the data that it diverged on" in second.reason
    assert len(history.phase.of_kind("trunk")) == 3, "two retries, no more"


class BadData(SimulatedWorkshop):
    """Examples that make every window which reads them diverge. `read` are the stretches that were."""

    def __init__(self, bad: Sequence[tuple[int, int]]) -> None:
        self.clock = FakeClock()
        super().__init__(POWER, self.clock)
        self.bad, self.read = bad, 0

    def open(self, *args: Any) -> Any:
        opened: tuple[Any, Readiness] = super().open(*args)
        learner, ready = opened
        save, load, initial, advance = learner.save, learner.load, learner.initial, learner.advance
        position = 0

        def saving(folder: Path) -> None:
            save(folder)
            (folder / "position.json").write_text(json.dumps(position))

        def loading(folder: Path, *given: Any, skip_examples: int = 0, **more: Any) -> None:
            nonlocal position
            load(folder, *given, **more)
            position = json.loads((folder / "position.json").read_text()) + skip_examples

        def beginning(*given: Any, skip_examples: int = 0) -> None:
            nonlocal position
            initial(*given)
            position = skip_examples

        def advancing(rates: Sequence[float], *, resolution: int | None = None) -> Progress:
            nonlocal position
            start, position = position, position + 12 * len(rates)
            met = any(start < end and position > begin for begin, end in self.bad)
            self.read += met
            done: Progress = advance(rates, resolution=resolution)
            return replace(done, loss=math.nan) if met else done

        learner.save, learner.load, learner.initial, learner.advance = saving, loading, beginning, advancing
        return learner, ready


def test_what_was_passed_over_once_is_not_read_again(tmp_path: Path) -> None:
    workshop = BadData([(36_000, 36_010), (37_000, 37_010)])
    wanted = plan(budget="10m", recipe=RATE, moves=[])
    history = execute(wanted, tmp_path / "run", POWER, clock=workshop.clock, workshop=workshop)
    assert workshop.read == len(history.phase.of_kind("trunk")) - 1, "each once, by the trunk or by a retry"
    assert history.finished is not None
    assert history.finished.stopped == "budget"
    assert history.seconds > 580


def test_what_diverges_to_the_last_retry_is_cooled_down_past_it(tmp_path: Path) -> None:
    workshop = BadData([(at, at + 10) for at in (36_000, 42_000, 48_000)])
    wanted = plan(budget="10m", recipe=RATE, moves=[])
    history = execute(wanted, tmp_path / "run", POWER, clock=workshop.clock, workshop=workshop)
    assert (workshop.read, len(history.phase.of_kind("trunk"))) == (3, 3)
    assert history.leader is not None, "its cooldown does not read what made the trunk diverge"
    assert history.finished is not None
    assert history.finished.stopped == "diverged"
