"""Long training text to hide words in -> spans in mapped files, written once by several processes."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from multistep.data.cache import kept
from multistep.tasks.language.encode import Encoded
from multistep.tasks.language.examples import Examples
from multistep.tasks.language.mapped import TOKENIZER, batches_of, encoded_once, kinds_of, mapped
from multistep.tasks.language.spans import Spans, Texts, read_spans
from multistep.tasks.processes import PARENT, job_of, leave_if_alone, parts_of, run_all
from multistep.tasks.text.corpus import LongTexts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VERSION = 1  # of what is kept
NUMBERS = {"lengths": "<i4", "block": "<i8", "text": "<i8"}  # of each span


def train_spans(tokenizer: Tokenizer, of: Texts, context: int, fingerprint: str) -> Spans:
    """The spans of a training split, as `read_spans` gives them; of texts in a file they lie in the cache.

    Raises DataError where a process that encodes them fails.
    """
    texts, seconds = of.texts, of.seconds
    if not isinstance(texts, LongTexts):
        return read_spans(tokenizer, of, context)
    if seconds is not None:
        encoded = encoded_once(tokenizer, Examples(texts, seconds, np.zeros(0)), context, fingerprint)
        rows = np.arange(len(encoded))
        return Spans(encoded, rows.astype(np.float64), rows)
    kinds = {"tokens": kinds_of(tokenizer, context)["tokens"], "words": "<i4", **NUMBERS}

    def write(folder: Path) -> None:
        tokenizer.save(str(folder / TOKENIZER))
        parts = parts_of(np.diff(texts.places).ravel())
        for number, (first, last) in enumerate(parts):
            np.save(folder / f"{number}.0.npy", texts.places[first:last])
        job = {"folder": str(folder), "file": str(texts.file), "context": context, "kinds": kinds}
        jobs = [{**job, "number": number} for number in range(len(parts))]
        run_all("multistep.tasks.language.long_spans", folder, jobs, str(texts.file))
        for name in kinds:
            _joined(folder, name, [folder / f"{number}.{name}" for number in range(len(parts))])
        for path in [*folder.glob("[0-9]*"), folder / TOKENIZER]:
            path.unlink()

    how = f"{VERSION}\0{fingerprint}\0{context}\0{tokenizer.to_str()}"
    folder = kept("spans", hashlib.blake2b(how.encode(), digest_size=16).hexdigest(), write)
    tokens, words = (mapped(folder / name, kinds[name]) for name in ("tokens", "words"))
    lengths, block, text = (np.fromfile(folder / name, kind) for name, kind in NUMBERS.items())
    starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    types = np.broadcast_to(np.zeros(1, np.int8), tokens.shape)  # of single texts: they take no memory
    return Spans(Encoded(tokens, words, types, starts), block.astype(np.float64), text)


def _joined(folder: Path, name: str, parts: Sequence[Path]) -> None:
    """One file of several; texts and blocks are counted on from one to the next."""
    counted, before = name in ("block", "text"), 0
    with (folder / name).open("wb") as whole:
        for path in parts:
            if not counted:
                with path.open("rb") as part:
                    shutil.copyfileobj(part, whole, 2**22)
                continue
            values = np.fromfile(path, NUMBERS[name]) + before
            whole.write(values.tobytes())
            before = int(values[-1]) + 1 if len(values) else before


def main(arguments: Sequence[str]) -> None:
    from tokenizers import Tokenizer

    job = job_of(arguments[0])
    folder, number, context = Path(job["folder"]), job["number"], job["context"]
    texts = LongTexts(Path(job["file"]), np.load(folder / f"{number}.0.npy"))
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    blocks = read = 0
    with ExitStack() as opened:
        files: dict[str, BinaryIO] = {
            name: opened.enter_context((folder / f"{number}.{name}").open("wb")) for name in job["kinds"]
        }
        for part in batches_of(np.diff(texts.places).ravel()):
            leave_if_alone(job[PARENT])
            some = read_spans(tokenizer, Texts(tuple(texts[part])), context)
            encoded, block = some.encoded, some.block.astype(np.int64) + blocks
            columns: tuple[NDArray[Any], ...] = (
                encoded.tokens,
                encoded.words,
                encoded.lengths,
                block,
                some.text + read,
            )
            for (name, kind), values in zip(job["kinds"].items(), columns, strict=True):
                files[name].write(values.astype(kind).tobytes())
            blocks = int(block[-1]) + 1 if len(block) else blocks
            read += part.stop - part.start


if __name__ == "__main__":
    main(sys.argv[1:])
