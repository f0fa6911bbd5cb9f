"""What lanes bring in simulated time: trials judged and the leader's true score, by the number of lanes.

    python bench/lanes.py            # a table, in about ten minutes on one core
    python bench/lanes.py --seeds 1  # the same of fewer curves

Each lane is as fast as the one hand of a serial run, as with a GPU for each. In the simulated world some moves help
by one or two hundredths of a nat, some harm, and seeds differ by three thousandths.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from multistep.core.evidence.curves import draw_curve
from multistep.core.values.history import History
from multistep.core.values.recipe import Recipe
from multistep.engine.clock import BudgetClock
from multistep.engine.loop import Run
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock, Machine, SimulatedLearner, SimulatedWorkshop, World
from multistep.engine.simulate_lanes import SimulatedHands

FAMILIES = ("power_law", "exponential", "stepwise", "overfitting")
LANES = (1, 2, 4)
UNIT = 0.01  # nats, the metric's tolerance here


def effect(recipe: Recipe) -> float:
    found = 0.0
    found -= 0.02 if (recipe.dropout or 0.0) > 0 else 0.0
    found -= 0.01 if (recipe.weight_decay or 0.0) > 0.15 else 0.0
    found += {"sgd": 0.3, "adamw": 0.01}.get(recipe.optimizer, 0.0)
    return found


WORLD = World(effect=effect, between_blocks=0.01, between_seeds=0.003)


def run(family: str, seed: int, lanes: int, budget: str) -> tuple[History, float]:
    """The run's history, and the score of what leads on the whole population."""
    generator = np.random.default_rng([seed, FAMILIES.index(family)])
    curve = draw_curve(family, generator, total_steps=6000, unit=UNIT, noise_sd=0.005)
    plan = plan_from(
        {"task": "text-generation", "data": "simulated", "budget": budget, "recipe": {"learning_rate": 0.02}}
    )
    wall = FakeClock()
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.create()

        def workshop(_: int, clock: FakeClock) -> SimulatedWorkshop:
            return SimulatedWorkshop(curve, clock, world=WORLD)

        hands = SimulatedHands(wall, lanes, workshop) if lanes > 1 else None
        execution = Run(plan, directory, workshop(0, wall), BudgetClock(wall.now), hands=hands)
        for _ in execution.entries():
            pass
        history = execution.history
        assert history.leader is not None
        assert history.leader.checkpoint is not None
        state = json.loads((directory.checkpoints / history.leader.checkpoint / "state.json").read_text())
        return history, score_of(curve, state)


def score_of(curve: object, state: dict[str, list[float]]) -> float:
    learner = SimulatedLearner(curve, FakeClock(), Machine(), world=WORLD)  # type: ignore[arg-type]
    numbers = state["numbers"]
    learner._progress, learner._steps, learner._rate, learner._peak = numbers[0], int(numbers[1]), *numbers[2:4]
    learner._offset, learner._over, learner._luck, learner._kept = numbers[4:]
    return learner.population


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", default="5m")
    asked = parser.parse_args()
    print("| curve | lanes | judged | steps | leader's true score over one lane's, in tolerances (worst) |")
    print("|---|---|---|---|---|")
    for family in FAMILIES:
        runs = {n: [run(family, seed, n, asked.budget) for seed in range(asked.seeds)] for n in LANES}
        for lanes, found in runs.items():
            judged = np.mean([len(history.verdicts) for history, _ in found])
            steps = np.mean([history.steps for history, _ in found])
            gains = [(one[1] - many[1]) / UNIT for one, many in zip(runs[1], found, strict=True)]
            told = f"{np.mean(gains):+.2f} ({min(gains):+.2f})" if lanes > 1 else ""
            print(f"| {family} | {lanes} | {judged:.1f} | {steps:,.0f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
