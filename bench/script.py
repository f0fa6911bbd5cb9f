"""The rival: the recipe of a well-known small script for tiny Shakespeare on a CPU, in plain PyTorch.

A GPT-2 shape of 4 layers, width 128, 4 heads (0.80 million parameters), context 64, batch 12; AdamW with betas
0.9 and 0.99, weight decay 0.1 on matrices, clipping at 1.0, 100 warm-up steps to 1e-3, cosine to 1e-4. Windows
are drawn with replacement. The whole validation split is scored once, at the end, in windows of 64; the
script's own estimates along the way are left out, in its favour.

    python bench/script.py DATA_FOLDER --steps 2000 --seed 0

DATA_FOLDER holds train.txt and validation.txt. Prints one JSON object.
"""

import time

import processor_time  # noqa: F401

BEGAN = time.monotonic()

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

LAYERS, WIDTH, HEADS, CONTEXT, BATCH = 4, 128, 4, 64, 12
PEAK, FLOOR, WARMUP = 1e-3, 1e-4, 100


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,), self.weight, None, 1e-5)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(), Norm()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        q, k, v = (
            part.view(B, T, HEADS, WIDTH // HEADS).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(WIDTH, 2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).contiguous().view(B, T, WIDTH))
        fed: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + fed


class Model(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = Norm()
        self.head = nn.Linear(WIDTH, vocabulary, bias=False)
        self.tokens.weight = self.head.weight
        for name, p in self.named_parameters():
            if p.ndim == 2:
                scaled = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS) if scaled else 0.02)

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(idx) + self.positions(torch.arange(idx.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.reshape(-1))


def rate(step: int, steps: int) -> float:
    if step < WARMUP:
        return PEAK * (step + 1) / (WARMUP + 1)
    progress = (step - WARMUP) / (steps - WARMUP)
    return FLOOR + 0.5 * (1 + math.cos(math.pi * progress)) * (PEAK - FLOOR)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(1337 + given.seed)
    texts = {name: (given.folder / f"{name}.txt").read_text(encoding="utf-8") for name in ("train", "validation")}
    ids = {c: i for i, c in enumerate(sorted(set("".join(texts.values()))))}
    train, validation = (torch.tensor([ids[c] for c in texts[name]]) for name in ("train", "validation"))
    model = Model(len(ids))
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.99))
    began = time.monotonic()
    for step in range(given.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, given.steps)
        places = torch.randint(len(train) - CONTEXT, (BATCH,))
        x = torch.stack([train[i : i + CONTEXT] for i in places])
        y = torch.stack([train[i + 1 : i + 1 + CONTEXT] for i in places])
        loss = model(x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    train_seconds = time.monotonic() - began
    model.eval()
    total = count = 0.0
    with torch.no_grad():
        windows = (len(validation) - 1) // CONTEXT
        x = validation[: windows * CONTEXT].view(windows, CONTEXT)
        y = validation[1 : windows * CONTEXT + 1].view(windows, CONTEXT)
        for i in range(0, windows, 16):
            total += model(x[i : i + 16], y[i : i + 16]).item() * y[i : i + 16].numel()
            count += y[i : i + 16].numel()
    print(json.dumps({"loss": total / count, "train_seconds": train_seconds, "seconds": time.monotonic() - BEGAN}))


if __name__ == "__main__":
    main()
