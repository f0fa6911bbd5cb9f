"""What people see of a run: the page, the tables, TensorBoard's events, the live view. No torch is needed."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from multistep.core.events import (
    BaselineScored,
    CheckpointSaved,
    Evaluated,
    Event,
    PhaseFinished,
    PhaseStarted,
    RunFinished,
    RunResumed,
    RunStarted,
    StabilityRead,
    TrialEnded,
    TrialStarted,
    VerdictGiven,
    WindowDone,
    WindowPlanned,
)
from multistep.core.history import fold
from multistep.core.metric import METRICS, Evaluation, Interval
from multistep.core.plan import DataSpec, Phase, Plan
from multistep.core.recipe import Recipe, Segment
from multistep.core.stability import Stability
from multistep.core.trial import Facts, Progress, Trial, TrialKind, Window
from multistep.core.units import Amount, Unit, format_seconds
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import Journal, read_entries
from multistep.engine.plain import to_json
from multistep.engine.result import result_of
from multistep.engine.rundir import RunDirectory, plan_hash
from multistep.report.live import LiveView
from multistep.report.page import write_page
from multistep.report.summary import answer, summary
from multistep.report.table import print_result, print_run
from multistep.report.tensorboard import write_events

RECIPE = Recipe(learning_rate=0.02, batch_size=16, warmup_steps=20)
OPEN: list[Journal] = []


@pytest.fixture(autouse=True)
def _journals_are_closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


@dataclass
class RecordedRun:
    """Writes a journal as a run would, under a clock of its own and with a made-up learning curve."""

    folder: Path
    names: tuple[str, ...] = ("plain",)
    metric: str = "loss"
    baseline: float = 1.9
    blocks: int = 54
    test: bool = True
    now: float = 0.0
    directory: RunDirectory = field(init=False)

    def __post_init__(self) -> None:
        self.directory = RunDirectory(self.folder)
        self.directory.create()
        self.plan = Plan(
            task="text-generation",
            data=DataSpec("corpus.txt"),
            budget=Amount(120.0, Unit.SECONDS),
            phases=tuple(Phase(name) for name in self.names) if len(self.names) > 1 else (),
        )
        versions = {"python": "3.11", "device": "x86_64"}
        content = {"plan": self.plan, "versions": versions, "phases": []}
        self.directory.resolved.write_text(to_json(content), encoding="utf-8")
        self.clock = BudgetClock(now=lambda: self.now)
        self.journal = Journal(self.directory.journal, self.clock)
        OPEN.append(self.journal)
        self.add(RunStarted(plan_hash(self.plan)), other=2.5)

    def add(self, event: Event, **seconds: float) -> None:
        for account, spent in seconds.items():
            with self.clock.account(account):  # type: ignore[arg-type]
                self.now += spent
        self.journal.append(event)

    def score(self, value: float, shift: float = 0.0) -> tuple[Interval, dict[str, float], str]:
        """An evaluation with this loss: its interval in the plan's metric, all scores, the table's name."""
        wave = 0.05 * np.sin(np.arange(self.blocks) + shift)
        counts = np.full(self.blocks, 1024.0)
        columns = {"loss": counts * (value + wave - wave.mean()), "count": counts, "bytes": 2 * counts}
        table = Evaluation({**columns, "block": np.arange(float(self.blocks))})
        scores = {name: metric.score(table) for name, metric in METRICS.items()}
        return METRICS[self.metric].interval(table), scores, self.directory.write_table(table)

    def phase(self, index: int) -> None:
        notes = ("12 documents are duplicates", "guessed: <b>characters</b>")
        facts = Facts(803_584, 15_684, 64, 33_716, 111_540, 33_000 * self.test, False, "x86_64", "4 layers", notes)
        name = self.names[index]
        self.add(PhaseStarted(index, name, self.metric, RECIPE, facts, True, False, None), other=0.6)
        if index == len(self.names) - 1:
            self.add(BaselineScored("6-gram", "validation", *self.score(self.baseline, 1.5)), evaluate=1.2)

    def trial(self, name: str, kind: TrialKind, start: str | None, reason: str, cooldown: int = 0) -> None:
        self.add(
            TrialStarted(Trial(name, int(name[0]), kind, start, RECIPE, 0, RECIPE.learning_rate or 0, cooldown), reason)
        )

    def window(self, name: str, segments: tuple[Segment, ...], *, look: bool = True, loss: float | None = None) -> None:
        window = Window(name, segments, look)
        self.add(WindowPlanned(window))
        record = self.journal.history.trial(name)
        step = record.windows[-1].step
        if loss is None:
            loss = 1.3 + 3.0 * step**-0.25 - 0.35 * segments[-1].progress_to + 0.02 * math.sin(step)
        taken = window.steps * RECIPE.batch_size  # type: ignore[operator]
        self.add(WindowDone(name, Progress(window.steps, loss, 0.9, taken, taken * 64)), train=0.05 * window.steps)
        if look and math.isfinite(loss):
            self.look(name, loss + 0.0002 * step, sample=True)

    def look(self, name: str, loss: float, *, sample: bool) -> None:
        interval, scores, table = self.score(loss)
        step = self.journal.history.trial(name).step
        self.add(Evaluated(name, step, "validation", sample, interval, scores, table), evaluate=0.4)

    def constant(self, name: str, windows: int) -> None:
        for number in range(windows):
            warm = (Segment(20, "warmup", 0.02, 0.0, 1.0), Segment(20, "constant", 0.02))
            self.window(name, warm if number == 0 else (Segment(40, "constant", 0.02),))

    def save(self, name: str) -> None:
        step = self.journal.history.trial(name).step
        self.add(CheckpointSaved(f"{name}@{step}", name, step), save=0.2)

    def trunk(self, index: int = 0, windows: int = 12) -> None:
        name = f"{index}.trunk"
        self.trial(name, "trunk", None, "the phase's recipe")
        self.constant(name, windows)
        step = self.journal.history.trial(name).step
        why = "forecast 0.001, at most 0.004; tolerance 0.006"
        self.add(StabilityRead(name, step, Stability.STABLE, 0.001, high=0.004, tolerance=0.006, reason=why))
        self.save(name)
        self.add(TrialEnded(name))

    def control(self, index: int = 0, final: float = 1.62) -> None:
        trunk, name = self.journal.history.trial(f"{index}.trunk"), f"{index}.control"
        self.trial(name, "control", trunk.checkpoints[-1].id, "what is left equals the cooldown", 160)
        for part in range(4):
            self.window(name, (Segment(40, "linear", 0.02, part / 4, (part + 1) / 4),), look=part < 3)
        self.save(name)
        self.look(name, final, sample=False)
        interval = self.score(final)[0]
        checkpoint = f"{name}@{self.journal.history.trial(name).step}"
        self.add(VerdictGiven(name, "keep", "the first that was evaluated", checkpoint, interval))
        self.add(TrialEnded(name))
        self.add(PhaseFinished(index, checkpoint, "stable"))

    def finish(self, final: float = 1.65, samples: tuple[str, ...] = ("Once upon a time",)) -> RunDirectory:
        if self.test:
            name = f"{len(self.names) - 1}.control"
            interval, scores, table = self.score(final)
            step = self.journal.history.trial(name).step
            self.add(Evaluated(name, step, "test", False, interval, scores, table), evaluate=2.0)
            self.add(BaselineScored("6-gram", "test", *self.score(self.baseline, 1.5)), evaluate=1.0)
        self.directory.samples.write_text(json.dumps(samples), encoding="utf-8")
        self.directory.model.mkdir()
        self.add(RunFinished("stable", "4523a7"), save=0.3)
        record = result_of(self.journal.history, self.directory.read_table)
        self.directory.result.write_text(to_json(record), encoding="utf-8")
        return self.directory


def finished(folder: Path, final: float = 1.65, **settings: object) -> RunDirectory:
    run = RecordedRun(folder, **settings)  # type: ignore[arg-type]
    for index in range(len(run.names)):
        run.phase(index)
        if index == 0:
            run.trial("0.probe-1", "probe", None, "is 0.04 a better learning rate?", 40)
            run.window("0.probe-1", (Segment(10, "warmup", 0.04, 0.0, 1.0), Segment(30, "linear", 0.04, 0.0, 1.0)))
            run.add(TrialEnded("0.probe-1"))
        run.trunk(index)
        run.add(RunResumed(3.0))
        run.control(index)
    return run.finish(final)


def unfinished(folder: Path) -> RunDirectory:
    run = RecordedRun(folder)
    run.phase(0)
    run.trial("0.trunk", "trunk", None, "the phase's recipe")
    run.constant("0.trunk", 3)
    run.add(WindowPlanned(Window("0.trunk", (Segment(40, "constant", 0.02),), True)))
    return run.directory


class Tags(HTMLParser):
    """The elements of a page, their attributes, and their text without the style sheet."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.lasttag != "style":
            self.text += data


