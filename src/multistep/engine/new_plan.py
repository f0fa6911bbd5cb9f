"""A plan file to begin with: what was asked for, what else there is as comments, and the schema beside it."""

from __future__ import annotations

import re
from pathlib import Path

from multistep.core.values.plan import Plan
from multistep.core.values.tasks import task_named
from multistep.engine.plain import to_json
from multistep.engine.planfile import to_yaml
from multistep.engine.rundir import write_atomically, writing
from multistep.engine.schema import FILE_NAME, WORD_LINE, plan_schema
from multistep.engine.schema_words import WORDS
from multistep.errors import PlanError

OPEN = {"metric": "", "model": "auto", "budget": "10m", "seed": "0", "moves": "auto", "ship": "auto", "keep": "model"}


def write_new_plan(path: Path, plan: Plan, budget: str) -> list[Path]:
    """Write the plan file, and the schema that its first line names; returns both. `budget` is as it was typed.

    Raises PlanError where a file is there already, RunDirectoryError where writing is not allowed.
    """
    if path.exists():
        raise PlanError(f"{path}: is there already, and is not overwritten; name another file")
    schema = path.with_name(FILE_NAME)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(schema, to_json(plan_schema(), indent=1) + "\n")
        write_atomically(path, new_plan(path, plan, budget))
    return [path, schema]


def new_plan(path: Path, plan: Plan, budget: str) -> str:
    """The text of a plan file: the plan's own values, and below them what else it may say, each as a comment."""
    given = re.sub(r"^budget: .*$", f"budget: {budget}", to_yaml(plan), flags=re.MULTILINE)
    keys = {line.partition(":")[0] for line in given.splitlines()}
    more = {**OPEN, "metric": task_named(plan.task).metric}
    lines = [
        WORD_LINE.format(place=FILE_NAME).rstrip(),
        f"# `multistep check {path}` says what it would do; `multistep train {path}` does it.",
        given.rstrip(),
        "",
        "# What else it may say; docs/reference/plan.md has it all.",
    ]
    for key, value in more.items():
        if key not in keys:
            lines += [f"#  {WORDS[f'Plan.{key}']}", f"# {key}: {value}"]
    lines += [f"#  {WORDS['Recipe.learning_rate']}", "# recipe:", "#   learning_rate: 1e-3"]
    return "\n".join(lines) + "\n"
