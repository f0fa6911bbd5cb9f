"""Amounts, metrics and comparisons: the numbers that decisions rest on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics

from multistep.core.evidence.compare import compare
from multistep.core.evidence.function_metric import FunctionMetric
from multistep.core.evidence.metric import METRICS, Evaluation, Metric, margin, metric_named, scores_of, standard_error
from multistep.core.evidence.scores import metric_words
from multistep.core.values.recipe import Recipe, Segment
from multistep.core.values.units import Amount, Unit, parse_amount
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


@pytest.mark.parametrize("text", ["", "m", "10 parsecs", "0 steps", "-5m", "3 m epochs"])
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
    scores = scores_of(evaluation)
    assert set(scores) == {"loss", "perplexity", "bits_per_byte"}
    assert scores["loss"] == pytest.approx(2.0)
    assert scores["perplexity"] == pytest.approx(math.exp(2.0))
    assert scores["bits_per_byte"] == pytest.approx(2.0 * 100 / 250 / math.log(2))


def test_improvement_is_right_for_both_signs_and_for_nan() -> None:
    loss = metric_named("loss")
    assert loss.improvement(-2.0, -1.0) == 1.0
    assert loss.improvement(1.0, 2.0) == 1.0
    assert loss.improvement(math.nan, 1e9) == -math.inf
    assert loss.improvement(1e9, math.nan) == math.inf


def test_a_gain_ends_where_a_score_cannot_go_further() -> None:
    accuracy, wer, loss = METRICS["accuracy"], METRICS["wer"], METRICS["loss"]
    assert accuracy.possible(0.02, 0.99) == pytest.approx(0.01)
    assert accuracy.possible(0.005, 0.99) == 0.005
    assert (accuracy.possible(-0.5, 0.25), wer.possible(0.011, 0.008)) == (-0.25, 0.008)
    assert (loss.possible(-9.0, 1.0), loss.possible(9.0, -1.0)) == (-9.0, 9.0), "a density's has no least one"


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
    assert (interval.low, interval.high) == (0.0, math.inf)


def test_no_end_of_an_interval_is_a_score_that_cannot_be() -> None:
    """Error rates and losses have none below 0, perplexities none below 1; and hold the truth as often."""
    generator = np.random.default_rng(0)
    held = {"new": 0, "student": 0}
    wer, loss = metric_named("wer"), metric_named("loss")
    for _ in range(400):
        errors = generator.poisson(0.3 * generator.gamma(0.5, 2, 20)).astype(float)
        found = rows(errors=errors, words=np.full(20, 10.0))
        interval, half = wer.interval(found), margin(wer.influence(found))
        assert 0 <= interval.low <= interval.score <= interval.high
        held["new"] += interval.low <= 0.03 <= interval.high
        held["student"] += interval.score - half <= 0.03 <= interval.score + half
    assert held["new"] / 400 > 0.94 > held["student"] / 400
    none = wer.interval(rows(errors=np.zeros(50), words=np.full(50, 10.0)))
    assert (none.score, none.low) == (0.0, 0.0)
    assert 0.05 < none.high < 0.1, "no error in 50 utterances does not exclude that one in 20 fails"
    steep = rows(loss=[0.01, 0.02, 9.0, 0.01], count=np.ones(4), bytes=np.full(4, 4.0))
    assert 0 < loss.interval(steep).low < loss.interval(steep).score
    assert metric_named("perplexity").interval(steep).low > 1
    assert math.log(metric_named("perplexity").interval(steep).high) == pytest.approx(loss.interval(steep).high)
    far = rows(loss=generator.normal(5, 0.5, 500), count=np.ones(500))
    assert loss.interval(far).low == pytest.approx(loss.score(far) - margin(loss.influence(far)), abs=1e-3)
    density = rows(loss=[-3.0, 1.0, 2.0, 0.5], count=np.ones(4))  # a user's loss, which may be negative
    assert loss.interval(density).low < 0


def rows(**columns: npt.ArrayLike) -> Evaluation:
    """Columns whose every row is a block."""
    values = {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
    return Evaluation({"block": np.arange(float(len(next(iter(values.values()))))), **values})


# Classes 0, 1, 2 with 4, 3, 3 examples; predicted 4, 2, 4 times; hit 3, 2, 3 times.
TEN = {"label": [0.0, 0, 0, 0, 1, 1, 1, 2, 2, 2], "prediction": [0.0, 0, 0, 2, 1, 1, 0, 2, 2, 2]}
F1 = (6 / 8, 4 / 5, 6 / 7)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 0.8),
        ("macro_f1", sum(F1) / 3),
        ("weighted_f1", 0.4 * F1[0] + 0.3 * F1[1] + 0.3 * F1[2]),
        ("precision", (3 / 4 + 1 + 3 / 4) / 3),
        ("recall", (3 / 4 + 2 / 3 + 1) / 3),
        ("matthews", (8 * 10 - 34) / math.sqrt((100 - 36) * (100 - 34))),
    ],
)
def test_class_metrics_agree_with_their_definitions(name: str, expected: float) -> None:
    assert scores_of(rows(**TEN))[name] == pytest.approx(expected)


def test_order_metrics_agree_with_their_definitions() -> None:
    generator = np.random.default_rng(2)
    label, score = generator.integers(0, 2, 40), generator.integers(0, 6, 40)
    pairs = [(a > b) + (a == b) / 2 for a in score[label == 1] for b in score[label == 0]]
    assert scores_of(rows(label=label, score=score))["roc_auc"] == pytest.approx(np.mean(pairs))
    x, y = np.round(generator.standard_normal((2, 50)), 1)  # with ties
    scores = scores_of(rows(label=x, prediction=x + y))
    assert set(scores) == {*NUMBER_METRICS} - {"mean_absolute_percentage_error"}, "for some are 0"
    assert scores["pearson"] == pytest.approx(np.corrcoef(x, x + y)[0, 1])
    ranks = [np.sum(np.sign(z[:, None] - z), axis=1) for z in (x, x + y)]
    assert scores["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert scores["mean_squared_error"] == pytest.approx(np.mean(y**2))


def test_speech_is_scored_per_word_and_rows_with_several_labels_per_label() -> None:
    speech = rows(errors=[1, 0], words=[4, 6], character_errors=[2, 0], characters=[20, 30])
    assert scores_of(speech) == {"wer": 0.1, "cer": 0.04}
    labels = rows(label_0=[1, 1, 0], prediction_0=[1, 0, 0], label_1=[0, 0, 0], prediction_1=[0, 1, 0])
    assert scores_of(labels) == {"micro_f1": pytest.approx(2 / 4), "macro_f1": pytest.approx(2 / 3)}


def test_numbers_and_places_are_scored_as_scikit_learn_does() -> None:
    generator = np.random.default_rng(7)
    y_NK = generator.standard_normal((40, 2)) + 3
    said_NK = y_NK + generator.standard_normal((40, 2))
    for y, said, table in (
        (y_NK[:, 0], said_NK[:, 0], rows(label=y_NK[:, 0], prediction=said_NK[:, 0])),
        (
            y_NK,
            said_NK,
            rows(target_0=y_NK[:, 0], target_1=y_NK[:, 1], output_0=said_NK[:, 0], output_1=said_NK[:, 1]),
        ),
    ):
        scores = scores_of(table)
        assert scores["mean_absolute_error"] == pytest.approx(sklearn.metrics.mean_absolute_error(y, said))
        assert scores["mean_squared_error"] == pytest.approx(sklearn.metrics.mean_squared_error(y, said))
        assert scores["r2"] == pytest.approx(sklearn.metrics.r2_score(y, said))
        assert scores["mean_absolute_percentage_error"] == pytest.approx(
            sklearn.metrics.mean_absolute_percentage_error(y, said)
        )
        assert scores["root_mean_squared_error"] ** 2 == pytest.approx(scores["mean_squared_error"])
    assert metric_named("r2").interval(rows(label=np.full(4, 0.5), prediction=said_NK[:4, 0])).high == math.inf

    truth, guess = generator.integers(0, 3, (2, 5, 50))
    table = rows(
        **{
            f"{kind}_{k}": found.sum(axis=1)
            for k in range(3)
            for kind, found in (
                ("hit", (truth == k) & (guess == k)),
                ("labelled", truth == k),
                ("predicted", guess == k),
            )
        }
    )
    flat = truth.ravel(), guess.ravel()
    assert scores_of(table) == {
        "mean_iou": pytest.approx(sklearn.metrics.jaccard_score(*flat, average="macro")),
        "dice": pytest.approx(sklearn.metrics.f1_score(*flat, average="macro")),
    }


def test_no_percentage_is_told_of_targets_that_are_about_zero() -> None:
    """It was 6155262101055818.0%, of one target of 0."""
    y, said = np.array([0.0, 3.0, 4.0]), np.array([0.5, 3.1, 4.2])
    one, several = rows(label=y, prediction=said), rows(target_0=y + 1, output_0=said, target_1=y, output_1=said)
    for table in (one, several):
        assert "mean_absolute_error" in scores_of(table)
        assert "mean_absolute_percentage_error" not in scores_of(table)
    asked = metric_named("mape")
    assert scores_of(one, asked)["mean_absolute_percentage_error"] > 1e10, "whoever asks for it gets it"


def test_the_calibrated_loss_is_called_what_it_is() -> None:
    """Of ten classes that are all taken for likely as often as they are, it is ln 2 beside a loss of ln 10."""
    loss = np.full(40, np.log(10))
    scores = scores_of(rows(label=np.arange(40) % 10, prediction=np.zeros(40), loss=loss, count=np.ones(40)))
    assert scores["calibrated_loss"] == pytest.approx(np.log(2), abs=1e-3)
    assert "one-against-rest" in metric_words("calibrated_loss")


NUMBER_METRICS = (
    "pearson",
    "spearman",
    "mean_squared_error",
    "root_mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "r2",
)


def spread(name: str, generator: np.random.Generator, blocks: int = 300) -> Evaluation:
    """A table for the metric, of blocks of two examples that depend on each other."""
    size, shared = 2 * blocks, np.repeat(generator.standard_normal(blocks), 2)
    own = generator.standard_normal(size)
    label = generator.choice(4, size, p=[0.4, 0.3, 0.2, 0.1])
    guess = np.where(own + shared > -1.3, label, generator.integers(0, 4, size))
    columns: dict[str, npt.NDArray[Any]] = {"block": np.repeat(np.arange(float(blocks)), 2)}
    if name in (*NUMBER_METRICS, "numbers"):
        noise = generator.standard_normal(size) * (1 + (own > 0))
        columns |= {"label": own + shared + 8, "prediction": np.round(own + noise + 8, 1)}
        if name == "numbers":
            columns = {"target_0": columns.pop("label"), "output_0": columns.pop("prediction"), **columns}
            columns |= {"target_1": 3 * own + shared, "output_1": np.round(noise, 1) + own}
    elif name in ("pixel_accuracy", "token_accuracy", "mean_iou", "dice"):
        seen = generator.poisson(20 + 5 * np.clip(shared + own, -2, 2)[:, None], (size, 3)) * 1.0
        hit = generator.binomial(seen.astype(int), [0.9, 0.7, 0.5]) * 1.0
        for k in range(3):
            columns |= {f"hit_{k}": hit[:, k], f"labelled_{k}": seen[:, k], f"predicted_{k}": hit[:, k] + own**2}
        for of in ("pixels", "tokens"):
            columns |= {of: seen.sum(1), f"right_{of}": hit.sum(1)}
    elif name == "roc_auc":
        columns |= {"label": (label == 0) * 1.0, "score": np.round((label == 0) + own + shared / 2, 1)}
    elif name in ("wer", "cer"):
        words = generator.integers(1, 20, size) * 1.0
        columns |= {"words": words, "errors": generator.binomial(words.astype(int), 0.2) * 1.0}
        columns |= {"characters": columns["words"], "character_errors": columns["errors"]}
    elif name in ("exact_match", "token_f1", "rouge_l", "answer_accuracy"):
        scores = np.clip(0.6 + own + shared, 0, 1)
        columns |= {"exact": scores.round(), "right_answer": scores.round(), "token_f1": scores, "rouge_l": scores}
    elif name in ("preference_accuracy", "margin"):
        columns |= {"margin": np.round(own + shared + 0.5, 1), "count": np.ones(size)}
    elif name == "several":
        for k in range(4):
            columns |= {f"label_{k}": (label == k) * 1.0, f"prediction_{k}": ((guess == k) | (own > 1.5)) * 1.0}
    else:
        columns |= {"label": label * 1.0, "prediction": guess * 1.0, "in_top5": (own + shared > -2) * 1.0}
        columns |= {"loss": np.exp(0.5 * (own + shared)), "count": np.ones(size)}
    return Evaluation(columns)


ROOT_MEAN_SQUARE = FunctionMetric(
    "rms", "minimize", lambda c: float(np.sqrt(np.mean((c["label"] - c["prediction"]) ** 2)))
)


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        (metric, name)
        for name, metric in METRICS.items()
        if name not in ("loss", "perplexity", "bits_per_byte", "micro_f1")
    ]
    + [(metric_named("micro_f1"), "several"), (metric_named("macro_f1"), "several"), (ROOT_MEAN_SQUARE, "pearson")]
    + [(metric_named(name), "numbers") for name in ("rmse", "mae", "r2")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_influence_gives_the_error_that_the_bootstrap_finds(metric: Metric, kind: str) -> None:
    generator = np.random.default_rng(3)
    evaluation = spread(kind, generator)
    influence = metric.influence(evaluation)
    assert abs(influence.mean()) < 1e-9
    blocks = len(evaluation) // 2
    drawn = []
    for _ in range(300):
        pairs = 2 * generator.integers(0, blocks, blocks)
        taken = np.stack([pairs, pairs + 1], axis=1).ravel()
        drawn.append(metric.score(Evaluation({name: column[taken] for name, column in evaluation.columns.items()})))
    assert standard_error(influence) == pytest.approx(np.std(drawn), rel=0.12)


def two_readers(generator: np.random.Generator, size: int) -> tuple[npt.NDArray[Any], ...]:
    """Labels of unequal classes, a reader that is right for 80%, and one that mends some and spoils fewer."""
    label = generator.choice(3, size, p=[0.6, 0.25, 0.15])
    other = (label + generator.integers(1, 3, size)) % 3
    old = np.where(generator.random(size) < 0.8, label, other)
    change = generator.random(size)
    new = np.where(old == label, np.where(change < 0.05, other, label), np.where(change < 0.3, label, old))
    return label, new, old


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_a_paired_comparison_of_readers_covers_the_truth(name: str) -> None:
    metric, generator = metric_named(name), np.random.default_rng(4)
    label, new, old = two_readers(generator, 500_000)
    truth = metric.score(rows(label=label, prediction=new)) - metric.score(rows(label=label, prediction=old))
    hits = 0
    for _ in range(1500):
        label, new, old = two_readers(generator, 200)
        found = compare(metric, rows(label=label, prediction=new), rows(label=label, prediction=old))
        hits += found.low <= truth <= found.high
    assert 0.935 <= hits / 1500 <= 0.965


@pytest.mark.parametrize(("name", "share"), [("accuracy", 0.98), ("macro_f1", 0.97), ("matthews", 0.95)])
def test_near_its_bound_an_interval_still_covers_the_truth(name: str, share: float) -> None:
    """Of 60 examples often every one is right: the influence is 0, the interval must not be."""
    metric, generator, hits = metric_named(name), np.random.default_rng(5), 0

    def drawn(size: int) -> Evaluation:
        label = generator.integers(0, 3, size)
        return rows(label=label, prediction=np.where(generator.random(size) < share, label, (label + 1) % 3))

    truth = metric.score(drawn(500_000))
    for _ in range(400):
        interval = metric.interval(drawn(60))
        assert interval.low <= interval.score <= interval.high <= 1
        hits += interval.low <= truth <= interval.high
    assert hits / 400 >= 0.92


def test_accuracy_has_wilsons_interval() -> None:
    interval = metric_named("accuracy").interval(rows(label=np.zeros(10_000), prediction=np.arange(10_000) < 300))
    assert (interval.low, interval.high) == pytest.approx((0.96648, 0.97317), abs=2e-5)  # Wilson for 9700 of 10000


CLASS_METRICS = ("accuracy", "macro_f1", "weighted_f1", "precision", "recall", "matthews")


def test_a_class_without_an_example_is_left_out() -> None:
    """Predicting it costs the recall of the class that the example has."""
    scores = scores_of(rows(label=[0, 0, 1, 1], prediction=[0, 2, 1, 1]))
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["precision"] == 1.0
    assert scores["recall"] == 0.75


@pytest.mark.parametrize("name", [*CLASS_METRICS, "pearson", "spearman", "roc_auc"])
def test_constant_predictions_have_a_score_and_lose_to_better_ones(name: str) -> None:
    metric, label = metric_named(name), [0.0, 1.0] * 50
    constant = rows(label=label, prediction=np.zeros(100), score=np.zeros(100))
    interval = metric.interval(constant)
    expected = {
        "roc_auc": 0.5,
        "accuracy": 0.5,
        "recall": 0.5,
        "precision": 0.25,
        "macro_f1": 1 / 3,
        "weighted_f1": 1 / 3,
    }
    assert interval.score == pytest.approx(expected.get(name, 0.0))
    assert interval.low < interval.score < interval.high
    better = np.array(label)
    better[:10] = 0
    found = compare(metric, rows(label=label, prediction=better, score=better), constant)
    assert found.significant


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman", "roc_auc", "micro_f1"])
def test_labels_of_one_class_prove_nothing(name: str) -> None:
    prediction = [0.0, 1.0, 0.0, 1.0]
    labels = {"label_0": np.zeros(4), "prediction_0": prediction} if name == "micro_f1" else {"label": np.ones(4)}
    evaluation = rows(**labels, prediction=prediction, score=prediction)
    interval = metric_named(name).interval(evaluation)
    assert math.isfinite(interval.score)
    assert (interval.low, interval.high) == (-math.inf, math.inf)
    assert not compare(metric_named(name), evaluation, evaluation).significant


@pytest.mark.parametrize("name", [*CLASS_METRICS, "pearson", "mean_squared_error"])
def test_one_block_and_a_lost_number_prove_nothing(name: str) -> None:
    metric = metric_named(name)
    one = Evaluation({"label": np.arange(4.0), "prediction": np.arange(4.0), "block": np.zeros(4)})
    assert metric.interval(one).high == math.inf
    lost = rows(label=[0, 1, 1], prediction=[0, 1, 0], loss=[0.1, math.nan, 0.1])
    assert math.isnan(metric.score(lost))
    assert not compare(metric, rows(label=[0, 1, 1], prediction=[0, 1, 1]), lost).significant


def test_tables_with_the_same_columns_are_told_apart() -> None:
    """Shares move by 0.2 points, losses by 0.3% of themselves, before anyone would wait for more."""
    assert "accuracy" not in scores_of(rows(label=[0, 1, 2], prediction=[0.1, 1.0, 2.0]))
    assert set(scores_of(rows(**TEN))) == set(CLASS_METRICS)
    assert metric_named("accuracy").tolerance(0.01) == metric_named("mcc").tolerance(0.9) == 0.002
    assert metric_named("loss").tolerance(2.0) == pytest.approx(0.006)


def test_a_users_function_needs_a_goal() -> None:
    def function(columns: Mapping[str, npt.NDArray[np.float64]]) -> float:
        return float(columns["loss"].mean())

    with pytest.raises(PlanError, match=r"'mine': goal is missing; allowed: 'minimize' or 'maximize'"):
        FunctionMetric("mine", function=function)
    with pytest.raises(PlanError, match=r"goal is 'minimise'.*Did you mean 'minimize'"):
        FunctionMetric("mine", "minimise", function)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="function is None"):
        FunctionMetric("mine", "minimize")
    mine, own = FunctionMetric("mine", "minimize", function), table(list(np.random.default_rng(7).random(1000)))
    assert len(mine.influence(own)) == 64
    assert sorted(mine.influence(table([1.0, 2.0, 6.0]))) == pytest.approx([-200, -100, 300])


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
