"""The verdict about a cooled-down trial: who leads now, which is a choice, and what is proven, which is a claim.

The choice asks which checkpoint has the highest expected score, given all that was measured (evidence/expected.py).
The claim asks whether the trial is better than the plain run, by a rule that holds the errors of a run at 5%
(evidence/spending.py). Neither waits for the other. Pure functions of the history and the evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from multistep.core.choice.guards import forgotten, holds
from multistep.core.choice.known import origin_of
from multistep.core.choice.priors import default_gain, link_of
from multistep.core.choice.retained import standing
from multistep.core.evidence.compare import Comparison, compare, paired
from multistep.core.evidence.expected import Expected, Gain, Judged, expected_gains
from multistep.core.evidence.metric import BESIDE, METRICS, Evaluation, Metric, beside
from multistep.core.evidence.scores import difference_words
from multistep.core.evidence.spending import Attempt, critical_value
from multistep.core.values.events import VerdictGiven
from multistep.core.values.history import History, TrialRecord, held_against
from multistep.core.values.judging import metric_of

JUDGED = ("base", "control", "move", "average")
LEAST_SPREAD = 1.0  # tolerances: no forecast is so sure that what is seen could not tell otherwise
# Tolerances: what a first training brings, from harm to 0.4 of accuracy. With five times the spread no fall of the loss
# outweighs one answer of sixteen; what is seen of many examples is believed either way.
OVER_UNTOUCHED = Gain(50.0, 200.0)
Tables = Mapping[str, Evaluation]


def attempts(history: History) -> tuple[VerdictGiven, ...]:
    """The verdicts so far that made a claim, in order."""
    return tuple(sorted((v for v in history.verdicts if v.attempt is not None), key=lambda v: v.attempt or 0))


def sibling_control(history: History, record: TrialRecord) -> TrialRecord | None:
    """The finished control that shares fork, seed, data order and length with a trial; None if there is none."""
    phase = history.phases[record.trial.phase]
    for other in phase.trials.values():
        mine, theirs = record.trial, other.trial
        same = (theirs.start, theirs.seed, theirs.length) == (mine.start, mine.seed, mine.length)
        if other.full and theirs.move is None and theirs.kind in ("control", "rerun") and mine.length and same:
            return other if other is not record else None
    return None


def judged_before(history: History) -> list[TrialRecord]:
    """The trials that a new one is weighed with, the reference first: those of the phase that have a score, and who
    led when the phase began, if both can be compared.
    """
    own = [t for t in history.phase.trials.values() if t.verdict and not t.verdict.failed]
    if history.phase.started.comparable and history.phases[:-1]:
        # The leader of the phases before: the one that every first attempt of this phase was held against.
        before = own[0].over if own else history.leader.trial if history.leader else None
        if before and not _is_start(history, before):
            return [history.trial(before), *own]
    return own


def _is_start(history: History, leader: str) -> bool:
    """Whether the phase's start stands for who led before it, being the same checkpoint."""
    verdict, base = history.trial(leader).verdict, history.phase.base
    return base is not None and verdict is not None and base.trial.start == verdict.checkpoint


