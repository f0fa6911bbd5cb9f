"""The terminal's view of a run, as text of fixed widths and heights; and the plain lines where there is no terminal."""

from __future__ import annotations

import io
import itertools
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from test_report import OPEN, finished, iterated, unfinished

from multistep.core.evidence.metric import METRICS, Interval
from multistep.core.evidence.scores import difference_words, full_score, with_bounds
from multistep.core.values.events import Entry, PhaseReused, PhaseStarted, RunInterrupted, RunResumed, WindowPlanned
from multistep.core.values.history import fold
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.understood import Part, Understood
from multistep.core.values.units import Amount, Unit, format_seconds
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory
from multistep.report.blocks import plot
from multistep.report.frame import Shown, closing, frame
from multistep.report.lines import plain_line
from multistep.report.live import LiveView, can_draw

PLAN = Plan(task="text-generation", data=DataSpec("corpus.txt"), budget=Amount(120.0, Unit.SECONDS))
UNDERSTOOD = Understood(
    data="corpus.txt",
    columns=("text from column 'body'",),
    classes={"ham": 4825, "spam": 747},
    splits=(Part("train", 5000, "examples"), Part("validation", 572, "examples")),
    left_out=("rows left out because they have no text: 3 (corpus.txt:17)",),
    model="bag of 60,000 n-grams",
    parameters=487_746,
    weights="from nothing (drawn at random)",
    device="x86_64 CPU",
    budget="2m",
    notes=("always saying 'ham' is right 86.6% of validation", "文字 are two cells wide " * 9),
)


@pytest.fixture(autouse=True)
def _journals_are_closed() -> object:
    yield
    while OPEN:
        OPEN.pop().close()


def entries_of(directory: RunDirectory) -> list[Entry]:
    """The journal's entries, with a phase that understood something."""
    found = []
    for entry in read_entries(directory.journal):
        if isinstance(entry.event, PhaseStarted):
            facts = replace(entry.event.facts, understood=UNDERSTOOD)
            entry = replace(entry, event=replace(entry.event, facts=facts))
        found.append(entry)
    return found


def shown_at(entries: list[Entry], count: int, **changes: object) -> Shown:
    seen = entries[:count]
    shown = Shown(PLAN, Path("runs/spam"), seen[-1] if seen else None, fold(seen), hint=True)
    return replace(shown, **changes)  # type: ignore[arg-type]


