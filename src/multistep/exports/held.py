"""Which examples a model is checked and scored by: the validation split of its run, or other data that are named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from multistep.core.values.plan import DataSpec
from multistep.data.elastic import data_in_files
from multistep.engine.kept import with_kept
from multistep.engine.moved import home_of, placed
from multistep.engine.planfile import read_plan
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError


@dataclass(frozen=True)
class Held:
    """`data` to be read, `split` whether its validation split is meant, and the metric of the run, if it named one."""

    data: DataSpec
    split: bool
    metric: str | None = None


@contextmanager
def held_out(model: str, task: str, data: DataSpec | None) -> Iterator[Held]:
    """Within, what is held out can be read by the paths that it has. Raises PlanError where nobody knows of any."""
    if data is not None:
        yield Held(data_in_files(data), split=False)
        return
    for folder in (Path(model), Path(model).parent):
        run = RunDirectory(folder)
        if run.exists and run.plan_file.exists():
            plan = read_plan(run.plan_file)
            home = home_of(run, plan)
            plan = with_kept(placed(plan, run.places), run.folder.resolve())
            phases = [plan.phase(index) for index in range(plan.phase_count)]
            fitting = [phase for phase in phases if phase.task == task]
            if fitting and fitting[-1].data is not None:
                phase = fitting[-1]
                assert phase.data is not None, "of a phase that was asked for"
                with contextlib.chdir(home):
                    yield Held(replace(phase.data), split=True, metric=phase.metric)
                return
    raise PlanError(
        f"{model}: an export is checked by examples, and this folder is not that of a run, which would name its "
        "validation split; name some with --data FILE"
    )
