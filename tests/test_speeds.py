"""What is measured of a device, what a run keeps of it, and the sizes that follow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import english
from runs import Killed, dies_at

from multistep import api
from multistep.backends.torch.timing import seconds_per_step
from multistep.core.values.events import PhaseStarted, TrialStarted
from multistep.core.values.plan import DataSpec, ModelSpec, Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.units import parse_amount
from multistep.engine.costs import steady_speed
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.tasks import workshop_for
from multistep.tasks.begun import as_begun, speeds_then
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.language import preset as encoder_preset
from multistep.tasks.language.bearable import bearable
from multistep.tasks.language.examples import Examples, LabelledSplits
from multistep.tasks.pretrained import timed as tuning
from multistep.tasks.pretrained.timed import faster_in_bfloat16, tuning_speed
from multistep.tasks.reckoned import Costs, foreseen_steps
from multistep.tasks.speech import preset as speech_preset
from multistep.tasks.speeds import Work, operations
from multistep.tasks.text import timed
from multistep.tasks.text.preset import TextFacts, batch_size, choose_preset, default_dropout
from multistep.tasks.text.sizes import Bearable, all_parameters, best_shape, ladder, of_blocks, worth
from multistep.tasks.text.tuning import most_scored

WORK = Work("test", a_core=1e9, rates={"cuda": 1e12})


def timed_plan(budget: str) -> Plan:
    return Plan("text-generation", DataSpec("x"), budget=parse_amount(budget))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_more_data_never_make_for_a_smaller_model_and_little_keep_the_one_that_was_tuned() -> None:
    def encoder(tokens: int, rate: float, seconds: int) -> tuple[int, int]:
        shape = encoder_preset.choose_shape(
            ModelSpec(), timed_plan(f"{seconds}s"), tokens=tokens, vocabulary=16_000, rate=rate
        )
        return shape.layers, shape.width

    def speech(hours: float, rate: float, seconds: int) -> tuple[int, int]:
        facts = speech_preset.SpeechFacts(3600 * hours, int(720 * hours))
        shape = speech_preset.choose_shape(ModelSpec(), facts, timed_plan(f"{seconds}s"), rate=rate)
        return shape.layers, shape.width

    laptop, gpu = 5e10, 2.5e14
    assert [encoder(n, laptop, 300) for n in (30_000, 10**6, 10**9)] == [(1, 80), (1, 112), (1, 112)]
    assert encoder(10**6, gpu, 3600) == (4, 208), "what the text can fill"
    assert encoder(10**9, gpu, 3600) == (12, 496)
    assert [speech(h, laptop, 300) for h in (0.1, 3, 10_000)] == [(2, 96)] * 3
    assert [speech(h, laptop, 3600) for h in (0.1, 3)] == [(2, 96), (3, 192)]
    assert [speech(h, gpu, 3600) for h in (3, 300, 10_000)] == [(3, 192), (5, 512), (5, 512)]


def test_a_speed_is_measured_once_where_time_decides_and_stays_with_the_run() -> None:
    asked: list[tuple[float, float]] = []

    def measure(rate: float, seconds: float) -> float:
        asked.append((rate, seconds))
        return 4e9 if len(asked) < 3 else 4.2e9

    rule = 1e9 * torch.get_num_threads()
    assert operations(WORK, timed_plan("100s"), measure) == rule, "outside a run nothing is measured"
    with as_begun({}, {}, may_measure=True):
        assert operations(WORK, timed_plan("40 steps"), measure) == rule, "the clock decides nothing of such a plan"
        assert operations(WORK, timed_plan("100s"), measure) == 4e9
        assert [rate for rate, _ in asked] == [rule, 4e9], "until a size has its own speed"
        assert sum(seconds for _, seconds in asked) == pytest.approx(4 / 3)
        assert operations(WORK, timed_plan("100s"), measure) == 4e9
        assert len(asked) == 2
        assert speeds_then() == {"test": 4e9}
    with as_begun({}, {}, {"test": 7e8}, may_measure=True):
        assert operations(WORK, timed_plan("100s"), measure) == 7e8, "as where the run began"


def test_a_device_without_memory_for_what_it_usually_bears_is_measured_with_less() -> None:
    """Another program had most of a GPU, and the run ended before it began."""
    asked: list[float] = []

    def measure(rate: float, _: float) -> float:
        asked.append(rate)
        if rate > 5e8:
            raise torch.OutOfMemoryError
        return 4e8

    usual = 1e9 * torch.get_num_threads()
    with as_begun({}, {}, may_measure=True):
        assert operations(WORK, timed_plan("100s"), measure) == 4e8
        assert asked[:2] == [usual, usual / 8]
        assert speeds_then()["test"] == 4e8


def test_a_machine_that_others_keep_busy_is_used_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: now.__setitem__(0, count))
    with as_begun({}, {}, may_measure=True):
        assert operations(WORK, timed_plan("100s"), lambda *_: 5e8 if now[0] == 1 else 1e8) == 5e8
        assert now == [1]
        known = dict(speeds_then())
    assert now == [4], "for the run alone"
    with as_begun({}, {}, known):
        assert now == [1], "a resumed run goes on with as many, or its sums would round differently"
    assert now == [4]
    with as_begun({}, {}, may_measure=True):
        assert operations(replace(WORK, name="fair"), timed_plan("100s"), lambda *_: 1e8) == 1e8
        assert now == [4], "one thread is no faster"


def test_large_models_are_tuned_in_bfloat16_where_a_cpu_is_faster_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {"auto": 5e10, "bfloat16": 9e10}
    known = {"avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    monkeypatch.setattr(tuning, "transformer_speed", lambda _, __, precision="auto": speeds[precision])
    plan = timed_plan("300s")
    with as_begun({}, {}, may_measure=True):
        assert tuning_speed(plan) == 9e10
        assert faster_in_bfloat16(plan)
    speeds["bfloat16"] = 2e10
    with as_begun({}, {}, may_measure=True):
        assert tuning_speed(plan) == 5e10
        assert not faster_in_bfloat16(plan), "it can, and is slower"
    assert faster_in_bfloat16(timed_plan("40 steps")), "by rule, where nothing is measured"
    known.clear()
    assert not faster_in_bfloat16(timed_plan("40 steps"))


def test_a_plan_that_is_run_again_comes_to_the_same_sizes() -> None:
    assert steady_speed("a", "cpu", 1e9, 0.2) == 1e9
    assert steady_speed("a", "cpu", 1.1e9, 0.2) == 1e9
    assert steady_speed("b", "cpu", 1.1e9, 0.2) == 1.1e9
    assert steady_speed("a", "cpu", 2e9, 0.2) == 2e9, "the machine has changed"
    assert steady_speed("a", "cpu", 1.9e9, 0.2) == 2e9


def test_timing_takes_steps_and_leaves_random_states_alone() -> None:
    model = torch.nn.Linear(4, 1)
    before = model.weight.detach().clone()
    torch.manual_seed(3)
    drawn = torch.rand(1)
    torch.manual_seed(3)

    def loss() -> torch.Tensor:
        loss: torch.Tensor = model(torch.rand(8, 4)).square().mean()
        return loss

    assert 0 < seconds_per_step(model, loss, "adamw", torch.device("cpu"), 0.01) < 1
    assert torch.rand(1) == drawn
    assert not torch.equal(model.weight, before), "what is timed is a whole step"


def test_a_resumed_run_has_the_sizes_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.random.default_rng(0).choice(["sun", "moon", "sea", "sand", "wind"], 9000)
    (tmp_path / "a.txt").write_text(" ".join(words))
    plan = plan_from(
        {"task": "text-generation", "data": str(tmp_path / "a.txt"), "model": "scratch", "budget": "60s", "moves": []}
    )

    def parameters(run: RunDirectory, seconds: float, until: type = PhaseStarted) -> int:
        """Of a run whose steps take so long, killed early."""
        monkeypatch.setattr(timed, "seconds_per_step", lambda *_: seconds)
        with pytest.raises(Killed):
            api.train(plan, out=run.folder, on_entry=dies_at(until), progress=False)
        return int(run.resolved_phases()[0]["facts"]["parameters"])

    slow, fast = RunDirectory(tmp_path / "slow"), RunDirectory(tmp_path / "fast")
    small = parameters(slow, 5.0)
    entries = [json.loads(line) for line in slow.journal.read_text().splitlines()]
    facts = next(e["event"]["facts"] for e in entries if e["event"]["event"] == "phase_started")
    assert slow.speeds == facts["speeds"], "what was chosen by is journaled"
    assert "measured here" in facts["understood"]["expected"]
    assert parameters(fast, 1e-6) > 1.5 * small
    assert parameters(RunDirectory(tmp_path / "slow"), 1e-6, TrialStarted) == small, (
        "it goes on at the speed that it began with"
    )


def test_a_trunk_of_growing_images_holds_more_steps() -> None:
    """Sign digits in 50 s: 140 were told, 243 came of it."""

    def steps(*resolution: int) -> float:
        recipe = Recipe("sgd", 0.1, batch_size=100, cooldown_fraction=0.5, resolution=resolution)
        found = foreseen_steps(timed_plan("100s"), 0, recipe, Costs(WORK, 1e6))
        assert found is not None
        return found

    assert steps() == steps(64) == pytest.approx(700 * torch.get_num_threads(), rel=0.01)
    assert steps(32, 48, 64) == pytest.approx(1.73 * steps(), rel=0.02)


def test_a_slow_device_scores_less_of_a_held_out_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2 for four minutes on a busy core: scoring took 150 s, training 28."""

    def scored(rate: float, budget: str = "4m", readings: int = 1, least: int = 0) -> int | None:
        with as_begun({"device_type": "cpu"}, {}, {"tuning": rate, "tuning, bfloat16": 9e12}):
            plan = timed_plan(budget)
            return most_scored(plan, "validation", parameters=135_000_000, readings=readings, least=least)

    assert scored(1e12) == 17_777  # 0.02 x 240 s x 1e12 / (2 x 135e6)
    assert scored(2e11) == 4_000  # 3,555 and so enough to say something
    assert scored(4e10) == 1_422  # of which 4% of the time is the most
    assert scored(4e10, readings=2) == 711
    assert scored(4e10, least=4000) == 4_000
    assert scored(4e10, "100 steps") is None
    # A run that goes on elsewhere scores the same, whatever that CPU can do.
    for known in ({"avx512_bf16": True}, {}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known, raising=False)
        assert scored(4e10) == 1_422


