"""What a finished model says of one input, and a model that is ready to say it of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from multistep.core.values.plan import DataSpec
from multistep.data.dialect import Reading
from multistep.data.table import Table
from multistep.errors import DataError, PlanError

AT_ONCE = 1000  # rows that are read, and answered, before the next are
LIKELIEST = 5  # classes that a prediction tells of, unless more are asked for
ANSWER_TOKENS = 256  # the most that an answer has, unless said otherwise


@dataclass(frozen=True)
class Asked:
    """How inputs are answered.

    `top_k` classes are told with their probabilities (None: the likeliest alone, as columns). `batch_size` inputs go
    through the model at once (None: as many as suit the task). `threshold` is the probability from which on the second
    of two classes, or each of several labels, is said; None: the one that was chosen with the model, else 0.5. `tokens`
    is the most that an answer to a prompt has.
    """

    tokens: int = ANSWER_TOKENS
    top_k: int | None = None
    batch_size: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        for name, given, holds, allowed in (
            ("top_k", self.top_k, self.top_k is None or self.top_k > 0, "1 or more"),
            ("batch_size", self.batch_size, self.batch_size is None or self.batch_size > 0, "1 or more"),
            ("threshold", self.threshold, self.threshold is None or 0 <= self.threshold <= 1, "0 to 1"),
            ("tokens", self.tokens, self.tokens > 0, "1 or more"),
        ):
            if not holds:
                raise PlanError(f"{name} is {given}; allowed: {allowed}")

    @property
    def told(self) -> int:
        """Classes that each prediction holds."""
        return max(self.top_k or 0, LIKELIEST)


@dataclass(frozen=True)
class Prediction:
    """`output` is a label, several of them, a number or a transcript; `probability` what the model gives it.

    `others` are the probabilities of the likeliest classes, the output's included. None and empty where the task
    knows none.
    """

    input: str
    output: str
    probability: float | None = None
    others: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        from multistep.core.evidence.brief import brief

        return (
            f"Prediction(input={self.input!r}, output={self.output!r}, probability={brief(self.probability)}, "
            f"others={brief(self.others)})"
        )


class Held(str):
    """An input that lies in a row itself, as the bytes of a file, say: it is called by where the row stands."""

    content: Any

    @classmethod
    def of(cls, where: str, content: object) -> Held:
        made = cls(where)
        made.content = content
        return made


@dataclass(frozen=True)
class Cut:
    """A part of a file, from `start` for so many `seconds` (None: to its end)."""

    file: str
    start: float
    seconds: float | None


# The columns of a table that an input is made of; and the input that a row's values in them make, as one would give it
# by hand, "" where there is none. Files are named from the folder of the table. What is no text is `Held`.
FindColumns: TypeAlias = Callable[[Table, DataSpec], tuple[str, ...]]
Join: TypeAlias = Callable[[Sequence[object], Path], object]
# The table that a file or a folder is in a form that the task alone knows; None: in none such.
Reads: TypeAlias = Callable[[Path, Reading], Table | None]
Says: TypeAlias = Callable[[Sequence[str]], list[Prediction | str]]


@dataclass(frozen=True)
class Predictor:
    """A loaded model. `says` gives for each input its prediction, or the sentence why it has none.

    `name` is what its answers are called, `numeric` whether they are numbers, `several` whether each is a set of
    labels, `probable` whether probabilities come with them, `unit` what an input is. `files` are the suffixes of files
    that are an input each; none where an input is a text. `paired` is whether a text is two of them; None where that
    is not known. `reads` finds tables in forms that the task alone knows.
    """

    says: Says
    find_columns: FindColumns
    join: Join
    unit: str = "text"
    name: str = "prediction"
    numeric: bool = False
    several: bool = False
    probable: bool = True
    at_once: int = AT_ONCE
    files: tuple[str, ...] = ()
    paired: bool | None = None
    reads: Reads = lambda *_: None

    def all(self, inputs: Sequence[str]) -> list[Prediction]:
        """What it says of every input. Raises DataError for the first that it can say nothing of."""
        found: list[Prediction] = []
        for said in self.says(inputs):
            if isinstance(said, str):
                raise DataError(said)
            found.append(said)
        return found


def file_from(values: Sequence[object], folder: Path) -> str:
    """The file that a row names, from the table's folder."""
    value = values[0]
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if not isinstance(value, str):
        raise DataError(f"a column of files holds {str(value)[:40]!r}, a {type(value).__name__}; allowed: their paths")
    return str(folder / Path(value.strip()).expanduser())


def is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)
