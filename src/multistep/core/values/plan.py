"""The plan: what the user asks for. Immutable; YAML, the command line and Python all make this value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from multistep.core.values.recipe import Setting
from multistep.core.values.units import Amount, Unit
from multistep.errors import PlanError, nearest

Stable = Literal["stable"]
Moves = tuple[str, ...] | Literal["auto"]
Ship = Literal["auto", "network"]
Keep = Literal["model", "all"]
DELIMITERS: Mapping[str, str] = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "\\t": "\t"}
ENCODINGS = ("utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16", "gb18030", "big5", "shift_jis", "euc-kr", "koi8-r")


@dataclass(frozen=True)
class DataSpec:
    """Where the data is: one `source` to be split, or one for each split.

    The columns of tables are guessed where that is obvious: `text_column` (of speech: the transcript),
    `second_text_column` of sentence pairs, `label_column`, `path_column` of image or audio files. `labels` says what
    labels are where their look might mislead: one class, several classes at once, or numbers. `train_on` says which
    tokens of conversations count: those of the assistant's turns, or all.

    `delimiter` (one character), `header` (whether the first row names the columns) and `encoding` are found in the
    files where they are None. `root` is the folder that a table's paths are relative to (None: the table's own).
    `class_weights` "balanced" weighs each example of a classification by how rare its class is in training.

    `validation_share` and `test_share` are the parts of train that are cut for these splits, 0.2 for a fifth (None: as
    each task does it; a test share of 0: no test split). Plans say `validation: 0.2` for them.

    Raises PlanError for a delimiter that is not one character and an encoding that Python does not know.
    """

    source: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    text_column: str | None = None
    second_text_column: str | None = None
    label_column: str | None = None
    path_column: str | None = None
    labels: Literal["auto", "class", "classes", "number"] = "auto"
    train_on: Literal["assistant", "all"] = "assistant"
    delimiter: str | None = None
    header: bool | None = None
    encoding: str | None = None
    root: str | None = None
    class_weights: Literal["none", "balanced"] = "none"
    validation_share: float | None = None
    test_share: float | None = None

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", _delimiter(self.delimiter))
        if self.encoding is not None:
            _check_encoding(self.encoding)

    @property
    def shares(self) -> Mapping[str, float]:
        """The parts of train that are to be cut, by split; what is not in it is left to the task."""
        given = {"validation": self.validation_share, "test": self.test_share}
        return {name: share for name, share in given.items() if share is not None}

    def __str__(self) -> str:
        return self.source or ", ".join(part for part in (self.train, self.validation, self.test) if part)


def _delimiter(given: str) -> str:
    """The character that is meant: itself, or one by its name, since a tab is hard to type."""
    character = DELIMITERS.get(given.lower(), given)
    if len(character) != 1 or character.isalnum() or character in '"\r\n':
        raise PlanError(
            f"delimiter is {given!r}; allowed: one character that is no letter, digit or quote, such as ';' or '|', or "
            f"its name: {', '.join(name for name in DELIMITERS if name.isalpha())}"
        )
    return character


def _check_encoding(given: str) -> None:
    try:
        "".encode(given)  # unlike a look-up alone, this refuses codecs that are not of text, such as base64
    except (LookupError, ValueError) as error:  # ValueError: a name with a null character
        raise PlanError(
            f"encoding is {given!r}; allowed: an encoding that Python knows, such as utf-8, cp1252, latin-1, utf-16, "
            f"gb18030, shift_jis, koi8-r.{nearest(given, ENCODINGS)}"
        ) from error


@dataclass(frozen=True)
class ModelSpec:
    """A preset from nothing (`name` an architecture, sizes open or given), or a folder or hub id.

    "auto" is a listed pretrained model where one can be had and tuned in time, else nothing; "scratch" is nothing.
    `candidates` are several such names instead of one, which are raced.
    """

    name: str = "auto"
    parameters: int | None = None
    layers: int | None = None
    width: int | None = None
    heads: int | None = None
    context: int | None = None
    tokenizer: Literal["auto", "characters", "bpe", "wordpiece"] = "auto"
    vocabulary: int | None = None
    candidates: tuple[str, ...] = ()

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates, or the one name."""
        return self.candidates or (self.name,)

    def named(self, *names: str) -> ModelSpec:
        """The same with these names."""
        one = len(names) == 1
        return replace(self, name=names[0] if one else "auto", candidates=() if one else names)


@dataclass(frozen=True)
class Guard:
    """What a phase must not forget: `data` whose validation part is scored before the phase and after each attempt.

    `metric` is one of that data (None: its task's), `at_most_worse` in the metric's unit (None: a multiple of the
    metric's tolerance, `core.choice.guards.WORSE`).
    """

    data: DataSpec
    metric: str | None = None
    at_most_worse: float | None = None

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True)
class Phase:
    """One entry of a plan; what is None is the plan's. `recipe` holds the given settings alone."""

    name: str
    task: str | None = None
    data: DataSpec | None = None
    metric: str | None = None
    recipe: Mapping[str, Setting] = field(default_factory=dict)
    until: Amount | Stable | None = None
    moves: Moves | None = None
    guard: Guard | None = None

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True)
class Plan:
    """A run in full. Only `task` and `data` are needed.

    Without phases there is one, named "plain", that takes the whole budget. `tolerance` is the improvement,
    in the metric's unit, that is too small to wait for (None: a share of the score that the metric fixes).
    `moves` names those that a phase may try once the plain run needs no more; "auto" for all, none for no moves.
    `ship` is "auto" for whatever leads on validation, network or baseline, and "network" for the network anyway.
    `keep` is "all" for the checkpoints too once the run has ended, "model" for what uses and explains the model.
    """

    task: str
    data: DataSpec
    model: ModelSpec = ModelSpec()
    metric: str | None = None
    budget: Amount | None = None
    seed: int = 0
    tolerance: float | None = None
    recipe: Mapping[str, Setting] = field(default_factory=dict)
    moves: Moves = "auto"
    ship: Ship = "auto"
    keep: Keep = "model"
    phases: tuple[Phase, ...] = ()

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def phase(self, index: int) -> Phase:
        """The phase with the plan's own values where it has none; the plan's recipe lies below the phase's.

        The plan's metric is for its own task alone: a phase of another task means something else by a score.
        """
        own = self.phases[index] if self.phases else Phase(name="plain")
        return Phase(
            name=own.name,
            task=own.task or self.task,
            data=own.data or self.data,
            metric=own.metric or (self.metric if own.task in (None, self.task) else None),
            recipe={**self.recipe, **own.recipe},
            until=own.until,
            moves=self.moves_of(index),
            guard=own.guard,
        )

    def moves_of(self, index: int) -> Moves:
        """The moves that a phase may try: its own, or the plan's."""
        own = self.phases[index].moves if self.phases else None
        return self.moves if own is None else own

    @property
    def phase_count(self) -> int:
        return max(1, len(self.phases))

    @property
    def timed(self) -> bool:
        """Whether the clock may decide anything that changes bits."""
        amounts = [self.budget, *(phase.until for phase in self.phases)]
        return any(isinstance(amount, Amount) and amount.unit is Unit.SECONDS for amount in amounts)