def page_of(directory: RunDirectory) -> str:
    return write_page(directory).read_text(encoding="utf-8")


def shown(width: int = 100) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, force_terminal=False), out


# The page -------------------------------------------------------------------------------------------


def test_the_page_answers_first_and_beside_the_baseline(tmp_path: Path) -> None:
    text = Tags(page_of(finished(tmp_path))).text
    sentence = "The network beats the 6-gram baseline by 0.25 nats per token ["
    assert text.index(sentence) < text.index("1.6500 95%: 1.6403 to 1.6597") < text.index("1.9000")
    assert text.index("1.9000") < text.index("perplexity") < text.index("Training") < text.index("Trials")
    assert "Resumed 1 time after a kill" in text
    assert "12 documents are duplicates" in text
    assert f"{tmp_path.resolve() / 'model'}" in text


def test_a_network_that_loses_is_told_so(tmp_path: Path) -> None:
    text = Tags(page_of(finished(tmp_path, final=2.5))).text
    assert "LOSES to the 6-gram baseline by 0.6 nats per token" in text
    assert "the 6-gram model is the better choice at this budget" in text


@pytest.mark.parametrize(
    ("metric", "final", "standing", "words"),
    [
        ("loss", 1.895, "unproven", "does not prove"),
        ("loss", 1.905, "loses", "does NOT beat"),
        ("perplexity", 1.5, "beats", "by 2.2 in perplexity"),
        ("bits_per_byte", 2.2, "loses", "by 0.216 bits per byte"),
    ],
)
def test_the_sentence_says_no_more_than_the_intervals(
    tmp_path: Path, metric: str, final: float, standing: str, words: str
) -> None:
    directory = finished(tmp_path, final, metric=metric)
    found = answer(summary(directory))
    assert found is not None
    assert (found.standing, words in found.sentence) == (standing, True)
    assert answer(json.loads(directory.result.read_text(encoding="utf-8"))) == found


