"""The protocol that a backend fulfils. Engine and learner meet once per window, never per batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Carry, Facts, Fit, Progress

HeldOut = Literal["validation", "test"]
Split = Literal["validation", "test", "guard"]  # guard: what the phase must not forget, where it names that
TEXT_METRICS = ("loss", "perplexity", "bits_per_byte")
NO_FORM = "a baseline of this task cannot be saved as a model"


class Interrupted(Exception):
    """Raised by `advance` between two steps when it was asked to stop; the window is lost, nothing else."""


@dataclass(frozen=True)
class GuardReady:
    """What was found when a guard's data was read: its fingerprint, its metrics, the default first, its loss's unit."""

    fingerprint: str
    metrics: tuple[str, ...]
    loss_unit: str


@dataclass(frozen=True)
class Readiness:
    """What a learner found when its data and model were read: the recipe with the preset filled in."""

    facts: Facts
    recipe: Recipe
    rate_open: bool
    fingerprint: str  # of the phase's data: an leader is comparable where it is the same
    metrics: tuple[str, ...] = TEXT_METRICS  # that it can be judged by, the default first
    models: tuple[str, ...] = ()  # names that `model: auto` came to, which a resumed run is given; none: all were given
    guard: GuardReady | None = None  # of a phase that names one


@dataclass(frozen=True)
class Picture:
    png: str  # base64
    caption: str


@dataclass(frozen=True)
class Exhibit:
    """Outputs of the model for people to look at: texts, a table, or pictures. `shaded` tables hold counts."""

    title: str
    texts: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    shaded: bool = False
    pictures: tuple[Picture, ...] = ()


class Learner(Protocol):
    """Trains one phase. It behaves as if rebuilt from (checkpoint, recipe), whatever it keeps."""

    def initial(self, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        """The weights that the first phase starts from: fresh ones, or a pretrained model's."""

    def load(self, folder: Path, recipe: Recipe, seed: int, *, carry: Carry = "all", skip_examples: int = 0) -> None:
        """Continue from what `save` wrote: exactly, if the recipe is the same, everything is carried, none skipped.

        With `carry` "weights" the weights, their average and the place in the data are kept and the optimizer
        starts anew. Raises PlanError if an optimizer's state is to be carried to another optimizer.
        """

    def adopt(self, folder: Path, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        """Begin anew, with fresh optimizer state and data order, from the weights that another phase saved.

        Of a phase of another task, those that both models have. Raises PlanError if they share none.
        """

    def average(self, folders: Sequence[Path], recipe: Recipe, seed: int) -> None:
        """Stand at the uniform mean of the averaged weights that `save` wrote, with fresh optimizer state.

        Statistics of batch normalisation, which no mean of weights can give, are computed anew.
        """

    def prepare(self, known: Mapping[str, Fit], seconds_left: float | None) -> Callable[[], None] | None:
        """What is to be done before the next step, such as compiling; None if nothing is.

        `known` is what was found before, by what it is of; that is repeated, all else measured. `seconds_left` of the
        budget is for what pays only after a while; None where the clock may not decide anything.
        """

    @property
    def fit(self) -> Fit | None:
        """How steps are computed now; None if by rule alone. Running out of memory may change it between two steps."""

    def advance(self, rates: Sequence[float], *, resolution: int | None = None) -> Progress:
        """Take one step per learning rate, with images of that size. Raises Interrupted."""

    def evaluate(self, split: Split, *, sample: bool) -> Evaluation:
        """Score a split, or its fixed sample, with averaged weights. Changes nothing, random state included.

        Of what must not be forgotten ("guard") there is a sample alone.
        """

    def save(self, folder: Path) -> None:
        """Write all that is needed to continue exactly. The engine publishes the folder."""

    def export(self, folder: Path, card: str) -> str:
        """Write the averaged weights as a model folder for use elsewhere, `card` as its README.

        Returns the SHA-256 of the weights.
        """

    def fold(self, temperature: float) -> bool:
        """Have the averaged weights give logits divided by `temperature`, exactly; before `export` alone.

        Returns whether they do: false, with nothing changed, where no last layer gives the logits.
        """

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        """A trivial model's name and its evaluation of a split."""

    def write_baseline(self, folder: Path) -> str:
        """Write the very baseline that was scored as a model folder that is safe to load.

        Returns an empty string; or why it cannot be written (`NO_FORM`, or what is to be installed), as the second
        half of a sentence.
        """

    def exhibits(self) -> Sequence[Exhibit]:
        """A few outputs of the model for people to look at, the most telling first."""


class Workshop(Protocol):
    """What a task provides to the engine: a learner for each phase of a plan."""

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        """Read the phase's data and build what trains on it. Raises PlanError or DataError.

        The plan names the models that an earlier start of this run chose, if it left them open.
        """

    def versions(self) -> Mapping[str, str]:
        """The versions that the result depends on, and the hardware, for the record."""
