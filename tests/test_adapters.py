"""Adapters: little matrices beside frozen weights, of the learner and of what comes out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_text_models import maker, rows
from torch import Tensor

from multistep.backends.torch.adapters import merge
from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.placing import copied
from multistep.backends.torch.saved import mean_weights
from multistep.core.choice.moves import MOVES
from multistep.core.choice.siblings import moved
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Facts, Trial
from multistep.errors import PlanError
from multistep.tasks.images.decode import Form
from multistep.tasks.images.load import form_of_model
from multistep.tasks.images.preset import default_recipe as of_images
from multistep.tasks.language.load import load_encoder
from multistep.tasks.language.preset import default_recipe as of_texts
from multistep.tasks.own.preset import default_recipe as of_own
from multistep.tasks.speech.load import load_model as load_speech
from multistep.tasks.text.causal import TransformersMaker
from multistep.tasks.text.models import load_model
from multistep.tasks.text.splits import TextSplits
from multistep.tasks.text.task import TextDomain

pytest.importorskip("peft")
TEXT = "a river runs through it, and over it a bridge of stone and rope; " * 40
LORA = Recipe("adamw", 1e-2, batch_size=2, weight_decay=0.0, warmup_steps=0, adapter="lora", adapter_rank=2)
WHOLE = replace(LORA, adapter="none")
RATES = [1e-2] * 4
FACTS = Facts(1, 1, 1, 1, 1, 0, True, "", "")


def learner(of: TransformersMaker | None = None) -> TorchLearner:
    splits = TextSplits((TEXT,), (TEXT,), (TEXT,), contiguous=True, fingerprint="", notes=())
    domain = TextDomain(splits, of or maker(num_key_value_heads=1), 16)
    return TorchLearner(domain, lambda: False, torch.device("cpu"))


def saved(made: TorchLearner, folder: Path) -> dict[str, Tensor]:
    folder.mkdir(parents=True)
    made.save(folder)
    return load_file(folder / "state.safetensors")


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(rows()[0]).logits
    return found


@pytest.mark.parametrize("load", [load_encoder, form_of_model, load_speech])
def test_an_adapters_folder_is_told_apart_where_only_a_model_will_do(load: Any, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model"}', encoding="utf-8")
    with pytest.raises(PlanError, match=r"holds an adapter and no model: .* Of a run of multistep name RUN/model"):
        load(str(tmp_path))


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_only_the_adapter_is_trained_and_saved_and_it_continues_exactly(kind: Any, tmp_path: Path) -> None:
    recipe = replace(LORA, adapter=kind)
    one = learner()
    one.initial(recipe, 0)
    untouched = logits(one._model)
    assert torch.allclose(untouched, logits(maker(num_key_value_heads=1).build(0)), atol=1e-5)  # B begins at zero
    one.advance(RATES)
    half = saved(one, tmp_path / "half")
    assert all(".lora_" in name for name in half), "the frozen base is in no checkpoint"
    one.advance(RATES)
    other = learner()
    other.load(tmp_path / "half", recipe, 0)
    other.advance(RATES)
    straight, resumed = saved(one, tmp_path / "straight"), saved(other, tmp_path / "resumed")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not torch.allclose(logits(one._model), untouched, atol=1e-3)


def test_a_higher_rank_is_the_same_function_and_whole_weights_are_refused(tmp_path: Path) -> None:
    one = learner()
    one.initial(LORA, 0)
    one.advance(RATES)
    saved(one, tmp_path / "low")
    wider = learner()
    wider.load(tmp_path / "low", replace(LORA, adapter_rank=4), 1, carry="weights")
    assert torch.allclose(logits(wider._model), logits(one._model), atol=1e-5)
    wider.advance(RATES)
    with pytest.raises(PlanError, match="low was trained with lora of rank 2, this recipe asks for all weights"):
        learner().load(tmp_path / "low", WHOLE, 0, carry="weights")


@pytest.mark.parametrize(
    ("before", "after"), [(LORA, WHOLE), (WHOLE, LORA), (LORA, LORA), (LORA, replace(LORA, adapter_rank=4))]
)
def test_the_next_phase_goes_on_from_the_same_function_whatever_it_trains(
    before: Recipe, after: Recipe, tmp_path: Path
) -> None:
    one = learner()
    one.initial(before, 0)
    one.advance(RATES)
    saved(one, tmp_path / "first")
    two = learner()
    two.adopt(tmp_path / "first", after, 1)
    assert torch.allclose(logits(two._model), logits(one._average), atol=1e-5)
    trained = {name for name, p in two._model.named_parameters() if p.requires_grad}
    assert all((".lora_" in name) == (after.adapter == "lora") for name in trained)
    two.advance(RATES)
    second = saved(two, tmp_path / "second")  # of a base that is no longer the pretrained one, all of it
    assert ("average.model.norm.weight" in second) == (before != after or after == WHOLE)
    three = learner()
    three.load(tmp_path / "second", after, 1)
    assert torch.allclose(logits(three._model), logits(two._model), atol=1e-5)
    for goes_on in (two, three):
        goes_on.advance(RATES)
    straight, resumed = saved(two, tmp_path / "straight"), saved(three, tmp_path / "resumed")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    three.average([tmp_path / "second", tmp_path / "straight"], after, 1)
    mean = saved(three, tmp_path / "mean")
    plain = [name for name in mean if "average." in name and ".lora_" not in name]
    assert all(torch.allclose(mean[name], (second[name] + straight[name]) / 2, atol=1e-6) for name in plain)


def test_a_base_that_this_run_made_is_kept_as_it_is(tmp_path: Path) -> None:
    """In half only what was published so."""
    of = maker(num_key_value_heads=1)
    for parameter in of._model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    of = TransformersMaker(of._model, of.tokenizer, pretrained=True, context=None, name="half", half=True)
    reduced = replace(LORA, precision="bfloat16")
    one = learner(of)
    one.initial(reduced, 0)
    assert one._model.get_parameter("model.embed_tokens.weight").dtype == torch.bfloat16
    one.advance(RATES)
    saved(one, tmp_path / "first")
    one.adopt(tmp_path / "first", replace(reduced, adapter_rank=4), 0)
    made = saved(one, tmp_path / "second")
    one.load(tmp_path / "second", replace(reduced, adapter_rank=4), 0)
    again = saved(one, tmp_path / "again")
    assert all(torch.equal(made[name], again[name]) and again[name].dtype == torch.float32 for name in made)
    with pytest.raises(PlanError, match="holds weights as they were published, but the phase before trained lora of"):
        one.adopt(tmp_path / "first", replace(reduced, adapter="qlora"), 0)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft's, of transformers
def test_out_come_the_merged_model_and_an_adapter_that_peft_loads(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = tmp_path / "base"
    of = maker(num_key_value_heads=1)
    of.write(of.build(0), base)
    of = TransformersMaker(of._model, of.tokenizer, pretrained=True, context=None, name=str(base))
    made = learner(of)
    made.initial(LORA, 0)
    made.advance(RATES)
    out = tmp_path / "out"
    out.mkdir()
    made.export(out, "card")
    merged = AutoModelForCausalLM.from_pretrained(out)
    assert torch.allclose(logits(merged), logits(made._average), atol=1e-5)
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    onto = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(out / "adapter"))
    assert torch.allclose(logits(onto), logits(merged), atol=1e-5)
    assert torch.allclose(logits(made._average), logits(merged), atol=1e-5), "the run goes on with what it had"


def test_what_cannot_be_adapted_is_named() -> None:
    with pytest.raises(PlanError, match=r"no linear layer is named 'q_prj'; .*Did you mean 'q_proj'"):
        learner().initial(replace(LORA, adapter_targets=("q_prj",)), 0)
    nothing = maker(num_key_value_heads=1)
    nothing.origin = None
    with pytest.raises(PlanError, match=r"recipe\.adapter is lora, but this model begins from nothing"):
        learner(nothing).initial(LORA, 0)


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_the_move_to_a_higher_rank_keeps_the_function(kind: Any, tmp_path: Path) -> None:
    one = learner()
    recipe = replace(LORA, adapter=kind)
    one.initial(recipe, 0)
    one.advance(RATES)
    saved(one, tmp_path / "low")
    raised = MOVES["rank-up"](recipe, FACTS)
    assert raised is not None
    assert raised.adapter_rank == 4
    two = learner()
    control = Trial("0.round-1.control", 0, "control", "low", recipe, 0, 1e-2)
    two.load(tmp_path / "low", raised, 1, carry=moved(control, "rank-up", raised).carry)
    assert torch.allclose(logits(two._model), logits(one._model), atol=1e-5)
    assert MOVES["rank-up"](WHOLE, FACTS) is None
    assert MOVES["rank-up"](replace(recipe, adapter_rank=200), FACTS) is None


def test_weights_in_four_bits_come_out_as_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training mode alone, for which its CPU form is right too."""
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64, "num_key_value_heads": 2}
    made = learner(maker(**sizes))
    made.initial(replace(LORA, adapter="qlora"), 0)
    layer: Any = made._model.get_submodule("model.layers.0.mlp.up_proj.base_layer")
    assert layer.weight.dtype == torch.uint8
    made.advance(RATES)
    assert all(".lora_" in name for name in saved(made, tmp_path / "half"))
    trained = logits(made._model)
    assert not torch.allclose(trained, logits(maker(**sizes).build(0)), atol=1e-3)
    merged = merge(copied(made._model, frozenset()).float())
    assert torch.allclose(logits(merged), trained, atol=1e-5)
    assert all(p.dtype == torch.float32 for p in merged.parameters())


