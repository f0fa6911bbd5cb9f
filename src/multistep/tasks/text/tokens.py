"""The token ids of a training split: in memory, or in a file of the cache that is mapped into it."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from multistep.data.cache import kept
from multistep.tasks.text.corpus import LongTexts
from multistep.tasks.text.encoding import encode_into
from multistep.tasks.text.tokenizer import encoder_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Tokens = NDArray[np.int32] | NDArray[np.uint16] | NDArray[np.uint32]
VERSION = 1  # of what is kept
SHORT = 2**16  # a vocabulary below it has ids of two bytes


def train_tokens(texts: Sequence[str], tokenizer: Tokenizer, *, several: bool, end: int | None) -> Tokens:
    """The token ids of a split, one text behind the other. `several`: whether each is closed by `end`.

    Long texts are encoded once, into a file that is keyed by their content and the tokenizer.
    """
    closing = end if several else None
    if not isinstance(texts, LongTexts):
        encode = encoder_of(tokenizer)
        last = [np.array([closing], np.int32)] if closing is not None else []
        parts = [part for text in texts for part in (encode(text), *last)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)
    kind: np.dtype[Any] = np.dtype(np.uint16 if tokenizer.get_vocab_size() < SHORT else np.uint32).newbyteorder("<")

    def write(folder: Path) -> None:
        out = encode_into(folder, texts, tokenizer, None if texts.running else closing, kind)
        if texts.running and closing is not None:
            with out.open("ab") as file:
                file.write(np.array([closing], kind).tobytes())

    how = f"{VERSION}\0{texts.key}\0{closing}\0{kind.str}\0{tokenizer.to_str()}"
    folder = kept("tokens", hashlib.blake2b(how.encode(), digest_size=16).hexdigest(), write)
    with (folder / "tokens").open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), kind)


def let_go(tokens: Tokens) -> None:
    """Give back the memory into which a file was read; what is read again comes from the system's cache of files."""
    mapped = getattr(tokens.base, "obj", None)  # behind numpy's view of it
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def windows(tokens: Tokens, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The tokens from each start on (shape: starts, length); of a file, no more of it is read."""
    return sliding_window_view(tokens, length)[starts].astype(np.int64)
