"""Which checkpoint leads: expected scores, from the metric, the loss and what is known of a kind of attempt."""

from __future__ import annotations

import numpy as np
import pytest

from multistep.core.evidence.expected import Gain, Judged, Link, Origin, expected_gains
from multistep.core.evidence.metric import METRICS, Evaluation

ACCURACY, LOSS = METRICS["accuracy"], METRICS["loss"]
LINK = Link(ratio=16.0, correlation=0.7)
OPEN = Gain(0.0, 5.0)
EXAMPLES = 545


def table(accuracy: float, loss: float, seed: int, *, share: float = 0.6) -> Evaluation:
    """Predictions and losses of a checkpoint; `share` of what is hard is hard for every checkpoint."""
    hard = np.random.default_rng(0).standard_normal(EXAMPLES)
    own = np.random.default_rng(seed).standard_normal(EXAMPLES)
    difficulty = np.sqrt(share) * hard + np.sqrt(1 - share) * own
    right = difficulty < np.quantile(difficulty, accuracy)
    losses = loss + 0.3 * (difficulty - difficulty.mean())
    columns = {"label": np.ones(EXAMPLES), "prediction": right.astype(float), "loss": losses}
    return Evaluation({**columns, "count": np.ones(EXAMPLES), "block": np.arange(float(EXAMPLES))})


def gain(*tables: Evaluation, prior: Gain = OPEN, link: Link | None = LINK) -> float:
    """The expected gain of the last over the first, in accuracy."""
    judged = [Judged(t, 0, prior) for t in tables]
    found = expected_gains(ACCURACY, judged, tolerance=0.002, loss=LOSS if link else None, link=link)
    return float(found.means[-1])


def test_a_better_checkpoint_leads_though_nothing_is_proven_and_its_gain_is_drawn_back() -> None:
    plain, restart = table(0.809, 0.56, 1), table(0.829, 0.56, 2)
    found = gain(plain, restart, link=None)
    assert 0.0 < found < 0.02, "what looks better by luck is drawn back by as much as its noise deserves"
    assert gain(plain, restart, prior=Gain(0.0, 50.0), link=None) == pytest.approx(0.02, abs=0.003)
    assert gain(plain, restart, prior=Gain(-5.0, 1.0), link=None) < 0, "of a kind that is known to lose"


def test_the_loss_says_what_the_metric_is_too_noisy_for() -> None:
    plain = table(0.809, 0.56, 1)
    assert gain(plain, table(0.809, 0.44, 2)) > 0.002 > gain(plain, table(0.809, 0.56, 2))
    assert gain(plain, table(0.815, 0.75, 2)) < gain(plain, table(0.815, 0.56, 2))


def test_a_reference_that_was_lucky_is_found_out_by_the_many_that_lose_to_it() -> None:
    """What all share is the reference's own luck: each one alone is thought worse than together."""
    plain, others = table(0.84, 0.5, 1, share=0.3), [table(0.82, 0.5, k, share=0.3) for k in range(2, 8)]
    alone = gain(plain, others[0], link=None)
    judged = [Judged(t, 0, OPEN) for t in (plain, *others)]
    together = expected_gains(ACCURACY, judged, tolerance=0.002)
    assert alone < float(np.mean(together.means[1:])) + 0.02
    assert together.between(1, 2)[1] < together.between(1, 0)[1] * 1.5


def test_six_that_lose_from_one_fork_speak_against_the_fork_not_against_its_score() -> None:
    """Such attempts share what going on from there does; without that, all of them would prove the fork was lucky."""
    plain, fork = table(0.60, 0.5, 1), table(0.70, 0.5, 2)
    others = [table(0.62, 0.5, seed) for seed in range(3, 9)]

    def of_fork(origin: Origin | None) -> float:
        lost = [Judged(t, 1, Gain(0.0, 2.0), origin) for t in others]
        judged = [Judged(plain, 0, OPEN), Judged(fork, 0, OPEN), *lost]
        return float(expected_gains(METRICS["accuracy"], judged, tolerance=0.01).means[1])

    alone = expected_gains(METRICS["accuracy"], [Judged(plain, 0, OPEN), Judged(fork, 0, OPEN)], tolerance=0.01).means[
        1
    ]
    assert of_fork(None) < of_fork(Origin("0.trunk@10", "rate-up")) < alone


