"""Speech on real data: spoken digits with one speaker left out, and a few sentences of AN4 to see that it runs.

    MULTISTEP_DATA=... python bench/speech.py [--sets fsdd,an4] [--models wavenet,deepspeech] [--budget 300] [--out DIR]

Free spoken digits: six speakers, each in turn the test split, the next one the validation split, the other four to
learn from. Every run is a process of its own with the same budget. Word error rates are those of the test split, with
the beam search that `multistep predict` uses too, which leans on the characters of the training transcripts; the same
model without that is shown beside it. AN4 has 40 utterances here: its row says that a run goes through.
Results are kept in DIR/results.jsonl and used again, so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import data_sets

Result = dict[str, Any]


def digits(source: Path, out: Path) -> dict[str, Path]:
    """A manifest for each speaker left out, beside the unpacked recordings."""
    folder, rows = data_sets.spoken_digits(source, out), data_sets.spoken_rows(source)
    speakers = sorted({row["speaker"] for row in rows})
    found = {}
    for i, speaker in enumerate(speakers):
        splits = {speaker: "test", speakers[(i + 1) % len(speakers)]: "validation"}
        found[speaker] = folder / f"without-{speaker}.csv"
        with found[speaker].open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "text", "speaker", "split"])
            for row in rows:
                writer.writerow([row["path"], row["text"], row["speaker"], splits.get(row["speaker"], "train")])
    return found


class Bench:
    def __init__(self, out: Path, budget: int) -> None:
        self.out, self.budget = out, budget
        self.path = out / "results.jsonl"
        out.mkdir(parents=True, exist_ok=True)
        known = self.path.read_text().splitlines() if self.path.exists() else []
        self.results: list[Result] = [json.loads(line) for line in known]

    def run(self, name: str, data: Path, model: str) -> Result:
        key = {"set": name, "model": model, "budget": self.budget}
        for result in self.results:
            if all(result.get(k) == v for k, v in key.items()):
                return result
        folder = self.out / "runs" / f"{name}-{model}-{self.budget}"
        command = [str(Path(sys.executable).with_name("multistep")), "train", "--task", "speech-recognition", "--json"]
        command += ["--data", str(data), "--model", model, "--budget", f"{self.budget}s", "--out", str(folder)]
        began = time.monotonic()
        record = answer(command)
        result = {
            **key,
            "seconds": time.monotonic() - began,
            "validation": record["scores"]["validation"],
            "test": record["scores"]["test"],
            "sound_alone": sound_alone(folder / "model", data),
            "interval": [record["test"]["low"], record["test"]["high"]],
            "baseline": [record["baseline"]["name"], record["baseline"]["test"]["scores"]["wer"]],
            "parameters": record["parameters"],
            "stopped": record["stopped"],
            "steps": record["steps"],
            "verdicts": [[t["id"], t["verdict"]] for t in record["trials"] if t["verdict"]],
        }
        self.results.append(result)
        with self.path.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), file=sys.stderr, flush=True)
        return result


def answer(command: list[str]) -> Result:
    """What a command prints as JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    found: Result = json.loads(done.stdout)
    return found


def sound_alone(model: Path, data: Path) -> float:
    """The test split's word error rate of the same model, its beam search without the character model."""
    folder = model.parent / "sound-alone"
    shutil.copytree(model, folder, dirs_exist_ok=True)
    settings = json.loads((folder / "multistep.json").read_text(encoding="utf-8"))
    settings["decoding"]["weight"] = 0.0
    (folder / "multistep.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("multistep")), "evaluate", str(folder), "--data", str(data), "--json"]
    return float(answer(command)["scores"]["wer"]["score"])


def table(bench: Bench, manifests: dict[str, Path], models: list[str]) -> None:
    """A row a model: each speaker's test word error rate, their mean and spread, and the worst."""
    speakers = list(manifests)
    print(f"| model | {' | '.join(speakers)} | mean | spread | worst | character errors |")
    print("|---" * (len(speakers) + 5) + "|")
    for model in models:
        found = [bench.run(f"fsdd-{speaker}", path, model) for speaker, path in manifests.items()]
        characters = statistics.mean(r["test"]["cer"] for r in found)
        print(row_of(model, [r["test"]["wer"] for r in found], speakers, f"{characters:.3f}"))
        print(row_of(f"{model}, sound alone", [r["sound_alone"] for r in found], speakers, ""))
    name = " or ".join(sorted({r["baseline"][0] for r in found}))
    print(row_of(name, [r["baseline"][1] for r in found], speakers, ""))


def row_of(name: str, rates: list[float], speakers: list[str], characters: str) -> str:
    deviation = statistics.stdev(rates) if len(rates) > 1 else 0.0
    worst = speakers[rates.index(max(rates))]
    cells = [
        *(f"{rate:.3f}" for rate in rates),
        f"**{statistics.mean(rates):.3f}**",
        f"{deviation:.3f}",
        worst,
        characters,
    ]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", default="fsdd,an4")
    parser.add_argument("--models", default="wavenet,deepspeech")
    parser.add_argument("--budget", type=int, default=300, help="seconds a run")
    parser.add_argument("--speakers", default="", help="of fsdd, to leave out; default all")
    parser.add_argument("--out", type=Path, default=Path("build/bench-speech"))
    given = parser.parse_args()
    source = data_sets.data_folder("fsdd")
    bench, models = Bench(given.out, given.budget), given.models.split(",")
    if "fsdd" in given.sets.split(","):
        manifests = digits(source, given.out)
        wanted = given.speakers.split(",") if given.speakers else list(manifests)
        table(bench, {speaker: manifests[speaker] for speaker in wanted}, models)
    if "an4" in given.sets.split(","):
        print("\n| AN4, 40 utterances | word error rate | interval | baseline |")
        print("|---|---|---|---|")
        for model in models:
            found = bench.run("an4", source / "an4_tiny" / "manifest.csv", model)
            low, high = found["interval"]
            print(f"| {model} | {found['test']['wer']:.3f} | {low:.3f} to {high:.3f} | {found['baseline'][1]:.3f} |")


if __name__ == "__main__":
    main()
