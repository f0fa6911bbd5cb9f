"""Between what leads and what forgets: the mean of their weights, which often keeps most of what both know.

A mean of fine-tuned weights and those they began from loses little of what was learnt and much less of what was known
(WiSE-FT, arXiv 2109.01903). It takes no step, so it is tried first. One that holds leads, and the next mean lies nearer
to what forgets; one that forgets too is itself what the next mean is taken with, nearer to what leads.
"""

from __future__ import annotations

from dataclasses import replace

from multistep.core.choice.guards import holds
from multistep.core.choice.known import gain_of
from multistep.core.choice.retained import least_forgetful
from multistep.core.evidence.expected import Gain
from multistep.core.values.history import History, PhaseRecord
from multistep.core.values.trial import Proposal, Trial

MOST = 4  # in a phase: each halves the distance
KEPT = 0.5  # of the gain that forgets, that lies halfway; curves of this kind bend upwards, so it is rather more


def is_between(phase: PhaseRecord, trial: Trial) -> bool:
    """Whether an average is one of these: with a checkpoint that forgets."""
    return any(c.id in trial.of for t in phase.trials.values() if not holds(t) for c in t.checkpoints)


def between(history: History) -> tuple[Proposal, Gain] | None:
    """The mean of who leads and the least forgetful of what forgets but is better, with its forecast in tolerances."""
    phase, partner = history.phase, least_forgetful(history.phase)
    if partner is None or history.leader is None or history.leader.trial not in phase.trials:
        return None
    leader = phase.trials[history.leader.trial]
    ahead = gain_of(history, partner, over=leader)
    if ahead is None or ahead <= 0 or leader.trial.recipe.network != partner.trial.recipe.network:
        return None
    tried = [t.trial for t in phase.of_kind("average") if is_between(phase, t.trial)]
    of = (leader.checkpoints[-1].id, partner.checkpoints[-1].id)
    if len(tried) >= MOST or any(t.of == of for t in tried):
        return None
    index = phase.started.phase
    trial = replace(
        leader.trial,
        id=f"{index}.between-{len(tried) + 1}",
        kind="average",
        move=None,
        length=None,
        carry="weights",
        of=of,
    )
    reason = (
        f"the mean of {leader.trial.id}, which forgets little enough, and {partner.trial.id}, which is better but "
        "forgets too much"
    )
    return Proposal(trial, reason), Gain(KEPT * ahead, KEPT * ahead)
