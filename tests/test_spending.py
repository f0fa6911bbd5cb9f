"""The rule that spends one error over a run's attempts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from multistep.core.evidence.intervals import Floats, standard_error
from multistep.core.evidence.spending import Attempt, blocks_needed, critical_value, detectable, spendable

BLOCKS = 64


def candidates(count: int, *, correlation: float = 0.5, seed: int = 0, blocks: int = BLOCKS) -> Floats:
    """Differences to one leader, all at par, in standard errors of their mean (shape: candidates, blocks)."""
    generator = np.random.default_rng(seed)
    shared, own = generator.standard_normal(blocks), generator.standard_normal((count, blocks))
    return (math.sqrt(correlation) * shared + math.sqrt(1.0 - correlation) * own) * math.sqrt(blocks)


def better(differences: Floats, by: float) -> Floats:
    """The same errors around a mean of so many standard errors."""
    found: Floats = differences - differences.mean() + by * standard_error(differences)
    return found


def rejected(differences: Floats, by: float = 0.0) -> list[Attempt]:
    return [Attempt(better(row, by), kept=False) for row in differences]


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_a_run_keeps_nothing_that_is_no_better_in_95_of_100(correlation: float) -> None:
    runs, erred = 400, 0
    for seed in range(runs):
        earlier: list[Attempt] = []
        for differences in candidates(8, correlation=correlation, seed=seed):
            reached = differences.mean() / standard_error(differences)
            kept = reached > 1.6 and reached > critical_value(earlier, differences)
            erred += kept
            earlier.append(Attempt(differences, kept))
            if kept:
                break
    assert 0.01 < erred / runs < 0.05 + 2.0 * math.sqrt(0.05 * 0.95 / runs)


def test_boundaries_grow_with_the_attempts_and_less_so_if_they_are_alike() -> None:
    last = []
    for correlation in (0.0, 0.5, 0.95):
        found = candidates(20, correlation=correlation, blocks=1_000)
        asked = [critical_value(rejected(found[:n]), found[n]) for n in (0, 1, 4, 9, 19)]
        assert asked == sorted(asked)
        assert 1.6 < asked[0] < asked[1] - 0.1
        last.append(asked[-1])
    assert last[0] > last[1] + 0.1 > last[2] + 0.2


def test_what_is_kept_or_clearly_worse_does_not_count() -> None:
    found = candidates(4)
    first = critical_value([], found[3])
    second = critical_value(rejected(found[:1]), found[3])
    third = critical_value(rejected(found[:2]), found[3])
    assert first < second < third
    assert critical_value([Attempt(better(found[0], 4.0), kept=True)], found[3]) == pytest.approx(first, abs=0.02)
    assert critical_value(rejected(found[:1], by=-3.0), found[3]) == pytest.approx(first, abs=0.02)
    assert critical_value([*rejected(found[:1]), *rejected(found[1:2], by=-3.0)], found[3]) < third - 0.05


def test_a_mirrored_candidate_gains_nothing_by_the_others_bad_luck() -> None:
    one = better(candidates(1)[0], -3.0)
    assert critical_value([Attempt(one, kept=False)], -one) > critical_value([], -one) + 0.2


def test_the_first_attempt_has_its_share_with_few_blocks_too() -> None:
    from scipy.special import stdtr

    for blocks in (2, 16, 1_000):
        even = np.arange(blocks, dtype=np.float64)
        assert stdtr(blocks - 1, -critical_value([], even)) == pytest.approx(spendable(1), rel=0.01)
    assert spendable(0) == 0.0
    assert spendable(10_000) < 0.05


def test_many_small_gains_against_few_large_losses_are_doubted() -> None:
    drawn = np.random.default_rng(0).standard_exponential((4_000, BLOCKS))
    plain = critical_value([], np.arange(BLOCKS, dtype=np.float64))
    assert critical_value([], drawn[0]) == pytest.approx(plain, abs=0.02)
    losses = 1.0 - drawn
    reached = losses.mean(axis=1) / (losses.std(axis=1, ddof=1) / math.sqrt(BLOCKS))
    tempting = np.flatnonzero(reached > plain)
    kept = sum(bool(reached[i] > critical_value([], losses[i])) for i in tempting)
    assert len(tempting) > 1.6 * spendable(1) * len(losses)
    assert kept < 1.4 * spendable(1) * len(losses)


def test_nothing_can_be_said_of_one_block_or_of_scores_that_are_not_finite() -> None:
    assert critical_value([], np.array([1.0])) == math.inf
    assert critical_value([], np.array([1.0, math.nan, 2.0])) == math.inf
    found = candidates(2)
    broken = [Attempt(np.array([1.0]), kept=False), Attempt(np.full(BLOCKS, math.nan), kept=False)]
    assert critical_value([*broken, *rejected(found[:1])], found[1]) == critical_value(rejected(found[:1]), found[1])


def test_attempts_on_another_split_have_spent_their_share() -> None:
    found = candidates(2, correlation=0.9)
    elsewhere = rejected(candidates(1, blocks=100))
    asked = critical_value(elsewhere, found[1])
    assert asked > critical_value(rejected(found[:1]), found[1]) > critical_value([], found[1])


def test_the_same_attempts_get_the_same_boundary_and_candidates_twice_do_no_harm() -> None:
    found = candidates(12)
    earlier = rejected(found[:11])
    asked = critical_value(earlier, found[11])
    assert asked == critical_value(earlier, found[11])
    assert asked == pytest.approx(critical_value(rejected(1_000.0 * found[:11]), found[11]))
    assert 1.6 < critical_value(rejected(np.stack([found[0]] * 5)), found[0]) < 3.0
    assert math.isfinite(critical_value([Attempt(np.zeros(BLOCKS), kept=False)], np.ones(BLOCKS)))


def test_what_can_be_found_and_with_how_many_blocks() -> None:
    asked = critical_value([], np.arange(BLOCKS, dtype=np.float64))
    assert detectable(0.1, 0, BLOCKS) == pytest.approx(0.1 * (asked + 0.85), abs=0.002)
    assert detectable(0.1, 9, BLOCKS) > detectable(0.1, 1, BLOCKS) > detectable(0.1, 0, BLOCKS)
    assert detectable(0.1, 0, 1) == math.inf
    needed = blocks_needed(0.1, 0.1, 3, BLOCKS)
    assert needed is not None
    assert detectable(0.1 * math.sqrt(BLOCKS / needed), 3, needed) <= 0.1
    assert detectable(0.1 * math.sqrt(BLOCKS / (needed - 1)), 3, needed - 1) > 0.1
    assert blocks_needed(0.0, 0.1, 0, BLOCKS) is None
    assert blocks_needed(0.1, math.inf, 0, 1) is None
