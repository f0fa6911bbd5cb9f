"""How steps are computed where other ways lead to the same: pieces that fit into memory, compiled blocks."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from corpora import english
from runs import Killed
from safetensors.torch import load_file
from torch import Tensor, nn

from multistep import api
from multistep.backends.torch.compiling import regions
from multistep.backends.torch.fitting import Questions
from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.recomputing import recompute, require_recompute
from multistep.backends.torch.rehearsal import Rehearsal, pieces_that_fit
from multistep.core.values.events import Entry, Fitted, WindowDone
from multistep.core.values.plan import ModelSpec, Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.units import Amount, Unit
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import read_entries
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock
from multistep.errors import PlanError, RunFailed
from multistep.interface.view import OnEntry
from multistep.tasks import workshop_for
from multistep.tasks.text.lean import LeanConfig, LeanGPT

STEPS = 20


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(english(1200), encoding="utf-8")
    return tmp_path / "text.txt"


def plan(text: Path, **recipe: Any) -> Plan:
    return plan_from(
        {
            "task": "text-generation",
            "data": str(text),
            "model": {"name": "nanochat", "layers": 2, "width": 32, "heads": 2, "context": 16},
            "recipe": {"batch_size": 8, "learning_rate": 0.01, "optimizer": "adamw", "dropout": 0.1, **recipe},
            "phases": [{"name": "only", "until": f"{STEPS} steps"}],
        }
    )


def execute(wanted: Plan, out: Path, clock: BudgetClock | None = None, on_entry: OnEntry | None = None) -> str:
    """Run or go on with a plan; the hash of the weights that it ends with."""
    result = api.run(wanted, RunDirectory(out), clock=clock or BudgetClock(FakeClock().now), on_entry=on_entry)
    return str(result.record["weights_sha256"])


def killed(wanted: Plan, out: Path, after: int) -> None:
    """Begin a run and kill it after so many windows."""
    windows = 0

    def watch(entry: Entry, _: object) -> None:
        nonlocal windows
        windows += isinstance(entry.event, WindowDone)
        if windows == after:
            raise Killed

    with pytest.raises(Killed):
        execute(wanted, out, on_entry=watch)


def fits(out: Path) -> list[Fitted]:
    return [e.event for e in read_entries(out / "journal.jsonl") if isinstance(e.event, Fitted)]


def losses(out: Path) -> list[float]:
    entries = read_entries(out / "journal.jsonl")
    return [e.event.progress.loss for e in entries if isinstance(e.event, WindowDone)]


def test_the_fewest_equal_pieces_that_fit_are_found_in_few_tries() -> None:
    for size in (1, 7, 12, 96, 1000):
        for room in range(size + 1):
            tried: list[int] = []

            def fit(examples: int, room: int = room, tried: list[int] = tried) -> bool:
                tried.append(examples)
                return examples <= room

            found = pieces_that_fit(size, fit)
            assert len(tried) <= math.ceil(math.log2(size)) + 3
            if room == 0:
                assert found is None
                continue
            assert found is not None
            assert found <= room
            best = math.ceil(size / room)  # pieces
            assert math.ceil(size / found) <= best + max(1, best // 4)


class Memory:
    """A machine on which passes hold at most `room` examples, as a GPU would say it; `asked` counts the searches."""

    def __init__(self, patch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self.asked, loss = room, 0, LeanGPT.loss

        def limited(model: LeanGPT, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            if len(tokens) > self.room and model.training:
                raise torch.OutOfMemoryError
            return loss(model, tokens, labels)

        def of(*_: object) -> Questions:
            self.asked += 1
            return Questions(size=True, compile=False)

        patch.setattr(LeanGPT, "loss", limited)
        patch.setattr(torch.accelerator, "empty_cache", lambda: None)
        patch.setattr(Questions, "of", of)


def test_what_fits_is_found_once_and_a_run_that_goes_on_repeats_it(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = execute(plan(text, micro_batch=3), tmp_path / "calm")
    assert fits(tmp_path / "calm") == [], "what the plan says needs no finding"
    memory = Memory(monkeypatch, 3)
    killed(plan(text), tmp_path / "torn", after=1)
    assert execute(plan(text), tmp_path / "torn") == calm, "measuring leaves weights and randomness alone"
    assert [(f.step, f.fit.micro_batch, f.fit.reason) for f in fits(tmp_path / "torn")] == [
        (0, 3, "passes of 3 of 8 examples fit")
    ]
    assert memory.asked == 1


def test_halving_during_a_run_is_journaled_and_repeated(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(monkeypatch, 4)

    def shrinks(entry: Entry, _: object) -> None:
        memory.room = 2 if isinstance(entry.event, WindowDone) else memory.room

    calm = execute(plan(text), tmp_path / "calm", on_entry=shrinks)
    found = fits(tmp_path / "calm")
    assert [(f.trial, f.step, f.fit.micro_batch) for f in found] == [("0.trunk", 0, 4), ("0.control", 20, 2)]
    assert found[1].fit.reason == "memory ran out, so that passes hold 2 examples"
    memory.room = 4
    killed(plan(text), tmp_path / "torn", after=2)
    assert fits(tmp_path / "torn") == found[:1]
    memory.room = 2  # from the control's only window on, which is taken again
    assert execute(plan(text), tmp_path / "torn") == calm


@pytest.mark.parametrize("name", ["nanochat", "llama"])
def test_activations_are_computed_again_only_where_nothing_fits_otherwise(
    name: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that holds a pass of two examples where no activations are kept, and none where they are."""
    size: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2, "context": 16}
    wanted = replace(plan(text, dropout=0.0), model=ModelSpec(name=name, **size))
    learner, ready = workshop_for(wanted).open(wanted, 0, lambda: False)
    assert isinstance(learner, TorchLearner)
    monkeypatch.setattr(Questions, "of", lambda *_: Questions(size=True, compile=False))
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    whole, _ = workshop_for(wanted).open(wanted, 0, lambda: False)
    tried: list[tuple[int, bool]] = []

    def fits(self: Rehearsal, size: int, *, reserve: int) -> bool:
        model: Any = learner._model
        recomputes = getattr(model, "recomputes", False) or getattr(model, "is_activation_checkpointing", False)
        tried.append((size, recomputes))
        return size <= 2 and recomputes

    monkeypatch.setattr(Rehearsal, "fits", fits)
    for each in (learner, whole):
        each.initial(ready.recipe, 0)
    todo = learner.prepare({}, None)
    assert todo is not None
    todo()
    fit = learner.fit
    assert fit is not None
    assert (fit.micro_batch, fit.recomputed) == (2, True)
    assert "computed again" in fit.reason
    assert tried[:4] == [(8, False), (4, False), (2, False), (1, False)]
    again, _ = workshop_for(wanted).open(wanted, 0, lambda: False)
    again.initial(ready.recipe, 0)
    follow = again.prepare({fit.of: fit}, None)
    assert follow is not None
    follow()
    monkeypatch.undo()
    rates = [0.01] * 5
    first = again.advance(rates)
    assert first == learner.advance(rates), "the same bits as where it was found"
    assert first.loss == pytest.approx(whole.advance(rates).loss, abs=1e-4)
    assert learner.evaluate("validation", sample=True)


