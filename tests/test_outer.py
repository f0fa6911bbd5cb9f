"""Steps that two processes take alone, and outer steps together: what they come to, send, save, and notice."""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import many_worker
import numpy as np
import outer_worker
import pytest
import torch
from outer_worker import CASE, IN_FOUR_BITS, MEAN, RATE, STREAMED, THREE, WINDOWS, recipe_of
from runs import execute, plan
from safetensors.torch import load_file
from torch import nn
from two_processes import both, both_succeed, serving, written

from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.many.fragments import fragments_of
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
    fragments = [dict(zip(*map(fragment_of, both), strict=True)) for fragment_of in fragments_by_hand(outer, both[0])]
    base = {p: p.detach().clone() for pairs in fragments for p in pairs}
    speed = {p: torch.zeros_like(p) for p in base}
    coming: dict[torch.Tensor, torch.Tensor] = {}
    losses, step = [], 0
    for window in WINDOWS:
        total = labels = 0.0
        for i in range(window):
            for learner in both:
                progress = learner.advance([RATE])
                total, labels = total + progress.loss * progress.tokens, labels + progress.tokens
            step += 1
            with torch.no_grad():
                for number, pairs in enumerate(fragments, start=1):
                    due = outer.every * number // outer.fragments
                    stepped = False
                    for p, q in pairs.items():
                        if (step - due) % outer.every == 0:
                            coming[p] = (sent(base[p] - p, outer.bits) + sent(base[p] - q, outer.bits)) / 2
                        if p in coming and (step - due - outer.overlap) % outer.every == 0:
                            change = coming.pop(p)
                            speed[p] = outer.momentum * speed[p] + change
                            ahead = change + outer.momentum * speed[p] if outer.optimizer == "nesterov" else speed[p]
                            base[p] = base[p] - outer.learning_rate * ahead
                            kept = outer.mixing if outer.overlap else 0.0
                            for x in (p, q):
                                x.copy_(kept * x + (1 - kept) * base[p])
                            stepped = not outer.overlap
                        if i + 1 == window and not stepped:
                            mean = (p + q) / 2
                            p.copy_(mean)
                            q.copy_(mean)
        losses.append(total / labels)
    return losses, outer_worker.weights_of(both[0])


def fragments_by_hand(outer: Outer, learner: TorchLearner) -> list[Callable[[TorchLearner], list[torch.Tensor]]]:
    """For each fragment what takes its weights from a learner."""
    names = {id(p): name for name, p in learner._model.named_parameters()}
    parts = [[names[id(p)] for p in fragment.trained] for fragment in fragments_of(outer, learner._model)]

    def of(part: list[str]) -> Callable[[TorchLearner], list[torch.Tensor]]:
        return lambda other: [dict(other._model.named_parameters())[name] for name in part]

    return [of(part) for part in parts]


def sent(change: torch.Tensor, bits: int) -> torch.Tensor:
    """What the others learn of it: of 4 bits, for each number one of 0 and the largest by 1, 2, 4, ..., 64."""
    if bits == 32:
        return change
    sizes = (change.abs() / change.abs().max().clamp_min(1e-30)).double()
    powers = sizes.log2().round().clamp_min(-7)
    return torch.where(powers < -6, 0.0, 2.0**powers).float() * change.abs().max() * change.sign()


@pytest.mark.parametrize(
    ("name", "outer"), [("mean", MEAN), ("three", THREE), ("in four bits", IN_FOUR_BITS), ("streamed", STREAMED)]
)
def test_what_processes_come_to_is_what_the_algorithm_says(
    name: str, outer: Outer, folder: Path, seen: Mapping[str, Any]
) -> None:
    """With every 1, a rate of 1 and no momentum that is the mean of their updates. In four bits, numbers that lie next
    to where they are rounded up may be rounded down, by the order of sums.
    """
    losses, weights = by_hand(folder, outer, **({"optimizer": "adamw"} if outer is MEAN else {}))
    few = outer.bits == 4
    np.testing.assert_allclose(seen[name]["losses"], losses, rtol=1e-4 if few else 1e-5)
    for key, weight in weights.items():
        close = torch.isclose(seen[name]["weights"][key], weight, rtol=1e-4, atol=1e-6)
        assert close.float().mean() >= (0.97 if few else 1.0), key


