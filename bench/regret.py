"""Regret, measured: how much better than the shipped checkpoint the best of the judged ones was.

    MULTISTEP_DATA=... python bench/regret.py run --out DIR [--budget 120s] [--seeds 0,1,2] [--sets sst2,songci]
        [--way multistep|plain|adamw]
    python bench/regret.py report DIR... [--each]
    python bench/regret.py link DIR...
    python bench/regret.py keep DIR... [--file FILE]

run: real runs through the product's own loop, a process and a thread each (bench/regret_runs.py says what is kept);
complete ones are left alone, so that an interrupted benchmark goes on. `plain` is the plain run alone for the whole
budget, without moves; `adamw` is AdamW, linear to zero over the whole budget, the best of three rates by the
validation score of seed 0. Seed 0 of every set comes first, then seed 1 of every set, so that all sets are seen early.
report: tables of such folders, without training. Rules of selection are compared by replaying them over the same
tables (RULES in bench/regret_rules.py). Runs of `plain` and `adamw` are looked for in all the folders that are named;
two folders with `multistep` runs, of old code and of new, are told apart by their names. A file that `keep` wrote
(bench/regret.jsonl) can stand for a folder.
link: how well differences of validation score and loss between two trials foretell the difference of test scores.
keep: adds what the runs came to, without their tables, to bench/regret.jsonl, which lasts, or to FILE: runs of a
machine that does more or less in a second belong into a file of their own.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import data_sets
import processor_time  # noqa: F401  (before all that asks for the time)
from regret_link import print_link
from regret_outcomes import KEPT, Choice, Outcome, choices, instructions, keep, read_outcomes
from regret_rules import RULES, read_all
from regret_runs import SETS, WAYS, Bench, make_one

from multistep.core.values.units import parse_amount

OWN_CORE = 0.85  # of the clock's seconds: with less, a run had less time than its budget says


def run(given: argparse.Namespace) -> None:
    source, out = data_sets.data_folder("sst2"), given.out.resolve()
    names = given.sets.split(",") if given.sets else list(SETS)
    if unknown := [name for name in names if name not in SETS]:
        sys.exit(f"bench/regret.py: unknown set '{unknown[0]}'; allowed: {', '.join(SETS)}")
    if not data_sets.minilm() and any(SETS[name].pretrained for name in names):
        print("no pretrained encoder at hand (MULTISTEP_ENCODER=FOLDER): its set is left out", file=sys.stderr)
        names = [name for name in names if not SETS[name].pretrained]
    out.mkdir(parents=True, exist_ok=True)
    # Leaving by an exception, it takes the run that is going on with it; a signal alone would leave that behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM; the same command goes on"))
    bench = Bench(out, source, given.budget, Path(__file__).resolve())
    failed = 0
    for seed in map(int, given.seeds.split(",")):
        for name in names:
            failed += bench.make(name, given.way, seed) is None
    if failed:
        sys.exit(f"{failed} runs failed; the same command tries them again")


# Reports ------------------------------------------------------------------------------------------


def report(sources: Sequence[Path], *, each: bool) -> None:
    found = {source: read_outcomes([source]) for source in sources}
    rivals = [outcome for outcomes in found.values() for outcome in outcomes]
    for source, outcomes in found.items():
        ours = [outcome for outcome in outcomes if outcome.way == "multistep"]
        for budget in sorted({run.budget for run in ours}, key=lambda text: parse_amount(text).value):
            runs = [run for run in ours if run.budget == budget]
            print(f"\n## {source.name}: {len(runs)} runs, {budget}\n")
            if each:
                print_each(runs)
            report_on(runs, rivals)


def report_on(runs: Sequence[Outcome], rivals: Sequence[Outcome]) -> None:
    rules = [name for name in RULES if all(name in run.chosen for run in runs)]  # some may be newer than a kept run
    of_rules = {name: list(choices(runs, name, rivals)) for name in rules}
    print_sets(of_rules)
    print_all("All runs", of_rules)
    choosing = {name: [c for c in every if len(c.outcome.rows) > 1] for name, every in of_rules.items()}
    if any(choosing.values()):
        print_all("Runs in which there was something to choose", choosing)
    other = [run for run in runs if run.shipped != run.chosen["proven steps"]]
    print(f"\nProven steps, the rule until 2026-11-28, ships another checkpoint in {len(other)} of {len(runs)} runs.")
    ended = statistics.mean(run.seconds for run in runs)
    print(f"A run took {ended:.0f} s on average and judged {_judged(runs)} checkpoints.")
    print(f"Instructions of the CPUs: {instructions(runs)}.")
    if slowed := [run for run in runs if (run.core_share or 1.0) < OWN_CORE]:
        names = ", ".join(f"{run.name} {run.seed} ({run.core_share:.0%})" for run in slowed)
        print(f"Had less than {OWN_CORE:.0%} of a core, since others were at work: {names}.")


def print_sets(of_rules: dict[str, list[Choice]]) -> None:
    """A row for each set and rule; means over seeds, in the metric's unit unless said."""
    columns = "set | rule | runs | judged | test | best | regret | in tolerances"
    print(f"| {columns} | over plain | over AdamW | over baseline |")
    print("|---" * 11 + "|")
    for name in sorted({choice.outcome.name for choice in next(iter(of_rules.values()))}):
        of_set = {rule: [c for c in every if c.outcome.name == name] for rule, every in of_rules.items()}
        if all(len(choice.outcome.rows) == 1 for some in of_set.values() for choice in some):
            of_set = {"any": of_set["first"]}  # one checkpoint leaves nothing to choose
        for rule, some in of_set.items():
            runs = [choice.outcome for choice in some]
            cells = [
                f"{name}, {runs[0].metric.name}",
                rule,
                str(len(runs)),
                _judged(runs),
                f"{statistics.mean(choice.score for choice in some):.4f}",
                f"{statistics.mean(run.best for run in runs):.4f}",
                f"{statistics.mean(choice.regret for choice in some):.4f}",
                f"{statistics.mean(choice.regret / choice.tolerance for choice in some):.2f}",
                _gain(choice.over_plain for choice in some),
                _gain(choice.over_adamw for choice in some),
                _gain(choice.over_baseline for choice in some),
            ]
            print(f"| {' | '.join(cells)} |")


