"""What people see of a run: the page, the tables, TensorBoard's events, the live view. No torch is needed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from multistep.core.evidence.metric import METRICS, Evaluation, Interval
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import (
    BaselineScored,
    CheckpointSaved,
    Evaluated,
    Event,
    MovesEnded,
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
from multistep.core.values.history import fold
from multistep.core.values.plan import DataSpec, Phase, Plan
from multistep.core.values.recipe import Recipe, Segment
from multistep.core.values.trial import Facts, Progress, Trial, TrialKind, Window
from multistep.core.values.units import Amount, Unit
from multistep.engine.clock import BudgetClock
from multistep.engine.journal import Journal, read_entries
from multistep.engine.learner import Exhibit
from multistep.engine.plain import plain, to_json
from multistep.engine.result import in_general, noise_between_seeds, result_of
from multistep.engine.rundir import RunDirectory, plan_hash
from multistep.errors import PlanError, RunDirectoryError
from multistep.report.charts import charts_of
from multistep.report.compare import write_comparison
from multistep.report.drawing import _value_marks
from multistep.report.outcome import answer
from multistep.report.page import write_page
from multistep.report.summary import summary
from multistep.report.table import print_result, print_run
from multistep.report.tensorboard import write_events
from multistep.report.tracks import tracks_of

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
        scores = {name: METRICS[name].score(table) for name in ("loss", "perplexity", "bits_per_byte")}
        return METRICS[self.metric].interval(table), scores, self.directory.write_table(table)

    def phase(self, index: int) -> None:
        notes = ("12 documents are duplicates", "guessed: <b>characters</b>")
        facts = Facts(803_584, 15_684, 64, 33_716, 111_540, 33_000 * self.test, False, "x86_64", "4 layers", notes)
        facts = replace(facts, usage="load({model})")
        name = self.names[index]
        finished = self.journal.history.phase.finished if index else None
        start = finished.head if finished else None
        self.add(PhaseStarted(index, name, self.metric, RECIPE, facts, True, False, start), other=0.6)
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

    def trunk(self, index: int = 0, windows: int = 12, *, shown: Stability = Stability.STABLE) -> None:
        name = f"{index}.trunk"
        self.trial(name, "trunk", None, "the phase's recipe")
        self.constant(name, windows)
        step = self.journal.history.trial(name).step
        overfits = shown is Stability.OVERFITTING
        why = "worse by 0.05 since step 400" if overfits else "forecast 0.001, at most 0.004; tolerance 0.006"
        self.add(StabilityRead(name, step, shown, 0.001, high=0.004, tolerance=0.006, reason=why))
        self.save(name)
        self.add(TrialEnded(name))

    def control(self, index: int = 0, final: float = 1.62, *, iterating: bool = False) -> None:
        trunk, name = self.journal.history.trial(f"{index}.trunk"), f"{index}.control"
        self.trial(name, "control", trunk.checkpoints[-1].id, "what is left equals the cooldown", 160)
        for part in range(4):
            self.window(name, (Segment(40, "linear", 0.02, part / 4, (part + 1) / 4),), look=part < 3)
        self.save(name)
        self.look(name, final, sample=False)
        interval = self.score(final)[0]
        checkpoint = f"{name}@{self.journal.history.trial(name).step}"
        first = VerdictGiven(name, "the first that was evaluated", checkpoint, interval, leads=True, leader=name)
        self.add(replace(first, expected={name: 0.0}))
        self.add(TrialEnded(name))
        if not iterating:
            self.add(PhaseFinished(index, checkpoint, "stable"))

    def sibling(
        self, name: str, final: float | None, *, reason: str = "the plain run overfitted", **given: Any
    ) -> None:
        """A trial of 160 steps, the second half cooling down, and its full evaluation; None: it diverges."""
        kind: TrialKind = "rerun" if given.get("seed") else "move" if given.get("move") else "control"
        settings = {"start": "0.trunk@480", "recipe": RECIPE, "seed": 0, "length": Amount(160.0, Unit.STEPS), **given}
        rate = settings["recipe"].learning_rate
        self.add(TrialStarted(Trial(name, 0, kind, learning_rate=rate, **settings), reason))
        loss = 1.8 if final is not None else math.nan
        for part, (begin, end) in enumerate([(0.0, 0.0), (0.0, 0.0), (0.0, 0.5), (0.5, 1.0)]):
            segment = Segment(40, "linear" if end else "constant", rate, begin, end)
            at = loss - 0.35 * end + 0.1 * settings["recipe"].dropout * part
            self.window(name, (segment,), look=part < 3, loss=at)
            if part == 1:
                self.save(name)
            if final is None:
                return
        assert final is not None
        self.save(name)
        self.look(name, final, sample=False)

    def judge(self, name: str, found: float, asked: float, gain: float | None = None, **given: Any) -> None:
        """The verdict about a sibling: better by `found` with a standard error of 0.01, and `gain` over its control.

        `given` is told otherwise than that says, such as that another leads.
        """
        record = self.journal.history.trial(name)
        attempt = sum(v.attempt is not None for v in self.journal.history.verdicts) + 1
        proven, history = found > 0.01 * asked, self.journal.history
        reason = f"expected {abs(found):.4f} {'better' if found > 0 else 'worse'} than 0.control"
        assert history.leader is not None
        verdict = VerdictGiven(
            name,
            reason,
            record.checkpoints[-1].id,
            record.full.interval if record.full else None,
            leads=proven,
            proven=proven,
            leader=name if proven else history.leader.trial,
            expected={**history.expected, name: found},
            rival="0.control",
            ahead=found,
            spread=0.008,
            improvement=found,
            low=found - 0.02,
            high=found + 0.02,
            standard_error=0.01,
            attempt=attempt,
            critical=asked,
        )
        if gain is not None:
            control = name.rpartition(".")[0] + ".control"
            verdict = replace(verdict, control=control, gain=gain, gain_low=gain - 0.01, gain_high=gain + 0.01)
        self.add(replace(verdict, **given))
        self.add(TrialEnded(name))

    def finish(self, final: float = 1.65, samples: tuple[str, ...] = ("Once upon a time",)) -> RunDirectory:
        if self.test:
            assert self.journal.history.leader is not None
            name = self.journal.history.leader.trial
            interval, scores, table = self.score(final)
            step = self.journal.history.trial(name).step
            self.add(Evaluated(name, step, "test", False, interval, scores, table), evaluate=2.0)
            self.add(BaselineScored("6-gram", "test", *self.score(self.baseline, 1.5)), evaluate=1.0)
        self.directory.exhibits.write_text(
            json.dumps(plain([Exhibit("What it writes", texts=samples)])), encoding="utf-8"
        )
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


DROPOUT, MORE_DROPOUT = replace(RECIPE, dropout=0.1), replace(RECIPE, dropout=0.2)
ADAMW = replace(RECIPE, optimizer="adamw", learning_rate=0.001, frozen=("<script>*",))


def iterated(folder: Path, reruns: int = 3) -> RecordedRun:
    """A run with two rounds of moves, an average, and reruns with other seeds; its phase is not finished yet."""
    run = RecordedRun(folder)
    run.phase(0)
    run.trunk(shown=Stability.OVERFITTING)
    run.control(iterating=True)
    run.sibling("0.round-1.control", 1.615, reason="round 1: the same recipe, that moves are compared with")
    run.judge("0.round-1.control", 0.005, 2.5)
    run.sibling("0.round-1.dropout-up", 1.55, recipe=DROPOUT, move="dropout-up")
    run.judge("0.round-1.dropout-up", 0.07, 2.5, gain=0.065)
    run.sibling("0.round-1.optimizer-adamw", 1.9, recipe=ADAMW, move="optimizer-adamw", carry="weights")
    run.judge("0.round-1.optimizer-adamw", -0.35, 2.5, gain=-0.285)
    run.sibling("0.round-1.rate-up", None, recipe=replace(RECIPE, learning_rate=0.04), move="rate-up")
    failed = VerdictGiven("0.round-1.rate-up", "the score is not finite", None, None, failed=True)
    run.add(failed)
    run.add(TrialEnded("0.round-1.rate-up"))
    fork = "0.round-1.dropout-up@560"
    run.sibling("0.round-2.control", 1.549, recipe=DROPOUT, start=fork)
    run.judge("0.round-2.control", 0.001, 3.0)
    run.sibling("0.round-2.dropout-up", 1.54, recipe=MORE_DROPOUT, start=fork, move="dropout-up")
    run.judge("0.round-2.dropout-up", 0.01, 3.0, gain=0.009)
    for seed in range(1, reruns + 1):
        for name, gain, given in (("control", 0.0, {}), ("dropout-up", 0.04 + 0.01 * seed, {"move": "dropout-up"})):
            rerun = f"0.round-1.{name}-seed-{seed}"
            recipe = DROPOUT if gain else RECIPE
            run.sibling(rerun, 1.595 + 0.01 * seed - gain, reason="again", recipe=recipe, seed=seed, **given)
            run.add(TrialEnded(rerun))
    parts = ("0.round-1.dropout-up@640", "0.round-2.control@720")
    run.add(
        TrialStarted(Trial("0.average-1", 0, "average", fork, DROPOUT, 0, 0.02, of=parts), "the mean of the 2 best")
    )
    run.save("0.average-1")
    run.look("0.average-1", 1.547, sample=False)
    run.judge("0.average-1", 0.003, 3.2)
    run.add(MovesEnded(0, "every move that applies was tried", budget=False))
    return run


def iterated_to_the_end(folder: Path, final: float = 1.575) -> RunDirectory:
    run = iterated(folder)
    assert run.journal.history.leader is not None
    run.add(PhaseFinished(0, run.journal.history.leader.checkpoint, "overfitting"))
    return run.finish(final)


def unfinished(folder: Path) -> RunDirectory:
    run = RecordedRun(folder)
    run.phase(0)
    run.trial("0.trunk", "trunk", None, "the phase's recipe")
    run.constant("0.trunk", 3)
    run.add(WindowPlanned(Window("0.trunk", (Segment(40, "constant", 0.02),), True)))
    return run.directory


class Tags(HTMLParser):
    """The elements of a page, their attributes, and their text without its style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.lasttag not in ("style", "script"):
            self.text += data