def test_texts_of_others_are_escaped_and_nothing_is_fetched(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    run = RecordedRun(tmp_path, names=("first $x^2$ " + evil, "第二阶段 & more"))
    for index in range(2):
        run.phase(index)
        run.trunk(index)
        run.control(index)
    directory = run.finish(samples=(evil, "</pre><img src=//evil.example/x>", "今天天气很好。\x1b[31m\x00", "\ud800"))
    page = page_of(directory)
    tags = Tags(page)
    assert not [tag for tag, _ in tags.elements if tag in ("script", "img", "link", "iframe", "base")]
    for _, attributes in tags.elements:
        assert not {"src", "srcset", "data", "action", "onload"} & attributes.keys()
        assert all(str(attributes[key]).startswith("#") for key in attributes if key.endswith("href"))
        assert "url(" not in str(attributes.get("style")).replace("url(#", "")
    assert "@import" not in page
    assert evil in tags.text
    assert "今天天气很好。" in tags.text
    assert "第二阶段 & more" in tags.text
    assert "\x1b" not in page
    assert "\x00" not in page


def test_names_within_the_page_are_unique_and_the_same_journal_gives_the_same_page(tmp_path: Path) -> None:
    directory = finished(tmp_path, names=("one", "two"))
    page = page_of(directory)
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= set(names)
    charts = [attributes for tag, attributes in Tags(page).elements if tag == "svg"]
    assert len(charts) == 3
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in charts)
    assert page_of(directory) == page


def test_an_unfinished_run_says_where_it_stands(tmp_path: Path) -> None:
    directory = unfinished(tmp_path)
    text = Tags(page_of(directory)).text
    assert re.search(r"Nothing was scored in full yet. .* at step 120: 2\.\d{4} nats per token", text)
    assert "phase 1 of 1 (plain), trunk, step 120" in text
    assert f"multistep resume {tmp_path}" in text
    console, out = shown()
    print_run(directory, console)
    assert "unfinished" in out.getvalue()
    assert f"multistep resume {tmp_path}" in out.getvalue()


def test_a_run_killed_before_its_first_window_has_a_page(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path)
    run.directory.resolved.unlink()
    assert "before its first phase" in Tags(page_of(run.directory)).text
    run.phase(0)
    run.trial("0.trunk", "trunk", None, "the phase's recipe")
    run.window("0.trunk", (Segment(12, "constant", 0.02),), loss=math.nan)
    assert "0.trunk" in Tags(page_of(run.directory)).text
    write_events(run.directory)


def test_one_block_leaves_the_interval_open(tmp_path: Path) -> None:
    directory = finished(tmp_path, blocks=1, test=False)
    record = json.loads(directory.result.read_text(encoding="utf-8"))
    found = answer(record)
    assert found is not None
    assert found.standing == "unproven"
    assert math.isinf(found.score.low)
    assert "validation" in Tags(page_of(directory)).text


# TensorBoard ----------------------------------------------------------------------------------------