def decide(
    history: History,
    name: str,
    *,
    checkpoint: str | None,
    new: Evaluation | None,
    tables: Tables,
    control: Evaluation | None = None,
    guards: tuple[Evaluation, Evaluation] | None = None,
) -> VerdictGiven:
    """The verdict about a trial whose evaluation is `new`; `tables` holds those of all trials with a verdict.

    `control` is the evaluation of the trial's sibling with no move: what the trial gains over it is what the move is
    credited with. `guards` are the evaluations of the trial and of the phase's start on what must not be forgotten:
    who forgets it cannot lead.
    """
    trial = replace(history.trial(name), over=held_against(history, history.trial(name)))
    metric = metric_of(history.phase.started)
    if new is None or not math.isfinite(metric.score(new)):
        leader = history.leader.trial if history.leader else None
        return VerdictGiven(name, "its score is not finite", None, None, failed=True, leader=leader)
    interval = metric.interval(new)
    guard = history.phase.started.guard
    lost = forgotten(guard, *guards) if guard and guards and trial.trial.kind != "base" else None
    before = judged_before(history)
    if not before:
        first = {name: 0.0}
        reason = (
            "the model as it was before training"
            if trial.trial.kind == "base"
            else "the first model that was evaluated"
        )
        return VerdictGiven(name, reason, checkpoint, interval, leads=True, leader=name, expected=first)
    records = [*before, trial]
    ids = [r.trial.id for r in records]
    found = expected_of(metric, records, {**tables, name: new})
    # Whoever has left the best few has no checkpoint any more.
    may = {name, *(t.trial.id for t in standing(history)), *([history.leader.trial] if history.leader else [])}
    if guard and history.phase.base:
        may.add(history.phase.base.trial.id)
    forgetful = {r.trial.id for r in records if not holds(r) or (r is trial and lost and lost.forgets)}
    may -= forgetful
    best = max((i for i in ids if i in may), key=lambda i: found.means[ids.index(i)])
    rival = _plain(before, found)
    _, spread = found.between(len(records) - 1, before.index(rival))
    ahead = _said(metric, found, len(records) - 1, before.index(rival), metric.score({**tables, name: new}[ids[0]]))
    seen = compare(metric, new, tables[rival.trial.id])
    attempt = critical = None
    proven, asked = False, ""
    if rival.trial.phase == history.phase.started.phase and rival.trial.kind != "base":
        # A phase that the plan asked for is no attempt, nor is its plain run over the model that it began with: nothing
        # was chosen, so there is no luck to guard against.
        attempt = len(attempts(history)) + 1
        critical = critical_value(_earlier(history, tables), paired(metric, new, tables[rival.trial.id]))
        proven = seen.improvement > critical * seen.standard_error
        if proven or ahead >= 0:
            asked = f"; this is {'proven' if proven else 'not proven'}: {_in_errors(seen, critical)}"
    gain = compare(metric, new, control) if control is not None else None
    sibling = sibling_control(history, trial) if gain else None
    by = difference_words(metric, ahead)
    said = f"expected to be {by} {'better' if ahead >= 0 else 'worse'} than {rival.trial.id}{asked}"
    return VerdictGiven(
        name,
        f"{lost.sentence}; {said}" if lost and lost.forgets else said,
        checkpoint,
        interval,
        leads=best == name,
        proven=proven,
        leader=best,
        expected={r.trial.id: float(g) for r, g in zip(records, found.means, strict=True)},
        rival=rival.trial.id,
        ahead=ahead,
        spread=spread,
        presumed=float(found.presumed[-1]),
        improvement=seen.improvement,
        low=seen.low,
        high=seen.high,
        standard_error=seen.standard_error,
        attempt=attempt,
        critical=critical,
        control=sibling.trial.id if sibling else None,
        gain=gain.improvement if gain else None,
        gain_low=gain.low if gain else None,
        gain_high=gain.high if gain else None,
        worse=lost.worse if lost else None,
        worse_low=lost.low if lost else None,
        worse_high=lost.high if lost else None,
        at_most_worse=lost.at_most if lost else None,
        forgets=lost is not None and lost.forgets,
        **_passed_over(metric, best, {i: {**tables, name: new}[i] for i in ids if i not in forgetful}),
    )


def _said(metric: Metric, found: Expected, one: int, other: int, first: float) -> float:
    """By how much one is expected to be better than another, as far as a score can go; the gains are over `first`."""
    mine, theirs = (metric.possible(float(found.means[k]), first) for k in (one, other))
    return mine - theirs


def _passed_over(metric: Metric, best: str, tables: Tables) -> dict[str, Any]:
    """Who scored higher than who leads, and what spoke against it; nothing where nobody did."""
    gains = {i: metric.improvement(metric.score(table), metric.score(tables[best])) for i, table in tables.items()}
    highest = max(gains, key=lambda i: gains[i])
    if gains[highest] <= 0:
        return {}
    seen = compare(metric, tables[highest], tables[best])
    found: dict[str, Any] = {"passed_over": highest}
    if 0 < seen.standard_error < math.inf:
        found["passed_errors"] = seen.improvement / seen.standard_error
    if loss := _beside(metric, tables.values()):
        losses = {"passed_loss": loss.score(tables[highest]), "leading_loss": loss.score(tables[best])}
        found |= losses if losses["leading_loss"] < losses["passed_loss"] else {}
    return found


