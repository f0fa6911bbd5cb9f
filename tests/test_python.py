"""The Python side: names that completion finds, keywords spelled out, what is shown, and the result in hand."""

from __future__ import annotations

import html
import inspect
import io
import logging
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from runs import execute, plan

import multistep
from multistep import api
from multistep.core.values.events import Entry, Event
from multistep.core.values.history import fold
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError, RunDirectoryError
from multistep.interface.view import watching
from multistep.report.live import LiveView
from multistep.report.notebook import COLUMNS, LINES, NotebookView

ROOT = Path(__file__).parents[1]


def test_every_name_is_listed_and_leads_somewhere() -> None:
    assert set(multistep.__all__) <= set(dir(multistep))
    for name in multistep.__all__:
        assert getattr(multistep, name) is not None
        if callable(found := getattr(multistep, name)):
            assert inspect.getdoc(found)
    shown = subprocess.run(
        [sys.executable, "-c", "import multistep, sys; dir(multistep); print(len(sys.modules), 'rich' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.endswith("False\n")


def test_train_spells_its_keywords_out_and_tells_of_each() -> None:
    whole = inspect.signature(multistep.train)
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in whole.parameters.values())
    uses = [inspect.signature(use) for use in typing.get_overloads(inspect.unwrap(api.train))]
    assert [len(use.parameters) for use in uses] == [36, 33]
    assert {name for use in uses for name in use.parameters} == set(whole.parameters)
    told = inspect.getdoc(multistep.train) or ""
    for name in whole.parameters:
        assert re.search(rf"\b{name}\b", told), name


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dat": "x.csv"}, "unknown keyword 'dat'.*Did you mean 'data'"),
        ({"num_train_epochs": 3}, "A length is budget: 3 epochs here"),
        ({"per_device_train_batch_size": 8}, r"It is recipe.batch_size here: recipe: \{batch_size: 8\}"),
    ],
)
def test_other_names_are_told_by_ours(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        multistep.train(task="text-generation", **keywords)


@pytest.mark.parametrize(
    ("level", "progress", "lines", "records"),
    [
        (logging.WARNING, None, True, False),
        (logging.WARNING, False, False, False),
        (logging.INFO, None, False, True),
        (logging.INFO, True, True, True),
    ],
)
def test_a_run_is_shown_once_and_logged_where_that_is_asked_for(
    level: int,
    progress: bool | None,
    lines: bool,
    records: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(level, "multistep")
    entries: list[Entry] = []
    taken: list[Entry] = []
    execute(plan(budget="60s"), tmp_path / "run", on_entry=entries.append)
    with watching(plan(budget="60s"), tmp_path / "run", progress, lambda entry, history: taken.append(entry)) as take:
        for number in range(len(entries)):
            take(entries[number], fold(entries[: number + 1]))
    assert taken == entries
    assert bool(re.search(r"^ +[\d.]+s  finished \(", capsys.readouterr().err, re.MULTILINE)) == lines
    told = [record.getMessage() for record in caplog.records if record.name == "multistep"]
    assert any(each.startswith("finished (") for each in told) == records


def test_a_notebook_shows_the_view_of_the_terminal(tmp_path: Path) -> None:
    pictures: list[str] = []
    ticks = iter(range(1000))
    entries: list[Entry] = []
    execute(plan(budget="60s"), tmp_path / "run", on_entry=entries.append)
    view = NotebookView(plan(budget="60s"), out=tmp_path / "run", show=pictures.append, now=lambda: next(ticks) / 10)
    with view:
        for number in range(len(entries)):
            view.on_entry(entries[number], fold(entries[: number + 1]))
    assert 3 < len(pictures) < len(entries) / 2  # at most two a second
    assert len(set(pictures)) > 2
    terminal = LiveView(plan(budget="60s"), out=tmp_path / "run", console=Console(file=io.StringIO()), now=lambda: 0.0)
    terminal.on_entry(entries[-1], fold(entries))
    console = Console(file=io.StringIO(), width=COLUMNS, height=LINES, record=True, color_system="truecolor")
    console.print(terminal.render())
    shown = html.unescape(re.sub(r"<[^>]*>", "", pictures[-1]))
    assert shown.split() == console.export_text().split()
    assert "<script" not in pictures[-1]
    assert not re.search(r"(?<![-\w])background(-color)?: ?#|#000000|#ffffff", pictures[-1])  # the page's own colours


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> multistep.Result:
    folder = tmp_path_factory.mktemp("runs") / "run"
    execute(plan(budget="60s"), folder)
    return api.read_result(RunDirectory(folder))


def test_a_result_is_a_few_lines_and_a_table(finished: multistep.Result) -> None:
    lines = repr(finished).splitlines()
    assert len(lines) <= 5
    assert max(map(len, lines[:-1])) < 100
    score = f"{(finished.test or finished.validation).score:.3f} ("
    assert score in lines[1]
    table = finished._repr_html_()
    assert score in table
    assert not re.search(r"color:(?!inherit)|background:(?!none)|https?:", table)


def test_the_plot_shows_what_was_seen(finished: multistep.Result) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    axes = finished.plot()
    history = fold(read_entries(RunDirectory(finished.folder).journal))
    seen = [[look.interval.score for look in t.curve] for t in history.phase.trials.values() if t.curve]
    drawn = [list(map(float, line.get_ydata())) for line in axes.get_lines()]  # type: ignore[arg-type]
    assert all(curve in drawn for curve in seen)
    assert [history.baselines[0].interval.score] * 2 in drawn
    assert finished.plot(axes) is axes
    mpl.pyplot.close("all")


def test_without_matplotlib_the_plot_says_how_to_get_it(
    finished: multistep.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlanError, match="pip install matplotlib"):
        finished.plot()


def test_what_is_no_input_is_refused(finished: multistep.Result) -> None:
    import pandas

    with pytest.raises(ValueError, match="holds no model"):
        multistep.predict(finished.folder, pandas.DataFrame({"text": ["a"]}))
    with pytest.raises(ValueError, match="inputs is a int; allowed: a text, a path, or a list of such"):
        multistep.predict(finished.folder, 3)


def test_an_export_is_a_whole_copy_of_what_ships(tmp_path: Path) -> None:
    (run := tmp_path / "run" / "model").mkdir(parents=True)
    (run / "config.json").write_text("{}", encoding="utf-8")
    found = multistep.export(tmp_path / "run", tmp_path / "out" / "model")
    assert [path.name for path in found.iterdir()] == ["config.json"]
    with pytest.raises(RunDirectoryError, match="something is there already"):
        multistep.export(tmp_path / "run", found)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]


def test_mistakes_in_a_notebook_are_one_line() -> None:
    assert PlanError("budget is 0")._render_traceback_() == ["PlanError: budget is 0"]


@pytest.mark.slow
def test_the_page_tells_of_every_event_and_its_code_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    names = {kind.event for kind in typing.get_args(Event)}
    table = re.findall(r"^\| (`[a-z_`, ]+`) \|", page, flags=re.MULTILINE)
    assert names == {name for row in table for name in re.findall(r"`(\w+)`", row)} & names
    code = "".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    assert code.count('budget="10m"') == 2
    short = code.replace('budget="10m"', 'budget="20 steps", model="scratch"')
    done = subprocess.run([sys.executable, "-c", short], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Result: accuracy on the test split")
    assert re.search(r"^\d+ [01]\.\d+ \d", done.stdout, re.MULTILINE)
    assert re.search(r"^ +[\d.]+s  finished \(", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
