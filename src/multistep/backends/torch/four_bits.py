"""Frozen weights in four bits, through bitsandbytes: arXiv 2305.14314."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from multistep.errors import PlanError


def quantise(model: nn.Module, names: Sequence[str]) -> None:
    """Hold the weights of these linear layers in four bits (NF4); what they compute changes a little by it.

    Raises PlanError without a CUDA device, where bitsandbytes is missing, or where a layer is of a kind that it does
    not know. On a CPU version 0.50 packs weights that were scored in another order, which has no gradients.
    """
    if not torch.cuda.is_available():
        raise PlanError("recipe.adapter is qlora, which needs a CUDA device; set it to lora")
    bits = _bitsandbytes()
    for name in names:
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise PlanError(f"recipe.adapter is qlora, but {name} is a {type(layer).__name__}; set it to lora")
        weight = layer.weight
        small = bits.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=weight.dtype,
            quant_type="nf4",
            device="meta",
        )
        small.weight = bits.nn.Params4bit(weight.detach(), requires_grad=False, quant_type="nf4")
        if layer.bias is not None:
            small.bias = layer.bias
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, small.to(weight.device))  # moving it is what quantises it


def in_full(layer: nn.Module) -> nn.Module:
    """A layer of four bits as a linear layer of what these stand for; any other layer as it is."""
    if type(layer).__name__ != "Linear4bit":
        return layer
    small: Any = layer
    full = nn.Linear(small.in_features, small.out_features, bias=small.bias is not None, device=small.weight.device)
    with torch.no_grad():
        full.weight.copy_(_bitsandbytes().functional.dequantize_4bit(small.weight.data, small.weight.quant_state))
        if small.bias is not None:
            full.bias.copy_(small.bias)
    return full


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except Exception as error:  # whatever it may raise where it does not fit this torch or driver
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PlanError(
            f"recipe.adapter is qlora, which needs the package bitsandbytes ({why}); install it with "
            "pip install bitsandbytes, or set recipe.adapter to lora"
        ) from error
    return bitsandbytes
