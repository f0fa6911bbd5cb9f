"""Whole runs on simulated curves: what iterating gains, what it risks.

    python bench/whole_runs.py [--noise-runs 1000] [--runs 300] [--pretrained-runs 300] [--look-noise 0.1] [--seed 0]

noise: no recipe does anything; trials differ by the luck of their draw alone, by about a standard error of the
verdicts. Counted are runs that claim as proven what is no better on the population, and runs whose leader is truly
worse than the plain run's last end by over one standard error; and how much better leaders are on average.
moves: along random curves of every family, in worlds where some moves help, most do nothing or hurt. Each run is
compared with the plain run of the same budget that is never left early. Population scores, no noise in them. The looks
that draw the curve have noise: --look-noise.
pretrained: the same for weights that were trained before, on curves that fall within an epoch or two, and of which
two in three overfit later; the plain run is what people do: three epochs, linear to zero.
Runs take place in memory, on one core, through the same loop and journal as real ones.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from multistep.core.evidence.curves import FAMILIES, Curve, draw_curve
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.engine.clock import BudgetClock
from multistep.engine.learner import Learner, Readiness
from multistep.engine.loop import Run
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import UNIT, FakeClock, SimulatedLearner, SimulatedWorkshop, World
from multistep.errors import RunFailed

TOLERANCE = UNIT
LUCK = 0.003  # nats, the standard deviation between trials in pure noise: verdicts have errors of 0.002 to 0.005
STEPS = 12_000.0  # about what ten simulated minutes are
EPOCH = 500  # steps of the simulated fine-tuning: the budget holds 24 epochs
Comparison = tuple[str, Curve, World, dict[str, Any]]  # its row, curve and world, and the plain run's phase


class Watched(SimulatedWorkshop):
    """Notes the population's score at each full evaluation: what the verdicts are about."""

    def __init__(self, curve: Curve, clock: FakeClock, world: World, *, pretrained: bool = False) -> None:
        super().__init__(curve, clock, None, world)
        self.populations: list[float] = []
        self._pretrained = pretrained

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)
        assert isinstance(learner, SimulatedLearner)
        evaluate = learner.evaluate

        def noting(split: str, *, sample: bool) -> object:
            if split == "validation" and not sample:
                self.populations.append(learner.population)
            return evaluate(split, sample=sample)  # type: ignore[arg-type]

        learner.evaluate = noting  # type: ignore[method-assign, assignment]
        if self._pretrained:
            size = ready.recipe.batch_size or 1
            ready = replace(ready, facts=replace(ready.facts, pretrained=True, train_examples=EPOCH * size))
        return learner, ready


def run(
    curve: Curve, world: World, *, pretrained: bool = False, **keywords: object
) -> tuple[History, dict[str, float]]:
    """The history of a run, and each fully evaluated trial's score on the population."""
    clock = FakeClock()
    wanted = {"task": "text-generation", "data": "simulated", "recipe": {"learning_rate": 0.02}, **keywords}
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.create()
        workshop = Watched(curve, clock, world, pretrained=pretrained)
        execution = Run(plan_from(wanted), directory, workshop, BudgetClock(clock.now))
        for _ in execution.entries():
            pass
    history = execution.history
    judged = [t for t in history.phase.trials.values() if t.full]
    assert len(judged) == len(workshop.populations)
    return history, {t.trial.id: p for t, p in zip(judged, workshop.populations, strict=True)}


def noise(runs: int, seed: int) -> None:
    false = worse = attempts = 0
    gains = []
    for number in range(runs):
        generator = np.random.default_rng([seed, number])
        curve = Curve("exponential", 1.5, 2.0, pace=float(generator.uniform(100, 300)), noise_sd=0.0002)
        world = World(between_blocks=float(generator.choice([0.01, 0.03])), between_seeds=LUCK)
        history, population = run(curve, world, budget="12000 steps", tolerance=2 * TOLERANCE, seed=number)
        leader, control = history.leader, history.phase.control
        assert leader is not None
        assert control is not None
        tried = [v for v in history.verdicts if v.attempt]
        attempts += len(tried)
        # Going on with no change may truly help; a move cannot.
        false += any(v.proven and population[v.trial] >= population[v.rival or ""] for v in tried)
        error = max((v.standard_error or 0.0 for v in tried), default=0.0)
        gains.append(population[control.trial.id] - population[leader.trial])
        worse += gains[-1] < -error and bool(tried)
    print(f"pure noise, {runs} runs, {attempts / runs:.1f} attempts a run")
    print(f"  runs with a false claim: {false / runs:.1%}")
    print(f"  leader truly worse than the plain run by over one standard error: {worse / runs:.1%}")
    print(f"  leader truly better than the plain run, mean: {np.mean(gains):+.5f} (luck between trials: {LUCK})")


