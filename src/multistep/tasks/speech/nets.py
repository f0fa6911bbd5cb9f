"""Two networks for speech, from log-mel features to characters by CTC (Graves et al., ICML 2006).

Letters in names: B batch, T time, M mel bands, C channels, V characters and the blank. Padding is zeroed before
every layer that mixes frames, so that an utterance comes out the same in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multistep.tasks.sending import sent

Kind = Literal["deepspeech", "wavenet"]
STRIDE = 2  # frames a step of the output: 20 ms
DILATIONS = (1, 2, 4, 8)  # of wavenet's layers, over and over: sees further than a syllable
CHANNELS = 16  # of deepspeech's convolutions


@dataclass(frozen=True)
class NetConfig:
    """`layers` are recurrent ones or gated convolutions, `width` the units of each (of a recurrent one: each way)."""

    kind: Kind
    mels: int
    symbols: int
    layers: int
    width: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> NetConfig:
        return cls(**content)


def output_length(frames: int) -> int:
    """The steps of the output for so many frames."""
    return -(-frames // STRIDE)


def mask_of(lengths_B: Tensor, steps: int, like: Tensor) -> Tensor:
    """1 within each utterance, 0 behind it, shape (B, T, 1)."""
    inside = torch.arange(steps)[None, :] < lengths_B[:, None]
    return sent(inside[..., None].to(like.dtype), like.device)


class FrameNorm(nn.Module):
    """Each frame's channels at mean 0 and variance 1, then weighted: knows nothing of other frames or padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x_BTC: Tensor) -> Tensor:
        return F.layer_norm(x_BTC, x_BTC.shape[-1:], self.weight, self.bias)


class SpeechNet(nn.Module):
    """What both have in common: normalised features, time halved by the first layer, a head.

    `mean` and `scale` are the training split's, a number each band. `dropout` may be set at any time.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config, self.dropout = config, 0.0
        self.register_buffer("mean", torch.zeros(config.mels))
        self.register_buffer("scale", torch.ones(config.mels))

    def forward(self, features_BTM: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, T / 2, V) and how many steps of each utterance are its own (lengths stay on the CPU)."""
        mask_BT1 = mask_of(lengths_B, features_BTM.shape[1], self.mean)
        x_BTM = (features_BTM.to(self.mean.dtype) - self.mean) * self.scale * mask_BT1
        lengths_B = torch.div(lengths_B + STRIDE - 1, STRIDE, rounding_mode="floor")
        return self.read(x_BTM, mask_BT1[:, ::STRIDE], lengths_B), lengths_B

    def read(self, x_BTM: Tensor, mask_BT1: Tensor, lengths_B: Tensor) -> Tensor:
        """Logits of normalised features; mask and lengths are of the output's steps."""
        raise NotImplementedError

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    @torch.no_grad()
    def initialise(self, seed: int) -> SpeechNet:
        """Draw all weights from `seed`, on the CPU, so that every device starts from the same bits."""
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if name.startswith("head"):
                p.zero_()
            elif p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(p[0].numel()))
            elif "norm" not in name or name.endswith("bias"):
                p.zero_()
        return self


