"""What a plan would do, told before it is run: checked, tried on the data, simulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.values.plan import Plan
from multistep.engine.plancheck import judged_by_loss
from multistep.engine.planfile import plan_from
from multistep.errors import PlanError

if TYPE_CHECKING:
    from multistep.engine.dry import DryPhase
    from multistep.engine.simulate import Outcome


def check(
    plan: Plan | Mapping[str, Any] | str | Path, *, settings: Sequence[str] = (), over: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A plan with its defaults, the folder that it would run in, and its cost as far as this machine's runs tell.

    No data are read and nothing is trained.

    Args
        plan: a plan file, a mapping like one, or a `Plan`.
        settings: like those of --set, "recipe.learning_rate=1e-3".
        over: values by their keys, laid over the plan's.

    Returns
        A dict of what `multistep check --plan-only --json` prints.

    Raises
        PlanError: what is wrong with it, with the line.
    """
    from multistep.engine.planfile import read_with_origins
    from multistep.report.check import check_plan

    if isinstance(plan, str | Path):
        return check_plan(*read_with_origins(Path(plan), settings, over))
    if isinstance(plan, Plan):
        if settings or over:
            raise PlanError("a plan cannot be changed; make another with dataclasses.replace")
        return check_plan(plan)
    return check_plan(plan_from(plan, settings=settings, over=over))


def dry_run(plan: Plan, *, spent: Callable[[], float]) -> list[DryPhase]:
    """What a run of this plan would understand, and what its budget would hold; makes no run directory.

    `spent` tells how many seconds of the budget are gone. Raises PlanError or DataError.
    """
    from multistep.data.elastic import plan_in_files
    from multistep.engine.dry import dry_run as run_dry
    from multistep.tasks import workshop_for
    from multistep.tasks.begun import as_begun

    plan = plan_in_files(plan)
    with as_begun({}, {}, may_measure=True):
        return run_dry(plan, workshop_for(plan), spent=spent)


def simulate(
    plan: Plan, *, seed: int = 0, noise: float = 0.01, step_seconds: float = 0.05
) -> tuple[list[Outcome], str | None]:
    """Run a plan along one simulated curve of each family.

    Args
        plan: the plan.
        seed: of the curves.
        noise: the standard deviation of the noise in each validation score.
        step_seconds: what a step takes on the simulated machine.

    Returns
        What was decided along each curve, and what is to be said of it, if anything.

    Raises
        PlanError: a plan that cannot be simulated.
    """
    from multistep.engine.simulate import Machine
    from multistep.engine.simulate import simulate as along_curves

    simulated, note = judged_by_loss(plan)
    return along_curves(simulated, seed=seed, noise=noise, machine=Machine(step_seconds=step_seconds)), note
