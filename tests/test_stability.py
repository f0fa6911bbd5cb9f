"""The stability decision, tested with curves."""

import math

import numpy as np
import pytest

from multistep.core.curves import FAMILIES, Curve, Floats, Ledge, draw_curve
from multistep.core.stability import Reading, Stability, read_curve

STEPS: Floats = np.arange(100.0, 10_001.0, 100.0, dtype=np.float64)
PLATEAU = Curve("exponential", 10.0, 100.0, pace=600.0, noise_sd=0.2)


def read(scores: Floats, *, horizon_steps: float = 5_000.0, maximize: bool = False) -> Reading:
    steps = STEPS[: len(scores)].tolist()
    return read_curve(steps, scores.tolist(), horizon_steps=horizon_steps, tolerance=1.0, maximize=maximize)


def observed(curve: Curve, seed: int = 0) -> Floats:
    return curve.observe(STEPS, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (Curve("power_law", 10.0, 100.0, pace=500.0, exponent=0.4, noise_sd=0.2), Stability.IMPROVING),
        (Curve("power_law", 10.0, 120.0, pace=10.0, exponent=0.2, noise_sd=0.2), Stability.IMPROVING),
        (Curve("exponential", 10.0, 100.0, pace=4_000.0, noise_sd=0.2), Stability.IMPROVING),
        (PLATEAU, Stability.STABLE),
        (Curve("spikes", 10.0, 100.0, pace=300.0, exponent=4.0, noise_sd=0.2), Stability.STABLE),
        (
            Curve("stepwise", 10.0, 100.0, 300.0, ledges=(Ledge(3_000.0, 20.0, 300.0),), noise_sd=0.2),
            Stability.STABLE,
        ),
        (
            Curve("overfitting", 10.0, 100.0, 600.0, turn=5_000.0, rise=2.0, noise_sd=0.3),
            Stability.OVERFITTING,
        ),
        (Curve("divergence", 10.0, 100.0, 600.0, turn=8_000.0, rise=120.0, noise_sd=0.3), Stability.DIVERGED),
        (Curve("exponential", 10.0, 20.0, 600.0, noise_sd=20.0), Stability.UNDECIDED),
    ],
)
def test_each_family_is_read_right(curve: Curve, expected: Stability) -> None:
    scores = observed(curve)
    assert read(scores, horizon_steps=3_000.0).stability is expected


def test_a_loss_and_its_negative_as_a_score_read_the_same() -> None:
    for family in FAMILIES:
        curve = draw_curve(family, np.random.default_rng(3), noise_sd=0.3)
        for points in (12, 50, 100):
            scores = observed(curve)[:points]
            assert read(scores) == read(-scores, maximize=True)


def test_the_forecast_bounds_what_comes() -> None:
    curve = Curve("power_law", 10.0, 100.0, pace=500.0, exponent=0.5, noise_sd=0.2)
    reading = read(observed(curve), horizon_steps=10_000.0)
    forecast = reading.forecast
    assert forecast is not None
    assert forecast.low < curve.gain(10_000.0, 10_000.0) < forecast.high
    assert forecast.low <= forecast.expected <= forecast.high
    assert forecast.noise == pytest.approx(0.2, rel=0.3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_last_score_that_is_not_finite_is_divergence(bad: float) -> None:
    scores = observed(PLATEAU)
    scores[-1] = bad
    assert read(scores).stability is Stability.DIVERGED
    assert read(scores[:0]).stability is Stability.UNDECIDED
    assert read(np.full(3, bad)).stability is Stability.DIVERGED


def test_spikes_neither_hide_a_plateau_nor_count_as_divergence() -> None:
    scores = observed(PLATEAU)
    scores[[40, 55, 70, 71, 88, 94]] += np.array([200.0, 30.0, 80.0, 40.0, 20.0, 500.0])
    assert read(scores).stability is Stability.STABLE
    for points in range(5, 101):
        assert read(scores[:points]).stability not in (Stability.DIVERGED, Stability.OVERFITTING)


def test_divergence_is_named_within_five_windows_and_stays_named() -> None:
    scores = observed(Curve("divergence", 10.0, 100.0, 600.0, turn=5_000.0, rise=120.0, noise_sd=0.3))
    named = [points for points in range(5, 101) if read(scores[:points]).stability is Stability.DIVERGED]
    assert named == list(range(named[0], 101))
    assert 50 < named[0] <= 55


def test_a_jump_that_the_training_loss_does_not_share_is_no_divergence() -> None:
    scores = observed(Curve("divergence", 10.0, 100.0, 600.0, turn=8_000.0, rise=120.0, noise_sd=0.3))
    calm = observed(PLATEAU).tolist()
    reading = read_curve(STEPS.tolist(), scores.tolist(), horizon_steps=3_000.0, tolerance=1.0, train_losses=calm)
    assert reading.stability is not Stability.DIVERGED


def test_overfitting_rolls_back_to_the_bottom() -> None:
    curve = Curve("overfitting", 10.0, 100.0, 600.0, turn=5_000.0, rise=4.0, noise_sd=0.3)
    reading = read(observed(curve))
    assert reading.stability is Stability.OVERFITTING
    assert abs(curve.truth(STEPS[reading.best_index]) - curve.truth(STEPS).min()) < 1.0


def test_a_falling_curve_is_never_called_stable() -> None:
    """A power law so slow that 100 windows gain little more than the tolerance in as many again."""
    curve = Curve("power_law", 10.0, 40.0, pace=100.0, exponent=0.1, noise_sd=0.3)
    scores = observed(curve, seed=1)
    for points in range(5, 101):
        horizon = STEPS[points - 1]
        assert curve.gain(horizon, horizon) > 1.0
        assert read(scores[:points], horizon_steps=horizon).stability is not Stability.STABLE


def test_false_alarms_over_all_looks_are_rare() -> None:
    """Walked look by look: of 60 smooth curves at most 3 are called stable too early, and most in the end."""
    alarms = called = 0
    for index in range(60):
        generator = np.random.default_rng([5, index])
        family = ("power_law", "exponential", "spikes")[index % 3]
        curve = draw_curve(
            family, generator, noise_sd=(0.1, 0.3, 1.0)[index // 3 % 3], autocorrelation=(0.0, 0.6)[index % 2]
        )
        scores = curve.observe(STEPS, generator)
        for points in range(5, 96):
            horizon = STEPS[-1] - STEPS[points - 1]
            if read(scores[:points], horizon_steps=horizon).stability is Stability.STABLE:
                called += 1
                alarms += curve.gain(STEPS[points - 1], horizon) > 1.0
                break
    assert alarms <= 3
    assert called >= 50


@pytest.mark.parametrize(
    ("steps", "scores", "horizon_steps", "tolerance"),
    [
        ([1.0, 2.0], [1.0], 1.0, 1.0),
        ([2.0, 1.0], [1.0, 1.0], 1.0, 1.0),
        ([1.0], [1.0], 1.0, 0.0),
        ([1.0], [1.0], -1.0, 1.0),
    ],
)
def test_nonsense_is_refused(steps: list[float], scores: list[float], horizon_steps: float, tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"must|needed"):
        read_curve(steps, scores, horizon_steps=horizon_steps, tolerance=tolerance)
