"""What to train when the plan leaves it open: tokenizer, shape and recipe, by rule from data and budget.

The numbers come from bench/explore_text.py; docs/appendix/experiments.md has the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from multistep.core.choice.allowance import weighs
from multistep.core.values.optimizers import TYPICAL_RATE, scaled_rate
from multistep.core.values.plan import ModelSpec, Plan
from multistep.core.values.recipe import OptimizerName, Recipe, Setting
from multistep.core.values.units import Unit
from multistep.errors import PlanError
from multistep.tasks.recipes import epochs_of, fill_in, lengths_of
from multistep.tasks.speeds import TRAINED_SHARE, Work
from multistep.tasks.text.sizes import Bearable, Shape, all_parameters, best_shape, ladder
from multistep.tasks.text.tuning import WEIGHT_DECAY

MANY_CHARACTERS = 2000  # of an alphabet: Chinese
PRESETS = ("nanochat", "gpt2", "qwen3", "llama")
MANY_TOKENS = 512  # of a vocabulary: with as many, Muon wants less than half the rate (docs/appendix/experiments.md)
WORK = Work("text", a_core=5e10)
USUAL_SECONDS = 300.0  # of a plan that names no time
# Contexts grow with compute, so that attention to what is far is paid for by who can: 64 tokens up to so many
# operations, twice as many for each eightfold.
SHORT_CONTEXT, MOST_CONTEXT, SHORT_COMPUTE = 64, 2048, 1e13
# A text that has fewer of them is learnt by heart before they do it any good (docs/appendix/experiments.md).
LEAST_CONTEXTS = 512
# Of a context, so that one which begins anywhere holds most of a document. Sentences of SST-2, 1,500 steps of 1,280
# tokens: 1.949 bits a byte with contexts of 64 tokens, 1.934 with 128, 1.939 with 256; a seed moves that by 0.01.
DOCUMENTS = 2
# By the characters of the text, and so many tokens at the least compute: more of them (a head that costs more, in fewer
# tokens of more text each) with its power 0.4, after arXiv 2407.13623.
VOCABULARIES = ((300e6, 32_768), (50e6, 16_384), (2e6, 4096), (0, 1024))
LEAST_VOCABULARY, LEAST_COMPUTE = 1024, 1e11
# Tokens a step grow with the root of all that are read, as the critical batch size does (arXiv 2410.21676, 2505.13738):
# so many at a million. A device that is slow with little to do takes more, since they cost it little.
BATCH_TOKENS, AT_TOKENS = 768, 1e6
MOST_EPOCHS = 16.0  # that are worth reading: arXiv 2305.16264
FULLER: Mapping[str, float] = {"cuda": 4.0, "mps": 2.0}
# Rates are for the rows that a CPU takes, and grow with the root of more (docs/appendix/experiments.md): up to so many
# times, beyond which nothing was measured.
MOST_FASTER = 3.0
LEARNING_BY_HEART = 2.5  # parameters a token, from which on each epoch counts whole
TokenizerKind = Literal["characters", "bpe"]


@dataclass(frozen=True)
class TextFacts:
    """What a preset depends on: of the training split alone. `document`: the share of it that a longer document is."""

    characters: int
    alphabet: int
    document: float = 1.0


@dataclass(frozen=True)
class Preset:
    architecture: str
    tokenizer: TokenizerKind
    vocabulary: int | None  # of a BPE; characters bring their own
    shape: Shape


def choose_preset(
    spec: ModelSpec,
    facts: TextFacts,
    plan: Plan,
    rate: float,
    memory: float = math.inf,
    usual_rate: float | None = None,
) -> Preset:
    """Fill in what the plan leaves open, at `rate` operations a second on a device with so many bytes.

    The vocabulary follows from the rate that such devices usually have: a text that is encoded once stays so, whatever
    is measured the next time.
    """
    architecture = "nanochat" if spec.name == "auto" else spec.name
    compute = TRAINED_SHARE * _seconds(plan) * rate
    tokenizer, vocabulary = _tokenizer(spec, facts, TRAINED_SHARE * _seconds(plan) * (usual_rate or rate))
    tokens = vocabulary or facts.alphabet
    text = facts.characters / characters_a_token(facts, vocabulary)
    context = spec.context or _context(compute, text, facts.document * text)
    sizes = list(ladder(context, layers=spec.layers, width=spec.width, heads=spec.heads))
    if spec.parameters:
        wanted = math.log(spec.parameters)
        shape = min(sizes, key=lambda shape: abs(math.log(all_parameters(shape, tokens)) - wanted))
    else:
        shape = best_shape(sizes, Bearable(compute, text, memory, dropout=not goes_back(plan)), tokens)
    return Preset(architecture, tokenizer, vocabulary, shape)


def goes_back(plan: Plan) -> bool:
    """Whether a run goes back to its best place where it overfits, and begins again at a lower rate, since all its
    phases weigh what to do: a text is read as often as does it good, and not as often as there is time for, so that
    dropout would slow it down alone.
    """
    recipes = [fill_in(plan.phase(i).recipe, {"optimizer": "muon"}) for i in range(plan.phase_count)]
    return all(weighs(plan, i, recipe) for i, recipe in enumerate(recipes))


def _seconds(plan: Plan) -> float:
    return sum(amount.value for amount in lengths_of(plan) if amount.unit is Unit.SECONDS) or USUAL_SECONDS


def _context(compute: float, text: float, document: float) -> int:
    """By the tokens of the text and of its longer documents: behind the end of one, nothing tells of the next."""
    by_document = math.ceil(math.log2(max(1.0, DOCUMENTS * document / SHORT_CONTEXT)))
    by_compute = math.ceil(math.log(max(1.0, compute / SHORT_COMPUTE), 8))
    by_text = math.floor(math.log2(max(1.0, text / LEAST_CONTEXTS / SHORT_CONTEXT)))
    return int(min(MOST_CONTEXT, SHORT_CONTEXT * 2 ** min(by_compute, by_text, by_document)))


def batch_size(tokens: float, text: float, context: int, device: str) -> int:
    """Rows of `context` tokens a step, where `tokens` are read in all, of a text that has `text`."""
    new = min(tokens, MOST_EPOCHS * text)
    a_step = FULLER.get(device, 1.0) * BATCH_TOKENS * math.sqrt(max(1.0, new / AT_TOKENS))
    return max(1, round(a_step / context))


def characters_a_token(facts: TextFacts, vocabulary: int | None) -> float:
    """About how many characters of a text one of its tokens stands for."""
    if vocabulary is None:
        return 1.0
    return 1.25 if facts.alphabet > MANY_CHARACTERS else 2.5 + 0.4 * math.log2(vocabulary / 1024)


def _tokenizer(spec: ModelSpec, facts: TextFacts, compute: float) -> tuple[TokenizerKind, int | None]:
    """Byte-level BPE: it reads twice as far and as fast as characters, in any script.

    A text too short to learn merges from stays with characters, if it has few of them.
    """
    kind: TokenizerKind = "characters" if facts.characters < 50_000 and facts.alphabet <= 512 else "bpe"
    if spec.tokenizer == "wordpiece":
        raise PlanError("model.tokenizer is wordpiece, which cannot write text; allowed: auto, characters, bpe")
    if spec.tokenizer != "auto":
        kind = spec.tokenizer
    elif spec.vocabulary is not None:
        kind = "bpe"  # the only one whose vocabulary can be chosen
    if kind == "characters":
        if spec.vocabulary is not None:
            raise PlanError(
                f"model.vocabulary is {spec.vocabulary}, but characters bring their own: the {facts.alphabet} of the "
                "text; leave it out, or set model.tokenizer to bpe"
            )
        return kind, None
    return kind, spec.vocabulary or _vocabulary(facts, compute)


def _vocabulary(facts: TextFacts, compute: float) -> int:
    """What the text has enough examples for, and what the head may take of the compute: a power of two."""
    # Chinese has thousands of characters, of three bytes each: they need tokens of their own.
    by_text = (
        8192 if facts.alphabet > MANY_CHARACTERS else next(v for least, v in VOCABULARIES if facts.characters >= least)
    )
    by_compute = LEAST_VOCABULARY * math.pow(max(1.0, compute / LEAST_COMPUTE), 0.4)
    return min(by_text, 1 << round(math.log2(by_compute)))


def expected_tokens(plan: Plan, *, a_token: float, tokens: float, rate: float) -> float:
    """About how many a plan's budget reads of a training split with `tokens`, at `rate` operations a second of which
    each takes `a_token`.
    """
    per_epoch = {
        Unit.EPOCHS: 1.0,
        Unit.TOKENS: tokens,
        Unit.STEPS: tokens / BATCH_TOKENS,
        Unit.SECONDS: a_token * tokens / (TRAINED_SHARE * rate),
    }
    return tokens * epochs_of(plan, per_epoch)


def default_dropout(epochs: float, parameters: float, tokens: float) -> float:
    """None while the text is new; more the more often it is read again, up to 0.3: for a run that reads it so often
    whatever comes of it.

    A model with fewer parameters than its text has tokens learns less of it by heart at each reading: with 0.75 a token
    and five epochs a dropout of 0.17 cost 0.06 bits a byte, and with 1.25 a token and twelve none was too little.
    """
    felt = epochs * min(1.0, parameters / max(1.0, LEARNING_BY_HEART * tokens))
    return 0.0 if felt < 3 else round(min(0.3, 0.1 + 0.1 * math.log2(felt / 3)), 2)


def _rate(optimizer: OptimizerName, architecture: str, vocabulary: int) -> float:
    if optimizer == "muon" and vocabulary < MANY_TOKENS:
        return 0.03 if architecture == "nanochat" else 0.02
    return TYPICAL_RATE[optimizer]


def default_recipe(
    given: Mapping[str, Setting],
    *,
    architecture: str,
    rows: int,
    usual_rows: int | None = None,
    dropout: float = 0.0,
    vocabulary: int = 64,
) -> Recipe:
    """The recipe with every setting that the plan leaves open, from nothing; `rows` a step, and so much `dropout` where
    the architecture has any. `usual_rows` are those that the usual rate is for, where that is not `rows`.
    """
    optimizer = cast(OptimizerName, given.get("optimizer", "muon"))
    many = cast(int, given.get("batch_size", rows))
    rate, most = _rate(optimizer, architecture, vocabulary), MOST_FASTER**2
    rate = scaled_rate(rate, optimizer, min(most, many / (usual_rows or rows)))
    base: dict[str, Setting] = {
        "optimizer": optimizer,
        "learning_rate": float(f"{rate:.3g}"),  # for those who read it
        "batch_size": rows,
        "weight_decay": WEIGHT_DECAY.get(optimizer, 0.0),
        "warmup_steps": 10,
        "dropout": dropout if architecture in ("nanochat", "gpt2") else 0.0,
    }
    return fill_in(given, base)
