"""What to train when the plan leaves it open: net, size and recipe, by rule from data and budget.

The numbers come from bench/explore_images.py; docs/appendix/experiments.md has the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from multistep.core.values.plan import ModelSpec, Plan
from multistep.core.values.recipe import OptimizerName, Recipe, Setting
from multistep.core.values.units import Unit
from multistep.errors import PlanError
from multistep.tasks.images.decode import Form
from multistep.tasks.images.nets import CNN, RESNET, NetConfig
from multistep.tasks.recipes import epochs_of, fill_in, fine_tuning_rate, lengths_of, measured_rate
from multistep.tasks.speeds import Work

STANDARD_COST = {"resnet-18": 1.8e9, "resnet-34": 3.6e9, "resnet-50": 4.1e9}  # products, of 224 x 224 pixels
PRESETS = (CNN, RESNET, *STANDARD_COST)
WORK = Work("convolutions", a_core=9e10, further=0.56, rates={"mps": 1e12, "cuda": 2e13})
BATCH_SIZE = 128
PER_PRODUCT = 6.0  # operations in training: two each forward, and twice backward
LARGEST_SIDE = {"cpu": 64}  # of images that a net from nothing reads; elsewhere 128
SMALL_SIDE = 40  # up to it, every pixel counts; of larger images the first convolution takes every second
WIDTHS = (16, 24, 32, 48, 64, 96, 128)
LEAST_EPOCHS = 5.0  # that a wider net must leave time for on 60,000 images, and more on fewer:
FEWER_IMAGES = 0.7  # the power by which that grows
MOST_IMAGES = 60_000
USUAL_EPOCHS = 30.0  # of a plan without any length
NEW_EPOCHS, DOUBLING, MOST_AUGMENTATION = 3.0, 0.15, 0.5  # none up to so many epochs, more with each doubling
GROWING_EPOCHS = 30.0  # where time is shorter than that, training begins with smaller images
GROWING_SIDE = 20  # pixels, at least
# Of nets from nothing, docs/appendix/experiments.md; optimizers that are not named follow the first.
RATES: Mapping[OptimizerName, float] = {"adamw": 0.012, "adam": 0.012, "muon": 0.1, "sgd": 0.2}


@dataclass(frozen=True)
class ImageFacts:
    """What a preset depends on: of the training split alone."""

    images: int
    form: Form
    classes: int


@dataclass(frozen=True)
class Choice:
    """A net from nothing, `net` None for a ResNet in the standard form, and about how many epochs it will train."""

    name: str
    form: Form
    net: NetConfig | None
    epochs: float


def choose(plan: Plan, facts: ImageFacts, given: Mapping[str, Setting], device: str, rate: float) -> Choice:
    """Fill in what the plan leaves open, at `rate` operations a second.

    Raises PlanError for sizes that only other models have.
    """
    spec = plan.model
    name = RESNET if spec.name == "auto" else spec.name
    for size in ("heads", "context", "vocabulary"):
        if getattr(spec, size) is not None:
            raise PlanError(f"model.{size} is for text; of {name}, width, layers or parameters can be given")
    form = _form(facts.form, given, device)
    if name in STANDARD_COST:
        for size in ("parameters", "layers", "width"):
            if getattr(spec, size) is not None:
                raise PlanError(f"model.{size}: {name} has a standard form; leave it out, or take {RESNET}")
        cost = STANDARD_COST[name] * form.height * form.width / 224**2
        return Choice(name, form, None, _epochs(plan, facts, cost, rate))
    net = _net(spec, name, facts, form, plan, rate)
    return Choice(name, form, net, _epochs(plan, facts, products(net, form), rate))


def _form(form: Form, given: Mapping[str, Setting], device: str) -> Form:
    resolution = given.get("resolution")
    if isinstance(resolution, tuple) and resolution:
        return form.sized(int(resolution[-1]))
    return form.sized(min(max(form.height, form.width), LARGEST_SIDE.get(device, 128)))


def _net(spec: ModelSpec, kind: str, facts: ImageFacts, form: Form, plan: Plan, rate: float) -> NetConfig:
    stride = 1 if max(form.height, form.width) <= SMALL_SIDE else 2
    shorter = min(form.height, form.width)  # halved in each stage, to some three pixels
    stages = max(1, min(4, math.floor(math.log2(max(2, shorter / stride / 3)))))
    blocks = max(1, round((spec.layers - 2) / (2 * stages))) if spec.layers else 1

    def at(width: int) -> NetConfig:
        return NetConfig(kind, form.channels, facts.classes, width, stages, blocks, stride)

    if spec.width:
        return at(spec.width)
    if spec.parameters:
        # Of a net's parameters nearly all grow with the square of its width.
        return at(max(4, round(16 * math.sqrt(spec.parameters / parameters(at(16))))))
    wanted = LEAST_EPOCHS * max(1.0, MOST_IMAGES / facts.images) ** FEWER_IMAGES
    bearable = [w for w in WIDTHS if _epochs(plan, facts, products(at(w), form), rate) >= wanted]
    return at(max(bearable, default=WIDTHS[0]))


def _epochs(plan: Plan, facts: ImageFacts, cost: float, rate: float) -> float:
    """About how often a plan's budget reads the training images.

    `cost` is in products an image; training takes six operations for each.
    """
    per_epoch = {
        Unit.EPOCHS: 1.0,
        Unit.TOKENS: float(facts.images),
        Unit.STEPS: facts.images / BATCH_SIZE,
        Unit.SECONDS: PER_PRODUCT * cost * facts.images / rate,
    }
    return epochs_of(plan, per_epoch) if lengths_of(plan) else USUAL_EPOCHS


def products(net: NetConfig, form: Form) -> float:
    """Multiplications that classifying one image takes."""
    total, into = 0.0, net.channels
    pixels = form.height * form.width / net.stride**2
    if net.kind == RESNET:
        total, into = 9.0 * into * net.width * pixels, net.width
    for stage in range(net.stages):
        width = net.width * 2**stage
        if net.kind == CNN:
            total += 9 * into * width * pixels
            pixels /= 4
            total += 9 * width * width * pixels
        else:
            pixels /= 4 if stage else 1
            first = (9 + (stage > 0)) * into * width + 9 * width * width
            total += (first + 18 * width * width * (net.blocks - 1)) * pixels
        into = width
    return total


def parameters(net: NetConfig) -> float:
    """About how many a net has."""
    total, into = 0.0, net.channels
    for stage in range(net.stages):
        width = net.width * 2**stage
        total += 9 * into * width + 9 * width * width * (1 if net.kind == CNN else 2 * net.blocks - 1)
        into = width
    return total + into * net.classes


def default_recipe(given: Mapping[str, Setting], choice: Choice | None, *, form: Form, parameters: int) -> Recipe:
    """The recipe with every setting that the plan leaves open; `choice` is None for a model that exists.

    `parameters` are those of the model.
    """
    optimizer = cast(OptimizerName, given.get("optimizer", "muon" if choice else "adamw"))
    adapter = given.get("adapter", "none")
    rate = measured_rate(RATES, optimizer) if choice else fine_tuning_rate(parameters, optimizer, adapter)
    base: dict[str, Setting] = {
        "optimizer": optimizer,
        "learning_rate": rate,
        "batch_size": BATCH_SIZE if choice else 32,
        "weight_decay": 0.0,
        "warmup_steps": 20 if choice else 100,
        "augmentation": _augmentation(choice.epochs) if choice else 0.0,
        "resolution": _growing(form, choice.epochs) if choice else (),
    }
    return fill_in(given, base)


def _augmentation(epochs: float) -> float:
    """Nothing while images are new; more the more often they are seen again."""
    return round(min(MOST_AUGMENTATION, max(0.0, DOUBLING * math.log2(max(epochs, 1e-9) / NEW_EPOCHS))), 2)


def _growing(form: Form, epochs: float) -> tuple[int, ...]:
    """Sizes that training grows through, of square images: half, three quarters, all; none where time is plenty.

    A trunk that grows is left by the clock, since its curve jumps from size to size; where images are seen often
    enough to be learnt by heart, it is the curve that should tell when.
    """
    side = form.height
    if form.height != form.width or side < GROWING_SIDE or epochs >= GROWING_EPOCHS:
        return ()
    return (side // 2, 3 * side // 4, side)
