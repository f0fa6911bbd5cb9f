"""How long texts are in tokens, and what training on one of the usual length costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from multistep.core.values.recipe import Recipe
from multistep.tasks.language.encode import Ints, encode_texts, usual_length
from multistep.tasks.language.models import Head
from multistep.tasks.language.preset import LEAST_CONTEXT, MOST_CONTEXT, WORK
from multistep.tasks.pretrained.settle import TUNING
from multistep.tasks.pretrained.timed import IN_HALF, PER_PARAMETER_AND_TOKEN
from multistep.tasks.reckoned import Costs
from multistep.tasks.speeds import was_measured

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOOKED_AT, MOST_CHARACTERS = 2000, 5000  # texts, and how much of each, for how long they are


def lengths_of(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Ints, int]:
    """The lengths of some texts in tokens, and about how many tokens all of them are."""
    chosen = np.random.default_rng(0).permutation(len(texts))[:LOOKED_AT]
    some = [texts[i][:MOST_CHARACTERS] for i in chosen.tolist()]
    lengths = encode_texts(tokenizer, some, longest=MOST_CHARACTERS + 2).lengths
    return lengths, round(int(lengths.sum()) / max(1, sum(map(len, some))) * sum(map(len, texts)))


def usual_context(lengths: Ints) -> int:
    """How many tokens are read of such texts: all of nearly every one, but no more than 256."""
    return min(MOST_CONTEXT, max(LEAST_CONTEXT, usual_length(lengths)))


def blocks_of(head: Head) -> int:
    """Parameters without embeddings."""
    return sum(p.numel() for name, p in head.model.named_parameters() if "embeddings" not in name)


def costs_of(head: Head, recipe: Recipe, texts: Sequence[str]) -> Costs:
    """Of training on a text of the usual length; a step that looks uphill first takes twice as much."""
    length = float(np.minimum(lengths_of(head.encoder.tokenizer, texts[:LOOKED_AT])[0], head.context).mean())
    passes = 2.0 if recipe.sharpness else 1.0
    tuned = IN_HALF if recipe.precision == "bfloat16" and was_measured(IN_HALF) else TUNING
    return Costs(tuned if head.pretrained else WORK, passes * PER_PARAMETER_AND_TOKEN * blocks_of(head) * length)
