"""Every task by name in two lanes: the trials, the verdicts and the bits of trials one after the other."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import cases_chat as chat
import cases_images as images
import cases_language as language
import cases_speech as speech
import pytest
import torch
from lane_openers import AnyTask
from test_preference import started

from multistep.core.evidence.stability import Stability
from multistep.core.values.events import StabilityRead, WindowDone
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.engine import trials
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import read_entries
from multistep.engine.lanes.hands import HandWorkshop
from multistep.engine.lanes.processes import Place, ProcessHands
from multistep.engine.loop import Run
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.tasks import workshop_for

FINE = {"batch_size": 16, "learning_rate": 3e-3, "warmup_steps": 0}


def _language(folder: Path) -> dict[str, Any]:
    return {"data": language.write_classes(folder), "budget": "120 steps", **language.SETTINGS}


CASES: Mapping[str, Any] = {
    "text-classification": _language,
    "fill-mask": _language,
    "image-classification": lambda folder: {"data": images.write(folder), "budget": "70 steps", **images.SETTINGS},
    "speech-recognition": lambda folder: {"data": speech.write(folder), "budget": "70 steps", **speech.SETTINGS},
    "text-generation": lambda folder: {  # conversations, with matrices beside pretrained weights
        "data": chat.write(folder),
        "model": chat.small_llama(folder / "begin"),
        "metric": "loss",
        "budget": "40 steps",
        "recipe": {**FINE, "adapter": "lora", "adapter_rank": 2},
    },
    "preference": lambda folder: {**started(folder), "budget": "40 steps", "recipe": FINE},
}


class Ready(ProcessHands):
    """The second lane is there before anything is trained: the runs are shorter than it takes to read their data."""

    def open(self, lane: int, plan: Plan, phase: int) -> None:
        super().open(lane, plan, phase)
        if lane:
            self._early.append(self.wait(lane))


@pytest.fixture(scope="module")
def hands() -> Iterator[ProcessHands]:
    here = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MULTISTEP_DEVICE": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", here)
        places = [Place("cpu", one)] * 2
        with closing(Ready(places, pickle.dumps(AnyTask()), _begun, lambda: False)) as made:
            yield made


def _begun() -> dict[str, Any]:
    return {"machine": {}, "moved": {}, "speeds": {}, "may_measure": False}


def _stable_at_once(plan: Plan, history: History, name: str) -> StabilityRead | None:
    """Ten looks would take most of the time, and say the same in any lane."""
    trial = history.trial(name)
    if trial.trial.kind != "trunk" or len(trial.curve) < 2:
        return None
    return StabilityRead(name, trial.step, Stability.STABLE, 0.0, 0.0, 0.1, "for the test")


@pytest.mark.slow
@pytest.mark.parametrize("task", CASES)
def test_a_task_comes_to_the_same_in_two_lanes(
    tmp_path: Path, task: str, hands: ProcessHands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTISTEP_DEVICE", "cpu")
    monkeypatch.setattr(trials, "read_stability", _stable_at_once)
    monkeypatch.setattr("multistep.core.choice.room.LEAST_STEPS", 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plan = plan_from({"task": task, "ship": "network", "moves": ["decay-up"], **CASES[task](tmp_path)})

    def run(lanes: ProcessHands | None) -> tuple[History, str]:
        directory = RunDirectory(tmp_path / ("many" if lanes else "one"))
        directory.create()
        workshop = HandWorkshop(lanes) if lanes else workshop_for(plan)
        execution = Run(plan, directory, workshop, BudgetClock(), reuse=False, hands=lanes)
        for _ in execution.entries():
            pass
        return execution.history, str(json.loads(directory.result.read_text())["weights_sha256"])

    try:
        (one, bits), (many, same) = run(None), run(hands)
    finally:
        torch.set_num_threads(threads)
    assert len(one.verdicts) >= 3, "the plain run, the control of a round, a move"
    assert [(v.trial, v.expected, v.leader) for v in many.verdicts] == [
        (v.trial, v.expected, v.leader) for v in one.verdicts
    ]
    assert same == bits
    worked = {e.lane for e in read_entries(tmp_path / "many" / "journal.jsonl") if isinstance(e.event, WindowDone)}
    assert worked == {1, 2}
