"""Optimizers: what they do to a parameter, and that their state continues exactly."""

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from multistep.backends.torch.groups import kinds, layers_below_head
from multistep.backends.torch.muon import Matrix, Muon, orthogonalise
from multistep.backends.torch.optimizers import NAMES, PACKAGES, StepRule, build_optimizer, usable_optimizers
from multistep.core.values.optimizers import TYPICAL_RATE, convert_rate, scaled_rate
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.recipe import OptimizerName, Recipe, Setting
from multistep.core.values.units import parse_amount
from multistep.errors import PlanError
from multistep.tasks.text import tuning
from multistep.tasks.text.lean import LeanConfig, LeanGPT
from multistep.tasks.text.preset import default_dropout, default_recipe
from multistep.tasks.text.tuning import tuned_recipe

SHAPE = LeanConfig("nanochat", vocabulary=17, layers=2, width=16, heads=2, context=8)
NO_SPECIAL: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
TOKENS = torch.randint(17, (4, 9), generator=torch.Generator().manual_seed(0))


class SmallNet(nn.Module):
    """A user's module: convolution, norm, fused weight, classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.qkv = nn.Linear(8, 24)
        self.classifier = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.qkv(self.norm(self.conv(x)).mean((2, 3))))
        return logits


def lean() -> LeanGPT:
    return LeanGPT(SHAPE).initialise(0)


def steps(model: LeanGPT, rule: StepRule, count: int, rate: float = 0.01) -> None:
    for _ in range(count):
        rule.zero_grad()
        model.loss(TOKENS[:, :-1], TOKENS[:, 1:])[0].backward()  # type: ignore[no-untyped-call]
        rule.step(rate)


def bits(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
@pytest.mark.parametrize("name", usable_optimizers())
def test_continuing_from_saved_state_is_bit_exact(name: OptimizerName, layer_decay: float) -> None:
    """Over more than ten steps each way, since SOAP turns its bases every ten; into a rule that stepped before."""

    def rule_for(model: LeanGPT) -> StepRule:
        return build_optimizer(
            name, model, learning_rate=0.01, weight_decay=0.1, clip_norm=1.0, layer_decay=layer_decay
        )

    model, again = lean(), lean()
    rule, other = rule_for(model), rule_for(again)
    steps(model, rule, 12, TYPICAL_RATE[name])
    saved, weights = save({key: value.contiguous() for key, value in rule.state_tensors().items()}), bits(model)
    steps(model, rule, 12, TYPICAL_RATE[name])

    steps(again, other, 2, rate=0.1)
    with torch.no_grad():
        for p, w in zip(again.parameters(), weights, strict=True):
            p.copy_(w)
    other.load_state_tensors(load(saved))
    assert save({key: value.contiguous() for key, value in other.state_tensors().items()}) == saved
    steps(again, other, 12, TYPICAL_RATE[name])
    assert equal(bits(model), bits(again))
    one, two = rule.state_tensors(), other.state_tensors()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    with pytest.raises(ValueError, match=r"nothing\.here"):
        other.load_state_tensors({"exp_avg.nothing.here": torch.zeros(1)})
    with pytest.raises(ValueError, match="shape"):
        other.load_state_tensors({"exp_avg.head.weight": torch.zeros(1)})


@pytest.mark.parametrize("name", usable_optimizers())
def test_a_step_moves_the_weights_unless_its_rate_is_zero(name: OptimizerName) -> None:
    model = lean()
    before, rule = bits(model), build_optimizer(name, model, learning_rate=0.01, weight_decay=0.1)
    steps(model, rule, 1, rate=0.0)
    assert equal(before, bits(model))
    steps(model, rule, 3, rate=TYPICAL_RATE[name])
    assert not any(torch.equal(a, b) for a, b in zip(before, bits(model), strict=True))


def test_sgd_is_torchs() -> None:
    ours, theirs = lean(), lean()
    rule = build_optimizer("sgd", ours, learning_rate=1.0, momentum=0.8)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.8, nesterov=True)
    for _ in range(3):
        steps(ours, rule, 1)
        reference.zero_grad()
        theirs.loss(TOKENS[:, :-1], TOKENS[:, 1:])[0].backward()  # type: ignore[no-untyped-call]
        reference.step()
    for a, b in zip(bits(ours), bits(theirs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 16, 64)])
def test_orthogonalise_gives_unit_singular_values_in_both_forms(shape: tuple[int, ...]) -> None:
    x_NRC = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    forms = [orthogonalise(x_NRC, gram_form=form) for form in (False, True)]
    torch.testing.assert_close(forms[0], forms[1], atol=1e-4, rtol=1e-4)
    u, s, vh = torch.linalg.svd(x_NRC, full_matrices=False)
    values = torch.linalg.svdvals(forms[0])[s > 0.05 * s.max()]
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert ((u @ vh) * forms[0]).sum() > 0.97 * (u @ vh).norm() * forms[0].norm()
    for one, together in zip(x_NRC, forms[0], strict=True):
        torch.testing.assert_close(orthogonalise(one[None], gram_form=False)[0], together)
    assert not orthogonalise(torch.zeros(1, 4, 4)).any()


def updates(model: nn.Module, rule: StepRule, backward: Callable[[], None]) -> dict[str, Tensor]:
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    backward()
    rule.step(1.0)
    return {n: (p.detach() - before[n]) for n, p in model.named_parameters()}


def test_muon_moves_each_map_by_its_own_orthogonal_matrix() -> None:
    model = lean()
    torch.manual_seed(0)
    nn.init.normal_(model.head.weight)  # a head of zeros sends no gradient down
    for block in model.layers:
        nn.init.normal_(block.out.weight)
        nn.init.normal_(block.down.weight)
    tokens = torch.randint(17, (64, 9))  # many, so that no gradient is nearly of low rank
    moved = updates(
        model,
        build_optimizer("muon", model, learning_rate=1.0),
        lambda: model.loss(tokens[:, :-1], tokens[:, 1:])[0].backward(),  # type: ignore[no-untyped-call]
    )
    for name, update in moved.items():
        if "blocks" in name:
            into = update.shape[1]
            for part in update.chunk(3) if "qkv" in name else (update,):
                scale = max(1.0, part.shape[0] / into) ** 0.5
                values = torch.linalg.svdvals(part) / scale
                assert values.max() < 1.3
                assert values.median() > 0.6
        else:  # AdamW's first step is the sign of the gradient times the rest's rate
            assert update.abs().max() <= 0.5001


def test_every_parameter_of_a_users_module_is_known_and_channels_last_changes_nothing() -> None:
    found = kinds(SmallNet())
    assert {name for name, (kind, _) in found.items() if kind == "matrix"} == {"conv.weight", "qkv.weight"}
    assert found["qkv.weight"][1] == Matrix(parts=3)
    assert found["classifier.weight"][0] == "head"
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = SmallNet().to(memory_format=memory_format)  # type: ignore[call-overload]
        rule = build_optimizer("muon", model, learning_rate=0.1)
        moved = updates(model, rule, lambda m=model: m(images).square().sum().backward())  # type: ignore[misc]
        results.append(moved["conv.weight"])
        assert not torch.equal(moved["conv.weight"], torch.zeros_like(moved["conv.weight"]))
    torch.testing.assert_close(results[0], results[1], atol=1e-3, rtol=1e-3)


def test_filters_are_read_by_their_groups_and_depthwise_ones_map_nothing() -> None:
    model = nn.Sequential(
        nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=8), nn.Conv1d(8, 4, 5), nn.Linear(4, 2)
    )
    found = kinds(model)
    assert found["0.weight"] == ("matrix", Matrix(parts=2))
    assert found["1.weight"][0] == "vector"
    assert found["2.weight"] == ("matrix", Matrix())
    views = Matrix(parts=2).views(model[0].weight, model[0].weight)  # type: ignore[arg-type]
    assert [view.shape for view in views] == [(4, 36), (4, 36)]


def test_stock_transformers_models_are_read_right() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=4, **NO_SPECIAL))
    found = kinds(model)
    assert found["transformer.wte.weight"][0] == found["transformer.wpe.weight"][0] == "embedding"
    assert found["transformer.h.0.attn.c_attn.weight"] == ("matrix", Matrix(parts=3, transposed=True))
    assert found["transformer.h.0.mlp.c_fc.weight"] == ("matrix", Matrix(transposed=True))
    assert found["transformer.h.0.ln_1.weight"][0] == "vector"


def test_layers_are_found_by_their_numbers_in_any_model() -> None:
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

    assert layers_below_head(lean()) == {
        "embedding.weight": 3,
        **{f"blocks.{i}.{part}.weight": 2 - i for i in range(2) for part in ("qkv", "out", "up", "down")},
        "head.weight": 0,
    }
    tied = layers_below_head(LeanGPT(LeanConfig("gpt2", 17, 2, 16, 2, 8)))
    assert (tied["norm"], tied["blocks.1.norm1"], tied["blocks.0.norm1"], tied["positions.weight"]) == (0, 1, 2, 3)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=8, n_layer=2, n_head=2, n_positions=4, **NO_SPECIAL))
    below = layers_below_head(gpt2)
    wpe, h0, h1, ln_f = "wpe.weight", "h.0.ln_1.weight", "h.1.mlp.c_fc.bias", "ln_f.bias"
    assert [below[f"transformer.{name}"] for name in (wpe, h0, h1, ln_f)] == [3, 2, 1, 0]
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 8}
    below = layers_below_head(BertModel(BertConfig(vocab_size=11, max_position_embeddings=4, **sizes)))
    assert below["embeddings.word_embeddings.weight"] == below["embeddings.LayerNorm.weight"] == 4
    assert below["encoder.layer.0.attention.self.query.weight"] == 3
    assert below["encoder.layer.2.output.dense.bias"] == 1
    assert below["pooler.dense.weight"] == 0
    assert set(layers_below_head(SmallNet()).values()) == {0}


def test_layers_of_images_and_speech_are_counted_from_their_heads() -> None:
    from transformers import ResNetConfig, ResNetForImageClassification, Wav2Vec2Config, Wav2Vec2ForCTC

    given: Any = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 2}
    below = layers_below_head(ResNetForImageClassification(ResNetConfig(**given)))
    ordered = ("classifier.1.weight", "stages.1.layers", "stages.0.layers", "embedder.embedder")
    assert [{n for name, n in below.items() if part in name} for part in ordered] == [{0}, {1}, {2}, {3}]
    given = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    given |= {"conv_dim": (8,), "conv_kernel": (3,), "conv_stride": (2,), "num_conv_pos_embeddings": 4}
    given |= {"num_conv_pos_embedding_groups": 2, "vocab_size": 5}
    below = layers_below_head(Wav2Vec2ForCTC(Wav2Vec2Config(**given)))
    ordered = ("lm_head", "encoder.layers.1", "encoder.layers.0", "conv_layers.0")
    assert [{n for name, n in below.items() if part in name} for part in ordered] == [{0}, {1}, {2}, {3}]


@pytest.mark.parametrize("name", sorted({"adamw", "muon", "lion", "prodigy"} & set(usable_optimizers())))
def test_each_layer_has_its_share_of_the_rate(name: OptimizerName) -> None:
    """The first step is linear in the rate, whichever way the layers' rates are kept apart."""
    moves = []
    for layer_decay in (1.0, 0.5):
        model = lean()
        for p in model.parameters():
            nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(p.numel()))
        rule = build_optimizer(name, model, learning_rate=1.0, layer_decay=layer_decay)
        loss = functools.partial(model.loss, TOKENS[:, :-1], TOKENS[:, 1:])
        moves.append(updates(model, rule, lambda loss=loss: loss()[0].backward()))  # type: ignore[misc]
    for parameter, below in layers_below_head(lean()).items():
        torch.testing.assert_close(moves[1][parameter], 0.5**below * moves[0][parameter], atol=1e-8, rtol=0.1)


