"""The verdict about a cooled-down trial: pure functions of the history and the evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from multistep.core.evidence.compare import Comparison, compare
from multistep.core.evidence.metric import Evaluation, Floats, Metric
from multistep.core.evidence.spending import Attempt, critical_value
from multistep.core.values.events import VerdictGiven
from multistep.core.values.history import History, TrialRecord
from multistep.core.values.judging import metric_of
from multistep.core.values.trial import Decision

JUDGED = ("control", "move", "average")


def attempts(history: History) -> tuple[VerdictGiven, ...]:
    """The verdicts so far that had to be significant, in order."""
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


def decide(
    history: History,
    name: str,
    *,
    checkpoint: str | None,
    new: Evaluation | None,
    rival: Evaluation | None,
    control: Evaluation | None = None,
    earlier: Sequence[Attempt] = (),
) -> VerdictGiven:
    """The verdict about a cooled-down trial: `new` is its evaluation, `rival` the incumbent's (None: none).

    Within a phase a further attempt must be better by as many standard errors as the attempts before it leave;
    `earlier` are those. A phase that the plan asked for is kept unless it is worse than the incumbent: nothing
    was chosen among attempts, so there is no luck to guard against. `control` is the evaluation of the trial's
    sibling with no move; what the trial gains over it is what the move is credited with.
    """
    trial = history.trial(name)
    metric = metric_of(history.phase.started)
    if new is None or not math.isfinite(metric.score(new)):
        return VerdictGiven(name, "failed", "the score is not finite", None, None)
    interval = metric.interval(new)
    if rival is None:
        return VerdictGiven(name, "keep", "the first that was evaluated", checkpoint, interval)
    found = compare(metric, new, rival)
    incumbent = history.incumbent
    attempt = critical = None
    if incumbent is not None and incumbent.trial in history.phase.trials:
        attempt, critical = len(attempts(history)) + 1, critical_value(earlier, paired(metric, new, rival))
        keep = found.improvement > critical * found.standard_error
        asked = f"; {_in_errors(found)}, {critical:.2f} are asked of attempt {attempt}"
    else:
        keep, asked = found.improvement >= 0, ""
    gain = compare(metric, new, control) if control is not None else None
    sibling = sibling_control(history, trial) if gain else None
    decision: Decision = "keep" if keep else "reject"
    return VerdictGiven(
        name,
        decision,
        f"{_words(found)} than the incumbent{asked}",
        checkpoint,
        interval,
        found.improvement,
        found.low,
        found.high,
        found.standard_error,
        attempt,
        critical,
        sibling.trial.id if sibling else None,
        gain.improvement if gain else None,
        gain.low if gain else None,
        gain.high if gain else None,
    )


def paired(metric: Metric, new: Evaluation, rival: Evaluation) -> Floats:
    """Each block's linearised improvement (shape: blocks); its mean is the improvement."""
    sign = 1.0 if metric.goal == "maximize" else -1.0
    centred: Floats = sign * (metric.influence(new) - metric.influence(rival))
    found: Floats = centred - centred.mean() + metric.improvement(metric.score(new), metric.score(rival))
    return found


def _in_errors(found: Comparison) -> str:
    if not 0 < found.standard_error < math.inf:
        return "no standard error"
    return f"{found.improvement / found.standard_error:+.2f} standard errors"


def _words(found: Comparison) -> str:
    side = "better" if found.improvement >= 0 else "worse"
    sure = "" if (found.low > 0 or found.high < 0) else ", within noise,"
    return f"{abs(found.improvement):.4f} [{found.low:+.4f}, {found.high:+.4f}]{sure} {side}"
