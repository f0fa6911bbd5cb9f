"""Augmentation of sounds by one strength: an utterance is said by somebody a little different each time.

All that chance decides is a function of (seed, epoch, index).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from multistep.tasks.speech.features import LogMel, mel_of

# At strength 1: how far time is stretched and frequencies are scaled, as exponents of e, either way.
SPEED, WARP = 0.2, 0.2
MASKS = 2  # along time, and along frequency
LONGEST_MASK, WIDEST_MASK = 0.2, 0.3  # of the frames and of the bands
_DRAWS = 2 + 4 * MASKS


def draws(seed: int, epochs_B: NDArray[np.int64], indices_B: NDArray[np.int64]) -> Tensor:
    """Numbers in 0 to 1 of each example, shape (B, draws): SplitMix64 of (seed, epoch, index)."""
    with np.errstate(over="ignore"):
        key = np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
        x = _mixed(_mixed(key + epochs_B.astype(np.uint64)) + indices_B.astype(np.uint64))
        numbers = _mixed(x[:, None] + np.arange(1, _DRAWS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return torch.from_numpy((numbers >> np.uint64(40)).astype(np.float32) / 2**24)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def stretched(lengths_B: Tensor, draws_BD: Tensor, strength: float, least_B: Tensor) -> Tensor:
    """Lengths at another speed; one that could not hold its transcript any more stays as it is."""
    factor = torch.exp((2 * draws_BD[:, 0] - 1) * SPEED * strength)
    new = (lengths_B * factor).round().long()
    return torch.where(new >= least_B, new, lengths_B)


class FeatureAugmentation:
    """Speed, vocal tract and SpecAugment's masks, on log-mel features.

    Speed: Ko et al., Interspeech 2015; here of the features, so that the pitch stays. Frequencies scaled as by a
    vocal tract of another length: Jaitly and Hinton, ICML 2013 workshop. Masks: arXiv 1904.08779; `fill` (shape: M)
    is what stands in them.
    """

    def __init__(self, features: LogMel, fill: Tensor) -> None:
        self._hertz = torch.from_numpy(features.centres.astype(np.float32))
        self._lowest, self._highest = mel_of(float(features.centres[0])), mel_of(float(features.centres[-1]))
        self._fill = fill

    def __call__(self, x_BTM: Tensor, lengths_B: Tensor, new_B: Tensor, draws_BD: Tensor, strength: float) -> Tensor:
        """Features of the new lengths, on the device of the old; lengths and draws are on the CPU."""
        device, bands = x_BTM.device, x_BTM.shape[2]
        x_BTM = _resample(x_BTM, lengths_B, new_B, self._bands(draws_BD, strength))
        time = _masks(int(new_B.max()), new_B.float(), draws_BD[:, 2:], LONGEST_MASK * strength)
        band = _masks(
            bands, torch.full((len(new_B),), float(bands)), draws_BD[:, 2 + 2 * MASKS :], WIDEST_MASK * strength
        )
        hidden = (time[:, :, None] | band[:, None, :]).to(device, non_blocking=True)
        return torch.where(hidden, self._fill.to(device), x_BTM)

    def _bands(self, draws_BD: Tensor, strength: float) -> Tensor:
        """From where each band is read, in bands, shape (B, M)."""
        scale = torch.exp((2 * draws_BD[:, 1] - 1) * WARP * strength)
        mels = 2595.0 * torch.log10(1.0 + self._hertz * scale[:, None] / 700.0)
        return (mels - self._lowest) / (self._highest - self._lowest) * (len(self._hertz) - 1)


class WaveAugmentation:
    """Speed (with the pitch) and silence over spans of time, on waveforms of shape (B, samples, 1)."""

    def __call__(self, x_BN1: Tensor, lengths_B: Tensor, new_B: Tensor, draws_BD: Tensor, strength: float) -> Tensor:
        x_BN1 = _resample(x_BN1, lengths_B, new_B, None)
        hidden = _masks(int(new_B.max()), new_B.float(), draws_BD[:, 2:], LONGEST_MASK * strength)
        return x_BN1 * ~hidden[:, :, None].to(x_BN1.device)


def _resample(x_BTM: Tensor, lengths_B: Tensor, new_B: Tensor, bands_BM: Tensor | None) -> Tensor:
    """Linear interpolation at other times, and at other bands."""
    device = x_BTM.device
    _, steps, bands = x_BTM.shape
    longest = int(new_B.max())
    ratio = lengths_B.float() / new_B.float()
    time_BT = (torch.arange(longest) + 0.5) * ratio[:, None] - 0.5
    time_BT = torch.minimum(time_BT.clamp_min(0.0), (lengths_B - 1).float()[:, None])
    if bands_BM is None:
        low = time_BT.floor().long().to(device)
        part = (time_BT - time_BT.floor()).to(device)[..., None]
        high = torch.minimum(low + 1, (lengths_B - 1).to(device)[:, None])
        first, second = (x_BTM.gather(1, at[..., None].expand(-1, -1, bands)) for at in (low, high))
        found = torch.lerp(first, second, part)
    else:
        down = time_BT[:, :, None].expand(-1, -1, bands) * (2.0 / max(1, steps - 1)) - 1.0
        across = bands_BM[:, None, :].expand(-1, longest, -1) * (2.0 / max(1, bands - 1)) - 1.0
        grid = torch.stack((across, down), -1).to(device, non_blocking=True)
        found = F.grid_sample(x_BTM[:, None], grid, "bilinear", "border", align_corners=True)[:, 0]
    inside = torch.arange(longest)[None, :] < new_B[:, None]
    return found * inside[..., None].to(device)


def _masks(places: int, lengths_B: Tensor, draws_BD: Tensor, most: float) -> Tensor:
    """Which of so many places are hidden, shape (B, places): spans of up to a share of the length each."""
    at = torch.arange(places)[None, :]
    hidden = torch.zeros(len(lengths_B), places, dtype=torch.bool)
    for i in range(MASKS):
        width = draws_BD[:, 2 * i] * most * lengths_B
        start = draws_BD[:, 2 * i + 1] * (lengths_B - width)
        hidden |= (at >= start[:, None]) & (at + 1 <= (start + width)[:, None])
    return hidden
