"""What each kind of attempt brought in recorded runs, by situation: a table with its source, not code.

`priors.json` is made by `bench/priors.py` from the journals of real runs; docs/how-it-decides/priors.md shows it with
what it predicts of a set that was left out. A run's own experience is added to it as it goes on.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Literal

from multistep.core.evidence.expected import Gain, Link

Situation = Literal["improving", "plateau", "overfitting", "answered", "pretrained"]
# Where no row says more. In tolerances of the metric: most attempts bring nothing or hurt, some bring much.
UNKNOWN = Gain(-1.0, 4.0)
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


def learned(before: Gain, seen: Sequence[float]) -> Gain:
    """The gain of one more attempt of a kind that brought as much in this run from other forks, in tolerances.

    Forks differ as much among each other as runs do, so what was seen counts as much as what was known.
    """
    if not seen:
        return before
    many = len(seen)
    return Gain((before.mean + sum(seen)) / (1 + many), before.spread * ((1 / (1 + many) + 1) / 2) ** 0.5)


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