def drawn(shown: Shown, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    lines = frame(shown, width, height, console)
    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width
    return [line.plain.rstrip() for line in lines]


def at(entries: list[Entry], kind: type, trial: str) -> int:
    """How many entries there are up to the last one of this kind and trial."""
    return max(i for i, e in enumerate(entries) if isinstance(e.event, kind) and trial in str(e.event)) + 1


def test_at_80_by_24_the_numbers_are_there_and_nothing_is_wrapped(tmp_path: Path) -> None:
    entries = entries_of(unfinished(tmp_path))
    screen = drawn(shown_at(entries, len(entries), ticking=30.0), 80, 24)
    text = "\n".join(screen)
    spent = fold(entries).seconds + 30
    assert screen[0].startswith("text-generation on corpus.txt")
    doing = "now Training at a constant learning rate (the trunk); 40 steps to the next look at validation, about 2s"
    assert doing in " ".join(text.split())
    assert re.search(r"^loss +2\.\d{3} +\(2\.\d{3} to 2\.\d{3}\) +at step 120, nats a token$", text, re.M)
    assert re.search(r"^baseline +1\.900 .* 6-gram$", text, re.M)
    assert re.search(r"^progress +epoch 0\.12   step 120   [\d,]+ tokens/s   training loss \d\.\d{3}", text, re.M)
    left = round(120 - spent)
    assert f"  {left}s left of 2m" in text or f"1m{left - 60:02d}s left of 2m" in text
    assert "validation loss, " in text
    assert re.search(r"^trunk, at a constant learning rate +120 steps +going on$", text, re.M)
    assert "- rows left out because they have no text: 3 (corpus.txt:17)" in text
    assert "- always saying 'ham' is right 86.6% of validation" in text
    assert screen[-1].startswith("Ctrl-C stops the run and keeps what it has")


def test_a_wide_screen_tells_beside_it_what_was_understood(tmp_path: Path) -> None:
    entries = entries_of(unfinished(tmp_path))
    screen = drawn(shown_at(entries, len(entries)), 160, 45)
    right = [line.partition("│")[2].strip() for line in screen]
    for words in (
        "classes      2 in training: ham 4,825, spam 747",
        "splits       train 5,000 examples, validation 572 examples",
        "model        bag of 60,000 n-grams; 487,746 parameters",
    ):
        assert words in right
    assert any(line.startswith("- always saying") for line in right)
    assert len([line for line in screen if "█" in line]) > 8  # the curve has grown with the screen


def test_no_line_is_wider_than_any_screen_at_any_time(tmp_path: Path) -> None:
    entries = entries_of(iterated(tmp_path).directory)
    said = ("a warning that somebody wrote to stderr " * 3,)
    moments = [shown_at(entries, count, messages=said) for count in (0, 1, 2, 5, 9, 60, 140, 200, len(entries))]
    for width in (1, 7, 25, 40, 60, 80, 100, 116, 160, 300):
        for height in (1, 5, 12, 20, 24, 45):
            for moment in moments:
                drawn(moment, width, height)


def test_trials_are_told_with_what_became_of_them(tmp_path: Path) -> None:
    entries = entries_of(iterated(tmp_path).directory)
    place = at(entries, WindowPlanned, "2.drop")
    text = "\n".join(drawn(shown_at(entries, place), 110, 45))
    assert "now          Trying dropout-up: dropout 0.1 to 0.2; 40 steps to the next checkpoint, about 2s" in text
    assert "why          the plain run overfitted" in text
    console = Console(file=io.StringIO(), width=160)
    lines = [line.plain for line in closing(shown_at(entries, len(entries)), 160, console)]
    (kept,) = (line for line in lines if line.startswith("dropout-up: dropout 0 to 0.1 "))
    assert re.search(r" 160 steps +1\.550  best so far: 0\.070 nats a token better, proven", kept)
    assert any(re.match(r"cooldown, the .* best for a while, then overtaken", line) for line in lines)
    assert any(re.match(r"rate-up: .* failed: the score is not finite", line) for line in lines)


def test_without_a_terminal_each_meaningful_event_is_one_plain_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = finished(tmp_path)
    entries = entries_of(directory)
    view = LiveView(PLAN, out=tmp_path)
    with view:
        for index, entry in enumerate(entries):
            view.on_entry(entry, fold(entries[: index + 1]))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "\x1b" not in printed.err
    told = re.findall(r"^ +([\d.]+)s  step [\d,]+, epoch [\d.]+: validation loss \d\.\d{3} nats", printed.err, re.M)
    every = [look for t in fold(entries).phase.trials.values() if t.trial.kind != "probe" for look in t.curve]
    assert 2 < len(told) < len(every), "a fast run has more looks than anybody reads"
    assert all(float(after) - float(before) > 4.8 for before, after in itertools.pairwise(told))
    assert len(re.findall(r"probe of the learning rate 0.02, step 40, epoch", printed.err)) == 1
    for words in (
        "         classes     2 in training: ham 4,825, spam 747\n",
        "         note        always saying 'ham' is right 86.6% of validation\n",
        "baseline (6-gram), validation: loss 1.900 nats a token",
        "the cooldown: loss 1.6",
        "; best so far",
        "test: loss 1.650 nats a token (1.640 to 1.660)",
        "finished (going on would bring nothing more): 680 steps",
    ):
        assert len(re.findall(re.escape(words), printed.err)) == 1, words


def test_a_resumed_run_says_what_was_spent_before_without_its_own_beginning(tmp_path: Path) -> None:
    """The 46 s in which it opened its data were among them."""
    entries = entries_of(unfinished(tmp_path))
    before = fold(entries).seconds
    entry = Entry(RunResumed(3.0), {"other": 46.0})
    line = plain_line(PLAN, entry, fold([entry], fold(entries)))
    assert line == f"going on; {format_seconds(before + 3.0)} were spent before", "and what the kill lost is"


def test_a_reused_phase_and_an_interruption_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = entries_of(unfinished(tmp_path))
    view = LiveView(PLAN, out=tmp_path)
    view.on_entry(replace(entries[-1], event=PhaseReused(0, "4ac2", "earlier")), fold(entries))
    view.on_entry(replace(entries[-1], event=RunInterrupted("SIGINT")), fold(entries))
    printed = capsys.readouterr().err
    assert (
        "phase plain was taken from the run earlier, which had done it with the same recipe, data and code (4ac2)"
        in printed
    )
    assert "stopped by SIGINT" in printed


def terminal(**keywords: object) -> tuple[Console, io.StringIO]:
    class Screen(io.StringIO):
        encoding = "utf-8"

    out = Screen()
    settings = {"width": 100, "height": 30, "force_terminal": True, "legacy_windows": False, **keywords}
    return Console(file=out, **settings), out  # type: ignore[arg-type]


def test_the_screen_is_given_back_with_a_summary_and_what_was_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    entries = entries_of(unfinished(tmp_path))
    console, out = terminal()
    before = sys.stderr
    kept = []

    def run() -> None:
        with LiveView(PLAN, out=tmp_path, console=console) as view:
            for index, entry in enumerate(entries):
                view.on_entry(entry, fold(entries[: index + 1]))
            print("the hub answers slowly\rthe hub answers slowly", file=sys.stderr)
            kept.append(sys.stderr)
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        run()
    assert sys.stderr is before
    text = out.getvalue()
    assert text.index("\x1b[?1049h") < text.index("\x1b[?1049l")
    rest = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", text[text.rindex("\x1b[?1049l") :])
    assert "2 in training: ham 4,825, spam 747" in rest
    assert rest.count("- the hub answers slowly") == 1
    print("later", file=kept[0])  # of a handler that kept the stream
    assert capsys.readouterr() == ("", "later\n")


def test_a_picture_that_cannot_be_drawn_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console, out = terminal()
    view = LiveView(PLAN, out=tmp_path, console=console)

    def fail(*_arguments: object) -> None:
        raise ValueError("no such line")

    monkeypatch.setattr("multistep.report.frame.frame", fail)
    console.print(view.render())
    assert "cannot be drawn (ValueError: no such line); the run goes on." in out.getvalue()


def test_what_cannot_be_drawn_on_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert can_draw(terminal()[0])
    monkeypatch.setenv("TERM", "dumb")
    assert not can_draw(terminal()[0])
    monkeypatch.setenv("TERM", "xterm")
    assert not can_draw(Console(file=io.StringIO(), force_terminal=False))
    console, out = terminal()
    type(out).encoding = "latin-1"
    assert not can_draw(console)


def test_without_colour_the_screen_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    entries = entries_of(unfinished(tmp_path))
    console, out = terminal()
    view = LiveView(PLAN, out=tmp_path, console=console)
    view.on_entry(entries[-1], fold(entries))
    console.print(view.render())
    assert not re.search(r"\x1b\[[\d;]*(3[0-7]|9[0-7])m", out.getvalue())
    assert "left of 2m" in out.getvalue()


def test_scores_are_written_as_people_write_them() -> None:
    accuracy, loss, wer = METRICS["accuracy"], METRICS["loss"], METRICS["wer"]
    assert with_bounds(accuracy, Interval(0.7921, 0.779, 0.8049, 500)) == "accuracy 79.2% (77.9 to 80.5%)"
    assert full_score(loss, 1.2341) == "loss 1.234 nats a token"
    assert full_score(wer, 0.123) == "WER 12.3%"
    assert full_score(METRICS["roc_auc"], 0.90712) == "ROC AUC 0.907"
    assert difference_words(accuracy, -0.0121) == "1.2 points"
    assert with_bounds(wer, Interval(0.5, -math.inf, math.inf, 1)) == "WER 50.0%"


def test_a_curve_fills_its_box_and_the_first_looks_do_not_set_the_scale() -> None:
    rows = plot([(step, 5.0 if step == 0 else 2.0 - step / 100) for step in range(20)], 40, 4)
    assert [len(row) for row in rows] == [40] * 4
    assert rows[0][0] == "█"  # cut at the top
    assert rows[-1][-1] == "▁"
    assert rows[0].rstrip() != rows[0]
    assert sum("█" in row for row in rows) == 4  # the rest uses the whole height
    assert plot([(0, 1.0)], 40, 4) == []
    assert plot([(0, 1.0), (1, math.nan)], 40, 4) == []
    assert plot([(0, 1.0), (1, 1.0)], 3, 1) == ["▄▄▄"]
