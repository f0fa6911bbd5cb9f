"""Lean models as stock `transformers` models, and back, without importing transformers (which takes 4 s).

Layer norm and root mean square norm are equal on inputs of mean zero, and whatever a weight adds to that mean
is removed by every layer norm; so it is subtracted from the weights once, at export, and the two models agree.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from multistep.tasks.text.lean import EPSILON, ROPE_BASE, LeanBlock, LeanConfig, LeanGPT


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
