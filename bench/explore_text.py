"""Which recipe reaches a loss soonest on a small text: the experiments behind the text task's defaults.

    python bench/explore_text.py time                        step times, interleaved, the AdamW script's = 1
    python bench/explore_text.py run key=value,value ...     every combination, one line of JSON each

Losses are over the whole validation split (the last tenth) in non-overlapping windows of the context, in nats
per character. Step times are measured apart from losses, so that other work on the machine disturbs neither.
"""

import itertools
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from multistep.backends.torch import muon
from multistep.backends.torch.optimizers import StepRule, build_optimizer
from multistep.tasks.text.lean import LeanConfig, LeanGPT

TEXT = Path(os.environ.get("MULTISTEP_DATA", "")) / "tinyshakespeare" / "input.txt"


@dataclass(frozen=True)
class Settings:
    architecture: str = "nanochat"
    layers: int = 4
    width: int = 128
    heads: int = 4
    context: int = 64
    start_context: int = 0  # the context of the first half of the steps, same tokens a step; 0: as later
    batch: int = 12  # sequences of `context` tokens
    vocabulary: int = 0  # 0: characters, else byte-level BPE of this size
    steps: int = 250
    optimizer: str = "muon"
    rate: float = 0.03
    ratio: float = 0.5
    head_ratio: float = 1.0  # the head's rate over that of the rest
    floor: float = 0.0
    warmup: int = 10
    cooldown: float = 0.5  # share of the steps
    momentum: float = 0.95
    momentum_warmup: int = 0
    beta1: float = 0.9
    beta2: float = 0.99
    decay: float = 0.0
    clip: float = 0.0
    quintics: str = ""  # a name in ALL_QUINTICS; empty: the package's
    embedding_std: float = 0.1
    bigram: float = 0.0  # > 0: start the head at the bigrams, smoothed by this many counts
    dropout: float = 0.0
    ema: float = 0.0  # averaging window as a share of the steps
    random: int = 0  # 1: windows at random places, as the script; 0: each once an epoch
    seed: int = 0


def text(vocabulary: int) -> tuple[Tensor, Tensor, int, int]:
    """Train and validation tokens, the vocabulary, and the validation split's characters."""
    raw = TEXT.read_text()
    cut = int(0.9 * len(raw))
    if not vocabulary:
        ids = {c: i for i, c in enumerate(sorted(set(raw)))}
        tokens = torch.tensor([ids[c] for c in raw])
        return tokens[:cut], tokens[cut:], len(ids), len(raw) - cut
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(raw[:cut].splitlines(keepends=True), vocabulary, show_progress=False)
    train, valid = (torch.tensor(bpe.encode(part).ids) for part in (raw[:cut], raw[cut:]))
    return train, valid, bpe.get_vocab_size(), len(raw) - cut


def batch_at(tokens: Tensor, drawn: int, count: int, context: int, settings: Settings) -> tuple[Tensor, Tensor]:
    """`count` windows from position `drawn` on, a function of the seed and the position alone."""
    windows = (len(tokens) - context) // context
    rows = []
    for index in range(drawn, drawn + count):
        epoch = index // windows
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch + 17)
        if settings.random:
            generator.manual_seed(settings.seed * 1_000_003 + index)
            start = int(torch.randint(len(tokens) - context, (1,), generator=generator))
        else:
            key = (len(tokens), context, settings.seed, epoch)
            if key not in ORDERS:
                shift = int(torch.randint(context, (1,), generator=generator))
                ORDERS[key] = torch.randperm(windows, generator=generator) * context + shift
            start = min(int(ORDERS[key][index % windows]), len(tokens) - context - 1)
        rows.append(tokens[start : start + context + 1])
    stacked = torch.stack(rows)
    return stacked[:, :-1], stacked[:, 1:]


ORDERS: dict[tuple[int, ...], Tensor] = {}


