"""The data set `spoken-words`: words said by espeak-ng in many voices, made on the spot without any download."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from multistep.errors import DataError
from multistep.tasks.speech.audio import Samples

WORDS_ID = "spoken-words"
# fmt: off
WORDS = (
    "yes", "no", "stop", "go", "left", "right", "up", "down", "on", "off", "open", "close", "start", "pause", "next",
    "back", "help", "music", "light", "door", "water", "window", "morning", "tomorrow",
)
# fmt: on
# Voice variants of espeak-ng, each with a language and a pitch of its own: they stand for speakers.
_VARIANTS = {
    "train": ("m1", "m2", "m4", "m5", "m7", "f1", "f2", "f4", "Andy", "Alex", "Denis", "Michael", "linda", "steph"),
    "validation": ("m3", "f3", "Lee", "Annie"),
    "test": ("m6", "f5", "Gene", "Alicia", "paul", "anika"),
}
_LANGUAGES = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029")
TAKES = 3  # of each word by each voice, slower and faster
_RATE, _PITCH = 1, 3  # numbers of espeak's parameters: words a minute, and 0 to 100
_RETRIEVAL, _CHARACTERS_UTF8 = 2, 1


@dataclass(frozen=True)
class SpokenWord:
    """One utterance, in memory."""

    split: str
    speaker: str
    text: str
    samples: Samples
    rate: int


@functools.cache  # espeak-ng remembers what it said: only the first time after it was started is always the same
def spoken_words() -> tuple[SpokenWord, ...]:
    """All utterances, the same each time. Raises DataError without the package that brings espeak-ng."""
    speak = _Synthesiser()
    made = []
    number = 0
    for split, variants in _VARIANTS.items():
        for variant in variants:
            language = _LANGUAGES[number % len(_LANGUAGES)]
            pitch = 25 + 50 * (number * 7 % 11) // 10
            for take in range(TAKES):
                for at, word in enumerate(WORDS):
                    pace = 120 + 20 * take + 5 * ((number + at + take) % 5)
                    nudge = 4 * ((at + 2 * take) % 5) - 8
                    samples = speak(f"{language}+{variant}", word, pace, pitch + nudge)
                    made.append(SpokenWord(split, f"{language}+{variant}", word, samples, speak.rate))
            number += 1
    return tuple(made)


class _Synthesiser:
    """espeak-ng's library, called directly: it hands over samples instead of playing them."""

    def __init__(self) -> None:
        try:
            import espeakng_loader

            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
            data = espeakng_loader.get_data_path()
        except Exception as error:  # not installed, or a library that does not load here
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DataError(
                f"'{WORDS_ID}' is spoken by espeak-ng, which is not here ({why}); install it with "
                '`pip install "multistep[demos]"`'
            ) from error
        self._library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self.rate = int(self._library.espeak_Initialize(_RETRIEVAL, 0, str(data).encode(), 0))
        if self.rate <= 0:
            raise DataError(f"'{WORDS_ID}': espeak-ng does not start (its data are in {data}); install it again")
        self._heard: list[np.ndarray[Any, np.dtype[np.int16]]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._receive)  # kept, or it would be collected while the library calls it
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def __call__(self, voice: str, text: str, pace: int, pitch: int) -> Samples:
        """Samples in -1 to 1 of a text in a voice at so many words a minute; the same each time."""
        self._heard.clear()
        library = self._library
        if library.espeak_SetVoiceByName(voice.encode()):
            raise DataError(f"'{WORDS_ID}': this espeak-ng has no voice {voice}; install another version of it")
        library.espeak_ng_SetRandSeed(1)
        library.espeak_SetParameter(_RATE, pace, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        written = text.encode()
        library.espeak_Synth(written, len(written) + 1, 0, 1, 0, _CHARACTERS_UTF8, None, None)
        return np.concatenate(self._heard or [np.zeros(1, np.int16)]).astype(np.float32) / 32768.0
