"""Seconds to a score on tiny Shakespeare: `multistep` and a well-known small script, in turn.

    MULTISTEP_DATA=... python bench/speed.py [--parts a,own,b,c] [--seeds 5] [--out FOLDER]

Every run is a process of its own; its seconds are those of the whole process, imports, data, scoring, export and
report included. Seconds to a score are those of the smallest budget on the grid whose finished run reaches it,
found by walking down the grid from where the seed before ended, or up if that is not enough.
The runs of one seed follow each other, so that a noisy machine disturbs both sides alike; on one that others use, too,
bench/processor_time.py has the clock of a process's own seconds.

a: what the script reaches in 2,000 steps (mean over seeds), with characters and the shape that `multistep`
   picks at the same parameter count. own: the same score with the script's own model.
b: what the script reaches in 10,000 steps. c: the n-gram baseline's score. Both with model, context and
   tokenizer free; nats per character throughout (a tokenizer's nats are divided by the characters).
Results are kept in FOLDER/results.jsonl and used again, so that an interrupted benchmark goes on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import processor_time

HERE = Path(__file__).parent
GRIDS = {
    "a": [22, 25, 28, 31, 34, 38],
    "own": [34, 38, 42, 46, 50, 56],
    "b": [60, 75, 90, 110, 130, 160, 190, 230, 280, 340],
    "c": [60, 75, 90, 110, 130, 160, 190, 230, 280, 340],
}
PARTS = {
    "a": ["model.tokenizer=characters", "model.parameters=800000"],
    "own": [
        "model.name=gpt2",
        "model.tokenizer=characters",
        "model.layers=4",
        "model.width=128",
        "model.heads=4",
        "model.context=64",
    ],
    "b": [],
    "c": [],
}
Result = dict[str, Any]


class Bench:
    def __init__(self, out: Path, characters: int) -> None:
        self.out, self.characters = out, characters
        self.path = out / "results.jsonl"
        known = self.path.read_text().splitlines() if self.path.exists() else []
        self.results: list[Result] = [json.loads(line) for line in known]
        self._place: dict[str, int] = {}  # on a part's grid, where the last seed's smallest budget was

    def _run(self, key: Result, command: list[str]) -> Result:
        for result in self.results:
            if all(result.get(name) == value for name, value in key.items()):
                return result
        began = processor_time.of_children()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
        result = {**key, **self._read(json.loads(done.stdout)), "seconds": processor_time.of_children() - began}
        self.results.append(result)
        with self.path.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), file=sys.stderr, flush=True)
        return result

    def _read(self, record: Result) -> Result:
        if "validation" not in record:
            return {"loss": record["loss"], "train_seconds": record["train_seconds"]}
        bits = record["scores"]["validation"]["bits_per_byte"]
        baseline = record["baseline"]["validation"]["scores"]["bits_per_byte"]
        nats = 0.6931471805599453  # tiny Shakespeare is ASCII: a byte is a character
        return {
            "loss": bits * nats,
            "baseline": baseline * nats,
            "train_seconds": record["seconds"]["train"],
            "steps": record["steps"],
            "parameters": record["parameters"],
        }

    def script(self, steps: int, seed: int) -> Result:
        command = [sys.executable, str(HERE / "script.py"), str(self.out / "data")]
        return self._run(
            {"way": "script", "steps": steps, "seed": seed}, [*command, f"--steps={steps}", f"--seed={seed}"]
        )

    def ours(self, part: str, budget: int, seed: int) -> Result:
        run = self.out / f"{part}-{budget}-{seed}"
        settings = [word for setting in PARTS[part] for word in ("--set", setting)]
        command = [sys.executable, str(HERE / "processor_time.py"), "train", "--task", "text-generation", "--json"]
        command += ["--data", str(self.out / "data"), "--budget", f"{budget}s", "--seed", str(seed), "--out", str(run)]
        # b and c are the same runs, asked for different scores.
        return self._run({"way": "free" if part in "bc" else part, "budget": budget, "seed": seed}, command + settings)

    def seconds_to(self, target: float, part: str, seed: int) -> float | None:
        grid, place = GRIDS[part], self._place.get(part, len(GRIDS[part]) // 2)
        reached: dict[int, float] = {}
        while 0 <= place < len(grid):
            found = self.ours(part, grid[place], seed)
            if found["loss"] <= target:
                reached[place] = float(found["seconds"])
                place -= 1
            elif place + 1 in reached:
                break
            else:
                place += 1
        if not reached:
            return None
        self._place[part] = min(reached)
        return reached[min(reached)]


def spread(values: Iterable[float]) -> str:
    known = list(values)
    return f"{statistics.mean(known):.3g} ({min(known):.3g} to {max(known):.3g})" if known else "none"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", default="a,own,b,c")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--long-seeds", type=int, default=1, help="seeds of the script's 10,000 steps")
    parser.add_argument("--out", type=Path, default=Path("build/bench-speed"))
    given = parser.parse_args()
    source = Path(os.environ.get("MULTISTEP_DATA", "")) / "tinyshakespeare" / "input.txt"
    if not source.is_file():
        sys.exit("bench/speed.py: set MULTISTEP_DATA to the folder that holds tinyshakespeare/input.txt")
    text = source.read_text(encoding="utf-8")
    cut = int(0.9 * len(text))
    data = given.out / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "train.txt").write_text(text[:cut], encoding="utf-8")
    (data / "validation.txt").write_text(text[cut:], encoding="utf-8")
    bench = Bench(given.out, len(text) - cut)
    parts, seeds = given.parts.split(","), range(given.seeds)
    target: dict[str, float] = {}
    rows: list[tuple[str, list[float | None], float]] = []
    if {"a", "own"} & set(parts):
        # The target is a mean over seeds, so the script runs first with each; ours alternate in between.
        for seed in seeds:
            bench.script(2000, seed)
            for part in [p for p in ("a", "own") if p in parts]:
                for budget in GRIDS[part][1:3]:
                    bench.ours(part, budget, seed)
        scripts = [bench.script(2000, seed) for seed in seeds]
        target["a"] = target["own"] = statistics.mean(r["loss"] for r in scripts)
        print(
            f"script, 2,000 steps: loss {spread(r['loss'] for r in scripts)}, "
            f"seconds {spread(r['seconds'] for r in scripts)}"
        )
    if "b" in parts:
        target["b"] = statistics.mean(bench.script(10000, seed)["loss"] for seed in range(given.long_seeds))
        print(
            f"script, 10,000 steps ({given.long_seeds} seeds): loss {target['b']:.4f}, "
            f"seconds {spread(bench.script(10000, s)['seconds'] for s in range(given.long_seeds))}"
        )
    if "c" in parts:
        target["c"] = bench.ours("c", GRIDS["b"][0], 0)["baseline"]
    for part in parts:
        reached = [bench.seconds_to(target[part], part, seed) for seed in seeds]
        steps = 10000 if part == "b" else 2000
        scale = [r["seconds"] for r in bench.results if r["way"] == "script" and r["steps"] == steps]
        rows.append((part, reached, statistics.mean(scale) if scale else float("nan")))
    print("\n| part | target, nats per character | grid, s | reached | seconds, mean (range) | share of the script's |")
    print("|---|---|---|---|---|---|")
    for part, reached, script_seconds in rows:
        known = [seconds for seconds in reached if seconds is not None]
        share = spread(seconds / script_seconds for seconds in known)
        grid = ", ".join(map(str, GRIDS[part]))
        print(f"| {part} | {target[part]:.4f} | {grid} | {len(known)} of {len(reached)} | {spread(known)} | {share} |")


if __name__ == "__main__":
    main()
