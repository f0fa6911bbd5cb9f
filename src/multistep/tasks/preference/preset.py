"""What preference training asks for when the plan leaves it open; measured: docs/appendix/measured-tasks.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from multistep.core.values.recipe import Recipe, Setting

BETA = 0.1  # arXiv 2305.18290, and the field since
# Of the rate at which the same weights are fine-tuned: 5e-6 for 110 million parameters, ten times that with adapters.
# The field has 5e-7 to 5e-6 for whole models of some billions, which the rule for sizes agrees with.
RATE_SHARE = 0.1
PAIRS = 8  # a step, at most: sixteen answers


def preference_recipe(tuned: Recipe, given: Mapping[str, Setting]) -> Recipe:
    """The recipe of fine-tuning, with what differs where a preference is learnt."""
    rate = tuned.learning_rate
    assert rate is not None, "a resolved recipe has a learning rate"
    if "learning_rate" not in given:
        rate = float(f"{RATE_SHARE * rate:.3g}")
    return replace(tuned, learning_rate=rate, beta=tuned.beta or BETA)
