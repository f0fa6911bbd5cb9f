"""The lean model: it learns the same function that `transformers` reads from its export."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from multistep.backends.torch.optimizers import build_optimizer
from multistep.tasks.text.lean import LeanConfig, LeanGPT, relu_squared
from multistep.tasks.text.lean_export import from_transformers, to_transformers

SHAPES = [
    LeanConfig("nanochat", vocabulary=65, layers=3, width=48, heads=3, context=32),
    LeanConfig("gpt2", vocabulary=65, layers=3, width=48, heads=3, context=32),
]


def scrambled(config: LeanConfig) -> LeanGPT:
    """A model whose every weight is far from its start, means included, as after long training."""
    model = LeanGPT(config).initialise(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1 + 0.03)
    return model.eval()


def tokens(config: LeanConfig) -> torch.Tensor:
    shape = (4, config.context)
    return torch.randint(config.vocabulary, shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("width", "of_head"), [(64, 1.0), (176, 1.0), (352, 0.5)])
def test_a_wide_models_head_is_trained_at_a_lower_rate(width: int, of_head: float) -> None:
    """A first step of Adam moves each weight by its rate."""
    model = LeanGPT(LeanConfig("nanochat", 20, 1, width, 2, 8)).initialise(0)
    with torch.no_grad():  # else nothing would come through it to the embedding
        model.head.weight.add_(0.1 * torch.randn(20, width, generator=torch.Generator().manual_seed(0)))
    both = (model.head.weight, model.embedding.weight)
    before = [weight.detach().clone() for weight in both]
    rule = build_optimizer("muon", model, learning_rate=0.02)
    read = torch.randint(20, (4, 9), generator=torch.Generator().manual_seed(0))
    model.loss(read[:, :-1], read[:, 1:])[0].backward()  # type: ignore[no-untyped-call]
    rule.step(0.02)
    head, embedding = (float((now - then).detach().abs().max()) for now, then in zip(both, before, strict=True))
    assert head == pytest.approx(of_head * 0.01, rel=0.01)
    assert embedding == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("config", SHAPES, ids=lambda c: c.architecture)
def test_exported_folder_gives_the_same_logits_in_transformers(
    config: LeanConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoModelForCausalLM

    model = scrambled(config)
    settings, tensors = to_transformers(model)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    load: Any = AutoModelForCausalLM.from_pretrained
    stock, info = load(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert type(stock).__name__ == settings["architectures"][0]
    assert sum(p.numel() for p in model.parameters()) == config.parameters
    with torch.no_grad():
        ours_BTV, theirs_BTV = model(tokens(config)), stock.eval()(tokens(config)).logits
    assert ours_BTV.std() > 0.1
    assert (ours_BTV - theirs_BTV).abs().max() <= 1e-5 * max(1.0, float(theirs_BTV.abs().max()))

    read = json.loads((tmp_path / "config.json").read_text())
    back = from_transformers(read, load_file(tmp_path / "model.safetensors"))
    assert back is not None
    with torch.no_grad():
        torch.testing.assert_close(back.eval()(tokens(config)), ours_BTV, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", SHAPES, ids=lambda c: c.architecture)
def test_folders_that_are_not_ours_are_declined(config: LeanConfig) -> None:
    settings, tensors = to_transformers(scrambled(config))
    width = "hidden_size" if config.architecture == "nanochat" else "n_embd"
    activation = "hidden_act" if config.architecture == "nanochat" else "activation_function"
    assert from_transformers({**settings, "model_type": "llama"}, tensors) is None
    assert from_transformers({**settings, width: 96}, tensors) is None
    assert from_transformers({**settings, activation: "silu"}, tensors) is None
    assert from_transformers(settings, dict(list(tensors.items())[1:])) is None
    spoilt = "model.embed_tokens.weight" if config.architecture == "nanochat" else "transformer.ln_f.bias"
    assert from_transformers(settings, {**tensors, spoilt: tensors[spoilt] + 1}) is None


@pytest.mark.parametrize("config", SHAPES, ids=lambda c: c.architecture)
def test_the_same_seed_gives_the_same_bits_and_the_start_is_uniform(config: LeanConfig) -> None:
    def gradient(seed: int) -> torch.Tensor:
        model = LeanGPT(config).initialise(seed)
        labels = tokens(config).roll(-1, 1)
        labels[:, -1] = -100
        total, count = model.loss(tokens(config), labels)
        assert count == 4 * 31
        assert abs(total.item() / 124 - torch.tensor(65.0).log()) < 0.1
        total.backward()  # type: ignore[no-untyped-call]
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    assert torch.equal(gradient(3), gradient(3))
    assert not torch.equal(gradient(3), gradient(4))


def test_relu_squared_has_the_right_gradient() -> None:
    x = torch.tensor([-2.0, -0.5, 0.5, 3.0], requires_grad=True)
    relu_squared(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0, 1, 6]


def test_dropout_acts_in_training_alone() -> None:
    model = scrambled(SHAPES[0])
    model.dropout = 0.5
    still = model(tokens(SHAPES[0]))
    assert torch.equal(still, model(tokens(SHAPES[0])))
    assert not torch.equal(still, model.train()(tokens(SHAPES[0])))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        LeanConfig("nanochat", 65, 2, 64, 3, 32)
    with pytest.raises(ValueError, match="context is 32"):
        LeanGPT(SHAPES[1])(torch.zeros(1, 33, dtype=torch.long))


def test_rotary_positions_are_read_beyond_the_context_as_a_longer_one_would() -> None:
    model = scrambled(SHAPES[0]).eval()
    read = torch.arange(48)[None] % SHAPES[0].vocabulary
    beyond = model(read)
    model.set_context(48)
    assert torch.equal(beyond, model(read))
