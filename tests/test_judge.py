"""Runs that are judged by answers: what decides, what stands beside it, and that other verbs say the same."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cases_chat import SETTINGS, small_llama

from multistep import api
from multistep.core.evidence.answers import exact_match, token_f1
from multistep.core.evidence.metric import metric_named
from multistep.core.values.plan import DataSpec
from multistep.engine.clock import BudgetClock
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock
from multistep.errors import PlanError
from multistep.tasks.chat.conversation import Conversation, Turn
from multistep.tasks.chat.evaluate import table
from multistep.tasks.chat.judge import Judge
from multistep.tasks.chat.template import ChatTemplate
from multistep.tasks.text.models import load_model


def run(folder: Path, data: DataSpec, metric: str, steps: int = 60) -> api.Result:
    model = small_llama(folder / "begin")
    phases = [{"name": "only", "until": f"{steps} steps"}]
    content = {"task": "text-generation", "model": model, "metric": metric, "phases": phases, **SETTINGS}
    plan = plan_from({**content, "data": data})
    return api.run(plan, RunDirectory(folder / "run"), clock=BudgetClock(FakeClock().now))


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_a_run_is_judged_by_the_answers_that_it_writes(tmp_path: Path) -> None:
    data = write_opinions(tmp_path)
    assert data.test
    result = run(tmp_path, data, "em", steps=150)
    assert result.test
    assert result.metric == "exact_match"
    rows = rows_of(data.test)
    prompts, references = [row["prompt"] for row in rows], [row["completion"] for row in rows]
    answers = [p.output for p in api.predict(result.model, prompts, tokens=40)]
    expected = [exact_match(a, r) for a, r in zip(answers, references, strict=True)]
    assert result.test.score == pytest.approx(np.mean(expected))
    assert result.test.score > 0.5
    assert result.baseline["name"] == "always 'good'"
    assert result.baseline["test"]["score"] == pytest.approx(np.mean([r == "good" for r in references]))
    scores = api.evaluate(result.model, data.test)["scores"]
    assert scores["exact_match"]["score"] == pytest.approx(result.test.score)
    assert scores["exact_match"]["low"] == pytest.approx(result.test.low)
    assert scores["token_f1"]["score"] == pytest.approx(
        np.mean([token_f1(a, r) for a, r in zip(answers, references, strict=True)])
    )
    assert {"loss", "perplexity", "rouge_l"} <= set(scores)
    (exhibit,) = json.loads((tmp_path / "run/exhibits.json").read_text(encoding="utf-8"))
    assert exhibit["columns"] == ["prompt", "the data's answer", "before training", "after training"]


def write_opinions(folder: Path) -> DataSpec:
    """Prompts with one of two completions, of which one begins the other."""
    choose = random.Random(0)
    for split, size in {"train": 200, "validation": 24, "test": 24}.items():
        lines = []
        for _ in range(size):
            good = choose.random() < 0.6
            word = choose.choice(["fine", "nice"] if good else ["dull", "grim"])
            lines.append(json.dumps({"prompt": f"It was {word}.", "completion": "good" if good else "good grief"}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    train, validation, test = (str(folder / f"{split}.jsonl") for split in ("train", "validation", "test"))
    return DataSpec(train=train, validation=validation, test=test)


def test_a_run_is_judged_by_the_likeliest_of_a_few_answers(tmp_path: Path) -> None:
    data = write_opinions(tmp_path)
    assert data.test
    result = run(tmp_path, data, "answer_accuracy", steps=150)
    assert result.test
    references = [row["completion"] for row in rows_of(data.test)]
    assert result.baseline["name"] == "always 'good'"
    assert result.baseline["test"]["score"] == pytest.approx(np.mean([r == "good" for r in references]))
    assert result.test.score > 0.9, "the word decides, and is learnt"
    about = json.loads((result.model / "multistep.json").read_text(encoding="utf-8"))
    assert about["judge"]["fixed"] == ["good", "good grief"]
    scores = api.evaluate(result.model, data.test)["scores"]
    assert scores["answer_accuracy"]["score"] == pytest.approx(result.test.score)
    assert "exact_match" not in scores, "nothing was written out for it"
    plain = tmp_path / "plain"
    plain.mkdir()
    with pytest.raises(
        PlanError, match=r"'answer_accuracy' cannot be measured for text-generation on this data; allowed: loss"
    ):
        run(plain, write_free(plain), "answer_accuracy")


def write_free(folder: Path) -> DataSpec:
    """Every completion another."""
    lines = [json.dumps({"prompt": f"Say {i}.", "completion": f"{i}"}) for i in range(120)]
    (folder / "all.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DataSpec(source=str(folder / "all.jsonl"))


def test_each_turn_is_judged_behind_the_true_history_and_a_conversation_is_one_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [("user", "one"), ("assistant", "1"), ("user", "two"), ("assistant", "2"), ("user", "three")]
    long = Conversation(tuple(Turn(*turn) for turn in [*said, ("assistant", "3")]))
    short = Conversation((Turn("user", "one"), Turn("assistant", "1")))
    template = ChatTemplate(load_model(small_llama(tmp_path)).hub_tokenizer, [long])
    judge = Judge.of("exact_match", template, (0,), 64, [long, short])
    assert judge.usual == "1"
    asked: list[Conversation] = []

    def write(_self: Judge, _model: Any, prompts: Sequence[Conversation], _most: int) -> list[str]:
        asked.extend(prompts)
        return ["1", "?", "3", "1"]

    monkeypatch.setattr(Judge, "write", write)
    columns = judge.columns(torch.nn.Identity(), [long, short])
    assert [prompt.turns for prompt in asked] == [long.turns[:1], long.turns[:3], long.turns[:5], short.turns[:1]]
    examples: Any = [SimpleNamespace(trained=np.ones(n), bytes=n, source=c) for n, c in ((6, long), (2, short))]
    scored = table(np.array([3.0, 1.0]), examples, np.array([4, 7]), columns)
    assert scored.columns["block"].tolist() == [4, 4, 4, 7]
    found = metric_named("exact_match").interval(scored)
    assert (found.score, found.blocks) == (0.75, 2)
    assert metric_named("loss").score(scored) == pytest.approx(4 / 8), "each token counts once"
    always = table(np.array([3.0, 1.0]), examples, np.array([4, 7]), judge.usual_columns([long, short]))
    assert metric_named("exact_match").score(always) == 0.5