@pytest.mark.filterwarnings("ignore")  # of the compiler itself
@pytest.mark.parametrize("how", ["nanochat", "llama", "llama, LoRA", "nanochat, compiled"])
def test_activations_that_are_computed_again_change_the_curve_by_rounding_alone(
    how: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout included, which must drop the same again."""
    name, _, more = how.partition(", ")
    size: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2, "context": 16}
    settings: dict[str, Any] = {"dropout": 0.1 if name == "nanochat" else 0.0}
    model = ModelSpec(name=name, **size)
    if more == "LoRA":
        execute(
            replace(plan(text, dropout=0.0), model=model, phases=(), budget=Amount(1, Unit.STEPS)), tmp_path / "base"
        )
        model, settings = ModelSpec(name=str(tmp_path / "base" / "model")), {"adapter": "lora", "adapter_rank": 2}
        settings |= {"dropout": 0.0}
    if more == "compiled":
        plain_compile = nn.Module.compile
        monkeypatch.setattr(
            nn.Module, "compile", lambda self, **how: plain_compile(self, backend="aot_eager", **how)
        )  # the whole way but for making code of it, which takes half a minute
        settings["compile"] = True
    curves, kept = [], []
    for checkpointing in (False, True):
        wanted = replace(plan(text, **settings, checkpointing=checkpointing), model=model)
        learner, ready = workshop_for(wanted).open(wanted, 0, lambda: False)
        assert isinstance(learner, TorchLearner)
        learner.initial(ready.recipe, 0)
        if todo := learner.prepare({}, None):
            todo()
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):  # type: ignore[misc]
            first = learner.advance([0.01]).loss
        curves.append([first, *(learner.advance([0.01]).loss for _ in range(4))])
        kept.append(sum(saved))
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    if more != "compiled":  # whose graph saves nothing that a hook would see
        assert kept[1] < 0.6 * kept[0], "tensors that are kept for the gradient"


@pytest.mark.parametrize("ratio", [0.8, 1.2])
def test_small_pieces_are_timed_beside_larger_ones_whose_activations_are_computed_again(
    ratio: float, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that holds a pass of two of eight examples, or of all where no activations are kept."""
    wanted = plan(text)
    model: Any = None

    def fits(self: Rehearsal, size: int, *, reserve: int) -> bool:
        return size <= (8 if model.recomputes else 2)

    def seconds(self: Rehearsal, steps: int) -> float:
        assert self._passes.micro_batch == (8 if model.recomputes else 2)
        return ratio if model.recomputes else 1.0

    monkeypatch.setattr(Rehearsal, "fits", fits)
    monkeypatch.setattr(Rehearsal, "seconds", seconds)
    for timed in (True, False):
        monkeypatch.setattr(Questions, "of", lambda *_, timed=timed: Questions(size=True, compile=False, timed=timed))
        learner, ready = workshop_for(wanted).open(wanted, 0, lambda: False)
        assert isinstance(learner, TorchLearner)
        learner.initial(ready.recipe, 0)
        model = learner._model
        todo = learner.prepare({}, 3600.0 if timed else None)
        assert todo is not None
        todo()
        fit, pays = learner.fit, timed and ratio < 1
        assert fit is not None
        assert (fit.micro_batch, fit.recomputed, model.recomputes) == (None if pays else 2, pays, pays)
        assert (f"takes {ratio:.0%} of the seconds of one in passes of 2" in fit.reason) == timed, fit.reason


def test_a_model_without_blocks_cannot_compute_them_again() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert not recompute(net)
    with pytest.raises(PlanError, match=r"recipe.checkpointing is on, but Sequential has no blocks .* leave it out"):
        require_recompute(net)


def test_memory_that_holds_no_example_is_told_with_what_to_do(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Memory(monkeypatch, 0)
    with pytest.raises(RunFailed, match="memory runs out with a single example; choose a smaller model"):
        execute(plan(text), tmp_path / "out")


def test_the_blocks_that_a_model_repeats_are_found() -> None:
    lean = LeanGPT(LeanConfig("nanochat", 16, 3, 8, 2, 8))
    assert regions(lean) == list(lean.blocks)
    assert regions(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []  # nothing that is worth a call of its own
    block = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    nested = nn.ModuleDict({"a": nn.Sequential(block, nn.Sequential(nn.ReLU())), "b": nn.Linear(2, 2)})
    assert regions(nested) == list(nested["a"].children())


@pytest.mark.filterwarnings("ignore")  # of the compiler itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU takes g++")
def test_compiled_blocks_train_like_others_and_leave_no_trace(text: Path, tmp_path: Path) -> None:
    plain, compiled = plan(text, dropout=0.0), plan(text, dropout=0.0, compile="on")
    execute(plain, tmp_path / "off")
    execute(compiled, tmp_path / "on", clock=BudgetClock())
    assert [f.fit.compiled for f in fits(tmp_path / "on")] == [True]
    losses = [
        [
            e.event.progress.loss
            for e in read_entries(tmp_path / out / "journal.jsonl")
            if isinstance(e.event, WindowDone)
        ]
        for out in ("off", "on")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    spent: dict[str, float] = {}
    for entry in read_entries(tmp_path / "on" / "journal.jsonl"):
        for account, seconds in entry.spent.items():
            spent[account] = spent.get(account, 0.0) + seconds
    assert spent["compile"] > spent["train"], "the seconds of compiling are no training"
    names = [load_file(tmp_path / out / "model" / "model.safetensors").keys() for out in ("off", "on")]
    assert names[0] == names[1]
    calm = execute(compiled, tmp_path / "calm")
    killed(compiled, tmp_path / "torn", after=1)
    assert execute(compiled, tmp_path / "torn") == calm


def test_a_model_that_cannot_be_compiled_is_told_with_what_to_do(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: nn.Module, **_: object) -> None:
        def call(*_: object) -> None:
            raise RuntimeError("InductorError: no working C++ compiler\n")

        self._compiled_call_impl = call

    monkeypatch.setattr(nn.Module, "compile", broken)
    with pytest.raises(PlanError, match=r"recipe.compile: this model cannot be compiled here \(RuntimeError: Inductor"):
        execute(plan(text, compile=True), tmp_path / "out")


def test_what_a_recipe_leaves_to_the_machine() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    auto, hour = Recipe(batch_size=8), 3600.0
    assert not Questions.of(auto, cpu, hour), "on a CPU all is by rule"
    assert Questions.of(auto, gpu, hour) == Questions(size=True, compile=True, timed=True)
    assert Questions.of(auto, gpu, 60.0) == Questions(True, False, True), "a minute does not pay for compiling"
    assert Questions.of(auto, gpu, None) == Questions(size=True, compile=False), "no clock decides where none may"
    assert not Questions.of(replace(auto, micro_batch=4, compile=False), gpu, hour)
    assert Questions.of(replace(auto, compile=True), cpu, None) == Questions(size=False, compile=True)


@pytest.mark.parametrize("ratio", [0.5, 0.99])
def test_blocks_stay_compiled_where_a_timed_step_is_faster(
    ratio: float, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []

    def mark(self: nn.Module, **how: object) -> None:
        assert how == {"dynamic": False}
        compiled.append(self)
        self._compiled_call_impl = self._call_impl

    def seconds(self: Rehearsal, steps: int) -> float:
        return 0.1 * (ratio if compiled else 1.0)

    monkeypatch.setattr(nn.Module, "compile", mark)
    monkeypatch.setattr(Rehearsal, "seconds", seconds)
    monkeypatch.setattr(Questions, "of", lambda *_: Questions(size=False, compile=True))
    killed(plan(text), tmp_path / "out", after=1)
    monkeypatch.setattr(Questions, "of", None)  # which a run that goes on has no need to ask
    execute(plan(text), tmp_path / "out")
    (found,) = fits(tmp_path / "out")
    assert (found.fit.compiled, found.fit.ratio) == (ratio < 0.97, ratio)
    assert found.fit.compile_seconds is not None
    assert len(compiled) == (4 if ratio < 0.97 else 2), "two blocks, and after the kill those of another model"
    assert ("are kept" in found.fit.reason) == (ratio < 0.97)
