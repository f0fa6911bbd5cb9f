"""Small image classifiers in plain torch.

A copy of this file lies as net.py beside the weights that a run exports, for who has no `multistep`. It needs torch
and safetensors alone:

    net = load("RUN/model")
    logits = net(pixels)  # (B, channels, height, width), 0 to 255
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CNN, RESNET = "cnn", "resnet-small"
PREFIX = "net."  # of the names of exported weights


@dataclass(frozen=True)
class NetConfig:
    """`width` channels in the first stage, twice as many in each further one, of half the height and width.

    `blocks` residual blocks of two convolutions a stage (a stage of the plain CNN has two convolutions). The first
    convolution takes every `stride`th pixel.
    """

    kind: str
    channels: int
    classes: int
    width: int
    stages: int = 3
    blocks: int = 1
    stride: int = 1


class SmallNet(nn.Module):
    """Pixels from 0 to 255 -> logits. The mean and deviation of each channel are part of the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.full((1, config.channels, 1, 1), 127.5))
        self.register_buffer("std", torch.full((1, config.channels, 1, 1), 64.0))
        widths = [config.width * 2**stage for stage in range(config.stages)]
        body = _resnet(config, widths) if config.kind == RESNET else _cnn(config, widths)
        self.body = nn.Sequential(*body)
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Linear(widths[-1], config.classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, channels, height, width) -> (B, classes)."""
        x = ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.head(self.dropout(self.body(x).mean((2, 3))))
        return logits


class Block(nn.Module):
    """Two convolutions around which the input passes unchanged. Source: He et al., arXiv 1512.03385."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(into, out, stride)
        self.second = _conv(out, out)
        self.past = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        if into == out and stride == 1:
            self.past = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(torch.relu_(self.first(x)))
        return torch.relu_(y + self.past(x))


def _conv(into: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out))


def _resnet(config: NetConfig, widths: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = [_conv(config.channels, widths[0], config.stride), nn.ReLU(inplace=True)]
    into = widths[0]
    for stage, width in enumerate(widths):
        for number in range(config.blocks):
            layers.append(Block(into, width, 2 if stage and number == 0 else 1))
            into = width
    return layers


def _cnn(config: NetConfig, widths: list[int]) -> list[nn.Module]:
    """Two convolutions a stage, with maxima of 2 x 2 pixels taken after the first."""
    layers: list[nn.Module] = []
    into = config.channels
    for stage, width in enumerate(widths):
        first = _conv(into, width, config.stride if stage == 0 else 1)
        layers += [first, nn.MaxPool2d(2), nn.ReLU(inplace=True), _conv(width, width), nn.ReLU(inplace=True)]
        into = width
    return layers


def initialise(net: SmallNet, seed: int) -> SmallNet:
    """First weights: He's normal (arXiv 1502.01852), a head of zeros. The same seed gives the same bits."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def load(folder: str | Path) -> SmallNet:
    """The classifier of an exported folder, ready to use."""
    net = SmallNet(NetConfig(**read(folder)["net"]))
    net.load_state_dict(weights(folder))
    return net.eval()


def weights(folder: str | Path) -> dict[str, Tensor]:
    """The weights of an exported folder, by their names in the net (there: within the model of transformers)."""
    from safetensors.torch import load_file

    found = load_file(Path(folder) / "model.safetensors")
    return {name.removeprefix(PREFIX): tensor for name, tensor in found.items()}


def read(folder: str | Path) -> dict[str, Any]:
    """What lies beside the weights: labels, channels, height, width, and the net's sizes."""
    content: dict[str, Any] = json.loads((Path(folder) / "multistep.json").read_text(encoding="utf-8"))
    return content


def sizes(config: NetConfig) -> dict[str, Any]:
    """What `load` reads as "net"."""
    return asdict(config)
