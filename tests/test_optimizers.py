"""Optimizers: what they do to a parameter, and that their state continues exactly."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from multistep.backends.torch.muon import Matrix, Muon, orthogonalise
from multistep.backends.torch.optimizers import StepRule, build_optimizer, kinds
from multistep.tasks.text.lean import LeanConfig, LeanGPT

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


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_continuing_from_saved_state_is_bit_exact(name: Literal["sgd", "adamw", "muon"]) -> None:
    model = lean()
    rule = build_optimizer(name, model, learning_rate=0.01, weight_decay=0.1, clip_norm=1.0)
    steps(model, rule, 3)
    saved, weights = save(rule.state_tensors()), bits(model)
    steps(model, rule, 3)

    again = lean()
    with torch.no_grad():
        for p, w in zip(again.parameters(), weights, strict=True):
            p.copy_(w)
    fresh = build_optimizer(name, again, learning_rate=0.01, weight_decay=0.1, clip_norm=1.0)
    fresh.load_state_tensors(load(saved))
    steps(again, fresh, 3)
    assert equal(bits(model), bits(again))
    with pytest.raises(ValueError, match=r"nothing\.here"):
        fresh.load_state_tensors({"exp_avg.nothing.here": torch.zeros(1)})
    with pytest.raises(ValueError, match="shape"):
        fresh.load_state_tensors({"exp_avg.head.weight": torch.zeros(1)})


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_a_step_moves_the_weights_unless_its_rate_is_zero(name: Literal["sgd", "adamw", "muon"]) -> None:
    model = lean()
    before, rule = bits(model), build_optimizer(name, model, learning_rate=0.01, weight_decay=0.1)
    steps(model, rule, 1, rate=0.0)
    assert equal(before, bits(model))
    steps(model, rule, 2)
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
    nn.init.normal_(model.head.weight)  # a head of zeros sends no gradient down
    for block in model.layers:
        nn.init.normal_(block.out.weight)
        nn.init.normal_(block.down.weight)
    moved = updates(
        model,
        build_optimizer("muon", model, learning_rate=1.0),
        lambda: model.loss(TOKENS[:, :-1], TOKENS[:, 1:])[0].backward(),  # type: ignore[no-untyped-call]
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


def test_stock_transformers_models_are_read_right() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=4, **NO_SPECIAL))
    found = kinds(model)
    assert found["transformer.wte.weight"][0] == found["transformer.wpe.weight"][0] == "embedding"
    assert found["transformer.h.0.attn.c_attn.weight"] == ("matrix", Matrix(parts=3, transposed=True))
    assert found["transformer.h.0.mlp.c_fc.weight"] == ("matrix", Matrix(transposed=True))
    assert found["transformer.h.0.ln_1.weight"][0] == "vector"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="allowed: sgd, adamw, muon"):
        build_optimizer("adam", lean(), learning_rate=1.0)  # type: ignore[arg-type]
    assert isinstance(build_optimizer("muon", lean(), learning_rate=1.0).optimizers[0], Muon)


def test_fused_adamw_gives_the_numbers_of_torchs_own() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
    theirs.load_state_dict(ours.state_dict())
    rule = build_optimizer("adamw", nn.Sequential(ours, nn.Linear(4, 4)), learning_rate=0.01, weight_decay=0.1)
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.99), fused=True)
    for _ in range(5):
        x = torch.randn(3, 5)
        for module in (ours, theirs):
            module.zero_grad()
            module(x).square().sum().backward()
        rule.step(0.01)
        reference.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
