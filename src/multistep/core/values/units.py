"""Amounts of training: seconds, steps, epochs or tokens, as a user writes them."""

from __future__ import annotations

import re
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
    "hour": 3600.0,
}
_COUNT = {"step": Unit.STEPS, "epoch": Unit.EPOCHS, "token": Unit.TOKENS}
_COUNT_PATTERN = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([kKMGB]?)\s*([A-Za-z]+)")
_TIME_PATTERN = re.compile(r"([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*")
ALLOWED_AMOUNTS = "'90s', '10m', '1h30m', '150 steps', '3 epochs', '2M tokens'"


def parse_amount(text: str) -> Amount:
    """Read `10m`, `1h30m`, `150 steps`, `3 epochs`, `2M tokens`.

    Raises PlanError for a missing or unknown unit and for amounts that are not positive.
    """
    stripped = text.strip()
    amount = _parse_time(stripped) or _parse_count(stripped)
    if amount is None:
        words = re.findall(r"[A-Za-z]+", stripped)
        hint = nearest(words[-1], [*_TIME, *(f"{word}s" for word in _COUNT)]) if words else " Add a unit."
        raise PlanError(f"cannot read the amount '{text}'; allowed: {ALLOWED_AMOUNTS}.{hint}")
    if not 0 < amount.value < float("inf"):
        raise PlanError(f"the amount '{text}' is not positive; allowed: {ALLOWED_AMOUNTS}")
    return amount


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
