"""Recurrent layers in ONNX graphs: torch's exporter fixes their length to that of the example, so they are given by
name.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

GATES = (0, 3, 1, 2)  # torch has input, forget, cell, output; ONNX input, output, forget, cell


class GraphLSTM(nn.Module):
    """A one-way LSTM of one layer, batch first, as the operator LSTM of ONNX; it can only be exported, not run."""

    def __init__(self, given: nn.LSTM) -> None:
        super().__init__()
        self.width = given.hidden_size
        self.register_buffer("into", _gates(given.weight_ih_l0)[None])
        self.register_buffer("again", _gates(given.weight_hh_l0)[None])
        self.register_buffer("bias", torch.cat((_gates(given.bias_ih_l0), _gates(given.bias_hh_l0)))[None])

    def forward(self, x_BTC: Tensor) -> tuple[Tensor, None]:
        steps, batch = x_BTC.shape[1], x_BTC.shape[0]
        ops: Any = torch.onnx.ops
        y_TKBC: Tensor = ops.symbolic(
            "LSTM",
            (x_BTC.transpose(0, 1), self.into, self.again, self.bias),
            attrs={"hidden_size": self.width},
            dtype=x_BTC.dtype,
            shape=(steps, 1, batch, self.width),
        )
        return y_TKBC.squeeze(1).transpose(0, 1), None


def _gates(weights: Any) -> Tensor:
    """The rows of the four gates in the order of ONNX."""
    parts = weights.detach().chunk(4)
    return torch.cat([parts[i] for i in GATES])


def with_graph_lstms(module: nn.Module) -> nn.Module:
    """The module, or a copy with such layers in the place of torch's where it has any."""
    if not any(isinstance(each, nn.LSTM) for each in module.modules()):
        return module
    module = copy.deepcopy(module)
    for name, each in list(module.named_modules()):
        plain = isinstance(each, nn.LSTM) and each.batch_first and each.num_layers == 1
        if plain and each.bias and not each.bidirectional and not each.proj_size:
            parent = module.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], GraphLSTM(each))  # of a list too: its parts have numbers for names
    return module
