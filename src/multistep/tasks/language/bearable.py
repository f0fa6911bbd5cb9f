"""Held-out splits of a size that a budget bears to have scored by a large encoder."""

from __future__ import annotations

from dataclasses import replace

from multistep.core.values.plan import Plan
from multistep.tasks.language.examples import Examples, LabelledSplits, taken
from multistep.tasks.order import sample_of
from multistep.tasks.pretrained.settle import seconds_of
from multistep.tasks.reckoned import Costs
from multistep.tasks.speeds import operations

SHARE = 0.08  # of a plan's time that scoring a held-out split once may take; validation is scored some four times
LEAST = 500  # examples that stay: of fewer an interval says little
OF_SCORING = 1 / 3  # of the operations of training, which goes forward once and backward twice


def bearable(splits: LabelledSplits, plan: Plan, costs: Costs) -> LabelledSplits:
    """The splits with as many held-out examples as the plan's time bears to have scored, drawn by lot, always the same;
    a note says what was left out.
    """
    seconds = seconds_of(plan)
    if seconds is None:
        return splits
    most = max(LEAST, int(SHARE * seconds * operations(costs.work) / (OF_SCORING * costs.operations)))
    for name in ("validation", "test"):
        part: Examples = getattr(splits, name)
        if len(part) <= most:
            continue
        kept = taken(part, sample_of(len(part), most))
        note = (
            f"{name}: {most:,} of {len(part):,}, drawn by lot, are scored, since the budget bears no more; `multistep "
            "evaluate` scores all"
        )
        mark = f"{splits.fingerprint}-{name}-{most}"
        splits = replace(splits, **{name: kept}, fingerprint=mark, notes=(*splits.notes, note))  # type: ignore[arg-type]
    return splits
