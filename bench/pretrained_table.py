"""What the sets of bench/pretrained.py are trained and judged with, and the table of what came out."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ENCODED = ("sst2", "docstrings")
CONVERSED = ("asked-sst2", "asked-chnsenticorp", "continued-songci")
RUN = ("seconds", "in training", "steps", "GB")  # means; of memory the most
Result = dict[str, Any]
Ways = Mapping[str, Mapping[int, Result]]  # of each way and seed


@dataclass(frozen=True)
class Kind:
    """What a set's model is trained with. The first rate is the usual one."""

    way: str
    task: str
    rates: tuple[float, ...]
    decides: str  # of the test scores
    larger: bool  # is better
    needs: tuple[str, ...]


CLASSES = Kind("classify", "text-classification", (5e-5, 2e-5, 2e-4), "accuracy", True, ("accelerate",))
ANSWERS = Kind("instruct", "text-generation", (2e-4, 1e-4, 1e-3), "loss", False, ("accelerate", "peft", "trl"))


def kind_of(name: str) -> Kind:
    return CLASSES if name in ENCODED else ANSWERS


def print_table(sets: Mapping[str, Ways]) -> None:
    """What is known so far; wins are over the seeds that both sides have."""
    heads = ["set", "way", "seeds", "test: mean (range)", "also", "wins of ours", *RUN]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, ways in sets.items():
        for way, rows in ways.items():
            if rows:
                print(f"| {name} | {way} | {' | '.join(_cells(name, way, ways))} |")


def _cells(name: str, way: str, ways: Ways) -> list[str]:
    kind, rows, ours = kind_of(name), list(ways[way].values()), ways["multistep"]
    values = [row[kind.decides] for row in rows]
    score = f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"
    if way == "untouched":
        return ["", f"{values[0]:.4f}", _also(kind, rows), *[""] * (1 + len(RUN))]
    both = sorted(set(ways[way]) & set(ours))
    sign = 1 if kind.larger else -1
    wins = sum(sign * (ours[seed][kind.decides] - ways[way][seed][kind.decides]) > 0 for seed in both)
    wall = statistics.mean(row["wall"] for row in rows)
    return [
        str(len(rows)),
        score,
        _also(kind, rows),
        "" if way == "multistep" else f"{wins} of {len(both)}",
        f"{wall:.0f}",
        f"{statistics.mean(row['train_seconds'] for row in rows) / wall:.0%}",
        f"{statistics.mean(row['steps'] for row in rows):.0f}",
        f"{max(row['gigabytes'] for row in rows):.1f}",
    ]


def _also(kind: Kind, rows: list[Result]) -> str:
    """The mean of the other score that a set has."""
    other = "loss" if kind.larger else "answer_accuracy"
    values = [row[other] for row in rows if other in row]
    return f"{other} {statistics.mean(values):.4f}" if values else ""
