"""result.json: what a finished run came to, for other programs; and what `show` and the page have in common with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from multistep.core.choice.moves import EXTEND
from multistep.core.choice.retained import shown
from multistep.core.evidence.function_metric import RecordedMetric
from multistep.core.evidence.intervals import CONFIDENCE
from multistep.core.evidence.metric import Evaluation, Metric, standard_error
from multistep.core.values.events import ACCOUNTS, VerdictGiven
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.recipe import RECIPE_KEYS
from multistep.core.values.trial import Trial
from multistep.engine.beside import ReadTable, base_of, baseline_of
from multistep.engine.calibrated import findings
from multistep.engine.chosen import leader_of
from multistep.engine.guarded import guard_entry, guard_of
from multistep.engine.shipping import BASELINE_USAGE

LEAST_RERUNS = 3  # before anything is said of a move in general


def result_of(history: History, read_table: ReadTable) -> dict[str, Any]:
    """The result of a finished run; keys are documented in docs/reference/result.md."""
    assert history.finished is not None
    assert history.leader is not None
    metric = metric_of(history.phase.started)
    winner = history.trial(history.leader.trial)
    plain = [record for record in history.phase.of_kind("control") if record.trial.length is None]
    control = plain[-1] if plain else None
    return {
        "metric": metric.name,
        "goal": metric.goal,
        "unit": metric.unit,
        "model": "baseline" if _ships(history) == "baseline" else "model",
        "weights_sha256": history.finished.weights,
        "parameters": history.phase.started.facts.parameters,
        "usage": usage_of(history),
        "validation": asdict(winner.full.interval) if winner.full else None,
        "test": asdict(history.test.interval) if history.test else None,
        "scores": {
            "validation": dict(winner.full.scores) if winner.full else None,
            "test": dict(history.test.scores) if history.test else None,
        },
        "control": asdict(control.full.interval) if control and control.full else None,
        "leader": leader_of(history),
        "baseline": baseline_of(history, read_table),
        "base": base_of(history, read_table),
        "calibration": findings(history, read_table),
        "seconds": {
            **{name: round(history.spent.get(name, 0.0), 3) for name in ACCOUNTS},
            "total": round(history.seconds, 3),
        },
        "steps": history.steps,
        "examples": history.examples,
        "tokens": history.tokens,
        "counted": counted_in(history),
        "looks_at_validation": history.looks,
        "kills_survived": history.kills,
        "trials": [trial_entry(phase, record) for phase in history.phases for record in phase.trials.values()],
        "guards": [found for phase in history.phases if (found := guard_of(phase))],
        **shared_findings(history, read_table),
        "checkpoints": None,  # until some were removed
        "stopped": history.finished.stopped,
    }


def counted_in(history: History) -> str | None:
    """What the tokens of all phases together count, as people call it; None where phases count different things."""
    trained = [p for p in history.phases if any(t.done for t in p.trials.values())] or history.phases[-1:]
    words = {phase.started.facts.counted for phase in trained}
    if len(words) != 1:
        return None
    # Where an example has about one label, some may have several, and the numbers differ.
    return "labels" if words == {"examples"} and history.tokens != history.examples else words.pop()


def usage_of(history: History) -> str:
    """Python that uses what ships, with {model} for its folder."""
    return BASELINE_USAGE if _ships(history) == "baseline" else history.phase.started.facts.usage


def _ships(history: History) -> str | None:
    return history.shipping.ships if history.shipping else None


def shared_findings(history: History, read_table: ReadTable) -> dict[str, Any]:
    """What is said of all trials together, the same in result.json and in `show --json`."""
    return {
        "ships": _ships(history),
        "ships_because": history.shipping.reason if history.shipping else None,
        "moves_ended": [
            {
                "phase": phase.started.phase,
                "reason": phase.moves_ended.reason,
                "weighed": [asdict(candidate) for candidate in phase.moves_ended.weighed],
            }
            for phase in history.phases
            if phase.moves_ended
        ],
        "noise_between_seeds": [asdict(found) for phase in history.phases for found in noise_between_seeds(phase)],
        "validation_optimism": validation_optimism(history, read_table),
    }


# A trial --------------------------------------------------------------------------------------------


def trial_entry(phase: PhaseRecord, record: TrialRecord) -> dict[str, Any]:
    """All there is to say of a trial: what was tried, from where, at what cost, against what, and what came of it."""
    trial, verdict = record.trial, record.verdict
    interval = verdict.interval if verdict and verdict.interval else record.full.interval if record.full else None
    control = sibling_control(phase, record)
    return {
        "id": trial.id,
        "kind": trial.kind,
        "move": trial.move,
        "round": round_of(phase, trial),
        "settings": changed_settings(phase, record),
        "carry": trial.carry,
        "skip_examples": trial.skip_examples,
        "of": list(trial.of),
        "seed": trial.seed,
        "start": trial.start,
        "first_step": record.first_step,
        "learning_rate": trial.learning_rate,
        "steps": record.step - record.first_step,
        "seconds": round(sum(r.train_seconds + r.evaluate_seconds for r in record.windows), 3),
        "reason": record.reason,
        "stability": stability.value if (stability := shown(phase, record)) else None,
        "stability_by_loss": record.reading.loss.value if record.reading and record.reading.loss else None,
        "ended": record.ended,
        "verdict": verdict.word if verdict else None,
        "leads": verdict.leads if verdict else None,
        "leader": verdict.leader if verdict else None,
        "proven": verdict.proven if verdict else None,
        "expected": _expected(verdict),
        "why": verdict.reason if verdict else None,
        "score": interval.score if interval else None,
        "validation": asdict(interval) if interval else None,
        "improvement": _bounded(verdict.improvement, verdict.low, verdict.high) if verdict else None,
        "demanded": _demanded(record),
        "control": control.trial.id if control else None,
        "gain": _gain(phase, record, control),
        "guard": guard_entry(record),
        "weighed": [asdict(candidate) for candidate in record.weighed],
    }


def sibling_control(phase: PhaseRecord, record: TrialRecord) -> TrialRecord | None:
    """The trial without the move that this one is held against; for a rerun, the one with the same seed."""
    trial = record.trial
    if record.verdict and record.verdict.control:
        return phase.trials.get(record.verdict.control)
    if trial.move is None or trial.length is None:
        return None
    siblings = [r for r in phase.trials.values() if r.trial.kind in ("control", "rerun") and _siblings(r.trial, trial)]
    plain = [r for r in siblings if r.trial.move is None]
    return next((r for r in plain if r.trial.seed == trial.seed), plain[0] if plain else None)


def round_of(phase: PhaseRecord, trial: Trial) -> int | None:
    """The number of a sibling's round in its phase, from 1; None for what is no sibling."""
    siblings = (
        r.trial
        for r in phase.trials.values()
        if r.trial.kind in ("control", "move") and r.trial.length and r.trial.start and r.trial.move != EXTEND
    )
    rounds = list(dict.fromkeys((t.start, t.length) for t in siblings))
    return rounds.index((trial.start, trial.length)) + 1 if (trial.start, trial.length) in rounds else None


