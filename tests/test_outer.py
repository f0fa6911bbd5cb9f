"""Steps that two processes take alone, and outer steps together: what they come to, send, save, and notice."""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import many_worker
import numpy as np
import outer_worker
import pytest
import torch
from outer_worker import CASE, MEAN, RATE, THREE, WINDOWS, recipe_of
from runs import execute, plan
from safetensors.torch import load_file
from two_processes import both, both_succeed, serving, written

from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.many.sharing import Share
from multistep.core.values.recipe import Outer, Recipe
from multistep.engine.planfile import plan_from, to_yaml
from multistep.errors import PlanError


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with serving():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes come to in all scenes, in one start of them."""
    folder = tmp_path_factory.mktemp("outer")
    (folder / CASE).mkdir()
    data = many_worker.KNOWN[CASE].prepare(folder / CASE)
    (folder / CASE / "data").write_bytes(pickle.dumps(data))
    both_succeed(folder, folder, "of_module", "outer_worker", "scenes", folder, folder / CASE)
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = pickle.loads((folder / "seen").read_bytes())
    return found


def opened(folder: Path) -> tuple[TorchLearner, Recipe]:
    case = folder / CASE
    plan, workshop = many_worker.opened(many_worker.KNOWN[CASE], case, pickle.loads((case / "data").read_bytes()))
    learner, ready = workshop.open(plan, 0, lambda: False)
    assert isinstance(learner, TorchLearner)
    return learner, ready.recipe


def by_hand(folder: Path, outer: Outer, **changes: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The algorithm as its paper has it, with two learners that know nothing of it, each on its share of a batch."""
    both = []
    for share in (Share(0, 3), Share(3, 4)):
        learner, ready = opened(folder)
        learner.initial(recipe_of(ready, None, **changes), 0)
        learner._share = share
        both.append(learner)
    trained = [learner._trained for learner in both]
    base = [p.detach().clone() for p in trained[0]]
    speed = [torch.zeros_like(p) for p in base]
    losses, step = [], 0
    for window in WINDOWS:
        total = labels = 0.0
        for i in range(window):
            for learner in both:
                progress = learner.advance([RATE])
                total, labels = total + progress.loss * progress.tokens, labels + progress.tokens
            step += 1
            if step % outer.every and i + 1 < window:
                continue
            with torch.no_grad():
                for j, (p, q) in enumerate(zip(*trained, strict=True)):
                    mean = (p + q) / 2
                    if step % outer.every == 0:
                        change = base[j] - mean
                        speed[j] = outer.momentum * speed[j] + change
                        ahead = change + outer.momentum * speed[j] if outer.optimizer == "nesterov" else speed[j]
                        base[j] = mean = base[j] - outer.learning_rate * ahead
                    p.copy_(mean)
                    q.copy_(mean)
        losses.append(total / labels)
    return losses, outer_worker.weights_of(both[0])


@pytest.mark.parametrize(("name", "outer"), [("mean", MEAN), ("three", THREE)])
def test_what_processes_come_to_is_what_the_algorithm_says(
    name: str, outer: Outer, folder: Path, seen: Mapping[str, Any]
) -> None:
    """With every 1, a rate of 1 and no momentum that is the mean of their updates."""
    losses, weights = by_hand(folder, outer, **({"optimizer": "adamw"} if outer is MEAN else {}))
    np.testing.assert_allclose(seen[name]["losses"], losses, rtol=1e-5)
    for key, weight in weights.items():
        torch.testing.assert_close(seen[name]["weights"][key], weight, rtol=1e-4, atol=1e-6)


def test_nothing_is_sent_but_where_they_meet(seen: Mapping[str, Any]) -> None:
    """Two flags and the weights: after 3 and 6 steps for the outer ones, after 4, 7 and 8 since windows end there."""
    ends = [("all_reduce", step) for step in (3, 3, 4, 4, 4, 6, 6, 7, 7, 7, 8, 8, 8)]  # at an end, the losses too
    assert seen["three"]["sent"] == ends


