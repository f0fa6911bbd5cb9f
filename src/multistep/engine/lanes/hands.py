"""The hands that trials side by side are done by, one for each lane: processes here, tasks on a cluster, or simulated.

A hand is asked for one thing at a time, and nobody waits for it but whoever waits for any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Carry, Fit, Progress
from multistep.engine.asking import Ask
from multistep.engine.learner import Exhibit, Learner, Readiness, Split
from multistep.errors import RunFailed


class HandLost(Exception):
    """A hand is gone, with all that it held; the message says what is known of why."""


@dataclass(frozen=True)
class Answer:
    """What a hand says: a value, or the error that it met; and the seconds that it took."""

    value: Any = None
    error: Exception | None = None
    seconds: float = 0.0


class Hands(Protocol):
    """Lanes are counted from 0 here; people count them from 1."""

    @property
    def names(self) -> Sequence[str]:
        """What each lane computes on, for people."""

    def open(self, lane: int, plan: Plan, phase: int) -> None:
        """Have a hand read a phase's data and build its learner, in a new process if it was lost; the answer is a
        `Readiness`.
        """

    def begin(self, lane: int, ask: Ask) -> None:
        """Ask a hand for something; its answer comes by `wait`."""

    def wait(self, lane: int | None = None) -> tuple[int, Answer]:
        """The next answer of any hand, or of that one. Of one that was lost, the error is a HandLost."""

    def versions(self) -> Mapping[str, str]:
        """What the results of the first hand depend on: versions, hardware."""


class HandLearner:
    """A hand as a learner that one waits for. Implements engine.learner.Learner."""

    def __init__(self, hands: Hands, lane: int = 0) -> None:
        self._hands, self._lane = hands, lane

    def _ask(self, verb: str, *arguments: Any, **keywords: Any) -> Any:
        self._hands.begin(self._lane, Ask(verb, arguments, keywords))
        return said(self._hands.wait(self._lane)[1])

    def initial(self, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        self._ask("initial", recipe, seed, skip_examples=skip_examples)

    def load(self, folder: Path, recipe: Recipe, seed: int, *, carry: Carry = "all", skip_examples: int = 0) -> None:
        self._ask("load", folder, recipe, seed, carry=carry, skip_examples=skip_examples)

    def adopt(self, folder: Path, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        self._ask("adopt", folder, recipe, seed, skip_examples=skip_examples)

    def average(self, folders: Sequence[Path], recipe: Recipe, seed: int) -> None:
        self._ask("average", list(folders), recipe, seed)

    def prepare(self, known: Mapping[str, Fit], seconds_left: float | None) -> Callable[[], None] | None:
        return (lambda: self._ask("do")) if self._ask("prepare", dict(known), seconds_left) else None

    @property
    def fit(self) -> Fit | None:
        found: Fit | None = self._ask("fit")
        return found

    def advance(self, rates: Sequence[float], *, resolution: int | None = None) -> Progress:
        found: Progress = self._ask("advance", list(rates), resolution=resolution)
        return found

    def evaluate(self, split: Split, *, sample: bool) -> Evaluation:
        found: Evaluation = self._ask("evaluate", split, sample=sample)
        return found

    def save(self, folder: Path) -> None:
        self._ask("save", folder)

    def export(self, folder: Path, card: str) -> str:
        return str(self._ask("export", folder, card))

    def fold(self, temperature: float) -> bool:
        return bool(self._ask("fold", temperature))

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        found: tuple[str, Evaluation] = self._ask("baseline", split)
        return found

    def write_baseline(self, folder: Path) -> str:
        return str(self._ask("write_baseline", folder))

    def exhibits(self) -> Sequence[Exhibit]:
        return list(self._ask("exhibits"))


class HandWorkshop:
    """Opens phases in the first of several hands. Implements engine.learner.Workshop."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        self._hands.open(0, plan, phase)
        return HandLearner(self._hands), said(self._hands.wait(0)[1])

    def versions(self) -> Mapping[str, str]:
        return {**self._hands.versions(), "lanes": str(len(self._hands.names))}


def said(answer: Answer) -> Any:
    """Its value. Raises its error, and RunFailed where the hand was lost."""
    if isinstance(answer.error, HandLost):
        raise RunFailed(f"the process of the first lane was lost ({answer.error}); resume the run") from answer.error
    if answer.error:
        raise answer.error
    return answer.value


def differs(first: Readiness, other: Readiness) -> str:
    """In what another lane's phase is not the first one's; empty where they are the same."""
    found = [
        ("data", first.fingerprint, other.fingerprint),
        ("model", f"{first.facts.parameters:,} parameters", f"{other.facts.parameters:,} parameters"),
        ("recipe", str(first.recipe), str(other.recipe)),
    ]
    if first.guard or other.guard:
        found.append(("guard's data", str(first.guard), str(other.guard)))
    return "; ".join(f"{what}: {one} and {two}" for what, one, two in found if one != two)