@pytest.mark.parametrize(("name", "counter"), [("schedule-free", "k"), ("prodigy", "step"), ("soap", "step")])
def test_counters_of_groups_follow_the_parameters_into_other_groups(name: OptimizerName, counter: str) -> None:
    model = lean()
    rule = build_optimizer(name, model, learning_rate=0.01)
    steps(model, rule, 3)
    expected = rule.optimizers[0].param_groups[0][counter]
    by_layers = build_optimizer(name, model, learning_rate=0.01, layer_decay=0.7)
    by_layers.load_state_tensors(rule.state_tensors())
    groups = by_layers.optimizers[0].param_groups
    assert len(groups) == 4
    assert {group[counter] for group in groups} == {expected}
    steps(model, by_layers, 1)
    by_layers.load_state_tensors({})
    assert not {expected, expected + 1} & {group.get(counter) for group in groups}


def test_rates_are_told_in_another_optimizers_terms() -> None:
    assert set(TYPICAL_RATE) == set(NAMES)
    for name in NAMES:
        assert convert_rate(TYPICAL_RATE["adamw"], "adamw", name) == pytest.approx(TYPICAL_RATE[name])
        assert convert_rate(0.7, "prodigy", name) == TYPICAL_RATE[name]
        recipe = default_recipe({"optimizer": name}, architecture="nanochat", rows=12, vocabulary=1024)
        assert recipe.learning_rate == TYPICAL_RATE[name]
        tuned = tuned_for(110 * 10**6, {"optimizer": name})
        assert tuned.learning_rate == pytest.approx(convert_rate(5e-5, "adamw", name))
        small = tuned_for(10**6, {"optimizer": name})
        assert small.learning_rate == pytest.approx(convert_rate(5.2e-4, "adamw", name)), "small ones learn faster"
        assert recipe.cooldown_fraction == (0.0 if name == "schedule-free" else 0.5)
        build_optimizer(name, lean(), learning_rate=1.0)
    assert convert_rate(0.1, "sgd", "sgd") == 0.1
    assert convert_rate(0.1, "muon", "prodigy") == 1.0
    assert scaled_rate(0.1, "sgd", 4) == 0.4
    assert scaled_rate(0.1, "adamw", 4) == 0.2
    assert scaled_rate(1.0, "prodigy", 4) == 1.0
    for rows, batch, times in ((48, None, 2.0), (12, 48, 2.0), (48, 3, 0.5), (1200, None, 3.0), (12, None, 1.0)):
        chosen: dict[str, Setting] = {} if batch is None else {"batch_size": batch}
        of_many = default_recipe(chosen, architecture="nanochat", rows=rows, usual_rows=12, vocabulary=1024)
        assert of_many.learning_rate == pytest.approx(times * TYPICAL_RATE["muon"]), (rows, batch)
    assert default_recipe({"batch_size": 48, "learning_rate": 0.1}, architecture="gpt2", rows=12).learning_rate == 0.1
    given: dict[str, Setting] = {"optimizer": "schedule-free", "cooldown_fraction": 0.2}
    assert default_recipe(given, architecture="nanochat", rows=12).cooldown_fraction == 0.2


