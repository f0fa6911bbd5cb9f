"""Trials and the windows they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from multistep.core.values.recipe import Recipe, Segment
from multistep.core.values.understood import Understood
from multistep.core.values.units import Amount

TrialKind = Literal["base", "trunk", "probe", "control", "move", "average", "rerun"]
Carry = Literal["all", "weights"]


@dataclass(frozen=True)
class Trial:
    """One attempt: start checkpoint + recipe + seed -> an evaluated checkpoint.

    `start` is a checkpoint id, or None for the phase's beginning. The trunk is proposed as a trial too, since
    it is run and resumed in the same way, but no verdict is given about it. `cooldown_steps` is what was
    planned when the trial was proposed; one `to_the_end` of the budget is stretched or shortened by the clock.

    Siblings of a round have a `length` instead, the same for each: steps, or seconds of training and looking.
    They train at the plateau's rate and cool down within it. `move` names the move that made the recipe; a
    "rerun" repeats a sibling with another seed. `carry` says what survives of the checkpoint's optimizer: all of
    its state, or none. `skip_examples` are passed over, since a spike came from them. An "average" takes no step:
    it is the mean of the checkpoints `of`. Nor does a "base": it is the model as the phase found it.
    """

    id: str
    phase: int
    kind: TrialKind
    start: str | None
    recipe: Recipe
    seed: int
    learning_rate: float
    cooldown_steps: int = 0
    to_the_end: bool = False
    length: Amount | None = None
    move: str | None = None
    carry: Carry = "all"
    skip_examples: int = 0
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weighed:
    """A candidate for the time that is left, as it stood when one was chosen.

    `mean` and `spread` are those of its gain over who leads, in the metric's unit; `worth` is the expected improvement
    of the final score; `cost` is in seconds, or in steps where the budget is not told in time. `chosen` is the one
    that was taken.
    """

    name: str
    mean: float
    spread: float
    worth: float
    cost: float
    chosen: bool = False


@dataclass(frozen=True)
class Proposal:
    """A trial, why it is tried, and what it was weighed against."""

    trial: Trial
    reason: str
    weighed: tuple[Weighed, ...] = ()


@dataclass(frozen=True)
class Window:
    """The steps between two evaluations, fixed before they are taken.

    `look` tells whether the fixed sample of the validation split is scored at their end. `resolution` is what
    images are trained at where the recipe names sizes.
    """

    trial: str
    segments: tuple[Segment, ...]
    look: bool
    resolution: int | None = None

    @property
    def steps(self) -> int:
        return sum(segment.steps for segment in self.segments)


@dataclass(frozen=True)
class Progress:
    """What a window of training did: the mean training loss in nats per label, and what was seen."""

    steps: int
    loss: float
    gradient_norm: float
    examples: int
    tokens: int

    @property
    def finite(self) -> bool:
        return self.loss - self.loss == 0 and self.gradient_norm - self.gradient_norm == 0


@dataclass(frozen=True)
class Fit:
    """How a machine computes the steps of a recipe. Other ways lead to the same, but for rounding.

    `of` tells what it was found for: the settings that matter, and the device. A pass holds at most `micro_batch`
    examples (None: the whole batch). `compiled`: the model's repeated blocks are; that took `compile_seconds`, and a
    step then took `ratio` of the seconds that it takes without (None: neither was timed). `recomputed`: activations
    are computed again for the gradient instead of being kept. `reason` is a sentence for people.
    """

    of: str
    micro_batch: int | None = None
    compiled: bool = False
    recomputed: bool = False
    compile_seconds: float | None = None
    ratio: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Facts:
    """What a learner says of itself and its data once, so that decisions need no torch.

    Tokens are labels that count in the loss; `sample_tokens` are those of the fixed part of the validation
    split that is looked at after each window, `validation_tokens` and `test_tokens` of whole splits (0: none);
    `closing_tokens` could be scored in the time that it takes to write what is shown of the model at the end.
    `pretrained` tells that the weights come from elsewhere, `able` that they can do the task before any training, so
    that they are scored as they are. `settings` are the recipe's keys that this model and
    task answer to beyond those that every torch model does; `optimizers` those that can be used here. `usage` is
    Python that loads the exported model, with {model} for its folder. `longest_context` is the most tokens that the
    model can read (None: no such limit). `loss_unit` is what the loss is counted in. `rivals` are complete recipes of
    the task's other networks that are worth a trial from nothing, best first; none where the user named a model.
    `foreseen_steps` are those that the plan's time is thought to hold; None where nobody can tell.
    `understood` is what people are told of all this. `speeds` are the operations a second that the device was measured
    to do, by the kind of work, and the `threads` of a CPU where one was faster; none where nothing was chosen by them.
    """

    parameters: int
    train_examples: int
    tokens_per_example: int
    sample_tokens: int
    validation_tokens: int
    test_tokens: int
    pretrained: bool
    device: str
    description: str
    notes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    longest_context: int | None = None
    optimizers: tuple[str, ...] = ("muon", "adamw", "sgd")
    usage: str = ""
    loss_unit: str = "nats per token"
    rivals: tuple[Recipe, ...] = ()
    able: bool = False
    closing_tokens: int = 0
    foreseen_steps: float | None = None
    understood: Understood = field(default_factory=Understood)
    speeds: Mapping[str, float] = field(default_factory=dict)

    @property
    def counted(self) -> str:
        """What the numbers of tokens count, as people call it: the labels of a task are not all tokens of a text."""
        if self.tokens_per_example == 1:
            return "examples"
        if "character" in self.loss_unit:
            return "characters"
        return "tokens" if any(word in self.loss_unit for word in ("token", "pair", "byte")) else "labels"
