"""The stability decision, tested with curves."""

import math

import numpy as np
import pytest

from multistep.core.evidence.curves import FAMILIES, Curve, Floats, Ledge, draw_curve
from multistep.core.evidence.stability import Reading, Stability, read_curve

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


# Looks at the trunk of `bench/moves.py --sets small`, 2026-11-26, seeds 0 and 3: validation in nats per token.
LITTLE_TEXT = (
    (
        (79, 122, 164, 204, 244, 285, 325, 365, 405, 443, 545, 650, 764),
        (4.825, 4.811, 4.816, 4.817, 4.835, 4.854, 4.885, 4.886, 4.893, 4.899, 4.926, 4.973, 5.034),
    ),
    (
        (36, 74, 109, 139, 170, 206, 244, 280, 316, 352, 449, 553, 647),
        (5.167, 4.826, 4.799, 4.816, 4.824, 4.814, 4.819, 4.842, 4.847, 4.855, 4.867, 4.940, 4.972),
    ),
)


@pytest.mark.parametrize(("steps", "losses"), LITTLE_TEXT)
def test_recorded_overfitting_is_named_within_thirteen_looks(
    steps: tuple[float, ...], losses: tuple[float, ...]
) -> None:
    falling = [4.5 - 0.002 * step for step in steps]  # a training loss that falls, as it did there
    names = [
        read_curve(
            steps[:n],
            losses[:n],
            horizon_steps=2_000.0 - steps[n - 1],
            tolerance=0.0145,
            train_losses=falling[:n],
        ).stability
        for n in range(5, len(steps) + 1)
    ]
    assert names[-1] is Stability.OVERFITTING
    assert Stability.DIVERGED not in names
    assert Stability.STABLE not in names


@pytest.mark.slow
def test_a_plateau_whose_noise_lasts_is_rarely_called_overfitting() -> None:
    """Noise as wide as the tolerance: at most one walk in ten, over all its looks."""
    curve = Curve("exponential", 10.0, 100.0, pace=100.0, noise_sd=1.0, autocorrelation=0.5)
    walks = [observed(curve, seed)[:60] for seed in range(60)]
    named = sum(
        any(read(walk[:points]).stability is Stability.OVERFITTING for points in range(10, 61, 2)) for walk in walks
    )
    assert named <= 6


def test_a_falling_curve_is_never_called_stable() -> None:
    """A power law so slow that 100 windows gain little more than the tolerance in as many again."""
    curve = Curve("power_law", 10.0, 40.0, pace=100.0, exponent=0.1, noise_sd=0.3)
    scores = observed(curve, seed=1)
    for points in range(5, 101):
        horizon = STEPS[points - 1]
        assert curve.gain(horizon, horizon) > 1.0
        assert read(scores[:points], horizon_steps=horizon).stability is not Stability.STABLE


@pytest.mark.slow
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
