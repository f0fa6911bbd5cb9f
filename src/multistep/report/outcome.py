"""What a run came to, in a value: its score beside the baseline's, and the plain sentences about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from multistep.core.evidence.calibration import HALF
from multistep.core.evidence.function_metric import metric_known_as
from multistep.core.evidence.metric import Goal, Interval, Metric
from multistep.core.evidence.scores import form_of
from multistep.report.words import clean

Standing = Literal["beats", "unproven", "loses", "unknown"]
USED = "as predict and evaluate say labels; the rest is at 0.5"  # of a score at the run's threshold


@dataclass(frozen=True)
class Used:
    """The score of what ships (`of`: network or baseline) where it says a label above a `threshold` that is not 0.5.

    Every other score of a run is at 0.5: what is compared with it has no such threshold.
    """

    of: str
    threshold: float
    score: Interval

    @property
    def name(self) -> str:
        return f"above {self.threshold:.2f}"


@dataclass(frozen=True)
class Answer:
    """What a run came to: the score on one split beside the baseline's, and the plain sentence about it."""

    split: str
    metric: str
    unit: str
    goal: Goal
    score: Interval
    others: Mapping[str, float]  # the task's other metrics
    baseline_name: str | None
    baseline: Interval | None
    standing: Standing
    sentence: str
    base: Interval | None = None  # of the model before training
    trained: str | None = None  # what training brought, in a sentence
    used: Used | None = None  # as `predict` and `evaluate` say it, where that is not at 0.5
    ships: str = "network"  # or baseline

    @property
    def shipped(self) -> Interval:
        """The score of what ships."""
        return self.baseline if self.ships == "baseline" and self.baseline else self.score


def answer(record: Mapping[str, Any]) -> Answer | None:
    """The answer in a result.json or a `summary`: the test split's, else validation's; None: no score."""
    split = "test" if record.get("test") else "validation"
    if not record.get(split):
        return None
    metric = metric_known_as(str(record["metric"]), record.get("goal"), record.get("unit"))
    score = interval_of(record[split])
    baseline = record.get("baseline") or {}
    rival = interval_of(baseline[split]) if baseline.get(split) else None
    scores = (record.get("scores") or {}).get(split) or {}
    others = {str(name): float(value) for name, value in scores.items() if name != metric.name}
    name = clean(str(baseline["name"])) if rival else None
    standing: Standing = "unknown"
    sentence = "No baseline was scored, so whether the network earns its compute is not known."
    if rival is not None:
        sentence = (
            f"How much better than the {name} baseline the network is cannot be worked out here: "
            "only the process that trained has the function that measures it."
        )
    if rival is not None and "gain" in baseline[split]:
        gain = {key: float(value) for key, value in baseline[split]["gain"].items()}
        standing, sentence = _compared(metric, gain, f"{name} baseline", split)
    base = (record.get("base") or {}).get(split)
    return Answer(
        split,
        metric.name,
        metric.unit,
        metric.goal,
        score,
        others,
        name,
        rival,
        standing,
        sentence,
        interval_of(base) if base else None,
        _trained(metric, base, split) if base else None,
        used_of(record, split),
        "baseline" if record.get("ships") == "baseline" and rival is not None else "network",
    )


def used_of(record: Mapping[str, Any], split: str) -> Used | None:
    """The score on that split at the threshold that the run has chosen; None where labels are said at 0.5."""
    calibration = record.get("calibration") or {}
    threshold = calibration.get("threshold") or {}
    found = threshold.get(split) or {}
    if not threshold.get("used") or threshold["value"] == HALF or "low" not in found:
        return None
    about = (record.get(split) or {}) if calibration["of"] == "network" else record["baseline"][split]
    score = interval_of({**about, "score": found["at_threshold"], "low": found["low"], "high": found["high"]})
    return Used(str(calibration["of"]), float(threshold["value"]), score)


def _trained(metric: Metric, base: Mapping[str, Any], split: str) -> str:
    """What training brought over the model that it began with."""
    gain = base.get("gain")
    if gain is None:
        return "Nothing that was trained is expected to be better than the model before training, which was chosen."
    by, interval = _by(metric, gain)
    side = "better" if gain["improvement"] > 0 else "worse"
    proof = "" if gain["low"] > 0 or gain["high"] < 0 else ", which is within noise"
    return f"On the {split} split, training made the model {side} by {by} {interval}{proof}."


def _by(metric: Metric, gain: Mapping[str, Any]) -> tuple[str, str]:
    """A difference and its interval: `3.1 points of accuracy`, `(95% interval +1.0 to +5.2)`."""
    form = form_of(metric)
    within = form.within(gain)
    return form.size_of(float(gain["improvement"])), f"(95% interval {within})" if within else "(interval not known)"


def _compared(metric: Metric, gain: Mapping[str, float], baseline: str, split: str) -> tuple[Standing, str]:
    """By the paired difference on the same examples, with its 95% interval."""
    by, interval = _by(metric, gain)
    baseline = baseline.removeprefix("the ")
    other = baseline.removesuffix(" baseline")
    if gain["low"] > 0:
        chosen = ", on the validation split, which chose the network too and so flatters it"
        return "beats", f"The network beats the {baseline} by {by} {interval}{chosen if split == 'validation' else ''}."
    if gain["improvement"] > 0:
        return "unproven", (
            f"The network is ahead of the {baseline} by {by} {interval}, which is within "
            f"noise: this {split} split does not prove that the network earns its compute."
        )
    if gain["high"] < 0:
        return "loses", (
            f"The network is worse than the {baseline} by {by} {interval}: "
            f"the {other} model is the better choice at this budget."
        )
    if gain["improvement"] == 0:
        return "loses", (
            f"The network is as good as the {baseline}, and no better {interval}, so "
            f"the {other} model is the cheaper choice at this budget."
        )
    return "loses", (
        f"The network does not beat the {baseline}: it is behind by {by} {interval}, which is within noise, and "
        f"the {other} model is the cheaper choice at this budget."
    )


def interval_of(fields: Mapping[str, Any]) -> Interval:
    # JSON has no infinity: result.json holds "inf" where one block leaves the interval open.
    return Interval(float(fields["score"]), float(fields["low"]), float(fields["high"]), int(fields["n"]))
