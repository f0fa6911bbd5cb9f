"""What else can be begun while trials are under way: a pure function of the plan and the history, as all choices are.

What is independent given its fork can run side by side: probes of the rate, siblings of a round, other models that are
raced, reruns, attempts from who leads while the plain run goes on. What is under way counts as tried, and its time or
its steps as promised; what it will bring is not known, so nothing that would rest on that is proposed. Batches of
trials that are chosen one after the other, each as if those under way had come out as expected: Ginsbourger, Le Riche
and Carraro, Computational Intelligence in Expensive Optimization Problems (2010).
"""

from __future__ import annotations

from multistep.core.choice.allowance import PROBE_FACTORS, weighs
from multistep.core.choice.controller import after_judged, propose
from multistep.core.choice.lanes import line_goes_on, on_the_line
from multistep.core.choice.probing import probe
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.core.values.trial import Proposal
from multistep.core.values.units import Unit


def propose_beside(plan: Plan, history: History) -> Proposal | None:
    """The next trial beside those under way; None: nothing, before one of them has ended."""
    phase = history.phase
    if any(t.trial.kind == "probe" for t in phase.under_way):
        made = len(phase.of_kind("probe"))
        return probe(plan, history, made) if made < len(PROBE_FACTORS) else None
    if not line_goes_on(phase):
        proposal = propose(plan, history)
        return proposal if isinstance(proposal, Proposal) else None
    # Where nothing is weighed, moves come after the plain run. Where steps are the budget, that has all that are left.
    index = phase.started.phase
    timed = plan.budget is not None and plan.budget.unit is Unit.SECONDS
    if not (timed and weighs(plan, index, phase.started.recipe)):
        return None
    if history.leader is None or history.leader.trial not in phase.trials:
        return None
    found = after_judged(plan, history)
    return found if isinstance(found, Proposal) and not on_the_line(found.trial) else None
