"""What attempts of one run have in common: how well what some brought foretells what the next one brings.

    python bench/alike.py [FILE]

Attempts are the siblings (one change each from a fork) of the recorded runs in bench/regret.jsonl, or FILE. What one
brought is its test score over that of the checkpoint with the best validation score before its fork, in tolerances,
which choices could not see. In the order in which they were made each is foretold from those before it: by what is
known of its kind alone (core/choice/priors.json), by that and the mean of its own kind in this run (what forecasts
use), and by a normal distribution in which attempts of one fork, of one kind and of one run share a part of
their variance. The table has the root of the mean squared error, over all attempts and of each set. Below it stands
how much of their variance attempts have in common, by an analysis of variance with one factor: a round of siblings, a
run, a kind of attempt within a run.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from regret_outcomes import KEPT, Outcome, read_outcomes
from regret_runs import SETS

import multistep.core.evidence.expected as evidence
from multistep.core.choice.moves import MOVES
from multistep.core.choice.priors import Situation, prior
from multistep.core.evidence.expected import Gain, Origin

SIBLING = re.compile(r"0\.round-(\d+)\.(.+)")
FURTHEST = 8.0  # tolerances: a collapse counts as no more, or a few of them would be all that is seen
TOLD = 0.5  # tolerances: how exactly a verdict tells what an attempt brought, at best
FURTHEST_OFF = 1.0  # spreads: what lies further from what was expected counts as so far off
SHARES = ((0.3, 0.2, 0.1), (0.4, 0.2, 0.0), (0.2, 0.2, 0.2), (0.4, 0.0, 0.0), (0.0, 0.3, 0.3), (0.0, 0.0, 0.5))


@dataclass(frozen=True)
class Attempted:
    """What an attempt brought over who led, in tolerances, beside what was known of its kind."""

    origin: Origin
    known: Gain
    brought: float


@dataclass(frozen=True)
class Run:
    name: str
    attempts: tuple[Attempted, ...]


Rule = Callable[[Sequence[Attempted], Attempted], float]


def attempts_of(outcome: Outcome) -> Iterator[Attempted]:
    """A record has no situation; texts that are generated overfit in these runs, and the others reach a plateau."""
    improvement = outcome.metric.improvement
    task = SETS[outcome.name].task
    situation: Situation = "answered" if task == "text-generation" else "plateau"
    begun: dict[str, int] = {}  # by round, its first place among the judged
    for place, row in enumerate(outcome.rows):
        found = SIBLING.fullmatch(row.trial)
        if found is None or not (before := outcome.rows[: begun.setdefault(found[1], place)]):
            continue
        led = max(before, key=lambda other: improvement(other.validation, 0.0))
        brought = improvement(row.test, led.test) / outcome.metric.tolerance(led.test)
        kind = re.sub(r"-\d+$", "", found[2].split("+")[-1]).replace("control", "on")
        origin = Origin(found[1], kind, MOVES[kind].opposite if kind in MOVES else None)
        yield Attempted(origin, prior(kind, situation, task), min(max(brought, -FURTHEST), FURTHEST))


def by_kind(_: Sequence[Attempted], new: Attempted) -> float:
    return new.known.mean


def by_its_mean(before: Sequence[Attempted], new: Attempted) -> float:
    same = [b.brought for b in before if b.origin.kind == new.origin.kind]
    return (new.known.mean + sum(same)) / (1 + len(same))


def in_common(shares: tuple[float, float, float]) -> Rule:
    """The mean of a normal distribution given the others."""

    def foretold(before: Sequence[Attempted], new: Attempted) -> float:
        evidence.OF_FORK, evidence.OF_KIND, evidence.OF_RUN = shares
        if not before:
            return new.known.mean
        alike = np.array([[evidence.in_common(a.origin, b.origin) for b in (*before, new)] for a in before])
        spreads = np.array([attempt.known.spread for attempt in (*before, new)])
        covariance = alike * np.outer(spreads[:-1], spreads)
        covariance[np.diag_indices(len(before))] = spreads[:-1] ** 2 + TOLD**2
        off = np.array([attempt.brought - attempt.known.mean for attempt in before])
        off = np.clip(off, -FURTHEST_OFF * spreads[:-1], FURTHEST_OFF * spreads[:-1])
        return new.known.mean + float(covariance[:, -1] @ np.linalg.solve(covariance[:, :-1], off))

    return foretold


def errors(runs: Sequence[Run], rule: Rule) -> dict[str, list[float]]:
    """Squared, in tolerances, by set."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for place, new in enumerate(run.attempts):
            found[run.name].append((rule(run.attempts[:place], new) - new.brought) ** 2)
    return found


def within_classes(groups: Sequence[Sequence[float]]) -> float:
    """The share of the variance that lies between groups of two or more (intraclass correlation, groups unequal)."""
    some = [np.asarray(group) for group in groups if len(group) > 1]
    sizes, means = np.array([len(group) for group in some]), np.array([group.mean() for group in some])
    total, many = int(sizes.sum()), len(some)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in some) / (total - many)
    between = float((sizes * (means - np.concatenate(some).mean()) ** 2).sum()) / (many - 1)
    typical = (total - float((sizes**2).sum()) / total) / (many - 1)
    own = max(0.0, (between - within) / typical)
    return own / (own + within)


def print_shares(runs: Sequence[Run]) -> None:
    factors: dict[str, Callable[[int, Attempted], tuple[object, ...]]] = {
        "round": lambda run, attempt: (run, attempt.origin.fork),
        "run": lambda run, _: (run,),
        "kind of attempt in a run": lambda run, attempt: (run, attempt.origin.kind),
    }
    for words, factor in factors.items():
        groups: dict[tuple[object, ...], list[float]] = defaultdict(list)
        for number, run in enumerate(runs):
            for attempt in run.attempts:
                groups[factor(number, attempt)].append(attempt.brought)
        print(f"in common within a {words}: {within_classes([*groups.values()]):.2f}")


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else KEPT
    outcomes = [outcome for outcome in read_outcomes([source]) if outcome.way == "multistep"]
    runs = [Run(outcome.name, found) for outcome in outcomes if (found := tuple(attempts_of(outcome)))]
    names = sorted({run.name for run in runs})
    counts = {name: sum(len(run.attempts) for run in runs if run.name == name) for name in names}
    print(f"{sum(counts.values())} attempts of {len(runs)} runs; errors in tolerances\n")
    print(f"| foretold by | all | {' | '.join(f'{name} ({counts[name]})' for name in names)} |")
    print("|---" * (len(names) + 2) + "|")
    rules: dict[str, Rule] = {"its kind, as recorded": by_kind, "and its kind's mean in this run": by_its_mean}
    rules |= {"fork {}, kind {}, run {} in common".format(*shares): in_common(shares) for shares in SHARES}
    for words, rule in rules.items():
        squared = errors(runs, rule)
        cells = [np.sqrt(np.mean(np.concatenate([*squared.values()])))]
        cells += [np.sqrt(np.mean(squared[name])) for name in names]
        print(f"| {words} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    texts = [run for run in runs if SETS[run.name].task == "text-generation"]
    for some, of in (("all", runs), ("generated text alone", texts)):
        print(f"\n{some}")
        print_shares(of)


if __name__ == "__main__":
    main()
