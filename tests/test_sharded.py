"""One model of which each of two processes holds a part: the numbers are those of one process that holds all of it."""

from __future__ import annotations

import pickle
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import many_worker
import numpy as np
import pytest
import torch
from runs import Killed
from safetensors.torch import load_file
from two_processes import both, both_succeed, entries, losses, serving, written

from multistep import api
from multistep.backends.torch.many.shards import require_parted_steps
from multistep.backends.torch.saved import part_file
from multistep.core.values.events import CheckpointSaved, Entry, PhaseStarted
from multistep.core.values.history import History
from multistep.core.values.recipe import Recipe
from multistep.engine.checkpoints import whole
from multistep.engine.clock import BudgetClock
from multistep.engine.launched import Place
from multistep.engine.planfile import read_plan
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError
from multistep.tasks import reckoned

STEPS = 10
# Matrices by Muon, and passes in pieces, of which one process has fewer examples; biases and tables by AdamW in steps
# uphill; blocks that give views.
CASES: Mapping[str, Mapping[str, Any]] = {
    "text-generation": {"optimizer": "muon", "batch_size": 5, "micro_batch": 1},
    "text-classification": {"optimizer": "adamw", "sharpness": 0.05},
    "speech-recognition": {},
}


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with serving():
        yield


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes make of all cases, in one start of them."""
    folder = tmp_path_factory.mktemp("sharded")
    for name in CASES:
        (folder / name).mkdir()
        (folder / name / "data").write_bytes(pickle.dumps(many_worker.KNOWN[name].prepare(folder / name)))
    both_succeed(folder, folder, "sharded_cases", folder, CASES, STEPS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_with_a_part_each_do_what_one_does_with_all(name: str, sharded: Path) -> None:
    losses, table, weights = many_worker.alone(name, sharded, STEPS, **CASES[name])
    found, scores, placed = pickle.loads((sharded / name / "seen").read_bytes())
    np.testing.assert_allclose(found, losses, rtol=1e-5, atol=1e-5)
    for column in table:
        np.testing.assert_allclose(scores[column], table[column], rtol=1e-3, atol=1e-4)
    assert placed.keys() == weights.keys()
    for key, tensor in weights.items():  # of training, of the average and of the optimizer
        torch.testing.assert_close(placed[key], tensor, rtol=1e-3, atol=2e-5)


# Whole runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = {"dropout": 0.0, "batch_size": 5, "sharding": "full"}
    return written(tmp_path_factory.mktemp("plan"), "40 steps", recipe, layers=2, width=16)


@pytest.fixture(autouse=True)
def _here(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plan.parent)


@pytest.fixture(scope="module")
def alone(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(plan.parent)
        api.run(read_plan(plan), RunDirectory(folder), clock=BudgetClock())
    return folder


def training_words(run: Path) -> str:
    started = [e.event for e in entries(run) if isinstance(e.event, PhaseStarted)]
    return "; ".join(started[0].facts.understood.training)


@pytest.mark.slow
def test_who_dies_while_a_small_model_is_gathered_is_named(plan: Path, tmp_path: Path) -> None:
    words = ("train", str(plan), "--out", str(tmp_path / "run"), "--json")
    # Asked for its state by `save`, before any of it is sent.
    left, killed = both(tmp_path, plan.parent, "killed_in", "_inner_state", 1, 1, *words, limit=5.0)
    assert (left.code, killed.code) == (1, -signal.SIGKILL)
    assert "multistep: process 1 of 2 no longer answers" in left.said
    assert "Traceback" not in left.said


@pytest.mark.slow
def test_a_sharded_run_survives_kills_and_goes_on_by_one_process_and_by_two_again(
    plan: Path, alone: Path, tmp_path: Path
) -> None:
    """Two take the first window, and die while each saves its part of the second; one takes it again from what they
    saved before, and dies when it has saved it; two end the run from there.
    """
    run = tmp_path / "run"
    words = ("train", str(plan), "--out", str(run), "--json")
    left, killed = both(tmp_path, plan.parent, "parted", "killed_in", "save", 1, 2, *words, limit=5.0)
    assert (left.code, killed.code) == (1, -signal.SIGKILL)
    assert "multistep: process 1 of 2 no longer answers" in left.said
    assert "sharded over 2 processes" in training_words(run)
    (valid,) = (folder for folder in (run / "checkpoints").iterdir() if not folder.name.startswith("."))
    assert whole(valid)
    parts = {file.name: file.stat().st_size for file in valid.glob("*.safetensors")}
    assert parts.keys() == {part_file(0, 2), part_file(1, 2)}
    assert max(parts.values()) < 0.6 * sum(parts.values()), "each has half of the model"

    def die(entry: Entry, _: History) -> None:
        if isinstance(entry.event, CheckpointSaved):
            raise Killed

    with pytest.raises(Killed):
        api.run(read_plan(plan), RunDirectory(run), clock=BudgetClock(), on_entry=die)
    both_succeed(tmp_path, plan.parent, "parted", "command", *words)
    np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-5)
    one, two = (load_file(folder / "model/model.safetensors") for folder in (alone, run))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)
    assert "recipe.sharding is full, but one process trains, which holds all of it" in training_words(alone)


def test_who_runs_out_of_memory_in_a_pass_ends_both_and_is_named(plan: Path, tmp_path: Path) -> None:
    words = ("train", str(plan), "--out", str(tmp_path / "run"))
    ended = both(tmp_path, plan.parent, "without_memory", *words, sharded=True)
    assert [process.code for process in ended] == [1, 1]
    why = "memory runs out in a pass; set recipe.micro_batch to fewer examples"
    assert re.search(rf"multistep: process 1 of 2 \(.*\) failed: RunFailed: {why}", ended[0].said)
    assert ended[1].said == ""


# What is said of it ---------------------------------------------------------------------------------


def test_memory_decides_unless_the_recipe_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reckoned, "total_memory", lambda device: 2**30)
    cpu, auto = torch.device("cpu"), Recipe(optimizer="adamw")  # of which 20 bytes a parameter are kept
    four = Place(0, 4, 0, 4)
    fits, too_large = 6_000_000, 7_000_000  # 114 and 134 MB, of 256 for each of four, of which half are for activations
    assert not reckoned.is_sharded(fits, auto, cpu, four)
    assert reckoned.is_sharded(too_large, auto, cpu, four)
    assert reckoned.is_sharded(too_large, auto, torch.device("cuda"), four) is False, "each has a device of its own"
    assert not reckoned.is_sharded(too_large, replace(auto, sharding="none"), cpu, four)
    assert reckoned.is_sharded(fits, replace(auto, sharding="full"), cpu, four)
    said = reckoned.sharding_words(too_large, auto, cpu, four)
    assert said == "sharded over 4 processes, 33 MB each, since that is more than half of the 256 MB that one has"
    assert reckoned.sharding_words(fits, auto, cpu, four) == "each of 4 processes holds all of it"
    assert reckoned.sharding_words(fits, auto, cpu, None) == ""
    assert "several processes (torchrun) would shard it" in reckoned.sharding_words(30_000_000, auto, cpu, None)


def test_optimizers_that_need_the_whole_model_are_refused() -> None:
    with pytest.raises(PlanError, match=r"recipe.optimizer is soap, which needs .* choose one of muon, adamw, adam"):
        require_parted_steps(Recipe(optimizer="soap"))
