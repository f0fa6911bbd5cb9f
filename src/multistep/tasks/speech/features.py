"""Sound to log-mel features with torch alone: 25 ms windows every 10 ms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistep.tasks.speech.audio import Samples

Frames = NDArray[np.float16]
WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.01
FLOOR = 1e-3  # of an utterance's mean power, below which nothing is told apart: what lies there is the recording
LOWEST_HZ = 40.0
QUIETEST = 1e-5  # root mean square of what counts as silence, and is not made louder


def mel_of(hertz: float) -> float:
    """The mel scale: O'Shaughnessy, Speech Communication (1987)."""
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def hertz_of(mel: float) -> float:
    return 700.0 * (math.pow(10.0, mel / 2595.0) - 1.0)


@dataclass(frozen=True)
class LogMel:
    """Log powers of `mels` triangular bands between 40 Hz and half the rate, one frame every 10 ms.

    An utterance is first brought to one level, since a microphone's gain says nothing.
    """

    rate: int
    mels: int

    @property
    def hop(self) -> int:
        return round(self.rate * HOP_SECONDS)

    @property
    def window(self) -> int:
        return round(self.rate * WINDOW_SECONDS)

    @property
    def fft(self) -> int:
        """Fine enough for the lowest bands: twice the window's next power of two."""
        return int(2 ** math.ceil(math.log2(self.window))) * (2 if self.rate < 16_000 else 1)

    @cached_property
    def centres(self) -> NDArray[np.float64]:
        """Hertz of each band's peak, shape (mels,)."""
        return self._edges[1:-1]

    @cached_property
    def _edges(self) -> NDArray[np.float64]:
        mels = np.linspace(mel_of(LOWEST_HZ), mel_of(self.rate / 2), self.mels + 2)
        return np.array([hertz_of(mel) for mel in mels])

    @cached_property
    def _bank(self) -> Tensor:
        """Weights of the spectrum's bins in each band, shape (bins, mels)."""
        edges = self._edges
        bins = np.fft.rfftfreq(self.fft, 1 / self.rate)[:, None]
        rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
        return torch.from_numpy(np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32))

    @cached_property
    def _hann(self) -> Tensor:
        return torch.hann_window(self.window)

    def length(self, samples: int) -> int:
        """The frames of so many samples."""
        return 1 + samples // self.hop

    def __call__(self, samples: Samples) -> Frames:
        """Features of shape (frames, mels); half precision holds them to 0.01 nats."""
        level = max(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), QUIETEST)
        with torch.no_grad():
            spectrum = torch.stft(
                torch.nn.functional.pad(torch.from_numpy(samples) / level, (self.fft // 2, self.fft // 2)),
                self.fft,
                self.hop,
                self.window,
                self._hann,
                center=False,
                return_complex=True,
            )
            power = torch.view_as_real(spectrum).square().sum(-1).T
            return (power @ self._bank / self.window + FLOOR).log().half().numpy()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LogMel:
        return cls(int(content["rate"]), int(content["mels"]))


def default_features(rate: int) -> LogMel:
    """64 bands at 16 kHz, as many as lie below half the rate otherwise, at the same spacing."""
    return LogMel(rate, round(64 * mel_of(rate / 2) / mel_of(8000)))
