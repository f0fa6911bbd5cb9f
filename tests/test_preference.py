"""Preferences: pairs read from every form, the loss of DPO, a reference that is scored once, and runs that learn."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from cases_chat import llama, small_llama, tokenizer
from corpora import OBJECTS, SUBJECTS, VERBS, english
from runs import Killed
from test_chat_runs import talks

from multistep import api
from multistep.cli import main
from multistep.core.evidence.metric import METRICS, Evaluation
from multistep.core.values.events import CheckpointSaved, Entry, GuardScored, PhaseStarted
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.recipe import Recipe
from multistep.data.files import read_table
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import read_entries
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock
from multistep.errors import DataError, PlanError
from multistep.tasks import workshop_for
from multistep.tasks.chat.conversation import Turn
from multistep.tasks.chat.task import ChatDomain
from multistep.tasks.preference.load import load_pairs
from multistep.tasks.preference.pairs import Pair, read_pairs
from multistep.tasks.preference.score import LengthRule
from multistep.tasks.preference.task import PreferenceDomain
from multistep.tasks.text.causal import TransformersMaker
from multistep.tasks.text.models import load_model
from multistep.tasks.writing.workshop import rows_at_once

ASK, GOOD, BAD = "2 + 2?", "4", "5"


def lines(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def told(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def read(folder: Path, *rows: object) -> tuple[list[Pair], list[str]]:
    return read_pairs(read_table(Path(lines(folder / "pairs.jsonl", *rows))))


def sentences(rows: int, seed: int = 0) -> list[dict[str, str]]:
    """Who does it is asked; the right name is chosen over another one."""
    choose = random.Random(seed)
    found = []
    for _ in range(rows):
        who, other = choose.sample(SUBJECTS, 2)
        found.append(
            {
                "prompt": f"{who} {choose.choice(VERBS)} {choose.choice(OBJECTS)}. Who?",
                "chosen": who,
                "rejected": other,
            }
        )
    return found


# Reading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASK, "chosen": GOOD, "rejected": BAD},
        {"prompt": [told("user", ASK)], "chosen": GOOD, "rejected": [told("assistant", BAD)]},
        {"prompt": ASK, "chosen": [told("assistant", GOOD)], "rejected": [told("assistant", BAD)]},
        {
            "chosen": [told("user", ASK), told("assistant", GOOD)],
            "rejected": [told("user", ASK), told("assistant", BAD)],
        },
        {
            "prompt": ASK,
            "chosen": [told("user", ASK), told("assistant", GOOD)],
            "rejected": [told("user", ASK), told("assistant", BAD)],
        },
        {"prompt": ASK, "chosen": json.dumps([told("assistant", GOOD)]), "rejected": BAD},
    ],
)
def test_every_form_of_a_pair_is_the_same_pair(tmp_path: Path, row: object) -> None:
    ((pair,), _) = read(tmp_path, row)
    assert pair.answers == (GOOD, BAD)
    assert [(turn.role, turn.content) for turn in pair.prompt] == [("user", ASK)]
    assert pair.where.endswith("pairs.jsonl:1")


def test_a_shared_beginning_may_be_long(tmp_path: Path) -> None:
    before = [told("system", "Sums."), told("user", "1 + 1?"), told("assistant", "2"), told("user", ASK)]
    row = {"chosen": [*before, told("assistant", GOOD)], "rejected": [*before, told("assistant", BAD)]}
    ((pair,), _) = read(tmp_path, row)
    assert (pair.shared, pair.answers) == (4, (GOOD, BAD))


def test_rows_that_teach_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    good = {"prompt": ASK, "chosen": GOOD, "rejected": BAD}
    rows = [
        good,
        {**good, "rejected": f" {GOOD}\n"},
        {**good, "rejected": "  "},
        {**good, "prompt": ""},
        {"prompt": None, "chosen": GOOD, "rejected": BAD},
        {"prompt": None, "chosen": [told("user", "a"), told("assistant", GOOD)], "rejected": [told("user", "b")]},
        {**good, "rejected": GOOD},
    ]
    found, notes = read(tmp_path, *rows)
    assert len(found) == 1
    origin = tmp_path / "pairs.jsonl"
    assert notes[0] == f"{origin}: pairs from 'prompt', 'chosen', 'rejected'"
    assert notes[1:] == [
        f"{origin}: rows left out, the two answers are equal: 2 of 7 (first: {origin}:2)",
        f"{origin}: rows left out, an empty answer: 1 of 7 (first: {origin}:3)",
        f"{origin}: rows left out, an empty prompt: 1 of 7 (first: {origin}:4)",
        f"{origin}: rows left out, no prompt: 1 of 7 (first: {origin}:5)",
        f"{origin}: rows left out, no prompt, and the two conversations begin differently: 1 of 7 (first: {origin}:6)",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "chosen": "b"}], r"no pairs of answers in columns 'prompt', 'chosen'; allowed: 'prompt'"),
        ([{"prompt": "a", "chosen": "b", "rejected": 3}], r"pairs.jsonl:1: 'rejected' is '3', a int; allowed: a list"),
        (
            [{"prompt": "a", "chosen": "b", "rejected": "b"}],
            r"no row holds a pair that can be learnt from: the two answ",
        ),
    ],
)
def test_what_is_no_pair_is_refused_with_its_row(tmp_path: Path, rows: Sequence[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, *rows)


def test_pairs_of_one_prompt_stay_in_one_split(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i % 20}?", "chosen": f"{i}", "rejected": "no"} for i in range(200)]
    splits = load_pairs(DataSpec(source=lines(tmp_path / "p.jsonl", *rows)))
    keys = [{pair.key() for pair in part} for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, keys)) == 20, "no prompt in two splits"
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [160, 20, 20]


# Loss and scores ------------------------------------------------------------------------------------


def opened(folder: Path, rows: Sequence[object], **recipe: Any) -> tuple[PreferenceDomain, torch.nn.Module]:
    (folder / "model").mkdir(exist_ok=True)
    maker = load_model(small_llama(folder / "model"))
    domain = PreferenceDomain(load_pairs(DataSpec(source=lines(folder / "pairs.jsonl", *rows))), maker)
    model = domain.build(0).eval()
    domain.configure(model, Recipe(**recipe))
    return domain, model


def log_p(model: torch.nn.Module, text: str, answer: str, hub: Any) -> float:
    """Of an answer and the token that closes it, after a prompt; token by token, as the paper writes it."""
    before = hub.encode(text, add_special_tokens=False)
    tokens = [*before, *hub.encode(answer, add_special_tokens=False), hub.convert_tokens_to_ids("<|im_end|>")]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    steps = F.log_softmax(logits, -1)
    return float(sum(steps[i - 1, tokens[i]] for i in range(len(before), len(tokens))))


def test_the_loss_is_that_of_the_paper(tmp_path: Path) -> None:
    rows = sentences(40)
    domain, reference = opened(tmp_path, rows, beta=0.3)
    with torch.inference_mode():
        domain.compute(reference, torch.device("cpu"))
    torch.manual_seed(1)
    policy = domain.build(0).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    numbers, _ = domain.order.indices(0, 5, 0)
    batch = domain.batch(0, 5, 0, torch.device("cpu"))
    with torch.no_grad():
        loss, count = domain.loss(policy, batch, 0.0)
        smoothed, _ = domain.loss(policy, batch, 0.1)
    hub = load_model(str(tmp_path / "model")).hub_tokenizer
    wanted = turned = 0.0
    for i in numbers:
        pair = domain.train[int(i)].source
        asked = f"<|im_start|>user\n{pair.prompt[0].content}<|im_end|>\n<|im_start|>assistant\n"
        ratios = [log_p(policy, asked, a, hub) - log_p(reference, asked, a, hub) for a in pair.answers]
        margin = 0.3 * (ratios[0] - ratios[1])
        wanted += math.log1p(math.exp(-margin))
        turned += math.log1p(math.exp(margin))
    assert int(count) == 5
    assert float(loss) == pytest.approx(wanted, rel=1e-4)
    assert abs(wanted - 5 * math.log(2)) > 0.05, "the policy differs from the reference"
    assert float(smoothed) == pytest.approx(0.9 * wanted + 0.1 * turned, rel=1e-4)


def test_at_the_start_nothing_is_preferred(tmp_path: Path) -> None:
    domain, model = opened(tmp_path, sentences(300))
    device = torch.device("cpu")
    with torch.inference_mode():
        domain.compute(model, device)
        for sample in (True, False):
            found = domain.evaluate(model, "validation", sample=sample, device=device)
            assert np.all(found.columns["margin"] == 0.0), "to the bit"
            assert METRICS["preference_accuracy"].score(found) == 0.5
            assert METRICS["loss"].score(found) == pytest.approx(math.log(2))
        loss, count = domain.loss(model, domain.batch(0, 8, 0, device), 0.0)
    assert float(loss) / int(count) == pytest.approx(math.log(2), abs=1e-4)


def test_ties_are_half_right_and_pairs_of_one_prompt_are_one_block(tmp_path: Path) -> None:
    columns = {"margin": np.array([1.0, -2.0, 0.0, 3.0]), "count": np.ones(4), "block": np.array([0.0, 0.0, 1.0, 2.0])}
    table = Evaluation(columns)
    assert METRICS["preference_accuracy"].score(table) == 0.625
    assert METRICS["margin"].score(table) == 0.5
    assert METRICS["preference_accuracy"].interval(table).blocks == 3


def test_the_baseline_is_the_longer_or_the_shorter_answer(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "chosen": "a" * (1 + i % 4), "rejected": "bb"} for i in range(200)]
    domain, _ = opened(tmp_path, rows)
    name, found = domain.baseline("validation")
    longer = sum(len(p.source.answers[0]) > 2 for p in domain.train)
    shorter = sum(len(p.source.answers[0]) < 2 for p in domain.train)
    assert name == "the longer answer"
    assert LengthRule.fit(domain.train).right == pytest.approx((longer + 1) / (longer + shorter + 2))
    sizes = [len(p.source.answers[0]) for p in domain.held_out["validation"]]
    assert [float(np.sign(m)) for m in found.columns["margin"]] == [float(np.sign(s - 2)) for s in sizes]


def test_pairs_that_do_not_fit_are_left_out_whole(tmp_path: Path) -> None:
    rows: list[Any] = sentences(200)
    rows[7] = {**rows[7], "rejected": "never " * 60}
    (tmp_path / "model").mkdir()
    maker = load_model(small_llama(tmp_path / "model"))
    splits = load_pairs(DataSpec(source=lines(tmp_path / "pairs.jsonl", *rows)))
    domain = PreferenceDomain(splits, maker, 160)
    everything = [*domain.train, *domain.held_out["validation"], *domain.held_out["test"]]
    assert len(everything) == 199
    assert any("does not fit into the context of 160 tokens: 1 of" in n and "pairs.jsonl:8" in n for n in domain.notes)
    assert max(pair.length for pair in everything) <= 160


def test_what_is_written_without_a_template_of_its_own_is_exported_with_the_default_one(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    hub = tokenizer(None)
    maker = TransformersMaker(llama(len(hub)), hub, pretrained=True, context=None, name="tiny")
    good, bad = [told("assistant", GOOD)], [told("assistant", BAD)]
    rows = [{"prompt": [told("user", f"{i}?")], "chosen": good, "rejected": bad} for i in range(40)]
    domain = PreferenceDomain(load_pairs(DataSpec(source=lines(tmp_path / "pairs.jsonl", *rows))), maker)
    assert any("the exported tokenizer says so" in note for note in domain.notes)
    (tmp_path / "out").mkdir()
    domain.export(domain.build(0), tmp_path / "out", "card")
    found = AutoTokenizer.from_pretrained(tmp_path / "out")
    written = found.apply_chat_template([told("user", ASK)], tokenize=False, add_generation_prompt=True)
    assert written == domain.template.render((Turn("user", ASK),), "here", prompt=True)


def test_a_pass_holds_half_as_many_pairs_as_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain, _ = opened(tmp_path, sentences(40))
    maker = load_model(str(tmp_path / "model"))
    monkeypatch.setattr(maker, "at_once", lambda context: 7)
    assert rows_at_once(maker, domain) == 3
    assert rows_at_once(maker, ChatDomain(talks(8, 2), maker, "assistant")) == 7


def test_as_many_pairs_are_taken_as_the_budget_bears_to_have_scored(tmp_path: Path) -> None:
    plan = {**started(tmp_path), "budget": "60s"}
    everything = workshop_for(plan_from(plan)).open(plan_from(plan), 0, lambda: False)[1]
    assert everything.facts.train_examples == 240
    with pytest.MonkeyPatch.context() as patch:
        # As much as 240 pairs of 2 x 40 tokens or so would take of a model a thousand times as large.
        patch.setattr("multistep.tasks.text.tuning.OF_SCORING", 2e6)
        patch.setattr("multistep.tasks.text.tuning.tuning_speed", lambda _: 1.2e11)
        patch.setattr("multistep.tasks.text.tuning.ENOUGH_SCORED", 2000)
        patch.setattr("multistep.tasks.text.tuning.DEARER", 1000.0)
        few = workshop_for(plan_from(plan)).open(plan_from(plan), 0, lambda: False)[1]
        again = workshop_for(plan_from(plan)).open(plan_from(plan), 0, lambda: False)[1]
    assert 16 <= few.facts.train_examples < 100
    note = next(note for note in few.facts.notes if note.startswith("train: "))
    assert note == (
        f"train: {few.facts.train_examples} of 240 pairs, drawn by lot, are learnt from, since the budget bears no "
        "more to be scored with the weights that it begins with"
    )
    assert few.facts.validation_tokens == 16
    assert few.fingerprint == again.fingerprint != everything.fingerprint


# Runs -----------------------------------------------------------------------------------------------

RECIPE = {"learning_rate": 3e-3, "batch_size": 8, "warmup_steps": 0, "optimizer": "adamw"}


def started(folder: Path, rows: int = 300) -> dict[str, Any]:
    (folder / "begin").mkdir()
    return {
        "task": "preference",
        "model": small_llama(folder / "begin"),
        "data": lines(folder / "pairs.jsonl", *sentences(rows)),
        "recipe": RECIPE,
    }


def execute(plan: Plan, folder: Path, **more: Any) -> None:
    api.run(plan, RunDirectory(folder), clock=BudgetClock(FakeClock().now), **more)


def test_a_tiny_model_learns_which_name_is_right(tmp_path: Path) -> None:
    plan = plan_from({**started(tmp_path, 600), "phases": [{"name": "prefer", "until": "150 steps"}]})
    execute(plan, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (record["metric"], record["goal"], record["unit"]) == ("preference_accuracy", "maximize", "of pairs")
    assert record["validation"]["score"] > 0.9
    assert record["test"]["low"] > 0.7
    assert record["scores"]["validation"]["margin"] > 0.5
    assert record["scores"]["validation"]["loss"] < 0.5
    assert record["baseline"]["name"] in ("the longer answer", "the shorter answer")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    hub: Any = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    ends = json.loads((tmp_path / "run" / "model" / "generation_config.json").read_text())["eos_token_id"]
    assert hub.convert_tokens_to_ids("<|im_end|>") in ends
    asked = "<|im_start|>user\nthe cat sees a river. Who?<|im_end|>\n<|im_start|>assistant\n"
    assert log_p(model, asked, "the cat", hub) > log_p(model, asked, "a dog", hub)


def test_the_reference_is_scored_once_and_survives_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases = [{"name": "one", "until": "40 steps"}, {"name": "two", "until": "20 steps", "recipe": {"beta": 0.2}}]
    plan = plan_from({**started(tmp_path), "phases": phases})
    scored: list[int] = []
    real = PreferenceDomain.compute

    def counted(self: PreferenceDomain, *given: Any) -> None:
        had = bool(self.tensors())
        real(self, *given)
        if not had:
            scored.append(sum(len(t) for t in self.tensors().values()))

    monkeypatch.setattr(PreferenceDomain, "compute", counted)
    execute(plan, tmp_path / "calm")
    assert scored == [300, 300], "each pair once in each phase"
    calm = json.loads((tmp_path / "calm" / "result.json").read_text())
    # Before anything of the second phase was saved its reference is lost with it; a checkpoint holds it.
    for kind, again in ((PhaseStarted, [300]), (CheckpointSaved, list[int]())):

        def kill(entry: Entry, history: Any) -> None:
            if len(history.phases) == 2 and isinstance(entry.event, kind):  # noqa: B023
                raise Killed

        folder, before = tmp_path / kind.__name__, len(scored)
        with pytest.raises(Killed):
            execute(plan, folder, on_entry=kill)
        assert len(scored) - before == (1 if kind is PhaseStarted else 2)
        before = len(scored)
        execute(plan, folder)
        assert scored[before:] == again
        torn = json.loads((folder / "result.json").read_text())
        assert torn["weights_sha256"] == calm["weights_sha256"]
        assert torn["validation"] == calm["validation"]


def test_phases_of_a_models_life_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text, instructions, preferences; what the instructions taught is guarded while a preference is learnt."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(english(1500))
    asked = sentences(200, seed=3)
    lines(
        tmp_path / "chats.jsonl",
        *({"messages": [told("user", row["prompt"]), told("assistant", row["chosen"])]} for row in asked),
    )
    lines(tmp_path / "pairs.jsonl", *sentences(200))
    (tmp_path / "plan.yaml").write_text(
        """
