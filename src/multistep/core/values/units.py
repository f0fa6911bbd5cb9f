"""Amounts of training: seconds, steps, epochs or tokens, as a user writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from multistep.errors import PlanError, nearest


class Unit(StrEnum):
    SECONDS = "seconds"
    STEPS = "steps"
    EPOCHS = "epochs"
    TOKENS = "tokens"


@dataclass(frozen=True)
class Amount:
    """So many seconds, steps, epochs or tokens; `value` > 0."""

    value: float
    unit: Unit

    def __str__(self) -> str:
        if self.unit is Unit.SECONDS:
            return format_seconds(self.value)
        number = f"{self.value:,.0f}" if self.value == int(self.value) else f"{self.value:g}"
        return f"{number.replace(',', '')} {self.unit.value}"


_SCALE = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}
_TIME = {
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
_COUNT = {"step": Unit.STEPS, "epoch": Unit.EPOCHS, "token": Unit.TOKENS}
_COUNT_PATTERN = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([kKMGB]?)\s*([A-Za-z]+)")
_TIME_PATTERN = re.compile(r"([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*")
_NUMBER = re.compile(r"-?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?")
ALLOWED_AMOUNTS = "'90s', '10m', '1h30m', '150 steps', '3 epochs', '2M tokens'"
_ENDLESS = ("inf", "infinite", "infinity", "unlimited", "none", "forever", "endless", "-1")
_FIGURES: Mapping[str, str] = {
    **{"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "eight": "8", "ten": "10"},
    **{"twelve": "12", "fifteen": "15", "twenty": "20", "thirty": "30", "forty": "40", "sixty": "60", "ninety": "90"},
}
# Spoken amounts, in the order in which they are put in figures; what comes of it is offered, never taken.
_SPOKEN: tuple[tuple[str, str], ...] = (
    (r"\ban? (\w+) and a half\b", r"1.5 \1"),
    (r"\bhalf (an? |of an? )?", "0.5 "),
    (r"\b(a )?quarter (of )?an? ", "0.25 "),
    (r"\ban? (?=\S)", "1 "),
    *((rf"\b{word}\b", figure) for word, figure in _FIGURES.items()),
    (r"\b(and|about|for|around|circa)\b|[~;&+]", " "),
    (r"(?<=[0-9])[,_'](?=[0-9]{3}\b)", ""),
    (r"(?<=[0-9]),(?=[0-9])", "."),
    (r"(?<=[a-z]),", " "),
)


def parse_amount(text: str) -> Amount:
    """Read `10m`, `1h30m`, `10 minutes`, `150 steps`, `3 epochs`, `2M tokens`.

    Raises PlanError for a missing or unknown unit and for amounts that are not positive; of what is written in another
    way it says how it is written here.
    """
    stripped = text.strip()
    amount = _parse_time(stripped) or _parse_count(stripped)
    if amount is None and stripped.startswith("-") and stripped != "-1":
        amount = Amount(-1.0, Unit.SECONDS)
    if amount is None:
        if _NUMBER.fullmatch(stripped) and stripped not in _ENDLESS:
            raise PlanError(
                f"the amount '{text}' has no unit; allowed: {_with_units(stripped)}, or any of {ALLOWED_AMOUNTS}"
            )
        raise PlanError(f"cannot read the amount '{text}'; allowed: {ALLOWED_AMOUNTS}.{_meant(stripped)}")
    if not 0 < amount.value < float("inf"):
        raise PlanError(f"the amount '{text}' is not positive; allowed: {ALLOWED_AMOUNTS}")
    return amount


def amount_of_seconds(seconds: float) -> Amount:
    """A `datetime.timedelta` in seconds, for instance. Raises PlanError if it is not positive."""
    return parse_amount(f"{seconds:f}s" if seconds >= 0 else "0s")


def _with_units(number: str) -> str:
    """What a bare number may mean: `20s (seconds), 20m (minutes), 20h (hours), '20 steps', '20 epochs'`."""
    times = ", ".join(f"'{number}{unit[0]}' ({unit})" for unit in ("seconds", "minutes", "hours"))
    return f"{times}, '{number} steps', '{number} epochs'"


def _meant(text: str) -> str:
    """What somebody may have meant by an amount that cannot be read, with a space before it; or nothing."""
    lower = text.lower()
    if lower in _ENDLESS:
        return " Leave it out for no limit."
    if match := re.fullmatch(r"(\d+):(\d\d)(?::(\d\d))?", text):
        first, second, third = match.groups()
        if third is None:
            return f" Did you mean '{int(first)}m{int(second)}s' or '{int(first)}h{int(second)}m'?"
        return f" Did you mean '{int(first)}h{int(second)}m{int(third)}s'?"
    if match := re.fullmatch(r"([0-9.]+)\s*M", text):
        return f" Did you mean '{match[1]}m' (minutes) or '{match[1]}M tokens'?"
    for pattern, figure in _SPOKEN:
        lower = re.sub(pattern, figure, lower)
    lower = " ".join(lower.split())
    if lower != text and (amount := _parse_time(lower) or _parse_count(lower)):
        return f" Did you mean '{amount}'?"
    if match := re.fullmatch(r"([^A-Za-z].*?)([A-Za-z]+)", text):
        units = [*_TIME, *(f"{word}s" for word in (*_COUNT, "minute", "hour"))]
        return nearest(match[2].lower(), units).replace("'", f"'{match[1]}", 1)
    return ""


def _parse_time(text: str) -> Amount | None:
    seconds, end = 0.0, 0
    while match := _TIME_PATTERN.match(text, end):
        unit = match[2] if match[2] in _TIME else match[2].lower().removesuffix("s") if len(match[2]) > 1 else ""
        if unit not in _TIME:
            return None
        seconds += float(match[1]) * _TIME[unit]
        end = match.end()
    return Amount(seconds, Unit.SECONDS) if end and end == len(text) else None


def _parse_count(text: str) -> Amount | None:
    match = _COUNT_PATTERN.fullmatch(text)
    if not match:
        return None
    unit = _COUNT.get(match[3].lower().removesuffix("s"))
    return Amount(float(match[1]) * _SCALE[match[2]], unit) if unit else None


def format_seconds(seconds: float) -> str:
    """`8.5s`, `3m`, `3m20s`, `2h05m`: short enough for a live view, exact enough to be read back."""
    if seconds < 60:
        return f"{seconds:.3g}s"
    whole = round(seconds)
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes}m{rest:02d}s" if rest else f"{minutes}m"
    hours, rest = divmod(whole, 3600)
    return f"{hours}h{rest // 60:02d}m" if rest >= 60 else f"{hours}h"
