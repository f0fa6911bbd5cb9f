"""A small causal language model that trains fast and exports as a stock `transformers` model.

Two blocks: "nanochat" (rotary positions, normalised queries and keys, squared ReLU, no biases, untied head)
and "gpt2" (learned positions, weighted LayerNorm, GELU, tied head). Letters in names: B batch, T time,
V vocabulary, W width, H heads, D width of a head.

nanochat normalises by the root mean square, whose backward has no fused CPU kernel; we train with the
weightless layer norm, which has one and is 1.8 times faster. `lean_export` makes the two agree.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multistep.tasks.text.summed import in_pieces, summed_nats

ROPE_BASE = 10000.0
EPSILON = {"nanochat": 1e-6, "gpt2": 1e-5}
# What the head reads is of one size at any width, so that Adam's steps move logits by more the more weights there are:
# beyond this width, up to which rates were tuned, it falls with the width (arXiv 2203.03466, table 8). Muon's steps
# have one norm at any width (2310.17813), and an embedding moves by its rate: both stay. bench/widths.py measures it.
HEAD_WIDTH = 176


def head_rate(width: int) -> float:
    """The part of the rate at which the head of a model from nothing is trained."""
    return min(1.0, HEAD_WIDTH / width)


@dataclass(frozen=True)
class LeanConfig:
    """The shape of a lean model. The feed-forward layer is four widths wide.

    Raises ValueError if a size is not positive, or the heads do not divide the width into even parts.
    """

    architecture: Literal["nanochat", "gpt2"]
    vocabulary: int
    layers: int
    width: int
    heads: int
    context: int  # tokens; the longest sequence the model reads

    def __post_init__(self) -> None:
        if self.architecture not in EPSILON:
            raise ValueError(f"architecture: got {self.architecture!r}; allowed: {', '.join(EPSILON)}")
        for name in ("vocabulary", "layers", "width", "heads", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; it must be at least 1")
        if self.width % self.heads or (self.architecture == "nanochat" and self.head_width % 2):
            raise ValueError(
                f"width {self.width} cannot be cut into {self.heads} heads of equal width"
                + (" that is even, as rotary positions need" if self.architecture == "nanochat" else "")
            )

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """How many numbers are trained. A tied head counts once."""
        matrices = 12 * self.layers * self.width**2
        if self.architecture == "nanochat":
            return matrices + 2 * self.vocabulary * self.width
        return matrices + (self.vocabulary + self.context + 2 * self.layers + 1) * self.width


class ReluSquared(torch.autograd.Function):
    """relu(x)². torch's own backward of this takes five passes over memory, this one two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rectified = x.relu()
        ctx.save_for_backward(rectified)
        return rectified.square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        rectified: Tensor = ctx.saved_tensors[0]
        return (gradients[0] * rectified).mul_(2)


def relu_squared(x: Tensor) -> Tensor:
    if torch.compiler.is_compiling() or not x.requires_grad:
        return F.relu(x).square()
    squared: Tensor = ReluSquared.apply(x)  # type: ignore[no-untyped-call]
    return squared