def test_nothing_is_sent_but_where_they_meet(seen: Mapping[str, Any]) -> None:
    """Two flags and the weights: after 3 and 6 steps for the outer ones, after 4, 7 and 8 since windows end there."""
    ends = [("all_reduce", step) for step in (3, 3, 4, 4, 4, 6, 6, 7, 7, 7, 8, 8, 8)]  # at an end, the losses too
    assert seen["three"]["sent"] == ends


@pytest.mark.parametrize(
    ("name", "kinds"), [("three", {"base", "momentum"}), ("streamed", {"base", "momentum", "change"})]
)
def test_going_on_from_a_checkpoint_is_going_on(name: str, kinds: set[str], folder: Path) -> None:
    """Saved one step after an outer one, and where half of the changes have come and no step was made of them: the
    base, its momentum, what each optimizer knows, and the changes.
    """
    for file in ("state.safetensors", "process-1.safetensors"):
        saved, one, other = (load_file(folder / name / when / file) for when in ("saved", "at once", "resumed"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), file
        assert any(not torch.equal(saved[name], one[name]) for name in one.keys() & saved.keys())
    state, second = (load_file(folder / name / "saved" / f"{part}.safetensors") for part in ("state", "process-1"))
    assert {name.split(".")[1] for name in state if name.startswith("outer.")} == kinds
    assert any(not torch.equal(state[name], second[name]) for name in second), "each has its own"


def test_one_process_goes_on_with_what_two_have_saved(folder: Path) -> None:
    learner, ready = opened(folder)
    learner.load(folder / "three" / "saved", recipe_of(ready, THREE), 0)
    before = outer_worker.weights_of(learner)
    assert learner.advance([RATE] * 4).finite
    assert all(not torch.equal(before[name], p) for name, p in outer_worker.weights_of(learner).items())


def test_what_is_not_finite_in_one_process_and_who_is_asked_to_stop_is_noticed_by_all(seen: Mapping[str, Any]) -> None:
    assert seen["spoilt"] == (False, False), "progress, and the first one's weights"
    stopped, seconds, steps = seen["stopped"]
    assert stopped
    assert seconds < 4.0, "without waiting for an outer step"
    assert 1 <= steps < 80


def test_a_window_that_breaks_off_leaves_nothing_on_its_way(seen: Mapping[str, Any]) -> None:
    """The second process, which is the faster one, had sent more than the first."""
    assert "memory runs out with a single example" in seen["failed"]
    assert seen["streamed again"]["losses"] == seen["streamed"]["losses"]


def test_each_weight_is_of_one_fragment_and_neighbouring_blocks_are_not() -> None:
    layers = [nn.Linear(4, 4) for _ in range(5)]
    blocks = nn.ModuleList(nn.Sequential(layer, nn.ReLU()) for layer in layers)
    first = nn.Linear(50, 4)
    model = nn.ModuleDict({"first": first, "blocks": blocks, "last": nn.Linear(4, 3)})
    parts = [{id(p) for p in fragment.trained} for fragment in fragments_of(Outer(every=30, fragments=2), model)]
    assert sorted(i for part in parts for i in part) == sorted(map(id, model.parameters()))
    assert [int(id(layer.weight) in parts[1]) for layer in layers] == [0, 1, 0, 1, 0]
    assert id(first.weight) in parts[1], "where there was less"
    assert len(fragments_of(Outer(every=30, fragments=30), nn.Linear(2, 2))) == 2, "as many as have something"


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
        ({"every": 8, "overlap": "8 steps"}, "recipe.outer.overlap is 8; allowed: at least 0 and at most 7"),
        ({"every": 8, "fragments": 9}, "recipe.outer.fragments is 9; allowed: at least 1 and at most 8"),
        ({"bits": 8}, "recipe.outer.bits is 8; allowed: 32, 4"),
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
    outer = {"every": "7 steps", "fragments": 2, "overlap": 2}
    recipe = {"dropout": 0.1, "batch_size": 8, "outer": outer}
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
