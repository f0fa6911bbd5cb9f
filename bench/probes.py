"""Do short probes of the learning rate choose rates that are too small? On real runs of a small model.

    MULTISTEP_DATA=... python bench/probes.py [--seeds 2] [--steps 6000] [--out FOLDER]

Each rate is run for a probe's 200 steps, and for the whole length, through explicit plans; then the product's own
rule picks among each three neighbouring rates from the probes alone. Probes with a cooldown and the rule "the
largest that does not lose" are there to undo the preference of short horizons (arXiv 1803.02021).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

from multistep.core.allowance import PROBE_STEPS
from multistep.core.metric import METRICS

RATES = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
MODEL = ("model.tokenizer=characters", "model.layers=2", "model.width=64", "model.heads=2", "model.context=64")


def final(data: Path, out: Path, rate: float, steps: int, seed: int) -> float:
    """The validation loss after so many steps with the cooldown, in nats per character; infinite if it diverged."""
    folder = out / f"{rate:g}-{steps}-{seed}" / "run"
    command = [str(Path(sys.executable).with_name("multistep")), "train", "--task", "text-generation", "--json"]
    command += ["--data", str(data), "--seed", str(seed), "--out", str(folder)]
    share = 0.75 if steps == PROBE_STEPS else 0.5
    phase = (
        f"phases=[{{name: p, until: {steps} steps, recipe: {{learning_rate: {rate:g}, cooldown_fraction: {share}}}}}]"
    )
    for setting in (*MODEL, phase):
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(json.loads(done.stdout)["validation"]["score"]) if done.returncode == 0 else math.inf


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--out", type=Path, default=Path("build/bench-probes"))
    given = parser.parse_args()
    data = Path(os.environ.get("MULTISTEP_DATA", "")) / "tinyshakespeare" / "input.txt"
    if not data.is_file():
        sys.exit("bench/probes.py: set MULTISTEP_DATA to the folder that holds tinyshakespeare/input.txt")
    losses: dict[tuple[float, int, int], float] = {}
    print(f"| rate | {PROBE_STEPS} steps | {given.steps:,} steps |\n|---|---|---|")
    for rate in RATES:
        row = []
        for steps in (PROBE_STEPS, given.steps):
            found = [final(data, given.out, rate, steps, seed) for seed in range(given.seeds)]
            losses.update({(rate, steps, seed): loss for seed, loss in enumerate(found)})
            row.append(f"{statistics.mean(found):.4f} ({', '.join(f'{loss:.4f}' for loss in found)})")
        print(f"| {rate:g} | {' | '.join(row)} |", flush=True)
    print(
        "\n| rates probed | seed | naive: lowest probe | the rule | best in the long run | the rule loses, long run |"
    )
    print("|---|---|---|---|---|---|")
    for three in zip(RATES, RATES[1:], RATES[2:], strict=False):
        for seed in range(given.seeds):
            probes = {rate: losses[rate, PROBE_STEPS, seed] for rate in three}
            long = {rate: losses[rate, given.steps, seed] for rate in three}
            lowest = min(probes, key=lambda r: probes[r])
            slack = METRICS["loss"].tolerance(probes[lowest])
            chosen = max(rate for rate in three if probes[rate] <= probes[lowest] + slack)
            best = min(long, key=lambda r: long[r])
            names = ", ".join(f"{rate:g}" for rate in three)
            print(f"| {names} | {seed} | {lowest:g} | {chosen:g} | {best:g} | {long[chosen] - long[best]:.4f} |")


if __name__ == "__main__":
    main()