def tuned_for(
    parameters: int, given: Mapping[str, Setting], budget: str = "1 epochs", *, adapts: bool = False, each: int = 512
) -> Recipe:
    plan = Plan("text-generation", DataSpec("x"), budget=parse_amount(budget))
    return tuned_recipe(
        given,
        plan,
        parameters=parameters,
        own_dropout=0.1,
        adapts=adapts,
        tokens_per_example=each,
        train_tokens=300_000,
        device=torch.device("cpu"),
    )


def test_pretrained_weights_keep_their_own_dropout_however_often_the_budget_could_read_the_text() -> None:
    assert default_dropout(48.0, 10**6, 10**5) == 0.3
    assert tuned_for(10**6, {}, "48 epochs").dropout == 0.1


def test_a_large_model_gets_adapters_and_steps_of_which_its_budget_holds_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(tuning, "total_memory", lambda device: 24 * 2**30)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    small = tuned_for(10**6, {}, "600s", adapts=True)
    assert (small.adapter, small.batch_size, small.warmup_steps) == ("none", 12, 100)
    large = tuned_for(135 * 10**6, {}, "600s", adapts=True)
    assert large.adapter == "lora"
    assert large.learning_rate == pytest.approx(4.5e-4), "ten times the rate of all weights"
    tokens = 600 * 2 * 6e10 / (4 * 135e6)  # 133,000
    assert large.batch_size == round(tokens / 150 / 512) == 2
    assert large.warmup_steps == int(0.1 * tokens / 1024)
    for capable, precision in ((True, "bfloat16"), (False, "auto")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capable=capable: {"avx512_bf16": capable})
        assert tuned_for(135 * 10**6, {}, "600s").precision == precision
        assert tuned_for(10**6, {}, "600s").precision == "auto", "small ones are slower by it"
    assert tuned_for(135 * 10**6, {"batch_size": 5}, "600s", adapts=True).batch_size == 5
    assert tuned_for(135 * 10**6, {}, "40 steps", adapts=True).warmup_steps == 4
    # What cannot be trained whole gets adapters however small it is; what has no adapters is trained whole.
    monkeypatch.setattr(tuning, "total_memory", lambda device: 10**8)
    assert tuned_for(10**7, {}, "600s", adapts=True).adapter == "lora"
    assert tuned_for(135 * 10**6, {}, "600s").adapter == "none"


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in PACKAGES.values() else find(name))
    assert usable_optimizers() == ("muon", "adamw", "adam", "sgd", "adafactor")

    def broken(name: str) -> None:
        raise RuntimeError("built for another torch")

    monkeypatch.setattr(importlib, "import_module", broken)
    for name in PACKAGES:
        with pytest.raises(PlanError, match=r"built for another torch.*pip install 'multistep\[optimizers\]'"):
            build_optimizer(name, lean(), learning_rate=1.0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="allowed: muon, adamw, adam, sgd, adafactor"):
        build_optimizer("adamax", lean(), learning_rate=1.0)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"recipe.betas: schedule-free"):
        build_optimizer("schedule-free", lean(), learning_rate=1.0, betas=(0.0, 0.99))
    assert isinstance(build_optimizer("muon", lean(), learning_rate=1.0).optimizers[0], Muon)


@pytest.mark.parametrize(("name", "torchs"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_fused_adam_gives_the_numbers_of_torchs_own(name: OptimizerName, torchs: type[torch.optim.Adam]) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
    theirs.load_state_dict(ours.state_dict())
    rule = build_optimizer(name, nn.Sequential(ours, nn.Linear(4, 4)), learning_rate=0.01, weight_decay=0.1)
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}]
    reference = torchs(groups, lr=0.01, betas=(0.9, 0.99), fused=True)
    for _ in range(5):
        x = torch.randn(3, 5)
        for module in (ours, theirs):
            module.zero_grad()
            module(x).square().sum().backward()
        rule.step(0.01)
        reference.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
