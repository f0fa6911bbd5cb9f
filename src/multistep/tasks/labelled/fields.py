"""One field of a column of labels: what it looks like, whether it is empty, and the list that it holds."""

from __future__ import annotations

import ast
import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np

from multistep.errors import DataError

SEPARATORS = ("|", ";", ",", "\t")
SPACE = " "  # between tags, which are single words
PARTS_REPEAT = 2  # times that a part occurs in different labels, on average: above, labels look joined of several
MISSING = frozenset({"nan", "n/a", "#n/a", "null", "<na>"})  # as programs write that there is nothing
UNLABELLED = -1  # how data sets mark rows whose labels are kept secret
_LISTED = re.compile(r"""\[.*\]|\(['"].*\)|\{['"][^:]*['"]\}""", re.DOTALL)  # a list, tuple or set, written out
_OF_NUMPY = re.compile(r"\[\s*[\d.]+(\s+[\d.]+)*\s*\]")


def is_missing(value: object, *, several: bool = False, named: bool = False) -> bool:
    """Whether a row has no label: nothing or NaN; where numbers are `named`, the -1 of sets that keep theirs secret.

    Where a row can have `several`, an empty field says that it has none of them.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    if isinstance(value, str) and not value.strip():
        return not several
    if isinstance(value, str) and value.strip().lower() in MISSING:
        return True
    return named and value == UNLABELLED


WORDS: Mapping[str, str] = {
    "whole": "a whole number",
    "fraction": "a number",
    "word": "a word",
    "list": "a list",
    "other": "neither text nor number nor list",
}


def look(value: object) -> str:
    """What a value seems to be: a key of `WORDS`."""
    if isinstance(value, list | tuple | np.ndarray):
        return "list"
    if isinstance(value, bool):
        return "word"
    if isinstance(value, int):
        return "whole"
    if isinstance(value, float | Decimal):
        return "whole" if value % 1 == 0 else "fraction"
    if not isinstance(value, str):
        return "other"
    return _look_of_text(value)


@functools.lru_cache(maxsize=2**16)  # labels come back
def _look_of_text(text: str) -> str:
    try:
        return "whole" if float(text).is_integer() and "e" not in text.lower() else "fraction"
    except (ValueError, OverflowError):
        return "list" if _LISTED.fullmatch(text.strip()) else "word"


def joined_hint(names: Sequence[str]) -> list[str]:
    """A hint where most labels look like several in one field: drama|comedy, the parts of which come back in others."""
    different = set(names)
    for mark in SEPARATORS:
        parts = [part.strip() for name in different for part in name.split(mark)]
        if sum(mark in name for name in names) > len(names) / 2 and len(parts) >= PARTS_REPEAT * len(set(parts)):
            example = next(name for name in sorted(different) if mark in name)
            return [
                f"most labels hold '{mark}', such as '{example}', and their parts come back in others; if these are "
                "several classes in one field, say --set data.labels=classes"
            ]
    return []


def has_decimal_commas(values: Sequence[object]) -> bool:
    """Whether texts are numbers such as 0,06: at most one comma in each, and one in most."""
    texts = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    if not texts or not all(re.fullmatch(r"[-+]?\d+(,\d+)?", text) for text in texts):
        return False
    return sum("," in text for text in texts) > len(texts) / 2


def are_numbered(values: Sequence[object]) -> bool:
    """Whether texts are lists of whole numbers such as 0,27, or one of them, and some are of several."""
    texts = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    matched = all(re.fullmatch(r"\d+([,;|] ?\d+)*", text) for text in texts)
    return matched and any(mark in text for text in texts for mark in ",;|")


def list_in(text: str, where: str) -> Sequence[object]:
    """`["a", "b"]`, `['a', 'b']`, `{'a'}`, `('a',)` or NumPy's `[0 1]` in a field of a CSV."""
    try:
        return list(json.loads(text))
    except (ValueError, TypeError):
        try:
            if _OF_NUMPY.fullmatch(text.strip()):
                text = re.sub(r"(?<=[\d.])\s+(?=\d)", ", ", text)
            found = ast.literal_eval(text)
            return sorted(found) if isinstance(found, set) else list(found)
        except (ValueError, SyntaxError, TypeError):
            raise DataError(f"{where}: the labels {text!r} look like a list but are none; mend the row") from None