def changed_settings(phase: PhaseRecord, record: TrialRecord) -> dict[str, dict[str, Any]]:
    """The settings that differ from the sibling control's; without one, from those of the checkpoint it forks from."""
    trial = record.trial
    if trial.kind == "average":
        return {}  # takes no step
    makers = (r for r in phase.trials.values() if any(c.id == trial.start for c in r.checkpoints))
    rival = sibling_control(phase, record) or next(makers, None)
    recipe = rival.trial.recipe if rival else phase.started.recipe
    pairs = {key: (getattr(recipe, key), getattr(trial.recipe, key)) for key in RECIPE_KEYS}
    # A trial's own rate is what counts: after a divergence it is not the recipe's.
    pairs["learning_rate"] = (rival.trial.learning_rate if rival else recipe.learning_rate, trial.learning_rate)
    return {key: {"from": old, "to": new} for key, (old, new) in pairs.items() if old != new}


def _siblings(one: Trial, other: Trial) -> bool:
    return one.id != other.id and one.length is not None and (one.start, one.length) == (other.start, other.length)


def _expected(verdict: VerdictGiven | None) -> dict[str, Any] | None:
    """The expected gain over the plain run's `over`, with its standard deviation."""
    if verdict is None or verdict.ahead is None:
        return None
    return {"over": verdict.rival, "gain": verdict.ahead, "spread": verdict.spread}


def _bounded(score: float | None, low: float | None, high: float | None) -> dict[str, float | None] | None:
    return None if score is None else {"score": score, "low": low, "high": high}


def _demanded(record: TrialRecord) -> dict[str, Any] | None:
    verdict = record.verdict
    if verdict is None or verdict.critical is None:
        return None
    least = None if verdict.standard_error is None else verdict.critical * verdict.standard_error
    return {"attempt": verdict.attempt, "standard_errors": verdict.critical, "improvement": least}


def _gain(phase: PhaseRecord, record: TrialRecord, control: TrialRecord | None) -> dict[str, float | None] | None:
    """Over the sibling control; a rerun's has no interval of its own, for it is one of several draws."""
    if verdict := record.verdict:
        return _bounded(verdict.gain, verdict.gain_low, verdict.gain_high)
    if record.full is None or control is None or control.full is None or control.trial.seed != record.trial.seed:
        return None
    metric = metric_of(phase.started)
    return _bounded(metric.improvement(record.full.interval.score, control.full.interval.score), None, None)


# Noise between seeds --------------------------------------------------------------------------------


@dataclass(frozen=True)
class MoveInGeneral:
    """A move's gains over its control, seed by seed, with the one-sided 95% bound of their mean.

    `helps` only if that bound is above 0 and the mean above the noise between seeds, over at least three reruns.
    """

    move: str
    reruns: int
    gains: tuple[float, ...]
    mean: float | None
    low: float | None
    helps: bool


