"""Runs as bench/regret_runs.py leaves them, and the rules that could have chosen among their judged checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from multistep.core.choice.guards import holds
from multistep.core.choice.priors import default_gain, link_of
from multistep.core.choice.verdicts import expected_of, judged_before
from multistep.core.evidence.compare import compare, paired
from multistep.core.evidence.expected import Judged as Prior
from multistep.core.evidence.expected import expected_gains
from multistep.core.evidence.metric import BESIDE, METRICS, Evaluation, Metric, beside, metric_named
from multistep.core.evidence.spending import Attempt, critical_value
from multistep.core.values.history import fold
from multistep.engine.journal import read_entries
from multistep.engine.rundir import RunDirectory

LOSS = metric_named("loss")


@dataclass(frozen=True)
class Judged:
    """A trial that was evaluated in full, on the split that choices may see and on the one that they may not."""

    trial: str
    kind: str
    move: str | None
    step: int
    validation: Evaluation
    test: Evaluation


@dataclass(frozen=True)
class Made:
    """A complete run: the trials that could have been shipped, in order, and which one was.

    `reruns` were evaluated too, but repeat a trial with another seed and are never shipped.
    """

    folder: Path
    name: str  # of the data set
    way: str
    seed: int
    budget: str
    rate: float | None
    metric: Metric
    judged: tuple[Judged, ...]
    reruns: tuple[Judged, ...]
    shipped: int
    baseline: float  # its test score
    seconds: float
    stopped: str
    core_share: float | None  # of its seconds, in which it had the core; None for runs of before this was noted
    instructions: str | None  # of the CPU, as torch names them (AVX2): with others, a second holds other steps


# Reading ------------------------------------------------------------------------------------------


def read_all(folders: Sequence[Path]) -> list[Made]:
    found = [read_made(path.parent) for folder in folders for path in sorted(folder.glob("*/made.json"))]
    return sorted(found, key=lambda made: (made.name, made.way, made.seed))


def read_made(folder: Path) -> Made:
    made: dict[str, Any] = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    validation, test = RunDirectory(folder / "run"), RunDirectory(folder / "test")
    scoring = 0.0
    judged: list[Judged] = []
    reruns: list[Judged] = []
    for text in (folder / "judged.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        scoring += line["test_seconds"]
        tables = validation.read_table(line["validation"]), test.read_table(line["test"])
        one = Judged(line["trial"], line["kind"], line["move"], line["step"], *tables)
        (reruns if one.kind == "rerun" else judged).append(one)
    return Made(
        folder,
        made["set"],
        made["way"],
        made["seed"],
        made["budget"],
        made["rate"],
        metric_named(made["metric"]),
        tuple(judged),
        tuple(reruns),
        [each.trial for each in judged].index(made["shipped"]),
        made["baseline"],
        made["seconds"]["total"],
        made["stopped"],
        made["cpu_seconds"] / (made["seconds"]["total"] + scoring) if "cpu_seconds" in made else None,
        made.get("instructions"),
    )


# Rules --------------------------------------------------------------------------------------------

Rule: TypeAlias = Callable[[Made], int]  # which of `judged` is chosen; a rule looks at no `test`


def first(_: Made) -> int:
    return 0


def shipped(made: Made) -> int:
    return made.shipped


def highest(made: Made) -> int:
    """The best validation score, the earlier of equals."""
    return _best(made.metric, made)


def least_loss(made: Made) -> int:
    """The lowest validation loss, whatever the metric; with the best score where there is no loss."""
    return _best(LOSS if LOSS.applies(made.judged[0].validation) else made.metric, made)


def _best(metric: Metric, made: Made) -> int:
    scores = [metric.improvement(metric.score(each.validation), 0.0) for each in made.judged]
    return max(range(len(scores)), key=lambda i: scores[i])


def proven_steps(made: Made) -> int:
    """Stay with a checkpoint until another is proven better: what was shipped by before choice and claim parted."""
    metric, leader = made.metric, 0
    attempts: list[Attempt] = []
    for index, each in enumerate(made.judged[1:], start=1):
        if not math.isfinite(metric.score(each.validation)):
            continue
        rival = made.judged[leader].validation
        differences, found = paired(metric, each.validation, rival), compare(metric, each.validation, rival)
        kept = found.improvement > critical_value(attempts, differences) * found.standard_error
        attempts.append(Attempt(differences, kept))
        leader = index if kept else leader
    return leader


def expected_score(made: Made) -> int:
    """The highest expected score, as the product has it, but with a prior of the kind alone in place of a forecast."""
    metric, leader = made.metric, 0
    tables = [each.validation for each in made.judged]
    unit = metric.tolerance(metric.score(tables[0]))
    loss = beside(metric, (name for name in BESIDE if all(METRICS[name].applies(table) for table in tables)))
    link = link_of(metric.name, loss.name) if loss else None
    known: list[int] = []  # those with a finite score, in order; a prior's leader is told by its place among them
    seen: list[Prior] = []
    for index, each in enumerate(made.judged):
        if not math.isfinite(metric.score(each.validation)):
            continue
        over = known.index(leader) if leader in known else 0
        known.append(index)
        seen.append(Prior(each.validation, over, default_gain(each.kind)))
        found = expected_gains(metric, seen, tolerance=unit, loss=loss, link=link)
        leader = known[int(found.means.argmax())]
    return leader


def weighed_again(made: Made) -> int:
    """The highest expected score as the code at hand has it, with what the run itself had forecast of each trial."""
    history = fold(read_entries(RunDirectory(made.folder / "run").journal))
    tables = {one.trial: one.validation for one in (*made.judged, *made.reruns)}
    records = [record for record in judged_before(history) if record.trial.id in tables]
    found = expected_of(made.metric, records, tables)
    gains = {r.trial.id: gain for r, gain in zip(records, found.means, strict=True) if holds(r)}
    return max(range(len(made.judged)), key=lambda k: gains.get(made.judged[k].trial, -math.inf))


# One line adds a rule: its name in the tables, and a function from a run to the index of the checkpoint it takes.
RULES: Mapping[str, Rule] = {
    "shipped": shipped,
    "first": first,
    "proven steps": proven_steps,
    "weighed again": weighed_again,
    "expected": expected_score,
    "highest": highest,
    "loss": least_loss,
}