def test_sizes_follow_compute_text_and_memory() -> None:
    shapes = list(ladder(64))

    def blocks(compute: float, tokens: float = 1e12, memory: float = float("inf")) -> int:
        return of_blocks(best_shape(shapes, Bearable(compute, tokens, memory), 1024))

    # arXiv 2203.15556, third approach: G (C / 6)^0.4516 parameters; a step of the ladder is a fifth of them.
    for compute in (1e13, 1e15, 1e18, 1e20):
        assert blocks(compute) == pytest.approx(1.345 * (compute / 6) ** 0.4516, rel=0.25)
    assert blocks(1e18, tokens=4e5) <= 2.1e6, "whatever the compute"
    bare = best_shape(shapes, Bearable(1e18, 4e5, dropout=False), 1024)
    assert of_blocks(bare) <= 0.85e6, "and fewer where it has no dropout"
    shape = best_shape(shapes, Bearable(1e20, 1e12, 2e9), 1024)
    assert all_parameters(shape, 1024) * 24 <= 1e9 < all_parameters(shapes[shapes.index(shape) + 2], 1024) * 24
    assert worth(3.0, 5.0) == 3.0
    assert worth(4e6, 1e6) == pytest.approx(3.73e6, rel=0.01), "four epochs are nearly as good as new text"
    assert worth(1e9, 1e6) == pytest.approx(16.4e6, rel=0.01), "and more than sixteen are worth no more"


