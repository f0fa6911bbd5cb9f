"""The contract that every learner passes, on the torch learner with a text model of a few thousand weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import chinese, english
from safetensors.torch import load_file

from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.core.metric import METRICS
from multistep.core.optimizers import TYPICAL_RATE
from multistep.core.recipe import OptimizerName, Recipe
from multistep.engine.learner import Interrupted
from multistep.errors import PlanError
from multistep.tasks.text.lean import LeanConfig
from multistep.tasks.text.models import LeanMaker
from multistep.tasks.text.splits import TextSplits
from multistep.tasks.text.stream import ReadingOrder, read_stream
from multistep.tasks.text.task import TextDomain
from multistep.tasks.text.tokenizer import byte_bpe_tokenizer, character_tokenizer

CPU = torch.device("cpu")
MUON = Recipe(optimizer="muon", learning_rate=0.02, batch_size=4, warmup_steps=0, weight_decay=0.01)
RATES = [0.02] * 7


def splits(train: str, validation: str) -> TextSplits:
    return TextSplits((train,), (validation,), (), contiguous=True, notes=(), fingerprint="x")


def learner(recipe: Recipe = MUON, should_stop: Callable[[], bool] = lambda: False) -> TorchLearner:
    text = english(800)
    maker = LeanMaker(LeanConfig("nanochat", _vocabulary(text), 2, 32, 2, 32), character_tokenizer([text]))
    made = TorchLearner(TextDomain(splits(text, english(300, seed=9)), maker), should_stop, CPU)
    made.initial(recipe, 0)
    return made


def _vocabulary(text: str) -> int:
    return int(character_tokenizer([text]).get_vocab_size())


def state(made: TorchLearner, folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir(parents=True, exist_ok=True)
    made.save(folder)
    return load_file(folder / "state.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def under(optimizer: OptimizerName) -> Recipe:
    return replace(MUON, optimizer=optimizer, learning_rate=TYPICAL_RATE[optimizer], gradient_clip=1.0)


RECIPES = {
    **{name: under(name) for name in usable_optimizers()},
    "adamw with dropout": replace(under("adamw"), dropout=0.1),
    "sgd, smoothed": replace(under("sgd"), momentum=0.9, label_smoothing=0.1),
    "frozen, not averaged": replace(MUON, frozen=("embedding*",), averaging=0.0),
    "sharp with dropout": replace(under("adamw"), sharpness=0.1, dropout=0.1),
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
    made.samples()
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
    pieces._micro_batch = 3
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
    assert made._micro_batch == 1


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