def expected_of(metric: Metric, records: Sequence[TrialRecord], tables: Tables) -> Expected:
    """The expected gains of these trials over the first of them.

    Reckoned over the first that was trained: what tells trained ones apart is small, and would drown in what all of
    them differ from the untouched one by, in its noise and in how little is known of it beforehand.
    """
    trained = next((k for k, r in enumerate(records) if r.trial.kind != "base"), 0)
    order = [trained, *(k for k in range(len(records)) if k != trained)]
    found = _over_first(metric, [records[k] for k in order], tables)
    place = [order.index(k) for k in range(len(records))]
    means = found.means[place]
    return Expected(means - means[0], found.covariance[np.ix_(place, place)], found.presumed[place])


def _over_first(metric: Metric, records: Sequence[TrialRecord], tables: Tables) -> Expected:
    ids = [r.trial.id for r in records]
    first = tables[ids[0]]
    unit = metric.tolerance(metric.score(first))
    judged = []
    for k, record in enumerate(records):
        over = ids.index(record.over) if record.over in ids[:k] else 0
        prior, trained = (
            _prior(record, records[over], unit),
            "base" not in (record.trial.kind, records[over].trial.kind),
        )
        judged.append(Judged(tables[record.trial.id], over, prior, origin_of(record), trained))
    loss = _beside(metric, [tables[i] for i in ids])
    return expected_gains(
        metric, judged, tolerance=unit, loss=loss, link=link_of(metric.name, loss.name) if loss else None
    )


def _beside(metric: Metric, tables: Collection[Evaluation]) -> Metric | None:
    """The loss beside the metric that all of these tell."""
    return beside(metric, (name for name in BESIDE if all(_told(METRICS[name], table) for table in tables)))


def _told(metric: Metric, table: Evaluation) -> bool:
    return metric.applies(table) and math.isfinite(metric.score(table))


def _prior(record: TrialRecord, over: TrialRecord, unit: float) -> Gain:
    """What was expected of a trial when it was chosen, or what is known of its kind where nothing was weighed."""
    if record.trial.kind == "base":
        return Gain(-OVER_UNTOUCHED.mean, OVER_UNTOUCHED.spread)
    if over.trial.kind == "base":
        return OVER_UNTOUCHED
    forecast = record.forecast
    if forecast is None:
        return default_gain(record.trial.kind)
    return Gain(forecast.mean / unit, max(LEAST_SPREAD, forecast.spread / unit))


def _plain(before: Sequence[TrialRecord], found: Expected) -> TrialRecord:
    """The plain run so far: of the trials that changed nothing and may lead, the one of the highest expected score."""
    controls = [k for k, r in enumerate(before) if r.trial.kind == "control" and r.trial.length is None]
    plain = [k for k in controls if holds(before[k])] or [0]
    return before[max(plain, key=lambda k: found.means[k])]


def _earlier(history: History, tables: Tables) -> list[Attempt]:
    """The claims that have used up some of the run's chance of a false one, each against its own rival."""
    found = []
    for verdict in attempts(history):
        assert verdict.rival is not None, "a claim has a rival"
        metric = metric_of(history.phases[history.trial(verdict.trial).trial.phase].started)
        found.append(Attempt(paired(metric, tables[verdict.trial], tables[verdict.rival]), verdict.proven))
    return found


def _in_errors(found: Comparison, critical: float) -> str:
    """What was measured, beside what a proof takes."""
    if not 0 < found.standard_error < math.inf:
        return "how much of the measured difference is chance is not known"
    errors = found.improvement / found.standard_error
    return f"the measured gain is {errors:+.2f} standard errors, and a proof takes {critical:.2f}"