def test_expected_scores_are_right_on_average_and_choosing_by_them_beats_the_highest() -> None:
    """True gains drawn from the prior, seen through noise: no optimism in who is chosen, and less regret."""
    generator = np.random.default_rng(3)
    unit, noise, blocks = 0.01, 3.0, 200
    optimism, better = [], []
    for _ in range(300):
        spreads = np.array([0.5] * 11 + [4.0])  # some kinds of attempt are wilder than others
        truth = np.concatenate([[0.0], generator.normal(0, spreads)])
        rows = np.sqrt(blocks) * noise * generator.standard_normal((len(truth), blocks))
        seen = -(rows + truth[:, None]) * unit
        tables = [
            Evaluation({"loss": row, "count": np.ones(blocks), "block": np.arange(float(blocks))}) for row in seen
        ]
        judged = [Judged(t, 0, Gain(0.0, s)) for t, s in zip(tables, [0.0, *spreads], strict=True)]
        found = expected_gains(LOSS, judged, tolerance=unit)
        chosen, highest = int(np.argmax(found.means)), int(np.argmin(seen.mean(axis=1)))
        optimism.append(found.means[chosen] / unit - truth[chosen])
        better.append(truth[chosen] - truth[highest])
    assert abs(np.mean(optimism)) < 3 * np.std(optimism) / np.sqrt(300)
    assert np.mean(better) > 0.3, "tolerances"


def test_chains_of_attempts_add_up_their_gains() -> None:
    """A second attempt from the first's checkpoint is expected to be near that one, not near the reference."""
    tables = [table(0.80, 0.5, 1), table(0.84, 0.5, 2), table(0.84, 0.5, 3)]
    judged = [Judged(tables[0], 0, OPEN), Judged(tables[1], 0, OPEN), Judged(tables[2], 1, Gain(0.0, 1.0))]
    found = expected_gains(ACCURACY, judged, tolerance=0.002)
    alone = gain(tables[0], tables[2], prior=Gain(0.0, 1.0), link=None)
    assert found.means[2] > 2 * alone


def test_what_is_far_beyond_noise_is_believed_whatever_was_expected() -> None:
    """A network that learnt nearly everything after its first result is no lucky attempt."""
    plain, grown = table(0.55, 0.7, 1), table(0.80, 0.4, 2)
    assert gain(plain, grown, prior=Gain(4.0, 8.0)) > 0.2
    assert gain(plain, grown, prior=Gain(-1.0, 3.0), link=None) > 0.2


def test_a_loss_that_gains_more_than_it_ever_did_does_not_speak_against_the_metric() -> None:
    plain, better = table(0.96, 0.30, 1), table(0.98, 0.02, 2)
    assert gain(plain, better) > 0.0


def test_a_measure_that_says_nothing_of_its_own_error_is_left_out() -> None:
    """A user's function that is not defined without some class: its influence is NaN, its score is not."""

    class Broken(type(ACCURACY)):  # type: ignore[misc]
        def influence(self, evaluation: Evaluation) -> np.ndarray:
            return np.full(EXAMPLES, np.nan)

    broken = Broken("broken", "maximize", "", ("label", "prediction"), ACCURACY.function)  # type: ignore[attr-defined]
    judged = [Judged(table(0.6, 0.5, 1), 0, OPEN), Judged(table(0.9, 0.3, 2), 0, OPEN)]
    assert np.isfinite(expected_gains(broken, judged, tolerance=0.002).means).all()


def test_where_nearly_all_is_right_what_is_worse_by_metric_and_loss_does_not_lead() -> None:
    """One mistake of 150 costs a hundred tolerances of so small a loss: that is no bad luck to be made up for."""
    blocks = np.arange(150.0)

    def scored(wrong: int, loss: float) -> Evaluation:
        right = np.ones(150)
        right[:wrong] = 0.0
        losses = np.where(right > 0, loss, 1.2)
        return Evaluation(
            {"label": np.ones(150), "prediction": right, "loss": losses, "count": np.ones(150), "block": blocks}
        )

    perfect, other = scored(0, 0.004), scored(1, 0.004)
    assert gain(perfect, other, prior=Gain(-0.6, 2.5), link=Link(ratio=4.8, correlation=0.81)) < 0


def test_an_attempt_that_changes_next_to_no_answer_brings_next_to_nothing() -> None:
    """A chain of 78 such attempts each got a little of what its kind brings as a rule, and ended as the leader."""
    plain, usual = table(0.80, 0.5, 1), Gain(1.0, 3.0)

    def after(won: int, lost: int) -> float:
        answers = plain.columns["prediction"].copy()
        answers[np.flatnonzero(answers == 0)[:won]] = 1.0
        answers[np.flatnonzero(plain.columns["prediction"] == 1)[:lost]] = 0.0
        return gain(plain, Evaluation({**plain.columns, "prediction": answers}), prior=usual) / 0.002

    assert after(2, 0) < 0.3, "two of 545 answers, 1.8 tolerances, are mostly luck where nothing else has changed"
    assert after(42, 40) > 0.5, "of eighty that changed more is expected, as of such attempts as a rule"
    assert after(2, 0) > after(1, 1) > 0.0 > after(0, 2)
