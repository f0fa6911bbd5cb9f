"""What to train when the plan leaves it open: architecture, sizes and recipe, by rule from data and budget.

The numbers come from runs on spoken digits; docs/appendix/measured-tasks.md has the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from multistep.core.values.optimizers import convert_rate
from multistep.core.values.plan import ModelSpec, Plan
from multistep.core.values.recipe import OptimizerName, Recipe, Setting
from multistep.core.values.units import Unit
from multistep.errors import PlanError
from multistep.tasks.recipes import HIGHEST_FINE_TUNING_RATE, beside, epochs_of, fill_in, lengths_of, measured_rate
from multistep.tasks.speech.nets import Kind
from multistep.tasks.speeds import Work

DEFAULT: Kind = "deepspeech"  # measured beside wavenet: docs/appendix/measured-tasks.md
LARGEST_BATCH, SMALLEST_BATCH = 32, 4  # utterances
FINE_TUNING_BATCH = 8
# What a step hears: CTC leaves its blanks after so many steps, however much is in each, so on little sound steps are
# small. 60 utterances of 3 s each in batches of 32 still wrote nothing after a minute, in batches of 4 they had left
# the blanks after 5 s.
STEP_SECONDS = 16.0  # of sound at the least,
STEPS_AN_EPOCH = 60.0  # or what makes so many steps,
FEWEST_STEPS_AN_EPOCH = 10.0  # but never fewer than these
# On so few, augmentation begins at zero and grows over the first batches: blanks are left in a third of the time. Two
# thousand words leave them soon enough, and new speakers were heard worse for it: word errors 0.188 instead of 0.140.
FEW_UTTERANCES, GENTLE_STEPS = 1_000, 300
# Layers and width by size, and about how many parameters that makes.
SIZES: Mapping[Kind, tuple[tuple[int, int, float], ...]] = {
    "wavenet": ((8, 96, 0.63e6), (12, 192, 3.6e6), (16, 288, 1.1e7), (20, 384, 2.4e7)),
    "deepspeech": ((2, 96, 0.5e6), (3, 192, 2.2e6), (4, 352, 8.5e6), (5, 512, 2.2e7)),
}
HOURS = (0.0, 1.0, 10.0, 100.0)  # of training sound from which a size may be taken
# What a larger size must leave time for: the sound so many times, or, where there is much of it, so many steps of the
# output a parameter (as many tokens as are best for a language model, arXiv 2203.15556): else the more sound there was,
# the smaller would nets be.
FEWEST_EPOCHS, MOST_A_PARAMETER = 15.0, 20.0
USUAL_EPOCHS = 30.0  # of a plan without any length
WORK = Work("speech", a_core=2.5e10, rates={"mps": 1e12, "cuda": 2e13})
PER_PARAMETER_AND_STEP = 6.0  # operations: arXiv 2001.08361
STEPS_PER_SECOND = 50.0  # of the output, for each second of sound
RATES: Mapping[OptimizerName, float] = {"muon": 0.02, "adamw": 2e-3, "adam": 2e-3}  # others follow the first
# AdamW's, of a pretrained encoder of 94 million parameters (arXiv 2006.11477) and of larger ones; smaller ones are
# tuned at higher rates, as those of texts are: with 460,000 parameters 1e-3 was better (docs/how-to/speech.md).
FINE_TUNING_RATE, FINE_TUNED = 1e-4, 94e6


@dataclass(frozen=True)
class SpeechFacts:
    """What a preset depends on: of the training split alone."""

    seconds: float
    utterances: int


def batch_size(facts: SpeechFacts) -> int:
    """Utterances a step for a net from nothing, a power of two."""
    seconds = max(STEP_SECONDS, facts.seconds / STEPS_AN_EPOCH)
    wanted = min(seconds * facts.utterances / max(facts.seconds, 1e-9), facts.utterances / FEWEST_STEPS_AN_EPOCH)
    return int(2 ** round(math.log2(min(LARGEST_BATCH, max(SMALLEST_BATCH, wanted)))))


def gentle_steps(utterances: int) -> int:
    """Over how many batches a net from nothing gets to the full strength of its augmentation."""
    return GENTLE_STEPS if utterances < FEW_UTTERANCES else 0


@dataclass(frozen=True)
class Shape:
    kind: Kind
    layers: int
    width: int


def choose_shape(spec: ModelSpec, facts: SpeechFacts, plan: Plan, *, rate: float) -> Shape:
    """Fill in what the plan leaves open, at `rate` operations a second.

    Raises PlanError for what these nets do not have.
    """
    for name in ("heads", "context", "vocabulary"):
        if getattr(spec, name) is not None:
            raise PlanError(f"model.{name}: a net for speech has none; allowed: name, layers, width, parameters")
    if spec.tokenizer not in ("auto", "characters"):
        raise PlanError(f"model.tokenizer is {spec.tokenizer}; speech is written in characters: leave it out")
    kind = DEFAULT if spec.name == "auto" else cast(Kind, spec.name)
    sizes = SIZES[kind]
    if spec.parameters:
        size = min(range(len(sizes)), key=lambda i: abs(math.log(sizes[i][2] / cast(float, spec.parameters))))
        layers, width, parameters = sizes[size]
        width = max(16, round(width * math.sqrt(spec.parameters / parameters) / 8) * 8)
    else:
        allowed = [i for i, hours in enumerate(HOURS) if facts.seconds / 3600 >= hours]
        heard = STEPS_PER_SECOND * facts.seconds
        enough = [
            i
            for i in allowed
            if expected_epochs(plan, sizes[i][2], facts, rate)
            >= min(FEWEST_EPOCHS, MOST_A_PARAMETER * sizes[i][2] / heard)
        ]
        layers, width, _ = sizes[max(enough, default=0)]
    return Shape(kind, spec.layers or layers, spec.width or width)


def costs_of_utterance(parameters: float, facts: SpeechFacts) -> float:
    """Operations of training on one of the usual length."""
    return PER_PARAMETER_AND_STEP * parameters * STEPS_PER_SECOND * facts.seconds / max(1, facts.utterances)


def expected_epochs(plan: Plan, parameters: float, facts: SpeechFacts, rate: float) -> float:
    """About how often a plan's budget hears a training split, at `rate` operations a second.

    Without any length, thirty times.
    """
    per_epoch = {
        Unit.EPOCHS: 1.0,
        Unit.TOKENS: 12.0 * facts.seconds,  # characters that are said in a second, or thereabouts
        Unit.STEPS: facts.utterances / batch_size(facts),
        Unit.SECONDS: costs_of_utterance(parameters, facts) * facts.utterances / rate,
    }
    return epochs_of(plan, per_epoch) if lengths_of(plan) else USUAL_EPOCHS


def default_recipe(
    given: Mapping[str, Setting],
    facts: SpeechFacts,
    *,
    pretrained: bool,
    own: bool,
    frozen: str | None,
    parameters: float = FINE_TUNED,
) -> Recipe:
    """The recipe with every setting that the plan leaves open; `own` tells our nets from transformers' models.

    Of what a pretrained encoder says nothing is dropped, as in the tuning that its authors published; with 0.1 one that
    was measured came to more errors, and a probe as its last layer lost all that it knew (docs/how-to/speech.md).
    """
    optimizer = cast(OptimizerName, given.get("optimizer", "muon" if own else "adamw"))
    adapter = given.get("adapter", "none")
    base: dict[str, Setting] = {
        "optimizer": optimizer,
        "learning_rate": beside(adapter, _rate(optimizer, parameters, own=own, pretrained=pretrained), optimizer),
        "batch_size": batch_size(facts) if own else FINE_TUNING_BATCH,
        "weight_decay": 0.0 if optimizer == "muon" or adapter != "none" else 0.01,
        "warmup_steps": 10 if own else 100,
        "dropout": 0.1 if own else 0.0,
        "augmentation": 0.5,
        "frozen": (frozen,) if frozen else (),
    }
    return fill_in(given, base)


def _rate(optimizer: OptimizerName, parameters: float, *, own: bool, pretrained: bool) -> float:
    if not own:
        by_size = FINE_TUNING_RATE * max(1.0, math.sqrt(FINE_TUNED / max(1.0, parameters)))
        return convert_rate(min(HIGHEST_FINE_TUNING_RATE, float(f"{by_size:.2g}")), "adamw", optimizer)
    rate = measured_rate(RATES, optimizer)
    return rate / 4 if pretrained and optimizer != "prodigy" else rate
