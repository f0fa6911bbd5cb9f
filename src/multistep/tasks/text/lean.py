"""A small causal language model that trains fast and exports as a stock `transformers` model.

Two blocks: "nanochat" (rotary positions, normalised queries and keys, squared ReLU, no biases, untied head)
and "gpt2" (learned positions, weighted LayerNorm, GELU, tied head). Letters in names: B batch, T time,
V vocabulary, W width, H heads, D width of a head.

nanochat normalises by the root mean square, whose backward has no fused CPU kernel; we train with the
weightless layer norm, which has one and is 1.8 times faster. Both are equal on inputs of mean zero, and
whatever a weight adds to that mean is removed by every layer norm, so `to_transformers` subtracts it from the
weights once and the two models agree.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

ROPE_BASE = 10000.0
EPSILON = {"nanochat": 1e-6, "gpt2": 1e-5}


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
    """Uninitialised until `initialise(seed)` is called; `dropout` (0 to 1) may be set at any time."""

    table: Tensor

    def __init__(self, config: LeanConfig) -> None:
        super().__init__()
        self.config, self.dropout = config, 0.0
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
        """Logits of the next token, shape (B, T, V). Raises ValueError beyond the context."""
        T, W = tokens_BT.shape[1], self.config.width
        if self.config.context < T:
            raise ValueError(f"sequence of {T} tokens; the model's context is {self.config.context}")
        x_BTW, table, epsilon = self.embedding(tokens_BT), None, EPSILON[self.config.architecture]
        if self.positions is None:
            x_BTW, table = F.layer_norm(x_BTW, (W,), None, None, epsilon), self.table[:T]
        else:
            x_BTW = x_BTW + self.positions.weight[:T]
        x_BTW = F.dropout(x_BTW, self.dropout, self.training)
        for block in self.layers:
            x_BTW = block(x_BTW, table, self.dropout)
        logits_BTV: Tensor = self.head(F.layer_norm(x_BTW, (W,), self.norm, None, epsilon))
        return logits_BTV

    def loss(self, tokens_BT: Tensor, labels_BT: Tensor, ignore: int = -100) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy in nats, and how many labels are not `ignore`; both stay on the device."""
        logits_NV = self(tokens_BT).flatten(0, 1)
        total = F.cross_entropy(logits_NV, labels_BT.flatten(), ignore_index=ignore, reduction="sum")
        return total, (labels_BT != ignore).sum()


def _pairs_apart(rows_HDW: Tensor) -> Tensor:
    """Our order of a head's rows to nanochat's: 0, 2, 4, ..., then 1, 3, 5, ..."""
    return torch.cat((rows_HDW[:, 0::2], rows_HDW[:, 1::2]), 1)


def _pairs_together(rows_HDW: Tensor) -> Tensor:
    return torch.stack(rows_HDW.chunk(2, 1), 2).flatten(1, 2)


def _nanochat_form(model: LeanGPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    shape = model.config
    config = {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": shape.context,
        "hidden_act": "relu2",
        "rms_norm_eps": EPSILON["nanochat"],
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},
        "final_logit_softcapping": None,
        "attention_bias": False,
        "tie_word_embeddings": False,
    }
    embedding = model.embedding.weight
    tensors = {
        "model.embed_tokens.weight": embedding - embedding.mean(1, keepdim=True),
        "lm_head.weight": model.head.weight,
    }
    for i, block in enumerate(model.layers):
        at = f"model.layers.{i}."
        for part, rows in zip("qkv", block.qkv.weight.chunk(3), strict=True):
            if part != "v":
                heads = rows.view(shape.heads, -1, shape.width)
                rows = _pairs_apart(heads - heads.mean(1, keepdim=True)).flatten(0, 1)
            tensors[f"{at}self_attn.{part}_proj.weight"] = rows
        tensors[f"{at}self_attn.o_proj.weight"] = block.out.weight - block.out.weight.mean(0)
        tensors[f"{at}mlp.fc1.weight"] = block.up.weight
        tensors[f"{at}mlp.fc2.weight"] = block.down.weight - block.down.weight.mean(0)
    return config, tensors


SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
GPT2_MATRICES = {"qkv": "attn.c_attn", "out": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}


