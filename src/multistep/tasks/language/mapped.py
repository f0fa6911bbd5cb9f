"""Long training splits as ids: encoded once into files that are mapped into memory, or each text when it is read."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from multistep.data.cache import kept
from multistep.tasks.language.encode import Encoded, Ints, TextEncoder
from multistep.tasks.language.examples import Examples
from multistep.tasks.processes import PARENT, job_of, leave_if_alone, parts_of, run_all
from multistep.tasks.text.corpus import LongTexts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VERSION = 1  # of what is kept
AT_ONCE = 2**21  # bytes of text that are encoded together
BYTES_A_TOKEN = 4  # of text, about
TOKENIZER = "tokenizer.json"
SHORT, SHORT_WORDS = 2**16, 2**15  # below, ids and the numbers of words take two bytes
Kinds = dict[str, str]  # files, and of which kind their numbers are


class Encodes(Protocol):
    """What turns texts into ids."""

    def encode(self, texts: Sequence[str], seconds: Sequence[str] | None) -> Encoded: ...


class ReadLate:
    """Texts that are encoded when they are read: no more of them than training comes to, and each epoch again.

    Their lengths are told by their bytes. `cut` is not known.
    """

    cut = 0

    def __init__(self, encodes: Encodes, examples: Examples) -> None:
        self._encodes, self._examples = encodes, examples
        self.lengths = lengths_in_bytes(examples) // BYTES_A_TOKEN + 1

    def __len__(self) -> int:
        return len(self._examples)

    def padded(self, rows: Ints, pad: int) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
        """As those of `Encoded`."""
        texts, seconds = self._examples.texts, self._examples.seconds
        some = [texts[i] for i in rows.tolist()]
        others = None if seconds is None else [seconds[i] for i in rows.tolist()]
        return self._encodes.encode(some, others).padded(np.arange(len(rows)), pad)


def lengths_in_bytes(examples: Examples) -> Ints:
    """Of each text of a file, or of both of a pair."""
    sizes = np.zeros(len(examples), np.int64)
    for texts in (examples.texts, examples.seconds):
        if texts is not None:
            assert isinstance(texts, LongTexts)
            sizes += np.diff(texts.places).ravel()
    return sizes


def encoded_once(tokenizer: Tokenizer, examples: Examples, longest: int, fingerprint: str) -> Encoded:
    """A long split as tokens in files of the cache, which are keyed by the splits and the tokenizer.

    Several processes write them. Raises DataError where one of them fails.
    """

    kinds = kinds_of(tokenizer, longest)

    def write(folder: Path) -> None:
        texts, seconds = _texts(examples)
        tokenizer.save(str(folder / TOKENIZER))
        parts = parts_of(lengths_in_bytes(examples))
        for number, (first, last) in enumerate(parts):
            np.save(folder / f"{number}.0.npy", texts.places[first:last])
            if seconds is not None:
                np.save(folder / f"{number}.1.npy", seconds.places[first:last])
        job = {"folder": str(folder), "file": str(texts.file), "longest": longest, "kinds": kinds}
        jobs = [{**job, "number": number} for number in range(len(parts))]
        run_all("multistep.tasks.language.mapped", folder, jobs, str(texts.file))
        for column in kinds:
            with (folder / column).open("wb") as whole:
                for number in range(len(parts)):
                    with (folder / f"{number}.{column}").open("rb") as part:
                        shutil.copyfileobj(part, whole, 2**22)
        for path in [*folder.glob("[0-9]*"), folder / TOKENIZER]:
            path.unlink()

    how = f"{VERSION}\0{fingerprint}\0{longest}\0{tokenizer.to_str()}"
    folder = kept("encoded", hashlib.blake2b(how.encode(), digest_size=16).hexdigest(), write)
    tokens, words, types = (mapped(folder / name, kinds[name]) for name in ("tokens", "words", "types"))
    lengths = np.fromfile(folder / "lengths", kinds["lengths"])
    cut = int((lengths < 0).sum())  # marks what lost its end
    return Encoded(tokens, words, types, np.concatenate(([0], np.cumsum(np.abs(lengths), dtype=np.int64))), cut)  # type: ignore[arg-type]


def kinds_of(tokenizer: Tokenizer, longest: int) -> Kinds:
    return {
        "tokens": "<u2" if tokenizer.get_vocab_size() < SHORT else "<u4",
        "words": "<i2" if longest < SHORT_WORDS else "<i4",
        "types": "i1",
        "lengths": "<i4",
    }


def mapped(path: Path, kind: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """The numbers of a file, read when they are asked for."""
    return np.memmap(path, kind, "r") if path.stat().st_size else np.zeros(0, kind)


def _texts(examples: Examples) -> tuple[LongTexts, LongTexts | None]:
    assert isinstance(examples.texts, LongTexts), "others are in memory"
    assert examples.seconds is None or isinstance(examples.seconds, LongTexts)
    return examples.texts, examples.seconds


def batches_of(sizes: Ints) -> Iterator[slice]:
    """Consecutive texts of so many bytes together, or one that has more."""
    first = held = 0
    for number, size in enumerate(sizes.tolist()):
        if held and held + size > AT_ONCE:
            yield slice(first, number)
            first, held = number, 0
        held += size
    yield slice(first, len(sizes))


def _append(files: dict[str, BinaryIO], kinds: Kinds, encoded: Encoded, whole: NDArray[np.bool_]) -> None:
    lengths = np.where(whole, encoded.lengths, -encoded.lengths)
    columns: tuple[NDArray[Any], ...] = (encoded.tokens, encoded.words, encoded.types, lengths)
    for name, values in zip(kinds, columns, strict=True):
        files[name].write(values.astype(kinds[name]).tobytes())


def main(arguments: Sequence[str]) -> None:
    from contextlib import ExitStack

    from tokenizers import Tokenizer

    job = job_of(arguments[0])
    folder, number, file = Path(job["folder"]), job["number"], Path(job["file"])
    texts = LongTexts(file, np.load(folder / f"{number}.0.npy"))
    places = folder / f"{number}.1.npy"
    seconds = LongTexts(file, np.load(places)) if places.is_file() else None
    encoder = TextEncoder(Tokenizer.from_file(str(folder / TOKENIZER)), job["longest"])
    with ExitStack() as opened:
        files: dict[str, BinaryIO] = {
            name: opened.enter_context((folder / f"{number}.{name}").open("wb")) for name in job["kinds"]
        }
        for part in batches_of(lengths_in_bytes(Examples(texts, seconds, np.zeros(0)))):
            leave_if_alone(job[PARENT])
            encoded, whole = encoder(texts[part], None if seconds is None else seconds[part])
            _append(files, job["kinds"], encoded, whole)


if __name__ == "__main__":
    main(sys.argv[1:])
