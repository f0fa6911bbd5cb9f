"""What each kind of attempt brought in recorded runs, by situation: a table with its source, not code.

`priors.json` is made by `bench/priors.py` from the journals of real runs; docs/how-it-decides/priors.md shows it with
what it predicts of a set that was left out. A run's own experience is added to it as it goes on.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from multistep.core.evidence.expected import Gain, Link, Origin, in_common

Situation = Literal["improving", "plateau", "overfitting", "answered", "pretrained"]
# Where no row says more. In tolerances of the metric: most attempts bring nothing or hurt, some bring much.
UNKNOWN = Gain(-1.0, 4.0)
# Spreads: what lies further from what was expected counts as so far off. One collapse is no reason to give up all that
# can be done from a fork. With two, recorded attempts are foretold no better, and simulated runs from pretrained
# weights gave half of their time back.
FURTHEST = 1.0
TOLD = 0.5  # tolerances: how exactly a verdict tells what an attempt brought, at best; keeps the equations solvable
TABLE = "priors.json"


def prior(kind: str, situation: Situation, task: str = "any") -> Gain:
    """The gain over who leads of an attempt of this kind, in tolerances of the metric.

    The most particular row that there is: of the situation or of any, each on this kind of task or on any, then the
    same of all moves.
    """
    return most_particular(_rows(), kind, situation, task)


def most_particular(rows: Mapping[tuple[str, str, str], Gain], kind: str, situation: str, task: str) -> Gain:
    for name in (kind, "move"):
        for where in (situation, "any"):
            for whose in (task, "any"):
                if (name, where, whose) in rows:
                    return rows[name, where, whose]
    return UNKNOWN


def default_gain(kind: str) -> Gain:
    """Of a trial that nothing was weighed with: what the plan or a schedule asked for."""
    return _rows().get((kind, "any", "any"), UNKNOWN)


@dataclass(frozen=True)
class Attempted:
    """What an attempt brought over who led, in tolerances, beside what was known of its kind."""

    origin: Origin
    known: Gain
    brought: float


class Experience:
    """What a run has seen of attempts, for what is expected of the next one.

    The mean and the spread of a normal distribution given the others, with what they have in common
    (evidence/expected.py).
    """

    def __init__(self, attempts: Sequence[Attempted]) -> None:
        self._attempts = attempts
        self._spreads = np.array([a.known.spread for a in attempts])
        alike = np.array([[in_common(a.origin, b.origin) for b in attempts] for a in attempts])
        among = alike.reshape(len(attempts), len(attempts)) * np.outer(self._spreads, self._spreads)
        among[np.diag_indices(len(attempts))] = self._spreads**2 + TOLD**2
        self._inverse = np.linalg.inv(among)
        off = np.array([a.brought - a.known.mean for a in attempts])
        self._surprises = self._inverse @ np.clip(off, -FURTHEST * self._spreads, FURTHEST * self._spreads)

    def gain(self, origin: Origin, known: Gain) -> Gain:
        """Of one more attempt of this origin, in tolerances; `known` is what is known of its kind."""
        to_this = known.spread * self._spreads * np.array([in_common(origin, a.origin) for a in self._attempts])
        told = float(to_this @ self._inverse @ to_this)
        return Gain(known.mean + float(to_this @ self._surprises), math.sqrt(known.spread**2 - told))


@functools.cache
def _table() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))
    return found


@functools.cache
def _rows() -> Mapping[tuple[str, str, str], Gain]:
    rows = _table()["gains"]
    return {(r["kind"], r["situation"], r["task"]): Gain(float(r["mean"]), float(r["spread"])) for r in rows}


def link_of(metric: str, loss: str) -> Link:
    """How this loss goes with this metric."""
    rows = _table()["links"]
    links = {(row["metric"], row["loss"]): Link(float(row["ratio"]), float(row["correlation"])) for row in rows}
    return links.get((metric, loss), links["any", loss])