def _gpt2_form(model: LeanGPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    shape = model.config
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": shape.vocabulary,
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_positions": shape.context,
        "activation_function": "gelu",
        "layer_norm_epsilon": EPSILON["gpt2"],
        "tie_word_embeddings": True,
    }
    assert model.positions is not None
    assert model.norm is not None
    tensors = {
        "transformer.wte.weight": model.embedding.weight,
        "transformer.wpe.weight": model.positions.weight,
        "transformer.ln_f.weight": model.norm,
        "transformer.ln_f.bias": torch.zeros_like(model.norm),
    }
    for i, block in enumerate(model.layers):
        at = f"transformer.h.{i}."
        for ours, theirs in GPT2_MATRICES.items():
            weight = getattr(block, ours).weight
            tensors[f"{at}{theirs}.weight"] = weight.t()  # Conv1D stores (in, out)
            tensors[f"{at}{theirs}.bias"] = weight.new_zeros(weight.shape[0])
        for ours, theirs in (("norm1", "ln_1"), ("norm2", "ln_2")):
            tensors[f"{at}{theirs}.weight"] = getattr(block, ours)
            tensors[f"{at}{theirs}.bias"] = torch.zeros_like(getattr(block, ours))
    return config, tensors


def to_transformers(model: LeanGPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `config.json` and `model.safetensors` must hold; the tensors are copies on the CPU.

    No special tokens are named (the defaults, 0 and 1 or 50256, are ordinary tokens or none here): that is
    the tokenizer's part.
    """
    form = _nanochat_form if model.config.architecture == "nanochat" else _gpt2_form
    with torch.no_grad():
        config, tensors = form(model)
        config |= dict.fromkeys(SPECIAL_TOKENS)
        return config, {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}


def _shape_of(config: Mapping[str, Any]) -> LeanConfig | None:
    """The lean shape whose exported settings `config` contains, whatever else it says."""
    names = {
        "nanochat": ("num_hidden_layers", "hidden_size", "num_attention_heads", "max_position_embeddings"),
        "gpt2": ("n_layer", "n_embd", "n_head", "n_positions"),
    }.get(config.get("model_type", ""))
    if names is None:
        return None
    try:
        return LeanConfig(config["model_type"], config["vocab_size"], *(config[name] for name in names))
    except (KeyError, TypeError, ValueError):
        return None


def from_transformers(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LeanGPT | None:
    """The lean model of an exported folder, or None if `to_transformers` could not have written it.

    Some other nanochat models pass too: all whose weights are centred. Biases, if any, must be zero.
    """
    if (shape := _shape_of(config)) is None:
        return None
    model = LeanGPT(shape)
    modern = shape.architecture == "nanochat"
    with torch.no_grad():
        blank_config, blank = (_nanochat_form if modern else _gpt2_form)(model)
        ours = {key for key in blank_config if key not in ("architectures", "model_type")}
        if any(config.get(key, "absent") != blank_config[key] for key in ours):
            return None
        if {k: v.shape for k, v in blank.items()} != {k: v.shape for k, v in tensors.items()}:
            return None
        if any(tensors[key].any() for key in blank if key.endswith(".bias")):
            return None
        table = "model.embed_tokens.weight" if modern else "transformer.wte.weight"
        model.embedding.weight.copy_(tensors[table])
        if model.positions is None:
            model.head.weight.copy_(tensors["lm_head.weight"])
        else:
            model.positions.weight.copy_(tensors["transformer.wpe.weight"])
            assert model.norm is not None
            model.norm.copy_(tensors["transformer.ln_f.weight"])
        for i, block in enumerate(model.layers):
            (_fill_modern if modern else _fill_gpt2)(block, i, tensors)
        # the round trip returns what came in only where layer norm and root mean square norm are the same
        same = (_nanochat_form if modern else _gpt2_form)(model)[1]
        close = all(torch.allclose(same[key], tensors[key].float(), atol=1e-5, rtol=1e-5) for key in same)
    return model if close else None


def _fill_modern(block: LeanBlock, i: int, tensors: Mapping[str, Tensor]) -> None:
    at = f"model.layers.{i}."
    q, k, v = (tensors[f"{at}self_attn.{part}_proj.weight"] for part in "qkv")
    ours = [_pairs_together(rows.reshape(block.heads, -1, rows.shape[1])).flatten(0, 1) for rows in (q, k)]
    block.qkv.weight.copy_(torch.cat((*ours, v)))
    block.out.weight.copy_(tensors[f"{at}self_attn.o_proj.weight"])
    block.up.weight.copy_(tensors[f"{at}mlp.fc1.weight"])
    block.down.weight.copy_(tensors[f"{at}mlp.fc2.weight"])


def _fill_gpt2(block: LeanBlock, i: int, tensors: Mapping[str, Tensor]) -> None:
    at = f"transformer.h.{i}."
    for ours, theirs in GPT2_MATRICES.items():
        getattr(block, ours).weight.copy_(tensors[f"{at}{theirs}.weight"].t())
    for ours, theirs in (("norm1", "ln_1"), ("norm2", "ln_2")):
        getattr(block, ours).copy_(tensors[f"{at}{theirs}.weight"])
