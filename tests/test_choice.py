"""What is done with the time, tested with curves: first results, leaving a trunk, and what is weighed after that."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from runs import FALLS_THEN_FLAT, OVERFITS, POWER, Fragile, Killed, execute, plan

from multistep.core.choice import bets
from multistep.core.choice.options import weigh
from multistep.core.choice.probing import chosen_rate
from multistep.core.choice.verdicts import decide
from multistep.core.evidence.curves import Curve
from multistep.core.evidence.expected import Expected
from multistep.core.evidence.metric import METRICS, Evaluation
from multistep.core.values.events import CheckpointSaved, Evaluated, VerdictGiven
from multistep.core.values.history import History, TrialRecord, fold
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Progress
from multistep.core.values.units import Amount, Unit
from multistep.engine.chosen import leader_of
from multistep.engine.journal import read_entries
from multistep.engine.learner import Readiness, Split
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import RECIPE, TOKENS, FakeClock, Machine, SimulatedLearner, SimulatedWorkshop, World
from multistep.report.page import write_page
from multistep.report.table import print_run

RATE = {"learning_rate": 0.02}  # given, so that nothing is probed
NOISE = World(between_blocks=0.01, between_seeds=0.0005)


def iterate(folder: Path, curve: Curve, world: World = NOISE, **keywords: Any) -> History:
    clock = FakeClock()
    wanted = {"budget": "10m", "recipe": RATE, **keywords}
    return execute(plan(**wanted), folder, curve, clock=clock, workshop=SimulatedWorkshop(curve, clock, None, world))


def tried(history: History, move: str) -> list[TrialRecord]:
    return [t for t in history.phase.of_kind("move") if t.trial.move == move]


# A first result -----------------------------------------------------------------------------------------


def test_a_complete_result_is_there_within_a_tenth_and_the_trunk_goes_on_from_where_it_was(tmp_path: Path) -> None:
    history = iterate(tmp_path / "run", POWER)
    first = history.phase.of_kind("control")[0]
    assert first.verdict is not None
    assert first.verdict.leads
    spent = sum(t.seconds + t.full_seconds for t in list(history.phase.trials.values())[:2])
    assert spent < 60
    trunks = history.phase.of_kind("trunk")
    assert trunks[1].trial.start == first.trial.start
    assert trunks[1].trial.learning_rate == trunks[0].trial.learning_rate


def test_no_early_result_where_it_costs_more_than_it_can_bring(tmp_path: Path) -> None:
    clock, machine = FakeClock(), Machine(sample_seconds=7.5, full_seconds=30.0)
    dear = execute(plan(budget="10m", recipe=RATE), tmp_path / "dear", clock=clock, machine=machine)
    assert dear.phase.of_kind("control")[0].step > 2000, "scoring takes a twentieth of the budget"

    class Endless(SimulatedWorkshop):
        def open(self, *args: Any) -> Any:
            learner, ready = super().open(*args)
            return learner, replace(ready, facts=replace(ready.facts, train_examples=10**6))

    clock = FakeClock()
    once = execute(
        plan(budget="10m", recipe=RATE), tmp_path / "once", POWER, clock=clock, workshop=Endless(POWER, clock)
    )
    assert once.phase.of_kind("control")[0].step > 2000, "data that is hardly read once is not overfitted"
    plain = iterate(tmp_path / "plain", POWER, moves=[])
    assert len(plain.phase.of_kind("control")) == 1, "who wants no moves wants the plain run"


# Leaving a trunk ----------------------------------------------------------------------------------------


def test_a_trunk_is_left_when_what_could_follow_is_worth_more_and_not_before(tmp_path: Path) -> None:
    flat = iterate(tmp_path / "flat", FALLS_THEN_FLAT)
    cooled = flat.phase.of_kind("control")[1]
    assert cooled.reason == "other attempts are now expected to bring more than going on at a constant learning rate"
    assert 1200 < cooled.first_step < 6000, "of 12,000 steps: the curve is flat from about 2,000 on"
    assert cooled.forecast is not None
    assert cooled.forecast.name == "cool down now"
    names = {w.name for w in cooled.weighed}
    assert {"go on to the end", "dropout-up"} <= names, "the trunk's own lengths, and what could follow"
    # Of twelve seeds one, 0, has a cooldown whose noise is taken for overfitting.
    for seed in (1, 2, 3):
        improving = iterate(tmp_path / f"improving-{seed}", POWER, budget="5m", seed=seed)
        last = improving.phase.of_kind("control")[-1]
        assert last.reason == "what is left of the budget is just enough for the cooldown"
        (weighed,) = last.weighed
        assert 0 < weighed.cost < 300, "seconds, as the budget, not steps"


class Listening(SimulatedWorkshop):
    """A classifier of four hundred texts: its accuracy by step, and how sure it is of its mistakes, as a logit."""

    def __init__(
        self,
        clock: FakeClock,
        accuracy: Callable[[int], float],
        wrong: Callable[[int], float],
        baseline: float = 0.5,
        noise: float = 0.01,
    ) -> None:
        super().__init__(POWER, clock)
        self._accuracy, self._wrong, self._baseline, self._noise = accuracy, wrong, baseline, noise

    def open(self, *args: Any) -> Any:
        opened: tuple[Any, Readiness] = super().open(*args)
        learner, ready = opened
        score = learner.evaluate

        def table(right: float, wrong: float, generator: np.random.Generator) -> Evaluation:
            share = min(1.0, max(0.0, right + self._noise * generator.standard_normal()))
            correct = np.arange(400) < round(400 * share)
            each = np.logaddexp(0.0, np.where(correct, -2.0, wrong))
            columns = {"label": np.ones(400), "prediction": correct.astype(float), "block": np.arange(400.0)}
            return Evaluation({**columns, "loss": each, "count": np.ones(400)})

        def evaluate(split: Split, *, sample: bool) -> Evaluation:
            score(split, sample=sample)  # what it costs
            steps = learner._steps
            generator = np.random.default_rng([steps, sample])
            return table(self._accuracy(steps), self._wrong(steps), generator)

        learner.evaluate = evaluate
        learner.baseline = lambda split: ("counting", table(self._baseline, 1.0, np.random.default_rng(0)))
        return learner, replace(ready, metrics=("accuracy",))


def listen(folder: Path, workshop: Callable[[FakeClock], Listening], **keywords: Any) -> History:
    clock = FakeClock()
    wanted = plan(task="text-classification", **{"budget": "10m", "recipe": RATE, **keywords})
    return execute(wanted, folder, clock=clock, workshop=workshop(clock))


def test_overfitting_that_only_the_loss_shows_ends_a_trunk_too(tmp_path: Path) -> None:
    """Accuracy within noise of 0.8 all the time; from step 800 on it gets surer of its mistakes alone."""

    def accuracy(step: int) -> float:
        return 0.8 - 0.3 / (1 + step / 50)

    def surer(step: int) -> float:
        return 0.5 + 2.5 * float(np.exp(-step / 200)) + max(0, step - 800) / 2000

    def humbler(step: int) -> float:
        return 0.5 + 2.5 * float(np.exp(-step / 200)) - 0.1 * float(np.log1p(step / 1000))

    seen = listen(tmp_path / "surer", lambda clock: Listening(clock, accuracy, surer))
    unseen = listen(tmp_path / "humbler", lambda clock: Listening(clock, accuracy, humbler))
    left = [max(t.step for t in h.phase.of_kind("trunk")) for h in (seen, unseen)]
    assert left[0] < 0.6 * left[1]
    assert left[0] < 4000


def test_what_has_not_begun_to_learn_is_no_plateau(tmp_path: Path) -> None:
    """All blanks until step 5,000, as CTC has it, behind a constant answer of 0.6; then nearly everything at once."""

    def accuracy(step: int) -> float:
        return 0.0 if step < 5000 else 0.95

    history = listen(
        tmp_path / "run", lambda clock: Listening(clock, accuracy, lambda step: 2.0, baseline=0.6, noise=0.0)
    )
    assert history.leader is not None
    assert history.leader.interval is not None
    assert history.leader.interval.score > 0.9
    trunks = history.phase.of_kind("trunk")
    assert max(t.step for t in trunks) > 5000


class Memorising(SimulatedWorkshop):
    """Knows its training data by heart: the training loss is next to nothing, and many times that by chance."""

    def open(self, *args: Any) -> Any:
        opened: tuple[Any, Readiness] = super().open(*args)
        learner, ready = opened
        advance = learner.advance

        def advancing(rates: Any, *, resolution: int | None = None) -> Progress:
            done: Progress = advance(rates, resolution=resolution)
            chance = np.random.default_rng(learner._steps).lognormal(0.0, 1.0)
            return replace(done, loss=2.0 * float(np.exp(-learner._steps / 50)) + 0.001 * chance)

        learner.advance = advancing
        return learner, ready


def test_a_training_loss_near_zero_explodes_by_no_chance(tmp_path: Path) -> None:
    """Forks of such a run were called diverged, since they begin near zero and never saw anything else."""
    clock = FakeClock()
    workshop = Memorising(FALLS_THEN_FLAT, clock, None, NOISE)
    history = execute(plan(budget="10m", recipe=RATE), tmp_path / "run", clock=clock, workshop=workshop)
    assert len(history.phase.of_kind("move")) > 3
    assert not [t.trial.id for t in history.phase.trials.values() if t.verdict and t.verdict.failed]
    assert not [t.trial.id for t in history.phase.trials.values() if t.reading and "exploded" in t.reading.reason]


class Little(SimulatedWorkshop):
    """Of which an epoch is fifty steps."""

    def open(self, *args: Any) -> Any:
        opened: tuple[Any, Readiness] = super().open(*args)
        learner, ready = opened
        return learner, replace(ready, facts=replace(ready.facts, train_examples=600))


def test_what_overfits_within_epochs_is_seen_to_whatever_the_budget(tmp_path: Path) -> None:
    """Between two looks lay a hundredth of ten minutes, which was 2.3 epochs, and the turn came before the first."""
    curve = Curve("overfitting", floor=1.5, drop=2.0, pace=40.0, turn=150.0, rise=2.0, noise_sd=0.002)
    scores = {}
    for budget in ("3m", "1h"):
        clock = FakeClock()
        workshop = Little(curve, clock, None, NOISE)
        wanted = plan(budget=budget, recipe={"learning_rate": 0.02, "batch_size": 12}, moves=[])
        history = execute(wanted, tmp_path / budget, clock=clock, workshop=workshop)
        trunk = history.phase.of_kind("trunk")[0]
        assert trunk.curve[0].step <= 110
        assert trunk.curve[2].step <= 250
        assert history.leader is not None
        assert history.leader.interval is not None
        scores[budget] = history.leader.interval.score
    assert scores["1h"] < scores["3m"] + 0.02


def test_a_cooldown_that_rises_is_left_however_few_looks_there_were(tmp_path: Path) -> None:
    """Sixty seconds, eight looks in all: the curve turns in the middle of the cooldown."""
    curve = Curve("overfitting", floor=1.5, drop=2.0, pace=100.0, turn=500.0, rise=2.0, noise_sd=0.002)
    clock, machine = FakeClock(), Machine(sample_seconds=0.4)
    history = execute(
        plan(budget="60s", recipe=RATE), tmp_path / "run", curve, clock=clock, machine=machine, workshop=None
    )
    controls = history.phase.of_kind("control")
    rising = [t for t in controls if t.reading and "in the last evaluations of the cooldown" in t.reading.reason]
    assert rising
    assert history.leader is not None
    assert history.leader.interval is not None
    assert history.leader.interval.score < float(curve.truth(500.0)) + 0.1, "cooled down from before it turned"


def test_a_cooldown_that_brings_nothing_is_left_where_the_best_look_lies_far_behind(tmp_path: Path) -> None:
    """The curve turned in the trunk, too late for a proof; then its rise cancels what the falling rate brings."""
    curve = Curve("overfitting", floor=1.5, drop=2.0, pace=60.0, turn=250.0, rise=0.35, noise_sd=0.002)
    clock, machine = FakeClock(), Machine(sample_seconds=0.4)
    history = execute(
        plan(budget="60s", recipe=RATE, seed=1), tmp_path / "run", curve, clock=clock, machine=machine, workshop=None
    )
    left, again = history.phase.of_kind("control")[:2]
    assert left.reading is not None
    assert left.reading.reason.endswith("nats a token worse than at step 353, and the cooldown brings nothing")
    start, steps = again.first_step, again.trial.cooldown_steps or 0
    assert 0.5 * 353 < start < 0.8 * 353, "two thirds of the way to the best look, as far as that was saved"
    assert start + steps / 2 == pytest.approx(353, rel=0.2), "and it ends about as far on"
    assert history.leader is not None
    assert history.leader.interval is not None
    assert history.leader.interval.score < 1.48, "it was 1.54 at the end of the cooldown"


@pytest.mark.parametrize("metric", ["loss", "bits_per_byte", "perplexity"])
def test_a_trunk_far_behind_its_best_look_is_cooled_down_from_there_in_whatever_unit_the_loss_is_told(
    metric: str, tmp_path: Path
) -> None:
    """Told in bits a byte it was cooled down from step 512 of a curve that had turned at 191, and then once more."""
    curve = Curve("overfitting", floor=1.5, drop=2.0, pace=60.0, turn=200.0, rise=2.0, noise_sd=0.002)
    wanted, machine = plan(budget="60s", recipe=RATE, seed=1, metric=metric), Machine(sample_seconds=0.4)
    history = execute(wanted, tmp_path / "run", curve, clock=FakeClock(), machine=machine, workshop=None)
    (control,) = history.phase.of_kind("control")
    assert control.first_step == 191
    assert control.reason.endswith("so the cooldown starts from step 191")


def test_noise_of_a_loss_near_zero_does_not_send_a_cooldown_back(tmp_path: Path) -> None:
    """Five tolerances are five times nothing there: 4,000 of 11,000 steps were given away for a look 0.0016 worse."""
    curve = Curve("power_law", floor=-0.02, drop=0.3, pace=2000.0, exponent=1.0, noise_sd=0.002)
    history = iterate(tmp_path / "run", curve, World(), seed=2, phases=[{"name": "a", "until": "10m", "moves": []}])
    (control,) = history.phase.of_kind("control")
    assert control.trial.start == f"0.trunk@{control.first_step}"
    assert control.reason == "what is left of this phase is just enough for the cooldown"


# After that ---------------------------------------------------------------------------------------------


def test_a_trunk_that_overfits_after_its_fork_is_cooled_down_from_its_best_and_never_twice_from_one(
    tmp_path: Path,
) -> None:
    history = iterate(tmp_path / "run", OVERFITS)
    starts = [t.trial.start for t in history.phase.of_kind("control") if t.trial.length is None]
    assert len(starts) == len(set(starts))
    early = iterate(tmp_path / "early", replace(OVERFITS, turn=300.0, rise=2.0))
    starts = [t.trial.start for t in early.phase.of_kind("control") if t.trial.length is None]
    assert len(starts) == len(set(starts))
    weighed = {w.name for run in (history, early) for t in run.phase.trials.values() for w in t.weighed}
    assert "decay-up" in weighed
    assert "go on unchanged" not in weighed, "the trunk did, and it was worse"
    assert early.leader is not None
    assert early.phase.moves_ended is not None
    assert early.seconds > 570 or max(w.worth for w in early.phase.moves_ended.weighed) < 0.02 * 0.005


def test_a_cooldown_from_a_better_step_needs_one_that_was_better_and_room_for_it(tmp_path: Path) -> None:
    """A step without a look of its own was said to be worse than one that the look before it was better than."""
    iterate(tmp_path / "run", FALLS_THEN_FLAT)
    entries = list(read_entries(tmp_path / "run" / "journal.jsonl"))
    judged = [i for i, entry in enumerate(entries) if isinstance(entry.event, VerdictGiven)]

    def offered(scores: dict[int, float], steps_left: float = 10**4) -> list[Any]:
        """What is offered where looks scored so, 3 unless told, and where 5,099 was cooled down without a look."""
        changed = []
        for entry in entries[: judged[1] + 2]:  # and the end of its trial
            event, unseen = entry.event, False
            if isinstance(event, Evaluated) and event.trial.startswith("0.trunk"):
                unseen = event.step == 5099
                event = replace(event, interval=replace(event.interval, score=scores.get(event.step, 3.0)))
            elif isinstance(event, CheckpointSaved):
                unseen = event.id == "0.trunk-2@4985"  # whose look is there, though nothing can begin from it
            changed += [] if unseen else [replace(entry, event=event)]
        history, wanted = fold(changed), plan(budget="10m", recipe=RATE)
        assert history.trial("0.control-2").trial.start == "0.trunk-2@5099"
        choice = weigh(wanted, history, Amount(steps_left, Unit.STEPS))
        return [o for o in choice.options if o.name.startswith("cool down from")]

    (option,) = offered({4297: 2.0})
    assert option.proposal.trial.cooldown_steps > 0
    assert option.proposal.reason == (
        "step 4,297 scored better on the sample of validation than step 4,985, the last look before step 5,099, which "
        "was cooled down"
    )
    assert not offered({4297: 2.0, 4985: 1.9}), "the step that was cooled down had as good a look before it"
    assert not offered({4297: 2.0}, steps_left=0), "a cooldown of no step is none"


class Rivalled(SimulatedWorkshop):
    """With one other model that could be trained."""

    def open(self, *args: Any) -> Any:
        learner, ready = super().open(*args)
        rival = replace(RECIPE, model="cnn", learning_rate=0.01)
        return learner, replace(ready, facts=replace(ready.facts, rivals=(rival,)))


def test_another_model_is_raced_and_leads_where_it_is_better(tmp_path: Path) -> None:
    def run(name: str, gain: float) -> History:
        clock = FakeClock()
        world = replace(NOISE, effect=lambda r: -gain * (r.model == "cnn"), pace=20.0)
        workshop = Rivalled(FALLS_THEN_FLAT, clock, None, world)
        wanted = plan(task="text-classification", metric="loss", budget="10m", recipe=RATE, model=["bag", "cnn"])
        return execute(wanted, tmp_path / name, clock=clock, workshop=workshop)

    better = run("better", 0.1)
    raced = tried(better, "model-cnn")
    assert [t.trial.start for t in raced] == [None]
    assert raced[0].trial.learning_rate == 0.01
    assert better.leader is not None
    assert better.trial(better.leader.trial).trial.recipe.model == "cnn"
    worse = run("worse", -0.1)
    assert len(tried(worse, "model-cnn")) == 1
    assert worse.leader is not None
    assert worse.trial(worse.leader.trial).trial.recipe.model is None


def test_another_model_is_raced_for_a_quarter_of_what_the_leader_took_or_not_at_all(tmp_path: Path) -> None:
    raced = 0
    for seed in range(3):
        clock = FakeClock()
        workshop = Rivalled(FALLS_THEN_FLAT, clock, None, replace(NOISE, pace=20.0))
        wanted = plan(
            task="text-classification", metric="loss", budget="10m", recipe=RATE, model=["bag", "cnn"], seed=seed
        )
        history = execute(wanted, tmp_path / str(seed), clock=clock, workshop=workshop)
        for record in tried(history, "model-cnn"):
            before = list(history.phase.trials.values())
            led = [t for t in before[: before.index(record)] if t.verdict and t.verdict.leads]
            assert record.step >= 0.24 * led[-1].step
            raced += 1
    assert raced > 0


def test_what_is_left_after_the_forks_of_pretrained_weights_is_spent(tmp_path: Path) -> None:
    class Pretrained(SimulatedWorkshop):
        def open(self, *args: Any) -> Any:
            learner, ready = super().open(*args)
            return learner, replace(ready, facts=replace(ready.facts, pretrained=True, train_examples=24_000))

    clock, falls = FakeClock(), Curve("exponential", floor=1.4, drop=1.0, pace=1500.0, noise_sd=0.0003)
    # An epoch is 100 s: after one, the 60 s that are left do not bear a second.
    wanted = plan(budget="165s", recipe={})
    history = execute(wanted, tmp_path / "run", falls, clock=clock, workshop=Pretrained(falls, clock, None, NOISE))
    extended = tried(history, "extend")
    assert extended
    assert history.seconds == pytest.approx(165, rel=0.03)
    assert history.leader is not None
    assert history.leader.trial == extended[-1].trial.id
    first = extended[0]
    assert first.trial.start == history.phase.of_kind("control")[0].checkpoints[-1].id, "on from the cooled-down end"


def test_reasons_name_where_training_begins_and_that_no_share_is_kept(tmp_path: Path) -> None:
    """What was said to go on from a cooldown began before it, and a trunk's "50%" was all that was left."""
    history = iterate(tmp_path / "run", FALLS_THEN_FLAT)
    (again,) = [t for t in history.phase.of_kind("trunk") if "taken up again" in t.reason]
    assert again.reason.endswith("of what is left, which is asked anew at each look")
    control = history.trial("0.round-2.control")
    assert control.trial.start is not None
    led = control.trial.start.split("@")[0]
    assert led.startswith("0.round-1.")
    assert control.reason.startswith(f"training goes on from before the cooldown of {led} for ")


