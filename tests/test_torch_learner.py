"""The contract that every learner passes, on the torch learner with a text model of a few thousand weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import chinese, english
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from multistep.backends.torch.devices import pick_device, products_in, rounding, rounds
from multistep.backends.torch.domain import Batch
from multistep.backends.torch.learner import STATISTICS_BATCHES, TorchLearner
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.core.evidence.metric import METRICS
from multistep.core.values.optimizers import TYPICAL_RATE
from multistep.core.values.plan import DataSpec
from multistep.core.values.recipe import OptimizerName, Precision, Recipe
from multistep.engine.learner import Interrupted
from multistep.errors import DataError, PlanError
from multistep.tasks.text.causal import TransformersMaker
from multistep.tasks.text.models import make_preset
from multistep.tasks.text.preset import Preset
from multistep.tasks.text.sizes import Shape
from multistep.tasks.text.splits import TextSplits
from multistep.tasks.text.stream import ReadingOrder, read_stream
from multistep.tasks.text.task import TextDomain
from multistep.tasks.text.tokenizer import byte_bpe_tokenizer, character_tokenizer
from multistep.tasks.text.use import evaluate_model

CPU = torch.device("cpu")
MUON = Recipe(optimizer="muon", learning_rate=0.02, batch_size=4, warmup_steps=0, weight_decay=0.01)
RATES = [0.02] * 7


def splits(train: str, validation: str) -> TextSplits:
    return TextSplits((train,), (validation,), (), contiguous=True, notes=(), fingerprint="x")


VALIDATION = english(300, seed=9)


def domain(architecture: str = "nanochat") -> TextDomain:
    text = english(800)
    name = architecture.removeprefix("transformers ")
    maker = make_preset(Preset(name, "characters", None, Shape(2, 32, 2, 32)), [text])
    if name != architecture:
        settings: dict[str, Any] = {
            "n_embd": 32,
            "n_layer": 1,
            "n_head": 2,
            "n_positions": 32,
            "vocab_size": maker.vocabulary,
        }
        model = GPT2LMHeadModel(GPT2Config(**settings, bos_token_id=0, eos_token_id=0))
        maker = TransformersMaker(model, maker.tokenizer, pretrained=False, context=None, name=name)
    return TextDomain(splits(text, VALIDATION), maker)


def learner(
    recipe: Recipe = MUON, should_stop: Callable[[], bool] = lambda: False, architecture: str = "nanochat"
) -> TorchLearner:
    made = TorchLearner(domain(architecture), should_stop, CPU)
    made.initial(recipe, 0)
    return made


def state(made: TorchLearner, folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir(parents=True, exist_ok=True)
    made.save(folder)
    return load_file(folder / "state.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def under(optimizer: OptimizerName) -> Recipe:
    return replace(MUON, optimizer=optimizer, learning_rate=TYPICAL_RATE[optimizer], gradient_clip=1.0)


RECIPES: dict[str, Recipe] = {
    **{name: under(name) for name in usable_optimizers()},
    "adamw with dropout": replace(under("adamw"), dropout=0.1),
    "sgd, smoothed": replace(under("sgd"), momentum=0.9, label_smoothing=0.1),
    "frozen, not averaged": replace(MUON, frozen=("embedding*",), averaging=0.0),
    "sharp with dropout": replace(under("adamw"), sharpness=0.1, dropout=0.1),
    "adamw in float16": replace(under("adamw"), precision="float16", dropout=0.1),
    "prodigy by layers": replace(under("prodigy"), layer_decay=0.5),
}


def rates(recipe: Recipe) -> list[float]:
    assert recipe.learning_rate is not None
    return [recipe.learning_rate] * 7


@pytest.mark.parametrize("name", RECIPES)
def test_saving_and_loading_continues_exactly(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    straight = learner(recipe)
    straight.advance(rates(recipe))
    state(straight, tmp_path / "middle")
    straight.evaluate("validation", sample=True)
    expected = straight.advance(rates(recipe))
    other = learner(recipe)
    other.load(tmp_path / "middle", recipe, 0)
    torch.manual_seed(99)  # whatever the random state was, it must not matter
    assert other.advance(rates(recipe)) == expected
    assert same(state(other, tmp_path / "b"), state(straight, tmp_path / "a"))


@pytest.mark.parametrize("name", RECIPES)
def test_looking_changes_no_bit_of_training(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    straight, made = learner(recipe), learner(recipe)
    straight.advance(rates(recipe) * 2)
    made.advance(rates(recipe))
    before, random = state(made, tmp_path / "a"), torch.get_rng_state()
    first = made.evaluate("validation", sample=False)
    second = made.evaluate("validation", sample=False)
    made.exhibits()
    made.export(tmp_path, "")
    assert torch.equal(torch.get_rng_state(), random)
    assert same(state(made, tmp_path / "b"), before)
    assert all(np.array_equal(first.columns[name], second.columns[name]) for name in first.columns)
    made.advance(rates(recipe))
    assert same(state(made, tmp_path / "c"), state(straight, tmp_path / "d"))


def test_the_sample_is_a_part_of_the_whole() -> None:
    made = learner()
    made.advance(RATES)
    whole = made.evaluate("validation", sample=False)
    part = made.evaluate("validation", sample=True)
    rows = part.columns["block"].astype(int)
    assert np.allclose(part.columns["loss"], whole.columns["loss"][rows], rtol=1e-5)


def test_training_learns_and_the_loss_reported_is_the_loss(tmp_path: Path) -> None:
    made = learner()
    first = made.advance(RATES)
    for _ in range(10):
        last = made.advance(RATES)
    assert last.loss < first.loss - 0.5
    assert first.examples == 28
    assert first.tokens == 28 * 32


def test_pieces_of_a_batch_give_the_gradient_of_the_whole(tmp_path: Path) -> None:
    """What happens when memory runs out: the micro-batch is halved, the effective batch stays."""
    whole, pieces = learner(), learner()
    pieces._passes.micro_batch = 3
    assert pieces.advance(RATES).loss == pytest.approx(whole.advance(RATES).loss, abs=1e-4)
    one, other = state(whole, tmp_path / "a"), state(pieces, tmp_path / "b")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 5e-3


def test_running_out_of_memory_halves_the_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner()
    loss = made._domain.loss

    def small_machine(model, batch, smoothing):  # type: ignore[no-untyped-def]
        if batch[0].shape[0] > 1:
            raise torch.OutOfMemoryError
        return loss(model, batch, smoothing)

    monkeypatch.setattr(made._domain, "loss", small_machine)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    assert made.advance(RATES[:2]).examples == 8
    assert made._passes.micro_batch == 1


IN_FLOAT16 = ("muon", "adamw", "sgd", "adafactor", "schedule-free")


@pytest.mark.parametrize("name", [name for name in IN_FLOAT16 if name in usable_optimizers()])
def test_steps_whose_gradients_float16_cannot_hold_are_not_taken(name: str, tmp_path: Path) -> None:
    recipe = replace(RECIPES[name], precision="float16", weight_decay=0.1)
    made = learner(recipe)
    if name not in ("muon", "sgd"):  # these are also left alone before their first step
        made.advance(rates(recipe))
    scale = made._passes.scale
    assert scale is not None
    before = state(made, tmp_path / "a")
    scale.tensors()["scale"].fill_(2.0**40)
    progress = made.advance(rates(recipe)[:3])
    after = state(made, tmp_path / "b")
    assert float(after.pop("scale.scale")) == 2.0**37
    assert progress.finite
    kept = [n for n in before if n.startswith(("model.", "optimizer."))]
    assert all(torch.equal(after[n], before[n]) for n in kept)
    made.advance(rates(recipe) * 7)
    assert float(scale.tensors()["scale"]) > 2.0**10, "as soon as they can be held, steps are taken"
    assert made.advance(rates(recipe)).loss < progress.loss - 0.1


def test_gradients_that_no_scale_makes_finite_are_divergence() -> None:
    made = learner(replace(RECIPES["adamw"], precision="float16"))
    first = next(made._model.parameters())
    first.register_hook(lambda gradient: gradient * torch.nan)  # type: ignore[no-untyped-call]
    assert made.advance(rates(MUON)).finite
    assert not made.advance([0.0] * 40).finite


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_reduced_products_train_like_whole_ones(precision: Precision, tmp_path: Path) -> None:
    recipe = RECIPES["adamw"]
    whole, reduced, pieces = learner(recipe), *(learner(replace(recipe, precision=precision)) for _ in range(2))
    pieces._passes.micro_batch = 3
    expected = [whole.advance(rates(recipe)) for _ in range(4)]
    for made in (reduced, pieces):
        found = [made.advance(rates(recipe)) for _ in range(4)]
        assert [p.loss for p in found] == pytest.approx([p.loss for p in expected], abs=2e-3)
        assert [p.gradient_norm for p in found] == pytest.approx([p.gradient_norm for p in expected], rel=0.02)
    saved = state(reduced, tmp_path / "a")
    assert {t.dtype for n, t in saved.items() if n.startswith(("model.", "average."))} == {torch.float32}


@pytest.mark.parametrize(
    ("capability", "kind"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32")]
)
def test_what_a_gpu_computes_products_in(
    capability: tuple[int, int], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    device = torch.device("cuda:1")
    assert str(products_in(Recipe(), device)) == f"torch.{kind}"
    assert rounds(Recipe(precision="float32"), device) == (capability[0] >= 8)
    before = torch.get_float32_matmul_precision()
    with rounding(rounds(Recipe(precision="float32"), device)):
        assert torch.get_float32_matmul_precision() == ("high" if capability[0] >= 8 else before)
    assert torch.get_float32_matmul_precision() == before


def test_frozen_layers_stay_and_unknown_patterns_are_named(tmp_path: Path) -> None:
    made = learner(RECIPES["frozen, not averaged"])
    before = state(made, tmp_path / "a")
    made.advance(RATES)
    after = state(made, tmp_path / "b")
    assert torch.equal(before["model.embedding.weight"], after["model.embedding.weight"])
    assert not torch.equal(before["model.head.weight"], after["model.head.weight"])
    with pytest.raises(PlanError, match=r"no parameter matches 'embeding\*'; the model has embedding.weight"):
        learner(replace(MUON, frozen=("embeding*",)))
    with pytest.raises(PlanError, match="every parameter is frozen"):
        learner(replace(MUON, frozen=("*",)))


def test_a_request_to_stop_is_met_between_steps() -> None:
    asked = iter([False, False, True])
    made = learner(should_stop=lambda: next(asked))
    with pytest.raises(Interrupted):
        made.advance(RATES)
    assert made._steps == 2


def test_averaged_weights_trail_the_weights_by_a_share_of_the_steps() -> None:
    made = learner(replace(MUON, averaging=0.5))
    made.advance([0.02] * 40)
    raw = made._model.head.weight  # type: ignore[union-attr]
    average = made._average.head.weight  # type: ignore[union-attr]
    assert not torch.equal(raw, average)  # type: ignore[arg-type]
    made.advance([0.0] * 400)
    assert torch.allclose(raw, average, atol=5e-3)  # type: ignore[arg-type]


def test_schedule_free_is_scored_with_the_mean_of_its_fast_sequence() -> None:
    """At a constant rate the average is the plain mean of z after each step: arXiv 2405.15682, equation 5."""
    made = learner(RECIPES["schedule-free"])
    weights = dict(made._model.named_parameters())
    fast: list[dict[str, torch.Tensor]] = []
    for _ in range(5):
        made.advance([0.01])
        fast.append({name: made._rule.optimizers[0].state[p]["z"].clone() for name, p in weights.items()})
        for name, average in made._average.named_parameters():
            torch.testing.assert_close(average, torch.stack([z[name] for z in fast]).mean(0), atol=1e-6, rtol=1e-4)
            assert not torch.equal(average, weights[name]) or len(fast) == 1
    scored = made.evaluate("validation", sample=True).columns["loss"]
    with torch.inference_mode():
        expected = made._domain.evaluate(made._average, "validation", sample=True, device=CPU)
    assert np.array_equal(scored, expected.columns["loss"])


KINDS = {
    "muon": {"momentum_buffer", "step", "exp_avg", "exp_avg_sq"},
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "adam": {"step", "exp_avg", "exp_avg_sq"},
    "sgd": {"momentum_buffer"},
    "adafactor": {"step", "row_var", "col_var"},
    "schedule-free": {"z", "exp_avg_sq", "rest"},
    "soap": {"exp_avg", "exp_avg_sq", "GG", "Q", "rest"},
    "lion": {"exp_avg", "rest"},
    "prodigy": {"s", "p0", "exp_avg", "exp_avg_sq", "rest"},
}
ROUND = (*usable_optimizers(), usable_optimizers()[0])


@pytest.mark.parametrize(("old", "new"), list(pairwise(ROUND)))
def test_a_new_optimizer_takes_over_the_weights_alone(old: OptimizerName, new: OptimizerName, tmp_path: Path) -> None:
    made = learner(RECIPES[old])
    made.advance(rates(RECIPES[old]))
    before = state(made, tmp_path / "old")
    with pytest.raises(PlanError, match=f"was saved under {old}, whose state means nothing to {new}"):
        made.load(tmp_path / "old", RECIPES[new], 0)
    made.load(tmp_path / "old", RECIPES[new], 0, carry="weights")
    after = state(made, tmp_path / "new")
    assert after.keys() == {name for name in before if not name.startswith("optimizer.")}
    assert all(torch.equal(after[name], before[name]) for name in after)
    assert (made._steps, made._position) == (7, 28)
    made.advance(rates(RECIPES[new]))
    moved = state(made, tmp_path / "moved")
    assert not any(torch.equal(moved[name], before[name]) for name in before if name.startswith("model."))
    found = {name.split(".")[1].split("/")[0] for name in moved if name.startswith("optimizer.")}
    assert found == KINDS[new]


@pytest.mark.parametrize("name", ["muon", "soap", "prodigy"])
def test_another_batch_size_or_freezing_keeps_the_state(name: str, tmp_path: Path) -> None:
    made = learner(RECIPES[name])
    made.advance(rates(RECIPES[name]))
    before = state(made, tmp_path / "a")
    made.load(tmp_path / "a", replace(RECIPES[name], batch_size=8), 0)
    assert same(state(made, tmp_path / "b"), before)
    assert made.advance(rates(RECIPES[name])).examples == 56
    assert made._position == 28 + 56
    frozen = replace(RECIPES[name], frozen=("embedding*",))
    made.load(tmp_path / "a", frozen, 0)
    made.advance(rates(frozen))
    without = state(made, tmp_path / "c")
    assert torch.equal(without["model.embedding.weight"], before["model.embedding.weight"])
    assert not any(name.startswith("optimizer.") and ".embedding." in name for name in without)
    made.load(tmp_path / "c", RECIPES[name], 0)
    made.advance(rates(RECIPES[name]))
    assert state(made, tmp_path / "d").keys() == before.keys()


def test_examples_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner()
    made.advance(RATES)
    state(made, tmp_path / "a")
    made.load(tmp_path / "a", MUON, 0, skip_examples=10)
    read: list[int] = []
    batch = made._domain.batch

    def noted(position: int, *rest: Any) -> Batch:
        read.append(position)
        return batch(position, *rest)

    monkeypatch.setattr(made._domain, "batch", noted)
    made.advance(RATES[:2])
    assert read == [38, 42]


def test_an_average_is_the_mean_of_the_averaged_weights(tmp_path: Path) -> None:
    parts = []
    for seed, steps in enumerate((7, 14, 3)):
        made = learner()
        made.initial(MUON, seed)
        made.advance([0.02] * steps)
        parts.append(state(made, tmp_path / str(seed)))
    made = learner()
    made.average([tmp_path / "0", tmp_path / "1", tmp_path / "2"], under("adamw"), 0)
    found = state(made, tmp_path / "mean")
    for name in parts[0]:
        if name.startswith("average."):
            mean = torch.stack([part[name] for part in parts]).mean(0)
            torch.testing.assert_close(found[name], mean, atol=1e-7, rtol=1e-6)
            assert torch.equal(found[name.replace("average.", "model.")], found[name])
    assert not any(name.startswith("optimizer.") for name in found)
    assert (made._steps, made._position) == (14, 56)
    made.advance(RATES)


class Noise:
    """A Domain of random pictures for a net with a batch norm."""

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))

    def origin(self, model: str | None = None) -> None:
        return None

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        generator = torch.Generator().manual_seed(position)
        pictures = 3 + 2 * torch.randn(size, 1, 6, 6, generator=generator)
        return pictures, torch.randint(3, (size,), generator=generator)

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        total = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")
        return total, torch.tensor(len(batch[1]))

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        return 1

    def resize(self, resolution: int | None) -> None:
        pass


def pictures(recipe: Recipe, seed: int = 0) -> TorchLearner:
    made = TorchLearner(Noise(), lambda: False, CPU)  # type: ignore[arg-type]  # what is missing is not asked for
    made.initial(recipe, seed)
    return made


def test_statistics_of_batch_norms_are_computed_anew_for_an_average(tmp_path: Path) -> None:
    for seed in range(2):
        made = pictures(MUON, seed)
        made.advance(RATES)
        state(made, tmp_path / str(seed))
    made = pictures(MUON)
    made.average([tmp_path / "0", tmp_path / "1"], MUON, 0)
    found = state(made, tmp_path / "mean")
    means, variances = [], []
    for i in range(STATISTICS_BATCHES):
        seen = nn.functional.conv2d(Noise().batch(4 * i, 4, 0, CPU)[0], found["model.0.weight"], found["model.0.bias"])
        means.append(seen.mean((0, 2, 3)))
        variances.append(seen.transpose(0, 1).flatten(1).var(1))
    torch.testing.assert_close(found["average.1.running_mean"], torch.stack(means).mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["average.1.running_var"], torch.stack(variances).mean(0), atol=1e-5, rtol=1e-5)
    assert torch.equal(found["average.1.running_mean"], found["model.1.running_mean"])
    assert made._model[1].momentum == 0.1  # type: ignore[index]
    made.advance(RATES)


def test_a_sharp_step_takes_the_gradient_uphill(tmp_path: Path) -> None:
    """arXiv 2010.01412: the gradient at w + rho g / |g|, applied at w; statistics are those of w."""
    recipe = replace(under("sgd"), momentum=0.0, gradient_clip=0.0, weight_decay=0.0, sharpness=0.5)
    made, plain = pictures(recipe), pictures(replace(recipe, sharpness=0.0))
    reference = copy.deepcopy(made._model).train()
    batch = Noise().batch(0, 4, 0, CPU)

    def gradients() -> list[torch.Tensor]:
        total, count = Noise().loss(reference, batch, 0.0)
        return list(torch.autograd.grad(total / count, list(reference.parameters())))

    start = [p.detach().clone() for p in reference.parameters()]
    first = gradients()
    norm = torch.cat([g.flatten() for g in first]).norm()
    with torch.no_grad():
        for p, g in zip(reference.parameters(), first, strict=True):
            p.add_(g, alpha=float(0.5 / norm))
    expected = [w - 0.1 * g for w, g in zip(start, gradients(), strict=True)]
    assert made.advance([0.1]).loss == plain.advance([0.1]).loss  # both are the loss at w
    for found, value in zip(made._model.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach(), value, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(made._model[3].weight, plain._model[3].weight, atol=1e-3)  # type: ignore[index]
    assert torch.equal(made._model[1].running_mean, plain._model[1].running_mean)  # type: ignore[index]


def test_both_passes_of_a_sharp_step_drop_the_same_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner(RECIPES["sharp with dropout"])
    made._passes.micro_batch = 2
    seen: list[torch.Tensor] = []
    loss = made._domain.loss

    def noted(*given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(torch.get_rng_state())
        return loss(*given)

    monkeypatch.setattr(made._domain, "loss", noted)
    made.advance([0.01])
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("architecture", ["nanochat", "gpt2", "llama", "transformers gpt2"])
def test_what_is_trained_at_another_context_is_scored_and_exported_at_it(architecture: str, tmp_path: Path) -> None:
    context = 64 if architecture == "nanochat" else 16
    made = learner(architecture=architecture)
    own = made.evaluate("validation", sample=False)
    recipe = replace(MUON, context=context)
    made.advance(RATES[:2])
    state(made, tmp_path / "a")
    made.load(tmp_path / "a", recipe, 0)
    assert made._position * context == 2 * 4 * 32
    assert made.advance(RATES).tokens == 7 * 4 * context
    scored = made.evaluate("validation", sample=False)
    for column in ("count", "bytes", "block"):
        assert np.array_equal(own.columns[column], scored.columns[column])
    (tmp_path / "model").mkdir()
    made.export(tmp_path / "model", "")
    (tmp_path / "text.txt").write_text(VALIDATION)
    again = evaluate_model(str(tmp_path / "model"), DataSpec(str(tmp_path / "text.txt")))
    np.testing.assert_allclose(again.columns["loss"], scored.columns["loss"], rtol=1e-5)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    read = {"nanochat": "max_position_embeddings", "gpt2": "n_positions"}.get(architecture, "trained_context")
    assert config[read] == context


def test_settings_that_text_or_the_model_cannot_have_are_named() -> None:
    with pytest.raises(PlanError, match=r"recipe.augmentation is 0.5, but text has none"):
        learner(replace(MUON, augmentation=0.5))
    with pytest.raises(PlanError, match=r"recipe.context 64: the learned positions end at 32"):
        learner(replace(MUON, context=64), architecture="gpt2")
    with pytest.raises(PlanError, match=r"recipe.context is 64, but this llama reads at most 32 tokens"):
        learner(replace(MUON, context=64), architecture="llama")
    with pytest.raises(PlanError, match=r"recipe.dropout is 0.1, but llama has no dropout"):
        learner(replace(MUON, dropout=0.1), architecture="llama")
    with pytest.raises(DataError, match=r"set recipe.context to \d+ or less"):
        learner(replace(MUON, context=1_000_000))
    found = {name: domain(name).settings for name in ("nanochat", "gpt2", "llama")}
    assert found["nanochat"] == ("label_smoothing", "dropout", "context")
    assert found["gpt2"] == ("label_smoothing", "dropout")
    assert found["llama"] == ("label_smoothing",)


def test_an_epoch_reads_every_window_once_and_epochs_differ() -> None:
    order = ReadingOrder(tokens=1001, context=10)
    one = np.sort(order.starts(0, order.per_epoch, seed=3))
    assert np.all(np.diff(one) == 10)
    assert one[-1] + 10 <= 1000
    two = order.starts(order.per_epoch, order.per_epoch, seed=3)
    assert not np.array_equal(np.sort(two), one) or not np.array_equal(two, order.starts(0, order.per_epoch, seed=3))
    across = order.starts(order.per_epoch - 2, 4, seed=3)
    assert np.array_equal(across[2:], two[:2])
    assert np.array_equal(across, ReadingOrder(1001, 10).starts(order.per_epoch - 2, 4, seed=3))


@pytest.mark.parametrize("text", [english(600), chinese(600)], ids=["english", "chinese"])
def test_spans_do_not_depend_on_the_tokenizer(text: str) -> None:
    """Characters and BPE are scored on the same spans, so their bits per byte can be compared pair by pair."""
    by_character = read_stream([text], character_tokenizer([text]), several=False, end=0)
    by_bpe = read_stream([text], byte_bpe_tokenizer([text], 300), several=False, end=0)
    assert np.array_equal(by_character.span_bytes, by_bpe.span_bytes)
    assert by_character.span_bytes.sum() == len(text.encode())
    assert by_character.span_bytes.min() >= 2048


def test_an_unknown_character_costs_what_it_leaves_open() -> None:
    """Predicting "unknown" does not say which of a million characters it was."""
    tokenizer = character_tokenizer(["abc"])
    stream = read_stream(["abcz"], tokenizer, several=False, end=0)
    bits = METRICS["bits_per_byte"].score(stream.table(np.zeros(4)))
    assert bits == pytest.approx(np.log2(0x110000 - 2048 - tokenizer.get_vocab_size()) / 4, rel=1e-6)


def test_the_device_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTISTEP_DEVICE", "cpu")
    assert pick_device() == torch.device("cpu")
    monkeypatch.setenv("MULTISTEP_DEVICE", "cuda:99")
    with pytest.raises(PlanError, match=r"device is 'cuda:99'; torch finds cpu.* on this machine"):
        pick_device()
