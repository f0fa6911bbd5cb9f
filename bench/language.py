"""Real data: encoders from nothing, a pretrained one, and hidden words before classes, as `multistep` comes.

    MULTISTEP_DATA=... python bench/language.py [--sets sst2,chnsenticorp,sst2-phases,sst2-pretrained] [--seeds 1]
        [--budget 600] [--model FOLDER] [--out FOLDER]

sst2 and chnsenticorp: the test splits that the data's README calls honest (test, test_clean). sst2-phases: a third of
the budget for fill-mask on the same texts, then classes. sst2-pretrained: the encoder of --model, fine-tuned. Every
run is a process of its own; the test split is opened once in each. Results are kept in FOLDER/results.jsonl and used
again, so that an interrupted benchmark goes on.
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

HIDDEN_SHARE = 1 / 3  # of the budget goes to fill-mask
Result = dict[str, Any]


class Bench:
    def __init__(self, out: Path, source: Path, budget: int, model: str | None) -> None:
        self.out, self.source, self.budget, self.model = out, source, budget, model
        self.path = out / "results.jsonl"
        out.mkdir(parents=True, exist_ok=True)
        known = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.results: list[Result] = [json.loads(line) for line in known]

    def plan(self, name: str, seed: int) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "task": "text-classification",
            "data": (data_sets.chnsenticorp if name == "chnsenticorp" else data_sets.sst2)(self.source),
            "budget": f"{self.budget}s",
            "seed": seed,
        }
        if name == "sst2-phases":
            until = f"{round(self.budget * HIDDEN_SHARE)}s"
            wanted["phases"] = [{"name": "hidden words", "task": "fill-mask", "until": until}, {"name": "classes"}]
        if name == "sst2-pretrained":
            wanted["model"] = self.model
        return wanted

    def run(self, name: str, seed: int) -> Result:
        key = {"set": name, "seed": seed, "budget": self.budget}
        for result in self.results:
            if all(result.get(k) == v for k, v in key.items()):
                return result
        # A folder of its own for each run: no phase is taken over from a run beside it.
        folder = self.out / "runs" / f"{name}-{seed}-{self.budget}"
        folder.mkdir(parents=True, exist_ok=True)
        plan = folder / "plan.yaml"
        plan.write_text(json.dumps(self.plan(name, seed), indent=1), encoding="utf-8")  # JSON is YAML
        command = [str(Path(sys.executable).with_name("multistep")), "train", str(plan), "--json"]
        command += ["--out", str(folder / "run")]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
        record = json.loads(done.stdout)
        result = {
            **key,
            "seconds": time.monotonic() - began,
            "validation": record["validation"],
            "test": record["test"],
            "scores": record["scores"]["test"],
            "baseline": {"name": record["baseline"]["name"], **record["baseline"]["test"]},
            "control": record["control"],
            "parameters": record["parameters"],
            "stopped": record["stopped"],
            "steps": record["steps"],
            "spent": record["seconds"],
            "verdicts": [[t["id"], t["move"], t["verdict"], t["score"]] for t in record["trials"] if t["verdict"]],
        }
        self.results.append(result)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), file=sys.stderr, flush=True)
        return result


def words(score: dict[str, Any]) -> str:
    return f"{score['score']:.4f} [{score['low']:.4f}, {score['high']:.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", default="sst2,chnsenticorp,sst2-phases,sst2-pretrained")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget", type=int, default=600, help="seconds a run")
    parser.add_argument("--model", help="folder or hub id of a pretrained encoder, for sst2-pretrained")
    parser.add_argument("--out", type=Path, default=Path("build/bench-language"))
    given = parser.parse_args()
    source = data_sets.data_folder("sst2")
    bench = Bench(given.out.resolve(), source, given.budget, given.model)
    print("| data | seeds | test accuracy: mean (range) | seed 0, 95% interval | baseline | gain over it | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in given.sets.split(","):
        if name == "sst2-pretrained" and not given.model:
            print("bench/language.py: sst2-pretrained needs --model FOLDER; left out", file=sys.stderr)
            continue
        rows = [bench.run(name, seed) for seed in range(given.seeds)]
        tests = [row["test"]["score"] for row in rows]
        spread = f"{statistics.mean(tests):.4f} ({min(tests):.4f} to {max(tests):.4f})"
        first = rows[0]
        gain = first["baseline"]["gain"]
        print(
            f"| {name} | {len(rows)} | {spread} | {words(first['test'])} | {first['baseline']['score']:.4f} "
            f"| {gain['improvement']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}] "
            f"| {statistics.mean(row['seconds'] for row in rows):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