@torch.no_grad()
def score(model: LeanGPT, tokens: Tensor, characters: int, context: int) -> float:
    """Nats per character over all windows; the shorter last one too."""
    model.eval()
    total, whole = 0.0, (len(tokens) - 1) // context * context
    inputs, labels = tokens[:whole].view(-1, context), tokens[1 : whole + 1].view(-1, context)
    for start in range(0, len(inputs), 64):
        total += float(model.loss(inputs[start : start + 64], labels[start : start + 64])[0])
    if whole < len(tokens) - 1:
        total += float(model.loss(tokens[None, whole:-1], tokens[None, whole + 1 :])[0])
    model.train()
    return total / characters * (characters / (characters - 1) if model.config.vocabulary < 200 else 1.0)


@torch.no_grad()
def start_at_bigrams(model: LeanGPT, tokens: Tensor, smoothing: float) -> None:
    """Set the head so that the untrained model, whose blocks are the identity, predicts the bigrams."""
    V, W = model.config.vocabulary, model.config.width
    counts = torch.bincount(tokens[:-1] * V + tokens[1:], minlength=V * V).view(V, V).double()
    unigram = (counts.sum(0) + 1) / (counts.sum() + V)
    logits_VV = ((counts + smoothing * unigram) / (counts.sum(1, keepdim=True) + smoothing)).log()
    logits_VV -= logits_VV.mean(1, keepdim=True)
    x_VW = F.layer_norm(F.layer_norm(model.embedding.weight, (W,)), (W,)).double()
    weights = (counts.sum(1) / counts.sum()).sqrt()[:, None]
    # ridge regression from what the head reads to the logits, weighted by how often each token occurs
    a, b = x_VW * weights, logits_VV * weights
    solution = torch.linalg.solve(a.T @ a + 1e-4 * torch.eye(W, dtype=a.dtype), a.T @ b)
    model.head.weight.copy_(solution.T)


def build(settings: Settings, vocabulary: int) -> tuple[LeanGPT, StepRule]:
    s = settings
    shape = LeanConfig(s.architecture, vocabulary, s.layers, s.width, s.heads, s.context)  # type: ignore[arg-type]
    model = LeanGPT(shape).initialise(s.seed)
    model.dropout = s.dropout
    if s.architecture == "nanochat":
        with torch.no_grad():
            model.embedding.weight.mul_(s.embedding_std / 0.1)  # 0.1: what `initialise` gives
    rule = build_optimizer(
        s.optimizer,  # type: ignore[arg-type]
        model,
        learning_rate=s.rate,
        weight_decay=s.decay,
        momentum=s.momentum if s.optimizer == "muon" else None,
        betas=(s.beta1, s.beta2),
        rest_ratio=s.ratio,
        clip_norm=s.clip or None,
    )
    for optimizer in rule.optimizers:
        if isinstance(optimizer, muon.Muon) and s.quintics:
            optimizer.quintics = ALL_QUINTICS[s.quintics]
    if s.head_ratio != 1:
        split_head(rule, model, s.head_ratio)
    return model, rule


ALL_QUINTICS = {
    "jordan5": ((3.4445, -4.7750, 2.0315),) * 5,
    "low2": ((8.3837, -24.7659, 18.3571), (4.0434, -3.0114, 0.5695)),
}


def split_head(rule: StepRule, model: LeanGPT, ratio: float) -> None:
    for optimizer in rule.optimizers:
        for group in list(optimizer.param_groups):
            if any(p is model.head.weight for p in group["params"]):
                group["params"] = [p for p in group["params"] if p is not model.head.weight]
                rest = {k: v for k, v in group.items() if k != "params"}
                optimizer.add_param_group(
                    {**rest, "params": [model.head.weight], "multiplier": group["multiplier"] * ratio}
                )


def factor(step: int, s: Settings) -> float:
    """Warm-up, constant, then linear (floor > 0: cosine to it, as the script); share of the rate."""
    if step < s.warmup:
        return (step + 1) / (s.warmup + 1)
    if s.floor:
        done = (step - s.warmup) / (s.steps - s.warmup)
        return s.floor + (1 - s.floor) * 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi))))
    return min(1.0, (s.steps - step) / max(1.0, s.cooldown * s.steps))


