"""Is more time ever worse? The same sets with growing budgets, the shipped checkpoint scored on the test split.

    MULTISTEP_DATA=... python bench/more_time.py --out DIR [--budgets 20s,60s,180s,600s] [--seeds 0,1,2] [--sets a,b]
    python bench/more_time.py --report [--out DIR] [--kept FILE] [--budgets ...]

Runs are those of bench/regret.py, one folder a budget, a process and a thread each; complete ones are left alone. The
table shows the mean test score of what leads by budget and, over neighbouring budgets, by how many of the test split's
standard errors a longer one did worse than a shorter. A budget that cannot hold a run is refused, and left out. What
`bench/regret.py keep DIR/20s DIR/60s ...` has kept of earlier runs (bench/regret.jsonl, or FILE) is in the table, too;
where a run is both in DIR and there, DIR's counts.
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
from regret_outcomes import KEPT, Key, Outcome, instructions, outcome_of, read_outcomes
from regret_rules import Made, read_all
from regret_runs import SETS, Bench

from multistep.core.evidence.compare import compare
from multistep.core.evidence.metric import metric_named

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


def report(sources: Sequence[Path], budgets: Sequence[str], wanted: Sequence[str]) -> None:
    """Of folders that have one for each budget, and of files that `bench/regret.py keep` wrote."""
    folders = [source / budget for source in sources if source.is_dir() for budget in budgets]
    outcomes = [o for o in read_outcomes([*folders, *filter(Path.is_file, sources)]) if o.way == "multistep"]
    tables = {outcome_of(made).key: made for made in read_all(folders)}
    names = [name for name in wanted if any(outcome.name == name for outcome in outcomes)]
    print(f"| set | runs | {' | '.join(budgets)} | worse than with less time |")
    print("|---" * (len(budgets) + 3) + "|")
    for name in names:
        of_set = {budget: [o for o in outcomes if o.name == name and o.budget == budget] for budget in budgets}
        if not any(of_set.values()):
            continue  # a budget that is too short for this set
        cells = [f"{statistics.fmean(o.compared_score for o in some):.4f}" if some else "" for some in of_set.values()]
        runs = "/".join(str(len(some)) for some in of_set.values())
        metric = next(o.compared for some in of_set.values() for o in some)
        print(f"| {name}, {metric} | {runs} | {' | '.join(cells)} | {_worse(of_set, tables)} |")
    print(f"\nInstructions of the CPUs: {instructions(outcomes)}.")


def _worse(of_set: Mapping[str, Sequence[Outcome]], tables: Mapping[Key, Made]) -> str:
    """The largest fall from one budget to the next, in standard errors of the difference, the seeds together."""
    falls = []
    for (shorter, less), (longer, more) in itertools.pairwise(of_set.items()):
        pairs = [_difference(one, other, tables) for one in more for other in less if one.seed == other.seed]
        if not pairs:
            continue
        mean = statistics.fmean(by for by, _ in pairs)
        # Seeds share the test split, so its error does not shrink with their number.
        error = math.sqrt(statistics.fmean(error**2 for _, error in pairs))
        if mean < 0 < error:
            falls.append((mean / error, f"{shorter} to {longer}: {mean:+.4f}, {-mean / error:.1f} standard errors"))
    return min(falls)[1] if falls else "never"


def _difference(longer: Outcome, shorter: Outcome, tables: Mapping[Key, Made]) -> tuple[float, float]:
    """By how much the longer run is better, with its standard error.

    Unpaired, and so wider than need be, where one budget bore fewer rows or the tables are no longer at hand.
    """
    metric = metric_named(longer.compared)
    if longer.key in tables and shorter.key in tables:
        one, other = (made.judged[made.shipped].test for made in (tables[longer.key], tables[shorter.key]))
        if np.array_equal(one.columns["block"], other.columns["block"]):
            found = compare(metric, one, other)
            return found.improvement, found.standard_error
    by = metric.improvement(longer.compared_score, shorter.compared_score)
    return by, math.hypot(longer.compared_error, shorter.compared_error)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--budgets", default=BUDGETS)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sets", default=",".join(USUAL))
    parser.add_argument("--report", action="store_true", help="make no runs; the table of those that are there")
    parser.add_argument("--kept", type=Path, default=KEPT)
    given = parser.parse_args()
    names, budgets = given.sets.split(","), given.budgets.split(",")
    if unknown := [name for name in names if name not in SETS]:
        sys.exit(f"bench/more_time.py: unknown set '{unknown[0]}'; allowed: {', '.join(SETS)}")
    if not given.report:
        if given.out is None:
            parser.error("--out says where the runs go")
        make(given.out.resolve(), budgets, [int(seed) for seed in given.seeds.split(",")], names)
    report([*([given.out.resolve()] if given.out else []), *filter(Path.exists, [given.kept])], budgets, names)


if __name__ == "__main__":
    main()
