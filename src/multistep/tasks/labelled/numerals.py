"""Numbers as people and programs write them: 1,234.5 and 1.234,5, $12.50, 7 %."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

_AROUND = re.compile(r"(?:[$€£¥₹%]|USD|EUR|GBP)")  # what stands before or behind a number and is no part of it


@dataclass(frozen=True)
class Notation:
    """How the numbers of a column are written: which texts are numbers, which mark parts thousands, which fractions."""

    pattern: re.Pattern[str]
    thousands: str = ""
    fraction: str = "."

    def number(self, value: object) -> float | None:
        """The number that a value is; None where it is none in this notation."""
        if not isinstance(value, str):
            return float(value) if isinstance(value, int | float | Decimal) else None
        if not self.pattern.fullmatch(text := bare(value)):
            return None
        if self.thousands:
            text = text.replace(self.thousands, "")
        return float(text.replace(self.fraction, "."))


PLAIN = Notation(re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?(inf|infinity)", re.IGNORECASE))
_ENGLISH = Notation(re.compile(r"[-+]?([1-9]\d{0,2}(,\d{3})+|\d{1,3})(\.\d+)?"), thousands=",")
_COMMA = Notation(re.compile(r"[-+]?\d+(,\d+)?"), fraction=",")
_GERMAN = Notation(re.compile(r"[-+]?([1-9]\d{0,2}(\.\d{3})+|\d{1,3})(,\d+)?"), thousands=".", fraction=",")
# By an example of each. The first that fits a column counts: 1,234 alone is a thousand and more.
NOTATIONS: Mapping[str, Notation] = {"1234.5": PLAIN, "1,234.5": _ENGLISH, "1234,5": _COMMA, "1.234,5": _GERMAN}


def bare(text: str) -> str:
    """A text without signs of money and per cent."""
    return _AROUND.sub("", text).strip()


def notation_of(values: Sequence[object]) -> Notation:
    """The notation in which most values of a column are numbers."""
    texts = Counter(value for value in values if isinstance(value, str))  # what is none is read alike in each notation
    return max(
        NOTATIONS.values(), key=lambda how: sum(count for text, count in texts.items() if how.number(text) is not None)
    )


def name_of(notation: Notation) -> str:
    """By which NOTATIONS have it."""
    return next(name for name, each in NOTATIONS.items() if each is notation)


def numbers_in(values: Sequence[object]) -> list[float] | None:
    """A column as numbers; None where one of its values is none."""
    notation = notation_of(values)
    known: dict[str, float | None] = {}  # values come back, of labels above all
    found: list[float] = []
    for value in values:
        if isinstance(value, str):
            number = known[value] if value in known else known.setdefault(value, notation.number(value))
        else:
            number = notation.number(value)
        if number is None:
            return None
        found.append(number)
    return found


def is_decorated(values: Sequence[object]) -> bool:
    """Whether values are numbers that Python does not read as they are written, commas for fractions aside."""
    texts = [value for value in values if isinstance(value, str)]
    notation = notation_of(values)
    if len(texts) < len(values) or numbers_in(values) is None:
        return False
    marked = [
        text for text in texts if bare(text) != text.strip() or (notation.thousands and notation.thousands in text)
    ]
    return len(marked) > len(texts) / 2 or (notation in (_ENGLISH, _GERMAN) and bool(marked))
