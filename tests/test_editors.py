"""Editors and shells: the schema of plans, what `init` writes, what is completed, and at what cost."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import multistep
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


# What an editor shows -------------------------------------------------------------------------------

PUBLIC = [name for name in multistep.__all__ if inspect.isfunction(getattr(multistep, name))]
METHODS = ["predict", "outputs", "evaluate", "load", "plot"]


@pytest.mark.parametrize("name", [*PUBLIC, *(f"Result.{name}" for name in METHODS)])
def test_a_function_has_its_keywords_and_says_what_each_is(name: str) -> None:
    owner = multistep.Result if "." in name else multistep
    function = getattr(owner, name.rpartition(".")[2])
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    assert not [p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    text = inspect.getdoc(function) or ""
    for parameter in parameters:
        assert parameter.annotation is not parameter.empty, parameter.name
        assert re.search(
            rf"^ {{4}}[\w, ()]*\b{parameter.name}\b[\w, ()]*: |[,] {parameter.name}\b.*: ", text, re.MULTILINE
        ), parameter.name
    assert "\nRaises\n" in text
    assert "\nReturns\n" in text or inspect.signature(function).return_annotation == "None"


def test_an_editor_sees_the_keywords_through_the_lazy_names() -> None:
    jedi = pytest.importorskip("jedi", reason="jedi is not installed: it is what notebooks complete by")
    code = "import multistep\nmultistep.train("
    found = jedi.Script(code).get_signatures(2, len("multistep.train("))
    names = [{parameter.name for parameter in one.params} for one in found]
    assert any({"task", "data", "budget", "track", "validation"} <= each for each in names), names
    code = "import multistep\nresult = multistep.train(task='x')\nresult."
    offered = {one.name for one in jedi.Script(code).complete(3, len("result."))}
    assert {"predict", "evaluate", "plot", "score", "test"} <= offered


NOTEBOOK = """
import pathlib
import multistep
pathlib.Path("a.txt").write_text("the cat sat on the mat. " * 400)
"""
CELL = """
result = multistep.train(task="text-generation", data="a.txt", budget="12 steps", moves=[], out="run", device="cpu",
    model={"layers": 1, "width": 16, "context": 16, "tokenizer": "characters"}, recipe={"batch_size": 2})
result
"""


@pytest.mark.slow
def test_a_notebook_shows_a_run_and_its_result_however_often_the_cell_is_run(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install nbclient ipykernel")
    cells = [NOTEBOOK, CELL, CELL, "axes = result.plot()\n(axes.get_xlabel(), len(axes.lines) > 0)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    # The kernel is a process of its own, whose warnings are nobody's here; what it needs it finds by PYTHONPATH.
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    first, again, drawn = notebook.cells[1], notebook.cells[2], notebook.cells[3]
    views = [html_of(output) for output in first.outputs if output.output_type == "display_data"]
    assert len(views) == 1  # one picture, which was replaced as the run went on
    assert "<pre" in views[0]
    assert "12" in views[0]
    results = [html_of(output) for output in first.outputs if output.output_type == "execute_result"]
    assert len(results) == 1
    assert "<table" in results[0]
    assert "95% interval" in results[0]
    assert html_of(again.outputs[-1]) == results[0]
    assert any("('step', True)" in str(output.get("data", {}).get("text/plain")) for output in drawn.outputs)


def html_of(output: Any) -> str:
    return str(output.data.get("text/html", ""))
