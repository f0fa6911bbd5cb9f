"""What a run of bench/regret.py came to, in one line of JSON, so that measurements outlive the folders they came from.

`bench/regret.py keep DIR...` adds the runs of such folders to bench/regret.jsonl; the reports of bench/regret.py and
bench/more_time.py read folders and such files alike. A line has the scores of every judged checkpoint on both splits,
and which of them each rule of bench/regret_rules.py takes, replayed by the code that wrote the line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from regret_rules import LOSS, RULES, Made, read_all

from multistep.core.evidence.metric import Metric, metric_named

KEPT = Path(__file__).with_name("regret.jsonl")
Key: TypeAlias = tuple[str, str, int, str, float | None]


@dataclass(frozen=True)
class Row:
    """A judged checkpoint; losses are NaN where the task has none."""

    trial: str
    kind: str
    move: str | None
    step: int
    validation: float
    validation_loss: float
    test: float
    test_loss: float


@dataclass(frozen=True)
class Outcome:
    """A complete run, as reports see it."""

    name: str  # of the data set
    way: str
    seed: int
    budget: str
    rate: float | None
    metric_name: str
    rows: tuple[Row, ...]
    chosen: Mapping[str, int]  # which of the rows each rule takes
    compared: str  # the metric by which runs of different budgets can be compared,
    compared_score: float  # its test score of the shipped checkpoint,
    compared_error: float  # and the standard error of that
    baseline: float  # its test score
    seconds: float
    stopped: str
    core_share: float | None  # of its seconds, in which it had the core; None for runs of before this was noted
    instructions: str | None  # of the CPU, as torch names them (AVX2): with others, a second holds other steps
    measured: str  # the day

    @property
    def key(self) -> Key:
        return self.name, self.way, self.seed, self.budget, self.rate

    @cached_property
    def metric(self) -> Metric:
        return metric_named(self.metric_name)

    @property
    def tests(self) -> tuple[float, ...]:
        return tuple(row.test for row in self.rows)

    @property
    def best(self) -> float:
        """The best test score among the judged; the luck of that split is in it, so some regret stays for any rule."""
        return max(self.tests, key=lambda score: self.metric.improvement(score, 0.0))

    @property
    def shipped(self) -> int:
        return self.chosen["shipped"]


def read_outcomes(sources: Sequence[Path]) -> list[Outcome]:
    """Of folders of runs, and of files that hold such lines; of a run in several sources, what is named first."""
    found: dict[Key, Outcome] = {}
    for source in sources:
        for outcome in _lines(source) if source.is_file() else map(outcome_of, read_all([source])):
            found.setdefault(outcome.key, outcome)
    return sorted(found.values(), key=lambda o: (o.name, o.way, o.seed))


def keep(folders: Sequence[Path], path: Path) -> int:
    """Add the runs of folders to a file, in place of older ones of the same set, way, seed, budget and rate."""
    new = read_outcomes(folders)
    others = [old for old in (_lines(path) if path.exists() else ()) if old.key not in {each.key for each in new}]
    together = sorted([*others, *new], key=lambda o: (o.budget, o.name, o.way, o.rate or 0.0, o.seed))
    path.write_text("".join(json.dumps(_plain(asdict(each))) + "\n" for each in together), encoding="utf-8")
    return len(new)


def outcome_of(made: Made) -> Outcome:
    compared, shipped = comparable(made), made.judged[made.shipped].test
    interval = compared.interval(shipped)
    rows = tuple(
        Row(
            trial=each.trial,
            kind=each.kind,
            move=each.move,
            step=each.step,
            validation=made.metric.score(each.validation),
            validation_loss=LOSS.score(each.validation),
            test=made.metric.score(each.test),
            test_loss=LOSS.score(each.test),
        )
        for each in made.judged
    )
    return Outcome(
        name=made.name,
        way=made.way,
        seed=made.seed,
        budget=made.budget,
        rate=made.rate,
        metric_name=made.metric.name,
        rows=rows,
        chosen={name: rule(made) for name, rule in RULES.items()},
        compared=compared.name,
        compared_score=interval.score,
        compared_error=(interval.high - interval.low) / 2 / 1.96,
        baseline=made.baseline,
        seconds=made.seconds,
        stopped=made.stopped,
        core_share=made.core_share,
        instructions=made.instructions,
        measured=datetime.fromtimestamp((made.folder / "made.json").stat().st_mtime, UTC).date().isoformat(),
    )


def comparable(made: Made) -> Metric:
    """What runs of different budgets can be compared by: of texts no loss per token, whose tokens follow the budget."""
    bits = metric_named("bits_per_byte")
    return bits if bits.applies(made.judged[0].test) else made.metric


def instructions(outcomes: Sequence[Outcome]) -> str:
    """Of the CPUs that runs were made on, since seconds of one kind do not compare with those of another."""
    return ", ".join(sorted({outcome.instructions or "not noted" for outcome in outcomes})) or "none"


def _lines(path: Path) -> Iterator[Outcome]:
    for line in path.read_text(encoding="utf-8").splitlines():
        said: dict[str, Any] = _numbers(json.loads(line))
        yield Outcome(**{**said, "rows": tuple(Row(**row) for row in said["rows"])})


def _numbers(value: Any) -> Any:
    """With numbers in place of the words that stand for what JSON has none for."""
    match value:
        case "nan" | "inf" | "-inf":
            return float(value)
        case dict():
            return {key: _numbers(each) for key, each in value.items()}
        case list():
            return [_numbers(each) for each in value]
        case _:
            return value


def _plain(value: Any) -> Any:
    """With numbers of six digits, and words for those that JSON has not, so that a file of many runs stays small."""
    match value:
        case float():
            return float(f"{value:.6g}") if math.isfinite(value) else str(value)
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case str():
            return value
        case Iterable():
            return [_plain(each) for each in value]
        case _:
            return value


# What a choice was worth --------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A rule's choice in one run, judged by the test split; differences in the metric's unit, positive is better."""

    outcome: Outcome
    score: float
    regret: float
    over_first: float
    over_plain: float | None
    over_adamw: float | None
    over_baseline: float

    @property
    def tolerance(self) -> float:
        """What the differences are divided by so that sets can be averaged."""
        return self.outcome.metric.tolerance(self.outcome.best)


def choices(runs: Sequence[Outcome], rule: str, rivals: Sequence[Outcome]) -> Iterator[Choice]:
    """A rule's choice in each run, against what the other ways came to with the same set, seed and budget."""
    for run in runs:
        better, tests = run.metric.improvement, run.tests
        score = tests[run.chosen[rule]]
        plain, adamw = (rival_score(run, rivals, way) for way in ("plain", "adamw"))
        yield Choice(
            run,
            score,
            better(run.best, score),
            better(score, tests[0]),
            None if plain is None else better(score, plain),
            None if adamw is None else better(score, adamw),
            better(score, run.baseline),
        )


def rival_score(run: Outcome, rivals: Sequence[Outcome], way: str) -> float | None:
    """The test score of another way of training; of several rates, that of the best on the validation split."""
    same = [r for r in rivals if (r.name, r.way, r.seed, r.budget) == (run.name, way, run.seed, run.budget)]
    if not same:
        return None
    best = max(same, key=lambda r: run.metric.improvement(r.rows[r.shipped].validation, 0.0))
    return best.tests[best.shipped]
