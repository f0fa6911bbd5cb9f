"""What deciding costs: reading a curve, and intervals and comparisons of ten thousand examples, in milliseconds.

    python bench/decisions.py [--times 20]

The least of so many times, after one that is not counted. A look waits for its reading, a verdict for its comparison.
"""

import argparse
import functools
import time
from collections.abc import Callable

import numpy as np

from multistep.core.evidence.compare import compare
from multistep.core.evidence.curves import Curve
from multistep.core.evidence.metric import METRICS, Evaluation
from multistep.core.evidence.stability import read_curve

EXAMPLES, POINTS = 10_000, 200
NAMES = ("loss", "accuracy", "macro_f1", "matthews", "roc_auc", "spearman")


def least(work: Callable[[], object], times: int) -> float:
    """Milliseconds."""
    work()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return 1000 * min(seconds)


def table(name: str, seed: int) -> Evaluation:
    generator = np.random.default_rng(seed)
    label = np.random.default_rng(6).integers(0, 2, EXAMPLES).astype(np.float64)
    score = label + generator.standard_normal(EXAMPLES)
    prediction = score if name == "spearman" else (score > 0.5).astype(np.float64)
    columns = {"label": label, "prediction": prediction, "score": score, "loss": generator.exponential(size=EXAMPLES)}
    return Evaluation({**columns, "count": np.ones(EXAMPLES), "block": np.arange(float(EXAMPLES))})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    curve = Curve("exponential", floor=100.0, drop=100.0, pace=2000.0, noise_sd=0.3)
    steps = np.arange(10.0, 10.0 * (POINTS + 1), 10.0)
    scores = curve.observe(10.0 * steps, np.random.default_rng(0)).tolist()

    def reading() -> object:
        return read_curve(steps.tolist(), scores, horizon_steps=500.0, tolerance=1.0)

    print("| work | ms |\n|---|---|")
    print(f"| reading a curve of {POINTS} looks | {least(reading, given.times):.2f} |")
    for name in NAMES:
        metric, one, other = METRICS[name], table(name, 0), table(name, 1)
        interval = least(functools.partial(metric.interval, one), given.times)
        compared = least(functools.partial(compare, metric, one, other), given.times)
        print(f"| interval of {name}, {EXAMPLES:,} examples | {interval:.1f} |")
        print(f"| comparison by {name} | {compared:.1f} |")


if __name__ == "__main__":
    main()
