"""Time and memory of one pass, forward and backward, of a large causal model: the tables of docs/how-to/adapters.md.

    MULTISTEP_MODELS=... OMP_NUM_THREADS=1 python bench/passes.py [--adapter lora|none] [--rows 1] [--tokens 256]
        [--half] [--again]
    OMP_NUM_THREADS=1 python bench/passes.py --head

Each call is one process, since a process's peak memory never falls. `--half` computes in bfloat16, `--again` computes
activations again for the gradient. `--head` compares ways to the loss of 1,024 tokens out of 49,152 of width 576.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.placing import built
from multistep.core.values.recipe import AdapterName, Recipe
from multistep.tasks.text.causal import TransformersMaker
from multistep.tasks.text.models import load_model
from multistep.tasks.text.nats import nats_of_labels

PASSES = 3  # of which the fastest counts
HEAD_TOKENS, WIDTH, VOCABULARY = 1024, 576, 49_152


class Builder:
    def __init__(self, maker: TransformersMaker) -> None:
        self._maker = maker

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        return self._maker.build(seed)

    def origin(self, model: str | None = None) -> Origin | None:
        return self._maker.origin


def gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def fastest(once: Callable[[], None]) -> float:
    """CPU seconds."""
    taken = []
    for _ in range(PASSES):
        began = time.process_time()
        once()
        taken.append(time.process_time() - began)
    return min(taken)


def passes(given: argparse.Namespace) -> None:
    folder = Path(os.environ.get("MULTISTEP_MODELS", "")) / "SmolLM2-135M-Instruct"
    if not (folder / "config.json").is_file():
        sys.exit("bench/passes.py: set MULTISTEP_MODELS to the folder that holds SmolLM2-135M-Instruct")
    maker = load_model(str(folder))
    assert isinstance(maker, TransformersMaker), "a model of transformers"
    model, _ = built(Builder(maker), Recipe(adapter=cast(AdapterName, given.adapter)), 0)
    model.train()
    if given.again:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    before = gigabytes()
    tokens, labels = (torch.randint(0, maker.vocabulary, (given.rows, given.tokens)) for _ in range(2))

    def once() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=given.half):
            loss = maker.token_nats(model, tokens, labels).sum()
        loss.backward()  # type: ignore[no-untyped-call]

    each = 1e3 * fastest(once) / tokens.numel()
    print(
        f"{given.adapter}, {given.rows} x {given.tokens}: {each:.2f} ms a token, {before:.1f} to {gigabytes():.1f} GB"
    )


def head() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(WIDTH, VOCABULARY, bias=False)
    hidden = torch.randn(1, HEAD_TOKENS, WIDTH, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (1, HEAD_TOKENS))

    def theirs() -> Tensor:
        options = torch.nn.LinearCrossEntropyOptions()
        loss: Tensor = F.linear_cross_entropy(hidden[0], layer.weight, labels[0], reduction="sum", options=options)
        return loss

    ways: dict[str, Callable[[], Tensor]] = {
        "all logits at once": lambda: F.cross_entropy(layer(hidden[0]), labels[0], reduction="sum"),
        "ours, in pieces": lambda: nats_of_labels(layer, hidden, labels).sum(),
        "torch's linear_cross_entropy": theirs,
    }
    for trained in (True, False):
        layer.requires_grad_(trained)
        for name, loss in ways.items():
            taken = fastest(lambda loss=loss: loss().backward())  # type: ignore[misc]
            print(f"{name}, output layer {'trained' if trained else 'frozen'}: {taken:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--adapter", choices=("lora", "none"), default="lora")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--head", action="store_true")
    given = parser.parse_args()
    if given.head:
        head()
    else:
        passes(given)


if __name__ == "__main__":
    main()