def train(s: Settings) -> dict[str, Any]:
    """Train and score; the seconds are those of the steps alone, neighbours or not."""
    train_tokens, valid, vocabulary, characters = text(s.vocabulary)
    model, rule = build(s, vocabulary)
    if s.bigram:
        start_at_bigrams(model, train_tokens, s.bigram)
    average: list[Tensor] | None = None
    drawn, curve, began = 0, [], time.perf_counter()
    for step in range(s.steps):
        context = s.start_context if s.start_context and step < s.steps // 2 else s.context
        count = s.batch * s.context // context
        inputs, labels = batch_at(train_tokens, drawn, count, context, s)
        drawn += count
        if s.momentum_warmup and s.optimizer == "muon":
            share = min(1.0, step / s.momentum_warmup)
            rule.optimizers[0].param_groups[0]["momentum"] = 0.85 + (s.momentum - 0.85) * share
        total, _ = model.loss(inputs, labels)
        (total / labels.numel()).backward()  # type: ignore[no-untyped-call]
        rule.step(s.rate * factor(step, s))
        rule.zero_grad()
        curve.append(total.detach() / labels.numel())
        if s.ema and step >= s.steps * (1 - 2 * s.ema):
            now = [p.detach().clone() for p in model.parameters()]
            if average is None:
                average = now
            torch._foreach_lerp_(average, now, 1 / max(1.0, s.ema * s.steps))
    seconds = time.perf_counter() - began
    result: dict[str, Any] = {"parameters": model.config.parameters, "seconds": round(seconds, 2)}
    result["train"] = round(float(torch.stack(curve[-20:]).mean()), 4)
    result["loss"] = round(score(model, valid, characters, s.context), 4)
    if average is not None:
        with torch.no_grad():
            for p, mean in zip(model.parameters(), average, strict=True):
                p.copy_(mean)
        result["loss_averaged"] = round(score(model, valid, characters, s.context), 4)
    return result


SCRIPT = Settings(
    architecture="gpt2", optimizer="adamw", steps=2000, rate=1e-3, floor=0.1, warmup=100, decay=0.1, clip=1.0,
    random=1,
)  # fmt: skip


def step_times(contenders: dict[str, Settings], rounds: int = 24) -> dict[str, float]:
    """Milliseconds a step: the lower quartile over rounds in which all contenders take turns."""
    ready = {}
    for name, s in contenders.items():
        tokens, _, vocabulary, _ = text(s.vocabulary)
        ready[name] = (*build(s, vocabulary), *batch_at(tokens, 0, s.batch, s.context, s), s)
    taken: dict[str, list[float]] = {name: [] for name in ready}
    for turn in range(rounds):
        for name, (model, rule, inputs, labels, s) in ready.items():
            began = time.perf_counter()
            total, _ = model.loss(inputs, labels)
            (total / labels.numel()).backward()  # type: ignore[no-untyped-call]
            rule.step(s.rate * 0.1)
            rule.zero_grad()
            if turn > 3:
                taken[name].append(1e3 * (time.perf_counter() - began))
    return {name: sorted(values)[len(values) // 4] for name, values in taken.items()}


def parse(arguments: list[str]) -> list[Settings]:
    types = {f.name: type(getattr(Settings(), f.name)) for f in fields(Settings)}
    base = Settings()
    choices: list[list[tuple[str, Any]]] = []
    for argument in arguments:
        if argument == "script":
            base = SCRIPT
            continue
        key, _, values = argument.partition("=")
        choices.append([(key, types[key](float(v) if types[key] is int else v)) for v in values.split(",")])
    return [replace(base, **dict(choice)) for choice in itertools.product(*choices)]


def main(verb: str, *arguments: str) -> None:
    if verb == "time":
        contenders = {"script": SCRIPT}
        for part in " ".join(arguments).split(";"):
            contenders[part.strip() or "default"] = parse(part.split())[0]
        times = step_times(contenders)
        for name, value in times.items():
            print(f"{value:7.2f} ms {value / times['script']:5.2f}  {name}", flush=True)
        return
    for s in parse(list(arguments)):
        changed = {k: v for k, v in asdict(s).items() if v != getattr(Settings(), k)}
        print(json.dumps({**train(s), **changed}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
