"""Sound files: WAV, FLAC and whatever else soundfile reads -> mono samples at one rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multistep.errors import DataError

Samples = NDArray[np.float32]
READ = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".sph", ".au", ".caf", ".w64")
UNREAD = (".m4a", ".aac", ".mp4", ".wma", ".amr", ".webm", ".3gp", ".mka", ".ape")  # by soundfile
SOUNDS = (*READ, *UNREAD)  # what is looked for: a sound that cannot be read is to be named, not overlooked
NO_FILE = "no such file"
LONGEST_SECONDS = 60.0  # longer ones are no utterances, and would take all the memory of a batch
HIGHEST_RATE = 16_000  # what speech recognition works at; above lies little that words are told by
LOWEST_RATE = 4_000
ROUNDED_SECONDS = 0.1  # that a part may end behind its sound: what lists say of lengths is rounded


class Unusable(Exception):
    """A sound that cannot be used, with the reason; whoever reads many counts it and goes on."""


@dataclass(frozen=True)
class Header:
    """What a sound file says of itself."""

    rate: int
    seconds: float


def _soundfile() -> Any:
    try:
        import soundfile
    except Exception as error:  # whatever a package may raise that lacks its library
        raise DataError(_missing("soundfile", error)) from error
    return soundfile


def _missing(package: str, error: Exception) -> str:
    why = f"{type(error).__name__}: {error}".splitlines()[0]
    return f'speech needs the package {package} ({why}); install it with `pip install "multistep[speech]"`'


def read_header(sound: Path | bytes, start: float = 0.0, seconds: float | None = None) -> Header:
    """Rate and length, without decoding; `start` and `seconds` where only a part is meant. Raises Unusable."""
    soundfile = _soundfile()
    if isinstance(sound, Path) and not sound.is_file():
        raise Unusable(NO_FILE)
    if (sound.stat().st_size if isinstance(sound, Path) else len(sound)) == 0:
        raise Unusable("empty: the file holds no bytes")
    try:
        info = soundfile.info(_opened(sound))
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise Unusable(_why_unread(sound, error)) from None
    whole = info.frames / info.samplerate
    length = whole if seconds is None else min(seconds, whole - start)
    if info.frames == 0 or (seconds is not None and seconds <= 0):
        raise Unusable("holds no sound")
    if start < 0:
        raise Unusable("with an offset below 0")
    if seconds is not None and (start >= whole or start + seconds > whole + ROUNDED_SECONDS):
        raise Unusable("with a part that goes past the end of its sound")
    if length > LONGEST_SECONDS:
        raise Unusable(f"longer than {LONGEST_SECONDS:.0f} s; cut it into utterances")
    if info.samplerate < LOWEST_RATE:
        raise Unusable(f"recorded at {info.samplerate} Hz; at least {LOWEST_RATE} are needed")
    return Header(info.samplerate, length)


def read_samples(sound: Path | bytes, rate: int, start: float = 0.0, seconds: float | None = None) -> Samples:
    """Mono samples in -1 to 1 at `rate`, resampled once if need be; `start` and `seconds` cut a part out.

    Channels are averaged. Raises Unusable.
    """
    soundfile = _soundfile()
    header = read_header(sound, start, seconds)
    first = round(start * header.rate)
    frames = -1 if seconds is None else round(seconds * header.rate)
    try:
        samples, own = soundfile.read(_opened(sound), frames=frames, start=first, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise Unusable(_why_unread(sound, error)) from None
    return resampled(samples.mean(1) if samples.shape[1] > 1 else samples[:, 0], own, rate)


def resampled(samples: Samples, own: int, rate: int) -> Samples:
    """The samples at another rate. Raises Unusable for samples that are not finite or none."""
    if not len(samples):
        raise Unusable("holds no sound")
    if not np.isfinite(samples).all():
        raise Unusable("holds samples that are not finite")
    if own != rate:
        try:
            import soxr
        except Exception as error:
            raise DataError(_missing("soxr", error)) from error
        samples = soxr.resample(samples, own, rate, quality="HQ")
        if not len(samples):
            raise Unusable("holds no sound")
    return np.ascontiguousarray(samples, np.float32)


def commonest_rate(rates: Iterable[int]) -> int:
    """The rate that most sounds have, in Hz, at most 16,000; of two as common, the higher."""
    counts: dict[int, int] = {}
    for rate in rates:
        counts[rate] = counts.get(rate, 0) + 1
    return min(HIGHEST_RATE, max(counts, key=lambda rate: (counts[rate], rate)))


def _opened(sound: Path | bytes) -> str | BytesIO:
    return str(sound) if isinstance(sound, Path) else BytesIO(sound)


def _why_unread(sound: Path | bytes, error: Exception) -> str:
    """What stands against reading a sound, and how it is mended where that is known. The reason names no file."""
    suffix = sound.suffix.lower() if isinstance(sound, Path) else ""
    if suffix in UNREAD:
        return f"a {suffix}, which soundfile cannot read: convert it, for instance with `ffmpeg -i x{suffix} x.wav`"
    if _begins(sound).startswith(b"NIST_1A"):
        return "a SPHERE file that soundfile cannot read, as those compressed by shorten are: convert it by sph2pipe"
    return f"not a sound file that can be read ({_reason(error)})"


def _begins(sound: Path | bytes) -> bytes:
    if isinstance(sound, bytes):
        return sound[:8]
    try:
        with sound.open("rb") as file:
            return file.read(8)
    except OSError:
        return b""


def _reason(error: Exception) -> str:
    # soundfile puts the path before the reason, where it has been named already.
    return (str(error).strip() or type(error).__name__).splitlines()[0].rpartition(": ")[2].rstrip(".")
