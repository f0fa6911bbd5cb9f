"""How often the rule of `multistep.core.evidence.spending` keeps what is no better, and what it finds.

    python bench/verdicts.py [--runs 1000] [--seed 0]

Every run is followed attempt by attempt, as the controller does it: a candidate and the leader are scored on
the same blocks, the boundary is asked for, the candidate is kept or not. What each table counts is defined in
docs/appendix/measured-claims.md, and in the docstrings here.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from multistep.core.evidence.intervals import Floats, standard_error
from multistep.core.evidence.spending import POWER, Attempt, critical_value, spendable

ATTEMPTS = 12
BLOCKS = (16, 64, 500)
CORRELATIONS = (0.0, 0.5, 0.9)
FINDABLE = 1.64  # no boundary is lower, so a smaller difference need not be judged: the bench is 20 times faster
STUDIED = (1, 2, 3, 5, 10, 20)
EFFECTS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
AIMS = {1: 2.5, 10: 3.5}


# Simulated candidates -------------------------------------------------------------------------------


def normal(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return generator.standard_normal(shape)


def heavy(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Student's t with 3 degrees of freedom, blocks of unequal noise."""
    sizes = np.exp(0.5 * generator.standard_normal(shape[1]))
    return generator.standard_t(3, shape) * sizes / math.sqrt(3.0 * np.exp(0.5))