def rope_table(context: int, head_width: int) -> Tensor:
    """Cosines and sines, shape (context, head_width / 2, 2). Source: arXiv 2104.09864."""
    frequencies = 1.0 / ROPE_BASE ** (torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angles = torch.arange(context, dtype=torch.float32)[:, None] * frequencies
    return torch.stack((angles.cos(), angles.sin()), -1)


def rotate(x_BTHD: Tensor, table: Tensor) -> Tensor:
    """Turn neighbouring pairs by their position's angle, clockwise as nanochat does.

    nanochat pairs entry i with i + D/2; we pair 2i with 2i + 1 (export reorders the weights), because then
    one complex product does it, 2.3 times faster on a CPU.
    """
    pairs = x_BTHD.view(*x_BTHD.shape[:-1], -1, 2)
    if x_BTHD.device.type == "cpu" and x_BTHD.dtype == torch.float32 and not torch.compiler.is_compiling():
        turned = torch.view_as_complex(pairs) * torch.view_as_complex(table).conj()[:, None]
        return torch.view_as_real(turned).flatten(-2)
    cos, sin = table[:, None].to(x_BTHD.dtype).unbind(-1)
    even, odd = pairs.unbind(-1)
    return torch.stack((even * cos + odd * sin, odd * cos - even * sin), -1).flatten(-2)


class LeanBlock(nn.Module):
    """Attention and feed-forward, each read through a norm and added to the residual."""

    def __init__(self, config: LeanConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.modern = config.heads, config.architecture == "nanochat"
        self.epsilon = EPSILON[config.architecture]
        self.norm1 = None if self.modern else nn.Parameter(torch.ones(width))
        self.norm2 = None if self.modern else nn.Parameter(torch.ones(width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)  # one product instead of three
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTW: Tensor, table: Tensor | None, dropout: float) -> Tensor:
        B, T, W = x_BTW.shape
        D = W // self.heads
        read = F.layer_norm(x_BTW, (W,), self.norm1, None, self.epsilon)
        # split, not slices: its backward is one concatenation instead of three padded sums
        qk, v = self.qkv(read).split((2 * W, W), -1)
        qk = qk.view(B, T, 2 * self.heads, D)
        if table is not None:
            qk = rotate(F.layer_norm(qk, (D,), None, None, self.epsilon), table)
        q, k = qk.transpose(1, 2).split(self.heads, 1)
        v = v.view(B, T, self.heads, D).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, W)
        x_BTW = x_BTW + F.dropout(self.out(mixed), dropout, self.training)
        hidden = self.up(F.layer_norm(x_BTW, (W,), self.norm2, None, self.epsilon))
        hidden = relu_squared(hidden) if self.modern else F.gelu(hidden)
        return x_BTW + F.dropout(self.down(hidden), dropout, self.training)


class LeanGPT(nn.Module):
    """Uninitialised until `initialise(seed)` is called; `dropout` (0 to 1) and the context may be set at any time."""

    table: Tensor

    def __init__(self, config: LeanConfig) -> None:
        super().__init__()
        self.config, self.dropout = config, 0.0
        self.head_rate = head_rate(config.width)  # as `backends.torch.optimizers` reads it
        self.recomputes = False  # activations of blocks in training, instead of keeping them for the gradient
        modern = config.architecture == "nanochat"
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.positions = None if modern else nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(LeanBlock(config) for _ in range(config.layers))
        self.norm = None if modern else nn.Parameter(torch.ones(config.width))
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        if not modern:
            self.head.weight = self.embedding.weight
        table = rope_table(config.context, config.head_width) if modern else torch.empty(0)
        self.register_buffer("table", table, persistent=False)

    def get_output_embeddings(self) -> nn.Linear:
        """The head, under the name `transformers` models give it; the optimizer asks for it."""
        return self.head

    def set_context(self, context: int) -> None:
        """Train on sequences of up to `context` tokens from now on; the weights stay as they are.

        Raises ValueError beyond the end of learned positions; rotary ones have none, and longer sequences can be read.
        """
        if self.positions is not None and context > self.positions.num_embeddings:
            learned = self.positions.num_embeddings
            raise ValueError(f"context {context}: the learned positions end at {learned}; ask for {learned} or less")
        if self.positions is None:
            self.table = rope_table(context, self.config.head_width).to(self.table)
        self.config = replace(self.config, context=context)

    @property
    def layers(self) -> list[LeanBlock]:
        return cast(list[LeanBlock], list(self.blocks))

    @torch.no_grad()
    def initialise(self, seed: int) -> "LeanGPT":
        """Draw all weights from `seed`, on the CPU, so that every device starts from the same bits."""
        generator = torch.Generator().manual_seed(seed)
        config, modern = self.config, self.config.architecture == "nanochat"
        for name, parameter in self.named_parameters():
            kind = name.split(".")[-2] if "." in name else name
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            # the norm behind the embedding hides its scale; a small one lets AdamW's steps turn it sooner
            std = (0.1 if kind == "embedding" else 1 / math.sqrt(config.width)) if modern else 0.02
            if kind in ("out", "down"):  # each block starts as the identity, or near it
                std = 0.0 if modern else std / math.sqrt(2 * config.layers)
            elif kind == "head":
                std = 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        return self

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the next token, shape (B, T, V). Raises ValueError beyond the context of learned positions."""
        logits_BTV: Tensor = self.head(self.states(tokens_BT))
        return logits_BTV

    def states(self, tokens_BT: Tensor) -> Tensor:
        """What the head reads, shape (B, T, W)."""
        T, W = tokens_BT.shape[1], self.config.width
        if self.positions is not None and self.config.context < T:
            raise ValueError(f"sequence of {T} tokens; the model's context is {self.config.context}")
        x_BTW, table, epsilon = self.embedding(tokens_BT), None, EPSILON[self.config.architecture]
        if self.positions is None:
            x_BTW, table = F.layer_norm(x_BTW, (W,), None, None, epsilon), self._angles(T)
        else:
            x_BTW = x_BTW + self.positions.weight[:T]
        x_BTW = F.dropout(x_BTW, self.dropout, self.training)
        for block in self.layers:
            if self.recomputes and self.training and torch.is_grad_enabled():
                x_BTW = checkpoint(block, x_BTW, table, self.dropout, use_reentrant=False)
            else:
                x_BTW = block(x_BTW, table, self.dropout)
        return F.layer_norm(x_BTW, (W,), self.norm, None, epsilon)

    def _angles(self, length: int) -> Tensor:
        """The rotary table of so many places; one that is longer than the context is made anew each time."""
        if length <= len(self.table):
            return self.table[:length]
        return rope_table(length, self.config.head_width).to(self.table)

    def loss(self, tokens_BT: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy in nats, and how many labels are not -100; both stay on the device."""
        states_NW, labels_N = self.states(tokens_BT).flatten(0, 1), labels_BT.flatten()
        count = (labels_N != -100).sum()
        if in_pieces(len(labels_N), self.config.vocabulary):
            return summed_nats(states_NW, self.head.weight, labels_N), count
        return F.cross_entropy(self.head(states_NW), labels_N, reduction="sum"), count
