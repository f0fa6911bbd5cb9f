"""What the engine's loop costs per step, over a bare PyTorch loop of the same model, batch and optimizer.

    python bench/overhead.py [--rounds 12]

Blocks of steps of the two loops alternate, so that a noisy machine disturbs both alike; what is printed is the
median of the blocks' differences. Averaged weights are left out on both sides: they are updated every few steps.
"""

import argparse
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch

from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.optimizers import build_optimizer
from multistep.core.values.recipe import Recipe
from multistep.tasks.text.lean import LeanConfig, LeanGPT
from multistep.tasks.text.models import LeanMaker
from multistep.tasks.text.splits import TextSplits
from multistep.tasks.text.task import TextDomain
from multistep.tasks.text.tokenizer import character_tokenizer


@dataclass(frozen=True)
class Case:
    name: str
    layers: int
    width: int
    batch: int
    context: int
    steps: int  # of a block


CASES = (Case("tiny", 1, 16, 4, 16, 300), Case("about 20 ms a step", 2, 96, 8, 64, 30))


def measure(case: Case, rounds: int) -> tuple[float, float]:
    """Milliseconds per step: of the bare loop, and how much more of the engine's."""
    generator = np.random.default_rng(0)
    text = "".join(generator.choice(list("abcdefgh \n"), 200_000))
    splits = TextSplits((text,), (text[:5000],), (), contiguous=True, notes=(), fingerprint="")
    tokenizer = character_tokenizer([text])
    config = LeanConfig("nanochat", tokenizer.get_vocab_size(), case.layers, case.width, 2, case.context)
    recipe = Recipe(optimizer="adamw", learning_rate=1e-3, batch_size=case.batch, weight_decay=0.1, averaging=0.0)
    domain = TextDomain(splits, LeanMaker(config, tokenizer))
    learner = TorchLearner(domain, lambda: False, torch.device("cpu"))
    learner.initial(recipe, 0)
    model = LeanGPT(config).initialise(0).train()
    rule = build_optimizer(
        "adamw", model, learning_rate=1e-3, weight_decay=0.1, betas=recipe.betas, clip_norm=recipe.gradient_clip or None
    )
    stream = torch.from_numpy(domain.train.astype(np.int64))
    window = torch.arange(case.context + 1)

    def bare() -> None:
        for _ in range(case.steps):
            starts = torch.randint(len(stream) - case.context - 1, (case.batch,))
            tokens = stream[starts[:, None] + window]
            rule.zero_grad()
            loss, count = model.loss(tokens[:, :-1], tokens[:, 1:])
            (loss / count).backward()  # type: ignore[no-untyped-call]
            rule.step(1e-3)

    rates = [1e-3] * case.steps
    bares, extras = [], []
    for number in range(rounds + 2):
        began = time.perf_counter()
        bare()
        middle = time.perf_counter()
        learner.advance(rates)
        end = time.perf_counter()
        if number >= 2:  # the first blocks warm caches up
            bares.append((middle - began) / case.steps * 1e3)
            extras.append((end - middle) / case.steps * 1e3 - bares[-1])
    return statistics.median(bares), statistics.median(extras)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    print("| model | bare loop, ms a step | the engine adds, ms | share |")
    print("|---|---|---|---|")
    for case in CASES:
        bare, extra = measure(case, given.rounds)
        print(f"| {case.name} | {bare:.2f} | {extra:.3f} | {extra / bare:.1%} |")


if __name__ == "__main__":
    main()