def test_a_restart_does_not_say_that_the_first_look_was_the_best(tmp_path: Path) -> None:
    history = iterate(tmp_path / "run", OVERFITS, budget="30000 steps", recipe={})
    (restarted,) = [t for t in tried(history, "restart") if t.trial.length]
    assert restarted.reason.startswith("from about step ")
    assert " on the plain run got hardly better, so " in restarted.reason


def test_a_rate_is_not_said_to_be_within_noise_of_others_where_it_alone_is_good(tmp_path: Path) -> None:
    """0.02 was "nearest to the preset's" of 0.01, 0.2 points apart."""

    def why(scores: dict[float, float]) -> tuple[float, str]:
        looks = [SimpleNamespace(curve=[SimpleNamespace(interval=SimpleNamespace(score=s))]) for s in scores.values()]
        return chosen_rate(METRICS["accuracy"], 0.01, looks, None)  # type: ignore[arg-type]

    rate, reason = why({0.005: 0.794, 0.01: 0.796, 0.02: 0.798})
    assert rate == 0.02
    assert "no other scores as well, to within the tolerance" in reason
    rate, reason = why({0.005: 0.794, 0.01: 0.7965, 0.02: 0.798})
    assert rate == 0.01
    assert "nearest to the preset's" in reason
    assert "noise" not in reason


