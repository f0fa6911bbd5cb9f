"""Fine-tuning on one clock: `multistep` as it comes against the usual three epochs, from the same pretrained model.

    MULTISTEP_DATA=... python bench/finetune.py [--seeds 5] [--budget 120] [--base-budget 180] [--out FOLDER]

A small causal model is trained first, by `multistep` on the last two thirds of tiny Shakespeare. It is then fitted to
100,000 characters of the first third. Passages of 10,000 characters are dealt to the splits, so that validation and
test are of one population: further on in the plays is nearer to what the base model knows. The rival is what people
do: AdamW, three epochs, warm-up, linear to zero, the best of five rates by the validation score of seed 0 (where it
lies at the edge, further ones are tried until it does not).
Scores are those of the test split in bits per byte. Results are kept in FOLDER/results.jsonl and used again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PASSAGE = 10_000
SPLITS = {"train": 10, "validation": 13, "test": 13}  # passages
RATES = (5e-5, 1e-4, 2e-4, 4e-4, 8e-4)
EPOCHS = 3
Result = dict[str, Any]


def multistep(*arguments: str) -> Result:
    command = [str(Path(sys.executable).with_name("multistep")), *arguments, "--json"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    record: Result = json.loads(done.stdout)
    return {**record, "wall": time.monotonic() - began}


class Bench:
    def __init__(self, out: Path, text: str, base_budget: int) -> None:
        self.out = out
        self.path = out / "results.jsonl"
        self.data = out / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        passages: dict[str, list[str]] = {split: [] for split in SPLITS}
        for number in range(sum(SPLITS.values())):
            # To the split that is furthest behind its share.
            split = min(SPLITS, key=lambda name: (len(passages[name]) + 1) / SPLITS[name])
            passages[split].append(text[number * PASSAGE : (number + 1) * PASSAGE])
        for split, some in passages.items():
            (self.data / f"{split}.txt").write_text("".join(some), encoding="utf-8")
        (out / "base.txt").write_text(text[sum(SPLITS.values()) * PASSAGE :], encoding="utf-8")
        known = self.path.read_text().splitlines() if self.path.exists() else []
        self.results: list[Result] = [json.loads(line) for line in known]
        self.base = out / "base" / "model"
        task = ("train", "--task", "text-generation")
        multistep(*task, "--data", str(out / "base.txt"), "--budget", f"{base_budget}s", "--out", str(out / "base"))

    def run(self, seed: int, rate: float | None, budget: int) -> Result:
        """Ours within the budget (`rate` None), or three epochs at a rate."""
        key = {"seed": seed, "rate": rate, "budget": budget if rate is None else 0}
        for result in self.results:
            if all(result.get(k) == v for k, v in key.items()):
                return result
        way = "ours" if rate is None else f"adamw-{rate:g}"
        arguments = ["train", "--task", "text-generation", "--data", str(self.data), "--model", str(self.base)]
        arguments += ["--seed", str(seed), "--out", str(self.out / f"{way}-{seed}-{budget}")]
        if rate is None:
            arguments += ["--budget", f"{budget}s"]
        else:
            recipe = f"{{optimizer: adamw, learning_rate: {rate:g}, cooldown_fraction: 1.0, averaging: 0}}"
            arguments += ["--set", f"phases=[{{name: rival, until: {EPOCHS} epochs, moves: [], recipe: {recipe}}}]"]
        record = multistep(*arguments)
        result = {
            **key,
            "seconds": record["wall"],
            "validation": record["scores"]["validation"]["bits_per_byte"],
            "test": record["scores"]["test"]["bits_per_byte"],
            "baseline": record["baseline"]["test"]["scores"]["bits_per_byte"],
            "stopped": record["stopped"],
            "led": [t["move"] or t["kind"] for t in record["trials"] if t["leads"]],
        }
        self.results.append(result)
        with self.path.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), file=sys.stderr, flush=True)
        return result

    def as_it_is(self) -> float:
        scores = multistep("evaluate", str(self.base), "--data", str(self.data / "test.txt"))["scores"]
        return float(scores["bits_per_byte"]["score"])


def best_rate(bench: Bench) -> float:
    tried = {rate: bench.run(0, rate, 0)["validation"] for rate in RATES}
    while (best := min(tried, key=lambda r: tried[r])) in (min(tried), max(tried)):
        further = best / 2 if best == min(tried) else best * 2
        tried[further] = bench.run(0, further, 0)["validation"]
    return best


def spread(results: list[Result]) -> str:
    values = [r["test"] for r in results]
    seconds = statistics.mean(r["seconds"] for r in results)
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f}) | {seconds:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=120, help="seconds that multistep gets; the rival takes its own")
    parser.add_argument("--base-budget", type=int, default=180)
    parser.add_argument("--out", type=Path, default=Path("build/bench-finetune"))
    given = parser.parse_args()
    source = Path(os.environ.get("MULTISTEP_DATA", "")) / "tinyshakespeare" / "input.txt"
    if not source.is_file():
        sys.exit("bench/finetune.py: set MULTISTEP_DATA to the folder that holds tinyshakespeare/input.txt")
    bench = Bench(given.out.resolve(), source.read_text(encoding="utf-8"), given.base_budget)
    rate = best_rate(bench)
    seeds = range(given.seeds)
    rival, ours = [bench.run(s, rate, 0) for s in seeds], [bench.run(s, None, given.budget) for s in seeds]
    print("| way | test, bits per byte: mean (range) | seconds |")
    print("|---|---|---|")
    print(f"| the base model as it is | {bench.as_it_is():.4f} | |")
    print(f"| AdamW, {EPOCHS} epochs, best rate ({rate:g}) | {spread(rival)} |")
    print(f"| multistep, {given.budget} s | {spread(ours)} |")
    print(f"| 6-gram of the 100,000 characters | {ours[0]['baseline']:.4f} | |")
    wins = sum(o["test"] < r["test"] for o, r in zip(ours, rival, strict=True))
    print(f"\nwins: {wins} of {given.seeds}; kept: {[o['kept'] for o in ours]}")


if __name__ == "__main__":
    main()
