"""What the report says to a reader's questions, the tree of trials, and the limits of charts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from runs import execute, plan
from test_report import RecordedRun, Tags, finished, iterated, iterated_to_the_end, page_of
from test_report import _journals_are_closed as _journals_are_closed  # its fixture

from multistep.core.evidence.curves import Curve
from multistep.core.evidence.metric import METRICS
from multistep.core.evidence.scores import form_of
from multistep.core.evidence.stability import Stability
from multistep.core.values.events import Entry, PhaseFinished, PhaseStarted, ShipDecided, StabilityRead, TrialEnded
from multistep.core.values.history import fold
from multistep.core.values.recipe import Segment
from multistep.engine.journal import read_entries
from multistep.engine.result import counted_in
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock, Machine
from multistep.report.answers import advice, questions
from multistep.report.charts import charts_of
from multistep.report.compare import write_comparison
from multistep.report.outcome import answer
from multistep.report.plainly import doing, name_of, outcome
from multistep.report.summary import summary
from multistep.report.table import story
from multistep.report.tracks import tracks_of
from multistep.report.tree import tree_of, verdict_of
from multistep.report.words import title

LOSS = form_of(METRICS["loss"])


def said(folder: Path) -> dict[str, str]:
    record = summary(RunDirectory(folder))
    return {question: " ".join(told) for question, told in questions(record, answer(record), LOSS)}


def test_a_run_that_diverged_is_told_what_to_lower(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path)
    run.phase(0)
    run.trial("0.trunk", "trunk", None, "the phase's recipe")
    run.window("0.trunk", (Segment(40, "constant", 0.02),), look=False, loss=math.nan)
    why = "the loss is not finite"
    run.add(StabilityRead("0.trunk", 40, Stability.DIVERGED, 0.0, high=0.0, tolerance=0.006, reason=why))
    run.add(TrialEnded("0.trunk"))
    run.add(PhaseFinished(0, None, "diverged"))
    assert "it was 0.02; try 0.0067" in said(tmp_path)["What should I do next?"]
    text = Tags(page_of(run.directory)).text
    assert "The run failed: phase 1 of 1 (plain) diverged" in text
    assert "Nothing was scored in full yet" not in text


def test_what_was_tried_is_counted_and_overfitting_answered_yes(tmp_path: Path) -> None:
    iterated_to_the_end(tmp_path)
    found = said(tmp_path)
    assert found["Is it better than a trivial model?"].startswith("Yes.")
    changes = found["Did any change to the recipe help?"]
    assert changes.startswith("Yes. The model comes from 0.round-1.dropout-up")
    assert "0.070 nats a token better than the plain run, which is proven." in changes
    assert "5 changes were tried: 1 was chosen, 3 were rejected, 1 diverged." in changes
    assert found["Did it overfit?"].startswith("Yes: 0.trunk was ended because it overfitted")
    assert "26% of the steps led to the model" in found["Where did the time go?"]
    assert "More training examples" in found["What should I do next?"]


def test_a_trunk_left_far_behind_its_best_look_overfitted_though_no_look_proved_it(tmp_path: Path) -> None:
    """Sixty seconds of a text that is soon known by heart: five looks, where ten are needed to call it so."""
    curve = Curve("overfitting", floor=1.5, drop=2.0, pace=60.0, turn=200.0, rise=2.0, noise_sd=0.002)
    wanted = plan(budget="60s", recipe={"learning_rate": 0.02}, seed=1)
    machine = Machine(sample_seconds=0.4)
    history = execute(wanted, tmp_path / "run", curve, clock=FakeClock(), machine=machine, workshop=None)
    (control,) = history.phase.of_kind("control")
    assert control.reason == (
        "the last look was worse by 0.213 than that at step 191, so the cooldown starts from step 191"
    )
    moves = history.phase.of_kind("move")
    assert moves
    assert all(move.reason.startswith("the plain run overfitted, and this change may help") for move in moves)
    told = said(tmp_path / "run")
    assert told["Did it overfit?"].startswith(
        "Yes: 0.trunk overfitted: its last look was 0.213 nats a token worse than that at step 191. 0.control starts "
        "from an earlier step instead."
    )
    assert "More training examples" in told["What should I do next?"]
    (trunk, *_) = summary(RunDirectory(tmp_path / "run"))["phases"][0]["trials"]
    assert (trunk["id"], trunk["stability"]) == ("0.trunk", "overfitting")


def overtaken(folder: Path) -> RecordedRun:
    """Dropout led, more of it was better than the plain run and not better than that, and batch-up leads in the end."""
    run = RecordedRun(folder)
    run.phase(0)
    run.trunk(shown=Stability.OVERFITTING)
    run.control(iterating=True)
    first, more, chosen = "0.round-1.dropout-up", "0.round-1.dropout-up+dropout-up", "0.round-1.batch-up"
    run.sibling(first, 1.55, move="dropout-up")
    run.judge(first, 0.07, 2.5)
    run.sibling(chosen, 1.56, move="batch-up")
    run.judge(chosen, -0.001, 2.5)
    run.sibling(more, 1.57, move="dropout-up+dropout-up")
    expected = {**run.journal.history.expected, first: 0.07, chosen: 0.08, more: 0.05}
    run.judge(more, 0.05, 2.5, leads=False, leader=chosen, expected=expected)
    run.add(PhaseFinished(0, run.journal.history.trial(chosen).checkpoints[-1].id, "moves"))
    run.finish()
    return run


def test_what_was_chosen_is_not_called_rejected_though_it_did_not_lead_when_it_was_judged(tmp_path: Path) -> None:
    record = summary(overtaken(tmp_path).directory)
    told = dict(questions(record, answer(record), LOSS))
    changes = "3 changes were tried: 1 was chosen, 1 led for a time (1 proven), 1 was rejected."
    assert any(changes in each for each in told["Did any change to the recipe help?"]), "not 2 proven of 1"
    assert "No change" not in " ".join(told["Did it overfit?"])
    assert any("with it (0.round-1.batch-up)" in each for each in told["Did it overfit?"])
    assert any("Whether batch-up helps in general" in each for each in record["said"]["noise"])
    trials = {trial["id"]: trial for trial in record["phases"][0]["trials"]}
    for name, chosen, words in (
        ("batch-up", True, "It did not lead when it was judged, and was chosen when all were weighed anew."),
        ("dropout-up", False, "It led for a time."),
        ("dropout-up+dropout-up", False, "the best plain run so far; 0.round-1.batch-up was better still."),
    ):
        trial = trials[f"0.round-1.{name}"]
        assert words in verdict_of(trial, LOSS, {"0.control": "cooldown"}, chosen=chosen)
    assert "and was chosen when all were weighed anew: " in story(trials["0.round-1.batch-up"], LOSS, chosen=True)
    assert "for 0.round-1.batch-up was better still: " in story(trials["0.round-1.dropout-up+dropout-up"], LOSS)


def test_the_only_one_that_was_trained_is_said_only_where_nothing_else_was_judged(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path)
    run.phase(0)
    run.trunk()
    run.control(iterating=True)
    run.sibling("0.round-1.dropout-up", 1.63, move="dropout-up")
    run.judge("0.round-1.dropout-up", -0.01, 2.5)
    leader = summary(run.directory)["leader"]
    assert leader["sentence"].startswith(
        "Chosen: the plain run, expected to be 0.010 nats a token better than 0.round-1.dropout-up"
    )
    assert (leader["gains"], leader["gains_over"]) == ({"0.control": 0.0, "0.round-1.dropout-up": -0.01}, "0.control")


def test_no_gain_is_said_that_would_leave_less_than_no_loss(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path)
    run.phase(0)
    run.trunk()
    run.control(iterating=True)  # 1.62
    run.sibling("0.round-1.dropout-up", 0.1, move="dropout-up")
    run.judge("0.round-1.dropout-up", 1.8, 2.5)
    leader = summary(run.directory)["leader"]
    assert leader["sentence"].startswith("Chosen: dropout-up, expected to be 1.620 nats a token better than")
    assert (leader["expected"], leader["gains"]["0.round-1.dropout-up"]) == (pytest.approx(1.62), pytest.approx(1.62))


def second_cooldown(folder: Path) -> RecordedRun:
    """The plain run has a second cooldown, which is better than its first and leads, without a proof."""
    run = RecordedRun(folder)
    run.phase(0)
    run.trunk()
    run.control(iterating=True)
    name = "0.control-2"
    run.trial(name, "control", "0.trunk@480", "step 480 scored better", 160)
    run.window(name, (Segment(160, "linear", 0.02, 0.0, 1.0),), look=False)
    run.save(name)
    run.look(name, 1.6, sample=False)
    run.judge(name, 0.02, 4.0, leads=True, leader=name)
    return run


def test_a_step_that_was_judged_without_a_cooldown_is_not_called_one(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path)
    run.phase(0)
    run.trunk()
    run.control(iterating=True)
    name = "0.control-2"
    run.trial(name, "control", "0.trunk@480", "step 480 scored better")
    assert doing(list(read_entries(run.directory.journal))[-1], run.journal.history) == "Scoring step 480 as it is"
    run.save(name)
    run.look(name, 1.6, sample=False)
    run.judge(name, 0.02, 4.0, leads=True, leader=name)
    run.add(PhaseFinished(0, "0.control-2@480", "moves"))
    run.finish()
    record = summary(run.directory)
    trial = next(t for t in record["phases"][0]["trials"] if t["id"] == name)
    assert title(trial) == name_of(run.journal.history, run.journal.history.trial(name)) == "step 480 as it is"
    assert story(trial, LOSS).startswith("Step 480 as it is, from 0.trunk@480. Step 480 scored better.")
    assert "better than 0.control, its other end; " in record["leader"]["sentence"]
    assert title(record["phases"][0]["trials"][1]) == "cooldown"


def test_phases_that_count_different_things_have_no_sum_of_them(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path, names=("pretrain", "classify"))
    for index in (0, 1):
        run.phase(index)
        run.trunk(index)
        run.control(index)
    assert counted_in(run.journal.history) == "tokens"

    def of_examples(entry: Entry) -> Entry:
        event = entry.event
        if not isinstance(event, PhaseStarted) or event.phase == 0:
            return entry
        return replace(entry, event=replace(event, facts=replace(event.facts, tokens_per_example=1)))

    history = fold(map(of_examples, read_entries(run.directory.journal)))
    assert history.phase.started.facts.counted == "examples"
    assert counted_in(history) is None


def test_the_plain_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    run = second_cooldown(tmp_path)
    run.add(PhaseFinished(0, "0.control-2@640", "moves"))
    run.finish()
    record = summary(run.directory)
    assert record["leader"]["gains"] == {"0.control": pytest.approx(-0.02), "0.control-2": 0.0}, "its best end is zero"
    assert "better than 0.control, its other cooldown; this is not proven" in record["leader"]["sentence"]
    assert "To prove" not in " ".join(said(tmp_path)["What should I do next?"])


def test_page_and_terminal_say_alike_that_nothing_was_tested_over_the_plain_runs_best_end(tmp_path: Path) -> None:
    run = second_cooldown(tmp_path)
    run.sibling("0.round-1.dropout-up", 1.55, move="dropout-up")
    run.judge("0.round-1.dropout-up", 0.07, 2.5)  # over 0.control, while 0.control-2 is the best end
    record = summary(run.directory)
    assert record["leader"]["sentence"].endswith("whether that is proven was not tested.")
    told = dict(questions(record, answer(record), LOSS))["Did any change to the recipe help?"][0]
    assert told.startswith("Whether one did was not tested.")
    assert told.endswith("its own verdict compares it with 0.control.")
    (root,) = tree_of(record["phases"][0]["trials"], record["leader"], [], LOSS)
    (chosen,) = (node for node in root.children if node.chosen)
    assert chosen.word == "chosen", "what was proven then was over an earlier end of the plain run"
    assert dict(chosen.said)["Verdict"].endswith("so it is proven over that, but not over the plain run's best end.")
    history = run.journal.history
    assert outcome(history, history.trial(chosen.trial["id"])).endswith("better than the cooldown"), "with no proof"


def test_the_model_before_training_is_no_plain_run(tmp_path: Path) -> None:
    run = second_cooldown(tmp_path)
    trial = next(t for t in summary(run.directory)["phases"][0]["trials"] if t["id"] == "0.control-2")
    trial["expected"]["over"] = "0.base"
    told = verdict_of(trial, LOSS, {"0.base": "model before training"}, chosen=True)
    assert "better than 0.base (model before training). Measured" in told


def test_advice_looks_at_divergence_and_overfitting_before_more_time(tmp_path: Path) -> None:
    iterated_to_the_end(tmp_path)
    record = summary(RunDirectory(tmp_path))
    found = answer(record)
    assert found is not None
    behind = replace(found, standing="loses")
    record["validation_optimism"] = {"score": 0.2, "low": 0.1, "high": 0.3, "baseline": None}
    told = " ".join(advice(record, behind, LOSS))
    assert "the run overfitted. As it is, the baseline is the better" in told
    assert "looks better than what new data will give" in told, "a loss that flatters is lower"
    record["phases"][0]["trials"][0]["stability"] = "diverged"
    assert "training diverged at 0.02" in " ".join(advice(record, behind, LOSS))


def test_a_split_that_is_harder_beyond_noise_is_called_so(tmp_path: Path) -> None:
    finished(tmp_path, final=1.3)
    assert "so validation is the harder split" in said(tmp_path)["Did it overfit?"]
    assert summary(RunDirectory(tmp_path))["said"]["optimism"].count("so validation is the harder split") == 1


def test_overfitting_by_the_loss_alone_is_neither_claimed_nor_denied(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path)
    run.phase(0)
    run.trunk()
    reading = StabilityRead("0.trunk", 480, Stability.UNDECIDED, 0.0, 0.0, 0.006, "no trend", Stability.OVERFITTING)
    run.add(reading)
    run.control(iterating=True)
    record = summary(run.directory)
    told = dict(questions(record, answer(record), LOSS))["Did it overfit?"]
    assert told[0].startswith("0.trunk overfitted by its loss, not yet by loss."), "the metric here is called so, too"
    assert "do not show it" not in " ".join(told)
    trial = record["phases"][0]["trials"][0]
    assert story(trial, LOSS).endswith("Its curve shows no clear trend, but it overfitted by its loss.")
    assert story({**trial, "ended": False, "stability": "improving"}, LOSS).endswith(
        "It is still improving, but it overfits by its loss."
    )


def test_where_the_baseline_ships_titles_numbers_and_advice_are_its_own(tmp_path: Path) -> None:
    finished(tmp_path / "network", final=1.7)
    run = RecordedRun(tmp_path / "baseline", baseline=1.6)
    run.phase(0)
    run.trunk()
    run.control()
    run.add(ShipDecided("baseline", "The baseline ships, not the network."))
    directory = run.finish(1.65)
    exhibit = {"title": "Probabilities of the baseline", "texts": [], "columns": [], "rows": [], "pictures": []}
    directory.exhibits.write_text(json.dumps([{**exhibit, "shaded": False}]), encoding="utf-8")
    page = page_of(directory)
    assert "<title>loss 1.600: text generation</title>" in page
    assert "Probabilities of the baseline</h2>" in page
    text = Tags(page).text
    assert "perplexity of the network" in text
    assert "On validation, where the network was chosen, it scored: 1.620" in text
    out = tmp_path / "page.html"
    both = Tags(write_comparison([directory, RunDirectory(tmp_path / "network")], out).read_text(encoding="utf-8")).text
    assert "the baseline's, which ships; network 1.650" in both
    record = summary(directory)
    found = answer(record)
    assert found is not None
    assert [found.shipped.score, found.score.score] == pytest.approx([1.6, 1.65])


def test_it_is_said_whether_anything_was_tried_against_overfitting(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path)
    run.phase(0)
    run.trunk(shown=Stability.OVERFITTING)
    run.control()
    assert "No change was tried against it." in said(tmp_path)["Did it overfit?"]


def test_without_a_test_split_the_score_is_said_to_flatter(tmp_path: Path) -> None:
    finished(tmp_path, test=False)
    assert "Keep some examples as a test split (data.test)" in said(tmp_path)["What should I do next?"]


def test_a_gain_that_is_not_proven_is_told_how_many_examples_would_prove_it(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path)
    run.phase(0)
    run.trunk()
    run.control(iterating=True)
    run.sibling("0.round-1.dropout-up", 1.6, move="dropout-up")
    run.judge("0.round-1.dropout-up", 0.05, 4.9)  # 0.049 are asked of it
    record = summary(run.directory)
    trial = next(t for t in record["phases"][0]["trials"] if t["id"] == record["winner"])
    trial["proven"], trial["demanded"]["improvement"] = False, 0.1  # twice as much: four times the examples
    record["state"] = "finished"
    told = dict(questions(record, answer(record), LOSS))["What should I do next?"]
    assert any("takes about 220 validation examples" in each and "there are 54." in each for each in told)


def test_the_tree_hangs_each_trial_below_the_one_it_forked_from(tmp_path: Path) -> None:
    run = iterated(tmp_path)
    record = summary(run.directory)
    (root,) = tree_of(record["phases"][0]["trials"], record["leader"], ["0.trunk"], LOSS)
    assert (root.trial["id"], root.word) == ("0.trunk", "on the way")
    below = {node.trial["id"]: node for node in (*root.children, *root.more)}
    assert below["0.round-1.rate-up"].word == "diverged"
    winner = below["0.round-1.dropout-up"]
    assert (winner.word, winner.chosen) == ("chosen, proven", True)
    assert [node.trial["id"] for node in winner.children] == [
        "0.round-2.control",
        "0.round-2.dropout-up",
        "0.average-1",
    ]
    # The bar reaches from -1.5 times the best to the best; -0.35 lies beyond it.
    assert below["0.round-1.optimizer-adamw"].bar is not None
    assert below["0.round-1.optimizer-adamw"].bar["beyond"] is True
    assert winner.bar is not None
    assert winner.bar["zero"] < winner.bar["asked"] < winner.bar["left"] < winner.bar["at"]


def test_a_baseline_far_off_does_not_flatten_the_curves(tmp_path: Path) -> None:
    finished(tmp_path / "far", baseline=40.0)
    finished(tmp_path / "near", names=("one", "two"))
    for name, within in (("far", False), ("near", True)):
        entries = list(read_entries(tmp_path / name / "journal.jsonl"))
        history = fold(entries)
        loss = charts_of(history, tracks_of(entries, history), {})[0]
        (level,) = loss.levels
        assert (loss.limits[0] <= level.value <= loss.limits[1]) is within
        assert sum(line.look == "train" for line in loss.lines) == len(history.phases)  # a line breaks between phases
    assert "baseline 40.0 ↑" in page_of(RunDirectory(tmp_path / "far"))


@pytest.mark.parametrize(
    ("metric", "width", "score", "gap"),
    [
        ("accuracy", None, "84.1%", "+3.1 points"),
        ("accuracy", 0.001, "84.13%", "+3.14 points"),
        ("wer", None, "84.1%", "+3.1 points"),
        ("loss", None, "0.841", "+0.031"),
        ("loss", 0.001, "0.8413", "+0.0314"),
    ],
)
def test_scores_are_written_as_people_write_them(metric: str, width: float | None, score: str, gap: str) -> None:
    form = form_of(METRICS[metric], width)
    assert (form.of(0.8413), form.gap(0.0314)) == (score, gap)


def test_what_the_run_understood_stands_in_the_page(tmp_path: Path) -> None:
    directory = finished(tmp_path)
    content = json.loads(directory.resolved.read_text(encoding="utf-8"))
    content["understood"] = [{"name": "classes", "value": "2: ham 4,825, <b>垃圾</b> 747", "detail": "column 'label'"}]
    directory.resolved.write_text(json.dumps(content), encoding="utf-8")
    text = Tags(page_of(directory)).text
    assert "What the run understood classes2: ham 4,825, <b>垃圾</b> 747column 'label'" in text
    assert "Notes on the data 12 documents are duplicates" in text