def test_two_lengths_of_an_extension_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left, and all of it as one sibling: 122.4 and 122.3 s stood beside each other."""
    history = iterate(tmp_path / "run", FALLS_THEN_FLAT)
    wanted, left = plan(budget="10m"), Amount(60.0, Unit.SECONDS)
    lengths = []
    for share in (0.999, 0.5):
        monkeypatch.setattr(bets, "sibling_length", lambda *_, share=share: Amount(60.0 * share, Unit.SECONDS))
        monkeypatch.setattr(bets, "extra", lambda *_: 0.0)
        lengths.append([o.cost for o in bets.extensions(wanted, history, left)])
    assert lengths == [[60.0], [60.0, 30.0]]


def test_a_run_behind_its_baseline_gives_no_time_back_while_anything_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overfits = replace(OVERFITS, turn=300.0, rise=2.0)
    assert iterate(tmp_path / "ahead", overfits).seconds < 300
    scored = SimulatedLearner.baseline

    def better(learner: SimulatedLearner, split: Split) -> tuple[str, Evaluation]:
        name, table = scored(learner, split)
        return name, Evaluation({**table.columns, "loss": 0.1 * table.columns["loss"]})

    monkeypatch.setattr(SimulatedLearner, "baseline", better)
    assert iterate(tmp_path / "behind", overfits).seconds > 590


def test_every_decision_stands_in_the_journal_with_what_it_was_weighed_against(tmp_path: Path) -> None:
    history = iterate(tmp_path / "run", FALLS_THEN_FLAT)
    weighed = [t for t in history.phase.trials.values() if t.weighed]
    assert len(weighed) > 3
    for record in weighed:
        assert sum(w.chosen for w in record.weighed) == 1
        chosen = record.forecast
        assert chosen is not None
        assert all(w.cost > 0 for w in record.weighed if not w.name.startswith("average"))
    assert history.phase.moves_ended is not None


def test_show_and_the_report_say_why_this_and_not_that_up_to_the_end(tmp_path: Path) -> None:
    """The last decision of a run that gives time back is to stop; none of its candidates was marked."""
    history = iterate(tmp_path / "run", replace(OVERFITS, turn=300.0, rise=2.0))
    assert history.phase.moves_ended is not None
    assert not history.phase.moves_ended.budget, "time is given back"
    told = io.StringIO()
    directory = RunDirectory(tmp_path / "run")
    print_run(directory, Console(file=told, width=140, color_system=None))
    decisions = dict(re.findall(r"before (\S+|the end): *\n((?: +\S.*\n| +> .*\n)+)", told.getvalue()))
    taken = {name: re.findall(r"^ +> (.*?)  ", block, re.MULTILINE) for name, block in decisions.items()}
    changed = next(t.trial for t in history.phase.of_kind("move") if t.weighed)
    assert taken[changed.id] == [changed.move]
    assert taken["the end"] == ["stop, and give the rest back"]
    assert all(len(one) == 1 for one in taken.values())
    page = write_page(directory).read_text(encoding="utf-8")
    assert f"{changed.move} (taken): expected gain" in page
    assert "stop, and give the rest back (taken)" in page


@pytest.mark.slow
def test_a_killed_run_that_weighs_decides_as_it_would_have(tmp_path: Path) -> None:
    wanted = plan(budget="8000 steps", recipe=RATE, tolerance=0.02)

    def workshop(windows: int) -> Fragile:
        made = Fragile(FALLS_THEN_FLAT, FakeClock(), windows)
        made._world = NOISE
        return made

    straight = execute(wanted, tmp_path / "straight", workshop=workshop(10**6))
    count = sum(len(t.done) for t in straight.phase.trials.values())
    for windows in (count // 3, count - 5):
        with pytest.raises(Killed):
            execute(wanted, tmp_path / f"killed-{windows}", workshop=workshop(windows))
        again = execute(wanted, tmp_path / f"killed-{windows}", workshop=workshop(10**6))
        assert list(again.phase.trials) == list(straight.phase.trials)
        assert again.leader == straight.leader
        assert [t.weighed for t in again.phase.trials.values()] == [t.weighed for t in straight.phase.trials.values()]


# Where nothing is weighed -------------------------------------------------------------------------------


def test_named_moves_begin_from_the_plain_run_and_not_from_an_early_result(tmp_path: Path) -> None:
    history = iterate(tmp_path / "run", FALLS_THEN_FLAT, moves=["decay-up"], tolerance=0.02)
    first = history.phase.of_kind("control")[0]
    assert first.step > 2000


def test_a_split_that_tells_nothing_apart_still_lets_the_trunk_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multistep.engine.simulate.BLOCKS", 8)
    history = iterate(tmp_path / "run", POWER, budget="5m")
    assert history.seconds == pytest.approx(300, rel=0.03)
    assert max(t.step for t in history.phase.of_kind("control")) > 4000


def test_pretrained_weights_without_a_budget_are_forked_up_to_four_epochs(tmp_path: Path) -> None:
    class Pretrained(SimulatedWorkshop):
        def open(self, *args: Any) -> Any:
            learner, ready = super().open(*args)
            return learner, replace(ready, facts=replace(ready.facts, pretrained=True, train_examples=6000))

    clock, falls = FakeClock(), Curve("exponential", floor=1.4, drop=1.0, pace=800.0, noise_sd=0.0003)
    workshop = Pretrained(falls, clock, None, NOISE)
    history = execute(plan(recipe=RATE), tmp_path / "run", falls, clock=clock, workshop=workshop)
    assert [t.step for t in history.phase.of_kind("control")] == [500, 1000, 2000]


def test_a_trunk_is_as_fast_as_its_own_steps_whatever_was_tried_beside_it(tmp_path: Path) -> None:
    """Sharpness-aware steps cost twice as much; what is left to the trunk is counted in its own."""
    world = replace(NOISE, cost=lambda recipe: 1.0 + (recipe.sharpness > 0))
    history = iterate(tmp_path / "run", FALLS_THEN_FLAT, world)
    assert history.seconds == pytest.approx(600, rel=0.03)


def test_who_scored_better_and_was_passed_over_is_named_with_the_reason(tmp_path: Path) -> None:
    """One text more of four hundred is right, by chance; the loss is higher by more than that."""
    clock = FakeClock()
    workshop = Listening(clock, lambda step: 0.8, lambda step: 0.5, noise=0.0)
    wanted = plan(task="text-classification", budget="10m", recipe=RATE)
    execute(wanted, tmp_path / "run", clock=clock, workshop=workshop)
    entries = list(read_entries(tmp_path / "run" / "journal.jsonl"))
    judged = [i for i, entry in enumerate(entries) if isinstance(entry.event, VerdictGiven)]
    history = fold(entries[: judged[1]])
    first, second = "0.control", "0.control-2"

    right = np.arange(400) < 320
    other = right.copy()
    other[[*range(20), *range(320, 341)]] ^= True  # 21 gained, 20 lost
    noise = 0.2 * np.random.default_rng(0).standard_normal(400)

    def table(right: np.ndarray[Any, Any], surer: float) -> Evaluation:
        margin = np.where(right, 2.0, -0.5) - surer + noise
        columns = {"label": np.ones(400), "prediction": right.astype(float), "block": np.arange(400.0)}
        logits = {"logit_0": np.zeros(400), "logit_1": margin}
        return Evaluation({**columns, **logits, "loss": np.logaddexp(0.0, -margin), "count": np.ones(400)})

    tables = {first: table(right, 0.0)}
    verdict = decide(history, second, checkpoint="x", new=table(other, 0.1), tables=tables)
    assert verdict.leader == first
    found = leader_of(fold([replace(entries[judged[1]], event=verdict)], history))
    assert found is not None
    assert (
        f"On validation {second} scored better, 80.2% against 80.0% (by 0.2 standard errors), but its loss is higher"
    ) in found["sentence"]


def test_no_gain_is_told_that_a_score_cannot_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four hundred were wrong: half a point is all that there is to gain, whatever is reckoned."""
    clock = FakeClock()
    workshop = Listening(clock, lambda step: 0.8, lambda step: 0.5, noise=0.0)
    wanted = plan(task="text-classification", budget="10m", recipe=RATE)
    execute(wanted, tmp_path / "run", clock=clock, workshop=workshop)
    entries = list(read_entries(tmp_path / "run" / "journal.jsonl"))
    judged = [i for i, entry in enumerate(entries) if isinstance(entry.event, VerdictGiven)]
    history = fold(entries[: judged[1]])
    first, second = "0.control", "0.control-2"
    reckoned = Expected(np.array([0.0, 0.03]), 1e-6 * np.eye(2), np.array([0.0, 0.01]))
    monkeypatch.setattr("multistep.core.choice.verdicts.expected_of", lambda *_: reckoned)

    def table(wrong: int) -> Evaluation:
        columns = {"label": np.ones(400), "prediction": (np.arange(400) >= wrong).astype(float)}
        return Evaluation({**columns, "block": np.arange(400.0)})

    verdict = decide(history, second, checkpoint="x", new=table(1), tables={first: table(2)})
    assert verdict.expected[second] == 0.03
    assert verdict.ahead == pytest.approx(0.005)
    assert verdict.reason.startswith("expected to be 0.5 points better than 0.control")


def test_what_a_simulated_trial_draws_depends_on_what_it_learns_with_and_on_no_setting_at_its_default() -> None:
    """The first number is pinned: a new setting of recipes that changed it would make every table incomparable."""
    world = World(between_blocks=0.01)
    flat = Curve("exponential", 1.0, 0.0, pace=100.0, noise_sd=0.0)

    def scored(recipe: Recipe) -> float:
        learner = SimulatedLearner(flat, FakeClock(), Machine(), world=world)
        learner.initial(recipe, 3)
        return float(learner.evaluate("validation", sample=False).columns["loss"][0]) / TOKENS

    assert scored(RECIPE) == pytest.approx(1.049347966726815, abs=1e-12)
    assert scored(replace(RECIPE, micro_batch=4, checkpointing=True)) == scored(RECIPE)
    assert scored(replace(RECIPE, dropout=0.1)) != scored(RECIPE)
