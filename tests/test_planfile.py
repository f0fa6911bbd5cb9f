"""Plans from files, settings and keywords; and what is said about those that are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from multistep.core.units import Amount, Unit
from multistep.engine.planfile import plan_from, read_plan, to_yaml
from multistep.engine.rundir import plan_hash
from multistep.errors import PlanError

HEAD = "task: text-generation\ndata: corpus.txt\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_full_plan_is_read_and_written_back_equal(tmp_path: Path) -> None:
    text = """
task: text-generation
data: {train: a.txt, validation: b.txt}
model: {name: nanochat, width: 64, tokenizer: characters}
metric: bits_per_byte
budget: 1h30m
seed: 3
tolerance: 0.01
recipe: {optimizer: adamw, learning_rate: 5e-5, betas: [0.9, 0.95]}
phases:
  - {name: warm, until: 3 epochs, recipe: {frozen: ["embedding*"]}}
  - {until: stable}
"""
    plan = read_plan(written(tmp_path, text))
    assert plan.budget == Amount(5400.0, Unit.SECONDS)
    assert plan.phase(0).recipe == {
        "optimizer": "adamw",
        "learning_rate": 5e-5,
        "betas": (0.9, 0.95),
        "frozen": ("embedding*",),
    }
    assert plan.phase(1).name == "phase 2"
    again = read_plan(written(tmp_path, to_yaml(plan)))
    assert again == plan
    assert plan_hash(again) == plan_hash(plan)


def test_settings_override_the_file_and_short_forms_grow(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "phases: [{name: a, until: 3 epochs}]\n")
    plan = read_plan(
        path, ["recipe.learning_rate=1e-3", "phases.0.until=20 steps", "data.text_column=body", "budget=5m"]
    )
    assert plan.recipe == {"learning_rate": 1e-3}
    assert plan.phases[0].until == Amount(20.0, Unit.STEPS)
    assert plan.data.source == "corpus.txt"
    assert plan.data.text_column == "body"
    assert plan.timed


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        (
            "recipe: {optimiser: x}",
            ":3: unknown key 'optimiser' in recipe; allowed: optimizer, .*Did you mean 'optimizer'",
        ),
        ("recipe:\n  optimizer: adamww", ":4: recipe.optimizer is 'adamww'; allowed: .*Did you mean 'adamw'"),
        ("recipe:\n  learning_rate: fast", ":4: recipe.learning_rate is 'fast'"),
        ("recipe:\n  dropout: 1.5", ":4: dropout is 1.5; allowed: at least 0 and less than 1"),
        ("budget: 3 stps", ":3: budget: cannot read the amount '3 stps'; .*Did you mean 'steps'"),
        ("budget: 10", ":3: budget: .*Add a unit"),
        ("metric: los", ":3: unknown metric 'los'; allowed: loss, .*Did you mean 'loss'"),
        ("seed: -1", ":3: seed is -1"),
        ("tolerance: 0", ":3: tolerance is 0"),
        ("phases:\n  - nme: x", ":4: unknown key 'nme' in phases.0; .*Did you mean 'name'"),
        ("phases: 3", ":3: phases is 3"),
        ("model: {layers: many}", ":3: model.layers is 'many'"),
        ("buget: 3m", ":3: unknown key 'buget' in the plan; .*Did you mean 'budget'"),
        ("recipe: [", r":\d: not YAML"),
        ("data: {validation: x}", ":3: not YAML|data names either"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_a_remedy(tmp_path: Path, addition: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_plan(written(tmp_path, HEAD + addition + "\n"))


def test_what_a_plan_needs_is_said() -> None:
    with pytest.raises(PlanError, match="'data' is missing"):
        plan_from({"task": "text-generation"})
    with pytest.raises(PlanError, match=r"unknown task 'text-gen'.*Did you mean 'text-generation'"):
        plan_from({"task": "text-gen", "data": "x"})
    with pytest.raises(PlanError, match=r"--set nonsense: allowed: key.path=value"):
        plan_from({"task": "text-generation", "data": "x"}, settings=["nonsense"])


def test_check_simulate_and_report_need_no_torch(tmp_path: Path) -> None:
    """On a machine without torch a plan can be checked: importing it there fails."""
    (tmp_path / "corpus.txt").write_text("text\n" * 100, encoding="utf-8")
    path = written(tmp_path, HEAD + "budget: 2m\n")
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'tokenizers', 'datasets'): sys.modules[name] = None\n"
        "from multistep.cli import app\n"
        f"app([*sys.argv[1:], {str(path)!r}, '--json'], standalone_mode=False)\n"
        "import multistep.report.page, multistep.report.table, multistep.report.live\n"
    )
    for verb in ("check", "simulate"):
        found = subprocess.run(
            [sys.executable, "-c", script, verb],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
            check=False,
        )
        assert found.returncode == 0, found.stderr
        assert found.stdout.startswith("{")
