"""Augmentation of sounds by one strength: an utterance is said by somebody a little different each time.

All that chance decides is a function of (seed, epoch, index).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from multistep.tasks.sending import sent
from multistep.tasks.speech.features import LogMel, mel_of

# At strength 1: how far time is stretched and frequencies are scaled, as exponents of e, either way; how many nats
# the spectrum is bent by; and how far below the loudest frame the noise may begin, in nats: the least, and the range.
SPEED, WARP, BEND = 0.4, 0.4, 1.5
BENDS = 6  # bands whose gain is drawn; between them it is interpolated
LOUDEST_NOISE, NOISE_RANGE, NOISE_TILT = 2.0, 4.0, 2.0
MASKS = 2  # along time, and along frequency
LONGEST_MASK, WIDEST_MASK = 0.2, 0.3  # of the frames and of the bands
_DRAWS = 4 + BENDS + 4 * MASKS
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Draws:
    """What chance decides for some utterances: numbers in 0 to 1 that follow from (seed, epoch, index) alone."""

    def __init__(self, seed: int, epochs_B: NDArray[np.int64], indices_B: NDArray[np.int64]) -> None:
        with np.errstate(over="ignore"):
            key = np.uint64(seed % 2**64) * _GOLDEN + np.uint64(1)
            self._keys_B = _mixed(_mixed(key + epochs_B.astype(np.uint64)) + indices_B.astype(np.uint64))
        numbers = self.many(_DRAWS)
        self.speed_B, self.warp_B, self.level_B, self.tilt_B = numbers[:, :4].unbind(1)
        self.bend_BK = numbers[:, 4 : 4 + BENDS]
        self.time_masks, self.band_masks = torch.split(numbers[:, 4 + BENDS :], 2 * MASKS, 1)

    def many(self, count: int, first: int = 0) -> Tensor:
        """Numbers `first` to `first + count` of each utterance, shape (B, count): SplitMix64."""
        counters = np.arange(first + 1, first + count + 1, dtype=np.uint64)
        with np.errstate(over="ignore"):
            numbers = _mixed(self._keys_B[:, None] + counters * _GOLDEN)
        return torch.from_numpy((numbers >> np.uint64(40)).astype(np.float32) / 2**24)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def stretched(lengths_B: Tensor, drawn: Draws, strength: float, least_B: Tensor) -> Tensor:
    """Lengths at another speed; one that could not hold its transcript any more stays as it is."""
    factor = torch.exp((2 * drawn.speed_B - 1) * SPEED * strength)
    new = (lengths_B * factor).round().long()
    return torch.where(new >= least_B, new, lengths_B)


class FeatureAugmentation:
    """Another voice, room and place, on log-mel features.

    Speed: Ko et al., Interspeech 2015; here of the features, so that the pitch stays. Frequencies scaled as by a
    vocal tract of another length: Jaitly and Hinton, ICML 2013 workshop. A bent spectrum, as by another microphone,
    and noise behind it. Masks: SpecAugment, arXiv 1904.08779; `fill` (shape: M) is what stands in them.
    """

    def __init__(self, features: LogMel, fill: Tensor) -> None:
        self._hertz = torch.from_numpy(features.centres.astype(np.float32))
        self._lowest, self._highest = mel_of(float(features.centres[0])), mel_of(float(features.centres[-1]))
        self._fill = fill

    def __call__(self, x_BTM: Tensor, lengths_B: Tensor, new_B: Tensor, drawn: Draws, strength: float) -> Tensor:
        """Features of the new lengths, on the device of the old; lengths and draws are on the CPU."""
        device, bands = x_BTM.device, x_BTM.shape[2]
        x_BTM = _resampled(x_BTM, lengths_B, new_B, self._bands(drawn, strength))
        bend_BM = F.interpolate((2 * drawn.bend_BK - 1)[:, None] * BEND * strength, bands, mode="linear")
        x_BTM = x_BTM + sent(bend_BM, device)
        inside = sent(_inside(x_BTM.shape[1], new_B), device)
        loudest = x_BTM.masked_fill(inside == 0, -torch.inf).amax((1, 2), keepdim=True)
        noise = sent(self._noise(x_BTM.shape[1], drawn, strength), device)
        x_BTM = torch.logaddexp(x_BTM, noise + loudest)
        whole = torch.full((len(new_B),), float(bands))
        time = _masks(x_BTM.shape[1], new_B.float(), drawn.time_masks, LONGEST_MASK * strength)
        band = _masks(bands, whole, drawn.band_masks, WIDEST_MASK * strength)
        hidden = sent(time[:, :, None] | band[:, None, :], device)
        return torch.where(hidden, sent(self._fill, device), x_BTM) * inside

    def _bands(self, drawn: Draws, strength: float) -> Tensor:
        """From where each band is read, in bands, shape (B, M)."""
        scale = torch.exp((2 * drawn.warp_B - 1) * WARP * strength)
        mels = 2595.0 * torch.log10(1.0 + self._hertz * scale[:, None] / 700.0)
        return (mels - self._lowest) / (self._highest - self._lowest) * (len(self._hertz) - 1)

    def _noise(self, steps: int, drawn: Draws, strength: float) -> Tensor:
        """Log powers of noise: a level below the loudest, a slope over the bands, and the spread that powers have."""
        bands = len(self._hertz)
        powers = (-torch.log1p(-drawn.many(steps * bands, _DRAWS))).clamp_min(1e-3).log()
        slope = torch.linspace(-1.0, 1.0, bands) * ((2 * drawn.tilt_B - 1) * NOISE_TILT)[:, None]
        below = LOUDEST_NOISE + NOISE_RANGE * drawn.level_B / strength
        return powers.view(-1, steps, bands) + slope[:, None, :] - below[:, None, None]


class WaveAugmentation:
    """Speed (with the pitch) and silence over spans of time, on waveforms of shape (B, samples, 1)."""

    def __call__(self, x_BN1: Tensor, lengths_B: Tensor, new_B: Tensor, drawn: Draws, strength: float) -> Tensor:
        x_BN1 = _resampled(x_BN1, lengths_B, new_B, None)
        hidden = _masks(x_BN1.shape[1], new_B.float(), drawn.time_masks, LONGEST_MASK * strength)
        return x_BN1 * sent(~hidden[:, :, None], x_BN1.device)


def _resampled(x_BTM: Tensor, lengths_B: Tensor, new_B: Tensor, bands_BM: Tensor | None) -> Tensor:
    """Linear interpolation at other times, and at other bands; zeros behind each utterance."""
    device = x_BTM.device
    _, steps, bands = x_BTM.shape
    longest = int(new_B.max())
    ratio = lengths_B.float() / new_B.float()
    time_BT = (torch.arange(longest) + 0.5) * ratio[:, None] - 0.5
    time_BT = torch.minimum(time_BT.clamp_min(0.0), (lengths_B - 1).float()[:, None])
    if bands_BM is None:
        low = sent(time_BT.floor().long(), device)
        part = sent(time_BT - time_BT.floor(), device)[..., None]
        high = torch.minimum(low + 1, sent(lengths_B - 1, device)[:, None])
        first, second = (x_BTM.gather(1, at[..., None].expand(-1, -1, bands)) for at in (low, high))
        found = torch.lerp(first, second, part)
    else:
        down = time_BT[:, :, None].expand(-1, -1, bands) * (2.0 / max(1, steps - 1)) - 1.0
        across = bands_BM[:, None, :].expand(-1, longest, -1) * (2.0 / max(1, bands - 1)) - 1.0
        grid = sent(torch.stack((across, down), -1), device)
        found = F.grid_sample(x_BTM[:, None], grid, "bilinear", "border", align_corners=True)[:, 0]
    return found * sent(_inside(longest, new_B), device)


def _inside(steps: int, lengths_B: Tensor) -> Tensor:
    """1 within each utterance, 0 behind it, shape (B, T, 1)."""
    return (torch.arange(steps)[None, :] < lengths_B[:, None]).float()[..., None]


def _masks(places: int, lengths_B: Tensor, draws_BD: Tensor, most: float) -> Tensor:
    """Which of so many places are hidden, shape (B, places): spans of up to a share of the length each."""
    at = torch.arange(places)[None, :]
    hidden = torch.zeros(len(lengths_B), places, dtype=torch.bool)
    for i in range(MASKS):
        width = draws_BD[:, 2 * i] * most * lengths_B
        start = draws_BD[:, 2 * i + 1] * (lengths_B - width)
        hidden |= (at >= start[:, None]) & (at + 1 <= (start + width)[:, None])
    return hidden