@dataclass(frozen=True)
class NoiseBetweenSeeds:
    """The scores of one control over seeds, and what its siblings' moves gained over it with the same seeds."""

    phase: int
    start: str | None
    unit: str
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    mean: float | None
    standard_deviation: float | None  # None for fewer than two seeds
    moves: tuple[MoveInGeneral, ...]


def noise_between_seeds(phase: PhaseRecord) -> list[NoiseBetweenSeeds]:
    """One for each fork at which trials were rerun with other seeds."""
    reruns = phase.of_kind("rerun")
    return [_noise(phase, fork) for fork in dict.fromkeys((r.trial.start, r.trial.length) for r in reruns)]


def _noise(phase: PhaseRecord, fork: tuple[object, object]) -> NoiseBetweenSeeds:
    metric = metric_of(phase.started)
    siblings = [r for r in phase.trials.values() if r.trial.length and (r.trial.start, r.trial.length) == fork]
    reruns = [r for r in siblings if r.trial.kind == "rerun"]
    scores = {r.trial.seed: score for r in siblings if r.trial.move is None and (score := _finite(r)) is not None}
    # The first trial of a move is left out: it was rerun because it was good.
    same_seed = {r.trial.seed: r.full.interval.score for r in reruns if r.trial.move is None and r.full}
    moves = dict.fromkeys(r.trial.move for r in reruns if r.trial.move)
    values = tuple(scores.values())
    deviation = _deviation(values)
    return NoiseBetweenSeeds(
        phase.started.phase,
        reruns[0].trial.start,
        metric.unit,
        tuple(scores),
        values,
        sum(values) / len(values) if values else None,
        deviation,
        tuple(
            in_general(move, _gains(metric, [r for r in reruns if r.trial.move == move], same_seed), deviation)
            for move in moves
        ),
    )


def in_general(move: str, gains: Sequence[float], noise: float | None) -> MoveInGeneral:
    """Whether these gains, one a seed, show that the move helps beyond the noise between seeds."""
    if not gains:
        return MoveInGeneral(move, 0, (), None, None, helps=False)
    mean, low = sum(gains) / len(gains), -math.inf
    if (deviation := _deviation(gains)) is not None:
        from scipy.special import stdtrit

        low = mean - float(stdtrit(len(gains) - 1, CONFIDENCE)) * deviation / math.sqrt(len(gains))
    enough = len(gains) >= LEAST_RERUNS and noise is not None
    return MoveInGeneral(move, len(gains), tuple(gains), mean, low, helps=enough and low > 0 and mean > (noise or 0))


def _gains(metric: Metric, reruns: Sequence[TrialRecord], controls: Mapping[int, float]) -> list[float]:
    """A rerun that ended without a score has diverged, which no gain of the others makes good."""
    pairs = [(_finite(r), controls[r.trial.seed]) for r in reruns if r.ended and r.trial.seed in controls]
    known = [(new, old) for new, old in pairs if math.isfinite(old)]
    return [-math.inf if new is None else metric.improvement(new, old) for new, old in known]


def _finite(record: TrialRecord) -> float | None:
    return record.full.interval.score if record.full and math.isfinite(record.full.interval.score) else None


def _deviation(values: Sequence[float]) -> float | None:
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


# Validation's optimism ------------------------------------------------------------------------------


def validation_optimism(history: History, read_table: ReadTable) -> dict[str, Any] | None:
    """How much better the winner looks on validation than on test, with the 95% interval of Welch's t.

    The splits are independent, so nothing is paired. `baseline` is the same difference for the baseline, for
    which nothing was chosen on validation: what it shows is that one split is easier.
    """
    winner = history.trial(history.leader.trial).full if history.leader else None
    if winner is None or history.test is None:
        return None
    metric = metric_of(history.phase.started)
    if isinstance(metric, RecordedMetric):
        return None
    found = metric.improvement(winner.interval.score, history.test.interval.score)
    half_width = _welch(metric, read_table(winner.table), read_table(history.test.table))
    rivals = {baseline.split: baseline.interval.score for baseline in history.baselines}
    both = {"validation", "test"} <= rivals.keys()
    return {
        "score": found,
        "low": found - half_width,
        "high": found + half_width,
        "baseline": metric.improvement(rivals["validation"], rivals["test"]) if both else None,
    }


def _welch(metric: Metric, one: Evaluation, other: Evaluation) -> float:
    """Half the 95% interval of a difference of independent scores; Welch, Biometrika 34 (1947)."""
    from scipy.special import stdtrit

    influences = [metric.influence(evaluation) for evaluation in (one, other)]
    variances = [standard_error(influence) ** 2 for influence in influences]
    total = sum(variances)
    if not math.isfinite(total) or total == 0:
        return 0.0 if total == 0 else math.inf
    freedom = total**2 / sum(v**2 / (len(i) - 1) for v, i in zip(variances, influences, strict=True))
    return math.sqrt(total) * float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
