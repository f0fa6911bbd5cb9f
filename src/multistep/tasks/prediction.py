"""What a finished model says of one input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
