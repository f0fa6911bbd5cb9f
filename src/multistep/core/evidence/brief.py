"""Values that print short, while they stay exact: nobody reads sixteen digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DIGITS = 4  # of a number that is printed; an interval of scores is hardly ever known to more
LEAST_PLAIN, MOST_PLAIN = 1e-5, 1e15  # beyond, people count zeros, and powers of ten are written


class Brief(dict[str, Any]):
    """A dict whose numbers print in four digits; so do those of the dicts within it."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__({key: Brief(value) if type(value) is dict else value for key, value in content.items()})

    def __repr__(self) -> str:
        return brief(self)


def in_single_precision(value: float) -> str:
    """The fewest digits that read back as the same number of single precision, which models reckon in: 1234567.8."""
    import numpy as np  # by whoever predicts; what only prints does without

    with np.errstate(over="ignore"):
        single = np.float32(value)
    if not np.isfinite(single):
        return str(value)
    readable = single == 0 or LEAST_PLAIN <= abs(single) <= MOST_PLAIN
    write = np.format_float_positional if readable else np.format_float_scientific
    return write(single, trim="-")


def brief(value: object) -> str:
    """What `repr` says, with numbers in four digits: `{'score': 0.8417, 'n': 1118}`."""
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}" if abs(value) < 10**DIGITS else f"{value:.0f}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {brief(item)}" for key, item in value.items()) + "}"
    if type(value) in (list, tuple):
        said = ", ".join(map(brief, value))  # type: ignore[call-overload]
        return f"[{said}]" if isinstance(value, list) else f"({said}{',' if said.count(',') == 0 and said else ''})"
    return repr(value)
