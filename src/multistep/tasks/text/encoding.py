"""Long texts -> files of token ids, encoded once, by several processes, which need no torch."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multistep.tasks.processes import PARENT, job_of, leave_if_alone, parts_of, run_all
from multistep.tasks.text.corpus import LongTexts
from multistep.tasks.text.tokenizer import encoder_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"


def encode_into(folder: Path, texts: LongTexts, tokenizer: Tokenizer, end: int | None, kind: np.dtype[Any]) -> Path:
    """Write the token ids of texts, each closed by `end` if there is one, to a file of the folder.

    Raises DataError where a process fails.
    """
    out = folder / "tokens"
    parts = parts_of(np.diff(texts.places).ravel())
    if len(parts) < 2:
        write_tokens(out, texts, tokenizer, end, kind)
        return out
    tokenizer.save(str(folder / TOKENIZER))
    for number, part in enumerate(parts):
        np.save(folder / f"{number}.npy", texts.places[slice(*part)])
    job = {"folder": str(folder), "file": str(texts.file), "end": end, "kind": kind.str}
    run_all("multistep.tasks.text.encoding", folder, [{**job, "number": i} for i in range(len(parts))], str(texts.file))
    with out.open("wb") as whole:
        for number in range(len(parts)):
            with (folder / f"tokens.{number}").open("rb") as part_of_it:
                shutil.copyfileobj(part_of_it, whole, 2**22)
            (folder / f"tokens.{number}").unlink()
            (folder / f"{number}.npy").unlink()
    (folder / TOKENIZER).unlink()
    return out


def write_tokens(
    out: Path, texts: LongTexts, tokenizer: Tokenizer, end: int | None, kind: np.dtype[Any], parent: int | None = None
) -> None:
    encode = encoder_of(tokenizer)
    closing = b"" if end is None else np.array([end], kind).tobytes()
    with out.open("wb") as file:
        for number, text in enumerate(texts):
            if number % 64 == 0:
                leave_if_alone(parent)
            file.write(encode(text).astype(kind).tobytes())
            file.write(closing)


def main(arguments: Sequence[str]) -> None:
    from tokenizers import Tokenizer

    job = job_of(arguments[0])
    folder, number = Path(job["folder"]), job["number"]
    texts = LongTexts(Path(job["file"]), np.load(folder / f"{number}.npy"))
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    kind = np.dtype(job["kind"])
    write_tokens(folder / f"tokens.{number}", texts, tokenizer, job["end"], kind, job[PARENT])


if __name__ == "__main__":
    main(sys.argv[1:])