def lopsided(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Losses on a few blocks, small gains on the others: a mean of few blocks looks better than it is."""
    return 1.0 - generator.standard_exponential(shape)


NOISES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal": normal,
    "heavy tails, unequal blocks": heavy,
    "lopsided": lopsided,
}


@dataclass(frozen=True)
class Situation:
    """How good the candidates truly are: standard errors above the leader, by the attempt's number from 1."""

    name: str
    effect: Callable[[int], float]
    mirrored: bool = False  # every second candidate's own noise is the one before's, turned round


PAR = Situation("all equal to the leader", lambda i: 0.0)
WORSE = Situation("every other one 2 standard errors worse", lambda i: 0.0 if i % 2 else -2.0)
LOW = Situation("every other one 4 standard errors worse", lambda i: 0.0 if i % 2 else -4.0)
MIRRORED = Situation("all equal, in mirrored pairs", lambda i: 0.0, mirrored=True)
CHANGING = Situation("leader changes: 2, 5 and 8 better by 5", lambda i: 5.0 if i in (2, 5, 8) else 0.0)


def draw_noise(
    generator: np.random.Generator, kind: str, attempts: int, blocks: int, correlation: float, mirrored: bool = False
) -> Floats:
    """Per-block differences to the first leader, in units of their deviation (shape: attempts, blocks)."""
    own = NOISES[kind](generator, (attempts, blocks))
    if mirrored:
        own[1::2] = -own[: attempts - attempts % 2 : 2]
    shared = NOISES[kind](generator, (1, blocks))
    return math.sqrt(correlation) * shared + math.sqrt(1.0 - correlation) * own


# Runs -----------------------------------------------------------------------------------------------


def alone(attempt: int, blocks: int) -> float:
    """Bonferroni with the same shares: each attempt, counted from 1, has its own, whatever became of the others."""
    from scipy.special import stdtrit

    return -float(stdtrit(blocks - 1, spendable(attempt) - spendable(attempt - 1)))


def keeps_falsely(noise: Floats, situation: Situation, boundary: Callable[[list[Attempt], Floats], float]) -> bool:
    """Whether any candidate that is no better than its rival is kept in this run."""
    earlier: list[Attempt] = []
    leader, truth = np.zeros(noise.shape[1]), 0.0
    for number, errors in enumerate(noise, 1):
        better = situation.effect(number) / math.sqrt(len(errors))
        differences = errors + truth + better - leader
        reached = float(np.mean(differences)) / standard_error(differences)
        kept = reached > FINDABLE and reached > boundary(earlier, differences)
        earlier.append(Attempt(differences, kept))
        if kept and better <= 0.0:
            return True
        if kept:
            leader, truth = errors + truth + better, truth + better
    return False


def just_enough(noise: Floats, situation: Situation) -> Floats:
    """For each studied attempt, how good it would have had to be in this run: by the rule, and by Bonferroni.

    In true standard errors (shape: rules, attempts studied). Those before it are as the situation says; what is
    kept among them by mistake becomes the leader.
    """
    earlier: list[Attempt] = []
    leader = np.zeros(noise.shape[1])
    unit = 1.0 / math.sqrt(noise.shape[1])
    found: list[tuple[float, float]] = []
    for number, errors in enumerate(noise, 1):
        if number in STUDIED:
            differences = errors - leader
            boundaries = np.array([critical_value(earlier, differences), alone(number, len(errors))])
            found.append(tuple((boundaries * standard_error(differences) - np.mean(differences)) / unit))
        score = errors + situation.effect(number) * unit
        differences = score - leader
        reached = float(np.mean(differences)) / standard_error(differences)
        kept = reached > FINDABLE and reached > critical_value(earlier, differences)
        earlier.append(Attempt(differences, kept))
        leader = score if kept else leader
    return np.array(found).T


# Tables ---------------------------------------------------------------------------------------------


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print("\n| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for cells in rows:
        print("| " + " | ".join(cells) + " |", flush=True)


def false_keep_rows(runs: int, seed: int) -> Iterator[list[str]]:
    cases = [(PAR, kind, blocks) for kind in NOISES for blocks in BLOCKS]
    cases += [(s, kind, 64) for s in (WORSE, MIRRORED, CHANGING) for kind in tuple(NOISES)[:2]]
    for number, (situation, kind, blocks) in enumerate(cases):
        cells = [situation.name, kind, str(blocks)]
        for correlation in CORRELATIONS:
            generator = np.random.default_rng([seed, number, int(10 * correlation)])
            errors = np.zeros(2)
            for _ in range(runs):
                noise = draw_noise(generator, kind, ATTEMPTS, blocks, correlation, situation.mirrored)
                errors += (
                    keeps_falsely(noise, situation, critical_value),
                    keeps_falsely(noise, situation, lambda earlier, d: alone(len(earlier) + 1, len(d))),
                )
            cells.append(f"{errors[0] / runs:.1%} / {errors[1] / runs:.1%}")
        yield cells


def studied(
    runs: int, seed: int, correlation: float, situation: Situation = PAR, blocks: int = 500, kind: str = "normal"
) -> Floats:
    """What would just have been enough (shape: runs, rules, attempts studied)."""
    generator = np.random.default_rng([seed, blocks, int(10 * correlation)])
    draws = (draw_noise(generator, kind, STUDIED[-1], blocks, correlation) for _ in range(runs))
    return np.array([just_enough(noise, situation) for noise in draws])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    runs, seed = arguments.runs, arguments.seed
    began = time.perf_counter()

    print(f"False keeps: share of {runs} runs of {ATTEMPTS} attempts, by the rule / by Bonferroni")
    titles = ["candidates", "noise of blocks", "blocks", *(f"correlation {c:g}" for c in CORRELATIONS)]
    table(titles, false_keep_rows(runs, seed))

    columns = {
        "correlation 0": studied(runs, seed, 0.0),
        "0.5": studied(runs, seed, 0.5),
        "0.9": studied(runs, seed, 0.9),
        "0.5, every other one clearly worse": studied(runs, seed, 0.5, LOW),
        "0.5, 64 blocks": studied(runs, seed, 0.5, blocks=64),
        "0.5, 64 blocks, heavy tails": studied(runs, seed, 0.5, blocks=64, kind="heavy tails, unequal blocks"),
        "0.5, 16 blocks": studied(runs, seed, 0.5, blocks=16),
    }
    print(f"\nPower: share of {runs} runs that keep a candidate so many standard errors better (500 blocks)")
    curves = [(c, str(a), columns[c][:, 0, i]) for c in ("0.5", "0.9") for i, a in enumerate(STUDIED)]
    table(
        ["correlation", "attempt", *(f"{effect:g}" for effect in EFFECTS)],
        ([c, attempt, *(f"{np.mean(enough <= effect):.0%}" for effect in EFFECTS)] for c, attempt, enough in curves),
    )
    print(f"\nStandard errors for {POWER:.0%} power (500 blocks unless said otherwise)")
    needs = {name: np.quantile(enough[:, 0], POWER, axis=0) for name, enough in columns.items()}
    needs["0.5, Bonferroni"] = np.quantile(columns["0.5"][:, 1], POWER, axis=0)
    table(
        ["attempt", "aim", *needs],
        (
            [str(a), f"{AIMS[a]}" if a in AIMS else "", *(f"{n[i]:.2f}" for n in needs.values())]
            for i, a in enumerate(STUDIED)
        ),
    )
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