def test_tensorboard_reads_the_journals_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event as Record

    directory = finished(tmp_path)
    history = fold(read_entries(directory.journal))
    for _ in range(2):  # derived data: written again, it is replaced and not doubled
        write_events(directory)
    read: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for file in sorted(directory.events.rglob("*tfevents*")):
        run = str(file.parent.relative_to(directory.events))
        for raw in RawEventFileLoader(str(file)).Load():
            event = Record.FromString(raw)
            for value in event.summary.value:
                read.setdefault((run, value.tag), []).append((event.step, value.simple_value))
    trunk, control = history.trial("0.trunk"), history.trial("0.control")
    assert control.full is not None
    assert history.test is not None
    journaled: dict[tuple[str, str], list[tuple[int, float]]] = {
        ("0.trunk", "train/loss"): [(r.step, r.progress.loss) for r in trunk.done if r.progress],
        ("0.trunk", "validation/perplexity"): [(e.step, e.scores["perplexity"]) for e in trunk.curve],
        ("0.trunk", "gap"): [(e.step, 0.0002 * e.step) for e in trunk.curve],
        ("0.control", "validation_full/loss"): [(640, control.full.scores["loss"])],
        ("0.control", "train/learning_rate"): [(step, 0.02 * (641 - step) / 160) for step in range(520, 641, 40)],
        (".", "test/bits_per_byte"): [(680, history.test.scores["bits_per_byte"])],
    }
    for place, points in journaled.items():
        np.testing.assert_allclose(read[place], points, rtol=1e-5, atol=1e-7)
    assert math.isclose(read[".", "budget/train"][-1][1], history.spent["train"], rel_tol=1e-5)


# Terminal -------------------------------------------------------------------------------------------


def test_show_and_summary_say_the_same(tmp_path: Path) -> None:
    directory = finished(tmp_path)
    record = json.loads(to_json(summary(directory)))
    assert record["state"] == "finished"
    assert record["answer"].startswith("The network beats the 6-gram baseline by 0.25 nats per token [")
    assert [trial["verdict"] for trial in record["phases"][0]["trials"]] == [None, None, "keep"]
    result = json.loads(directory.result.read_text(encoding="utf-8"))
    for key in ("metric", "validation", "test", "baseline", "scores", "steps", "tokens", "kills_survived"):
        assert record[key] == result[key]
    console, out = shown()
    print_run(directory, console)
    for words in (
        record["answer"],
        "1.6500 [1.6403, 1.6597]",
        "0.control",
        "keep",
        "train 34s",
        "left: stable",
    ):
        assert words in out.getvalue()


def test_the_result_ends_with_model_and_report_and_disarms_the_sample(tmp_path: Path) -> None:
    directory = finished(tmp_path)
    console, out = shown()
    record = json.loads(directory.result.read_text(encoding="utf-8"))
    print_result(record, tmp_path, ["[bold]从前\x1b]0;title\x07"], console)
    printed = out.getvalue()
    assert "[bold]从前" in printed
    assert "\x1b" not in printed
    assert printed.index("beats the 6-gram") < printed.index("从前") < printed.index(str(tmp_path / "model"))
    assert str(tmp_path / "report.html") in printed


def replay(directory: RunDirectory, view: LiveView) -> None:
    entries = list(read_entries(directory.journal))
    with view:
        for index, entry in enumerate(entries):
            view.on_entry(entry, fold(entries[: index + 1]))


def test_without_a_terminal_each_meaningful_event_is_one_plain_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = finished(tmp_path)
    plan = Plan(task="text-generation", data=DataSpec("corpus.txt"), budget=Amount(120.0, Unit.SECONDS))
    replay(directory, LiveView(plan, out=tmp_path))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "\x1b" not in printed.err
    looks = len(re.findall(r"validation \d", printed.err))
    assert looks == sum(len(t.curve) for t in fold(read_entries(directory.journal)).phase.trials.values()) + 1
    for words in (
        "phase 1 of 1, plain: 4 layers",
        "baseline 6-gram, validation 1.9000",
        "trunk left at step 480, stable",
        "verdict: keep 0.control 1.6200",
        "test 1.6500 [1.6403, 1.6597]",
        "finished (stable): 680 steps",
    ):
        assert len(re.findall(re.escape(words), printed.err)) == 1


def test_the_panel_ticks_and_leaves_tracebacks_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = unfinished(tmp_path)
    out, now = io.StringIO(), [0.0]
    console = Console(file=out, width=100, height=30, force_terminal=True, color_system=None, legacy_windows=False)
    plan = Plan(task="text-generation", data=DataSpec("corpus.txt"), budget=Amount(120.0, Unit.SECONDS))
    view = LiveView(plan, out=tmp_path, console=console, now=lambda: now[0])
    replay(directory, view)
    spent = fold(read_entries(directory.journal)).seconds
    now[0] = 30.0
    console.print(view.render())
    panel = out.getvalue()[out.getvalue().rindex("╭") :]
    assert f"{format_seconds(round(120 - spent - 30))} left of 2m" in panel
    for words in ("training 40 steps, about 2s", "step 120", "validation", "baseline", "6-gram"):
        assert words in panel
    with pytest.raises(RuntimeError, match="lost"), view:
        raise RuntimeError("lost")
    assert out.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in out.getvalue()[-20:]  # the cursor is back
    assert capsys.readouterr().out == ""
