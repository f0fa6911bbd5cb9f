"""Whole runs on simulated curves: what iterating gains, what it risks.

    python bench/whole_runs.py [--noise-runs 1000] [--runs 300] [--seed 0]

noise: no recipe does anything; trials differ by the luck of their draw alone, by about a standard error of the
verdicts. Counted are runs that kept what is no better on the population, and runs whose incumbent is truly worse than
the plain run's control by over one standard error.
moves: along random curves of every family, in worlds where some moves help, most do nothing or hurt. Each run is
compared with the plain run of the same budget that is never left early. Population scores, no noise in them.
Runs take place in memory, on one core, through the same loop and journal as real ones.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from multistep.core.curves import FAMILIES, Curve, draw_curve
from multistep.core.history import History
from multistep.core.plan import Plan
from multistep.core.recipe import Recipe
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


class Watched(SimulatedWorkshop):
    """Notes the population's score at each full evaluation: what the verdicts are about."""

    def __init__(self, curve: Curve, clock: FakeClock, world: World) -> None:
        super().__init__(curve, clock, None, world)
        self.populations: list[float] = []

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        learner, ready = super().open(plan, phase, should_stop)
        assert isinstance(learner, SimulatedLearner)
        evaluate = learner.evaluate

        def noting(split: str, *, sample: bool) -> object:
            if split == "validation" and not sample:
                self.populations.append(learner.population)
            return evaluate(split, sample=sample)  # type: ignore[arg-type]

        learner.evaluate = noting  # type: ignore[method-assign, assignment]
        return learner, ready


def run(curve: Curve, world: World, **keywords: object) -> tuple[History, dict[str, float]]:
    """The history of a run, and each fully evaluated trial's score on the population."""
    clock = FakeClock()
    wanted = {"task": "text-generation", "data": "simulated", "recipe": {"learning_rate": 0.02}, **keywords}
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.create()
        workshop = Watched(curve, clock, world)
        execution = Run(plan_from(wanted), directory, workshop, BudgetClock(clock.now))
        for _ in execution.entries():
            pass
    history = execution.history
    judged = [t for t in history.phase.trials.values() if t.full]
    assert len(judged) == len(workshop.populations)
    return history, {t.trial.id: p for t, p in zip(judged, workshop.populations, strict=True)}


def noise(runs: int, seed: int) -> None:
    false = worse = attempts = 0
    for number in range(runs):
        generator = np.random.default_rng([seed, number])
        curve = Curve("exponential", 1.5, 2.0, pace=float(generator.uniform(100, 300)), noise_sd=0.0002)
        world = World(between_blocks=float(generator.choice([0.01, 0.03])), between_seeds=LUCK)
        history, population = run(curve, world, budget="12000 steps", tolerance=2 * TOLERANCE, seed=number)
        incumbent, control = history.incumbent, history.phase.control
        assert incumbent is not None
        assert control is not None
        tried = [v for v in history.verdicts if v.attempt]
        attempts += len(tried)
        # Going on with no change may truly help; a move cannot.
        false += any(
            v.decision == "keep"
            and population[v.trial]
            >= min(population[control.trial.id], TOLERANCE / 100 + _rival(history, v.trial, population))
            for v in tried
        )
        error = max((v.standard_error or 0.0 for v in tried), default=0.0)
        worse += population[incumbent.trial] > population[control.trial.id] + error > 0 and bool(tried)
    print(f"pure noise, {runs} runs, {attempts / runs:.1f} attempts a run")
    print(f"  runs with a false keep: {false / runs:.1%}")
    print(f"  incumbent truly worse than the control by over one standard error: {worse / runs:.1%}")


def _rival(history: History, trial: str, population: dict[str, float]) -> float:
    """The population's score of whoever was the incumbent when a trial was judged."""
    rival = None
    for verdict in history.verdicts:
        if verdict.trial == trial:
            break
        rival = verdict.trial if verdict.decision == "keep" else rival
    return population[rival] if rival else np.inf


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


def gains(runs: int, seed: int) -> None:
    worse: Counter[str] = Counter()
    better: Counter[str] = Counter()
    count: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    gained: dict[str, list[float]] = {}
    failed = 0
    for number in range(runs):
        generator = np.random.default_rng([seed, 1, number])
        family = FAMILIES[number % len(FAMILIES)]
        curve = draw_curve(family, generator, total_steps=STEPS, unit=UNIT, noise_sd=0.1 * UNIT)
        world = random_world(generator)
        phases = [{"name": "whole", "until": "10m", "moves": []}]
        try:
            history, ours = run(curve, world, budget="10m", seed=number, tolerance=TOLERANCE)
            whole, plain = run(curve, world, budget="10m", seed=number, tolerance=TOLERANCE, phases=phases)
        except RunFailed:
            failed += 1
            continue
        assert history.incumbent is not None
        assert whole.incumbent is not None
        gain = plain[whole.incumbent.trial] - ours[history.incumbent.trial]
        count[family] += 1
        tried[family] += len(history.phase.of_kind("move"))
        worse[family] += gain < -TOLERANCE
        better[family] += gain > TOLERANCE
        gained.setdefault(family, []).append(gain)
    print("\n| family | runs | moves tried a run | better by over the tolerance | worse by over it | median gain |")
    print("|---|---|---|---|---|---|")
    for family in count:
        share = [better[family] / count[family], worse[family] / count[family]]
        print(
            f"| {family} | {count[family]} | {tried[family] / count[family]:.1f} | {share[0]:.1%} | {share[1]:.1%} | "
            f"{np.median(gained[family]):+.4f} |"
        )
    total = sum(count.values())
    print(f"| all | {total} | | {sum(better.values()) / total:.1%} | {sum(worse.values()) / total:.1%} | |")
    print(f"\ndiverged for good in either run, and not counted: {failed}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--noise-runs", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.noise_runs:
        noise(given.noise_runs, given.seed)
    if given.runs:
        gains(given.runs, given.seed)


if __name__ == "__main__":
    main()
