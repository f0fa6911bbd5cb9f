"""Do short probes of the learning rate choose a rate that is wrong for the whole length? On runs of a small model.

    MULTISTEP_DATA=... python bench/probes.py [--seeds 2] [--steps 6000] [--optimizer muon] [--out FOLDER]

Each rate is run for the whole length and for a probe's 200 steps, as it is and as the rate that stands for it there
(core/choice/probing.py), through explicit plans. Then the product's rule picks among each three neighbouring rates, the
middle one as the preset's, from the probes alone.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

from multistep.core.choice.allowance import PROBE_STEPS
from multistep.core.choice.probing import nearest_of_best, stand_in
from multistep.core.evidence.metric import METRICS

RATES = {
    "muon": (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16),
    "adamw": (0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08),
}
MODEL = ("model.tokenizer=characters", "model.layers=2", "model.width=64", "model.heads=2", "model.context=64")


def final(data: Path, out: Path, optimizer: str, rate: float, steps: int, seed: int) -> float:
    """The validation loss after so many steps with the cooldown, in nats per character; infinite if it diverged."""
    folder = out / f"{optimizer}-{rate:.4g}-{steps}-{seed}" / "run"
    command = [str(Path(sys.executable).with_name("multistep")), "train", "--task", "text-generation", "--json"]
    command += ["--data", str(data), "--seed", str(seed), "--out", str(folder)]
    share = 0.75 if steps == PROBE_STEPS else 0.5
    recipe = f"{{optimizer: {optimizer}, learning_rate: {rate:.4g}, cooldown_fraction: {share}}}"
    phase = f"phases=[{{name: p, until: {steps} steps, recipe: {recipe}}}]"
    for setting in (*MODEL, phase):
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(json.loads(done.stdout)["validation"]["score"]) if done.returncode == 0 else math.inf


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--optimizer", choices=sorted(RATES), default="muon")
    parser.add_argument("--out", type=Path, default=Path("build/bench-probes"))
    given = parser.parse_args()
    data = Path(os.environ.get("MULTISTEP_DATA", "")) / "tinyshakespeare" / "input.txt"
    if not data.is_file():
        sys.exit("bench/probes.py: set MULTISTEP_DATA to the folder that holds tinyshakespeare/input.txt")
    rates, seeds = RATES[given.optimizer], range(given.seeds)
    plain: dict[tuple[float, int], float] = {}
    corrected: dict[tuple[float, int], float] = {}
    long: dict[tuple[float, int], float] = {}
    print(f"| rate | {PROBE_STEPS} steps | {PROBE_STEPS} steps at what stands for it | {given.steps:,} steps |")
    print("|---|---|---|---|")
    for rate in rates:
        row = []
        stands = stand_in(rate, given.steps)
        for found, tried, steps in (
            (plain, rate, PROBE_STEPS),
            (corrected, stands, PROBE_STEPS),
            (long, rate, given.steps),
        ):
            found.update({(rate, s): final(data, given.out, given.optimizer, tried, steps, s) for s in seeds})
            losses = [found[rate, seed] for seed in seeds]
            row.append(f"{statistics.mean(losses):.4f} ({', '.join(f'{loss:.4f}' for loss in losses)})")
        print(f"| {rate:g} | {' | '.join(row)} |", flush=True)
    print("\n| rates | seed | lowest probe, as it is: loses in the long run | the rule: loses | best in the long run |")
    print("|---|---|---|---|---|")
    for three in zip(rates, rates[1:], rates[2:], strict=False):
        for seed in seeds:
            best = min(three, key=lambda r: long[r, seed])
            naive = min(three, key=lambda r: plain[r, seed])
            chosen = nearest_of_best(METRICS["loss"], three[1], {r: corrected[r, seed] for r in three}, None)
            lost = [f"{rate:g}: {long[rate, seed] - long[best, seed]:.4f}" for rate in (naive, chosen)]
            print(f"| {', '.join(f'{r:g}' for r in three)} | {seed} | {' | '.join(lost)} | {best:g} |")


if __name__ == "__main__":
    main()