def test_what_is_given_of_a_shape_stays_and_the_rest_fits_it() -> None:
    plan, facts = timed_plan("60s"), TextFacts(1_000_000, 65)
    wide = choose_preset(ModelSpec(width=256, context=32), facts, plan, 5e10).shape
    assert (wide.width, wide.layers, wide.context) == (256, 3, 32)
    deep = choose_preset(ModelSpec(layers=6), facts, plan, 5e10).shape
    assert deep.layers == 6
    asked = choose_preset(ModelSpec(parameters=10**6), facts, plan, 5e10)
    assert all_parameters(asked.shape, 1024) == pytest.approx(10**6, rel=0.1)


def test_what_a_text_bears_depends_on_whether_its_net_may_have_dropout() -> None:
    """Of 300,000 characters 2 x 96 is better than 2 x 64, 112 and 144, at any length (docs/appendix/experiments.md)."""
    facts = TextFacts(240_000, 65)
    weighed = choose_preset(ModelSpec(), facts, timed_plan("10m"), 5e10).shape
    fixed = choose_preset(ModelSpec(), facts, replace(timed_plan("10m"), moves=()), 5e10).shape
    assert (weighed.width, fixed.width) == (96, 144)


def test_contexts_batches_and_vocabularies_grow_with_what_can_be_spent() -> None:
    large = TextFacts(10**9, 200)
    small, hour = choose_preset(ModelSpec(), large, timed_plan("60s"), 5e10), timed_plan("1h")
    grown = choose_preset(ModelSpec(), large, hour, 4e14)
    assert (small.shape.context, small.vocabulary) == (64, 4096)
    assert (grown.shape.context, grown.vocabulary) == (2048, 32_768)
    little = choose_preset(ModelSpec(), TextFacts(100_000, 65), hour, 5e10)
    assert little.shape.context == 64, "of 40,000 tokens no more, whatever can be spent"
    reviews = choose_preset(ModelSpec(), replace(large, document=400 / 10**9), hour, 4e14)
    assert reviews.shape.context == 256, "of reviews of a hundred tokens no more, whatever can be spent"
    assert batch_size(1e6, 1e9, 64, "cpu") == 12
    assert batch_size(4e6, 1e9, 64, "cpu") == 24
    assert batch_size(1e9, 1e9, 2048, "cuda") == 47
    assert batch_size(1e9, 1e6, 64, "cpu") == 48, "what is read a hundred times is no more to learn from"


