"""Conversations in plans: phases that follow running text, what is exported, what is refused before training."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases_chat import CHATML, SETTINGS, llama, small_llama, tokenizer, write
from corpora import written

from multistep import api
from multistep.core.values.history import fold
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import read_entries
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock
from multistep.errors import DataError, PlanError
from multistep.tasks.chat.conversation import Conversation, Turn
from multistep.tasks.chat.load import ChatSplits
from multistep.tasks.chat.task import ChatDomain
from multistep.tasks.chat.template import MARKS
from multistep.tasks.text.causal import TransformersMaker
from multistep.tasks.text.models import make_preset
from multistep.tasks.text.preset import Preset
from multistep.tasks.text.sizes import Shape
from multistep.tasks.writing.workshop import TextWorkshop


def planned(data: Any, model: Any = "auto", **more: Any) -> Plan:
    return plan_from({"task": "text-generation", "data": data, "model": model, "ship": "network", **more})


def opened(plan: Plan, phase: int = 0) -> tuple[ChatDomain, Any]:
    learner, ready = TextWorkshop().open(plan, phase, lambda: False)
    domain: Any = learner
    return domain._domain, ready


@pytest.fixture
def begin(tmp_path: Path) -> str:
    (tmp_path / "begin").mkdir()
    return small_llama(tmp_path / "begin")


def test_text_first_and_conversations_after_it_train_one_model(tmp_path: Path, begin: str) -> None:
    text, talks = str(written(tmp_path, sentences=600)), write(tmp_path)
    phases = [
        {"name": "read", "data": text, "until": "4 steps"},
        {"name": "talk", "data": {"train": talks.train, "validation": talks.validation}, "until": "6 steps"},
    ]
    plan = planned(text, begin, phases=phases, **SETTINGS)
    result = api.run(plan, RunDirectory(tmp_path / "run"), clock=BudgetClock(FakeClock().now))
    history = fold(read_entries(RunDirectory(tmp_path / "run").journal))
    assert [len(phase.trials) > 0 for phase in history.phases] == [True, True]
    assert result.validation.n == 24, "one row for each conversation"
    assert "of the answers alone" in result.baseline["name"]
    exported = result.model
    assert (exported / "chat_template.jinja").read_text(encoding="utf-8") == CHATML
    assert json.loads((exported / "multistep.json").read_text(encoding="utf-8")) == {
        "task": "text-generation",
        "conversations": True,
        "train_on": "assistant",
        "context": history.phase.started.recipe.context,
    }
    ends = json.loads((exported / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    assert ends == [tokenizer().convert_tokens_to_ids("<|im_end|>"), 0], "it stops where its turn ends"
    (exhibit,) = json.loads((tmp_path / "run" / "exhibits.json").read_text(encoding="utf-8"))
    assert exhibit["columns"] == ["prompt", "the data's answer", "before training", "after training"]
    assert len(exhibit["rows"]) == 3
    # Answers are written for evaluate where their metric is asked for, though the loss decided.
    plain = api.evaluate(exported, str(talks.validation))
    assert "rouge_l" not in plain["scores"]
    asked = api.evaluate(exported, str(talks.validation), metric=["rouge_l", "exact", "loss"])
    assert list(asked["scores"]) == ["rouge_l", "exact_match", "loss"]
    assert {**asked["scores"]["loss"], "n": 24} == plain["scores"]["loss"], "a conversation's stands in its first row"
    assert asked["scores"]["rouge_l"]["n"] == 27, "turns of the assistant"
    with pytest.raises(PlanError, match=r"unknown metric 'rogue_l'; allowed: .*Did you mean 'rouge_l'"):
        api.evaluate(exported, str(talks.validation), metric="rogue_l")
    with pytest.raises(PlanError, match="metric 'accuracy' cannot be measured here; there are loss"):
        api.evaluate(exported, str(talks.validation), metric="accuracy")


def test_from_nothing_the_tokenizer_has_the_marks_of_turns(tmp_path: Path) -> None:
    talks = write(tmp_path)
    domain, ready = opened(planned(talks, {"layers": 2, "width": 32}))
    hub = domain.template.tokenizer
    assert hub.convert_ids_to_tokens(domain.closing) == "<|im_end|>"
    assert any("the model has no chat template" in note for note in ready.facts.notes)
    assert any("one a row, since this model cannot keep two apart" in note for note in ready.facts.notes)
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{n} + {n} =", "completion": f" {2 * n}"} for n in range(100)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    domain, ready = opened(planned(str(pairs), {"layers": 2, "width": 32}))
    assert hub.decode(0) == domain.template.tokenizer.convert_ids_to_tokens(domain.closing) == "<|endoftext|>"
    assert any("prompt and completion are written one after the other" in note for note in ready.facts.notes)


def test_a_phase_is_opened_alike_whether_or_not_one_was_opened_before_it(tmp_path: Path) -> None:
    hub = tokenizer(None)
    llama(len(hub)).save_pretrained(tmp_path / "base")
    hub.save_pretrained(tmp_path / "base")
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{n} + {n} =", "completion": f" {2 * n}"} for n in range(100)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    talks = write(tmp_path)
    phases = [
        {"name": "talk", "data": {"train": talks.train, "validation": talks.validation}, "until": "4 steps"},
        {"name": "answer", "data": str(pairs), "until": "4 steps"},
    ]
    plan, workshop = planned(str(pairs), str(tmp_path / "base"), phases=phases, **SETTINGS), TextWorkshop()
    both = [workshop.open(plan, phase, lambda: False)[1] for phase in (0, 1)]
    assert [opened(plan, phase)[1] for phase in (0, 1)] == both, "a run that goes on opens its last phase alone"


def test_what_is_trained_on_and_how_far_follows_the_plan(tmp_path: Path, begin: str) -> None:
    talks = write(tmp_path)
    source = {"train": talks.train, "validation": talks.validation}
    domain, ready = opened(planned(source, begin))
    some = sum(int(example.trained.sum()) for example in domain.train)
    assert domain.context == ready.recipe.context
    assert domain.context % 32 == 0
    assert ready.facts.train_examples == domain.order.per_epoch < len(domain.train) / 2, "packed"
    everything, all_ready = opened(planned({**source, "train_on": "all"}, begin))
    assert sum(int(e.trained.sum()) for e in everything.train) > 3 * some
    assert all_ready.fingerprint != ready.fingerprint, "other labels, other scores"
    held = [e.tokens.tolist() for e in domain.held_out["validation"]]
    model = domain.build(0)
    shorter = domain.configure(model, _with_context(ready.recipe, 48))
    assert shorter == 48
    assert max(e.length for e in domain.train) <= 48
    assert [e.tokens.tolist() for e in domain.held_out["validation"]] == held, (
        "scored as before, whatever is trained on"
    )
    batch = domain.batch(5, 4, 0, torch.device("cpu"))
    assert batch[0].shape == batch[1].shape == batch[2].shape
    assert batch[0].shape[1] <= 48
    with pytest.raises(PlanError, match=r"data\.train_on is 'answers'; allowed: 'assistant', 'all'"):
        planned({**source, "train_on": "answers"})


def _with_context(recipe: Any, context: int) -> Any:
    from dataclasses import replace

    return replace(recipe, context=context)


def test_saved_data_sets_are_read_by_their_own_splits(tmp_path: Path, begin: str) -> None:
    import datasets

    turns = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}] for n in range(40)]
    parts = {"train": turns[:30], "validation": turns[30:35], "test": turns[35:]}
    sets = {name: datasets.Dataset.from_dict({"messages": rows}) for name, rows in parts.items()}
    datasets.DatasetDict(sets).save_to_disk(str(tmp_path / "saved"))
    domain, _ = opened(planned(str(tmp_path / "saved"), begin))
    assert [len(domain.train), *(len(part) for part in domain.held_out.values())] == [30, 5, 5]


def test_a_model_without_a_tokenizer_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    llama(260).save_pretrained(tmp_path / "bare")
    with pytest.raises(PlanError, match=r"bare holds no tokenizer \(tokenizer\.json\)"):
        opened(planned(write(tmp_path), str(tmp_path / "bare")))
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"empty\.jsonl: the file is empty"):
        opened(planned(str(tmp_path / "empty.jsonl"), str(tmp_path / "bare")))


# What is read and written in other contexts ---------------------------------------------------------


def talks(asked: int, answered: int) -> ChatSplits:
    """Sixty conversations of so many words a question, and so many an answer."""
    choose = random.Random(0)
    words = [" ".join(choose.choice(["red", "blue", "who"]) for _ in range(asked)) for _ in range(60)]
    found = tuple(
        Conversation((Turn("user", question), Turn("assistant", " ".join(["yes"] * answered))), where=f"x:{i}")
        for i, question in enumerate(words)
    )
    return ChatSplits(found[:40], found[40:50], found[50:], (), "mark")


@pytest.mark.parametrize("architecture", ["nanochat", "gpt2"])
def test_a_model_from_nothing_writes_whatever_its_context_and_is_scored_alike_in_a_shorter_one(
    architecture: str,
) -> None:
    """An answer of 48 tokens stood behind rows of 32, and held-out rows are those of the context at the start."""
    splits = talks(15, 3)
    texts = [turn.content for talk in splits.train for turn in talk.turns]
    preset = Preset(architecture, "bpe", 400, Shape(1, 32, 2, 512))
    domain = ChatDomain(splits, make_preset(preset, [*texts, "system user assistant tool"], MARKS), "assistant")
    recipe = Recipe(context=domain.context, batch_size=4, learning_rate=1e-3)
    model = domain.build(0).eval()
    domain.configure(model, recipe)
    assert domain.context < 48
    (exhibit,) = domain.exhibits(model, torch.device("cpu"))
    assert len(exhibit.rows) == 3
    before = domain.evaluate(model, "validation", sample=False, device=torch.device("cpu")).columns
    if "context" in domain.settings:
        domain.configure(model, replace(recipe, context=24))
        after = domain.evaluate(model, "validation", sample=False, device=torch.device("cpu")).columns
        assert np.array_equal(before["loss"], after["loss"])
    assert ("context" in domain.settings) is (architecture == "nanochat")


def test_a_context_that_leaves_nothing_to_train_on_is_refused_and_changes_nothing() -> None:
    hub = tokenizer()
    maker = TransformersMaker(llama(len(hub)), hub, pretrained=True, context=None, name="tiny")
    domain = ChatDomain(talks(30, 3), maker, "assistant")
    model, recipe = domain.build(0), Recipe(context=domain.context, batch_size=4, learning_rate=1e-3)
    with pytest.raises(DataError, match=r"recipe.context is 64, and 0 conversations .* at least 4 are needed"):
        domain.configure(model, replace(recipe, context=64))
    domain.configure(model, recipe)
    assert len(domain.train) == 40
    assert len(domain.batch(0, 4, 0, torch.device("cpu"))[0]) == 4
