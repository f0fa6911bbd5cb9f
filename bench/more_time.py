"""Is more time ever worse? The same sets with growing budgets, the shipped checkpoint scored on the test split.

    MULTISTEP_DATA=... python bench/more_time.py --out DIR [--budgets 20s,60s,180s,600s] [--seeds 0,1,2] [--sets a,b]
    MULTISTEP_DATA=... python bench/more_time.py --out DIR --report

Runs are those of bench/regret.py, one folder a budget, a process and a thread each; complete ones are left alone. The
table shows the mean test score of what leads by budget and, over neighbouring budgets, by how many of the test split's
standard errors a longer one did worse than a shorter. A budget that cannot hold a run is refused, and left out.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import data_sets
import numpy as np
from regret_rules import Made, read_all
from regret_runs import SETS, Bench

from multistep.core.evidence.compare import compare
from multistep.core.evidence.metric import Evaluation, Metric, metric_named

# Eight of the sets, small speech among them.
USUAL = (
    "sst2",
    "chnsenticorp",
    "sst2-minilm",
    "tinyshakespeare",
    "little",
    "fashion-mnist",
    "sign-digits",
    "fsdd-small",
)
BUDGETS = "20s,60s,180s,600s"


def make(out: Path, budgets: Sequence[str], seeds: Sequence[int], names: Sequence[str]) -> None:
    source, script = data_sets.data_folder("sst2"), Path(__file__).resolve().with_name("regret.py")
    for seed in seeds:
        for budget in budgets:
            bench = Bench(out / budget, source, budget, script)
            (out / budget).mkdir(parents=True, exist_ok=True)
            for name in names:
                bench.make(name, "multistep", seed)


def report(out: Path, budgets: Sequence[str]) -> None:
    runs = {budget: read_all([out / budget]) for budget in budgets}
    names = sorted({made.name for some in runs.values() for made in some})
    print(f"| set | runs | {' | '.join(budgets)} | worse than with less time |")
    print("|---" * (len(budgets) + 3) + "|")
    for name in names:
        of_set = {budget: [made for made in runs[budget] if made.name == name] for budget in budgets}
        metric = _comparable(next(made for some in of_set.values() for made in some))
        scores = {b: [metric.score(made.judged[made.shipped].test) for made in some] for b, some in of_set.items()}
        cells = [f"{statistics.fmean(s):.4f}" if s else "" for s in scores.values()]
        many = max(len(s) for s in scores.values())
        print(f"| {name}, {metric.name} | {many} | {' | '.join(cells)} | {_worse(metric, of_set, budgets)} |")


def _comparable(made: Made) -> Metric:
    """What runs of different budgets can be compared by: of texts no loss per token, whose tokens follow the budget."""
    bits = metric_named("bits_per_byte")
    return bits if bits.applies(made.judged[0].test) else made.metric


def _worse(metric: Metric, of_set: Mapping[str, Sequence[Made]], budgets: Sequence[str]) -> str:
    """The largest fall from one budget to the next, in standard errors of the paired difference, the seeds together."""
    falls = []
    for shorter, longer in itertools.pairwise(budgets):
        pairs = [
            _difference(metric, one.judged[one.shipped].test, other.judged[other.shipped].test)
            for one in of_set[longer]
            for other in of_set[shorter]
            if one.seed == other.seed
        ]
        if not pairs:
            continue
        mean = statistics.fmean(by for by, _ in pairs)
        # Seeds share the test split, so its error does not shrink with their number.
        error = math.sqrt(statistics.fmean(error**2 for _, error in pairs))
        if mean < 0 < error:
            falls.append((mean / error, f"{shorter} to {longer}: {mean:+.4f}, {-mean / error:.1f} standard errors"))
    return min(falls)[1] if falls else "never"


def _difference(metric: Metric, longer: Evaluation, shorter: Evaluation) -> tuple[float, float]:
    """By how much the longer run is better, with its standard error: unpaired where one budget bore fewer rows."""
    if np.array_equal(longer.columns["block"], shorter.columns["block"]):
        found = compare(metric, longer, shorter)
        return found.improvement, found.standard_error
    scores = metric.score(longer), metric.score(shorter)
    widths = [(i.high - i.low) / 2 / 1.96 for i in (metric.interval(longer), metric.interval(shorter))]
    return metric.improvement(*scores), math.hypot(*widths)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budgets", default=BUDGETS)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sets", default=",".join(USUAL))
    parser.add_argument("--report", action="store_true", help="make no runs; the table of those that are there")
    given = parser.parse_args()
    names, budgets = given.sets.split(","), given.budgets.split(",")
    if unknown := [name for name in names if name not in SETS]:
        sys.exit(f"bench/more_time.py: unknown set '{unknown[0]}'; allowed: {', '.join(SETS)}")
    if not given.report:
        make(given.out.resolve(), budgets, [int(seed) for seed in given.seeds.split(",")], names)
    report(given.out.resolve(), budgets)


if __name__ == "__main__":
    main()
