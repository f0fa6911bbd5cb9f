"""What it costs to move a constant of the core: each at half and at twice its value, in simulated whole runs.

    python bench/moved.py [--runs 2] [--only NAME,NAME] [--seed 0]

Of each family of curves so many runs, and as many from pretrained weights. Printed: in how many of them anything was
decided otherwise (what was tried, from where, for how long, and what leads), and by how much what leads is better on
the population, in tolerances, on average and at worst. A constant that changes nothing here decides nothing of such
runs; it may still matter to metrics beside a loss, to real clocks or to schedules that a plan asks for.
"""

import argparse
import ast
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from constants import CORE, constants
from whole_runs import STEPS, TOLERANCE, from_nothing, from_weights, run

import multistep.core
from multistep.core.evidence.curves import FAMILIES
from multistep.core.evidence.expected import Gain
from multistep.engine.simulate import UNIT
from multistep.errors import RunFailed

FACTORS = (0.5, 2.0)
Outcome = tuple[tuple[tuple[object, ...], ...], float]  # what was tried, and the population's score of what leads


def modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(multistep.core.__path__, "multistep.core.")
    return [importlib.import_module(each.name) for each in found]


def outcomes(runs: int, seed: int) -> list[Outcome]:
    found: list[Outcome] = []
    cases = [(case, False) for case in from_nothing(runs * len(FAMILIES), seed, 0.1 * UNIT)]
    cases += [(case, True) for case in from_weights(runs, seed)]
    for number, ((_, curve, world, _), pretrained) in enumerate(cases):
        try:
            history, made = run(curve, world, pretrained=pretrained, budget="10m", seed=number, tolerance=TOLERANCE)
        except (RunFailed, ArithmeticError, AssertionError, ValueError) as error:
            found.append(((("failed", type(error).__name__),), float(curve.truth(np.array([0.0]))[0])))
            continue
        assert history.leader is not None
        tried = tuple((t.trial.id, t.first_step, t.step) for t in history.phase.trials.values())
        found.append(((*tried, (history.leader.trial,)), made[history.leader.trial]))
    return found


def scaled(value: Any, factor: float) -> Any:
    if isinstance(value, tuple):
        return tuple(scaled(each, factor) for each in value)
    if isinstance(value, Gain):
        return Gain(value.mean * factor, value.spread * factor)
    if isinstance(value, np.ndarray):
        return value * factor
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor


@contextmanager
def moved(name: str, home: str, factor: float) -> Iterator[None]:
    """The constant at so many times its value, wherever it was imported; then as it was."""
    old = getattr(importlib.import_module(home), name)
    holders = [m for m in sys.modules.values() if m and getattr(m, name, None) is old and "multistep" in m.__name__]
    new = scaled(old, factor)
    for module in holders:
        setattr(module, name, new)
    try:
        yield
    finally:
        for module in holders:
            setattr(module, name, old)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    modules()
    before = outcomes(given.runs, given.seed)
    print(f"{len(before)} runs of {STEPS:.0f} steps\n")
    print("| where | name | value | at half: decided otherwise, mean, worst | at twice: the same |")
    print("|---|---|---|---|---|")
    for path in sorted(CORE.rglob("*.py")):
        home = ".".join(["multistep.core", *path.relative_to(CORE).with_suffix("").parts])
        for names, value, _ in constants(path):
            for name in names.split(", "):
                if given.only and name not in given.only.split(","):
                    continue
                cells = []
                for factor in FACTORS:
                    with moved(name, home, factor):
                        after = outcomes(given.runs, given.seed)
                    other = sum(one[0] != two[0] for one, two in zip(before, after, strict=True))
                    gain = [(one[1] - two[1]) / UNIT for one, two in zip(before, after, strict=True)]
                    cells.append(f"{other}, {np.mean(gain):+.2f}, {min(gain):+.2f}" if other else "none")
                several = names.split(", ")
                shown = value if len(several) == 1 else str(ast.literal_eval(value)[several.index(name)])
                print(f"| {path.relative_to(CORE)} | {name} | {shown} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
