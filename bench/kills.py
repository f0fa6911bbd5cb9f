"""Kill real runs at random moments and resume them until they end: are the weights those of a calm run?

    python bench/kills.py [--runs 8] [--kills 5] [--seed 0]

Plans whose lengths are steps, one process, CPU: two explicit phases, and a run of moves, in turn.
Two kills in three are SIGKILL, the others SIGTERM or Ctrl-C.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PHASES = """
task: text-generation
data: corpus.txt
seed: {seed}
model: {{layers: 2, width: 64, context: 32, tokenizer: characters}}
recipe: {{dropout: 0.1, batch_size: 8}}
phases:
  - {{name: first, until: 400 steps}}
  - {{name: second, until: 250 steps, recipe: {{optimizer: adamw, learning_rate: 2e-3, frozen: ["embedding*"]}}}}
"""
MOVES = """
task: text-generation
data: corpus.txt
seed: {seed}
model: {{layers: 2, width: 64, context: 32, tokenizer: characters}}
budget: 3000 steps
tolerance: 0.3
moves: [dropout-up, optimizer-adamw, decay-up, average]
"""
PLANS = (PHASES, MOVES)
SUBJECTS, VERBS, OBJECTS = ["the cat", "a dog", "nobody"], ["sees", "paints", "forgets"], ["the moon", "a river"]


def corpus(seed: int) -> str:
    choose = random.Random(seed)
    lines = (f"{choose.choice(SUBJECTS)} {choose.choice(VERBS)} {choose.choice(OBJECTS)}." for _ in range(4000))
    return "\n".join(lines) + "\n"


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("multistep")), "train", "plan.yaml", "--out", out, "--json"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def weights(folder: Path, out: str) -> str:
    return str(json.loads((folder / out / "result.json").read_text())["weights_sha256"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--kills", type=int, default=5, help="of each run, at most")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    choose = random.Random(given.seed)
    killed = dict.fromkeys(("SIGKILL", "SIGTERM", "SIGINT"), 0)
    same = unresumed = 0
    for number in range(given.runs):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "corpus.txt").write_text(corpus(number), encoding="utf-8")
            (folder / "plan.yaml").write_text(PLANS[number % 2].format(seed=number), encoding="utf-8")
            began = time.monotonic()
            calm = start(folder, "calm/run")
            calm.communicate()
            calm_seconds = time.monotonic() - began
            for _ in range(given.kills):
                running = start(folder, "torn/run")
                try:
                    running.wait(timeout=choose.uniform(0.25, 0.9) * calm_seconds)
                except subprocess.TimeoutExpired:
                    kind = choose.choice([signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT])
                    running.send_signal(kind)
                    killed[kind.name] += 1
                _, errors = running.communicate()
                if running.returncode not in (0, -signal.SIGKILL, 130, 143):
                    unresumed += 1
                    print(f"run {number}: exit {running.returncode}: {errors[-500:].decode()}")
                if running.returncode == 0:
                    break
            start(folder, "torn/run").communicate()
            equal = weights(folder, "torn/run") == weights(folder, "calm/run")
            same += equal
            print(f"run {number}: {'the same bits' if equal else 'OTHER BITS'}", file=sys.stderr, flush=True)
    listed = ", ".join(f"{count} {name}" for name, count in killed.items())
    print(f"{sum(killed.values())} kills ({listed}) in {given.runs} runs; resuming failed {unresumed} times; ")
    print(f"{same} of {given.runs} ended in the same bits as the calm run")
    sys.exit(same != given.runs or unresumed > 0)


if __name__ == "__main__":
    main()
