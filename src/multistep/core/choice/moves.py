"""Moves: named pure functions recipe -> recipe, each with the paper or the reason that it comes from.

A move that would change nothing, or that a model or a task does not answer to, makes no recipe.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from multistep.core.values.optimizers import convert_rate, scaled_rate
from multistep.core.values.recipe import OptimizerName, Recipe
from multistep.core.values.trial import Facts
from multistep.core.values.units import Amount, Unit
from multistep.errors import PlanError, nearest

Change = Callable[[Recipe, Facts], Recipe | None]

RATE_FACTOR = 2.0  # a guess
BATCH_FACTOR = 2  # the least that keeps a batch whole
DECAY_FACTOR = 3.0  # a guess
FIRST_DECAY = 0.1  # where there was none
COUPLED: tuple[OptimizerName, ...] = ("sgd", "adam")  # decay is a part of their gradient, not of their step
FIRST_COUPLED_DECAY = 1e-4  # as arXiv 1512.03385 has it
MOMENTUM: Mapping[OptimizerName, float] = {"sgd": 0.9, "muon": 0.95}
DROPOUT_STEP, MOST_DROPOUT = 0.1, 0.5  # a guess; half of the units at most
SMOOTHING_STEP, MOST_SMOOTHING = 0.1, 0.2  # 0.1 is what arXiv 1512.00567 takes; twice that, at most
AUGMENTATION_STEP = 0.25  # of its whole strength
SHARPNESS = 0.05  # the radius that arXiv 2010.01412 uses most
RANK_FACTOR, MOST_RANK = 2, 256  # a guess; "LoRA without regret" (2025) sees no need for more in fine-tuning
AVERAGING_FACTOR = 2.5  # a guess
LAYER_DECAY = 0.8  # a guess within what arXiv 1801.06146 and 2003.10555 take


@dataclass(frozen=True)
class Move:
    """`touches` are the recipe's keys that it changes, `needs` those of them that Facts.settings must name.

    `regularises` tells that it is an answer to overfitting, `settles` to noise; `opposite` names the move that
    goes the other way.
    """

    name: str
    source: str
    change: Change
    touches: tuple[str, ...]
    needs: tuple[str, ...] = ()
    regularises: bool = False
    settles: bool = False
    opposite: str | None = None

    def __call__(self, recipe: Recipe, facts: Facts) -> Recipe | None:
        """The changed recipe; None where the move does not apply."""
        if any(key not in facts.settings for key in self.needs):
            return None
        changed = self.change(recipe, facts)
        return changed if changed is not None and changed != recipe else None


def _rank_up(recipe: Recipe, _facts: Facts) -> Recipe | None:
    """Twice the rank, scaled so that zeros beside the old matrices make the same function."""
    if recipe.adapter == "none" or recipe.adapter_rank * RANK_FACTOR > MOST_RANK:
        return None
    grown = math.sqrt(RANK_FACTOR) if recipe.adapter == "rslora" else RANK_FACTOR
    return replace(recipe, adapter_rank=recipe.adapter_rank * RANK_FACTOR, adapter_alpha=recipe.alpha * grown)


def _rate(factor: float, recipe: Recipe, _facts: Facts) -> Recipe | None:
    if recipe.optimizer == "prodigy":
        return None  # finds its own
    return replace(recipe, learning_rate=_known(recipe.learning_rate) * factor)


def _batch(factor: float, recipe: Recipe, facts: Facts) -> Recipe | None:
    size = _known(recipe.batch_size) * factor
    if size != int(size) or size < 1 or size > facts.train_examples:
        return None
    rate = scaled_rate(_known(recipe.learning_rate), recipe.optimizer, factor)
    return replace(recipe, batch_size=int(size), learning_rate=rate)


def _decay(up: bool, recipe: Recipe, _facts: Facts) -> Recipe | None:
    now = recipe.weight_decay or 0.0
    if not now:
        first = FIRST_COUPLED_DECAY if recipe.optimizer in COUPLED else FIRST_DECAY
        return replace(recipe, weight_decay=first) if up else None
    return replace(recipe, weight_decay=now * DECAY_FACTOR if up else now / DECAY_FACTOR)


def _by_step(key: str, step: float, most: float, recipe: Recipe, _facts: Facts) -> Recipe | None:
    now = float(getattr(recipe, key))
    return replace(recipe, **{key: round(min(most, max(0.0, now + step)), 4)})  # type: ignore[arg-type]


def _sharpness(on: bool, recipe: Recipe, _facts: Facts) -> Recipe | None:
    return replace(recipe, sharpness=(recipe.sharpness or SHARPNESS) if on else 0.0)


def _context(factor: float, recipe: Recipe, facts: Facts) -> Recipe | None:
    """As many tokens a step as before, in fewer and longer pieces or the other way round."""
    context = (recipe.context or facts.tokens_per_example) * factor
    size = _known(recipe.batch_size) / factor
    if context < 16 or size < 1 or context != int(context):
        return None
    if facts.longest_context is not None and context > facts.longest_context:
        return None
    return replace(recipe, context=int(context), batch_size=int(size))


def _averaging(factor: float, recipe: Recipe, _facts: Facts) -> Recipe | None:
    if not recipe.averaging or recipe.optimizer == "schedule-free":
        return None  # the latter averages by itself
    return replace(recipe, averaging=min(0.25, recipe.averaging * factor))


def _unfreeze(recipe: Recipe, _facts: Facts) -> Recipe | None:
    """The last pattern named is the first to be trained: patterns are written from the bottom up."""
    return replace(recipe, frozen=recipe.frozen[:-1]) if recipe.frozen else None


def _layer_decay(recipe: Recipe, facts: Facts) -> Recipe | None:
    return replace(recipe, layer_decay=LAYER_DECAY) if facts.pretrained and recipe.layer_decay == 1.0 else None


def _optimizer(name: OptimizerName, recipe: Recipe, facts: Facts) -> Recipe | None:
    if name not in facts.optimizers or name == recipe.optimizer:
        return None
    rate = convert_rate(_known(recipe.learning_rate), recipe.optimizer, name)
    return replace(
        recipe,
        optimizer=name,
        learning_rate=rate,
        gradient_clip=0.0 if name == "muon" else 1.0,
        # A decoupled decay of 0.1 within the gradient would shrink weights to nothing; the other way round, what is
        # right in a gradient is next to nothing beside it.
        weight_decay=recipe.weight_decay if (name in COUPLED) == (recipe.optimizer in COUPLED) else 0.0,
        momentum=MOMENTUM.get(name, recipe.momentum),
        # Schedule-free methods average instead of cooling down (arXiv 2405.15682).
        cooldown_fraction=0.0 if name == "schedule-free" else recipe.cooldown_fraction or Recipe().cooldown_fraction,
    )


def _known(value: float | None) -> float:
    assert value is not None, "a resolved recipe has it"
    return value


SHORT_TRIALS = "short trials find rates too small, so higher ones come first: arXiv 1803.02021"
BATCHES = "critical batch size: arXiv 1812.06162; the rate follows by arXiv 2205.10287"
DECAY = "decoupled weight decay: arXiv 1711.05101"
DROPOUT = "dropout: JMLR 15 (2014) 1929"
SMOOTHING = "label smoothing: arXiv 1512.00567, 1906.02629"
AUGMENTATION = "augmentation by one strength: arXiv 1909.13719"
CONTEXT = "longer contexts see more, shorter ones learn sooner: arXiv 2108.06084"
OPTIMIZERS: Mapping[OptimizerName, str] = {
    "muon": "Muon, orthogonalised momentum: arXiv 2502.16982",
    "adamw": "AdamW: arXiv 1711.05101",
    "adam": "Adam: arXiv 1412.6980",
    "sgd": "SGD after an adaptive start: arXiv 1712.07628",
    "adafactor": "Adafactor: arXiv 1804.04235",
    "schedule-free": "schedule-free AdamW: arXiv 2405.15682",
    "soap": "SOAP: arXiv 2409.11321",
    "lion": "Lion: arXiv 2302.06675",
    "prodigy": "Prodigy: arXiv 2306.06101",
}
RATES = ("learning_rate",)
RESET = ("gradient_clip", "cooldown_fraction")  # what an optimizer has its own values of

_ALL = (
    Move("rate-up", SHORT_TRIALS, functools.partial(_rate, RATE_FACTOR), RATES, opposite="rate-down"),
    Move(
        "rate-down",
        "a lower plateau is nearer to the floor: arXiv 1608.03983",
        functools.partial(_rate, 1 / RATE_FACTOR),
        RATES,
        settles=True,
        opposite="rate-up",
    ),
    Move(
        "batch-up",
        BATCHES,
        functools.partial(_batch, BATCH_FACTOR),
        ("batch_size", *RATES),
        settles=True,
        opposite="batch-down",
    ),
    Move(
        "batch-down",
        "small batches generalise better: arXiv 1609.04836, 1804.07612",
        functools.partial(_batch, 1 / BATCH_FACTOR),
        ("batch_size", *RATES),
        opposite="batch-up",
    ),
    Move(
        "decay-up",
        DECAY,
        functools.partial(_decay, True),
        ("weight_decay",),
        regularises=True,
        opposite="decay-down",
    ),
    Move("decay-down", DECAY, functools.partial(_decay, False), ("weight_decay",), opposite="decay-up"),
    Move(
        "dropout-up",
        DROPOUT,
        functools.partial(_by_step, "dropout", DROPOUT_STEP, MOST_DROPOUT),
        ("dropout",),
        needs=("dropout",),
        regularises=True,
        opposite="dropout-down",
    ),
    Move(
        "dropout-down",
        DROPOUT,
        functools.partial(_by_step, "dropout", -DROPOUT_STEP, 1.0),
        ("dropout",),
        needs=("dropout",),
        opposite="dropout-up",
    ),
    Move(
        "smoothing-up",
        SMOOTHING,
        functools.partial(_by_step, "label_smoothing", SMOOTHING_STEP, MOST_SMOOTHING),
        ("label_smoothing",),
        needs=("label_smoothing",),
        regularises=True,
        opposite="smoothing-down",
    ),
    Move(
        "smoothing-down",
        SMOOTHING,
        functools.partial(_by_step, "label_smoothing", -SMOOTHING_STEP, 1.0),
        ("label_smoothing",),
        needs=("label_smoothing",),
        opposite="smoothing-up",
    ),
    Move(
        "augmentation-up",
        AUGMENTATION,
        functools.partial(_by_step, "augmentation", AUGMENTATION_STEP, 1.0),
        ("augmentation",),
        needs=("augmentation",),
        regularises=True,
        opposite="augmentation-down",
    ),
    Move(
        "augmentation-down",
        AUGMENTATION,
        functools.partial(_by_step, "augmentation", -AUGMENTATION_STEP, 1.0),
        ("augmentation",),
        needs=("augmentation",),
        opposite="augmentation-up",
    ),
    Move(
        "sharpness-on",
        "sharpness-aware steps: arXiv 2010.01412",
        functools.partial(_sharpness, True),
        ("sharpness",),
        regularises=True,
        opposite="sharpness-off",
    ),
    Move(
        "sharpness-off",
        "plain steps cost half: arXiv 2010.01412",
        functools.partial(_sharpness, False),
        ("sharpness",),
        opposite="sharpness-on",
    ),
    Move(
        "context-up",
        CONTEXT,
        functools.partial(_context, 2.0),
        ("context", "batch_size"),
        needs=("context",),
        opposite="context-down",
    ),
    Move(
        "context-down",
        CONTEXT,
        functools.partial(_context, 0.5),
        ("context", "batch_size"),
        needs=("context",),
        opposite="context-up",
    ),
    Move(
        "averaging-up",
        "latest weights averaged: arXiv 2209.14981, 2502.06761",
        functools.partial(_averaging, AVERAGING_FACTOR),
        ("averaging",),
        settles=True,
        opposite="averaging-down",
    ),
    Move(
        "averaging-down",
        "latest weights averaged: arXiv 2209.14981, 2502.06761",
        functools.partial(_averaging, 1 / AVERAGING_FACTOR),
        ("averaging",),
        opposite="averaging-up",
    ),
    Move(
        "rank-up",
        "more rank where there is more to learn: arXiv 2106.09685",
        _rank_up,
        ("adapter_rank", "adapter_alpha"),
    ),
    Move("unfreeze", "gradual unfreezing: arXiv 1801.06146", _unfreeze, ("frozen",)),
    Move(
        "layer-decay",
        "layer-wise rates: arXiv 1801.06146, 2003.10555",
        _layer_decay,
        ("layer_decay",),
        regularises=True,
    ),
    *(
        Move(
            f"optimizer-{name}",
            source,
            functools.partial(_optimizer, name),
            (
                *("optimizer", *RATES, *RESET),
                *(("weight_decay",) if name in COUPLED else ()),
                *(("momentum",) if name in MOMENTUM else ()),
            ),
        )
        for name, source in OPTIMIZERS.items()
    ),
)
MOVES: Mapping[str, Move] = {move.name: move for move in _ALL}
AVERAGE = "average"  # of checkpoints, not a change of the recipe
RESTART = "restart"  # from the beginning at a lower rate: core/choice/restart.py
EXTEND = "extend"  # on from the cooled-down leader, the rate raised again and back to zero (arXiv 1608.03983)
NAMES = (*MOVES, AVERAGE, RESTART)
POINTLESS: Mapping[str, tuple[str, ...]] = {
    "prodigy": ("rate-up", "rate-down", RESTART),  # finds its rate by itself
    "schedule-free": ("averaging-up", "averaging-down"),  # averages by itself
}


def check_moves(names: tuple[str, ...], given: Mapping[str, object], budget: Amount | None = None) -> None:
    """Raises PlanError for a move that is not known, or that changes what the recipe or the budget fixes."""
    for name in names:
        if name not in NAMES:
            raise PlanError(f"unknown move '{name}'; allowed: {', '.join(NAMES)}, or auto.{nearest(name, NAMES)}")
        touches = ("learning_rate",) if name == RESTART else MOVES[name].touches if name in MOVES else ()
        touched = [key for key in touches if key in given and name != "unfreeze"]
        if touched:
            raise PlanError(
                f"the move '{name}' changes {touched[0]}, which the recipe fixes at {given[touched[0]]}; leave one of "
                "them out"
            )
        if (optimizer := given.get("optimizer")) and name in POINTLESS.get(str(optimizer), ()):
            raise PlanError(f"the move '{name}' changes nothing under {optimizer}; leave it out")
        if budget and budget.unit in (Unit.EPOCHS, Unit.TOKENS) and {"batch_size", "context"} & set(touches):
            raise PlanError(
                f"the move '{name}' changes how many examples a step has, and trials are compared over equal numbers "
                "of steps: "
                f"with a budget of {budget} they would not see the same amount of data; leave it out, or give the "
                "budget in time"
            )


def applicable(recipe: Recipe, facts: Facts, given: Mapping[str, object]) -> dict[str, Recipe]:
    """The recipes that moves make of this one; what the plan gives is obeyed, so no move changes it."""
    found: dict[str, Recipe] = {}
    for name, move in MOVES.items():
        # What is frozen at first is given in order to be unfrozen.
        fixed = name != "unfreeze" and any(key in given for key in move.touches)
        if not fixed and (changed := move(recipe, facts)):
            found[name] = changed
    return found
