"""Real data, one clock: `multistep` as it comes against one well-tuned run of the same model.

    MULTISTEP_DATA=... python bench/moves.py [--sets shakespeare,shakespeare300k,songci,small]
        [--budget 120] [--rate R] [--out FOLDER]

The rival is what a careful person does today: AdamW, linear to zero over the whole budget, averaged weights, the
best of three learning rates (chosen by the validation score of seed 0; where the best lies at the edge, further ones
are tried until it does not; `--rate` names what such a search found before), never stopped early. Model, tokenizer,
data, batch and dropout are those that `multistep` picks for either. Every run is a process of its own with the same
budget; runs of one seed follow each other. Scores are those of the test split, in bits per byte.
Results are kept in FOLDER/results.jsonl and used again, so that an interrupted benchmark goes on.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import data_sets

RATES = (2.5e-3, 5e-3, 1e-2)
Result = dict[str, Any]


def data_of(name: str, source: Path, out: Path) -> Path:
    if name == "songci":
        return data_sets.songci(source, out)
    if name == "small":
        return data_sets.small(source, out)
    return data_sets.shakespeare(source, out, 300_000 if name == "shakespeare300k" else None)


class Bench:
    def __init__(self, out: Path, source: Path, budget: int) -> None:
        self.out, self.source, self.budget = out, source, budget
        self.path = out / "results.jsonl"
        out.mkdir(parents=True, exist_ok=True)
        known = self.path.read_text().splitlines() if self.path.exists() else []
        self.results: list[Result] = [json.loads(line) for line in known]

    def run(self, name: str, seed: int, rate: float | None) -> Result:
        """One run: ours (`rate` None), or the rival at a rate."""
        key = {"set": name, "seed": seed, "rate": rate, "budget": self.budget}
        for result in self.results:
            if all(result.get(k) == v for k, v in key.items()):
                return result
        way = "ours" if rate is None else f"adamw-{rate:g}"
        folder = self.out / "runs" / f"{name}-{way}-{seed}-{self.budget}" / "run"
        command = [str(Path(sys.executable).with_name("multistep")), "train", "--task", "text-generation", "--json"]
        command += ["--data", str(data_of(name, self.source, self.out)), "--budget", f"{self.budget}s"]
        command += ["--seed", str(seed), "--out", str(folder)]
        if rate is not None:
            recipe = f"{{optimizer: adamw, learning_rate: {rate:g}, cooldown_fraction: 1.0}}"
            phase = f"phases=[{{name: rival, until: {self.budget}s, moves: [], recipe: {recipe}}}]"
            command += ["--set", phase]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
        record = json.loads(done.stdout)
        result = {
            **key,
            "seconds": time.monotonic() - began,
            "validation": record["scores"]["validation"]["bits_per_byte"],
            "test": record["scores"]["test"]["bits_per_byte"],
            "baseline": record["baseline"]["test"]["scores"]["bits_per_byte"],
            "stopped": record["stopped"],
            "steps": record["steps"],
            "train_share": record["seconds"]["train"] / record["seconds"]["total"],
            "verdicts": [[t["id"], t["verdict"]] for t in record["trials"] if t["verdict"]],
        }
        self.results.append(result)
        with self.path.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), file=sys.stderr, flush=True)
        return result


def best_rate(bench: Bench, name: str) -> float:
    """By the validation score of seed 0; the grid grows by factors of two until its best is no edge of it."""
    tried = {rate: bench.run(name, 0, rate)["validation"] for rate in RATES}
    while (best := min(tried, key=lambda r: tried[r])) in (min(tried), max(tried)):
        further = best / 2 if best == min(tried) else best * 2
        tried[further] = bench.run(name, 0, further)["validation"]
    return best


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", default="shakespeare,shakespeare300k,songci,small")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=120, help="seconds a run")
    parser.add_argument("--rate", type=float, help="the rival's rate, instead of a search for its best")
    parser.add_argument("--out", type=Path, default=Path("build/bench-moves"))
    given = parser.parse_args()
    source = data_sets.data_folder("tinyshakespeare")
    bench = Bench(given.out, source, given.budget)
    print("| data | rate | AdamW, linear to zero | multistep | wins | kept moves in all | n-gram |")
    print("|---|---|---|---|---|---|---|")
    for name in given.sets.split(","):
        rate = given.rate or best_rate(bench, name)
        rival, ours = [], []
        for seed in range(given.seeds):
            rival.append(bench.run(name, seed, rate))
            ours.append(bench.run(name, seed, None))
        wins = sum(o["test"] < r["test"] for o, r in zip(ours, rival, strict=True))
        kept = sum(v == "leads" and ".control" not in i for o in ours for i, v in o["verdicts"])
        ngram = ours[0]["baseline"]
        row = [spread([r["test"] for r in rows]) for rows in (rival, ours)]
        print(
            f"| {name} | {rate:g} | {row[0]} | {row[1]} | {wins} of {given.seeds} | {kept} | {ngram:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
