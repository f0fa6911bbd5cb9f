"""Editors and shells: the schema of plans, what `init` writes, what is completed, and at what cost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from multistep import completing
from multistep.core.values.plan import DataSpec, ModelSpec
from multistep.core.values.recipe import RECIPE_KEYS
from multistep.engine.planfile import plan_from, read_plan
from multistep.engine.schema import plan_schema
from multistep.errors import PlanError

ROOT = Path(__file__).parents[1]


def every_key(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    parts = {"": schema, **schema["definitions"]}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part["properties"].items()}


def test_every_key_has_its_description_and_the_names_are_those_that_are_read() -> None:
    keys = every_key(plan_schema())
    assert all(len(value["description"]) > 15 for value in keys.values())
    assert {key for key in keys if key.startswith("Recipe.")} == {f"Recipe.{key}" for key in RECIPE_KEYS}
    assert {key for key in keys if key.startswith("ModelSpec.")} == {
        f"ModelSpec.{key}" for key in ModelSpec.__dataclass_fields__
    }
    assert {key for key in keys if key.startswith("DataSpec.")} == {
        f"DataSpec.{key}" for key in DataSpec.__dataclass_fields__
    }


GOOD = """
{task: text-classification, data: a.csv}
{task: text-classification, data: {train: a.csv, validation: 0.2, test: 0, header: no}, budget: 10 minutes}
{task: text-generation, data: python-manual, model: gpt2, seed: null, moves: []}
{task: text-generation, data: a.txt, model: {layers: 2, tokenizer: bpe}, moves: [rate-down], budget: 2000 steps}
{task: text-generation, data: a.txt, recipe: {betas: [0.9, 0.95], learning_rate: 1.0e-3, compile: on, frozen: [a*]}}
{task: text-generation, data: a.txt, phases: [{until: 3 epochs}, {until: stable, recipe: {optimizer: sgd}}]}
{task: text-generation, data: a.txt, phases: [{name: b, guard: {data: {source: b.txt}, at_most_worse: 0.1}}]}
"""
BAD = """
{task: text-classification}
{task: text-clasification, data: a.csv}
{task: text-generation, data: a.txt, budget: 10}
{task: text-generation, data: a.txt, optimiser: sgd}
{task: text-generation, data: a.txt, recipe: {optimizer: adamx}}
{task: text-generation, data: a.txt, moves: [rate-sideways]}
{task: text-generation, data: a.txt, phases: [{until: 3 epochs, untill: stable}]}
{task: text-generation, data: {source: a.txt, validaton: 0.2}}
"""


def test_the_schema_takes_what_is_read_and_refuses_what_is_not() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: it is among the dev extras")
    from ruamel.yaml import YAML

    schema = plan_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    for text in GOOD.strip().splitlines():
        content = YAML(typ="safe").load(text)
        plan_from(content)
        assert not list(validator.iter_errors(content)), text
    for text in BAD.strip().splitlines():
        content = YAML(typ="safe").load(text)
        with pytest.raises(PlanError):
            plan_from(content)
        assert list(validator.iter_errors(content)), text


def test_the_plans_in_the_docs_fit_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: it is among the dev extras")
    from ruamel.yaml import YAML

    validator = jsonschema.Draft7Validator(plan_schema())
    seen = 0
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for block in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            content = YAML(typ="safe").load(block)
            if isinstance(content, dict) and "task" in content and "data" in content:
                seen += 1
                assert not [error.message for error in validator.iter_errors(content)], f"{page}\n{block}"
    assert seen >= 3


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from multistep.cli import app; app(prog_name='multistep')", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_init_writes_a_plan_that_is_read_with_the_schema_beside_it(tmp_path: Path) -> None:
    done = run(tmp_path, "init", "--task", "text-classification", "--data", "reviews: of films.csv", "--budget", "1h")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "plan.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=plan.schema.json\n")
    assert read_plan(tmp_path / "plan.yaml") == plan_from(
        {"task": "text-classification", "data": "reviews: of films.csv", "budget": "1h"}
    )
    # What stands in comments is what would be the case anyway, so that whoever uncomments it changes nothing.
    more = re.sub(r"^# (\w+: )", r"\1", text, flags=re.MULTILINE)
    assert "\nmetric: accuracy\n" in more
    (tmp_path / "more.yaml").write_text(more, encoding="utf-8")
    assert read_plan(tmp_path / "more.yaml").seed == 0
    assert json.loads((tmp_path / "plan.schema.json").read_text(encoding="utf-8")) == plan_schema()
    again = run(tmp_path, "init", "--task", "text-classification", "--data", "other.csv")
    assert again.returncode
    assert (tmp_path / "plan.yaml").read_text(encoding="utf-8") == text


def completed(folder: Path, *words: str) -> list[str]:
    line = " ".join(("multistep", *words))
    told = {"_MULTISTEP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    done = run(folder, **told)
    assert not done.stderr
    return done.stdout.split()


def test_shells_complete_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("runs/one", "runs/two"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs/one/journal.jsonl").touch()
    assert completed(tmp_path, "show", "runs/") == ["runs/one", "runs/two/"]
    assert completed(tmp_path, "train", "--track", "mlflow,wa") == ["mlflow,wandb"]
    assert completed(tmp_path, "train", "--set", "recipe.optim") == ["recipe.optimizer="]
    monkeypatch.chdir(tmp_path)
    assert completing.runs("")[0] == "runs/one"
    assert completing.tasks("image") == ["image-classification"]
    assert completing.metrics("accu") == ["accuracy"]
    ours = completing.settings("recipe.optimizer=ad")
    assert ours == [f"recipe.optimizer={name}" for name in ("adamw", "adam", "adafactor")]
    assert "moves=[rate-down]" in completing.settings("moves=")


def test_completing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from multistep import cli, completing as c; "
        "c.runs(''), c.tasks(''), c.trackers(''), c.settings('recipe.'), c.settings('recipe.optimizer='); "
        "print([m for m in ('torch', 'numpy', 'pydantic', 'transformers', 'rich', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
