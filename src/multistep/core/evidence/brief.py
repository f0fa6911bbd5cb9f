"""Values that print short, while they stay exact: nobody reads sixteen digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DIGITS = 4  # of a number that is printed; an interval of scores is hardly ever known to more


class Brief(dict[str, Any]):
    """A dict whose numbers print in four digits; so do those of the dicts within it."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__({key: Brief(value) if type(value) is dict else value for key, value in content.items()})

    def __repr__(self) -> str:
        return brief(self)


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