def test_four_bits_are_refused_without_a_gpu_or_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PlanError, match=r"recipe\.adapter is qlora, which needs a CUDA device; set it to lora"):
        learner().initial(replace(LORA, adapter="qlora"), 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(PlanError, match=r"qlora, which needs the package bitsandbytes \(.*\); install it with"):
        learner().initial(replace(LORA, adapter="qlora"), 0)


def test_an_adapters_folder_is_merged_into_its_base_and_refused_by_another(tmp_path: Path) -> None:
    base = tmp_path / "base"
    of = maker(num_key_value_heads=1)
    of.write(of.build(0), base)
    of = TransformersMaker(of._model, of.tokenizer, pretrained=True, context=None, name=str(base))
    made = learner(of)
    made.initial(LORA, 0)
    made.advance(RATES)
    (tmp_path / "out").mkdir()
    made.export(tmp_path / "out", "card")
    adapter = tmp_path / "out" / "adapter"
    found = load_model(str(adapter))
    assert torch.allclose(logits(found.build(0)), logits(made._average), atol=1e-5)
    assert found.origin is not None
    assert found.origin.source is None, "nobody else has these weights under a name"
    wide = maker(num_key_value_heads=1, hidden_size=32)
    wide.write(wide.build(0), base)
    with pytest.raises(PlanError, match=rf"{adapter} is an adapter for another model than {base}, which it names \("):
        load_model(str(adapter))
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(PlanError, match="is an adapter and names no base model"):
        load_model(str(adapter))


@pytest.mark.parametrize("optimizer", ["adamw", "prodigy"])
def test_every_task_trains_adapters_at_ten_times_the_rate_and_lets_prodigy_find_its_own(optimizer: str) -> None:
    given = {"optimizer": optimizer}
    encoder = {"classify": True, "pretrained": True, "parameters": 10**7, "own_dropout": 0.1}
    own = {"pretrained": True, "parameters": 10**7, "batch_size": 8, "dropout": 0.0, "label_smoothing": 0.0}
    recipes: list[Callable[[Any], Recipe]] = [
        lambda more: of_texts(given | more, **encoder, epochs=1.0, length=20.0),  # type: ignore[arg-type]
        lambda more: of_images(given | more, None, form=Form(224, 224, 3), parameters=10**7),
        lambda more: of_own(given | more, **own),  # type: ignore[arg-type]
    ]
    for recipe in recipes:
        whole, adapted = recipe({}), recipe({"adapter": "lora"})
        assert whole.learning_rate is not None
        assert adapted.learning_rate == pytest.approx(whole.learning_rate * (1 if optimizer == "prodigy" else 10))
        assert adapted.weight_decay == 0.0


def test_the_mean_of_adapters_is_that_of_what_they_add(tmp_path: Path) -> None:
    """Not what the means of their two matrices come to, which lies further off where the two have gone apart."""
    made, folders = learner(), []
    for seed in (0, 1):
        made.initial(LORA, seed)
        made.advance(RATES)
        folders.append(tmp_path / str(seed))
        saved(made, folders[-1])
    states = [load_file(folder / "state.safetensors") for folder in folders]
    means = mean_weights(folders)
    name = next(name for name in means if ".lora_A." in name)
    downs, ups = ([state[n].double() for state in states] for n in (name, name.replace("_A.", "_B.")))
    wanted = sum(up @ down for up, down in zip(ups, downs, strict=True)) / 2
    off = (means[name.replace("_A.", "_B.")] @ means[name] - wanted).norm()
    apart = (torch.stack(ups).mean(0) @ torch.stack(downs).mean(0) - wanted).norm()
    assert off < 0.95 * apart
    assert off == pytest.approx(float(torch.linalg.svdvals(wanted)[2:].norm()), rel=1e-4, abs=1e-9), (
        "the nearest of rank two"
    )
    made.average(folders, LORA, 0)
    (tmp_path / "mean").mkdir()
    made.save(tmp_path / "mean")
    assert mean_weights(folders[:1] * 2)[name].shape == states[0][name].shape
    same = mean_weights(folders[:1] * 2)
    torch.testing.assert_close(same[name.replace("_A.", "_B.")] @ same[name], ups[0] @ downs[0])
