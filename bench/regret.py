"""Regret, measured: how much better than the shipped checkpoint the best of the judged ones was.

    MULTISTEP_DATA=... python bench/regret.py run --out DIR [--budget 120s] [--seeds 0,1,2] [--sets sst2,songci]
        [--way multistep|plain|adamw]

run: real runs through the product's own loop, a process and a thread each (bench/regret_runs.py says what is kept);
complete ones are left alone, so that an interrupted benchmark goes on. `plain` is the plain run alone for the whole
budget, without moves; `adamw` is AdamW, linear to zero over the whole budget, the best of three rates by the
validation score of seed 0. All seeds of a set follow each other last: seed 0 of every set comes first.
"""

import argparse
import sys
from pathlib import Path

import data_sets
from regret_runs import SETS, WAYS, Bench, make_one


def run(given: argparse.Namespace) -> None:
    source, out = data_sets.data_folder("sst2"), given.out.resolve()
    names = given.sets.split(",") if given.sets else list(SETS)
    if unknown := [name for name in names if name not in SETS]:
        sys.exit(f"bench/regret.py: unknown set '{unknown[0]}'; allowed: {', '.join(SETS)}")
    if not data_sets.minilm() and any(SETS[name].pretrained for name in names):
        print("no pretrained encoder at hand (MULTISTEP_ENCODER=FOLDER): its set is left out", file=sys.stderr)
        names = [name for name in names if not SETS[name].pretrained]
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(out, source, given.budget, Path(__file__).resolve())
    failed = 0
    for seed in map(int, given.seeds.split(",")):
        for name in names:
            failed += bench.make(name, given.way, seed) is None
    if failed:
        sys.exit(f"{failed} runs failed; the same command tries them again")


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
    given = parser.parse_args()
    if given.verb == "run":
        run(given)
    else:
        make_one(given.folder)


if __name__ == "__main__":
    main()
