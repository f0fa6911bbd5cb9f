"""Trunks as they are proposed."""

from __future__ import annotations

from dataclasses import replace

from multistep.core.values.history import PhaseRecord, TrialRecord
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Proposal, Trial


def trunk_trial(
    plan: Plan,
    phase: PhaseRecord,
    reason: str,
    *,
    start: str | None = None,
    rate: float | None = None,
    skip: int = 0,
    warmup: bool = True,
    like: TrialRecord | None = None,
) -> Proposal:
    """A trunk of the phase's recipe from a checkpoint; or the one that goes on where another, `like`, was left."""
    number = len(phase.of_kind("trunk"))
    recipe = scheduled(phase.started.recipe)
    if like is not None:
        start = like.last_checkpoint.id if like.last_checkpoint else None
        rate, warmup = like.trial.learning_rate, False
    if not warmup:
        recipe = replace(recipe, warmup_steps=0)
    assert recipe.learning_rate is not None, "a resolved recipe has a learning rate"
    name = f"{phase.started.phase}.trunk" + (f"-{number + 1}" if number else "")
    index = phase.started.phase
    peak = rate or recipe.learning_rate
    return Proposal(Trial(name, index, "trunk", start, recipe, plan.seed, peak, skip_examples=skip), reason)


def begins_known(phase: PhaseRecord) -> bool:
    """Whether the phase begins with a model that can do the task, or knows what must not be forgotten, and that nothing
    has scored yet.
    """
    facts, started = phase.started.facts, phase.started
    able = facts.pretrained and facts.able and not started.comparable
    return (able or started.guard is not None) and phase.base is None


def untouched(plan: Plan, phase: PhaseRecord) -> Proposal:
    """The model as the phase found it: what training is to be worth its time against."""
    started = phase.started
    assert started.recipe.learning_rate is not None, "a resolved recipe has a learning rate"
    trial = Trial(
        f"{started.phase}.base",
        started.phase,
        "base",
        started.start,
        started.recipe,
        plan.seed,
        started.recipe.learning_rate,
    )
    return Proposal(trial, "the model is scored before any training, to compare training with it")


def scheduled(recipe: Recipe) -> Recipe:
    """A schedule's own cooldown: one-cycle falls as a cosine (arXiv 1708.07120), multi-step has fallen already."""
    match recipe.schedule:
        case "one-cycle":
            return replace(recipe, cooldown="cosine", cooldown_fraction=1.0)
        case "multi-step":
            return replace(recipe, cooldown_fraction=0.0)
        case _:
            return recipe