def page_of(directory: RunDirectory) -> str:
    return write_page(directory).read_text(encoding="utf-8")


def shown(width: int = 100) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, force_terminal=False), out


# The page -------------------------------------------------------------------------------------------


def test_the_page_answers_first_and_beside_the_baseline(tmp_path: Path) -> None:
    text = Tags(page_of(finished(tmp_path))).text
    sentence = "The network beats the 6-gram baseline by 0.250 nats a token (95% interval "
    assert text.index(sentence) < text.index("1.650 95% interval 1.640 to 1.660") < text.index("1.900")
    assert text.index("1.900") < text.index("perplexity") < text.index("Training") < text.index("What was tried")
    assert "Resumed 1 time after a kill" in text
    assert "12 documents are duplicates" in text
    assert f"{tmp_path.resolve() / 'model'}" in text


def test_a_network_that_loses_is_told_so(tmp_path: Path) -> None:
    text = Tags(page_of(finished(tmp_path, final=2.5))).text
    assert "The network is worse than the 6-gram baseline by 0.600 nats a token (95%" in text
    assert "the 6-gram model is the better choice at this budget" in text


@pytest.mark.parametrize(
    ("metric", "final", "standing", "words"),
    [
        ("loss", 1.895, "unproven", "does not prove"),
        ("loss", 1.905, "loses", "does not beat the 6-gram baseline: it is behind by 0.005 nats a token"),
        ("perplexity", 1.5, "beats", "by 2.204 in perplexity"),
        ("bits_per_byte", 2.2, "loses", "by 0.216 bits a byte"),
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


def test_without_a_test_split_the_sentence_says_that_validation_flatters_who_it_chose(tmp_path: Path) -> None:
    record = summary(finished(tmp_path))
    both, alone = answer(record), answer({**record, "test": None})
    assert both is not None
    assert "flatters" not in both.sentence
    assert alone is not None
    assert alone.standing == "beats"
    assert alone.sentence.endswith(", on the validation split, which chose the network too and so flatters it.")


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
    assert not [tag for tag, _ in tags.elements if tag in ("img", "link", "iframe", "base")]
    assert [a.get("type") for tag, a in tags.elements if tag == "script"] == ["application/json", None]
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


def test_the_page_may_show_its_own_pictures_and_fetch_none(tmp_path: Path) -> None:
    directory = finished(tmp_path)
    picture = {"png": "iVBORw0KGgo=", "caption": "seven"}
    directory.exhibits.write_text(json.dumps([plain(Exhibit("Digits")) | {"pictures": [picture]}]), encoding="utf-8")
    tags = Tags(page_of(directory))
    (policy,) = (a["content"] for tag, a in tags.elements if tag == "meta" and a.get("http-equiv"))
    script = page_of(directory).rpartition("<script>")[2].partition("</script>")[0]
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{known}'"
    (source,) = (a["src"] for tag, a in tags.elements if tag == "img")
    assert source == "data:image/png;base64,iVBORw0KGgo="


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
    assert re.search(r"Nothing was scored in full yet. .* at step 120: 2\.\d{3} nats a token", text)
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
    assert (found.score.low, found.score.high) == (0.0, math.inf)
    assert "validation" in Tags(page_of(directory)).text


# Moves ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def iterated_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Finished, for tests that only read it."""
    return iterated_to_the_end(tmp_path_factory.mktemp("iterated"))


def test_page_table_and_json_tell_the_same_of_a_kept_move(iterated_run: RunDirectory) -> None:
    directory = iterated_run
    record = json.loads(to_json(summary(directory)))
    trials = {trial["id"]: trial for trial in record["phases"][0]["trials"]}
    kept = trials["0.round-1.dropout-up"]
    assert kept["settings"] == {"dropout": {"from": 0.0, "to": 0.1}}
    assert (kept["round"], kept["start"], kept["control"]) == (1, "0.trunk@480", "0.round-1.control")
    assert (kept["steps"], kept["seconds"]) == (160, 9.2)
    assert kept["improvement"] == pytest.approx({"score": 0.07, "low": 0.05, "high": 0.09})
    assert kept["demanded"] == pytest.approx({"attempt": 2, "standard_errors": 2.5, "improvement": 0.025})
    assert kept["gain"] == pytest.approx({"score": 0.065, "low": 0.055, "high": 0.075})
    # A second round is held against its own control, whose recipe is the first round's winner's.
    assert trials["0.round-2.control"]["settings"] == {}
    assert trials["0.round-2.dropout-up"]["settings"] == {"dropout": {"from": 0.1, "to": 0.2}}
    result = json.loads(directory.result.read_text(encoding="utf-8"))
    assert result["trials"] == [{k: v for k, v in trial.items() if k != "looks"} for trial in trials.values()]
    assert result["moves_ended"] == [{"phase": 0, "reason": "every move that applies was tried", "weighed": []}]

    page = Tags(page_of(directory))
    console, out = shown(80)
    print_run(directory, console)
    table = out.getvalue()[: out.getvalue().index("Nothing more was")].splitlines()
    assert max(map(len, table[table.index("") :])) <= 80
    for text in (page.text, " ".join(out.getvalue().split())):
        for words in (
            "ove dropout-up, round 1",
            "dropout 0 to 0.1",
            "+0.070",
            "optimizer muon to adamw, learning rate 0.02 to 0.001, frozen none to <script>*, the optimizer begins anew",
            "he mean of 0.round-1.dropout-up@640, 0.round-2.control@720",
            "Nothing more was tried: every move that applies was tried.",
        ):
            assert words in text
    assert "(+0.050 to +0.090)" in out.getvalue()
    assert "It led when it was judged: " in " ".join(out.getvalue().split())
    for words in (
        "then made it 0.070 nats a token better than 0.control (cooldown), the best plain run so far.",
        "It began at Checkpoint 0.trunk@480, learning rate 0.02.",
        "it is 0.070 nats a token better (95% interval +0.050 to +0.090); attempt 2 needs +0.025 for a proof, so it is",
        "0.065 nats a token better (95% interval +0.055 to +0.075) than 0.round-1.control, in which nothing was",
    ):
        assert words in page.text


def test_a_run_that_tried_every_move_says_it_in_words(tmp_path: Path) -> None:
    run = iterated(tmp_path)
    assert run.journal.history.leader is not None
    run.add(PhaseFinished(0, run.journal.history.leader.checkpoint, "moves"))
    console, out = shown()
    print_run(run.directory, console)
    assert "Phase 1, plain: judged by loss; ended: every move was tried" in out.getvalue()
    run.add(RunFinished("moves", "4523a7"))
    assert summary(run.directory)["where"] == "finished (every move was tried)"
    assert "Finished (every move was tried)." in Tags(page_of(run.directory)).text


def test_a_narrow_terminal_folds_names_and_cuts_no_number(iterated_run: RunDirectory) -> None:
    console, out = shown(50)
    print_run(iterated_run, console)
    assert "…" not in out.getvalue()
    for words in ("+0.070", "(+0.050 to +0.090)", "1.550", "160 steps in 9.2s"):
        assert words in out.getvalue()


@pytest.mark.parametrize(
    ("gains", "noise", "helps"),
    [
        ([0.05, 0.06, 0.07], 0.008, True),
        ([0.05, 0.06], 0.008, False),  # two reruns
        ([0.05, 0.06, 0.07], 0.061, False),  # seeds differ by as much
        ([0.01, 0.2, 0.02], 0.008, False),  # the mean's bound is below 0: t(2) = 2.92 standard errors of 0.0618
        ([0.05, 0.06, -math.inf], 0.008, False),  # one diverged
        ([0.05, 0.06, 0.07], None, False),
    ],
)
def test_a_move_helps_in_general_only_beyond_the_noise_between_seeds(
    gains: list[float], noise: float | None, helps: bool
) -> None:
    assert in_general("dropout-up", gains, noise).helps is helps


def test_reruns_are_paired_by_their_seeds(tmp_path: Path) -> None:
    run = iterated(tmp_path)
    (found,) = noise_between_seeds(run.journal.history.phase)
    assert found.scores == pytest.approx((1.615, 1.605, 1.615, 1.625))
    assert found.standard_deviation == pytest.approx(0.00816, abs=1e-5)
    (move,) = found.moves
    assert move.gains == pytest.approx((0.05, 0.06, 0.07))  # of the reruns; the first trial was chosen for being good
    assert move.low == pytest.approx(0.06 - 2.92 * 0.01 / math.sqrt(3), abs=1e-4)
    text = Tags(page_of(run.directory)).text
    assert "noise between seeds is 0.0082 nats a token" in text
    assert "dropout-up helps in general: its mean gain over 3 reruns is +0.060, and at least +0.043" in text


@pytest.mark.parametrize(
    ("reruns", "words"),
    [
        (2, "dropout-up is not shown to help in general: that takes at least 3 reruns, and it had 2"),
        (0, "Whether dropout-up helps in general is not known"),
    ],
)
def test_without_three_reruns_nothing_is_claimed(tmp_path: Path, reruns: int, words: str) -> None:
    said = " ".join(summary(iterated(tmp_path, reruns).directory)["said"]["noise"])
    assert words in said
    assert "dropout-up helps in general:" not in said


def test_validations_optimism_is_welchs_interval(iterated_run: RunDirectory) -> None:
    found = summary(iterated_run)["validation_optimism"]
    # scipy.stats.ttest_ind(test, validation, equal_var=False) over the blocks' losses
    assert (found["score"], found["low"], found["high"]) == pytest.approx((0.025, 0.0114785, 0.0385215), abs=1e-6)
    text = Tags(page_of(iterated_run)).text
    assert "looks 0.025 nats a token better than on test (95% interval +0.011 to +0.039)" in text
    assert "Validation was looked at 61 times, test once." in text


def test_no_optimism_is_claimed_within_noise(tmp_path: Path) -> None:
    said = summary(iterated_to_the_end(tmp_path, 1.555))["said"]["optimism"]
    assert said.startswith(
        "On validation the model scores 0.005 nats a token better than on test (95% interval -0.0085"
    )


def test_the_gap_is_told_with_and_without_the_kept_move(iterated_run: RunDirectory) -> None:
    page = page_of(iterated_run)
    assert (
        "Without dropout-up (0.round-1.control), the validation loss was 1.615, 0.165 nats a token above the training "
        "loss of 1.450; with it (0.round-1.dropout-up), the validation loss was 1.550, 0.070 nats a token above"
    ) in Tags(page).text
    gap = page[page.index('aria-label="Gap between') :]
    assert ">with dropout-up<" in gap
    assert ">without dropout-up<" in gap


def test_the_budget_is_told_by_what_steps_were_for(iterated_run: RunDirectory) -> None:
    record = summary(iterated_run)
    assert sum(record["steps_by_kind"].values()) == record["steps"] == 2440
    assert record["steps_to_winner"] == 640  # the trunk and the kept move; neither cooldown nor rejected trials
    assert "Of the budget of 2m, 2m3" in record["said"]["end"]
    assert "trunk 20%, cooldown 7%, controls 13%, moves 21%, reruns 39%; 26% led to the chosen" in record["said"]["end"]


def test_the_way_to_the_model_is_one_line_and_the_others_are_grey(tmp_path: Path) -> None:
    run = iterated(tmp_path)
    entries = list(read_entries(run.directory.journal))
    tracks = tracks_of(entries, run.journal.history)
    assert [stretch.track.id for stretch in tracks.way] == ["0.trunk", "0.round-1.dropout-up"]
    loss = charts_of(run.journal.history, tracks, {})[0]
    lines = {line.look: line for line in loss.lines}
    steps = [place.step for place, _ in lines["look"].points]
    assert (steps[0], steps[-1]) == (40, 600)
    assert steps == sorted(steps)
    assert {line.trial for line in loss.lines if line.look == "faint"} >= {"0.control", "0.round-1.optimizer-adamw"}
    (chosen,) = (dot for dot in loss.dots if dot.look == "mark")
    assert (chosen.trial, chosen.label, chosen.place.step) == ("0.round-1.dropout-up", "chosen 1.550", 640)
    # 640 steps of 16 examples out of 15,684; 0.05 s a step; and all that went before it on the budget's clock.
    assert chosen.place.epoch == pytest.approx(640 * 16 / 15_684)
    assert chosen.place.train == pytest.approx(32.0)
    assert chosen.place.clock > 45


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
        (".", "test/bits per byte"): [(680, history.test.scores["bits_per_byte"])],
    }
    for place, points in journaled.items():
        np.testing.assert_allclose(read[place], points, rtol=1e-5, atol=1e-7)
    assert math.isclose(read[".", "budget/train"][-1][1], history.spent["train"], rel_tol=1e-5)


def test_tensorboards_curve_of_the_chosen_goes_on_through_forks_and_phases(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event as Record

    directory = finished(tmp_path, names=("one", "two"))
    write_events(directory)
    steps: dict[tuple[str, str], list[int]] = {}
    for file in sorted(directory.events.rglob("*tfevents*")):
        run = str(file.parent.relative_to(directory.events))
        for raw in RawEventFileLoader(str(file)).Load():
            event = Record.FromString(raw)
            for value in event.summary.value:
                steps.setdefault((run, value.tag), []).append(event.step)
    assert steps["chosen", "train/loss"] == list(range(40, 1281, 40))  # two phases of 480 steps and a cooldown of 160
    assert steps["chosen", "validation_full/loss"] == [1280]
    assert steps["1.control", "train/loss"] == [1120, 1160, 1200, 1240, 1280]  # from the point that it forked from
    assert steps["1.control", "validation/loss"][0] == 1120


# Several runs ---------------------------------------------------------------------------------------


def test_runs_are_compared_on_one_page(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    finished(tmp_path / "a" / "good", 1.65)
    finished(tmp_path / "a" / "better", 1.6)
    (tmp_path / "a" / "other").mkdir()
    unfinished(tmp_path / "a" / "other")
    plan = tmp_path / "a" / "better" / "resolved.json"
    content = json.loads(plan.read_text(encoding="utf-8"))
    content["plan"]["seed"] = 7
    plan.write_text(json.dumps(content), encoding="utf-8")
    runs = [RunDirectory(tmp_path / "a" / name) for name in ("good", "better", "other", "good")]
    page = write_comparison(runs, tmp_path / "new" / "compared.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert "3 runs compared" in tags.text
    assert re.search(r"better ?text generation 1\.600 best ?1\.590 to 1\.610", tags.text)
    assert page.count(">best<") == 1
    assert "gain over it +0.250 (" in tags.text
    assert "unfinished: phase 1 of 1 (plain), trunk, step 120" in tags.text
    assert re.search(r"setting ?good ?better ?other ?seed ?0 ?7 ?0", tags.text)
    assert [a.get("aria-label") for tag, a in tags.elements if tag == "svg"] == [
        "validation loss of 3 runs, over steps",
        "training loss of 3 runs, over steps",
    ]


def test_runs_that_were_scored_on_other_examples_of_a_split_are_not_ranked(tmp_path: Path) -> None:
    runs = [finished(tmp_path / "good", 1.65), finished(tmp_path / "better", 1.6)]
    entries = [fold(read_entries(run.journal)) for run in runs]
    test = entries[1].test
    assert test is not None
    path = runs[1].evaluations / f"{test.table}.npz"
    spans = len(np.load(path)["block"])
    table = {**np.load(path), "bytes": np.full(spans, 1024.0)}  # texts of another length
    np.savez_compressed(path, **table)
    page = write_comparison(runs, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The runs were scored on different parts of the test split (good" in Tags(page).text
    assert page.count(">best<") == 0


def test_a_comparison_needs_two_runs(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    with pytest.raises(PlanError, match="two different runs"):
        write_comparison([run, run], tmp_path / "page.html")
    with pytest.raises(RunDirectoryError, match="no run there"):
        write_comparison([run, RunDirectory(tmp_path)], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# Terminal -------------------------------------------------------------------------------------------


def test_show_and_summary_say_the_same(tmp_path: Path) -> None:
    directory = finished(tmp_path)
    record = json.loads(to_json(summary(directory)))
    assert record["state"] == "finished"
    assert record["answer"].startswith("The network beats the 6-gram baseline by 0.250 nats a token (95% interval ")
    assert [trial["verdict"] for trial in record["phases"][0]["trials"]] == [None, None, "leads"]
    result = json.loads(directory.result.read_text(encoding="utf-8"))
    for key in ("metric", "validation", "test", "baseline", "scores", "steps", "tokens", "kills_survived"):
        assert record[key] == result[key]
    console, out = shown()
    print_run(directory, console)
    for words in (
        record["answer"],
        "  network            1.650  (1.640 to 1.660)",
        "  baseline           1.900  (1.890 to 1.910)  6-gram",
        "0.control",
        "chosen",
        "Chosen: the plain run, the only one that was trained.",
        "train 34s",
        "ended: going on would bring nothing more",
    ):
        assert words in out.getvalue()
    narrow = Console(file=(said := io.StringIO()), width=40, force_terminal=True, color_system=None)
    print_run(directory, narrow)
    assert re.search(r"^  also: .*\n {8}\S", said.getvalue(), re.M), "what is too long goes on below its beginning"


def test_the_result_ends_with_model_and_report_and_disarms_the_sample(tmp_path: Path) -> None:
    directory = finished(tmp_path)
    console, out = shown()
    record = json.loads(directory.result.read_text(encoding="utf-8"))
    exhibit = plain(Exhibit("What it writes", texts=("[bold]从前\x1b]0;title\x07",)))
    print_result(record, tmp_path, [exhibit], console)
    printed = out.getvalue()
    assert "[bold]从前" in printed
    assert "\x1b" not in printed
    assert printed.index("从前") < printed.index("beats the 6-gram") < printed.index(str(tmp_path / "model"))
    assert str(tmp_path / "report.html") in printed


def test_marks_of_large_values_fit_into_the_margin_of_a_narrow_page() -> None:
    """Of 1,000,000,000 a telephone showed ",000,000"."""
    for high, last in ((3.2e9, "3e+9"), (1.2e7, "1e+7"), (9e5, "750,000"), (1.0, "1.00")):
        marks = [text for _, text in _value_marks(0.0, high, percent=False)]
        assert marks[-1] == last
        assert max(map(len, marks)) <= len("750,000")
    assert [text for _, text in _value_marks(-2e6, 4e6, percent=False)] == ["-2e+6", "0", "2e+6", "4e+6"]