def test_going_on_from_a_checkpoint_is_going_on(folder: Path) -> None:
    """Saved one step after an outer one: the base, its momentum, and what each optimizer knows."""
    for file in ("state.safetensors", "process-1.safetensors"):
        saved, one, other = (load_file(folder / name / file) for name in ("saved", "at once", "resumed"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), file
        assert any(not torch.equal(saved[name], one[name]) for name in saved)
    state, second = (load_file(folder / "saved" / f"{name}.safetensors") for name in ("state", "process-1"))
    assert {name.split(".")[1] for name in state if name.startswith("outer.")} == {"base", "momentum"}
    assert any(not torch.equal(state[name], second[name]) for name in second), "each has its own"


def test_one_process_goes_on_with_what_two_have_saved(folder: Path) -> None:
    learner, ready = opened(folder)
    learner.load(folder / "saved", recipe_of(ready, THREE), 0)
    before = outer_worker.weights_of(learner)
    assert learner.advance([RATE] * 4).finite
    assert all(not torch.equal(before[name], p) for name, p in outer_worker.weights_of(learner).items())


def test_what_is_not_finite_in_one_process_and_who_is_asked_to_stop_is_noticed_by_all(seen: Mapping[str, Any]) -> None:
    assert seen["spoilt"] == (False, False), "progress, and the first one's weights"
    stopped, seconds, steps = seen["stopped"]
    assert stopped
    assert seconds < 4.0, "without waiting for an outer step"
    assert 1 <= steps < 80


def test_windows_end_where_processes_meet_anyway_and_leave_curves_their_looks(tmp_path: Path) -> None:
    for every, whole in ((20, True), (400, False)):
        recipe = {"learning_rate": 0.02, "outer": {"every": every}}
        history = execute(plan(budget="1500 steps", recipe=recipe, moves=[]), tmp_path / f"run{every}")
        ends = [done.step for done in history.phase.trunk.done]  # type: ignore[union-attr]
        assert len(ends) >= 10
        assert all(end % every == 0 for end in ends[:-1]) == whole


def test_plans_say_it_in_steps() -> None:
    plain = {"task": "text-generation", "data": "a.txt"}
    asked = {"every": "50 steps", "optimizer": "sgd", "momentum": 0.5}
    read = plan_from({**plain, "recipe": {"outer": asked}})
    assert read.recipe["outer"] == Outer(every=50, optimizer="sgd", learning_rate=0.7, momentum=0.5)
    assert "every: 50" in to_yaml(read)
    for outer, said in (
        ({"every": "3 epochs"}, r"recipe.outer.every is '3 epochs'; allowed: steps, such as '100 steps'"),
        ({"every": 0}, "recipe.outer.every is 0; allowed: at least 1"),
        ({"evry": 5}, "unknown key 'evry' in recipe.outer; .* Did you mean 'every'?"),
        ({"momentum": 1.0}, "recipe.outer.momentum is 1; allowed: at least 0 and less than 1"),
    ):
        with pytest.raises(PlanError, match=said):
            plan_from({**plain, "recipe": {"outer": outer}})
    for beside, said in (
        ({"optimizer": "schedule-free"}, "recipe.outer: schedule-free steps from an average of its own"),
        ({"sharding": "full"}, "recipe.outer: .* need all of the model, and recipe.sharding is full"),
    ):
        with pytest.raises(PlanError, match=said):
            plan_from({**plain, "recipe": {"outer": {}, **beside}})


@pytest.mark.slow
def test_a_run_that_was_killed_ends_in_the_same_bits(tmp_path: Path) -> None:
    recipe = {"dropout": 0.1, "batch_size": 8, "outer": {"every": "7 steps"}}
    written(tmp_path, "60 steps", recipe, layers=1, width=32)
    hashes = []
    for out, dies in (("undisturbed", False), ("killed", True)):
        words = ("train", "plan.yaml", "--out", out, "--json")
        if dies:
            left, killed = both(tmp_path, tmp_path, "killed_in", "advance", 1, 2, *words)
            assert (left.code, killed.code) == (1, -signal.SIGKILL)
            assert "multistep: process 1 of 2 no longer answers" in left.said
            assert list((tmp_path / out / "checkpoints").glob("*/process-1.safetensors"))
        ends = both(tmp_path, tmp_path, "command", *words)
        assert [end.code for end in ends] == [0, 0], ends[0].said + ends[1].said
        result = json.loads((tmp_path / out / "result.json").read_text(encoding="utf-8"))
        hashes.append(result["weights_sha256"])
    assert hashes[0] == hashes[1]
