"""Real pictures, one clock: `multistep` as it comes on Fashion-MNIST and the sign-language digits.

    MULTISTEP_DATA=... python bench/images.py [--sets fashion,signs] [--seeds 3] [--budget 600] [--out FOLDER]

Every run is a process of its own: `multistep train --task image-classification --data ... --budget ...`, without any
other setting. Fashion-MNIST is the folder of IDX files, its validation split cut from train; the sign digits are the
archive's folders, unpacked under FOLDER, split by student. Accuracies are of the test split.
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

AIMS = {"fashion": 0.935, "signs": 0.97}
Result = dict[str, Any]


class Bench:
    def __init__(self, out: Path, source: Path, budget: int) -> None:
        self.out, self.source, self.budget = out, source, budget
        self.path = out / "results.jsonl"
        out.mkdir(parents=True, exist_ok=True)
        known = self.path.read_text().splitlines() if self.path.exists() else []
        self.results: list[Result] = [json.loads(line) for line in known]

    def run(self, name: str, seed: int) -> Result:
        key = {"set": name, "seed": seed, "budget": self.budget}
        for result in self.results:
            if all(result.get(k) == v for k, v in key.items()):
                return result
        folder = self.out / "runs" / f"{name}-{seed}-{self.budget}" / "run"
        command = [str(Path(sys.executable).with_name("multistep")), "train", "--task", "image-classification"]
        fashion = self.source / "fashion-mnist"
        data = fashion if name == "fashion" else data_sets.sign_digits(self.source, self.out)
        command += ["--data", str(data), "--budget", f"{self.budget}s"]
        command += ["--seed", str(seed), "--out", str(folder), "--json"]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
        record = json.loads(done.stdout)
        scores = record["scores"]["test"]
        result = {
            **key,
            "seconds": time.monotonic() - began,
            "validation": record["scores"]["validation"]["accuracy"],
            "test": scores["accuracy"],
            "low": record["test"]["low"],
            "high": record["test"]["high"],
            "macro_f1": scores["macro_f1"],
            "baseline": record["baseline"]["test"]["scores"]["accuracy"],
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


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", default="fashion,signs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=600, help="seconds a run")
    parser.add_argument("--out", type=Path, default=Path("build/bench-images"))
    given = parser.parse_args()
    source = data_sets.data_folder("fashion-mnist")
    bench = Bench(given.out, source, given.budget)
    print("| data | test accuracy | 95%, seed 0 | validation | macro-F1 | pixels, logistic | steps | seconds | aim |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in given.sets.split(","):
        rows = [bench.run(name, seed) for seed in range(given.seeds)]
        first = rows[0]
        cells = [
            name,
            spread([row["test"] for row in rows]),
            f"{first['low']:.4f} to {first['high']:.4f}",
            spread([row["validation"] for row in rows]),
            spread([row["macro_f1"] for row in rows]),
            f"{first['baseline']:.4f}",
            f"{statistics.mean(row['steps'] for row in rows):.0f}",
            f"{statistics.mean(row['seconds'] for row in rows):.0f}",
            str(AIMS[name]),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