task: text-generation
data: text.txt
model: {name: nanochat, layers: 1, width: 32, tokenizer: characters}
phases:
  - {name: text, until: 30 steps}
  - {name: instructions, data: chats.jsonl, until: 30 steps}
  - name: preferences
    task: preference
    data: pairs.jsonl
    until: 20 steps
    guard: {data: chats.jsonl, at_most_worse: 5}
"""
    )
    monkeypatch.setattr(sys, "argv", ["multistep", "train", "plan.yaml", "--out", "run"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["metric"] == "preference_accuracy"
    (guard,) = record["guards"]
    assert (guard["phase"], guard["data"], guard["metric"], guard["forgot"]) == (2, "chats.jsonl", "loss", [])
    scored = [e.event for e in read_entries(tmp_path / "run" / "journal.jsonl") if isinstance(e.event, GuardScored)]
    assert [one.trial for one in scored] == ["2.base", "2.control"]
    base, control = (next(t for t in record["trials"] if t["id"] == name) for name in ("2.base", "2.control"))
    assert base["score"] == 0.5
    chats = next(t for t in record["trials"] if t["id"] == "1.control")
    assert base["guard"]["score"] == pytest.approx(chats["score"], rel=0.05), "the same held-out conversations"
    assert control["guard"]["worse"]["score"] != 0.0
    notes = json.loads((tmp_path / "run" / "resolved.json").read_text())["phases"][2]["facts"]["notes"]
    assert any("turns are written as <|im_start|>role" in note for note in notes), "as the instructions were"


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    content = started(tmp_path)
    nothing = plan_from({**content, "model": "nanochat"})
    with pytest.raises(
        PlanError, match="a preference between answers is taught to a model that writes them; name a pre"
    ):
        workshop_for(nothing).open(nothing, 0, lambda: False)
    with pytest.raises(PlanError, match="beta is 0; allowed: more than 0"):
        plan_from({**content, "recipe": {"beta": 0}})
    with pytest.raises(PlanError, match=r"recipe\.beta is for phases whose task is preference; leave it out"):
        plan_from({**content, "task": "text-generation", "recipe": {"beta": 0.1}})
    with pytest.raises(
        PlanError, match="metric 'perplexity' cannot be measured for preference; allowed: preference_accuracy, m"
    ):
        plan_from({**content, "metric": "perplexity"})


def test_pairs_in_the_wrong_place_are_named(tmp_path: Path) -> None:
    content = started(tmp_path)
    plan = plan_from({**content, "task": "text-generation"})
    with pytest.raises(DataError, match="these are pairs of a chosen and a rejected answer; learn from them by task"):
        workshop_for(plan).open(plan, 0, lambda: False)
    with pytest.raises(DataError, match="scored against the weights that a phase began with, which a model folder"):
        api.evaluate(content["model"], content["data"])


def test_the_recipe_is_that_of_fine_tuning_at_a_tenth_of_its_rate(tmp_path: Path) -> None:
    content = {**started(tmp_path), "recipe": {}}
    plan = plan_from({**content, "budget": "3 epochs"})
    _, ready = workshop_for(plan).open(plan, 0, lambda: False)
    tuned = replace(plan, task="text-generation")
    assert tuned.task == "text-generation"
    assert (ready.recipe.beta, ready.recipe.optimizer) == (0.1, "adamw")
    assert ready.recipe.learning_rate == pytest.approx(1e-4), "a tenth of 1e-3, of a model so small"
    assert ready.recipe.batch_size is not None
    assert ready.recipe.batch_size <= 8
    assert ready.metrics == ("preference_accuracy", "margin", "loss")
    assert ready.facts.loss_unit == "nats per pair"
    assert not ready.rate_open
    given = plan_from({**content, "recipe": {"learning_rate": 2e-5, "beta": 0.5}})
    _, ready = workshop_for(given).open(given, 0, lambda: False)
    assert (ready.recipe.learning_rate, ready.recipe.beta) == (2e-5, 0.5)
