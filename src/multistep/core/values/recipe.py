"""The recipe: every setting of a stretch of training, and the learning rate it asks for at each step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from multistep.errors import PlanError, nearest

OptimizerName = Literal["muon", "adamw", "adam", "sgd", "adafactor", "schedule-free", "soap", "lion", "prodigy"]
Schedule = Literal["constant", "one-cycle", "multi-step", "on-plateau"]
CooldownShape = Literal["linear", "cosine", "1-sqrt"]
Shape = Literal["warmup", "constant", "linear", "cosine", "1-sqrt"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
AdapterKind = Literal["lora", "dora", "rslora", "qlora"]
Head = Literal["random", "linear-probe"]
Sharding = Literal["auto", "none", "full"]
OuterOptimizer = Literal["nesterov", "sgd"]
AdapterName = Literal["none", "lora", "dora", "rslora", "qlora"]
ALPHA_PER_RANK = 2.0  # where a recipe names no alpha


@dataclass(frozen=True)
class Outer:
    """How several processes train one model over a network that bears no sum of gradients a step.

    Each takes `every` steps alone, on its share of each batch; then the mean of what they changed is the gradient of
    one step of the outer optimizer. `sgd` has plain momentum (of `momentum` 0: none), `nesterov` looks ahead.
    Of several `fragments` each has outer steps at times of its own. What is sent takes effect `overlap` steps later,
    which are computed meanwhile; `mixing` is the share of them that is kept. With 4 `bits` a change is sent as its sign
    and a power of two. Sources: DiLoCo, arXiv 2311.08105; Streaming DiLoCo, 2501.18512.
    """

    every: int = 100
    optimizer: OuterOptimizer = "nesterov"
    learning_rate: float = 0.7
    momentum: float = 0.9
    fragments: int = 1
    overlap: int = 0
    mixing: float = 0.5
    bits: Literal[32, 4] = 32

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        check = _Checker()
        check.within("recipe.outer.every", self.every, 1, math.inf)
        check.within("recipe.outer.learning_rate", self.learning_rate, 0, math.inf, open_low=True)
        check.within("recipe.outer.momentum", self.momentum, 0, 1, open_high=True)
        check.within("recipe.outer.fragments", self.fragments, 1, self.every)
        check.within("recipe.outer.overlap", self.overlap, 0, self.every - 1)
        check.within("recipe.outer.mixing", self.mixing, 0, 1)

    def __str__(self) -> str:
        rate, momentum = f"{self.learning_rate:g}", f"{self.momentum:g}"
        said = f"every {self.every} steps, {self.optimizer} with rate {rate} and momentum {momentum}"
        if self.fragments > 1:
            said += f", in {self.fragments} fragments"
        if self.overlap:
            said += f", {self.overlap} steps later"
        return said + (f", sent in {self.bits} bits" if self.bits != 32 else "")


Setting = str | int | float | bool | tuple[str, ...] | tuple[int, ...] | tuple[float, float] | Outer | None


@dataclass(frozen=True)
class Recipe:
    """Settings with a default here are the field's; None means that the task's preset decides.

    `learning_rate` is the plateau's, for weight matrices; embeddings, norms and heads follow it in a ratio
    that the optimizer fixes. `cooldown_fraction` is the share of the training spent cooling down (0: never,
    1: from the end of the warm-up on). `averaging` is the horizon of the averaged weights as a share of the
    steps so far (0: none). `frozen` holds glob patterns of parameter names. `schedule` is what the rate does
    before the cooldown. `sharpness` is the radius of sharpness-aware steps (0: plain ones). Each layer below
    the head has `layer_decay` times the rate of the one above. `context` is the training context in tokens
    (None: the model's own); `augmentation` the strength of the task's augmentation, 0 to 1. `resolution` is the
    training size of images in pixels; of several, the trunk takes all but the last in turn, for equal shares.
    `model` names which of the task's networks is trained, where it has several (None: the task's own choice).
    `head` is what a last layer that pretrained weights lack begins as: drawn, or fitted on the frozen features (of
    labels by logistic regression, of speech by CTC), after which everything is tuned (arXiv 2202.10054; None: the
    task's own choice).

    With an `adapter`, pretrained weights stay as they are (in four bits with qlora), and matrices of `adapter_rank`
    beside the linear layers whose names end in one of `adapter_targets` (none: all but the head) are trained; what they
    add is scaled by `adapter_alpha` (None: twice the rank) over the rank, or over its root (rslora).

    `beta`, of preferences alone, is how strongly one is held to the weights that the phase began with.

    `micro_batch` is how many examples a pass holds ("auto": as many as fit into memory); the step stays that of the
    whole batch. `compile` has the model's repeated blocks compiled ("auto": where it is measured to pay).
    `checkpointing` is of activations: those of the model's blocks are computed again for the gradient instead of being
    kept ("auto": where memory asks for it). `sharding` is of a model that several processes train: each holds the whole
    of it ("none"), or its part of every matrix, with the gradient, the optimizer's state and the average of that part
    ("full"; "auto": where a device could not hold the whole).

    `outer` has processes take steps alone, and meet every so many (None: all take each step together).
    """

    optimizer: OptimizerName = "muon"
    learning_rate: float | None = None
    batch_size: int | None = None
    momentum: float = 0.95
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float | None = None
    dropout: float = 0.0
    label_smoothing: float = 0.0
    gradient_clip: float = 1.0
    warmup_steps: int | None = None
    cooldown: CooldownShape = "linear"
    cooldown_fraction: float = 0.5
    schedule: Schedule = "constant"
    averaging: float = 0.02
    sharpness: float = 0.0
    augmentation: float = 0.0
    layer_decay: float = 1.0
    context: int | None = None
    resolution: tuple[int, ...] = ()
    frozen: tuple[str, ...] = ()
    precision: Precision = "auto"
    model: str | None = None
    head: Head | None = None
    adapter: AdapterName = "none"
    adapter_rank: int = 16
    adapter_alpha: float | None = None
    adapter_targets: tuple[str, ...] = ()
    beta: float | None = None
    micro_batch: int | Literal["auto"] = "auto"
    compile: bool | Literal["auto"] = "auto"
    checkpointing: bool | Literal["auto"] = "auto"
    sharding: Sharding = "auto"
    outer: Outer | None = None

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by planfile's TypeAdapter, not a field

    @property
    def alpha(self) -> float:
        """What the product of an adapter's matrices is scaled by, before it is divided by the rank or its root."""
        return self.adapter_alpha or ALPHA_PER_RANK * self.adapter_rank

    @property
    def network(self) -> tuple[object, ...]:
        """What must be the same of two checkpoints for their weights to have a mean."""
        of_adapter = (self.adapter_rank, self.alpha, self.adapter_targets) if self.adapter != "none" else ()
        return (self.model, self.adapter, *of_adapter)

    def __post_init__(self) -> None:
        check = _Checker()
        check.within("learning_rate", self.learning_rate, 0, math.inf, open_low=True)
        check.within("batch_size", self.batch_size, 1, math.inf)
        if self.micro_batch != "auto":
            check.within("micro_batch", self.micro_batch, 1, math.inf)
        check.within("momentum", self.momentum, 0, 1, open_high=True)
        check.within("weight_decay", self.weight_decay, 0, math.inf)
        check.within("dropout", self.dropout, 0, 1, open_high=True)
        check.within("label_smoothing", self.label_smoothing, 0, 1, open_high=True)
        check.within("gradient_clip", self.gradient_clip, 0, math.inf)
        check.within("warmup_steps", self.warmup_steps, 0, math.inf)
        check.within("cooldown_fraction", self.cooldown_fraction, 0, 1)
        check.within("averaging", self.averaging, 0, 1, open_high=True)
        check.within("sharpness", self.sharpness, 0, math.inf)
        check.within("augmentation", self.augmentation, 0, 1)
        check.within("layer_decay", self.layer_decay, 0, 1, open_low=True)
        check.within("context", self.context, 2, math.inf)
        check.within("adapter_rank", self.adapter_rank, 1, math.inf)
        check.within("adapter_alpha", self.adapter_alpha, 0, math.inf, open_low=True)
        check.within("beta", self.beta, 0, math.inf, open_low=True)
        for size in self.resolution:
            check.within("resolution", size, 4, math.inf)
        for beta in self.betas:
            check.within("betas", beta, 0, 1, open_high=True)


class _Checker:
    """Range checks whose message names the setting, the value and the range."""

    def within(
        self,
        name: str,
        value: float | None,
        low: float,
        high: float,
        *,
        open_low: bool = False,
        open_high: bool = False,
    ) -> None:
        if value is None:
            return
        above = value > low if open_low else value >= low
        below = value < high if open_high or math.isinf(high) else value <= high
        if not (above and below):
            left = f"{'more than' if open_low else 'at least'} {low:g}"
            right = "" if math.isinf(high) else f" and {'less than' if open_high else 'at most'} {high:g}"
            raise PlanError(f"{name} is {value:g}; allowed: {left}{right}")


RECIPE_KEYS = tuple(field.name for field in fields(Recipe))


def with_settings(recipe: Recipe, settings: Mapping[str, Setting]) -> Recipe:
    """The recipe with some settings replaced. Raises PlanError for an unknown key."""
    for key in settings:
        if key not in RECIPE_KEYS:
            allowed = ", ".join(RECIPE_KEYS)
            raise PlanError(f"unknown key '{key}' in recipe; allowed: {allowed}.{nearest(key, RECIPE_KEYS)}")
    return replace(recipe, **settings)  # type: ignore[arg-type]  # the values were validated by planfile


@dataclass(frozen=True)
class Segment:
    """Some steps along one shape of the learning rate, from one point of its progress to another.

    A cooldown whose end moves, because the machine got slower, goes on from the progress it has reached,
    only steeper or flatter: that is why progress, not a step number, is what is kept.
    """

    steps: int
    shape: Shape
    peak: float
    progress_from: float = 0.0
    progress_to: float = 0.0

    def rates(self) -> list[float]:
        """The learning rate of each step (length `steps`); a warm-up ends at, a cooldown begins at, the peak."""
        return [self.peak * rate_share(self.shape, self._progress(i)) for i in range(self.steps)]

    def _progress(self, step: int) -> float:
        # A warm-up counts the step just begun, or its first step would be at rate zero and teach nothing.
        done = step + 1 if self.shape == "warmup" else step
        return self.progress_from + (self.progress_to - self.progress_from) * done / self.steps


def rate_share(shape: Shape, progress: float) -> float:
    """The rate as a share of the peak, at a point of a shape from 0 to 1.

    Sources: linear, arXiv 2502.15938; cosine, 1608.03983; 1-sqrt, 2405.18392.
    """
    match shape:
        case "warmup":
            return progress
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "1-sqrt":
            return 1.0 - math.sqrt(progress)


def rates(segments: Iterable[Segment]) -> list[float]:
    """The learning rates of several segments in a row."""
    return [rate for segment in segments for rate in segment.rates()]
