"""What a run chose, what it is expected to be worth, and whether that is proven: for result.json and for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multistep.core.choice.guards import holds
from multistep.core.evidence.metric import Metric
from multistep.core.evidence.scores import Form, counted_word, difference_words, form_of, metric_words, told_apart
from multistep.core.values.events import VerdictGiven
from multistep.core.values.history import History, PhaseRecord, TrialRecord
from multistep.core.values.judging import metric_of

KINDS = {"average": "the average", "base": "the model as it was before training"}
SAME = 1e-4  # of the score's interval: a difference that nobody would name


def expected_gains(history: History) -> Mapping[str, float]:
    """Each judged trial's expected gain over the first one, as far as its score can go: no accuracy is above 100%.

    What is chosen follows what is reckoned, `History.expected`; this is what is said of it.
    """
    expected = history.expected
    first = history.trial(next(iter(expected))) if expected else None
    if first is None or first.full is None:
        return expected
    metric, score = metric_of(history.phases[first.trial.phase].started), first.full.interval.score
    return {name: metric.possible(gain, score) for name, gain in expected.items()}


def leader_of(history: History) -> dict[str, Any] | None:
    """What was chosen, what it is expected to be worth over the plain run, and whether that is proven; where another
    trial scored better on validation, which (`passed_over`), and what spoke against it.

    Over the plain run's best end, given all that was measured: a verdict that was given before the plain run came to
    that end claims nothing of it.
    """
    if history.leader is None:
        return None
    verdict = history.leader
    record = history.trial(verdict.trial)
    reckoned, expected = history.expected, expected_gains(history)
    phase = history.phases[record.trial.phase]
    controls = [t for t in phase.of_kind("control") if t.trial.length is None and holds(t)]
    plain = [t.trial.id for t in controls or phase.of_kind("base") if t.trial.id in reckoned]
    rivals = [name for name in plain if name != verdict.trial]
    over = max(rivals, key=lambda name: reckoned[name]) if rivals and verdict.trial in reckoned else None
    # The plain run's best end, which may be the one that was chosen: what all others are told to be better than.
    zero = max(plain, key=lambda name: reckoned[name]) if plain else None
    same = over is not None and verdict.rival == over
    found = {
        "trial": verdict.trial,
        "move": record.trial.move,
        "over": over,
        "expected": expected[verdict.trial] - expected[over] if over else None,
        "spread": verdict.spread if same else None,
        "tested": same and verdict.critical is not None and bool(verdict.standard_error),
        "proven": verdict.proven and same,
    }
    metric = metric_of(phase.started)
    passed = _passed_over(history, record, metric, expected)
    chosen = _chosen(record, verdict, found, phase, metric, expected)
    return {
        **found,
        "gains": {name: gain - expected[zero] for name, gain in expected.items()} if zero and len(expected) > 1 else {},
        "gains_over": zero,
        "passed_over": passed,
        "sentence": f"{chosen} {passed['sentence'] if passed else ''}".rstrip(),
    }


def _passed_over(
    history: History, record: TrialRecord, metric: Metric, expected: Mapping[str, float]
) -> dict[str, Any] | None:
    """Why the one that was chosen is not the one with the best score; None where it is."""
    last = [v for v in history.verdicts if v.expected][-1]
    if not last.passed_over or last.leader != record.trial.id:
        return None
    other = history.trial(last.passed_over)
    theirs, own = other.verdict, record.verdict
    if theirs is None or own is None or theirs.interval is None or own.interval is None:
        return None
    found: dict[str, Any] = {
        "trial": last.passed_over,
        "score": theirs.interval.score,
        "standard_errors": last.passed_errors,
        "expected": expected[last.passed_over] - expected[record.trial.id],
        "loss": last.passed_loss,
        "chosen_loss": last.leading_loss,
        "forecast": other.forecast.mean if other.forecast else None,
        "chosen_forecast": record.forecast.mean if record.forecast else None,
    }
    return {**found, "sentence": _against(found, own.interval.score, theirs.interval.n, metric)}


def _against(found: Mapping[str, Any], score: float, rows: int, metric: Metric) -> str:
    """`On validation 0.control-2 scored better, 80.2% against 80.0% (by 0.2 standard errors), but its loss is higher,
    ...; all together, it is expected to be 0.3 points worse.`
    """
    theirs, ours = told_apart(metric, found["score"], score)
    said = f"On validation {found['trial']} scored better, {theirs} against {ours}"
    if found["standard_errors"] is None:
        said += f" (how much of that is luck on {rows:,} {counted_word(metric.unit)} is not known)"
    else:
        said += f" (by {found['standard_errors']:.1f} standard errors)"
    by, better = difference_words(metric, found["expected"]), found["expected"] > 0
    if better:  # who leads is the best of those that still have a checkpoint
        return f"{said}, and is thought {by} better now; its checkpoint was removed when others were thought better."
    end = f"all together, it is expected to be {f'{by} worse' if found['expected'] else 'no better'}."
    if found["loss"] is not None and found["chosen_loss"] is not None:
        more, less = Form().apart(found["loss"], found["chosen_loss"])
        return (
            f"{said}, but its loss is higher, {more} against {less}, and the loss tells models apart long before "
            f"{metric_words(metric.name)} does; {end}"
        )
    if found["forecast"] is None and found["chosen_forecast"] is None:
        return f"{said}; that counts for less than what attempts of its kind are known to bring: {end}"
    gap = form_of(metric).gap
    one, two = ("nothing" if f is None else gap(f) for f in (found["forecast"], found["chosen_forecast"]))
    return f"{said}; before they were tried, {one} was forecast of it and {two} of what was chosen; {end}"


def _forgot(phase: PhaseRecord) -> int:
    """How many of the phase's judged trials forgot what its guard keeps."""
    return sum(not holds(t) for t in phase.trials.values())


