"""Whether the best rate stays where it is when a language model from nothing gets wider, deeper, or reads more a step.

    MULTISTEP_DATA=... python bench/widths.py run --optimizer muon --out build/bench-widths
    python bench/widths.py report build/bench-widths

`run` trains nanochat models on tiny Shakespeare (BPE of 1,024 tokens, context 64) for 300 steps at rates a factor of
two apart: widths 64, 128 and 256 of two layers with 12 rows a step; six layers of width 64; 48 rows a step. The rate
is warmed up over 10 steps and goes to zero over the last half, as a run's does. One thread; about eight minutes a
core and optimizer at the widths alone. A run that was interrupted is taken up again from `--out`. `report` prints bits
a byte on the last tenth of the text, and where the parabola through the best three rates has its lowest point. With
`--rests` the part of the rate is tried that AdamW has, for embeddings and the head; with `--head` the head's part of
that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from explore_text import Settings, batch_at, text
from torch import Tensor

from multistep.backends.torch.optimizers import build_optimizer
from multistep.core.values.optimizers import TYPICAL_RATE
from multistep.core.values.recipe import OptimizerName, Segment, rates
from multistep.tasks.text.lean import LeanConfig, LeanGPT, head_rate
from multistep.tasks.text.tuning import WEIGHT_DECAY

VOCABULARY, CONTEXT, STEPS, WARMUP = 1024, 64, 300, 10
SHAPES = {  # layers, width, rows
    "widths": ((2, 64, 12), (2, 128, 12), (2, 256, 12)),
    "widest": ((2, 256, 12),),
    "depth": ((2, 64, 12), (6, 64, 12)),
    "batch": ((2, 64, 12), (2, 64, 48)),
}
FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0)  # of the typical rate
USUAL_REST = 0.5  # of the rate, that AdamW has beside Muon


def train(
    optimizer: OptimizerName,
    shape: tuple[int, int, int],
    rate: float,
    rest: float,
    head: float,
    seed: int,
    data: tuple[Tensor, Tensor, int, int],
) -> float:
    """Bits a byte of the validation split after so many steps at this peak rate."""
    layers, width, rows = shape
    tokens, held_out, vocabulary, characters = data
    model = LeanGPT(LeanConfig("nanochat", vocabulary, layers, width, max(1, width // 32), CONTEXT)).initialise(seed)
    model.head_rate = head
    decay = WEIGHT_DECAY.get(optimizer, 0.0)
    clip = None if optimizer == "muon" else 1.0
    rule = build_optimizer(optimizer, model, learning_rate=rate, weight_decay=decay, clip_norm=clip, rest_ratio=rest)
    settings = Settings(seed=seed)
    whole = (
        Segment(WARMUP, "warmup", rate, 0.0, 1.0),
        Segment(STEPS // 2 - WARMUP, "constant", rate),
        Segment(STEPS - STEPS // 2, "linear", rate, 0.0, 1.0),
    )
    for step, now in enumerate(rates(whole)):
        inputs_BT, labels_BT = batch_at(tokens, step * rows, rows, CONTEXT, settings)
        total, count = model.loss(inputs_BT, labels_BT)
        rule.zero_grad()
        (total / count).backward()  # type: ignore[no-untyped-call]
        rule.step(now)
    return bits(model.eval(), held_out) / characters  # all of it is ASCII: a character is a byte


@torch.inference_mode()
def bits(model: LeanGPT, tokens: Tensor) -> float:
    whole = (len(tokens) - 1) // CONTEXT * CONTEXT
    inputs, labels = tokens[:whole].view(-1, CONTEXT), tokens[1 : whole + 1].view(-1, CONTEXT)
    pieces = zip(torch.split(inputs, 64), torch.split(labels, 64), strict=True)
    return sum(float(model.loss(i, label)[0]) for i, label in pieces) / math.log(2) * len(tokens) / whole


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "results.jsonl"
    known = {json.dumps({k: v for k, v in found.items() if k != "bits_per_byte"}) for found in read(args.out)}
    data = text(VOCABULARY)
    for shape in dict.fromkeys(shape for name in args.shapes for shape in SHAPES[name]):
        for factor in args.factors:
            for rest, seed in itertools.product(args.rests, range(args.seeds)):
                layers, width, rows = shape
                rate = factor * TYPICAL_RATE[args.optimizer]
                case = {"optimizer": args.optimizer, "layers": layers, "width": width, "rows": rows}
                head = args.head or head_rate(width)
                case |= {"rest": rest, "rate": rate, "seed": seed, "head": head}
                if json.dumps(case) in known:
                    continue
                found = {**case, "bits_per_byte": round(train(args.optimizer, shape, rate, rest, head, seed, data), 4)}
                with file.open("a") as lines:
                    lines.write(json.dumps(found) + "\n")
                print(json.dumps(found), flush=True)


def read(folder: Path) -> list[dict[str, Any]]:
    file = folder / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def best_rate(scores: dict[float, float]) -> float:
    """Where the parabola through the lowest score and its neighbours, over the logarithm of the rate, is lowest."""
    order = sorted(scores)
    at = min(range(len(order)), key=lambda i: scores[order[i]])
    if at in (0, len(order) - 1):
        return order[at]
    (x0, y0), (x1, y1), (x2, y2) = ((math.log(r), scores[r]) for r in order[at - 1 : at + 2])
    above, below = (
        (x1 - x0) ** 2 * (y1 - y2) - (x1 - x2) ** 2 * (y1 - y0),
        (x1 - x0) * (y1 - y2) - (x1 - x2) * (y1 - y0),
    )
    return math.exp(x1 - above / below / 2)


def report(args: argparse.Namespace) -> None:
    """One table over rates, and one over the part of them that AdamW has, at the rate where most parts were tried."""
    for name in dict.fromkeys(found["optimizer"] for found in read(args.folder)):
        mine = [found for found in read(args.folder) if found["optimizer"] == name]
        table(f"{name}, by rate", "rate", [found for found in mine if found["rest"] == USUAL_REST])
        parts: dict[float, set[float]] = defaultdict(set)
        for found in mine:
            parts[found["rate"]].add(found["rest"])
        most = max(parts, key=lambda rate: len(parts[rate]))
        table(f"{name} {most:g}, by AdamW's part of it", "rest", [found for found in mine if found["rate"] == most])


def table(head: str, over: str, found: list[dict[str, Any]]) -> None:
    """Bits a byte of each shape where two or more values were tried, and where they are lowest between them."""
    rows: dict[tuple[Any, ...], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for f in found:
        rows[f["layers"], f["width"], f["rows"], f["head"]][f[over]].append(f["bits_per_byte"])
    shown = sorted({value for scores in rows.values() for value in scores})
    print(
        f"\n| {head} | " + " | ".join(f"{value:g}" for value in shown) + " | best |\n" + "|---" * (len(shown) + 2) + "|"
    )
    for (layers, width, each, part), by_value in sorted(rows.items()):
        means = {value: sum(some) / len(some) for value, some in by_value.items()}
        if len(means) < 2:
            continue
        low = min(means.values())
        cells = [("**%.3f**" if means[v] == low else "%.3f") % means[v] if v in means else "" for v in shown]
        of_head = f", head {part:g} of that" if part != 1 else ""
        print(f"| {layers} x {width}, {each} rows{of_head} | " + " | ".join(cells) + f" | {best_rate(means):.2g} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("run")
    one.add_argument("--optimizer", default="muon")
    one.add_argument("--shapes", type=lambda s: s.split(","), default=["widths"])
    one.add_argument("--factors", type=lambda s: [float(x) for x in s.split(",")], default=list(FACTORS))
    one.add_argument("--seeds", type=int, default=1)
    one.add_argument("--rests", type=lambda s: [float(x) for x in s.split(",")], default=[USUAL_REST])
    one.add_argument("--head", type=float, help="the head's part of the AdamW rate; default: as models have it")
    one.add_argument("--out", type=Path, default=Path("build/bench-widths"))
    one.set_defaults(do=run)
    two = verbs.add_parser("report")
    two.add_argument("folder", type=Path)
    two.set_defaults(do=report)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
