"""Amounts, metrics and comparisons: the numbers that decisions rest on."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from multistep.core.compare import compare
from multistep.core.metric import METRICS, Evaluation, metric_named
from multistep.core.recipe import Recipe, Segment
from multistep.core.units import Amount, Unit, parse_amount
from multistep.errors import PlanError


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("10m", 600, Unit.SECONDS),
        ("1h30m", 5400, Unit.SECONDS),
        ("90 s", 90, Unit.SECONDS),
        ("150 steps", 150, Unit.STEPS),
        ("1 epoch", 1, Unit.EPOCHS),
        ("2M tokens", 2e6, Unit.TOKENS),
        ("1.5k steps", 1500, Unit.STEPS),
    ],
)
def test_amounts_are_read_and_written_back(text: str, value: float, unit: Unit) -> None:
    amount = parse_amount(text)
    assert amount == Amount(value, unit)
    assert parse_amount(str(amount)) == amount


@pytest.mark.parametrize("text", ["", "10", "m", "10 parsecs", "0 steps", "-5m", "3 m epochs"])
def test_amounts_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match="allowed: '90s'"):
        parse_amount(text)


def table(loss: list[float], count: float = 100.0, size: float = 250.0) -> Evaluation:
    rows = len(loss)
    return Evaluation(
        {
            "loss": np.array(loss) * count,
            "count": np.full(rows, count),
            "bytes": np.full(rows, size),
            "block": np.arange(rows, dtype=float),
        }
    )


def test_text_metrics_agree_with_their_definitions() -> None:
    evaluation = table([1.0, 2.0, 3.0])
    scores = {name: metric.score(evaluation) for name, metric in METRICS.items()}
    assert scores["loss"] == pytest.approx(2.0)
    assert scores["perplexity"] == pytest.approx(math.exp(2.0))
    assert scores["bits_per_byte"] == pytest.approx(2.0 * 100 / 250 / math.log(2))


def test_improvement_is_right_for_both_signs_and_for_nan() -> None:
    loss = metric_named("loss")
    assert loss.improvement(-2.0, -1.0) == 1.0
    assert loss.improvement(1.0, 2.0) == 1.0
    assert loss.improvement(math.nan, 1e9) == -math.inf
    assert loss.improvement(1e9, math.nan) == math.inf


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """400 splits of 30 spans of unequal length drawn from one population, whose ratio is known."""
    generator = np.random.default_rng(0)
    metric, hits = metric_named("loss"), 0
    for _ in range(400):
        count = generator.integers(50, 200, 30).astype(float)
        loss = count * (1.5 + 0.2 * generator.standard_normal(30))
        interval = metric.interval(Evaluation({"loss": loss, "count": count, "block": np.arange(30.0)}))
        hits += interval.low <= 1.5 <= interval.high
    assert 0.92 <= hits / 400 <= 0.98


def test_rows_of_one_block_count_once() -> None:
    """Each span twice, in one block: no narrower than the spans alone, or repeating data would buy certainty."""
    single = table([1.0, 1.5, 2.0, 2.5])
    double = Evaluation({name: np.repeat(column, 2) for name, column in single.columns.items()})
    metric = metric_named("loss")
    assert metric.interval(double).low == pytest.approx(metric.interval(single).low)


def test_a_paired_comparison_sees_what_two_intervals_hide() -> None:
    """Spans differ by 1 nat, the checkpoints by 0.01: the intervals overlap, the difference is certain."""
    generator = np.random.default_rng(1)
    hardness = generator.standard_normal(50)
    old = table(list(3 + hardness))
    new = table(list(2.99 + hardness + 0.005 * generator.standard_normal(50)))
    metric = metric_named("loss")
    assert metric.interval(new).high > metric.interval(old).low
    found = compare(metric, new, old)
    assert found.significant
    assert found.improvement == pytest.approx(0.01, abs=0.003)
    assert not compare(metric, old, new).significant


def test_equal_checkpoints_are_not_told_apart() -> None:
    found = compare(metric_named("loss"), table([1.0, 2.0, 4.0]), table([1.0, 2.0, 4.0]))
    assert found.improvement == 0
    assert not found.significant


def test_one_block_proves_nothing() -> None:
    interval = metric_named("loss").interval(table([2.0]))
    assert interval.low == -math.inf
    assert interval.high == math.inf


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
def test_a_cooldown_in_pieces_is_the_cooldown_in_one(shape: str) -> None:
    whole = Segment(10, shape, 0.5, 0.0, 1.0).rates()  # type: ignore[arg-type]
    pieces = Segment(4, shape, 0.5, 0.0, 0.4).rates() + Segment(6, shape, 0.5, 0.4, 1.0).rates()  # type: ignore[arg-type]
    assert pieces == pytest.approx(whole)
    assert whole[0] == 0.5
    assert all(a > b > 0 for a, b in itertools.pairwise(whole))


def test_a_warm_up_starts_above_zero_and_ends_at_the_peak() -> None:
    rates = Segment(5, "warmup", 1.0, 0.0, 1.0).rates()
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


@pytest.mark.parametrize(
    ("setting", "value"), [("learning_rate", 0.0), ("dropout", 1.0), ("cooldown_fraction", 1.1), ("batch_size", 0)]
)
def test_recipes_refuse_settings_out_of_range(setting: str, value: float) -> None:
    with pytest.raises(PlanError, match=rf"{setting} is .*; allowed: "):
        Recipe(**{setting: value})  # type: ignore[arg-type]