def _chosen(
    record: TrialRecord,
    verdict: VerdictGiven,
    found: Mapping[str, Any],
    phase: PhaseRecord,
    metric: Metric,
    expected: Mapping[str, float],
) -> str:
    """`Chosen: restart, expected to be 1.8 points better than the plain run; this is not proven (the measured gain is
    1.5 standard errors, and a proof takes 1.9).`
    """
    trial, forgot = record.trial, _forgot(phase)
    if trial.kind == "base" and forgot:
        tried = f"the {forgot} attempts" if forgot > 1 else "the one attempt"
        return f"Chosen: {KINDS['base']}, since {tried} that went on from it forgot too much."
    plain = trial.kind == "control" and trial.length is None
    what = trial.move or (KINDS.get(trial.kind) or ("the plain run" if plain else "going on unchanged"))
    if found["over"] is None:
        others = [t.trial.id for t in phase.trials.values() if t is not record and t.verdict and t.trial.kind != "base"]
        judged = [name for name in others if name in expected and record.trial.id in expected]
        if judged:
            best = max(judged, key=lambda name: expected[name])
            gain = expected[record.trial.id] - expected[best]
            which = "which was tried, too" if len(judged) == 1 else "the best of what else was tried"
            return f"Chosen: {what}, expected to be {_beside(gain, best, verdict, metric)}, {which}."
        alone = "judged" if trial.kind == "base" else "trained"  # the model before training is judged, too
        if others:
            return f"Chosen: {what}, the only one that came to a score."
        return f"Chosen: {what}, the only one that was {alone}."
    over = "the plain run"
    if str(found["over"]).endswith(".base"):
        over = KINDS["base"]
    elif plain:
        ends = [t for t in phase.of_kind("control") if t.trial.length is None and t.trial.id in expected]
        # One may be a step that was judged as it is.
        end = "cooldown" if all(t.step > t.first_step for t in ends) else "end"
        over = f"{found['over']}, {f'the best of its other {end}s' if len(ends) > 2 else f'its other {end}'}"
    said = f"Chosen: {what}, expected to be {_beside(found['expected'], over, verdict, metric)}"
    if not found["tested"] or verdict.critical is None or not verdict.standard_error:
        return f"{said}; whether that is proven was not tested."
    errors = (verdict.improvement or 0.0) / verdict.standard_error
    sure = "proven" if verdict.proven else "not proven"
    numbers = f"the measured gain is {errors:.1f} standard errors, and a proof takes {verdict.critical:.1f}"
    return f"{said}; this is {sure} ({numbers})."


def _beside(gain: float, over: str, verdict: VerdictGiven, metric: Metric) -> str:
    """`1.8 points better than the plain run`, or `as good as the plain run`."""
    width = verdict.interval.high - verdict.interval.low if verdict.interval else 0.0
    if abs(gain) < SAME * width:
        return f"as good as {over}"
    return f"{difference_words(metric, gain)} {'better' if gain >= 0 else 'worse'} than {over}"
