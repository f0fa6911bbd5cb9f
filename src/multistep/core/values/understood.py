"""What a run understood of data, model and machine before it trains: one value, in one set of words everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_CLASSES_NAMED = 12  # of more, the largest and the smallest are named
LARGEST, SMALLEST = 3, 2  # as many of each


@dataclass(frozen=True)
class Part:
    """One split and how much it holds, of up to two kinds: 1,000 documents, 52,000 tokens; 0 of nothing."""

    name: str
    size: int
    unit: str
    tokens: int = 0

    def __str__(self) -> str:
        tokens = f" ({self.tokens:,} tokens)" if self.tokens else ""
        return f"{self.name} {self.size:,} {one_or_many(self.size, self.unit)}{tokens}" if self.size else self.name


@dataclass(frozen=True)
class Understood:
    """What a run reads, trains and runs on. `lines` are what people are shown; the fields are for other programs.

    `classes` counts the training examples of each class, `labels` says in words what labels are that are no classes;
    `columns`, `cut`, `duplicates` and `left_out` are sentences that name the source. `checked` tells whether the splits
    were searched for examples that stand in two of them. `training` says what a step reads and what memory is asked
    for, `expected` how many steps and epochs the budget is thought to hold, and by what that was reckoned. `notes` are
    what else was guessed or changed.
    """

    data: str = ""
    columns: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    labels: str = ""
    splits: tuple[Part, ...] = ()
    cut: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    checked: bool = True
    left_out: tuple[str, ...] = ()
    language: str = ""
    model: str = ""
    parameters: int = 0
    weights: str = ""
    device: str = ""
    precision: str = ""
    training: tuple[str, ...] = ()
    expected: str = ""
    budget: str = ""
    notes: tuple[str, ...] = ()

    def lines(self) -> tuple[tuple[str, str], ...]:
        """A name and a sentence each, in the order in which they are shown; what does not apply is missing."""
        if not self.model:
            return ()  # of a run that was recorded before this was told
        parts = ", ".join(map(str, self.splits))
        duplicates = "none between training and held-out data" if self.checked else ""
        device = ", ".join(part for part in (self.device, self.precision) if part)
        found = (
            ("data", self.data),
            ("columns", "; ".join(self.columns)),
            ("classes", classes_in_words(self.classes)),
            ("labels", self.labels),
            ("splits", "; ".join(part for part in (parts, *self.cut) if part)),
            ("duplicates", "; ".join(self.duplicates) or duplicates),
            ("left out", "; ".join(said.removeprefix("left out, ") for said in self.left_out) or "nothing"),
            ("language", self.language),
            ("model", f"{self.model}; {self.parameters:,} parameters"),
            ("weights", self.weights),
            ("device", device),
            ("training", "; ".join(self.training)),
            ("budget", self.budget),
            ("expected", self.expected),
        )
        return tuple((name, said) for name, said in found if said)


def classes_in_words(classes: Mapping[str, int]) -> str:
    """`2 in training: ham 4,825, spam 747`, the largest first; of many classes the largest and the smallest."""
    ordered = sorted(classes.items(), key=lambda pair: -pair[1])
    if not ordered:
        return ""
    counted = f"{len(ordered)} in training"
    if len(ordered) <= MOST_CLASSES_NAMED:
        return f"{counted}: {_counts(ordered)}"
    return f"{counted}; the largest: {_counts(ordered[:LARGEST])}; the smallest: {_counts(ordered[-SMALLEST:])}"


def _counts(pairs: list[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in pairs)


def one_or_many(count: int, many: str) -> str:
    """`example` for one of `examples`."""
    return many.removesuffix("s") if count == 1 else many
