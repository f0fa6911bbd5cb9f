"""What the docs promise: their examples run, their tables name what there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from corpora import written
from runs import execute, plan

from multistep.core.values.plan import Plan
from multistep.core.values.recipe import RECIPE_KEYS
from multistep.engine.planfile import read_plan

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [code for named, code in fenced if named == language]


def first_column(page: str) -> set[str]:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    written(tmp_path)
    (code,) = (code for code in blocks("README.md", "python") if "task=" in code)
    assert 'budget="10m"' in code
    short = code.replace('budget="10m"', 'budget="15s"')
    done = subprocess.run([sys.executable, "-c", short], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"\d+\.\d+ \d+\.\d+ \(\d+\.\d+ to \d+\.\d+\) ", done.stdout)


@pytest.mark.slow
def test_the_code_for_a_model_of_ones_own_runs(tmp_path: Path) -> None:
    pages = ("README.md", "docs/how-to/own-module.md")
    found = [[code for code in blocks(page, "python") if "nn." in code] for page in pages]
    assert [len(codes) for codes in found] == [1, 1]
    for number, code in enumerate({code for codes in found for code in codes}):
        (folder := tmp_path / str(number)).mkdir()
        assert len(code.splitlines()) == 15
        assert 'budget="10m"' in code
        short = code.replace('budget="10m"', 'budget="60 steps"')
        done = subprocess.run([sys.executable, "-c", short], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert re.match(r"0\.\d+ \(0\.\d+ to 0\.\d+\) majority", done.stdout)
        assert (folder / "runs/mine/model/model.safetensors").exists()


def test_the_readmes_plan_is_valid(tmp_path: Path) -> None:
    (text,) = blocks("README.md", "yaml")
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    found = read_plan(path)
    assert [phase.name for phase in found.phases] == ["broad", "fine"]


def test_the_pages_name_every_key(tmp_path: Path) -> None:
    described = first_column("docs/reference/plan.md")
    assert {field.name for field in fields(Plan)} | set(RECIPE_KEYS) <= described
    execute(plan(budget="30s"), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert set(record) == first_column("docs/reference/result.md")


def test_the_readmes_verbs_exist() -> None:
    from typer.main import get_command

    from multistep.cli import app

    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    (commands,) = (block for block in blocks("README.md", "") if "multistep evaluate" in block)
    used = set(re.findall(r"^multistep (\w+)", commands, flags=re.MULTILINE)) | {"resume", "report", "demo", "schema"}
    assert used == verbs