def test_dropout_is_for_what_can_be_learnt_by_heart() -> None:
    assert default_dropout(2.0, 1e7, 1e6) == 0.0, "new text"
    assert default_dropout(5.0, 0.3e6, 0.43e6) == 0.0, "more tokens than parameters"
    assert default_dropout(12.0, 0.53e6, 0.43e6) == pytest.approx(0.19, abs=0.02)
    assert default_dropout(40.0, 0.5e6, 1e5) == 0.3


def test_a_run_that_goes_back_to_its_best_place_has_no_dropout(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(english(1200), encoding="utf-8")

    def dropout(**given: Any) -> float | None:
        model = {"name": "nanochat", "layers": 1, "width": 32, "heads": 2, "context": 16}
        data = str(tmp_path / "text.txt")
        wanted = plan_from({"task": "text-generation", "data": data, "model": model, "budget": "40 epochs", **given})
        return workshop_for(wanted).open(wanted, 0, lambda: False)[1].recipe.dropout

    assert dropout() == 0.0
    assert dropout(moves=[]) == 0.24
    assert dropout(moves=["rate-down"]) == 0.24
    assert dropout(recipe={"schedule": "one-cycle"}) == 0.24, "a cycle is finished whatever the curve shows"
    assert dropout(budget=None, phases=[{"name": "only", "until": "40 epochs"}]) == 0.24


def test_no_more_is_scored_than_the_budget_bears() -> None:
    texts = tuple(f"text {i}" for i in range(3000))
    held_out = Examples(texts, None, np.arange(3000) % 2)
    splits = LabelledSplits(
        held_out, held_out, Examples(texts[:600], None, np.arange(600) % 2), Labels("class", ("a", "b"))
    )
    costs = Costs(replace(WORK, name="other"), 3e9)  # one billion operations to score a text
    cut = bearable(splits, timed_plan("10s"), costs)
    most = max(500, int(0.08 * 10 * torch.get_num_threads()))
    assert (len(cut.train), len(cut.validation)) == (3000, most)
    assert len(cut.test) == min(600, most)
    assert "validation: 500 of 3,000, drawn by lot, are scored, since the budget bears no more" in cut.notes[0]
    assert cut.fingerprint != splits.fingerprint
    assert bearable(splits, timed_plan("1 epochs"), costs) is splits