def random_world(generator: np.random.Generator) -> World:
    """Each setting has, with some luck, a better value than the recipe's; most changes do nothing or hurt."""
    gain = {key: float(generator.normal(0.5, 1.5)) * UNIT for key in ("dropout", "decay", "batch", "rate", "adamw")}

    def effect(recipe: Recipe) -> float:
        return (
            gain["dropout"] * min(recipe.dropout, 0.3) / 0.1
            + gain["decay"] * ((recipe.weight_decay or 0.0) > 0)
            + gain["batch"] * float(np.log2((recipe.batch_size or 12) / 12))
            + gain["rate"] * float(np.log2((recipe.learning_rate or 0.02) / 0.02)) * (recipe.optimizer == "muon")
            + gain["adamw"] * (recipe.optimizer == "adamw")
        )

    def overfits(recipe: Recipe) -> float:
        return max(0.0, 1.0 - 3.0 * recipe.dropout)

    return World(effect, overfits=overfits, between_blocks=0.01, between_seeds=0.1 * UNIT)


def from_nothing(runs: int, seed: int, noise_sd: float) -> Iterable[Comparison]:
    for number in range(runs):
        generator = np.random.default_rng([seed, 1, number])
        family = FAMILIES[number % len(FAMILIES)]
        curve = draw_curve(family, generator, total_steps=STEPS, unit=UNIT, noise_sd=noise_sd)
        yield family, curve, random_world(generator), {"name": "whole", "until": "10m", "moves": []}


def from_weights(runs: int, seed: int) -> Iterable[Comparison]:
    usual: dict[str, Any] = {"name": "usual", "until": "3 epochs", "moves": [], "recipe": {"cooldown_fraction": 1.0}}
    for number in range(runs):
        generator = np.random.default_rng([seed, 2, number])
        fall = UNIT * float(np.exp(generator.uniform(np.log(20.0), np.log(100.0))))
        pace = EPOCH * float(np.exp(generator.uniform(np.log(0.1), np.log(1.0))))
        curve = Curve("exponential", floor=fall, drop=fall, pace=pace, noise_sd=0.1 * UNIT)
        row = "never overfits"
        if number % 3:
            turn = EPOCH * generator.uniform(*((0.5, 2.0) if number % 3 == 1 else (2.0, 6.0)))
            row = f"overfits {'before' if turn < 2 * EPOCH else 'after'} two epochs"
            rise = UNIT * float(np.exp(generator.uniform(np.log(2.0), np.log(20.0)))) / (EPOCH / 1000.0)
            curve = replace(curve, family="overfitting", turn=turn, rise=rise)
        yield row, curve, random_world(generator), usual


def gains(comparisons: Iterable[Comparison], seed: int, *, pretrained: bool) -> None:
    worse: Counter[str] = Counter()
    better: Counter[str] = Counter()
    count: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    gained: dict[str, list[float]] = {}
    failed = 0
    for number, (row, curve, world, phase) in enumerate(comparisons):
        same: dict[str, Any] = {"budget": "10m", "seed": seed + number, "tolerance": TOLERANCE}
        try:
            history, ours = run(curve, world, pretrained=pretrained, **same)
            whole, plain = run(curve, world, pretrained=pretrained, phases=[phase], **same)
        except RunFailed:
            failed += 1
            continue
        assert history.leader is not None
        assert whole.leader is not None
        gain = plain[whole.leader.trial] - ours[history.leader.trial]
        count[row] += 1
        tried[row] += len(history.phase.of_kind("move"))
        worse[row] += gain < -TOLERANCE
        better[row] += gain > TOLERANCE
        gained.setdefault(row, []).append(gain)
    print("\n| curves | runs | moves tried a run | better by over the tolerance | worse by over it | median gain |")
    print("|---|---|---|---|---|---|")
    for row in count:
        share = [better[row] / count[row], worse[row] / count[row]]
        print(
            f"| {row} | {count[row]} | {tried[row] / count[row]:.1f} | {share[0]:.1%} | {share[1]:.1%} | "
            f"{np.median(gained[row]):+.4f} |"
        )
    total = sum(count.values())
    print(f"| all | {total} | | {sum(better.values()) / total:.1%} | {sum(worse.values()) / total:.1%} | |")
    print(f"\ndiverged for good in either run, and not counted: {failed}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--noise-runs", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--look-noise", type=float, default=0.1, help="of a look at the trunk, in tolerances")
    parser.add_argument("--pretrained-runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.noise_runs:
        noise(given.noise_runs, given.seed)
    if given.runs:
        gains(from_nothing(given.runs, given.seed, given.look_noise * UNIT), given.seed, pretrained=False)
    if given.pretrained_runs:
        gains(from_weights(given.pretrained_runs, given.seed), given.seed, pretrained=True)


if __name__ == "__main__":
    main()