def print_all(title: str, of_rules: dict[str, list[Choice]]) -> None:
    """A row for each rule over all sets, in tolerances; each set weighs the same."""
    runs = [choice.outcome for choice in next(iter(of_rules.values()))]
    print(f"\n{title}: {len(runs)} runs of {len({run.name for run in runs})} sets, in tolerances.")
    print("Mean over sets (its standard error); worse: runs that are over one tolerance behind.\n")
    print("| rule | regret | largest of a run | over first | over plain | worse | over AdamW | worse | over baseline |")
    print("|---" * 9 + "|")
    for rule, every in of_rules.items():
        cells = [rule, _mean_of_sets(every, [c.regret for c in every])]
        cells += [f"{max(c.regret / c.tolerance for c in every):.1f}"]
        cells += [_mean_of_sets(every, [c.over_first for c in every])]
        for gains in ([c.over_plain for c in every], [c.over_adamw for c in every]):
            known = [(c, gain) for c, gain in zip(every, gains, strict=True) if gain is not None]
            worse = sum(gain < -c.tolerance for c, gain in known)
            cells += [_mean_of_sets(every, gains), f"{worse} of {len(known)}" if known else ""]
        cells += [_mean_of_sets(every, [c.over_baseline for c in every])]
        print(f"| {' | '.join(cells)} |")


def print_each(runs: Sequence[Outcome]) -> None:
    """Each judged checkpoint with what was known of it and what was not."""
    print("| run | trial | kind | step | validation | validation loss | test | test loss | taken by |")
    print("|---" * 9 + "|")
    for run in runs:
        for index, row in enumerate(run.rows):
            kind = row.kind + (f" {row.move}" if row.move else "")
            scores = [f"{score:.4f}" for score in (row.validation, row.validation_loss, row.test, row.test_loss)]
            takers = ", ".join(name for name, chosen in run.chosen.items() if chosen == index)
            cells = [f"{run.name} {run.seed}", row.trial, kind, str(row.step), *scores, takers]
            print(f"| {' | '.join(cells)} |")
    print()


def _judged(runs: Sequence[Outcome]) -> str:
    return f"{statistics.mean(len(run.rows) for run in runs):.1f}"


def _gain(gains: Iterable[float | None]) -> str:
    known = [gain for gain in gains if gain is not None]
    return f"{statistics.mean(known):+.4f}" if known else ""


def _mean_of_sets(every: Sequence[Choice], values: Sequence[float | None]) -> str:
    """In tolerances: the mean of the sets' means, with its standard error."""
    by_set: dict[str, list[float]] = {}
    for choice, value in zip(every, values, strict=True):
        if value is not None:
            by_set.setdefault(choice.outcome.name, []).append(value / choice.tolerance)
    means = [statistics.mean(some) for some in by_set.values()]
    if not means:
        return ""
    error = f" ({statistics.stdev(means) / len(means) ** 0.5:.1f})" if len(means) > 1 else ""
    return f"{statistics.mean(means):.2f}{error}"


def main() -> None:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(required=True, dest="verb")
    running = verbs.add_parser("run")
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--budget", default="120s")
    running.add_argument("--seeds", default="0,1,2")
    running.add_argument("--sets", default="")
    running.add_argument("--way", choices=WAYS, default="multistep")
    one = verbs.add_parser("one", help="what `run` starts for each run")
    one.add_argument("folder", type=Path)
    for name in ("report", "link", "keep"):
        reading = verbs.add_parser(name)
        reading.add_argument("folders", type=Path, nargs="+")
        if name == "report":
            reading.add_argument("--each", action="store_true", help="a row for each judged checkpoint too")
        if name == "keep":
            reading.add_argument("--file", type=Path, default=KEPT)
    given = parser.parse_args()
    match given.verb:
        case "run":
            run(given)
        case "one":
            make_one(given.folder)
        case "report":
            report(given.folders, each=given.each)
        case "keep":
            print(f"{keep(given.folders, given.file)} runs kept in {given.file}")
        case "link":
            print_link([made for made in read_all(given.folders) if made.way == "multistep"])


if __name__ == "__main__":
    main()
