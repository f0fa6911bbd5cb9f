"""Images that are decoded when they are asked for, by threads: there are too many to decode them all beforehand."""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multistep.data.filling import Filling, begin, filled
from multistep.errors import DataError
from multistep.tasks.images.decode import Content, Form, Pixels, decode
from multistep.tasks.images.threads import in_threads, threads

CACHE, FILE = "images", "pixels"
DECODING = 1  # changes with what `decode` makes of images: what is kept of others means nothing
CHUNK = 16  # images that a thread decodes at once
EDGE_BYTES = 2**16  # of a file's beginning, and of its end, that tell it from others of its size
COMPRESSED = {  # files of which no two are of one size, one beginning and one end, and how they end
    ".jpg": b"\xff\xd9",
    ".jpeg": b"\xff\xd9",
    ".jfif": b"\xff\xd9",
    ".png": b"IEND",
    ".webp": b"",
    ".avif": b"",
}


class Rows:
    """Rows of bytes in a file, each written once, in any order; published when all are there.

    Read and written by calls, not by a mapping: a full disk is then an error that can be met, not the end of the
    process, and other threads run meanwhile.
    """

    def __init__(self, rows: int, size: int, key: str) -> None:
        """Opens what is kept under `key`, else begins it. Raises OSError where there is no room for it."""
        self._size, self._lock = size, threading.Lock()
        self._filling: Filling | None = None
        if (folder := filled(CACHE, key)) is None:
            if (filling := begin(CACHE, key, rows * size)) is None:
                raise OSError("no room")
            self._filling, folder = filling, filling.folder
        self.there = np.full(rows, self._filling is None)
        self._missing = int((~self.there).sum())
        self._path = folder / FILE
        self._file = os.open(self._path, os.O_RDONLY if self._filling is None else os.O_RDWR | os.O_CREAT)
        weakref.finalize(self, os.close, self._file)
        if self._filling is not None:
            os.ftruncate(self._file, rows * size)  # others see how much it will be

    def read(self, row: int, out: Pixels) -> None:
        if os.preadv(self._file, [out.reshape(-1).data], row * self._size) != self._size:
            raise DataError(f"{self._path} has been cut short; remove it, and train again")

    def write(self, row: int, pixels: Pixels) -> None:
        """Keep a row. Where the disk is full, nothing is kept from then on."""
        if self._filling is None or self.there[row]:
            return
        try:
            whole = os.pwrite(self._file, pixels.reshape(-1).data, row * self._size) == self._size
        except OSError:
            whole = False
        with self._lock:
            if self._filling is None or self.there[row]:
                return
            if not whole:
                self._filling.drop()
                self._filling = None
                return
            self.there[row] = True
            self._missing -= 1
            if not self._missing:
                with suppress(OSError):  # then it is decoded once more in the next run
                    self._filling.publish()
                self._filling = None


@dataclass(frozen=True)
class Source:
    """What images are decoded from; `names` is how messages call them, `digests` tell their contents apart."""

    contents: Sequence[Content]
    names: Sequence[str]
    digests: Sequence[bytes]
    form: Form
    rows: Rows | None

    def read_into(self, number: int, out: Pixels) -> None:
        """Raises DataError that names the image which cannot be read."""
        if self.rows is not None and self.rows.there[number]:
            self.rows.read(number, out)
            return
        found = decode(self.contents[number], self.form)
        if isinstance(found, str):
            raise DataError(
                f"{self.names[number]}: {found}; its header looked right. Mend it or take it out of the data, and "
                "train again"
            )
        out[...] = found
        if self.rows is not None:
            self.rows.write(number, found)


class Stored:
    """The images of a split, bytes (N, H, W, C) as an array has them, each decoded when it is first asked for.

    What has been decoded is kept in a file of the user's cache, as long as the disk has room for all of them.
    """

    def __init__(self, source: Source, numbers: NDArray[np.int64]) -> None:
        self._source, self._numbers = source, numbers

    @classmethod
    def of(cls, contents: Sequence[Content], names: Sequence[str], digests: Sequence[bytes], form: Form) -> Stored:
        rows = None
        if hasattr(os, "preadv") and not all(isinstance(content, np.ndarray) for content in contents):
            try:
                key = key_of(digests, form)
                rows = Rows(len(contents), form.height * form.width * form.channels, key)
            except OSError:  # no room, or a cache that cannot be written: all are decoded again in each epoch
                rows = None
        return cls(Source(contents, names, digests, form, rows), np.arange(len(contents)))

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        form = self._source.form
        return len(self), form.height, form.width, form.channels

    @property
    def decoded_again(self) -> bool:
        """Whether there is no room to keep what has been decoded."""
        return self._source.rows is None and any(not isinstance(each, np.ndarray) for each in self._source.contents)

    @property
    def digests(self) -> list[bytes]:
        return [self._source.digests[i] for i in self._numbers]

    def part(self, numbers: Sequence[int]) -> Stored:
        return Stored(self._source, self._numbers[np.asarray(numbers, np.int64)])

    def __getitem__(self, which: int | slice | NDArray[np.int64]) -> Pixels:
        """One image, or several, decoded now."""
        numbers = np.arange(len(self))[which]
        out = np.empty((numbers.size, *self.shape[1:]), np.uint8)
        for chunk in self.reading(np.atleast_1d(numbers), out):
            chunk.result()
        return out.reshape(*numbers.shape, *self.shape[1:])

    def reading(self, numbers: NDArray[np.int64], out: Pixels) -> list[Future[None]]:
        """The threads' work on these images, which they decode into `out`."""
        own = self._numbers[numbers]

        def read(start: int) -> None:
            for i in range(start, min(start + CHUNK, len(own))):
                self._source.read_into(int(own[i]), out[i])

        return [threads().submit(read, start) for start in range(0, len(own), CHUNK)]


def key_of(digests: Sequence[bytes], form: Form) -> str:
    """What names the kept images: which they are, in which order, decoded to what, by which Pillow."""
    from PIL import __version__

    total = hashlib.blake2b(f"{DECODING} {__version__} {form!r}\n".encode(), digest_size=16)
    for digest in digests:
        total.update(digest)
    return total.hexdigest()


def marks_of(contents: Sequence[Content], form: Form) -> list[bytes | str]:
    """What tells each image from others, or why it cannot be read, as far as that shows without decoding it."""
    return in_threads(functools.partial(_mark, form=form), contents)


def _mark(content: Content, form: Form) -> bytes | str:
    """A hash: of a compressed file its size, beginning and end, of all else every byte."""
    if isinstance(content, np.ndarray):
        header = f"{content.shape}\n".encode()
        return hashlib.blake2b(header + np.ascontiguousarray(content).tobytes(), digest_size=16).digest()
    ending = COMPRESSED.get(content.suffix.lower()) if isinstance(content, Path) else b""
    try:
        held = content if isinstance(content, bytes) else _edges(content, whole=ending is None)
    except OSError as error:
        return error.strerror or type(error).__name__
    # A file that was cut off: only decoding tells whether anything of the picture is missing.
    if ending and ending not in held[-EDGE_BYTES:] and isinstance(why := decode(content, form), str):
        return why
    return hashlib.blake2b(held, digest_size=16).digest()


def _edges(path: Path, *, whole: bool) -> bytes:
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        if whole or size <= 2 * EDGE_BYTES:
            return file.read()
        first = file.read(EDGE_BYTES)
        file.seek(size - EDGE_BYTES)
        return f"{size}\n".encode() + first + file.read(EDGE_BYTES)
