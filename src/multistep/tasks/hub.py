"""Around models of transformers: loading them without noise, what their errors say, the hash of their weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multistep.engine.checkpoints import sha256


@contextmanager
def quietly() -> Iterator[None]:
    """Without the progress bars and advice of transformers, which would break into the live view."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def first_line(error: Exception) -> str:
    """What a library's error says, without its advice over many lines."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def weights_hash(folder: Path) -> str:
    """SHA-256 of the exported weights; of several files, each one's."""
    return "+".join(sha256(file) for file in sorted(folder.glob("*.safetensors")))
