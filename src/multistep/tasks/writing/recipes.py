"""The recipe of a phase of text generation, and of the same model trained otherwise."""

from __future__ import annotations

from dataclasses import replace

import torch

from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe, Setting
from multistep.tasks.begun import planned_device
from multistep.tasks.preference.preset import preference_recipe
from multistep.tasks.preference.task import PreferenceDomain
from multistep.tasks.speeds import operations
from multistep.tasks.text.models import Maker
from multistep.tasks.text.preset import (
    WORK,
    batch_size,
    default_dropout,
    default_recipe,
    expected_tokens,
    goes_back,
)
from multistep.tasks.text.sizes import PER_PARAMETER
from multistep.tasks.text.tuning import OF_ADAPTERS, PER_PARAMETER_AND_TOKEN, adapts, bears_all, tuned_recipe
from multistep.tasks.writing.opened import LEAST_STEPS, Opened


def rivals_of(
    own: Recipe, plan: Plan, opened: Opened, maker: Maker, parameters: int, device: torch.device
) -> tuple[Recipe, ...]:
    """The same model with adapters where all of it is trained, and the other way round where memory bears it."""
    if not adapts(maker.origin) or (own.adapter != "none" and not bears_all(parameters, device)):
        return ()
    adapter = "lora" if own.adapter == "none" else "none"
    other = replace(opened, given={**opened.given, "adapter": adapter})
    return (recipe_of(plan, other, maker, parameters, device),)


def costs_of_token(maker: Maker, parameters: int, adapter: Setting = "none") -> float:
    """Operations of training on a token."""
    each = PER_PARAMETER_AND_TOKEN.get(str(adapter), OF_ADAPTERS) if maker.pretrained else PER_PARAMETER
    return each * (parameters if maker.pretrained else parameters - maker.looked_up)


def recipe_of(plan: Plan, opened: Opened, maker: Maker, parameters: int, device: torch.device) -> Recipe:
    prefers = isinstance(opened.domain, PreferenceDomain)
    if maker.pretrained or prefers:
        tuned = tuned_recipe(
            opened.given,
            plan,
            parameters=parameters,
            own_dropout=maker.own_dropout,
            adapts=adapts(maker.origin),
            tokens_per_example=max(1, round(opened.tokens / opened.examples)) if prefers else opened.tokens_per_example,
            train_tokens=opened.tokens,
            device=device,
            most_examples=opened.most_examples,
        )
        return preference_recipe(tuned, opened.given) if prefers else tuned
    a_token = costs_of_token(maker, parameters)
    tokens = expected_tokens(plan, a_token=a_token, tokens=opened.tokens, rate=operations(WORK))
    # A step must not take all that there is.
    most = max(1, opened.examples // LEAST_STEPS)
    rows, usual = (
        min(most, batch_size(tokens, opened.tokens, opened.tokens_per_example, kind))
        for kind in (planned_device(device), "cpu")
    )
    return default_recipe(
        opened.given,
        architecture=maker.architecture,
        rows=rows,
        usual_rows=usual,
        vocabulary=maker.vocabulary,
        dropout=0.0 if goes_back(plan) else default_dropout(tokens / opened.tokens, parameters, opened.tokens),
    )