class DeepSpeech(SpeechNet):
    """Two convolutions over time and frequency, then recurrent layers that read both ways.

    After Deep Speech 2, arXiv 1512.02595, with layer instead of batch normalisation.
    """

    def __init__(self, config: NetConfig) -> None:
        super().__init__(config)
        width = config.width
        self.conv1 = nn.Conv2d(1, CHANNELS, (11, 9), stride=(STRIDE, 2), padding=(5, 4))
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, (7, 5), stride=(1, 2), padding=(3, 2))
        bands1 = -(-config.mels // 2)
        bands2 = -(-bands1 // 2)
        self.norm1, self.norm2 = FrameNorm(CHANNELS * bands1), FrameNorm(CHANNELS * bands2)
        self.into = nn.Linear(CHANNELS * bands2, 2 * width)
        self.norms = nn.ModuleList(FrameNorm(2 * width) for _ in range(config.layers))
        self.there = nn.ModuleList(nn.LSTM(2 * width, width, batch_first=True) for _ in range(config.layers))
        self.back = nn.ModuleList(nn.LSTM(2 * width, width, batch_first=True) for _ in range(config.layers))
        self.norm = FrameNorm(2 * width)
        self.head = nn.Linear(2 * width, config.symbols)

    def read(self, x_BTM: Tensor, mask_BT1: Tensor, lengths_B: Tensor) -> Tensor:
        x = x_BTM[:, None]
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = conv(x).transpose(1, 2)  # B, T, C, bands
            shape = x.shape
            x_BTC = F.relu(norm(x.flatten(2))) * mask_BT1
            x = x_BTC.view(shape).transpose(1, 2)
        x_BTC = self.drop(self.into(x_BTC))
        mirror = _mirror(lengths_B, x_BTC)
        for before, there, back in zip(self.norms, self.there, self.back, strict=True):
            read = before(x_BTC)
            forward = there(read)[0]
            backward = back(read.gather(1, mirror.expand_as(read)))[0]
            both = torch.cat((forward, backward.gather(1, mirror.expand_as(backward))), -1)
            x_BTC = x_BTC + self.drop(both)
        logits: Tensor = self.head(self.norm(x_BTC))
        return logits


def _mirror(lengths_B: Tensor, like_BTC: Tensor) -> Tensor:
    """Where each step stands when an utterance is read from its end, shape (B, T, 1); padding stays where it is."""
    steps = torch.arange(like_BTC.shape[1])[None, :]
    mirrored = torch.where(steps < lengths_B[:, None], lengths_B[:, None] - 1 - steps, steps)
    return sent(mirrored[..., None], like_BTC.device)


class GatedLayer(nn.Module):
    """A dilated convolution of three frames whose output is gated, with a residual and a skip connection."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = FrameNorm(width)
        self.gate = nn.Linear(3 * width, 2 * width)
        self.out = nn.Linear(width, 2 * width)

    def forward(self, x_BTC: Tensor, mask_BT1: Tensor, net: SpeechNet) -> tuple[Tensor, Tensor]:
        """The residual stream after this layer, and what it adds to the output."""
        d = self.dilation
        read = F.pad(self.norm(x_BTC) * mask_BT1, (0, 0, d, d))
        # Three shifted copies and one product: faster on a CPU than a dilated convolution.
        steps = x_BTC.shape[1]
        near = torch.cat((read[:, :steps], read[:, d : d + steps], read[:, 2 * d :]), -1)
        filtered, gate = self.gate(near).chunk(2, -1)
        residual, skip = self.out(net.drop(filtered.tanh() * gate.sigmoid())).chunk(2, -1)
        return x_BTC + residual, skip


class WaveNet(SpeechNet):
    """A stack of gated dilated convolutions, which looks both ways, on features instead of samples.

    After WaveNet, arXiv 1609.03499, and Kim and Park's recogniser made of it, github.com/buriburisuri/
    speech-to-text-wavenet.
    """

    def __init__(self, config: NetConfig) -> None:
        super().__init__(config)
        self.recomputes = False  # activations of layers in training, instead of keeping them for the gradient
        width = config.width
        self.into = nn.Conv1d(config.mels, width, 5, stride=STRIDE, padding=2)
        dilations = (DILATIONS[i % len(DILATIONS)] for i in range(config.layers))
        self.layers = nn.ModuleList(GatedLayer(width, dilation) for dilation in dilations)
        self.norm = FrameNorm(width)
        self.last = nn.Linear(width, width)
        self.head = nn.Linear(width, config.symbols)

    def read(self, x_BTM: Tensor, mask_BT1: Tensor, lengths_B: Tensor) -> Tensor:
        x_BTC = self.into(x_BTM.mT).mT
        total: Tensor | None = None
        for layer in self.layers:
            if self.recomputes and self.training and torch.is_grad_enabled():
                x_BTC, skip = checkpoint(layer, x_BTC, mask_BT1, self, use_reentrant=False)
            else:
                x_BTC, skip = layer(x_BTC, mask_BT1, self)
            total = skip if total is None else total + skip
        assert total is not None, "a net has a layer"
        logits: Tensor = self.head(F.relu(self.last(F.relu(self.norm(total)))))
        return logits


def make_net(config: NetConfig) -> SpeechNet:
    return {"deepspeech": DeepSpeech, "wavenet": WaveNet}[config.kind](config)
