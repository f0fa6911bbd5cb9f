"""Long texts -> files of token ids, encoded once, by several processes.

A process of its own, `python -m multistep.tasks.text.encoding JOB.json`, and not one of multiprocessing: a user's
script that trains need not be one that can be imported again. It needs no torch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multistep.errors import DataError
from multistep.tasks.text.corpus import LongTexts
from multistep.tasks.text.tokenizer import encoder_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES_A_PROCESS = 2**25  # of text, at least: a process takes half a second to start
MOST_PROCESSES = 32
TOKENIZER, JOB = "tokenizer.json", "job.json"


def encode_into(folder: Path, texts: LongTexts, tokenizer: Tokenizer, end: int | None, kind: np.dtype[Any]) -> Path:
    """Write the token ids of texts, each closed by `end` if there is one, to a file of the folder.

    Raises DataError where a process fails.
    """
    out = folder / "tokens"
    sizes = np.diff(texts.places).ravel()
    count = int(min(_cores(), MOST_PROCESSES, sizes.sum() // BYTES_A_PROCESS))
    if count < 2:
        write_tokens(out, texts, tokenizer, end, kind)
        return out
    tokenizer.save(str(folder / TOKENIZER))
    edges = np.searchsorted(np.cumsum(sizes), np.linspace(0, sizes.sum(), count + 1)[1:-1])
    parts = list(zip([0, *edges.tolist()], [*edges.tolist(), len(texts)], strict=True))
    with ExitStack() as started:
        processes = [started.enter_context(_start(folder, i, texts, part, end, kind)) for i, part in enumerate(parts)]
        for process in processes:
            started.callback(process.kill)  # those that another's failure leaves
        for process in processes:
            _, said = process.communicate()
            if process.returncode:
                lines = said.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
                raise DataError(f"{texts.file}: a process that encodes it failed ({lines[-1]}); start the run again")
    with out.open("wb") as whole:
        for i in range(count):
            with (folder / f"tokens.{i}").open("rb") as part:
                shutil.copyfileobj(part, whole, 2**22)
            (folder / f"tokens.{i}").unlink()
            (folder / f"{i}.{JOB}").unlink()
            (folder / f"{i}.npy").unlink()
    (folder / TOKENIZER).unlink()
    return out


def write_tokens(
    out: Path, texts: LongTexts, tokenizer: Tokenizer, end: int | None, kind: np.dtype[Any], parent: int | None = None
) -> None:
    encode = encoder_of(tokenizer)
    closing = b"" if end is None else np.array([end], kind).tobytes()
    with out.open("wb") as file:
        for number, text in enumerate(texts):
            if parent is not None and number % 64 == 0 and os.getppid() != parent:
                sys.exit("the process that asked for it is gone")
            file.write(encode(text).astype(kind).tobytes())
            file.write(closing)


def _start(
    folder: Path, number: int, texts: LongTexts, part: tuple[int, int], end: int | None, kind: np.dtype[Any]
) -> subprocess.Popen[bytes]:
    np.save(folder / f"{number}.npy", texts.places[slice(*part)])
    job = {"folder": str(folder), "number": number, "file": str(texts.file), "end": end, "kind": kind.str}
    path = folder / f"{number}.{JOB}"
    path.write_text(json.dumps({**job, "parent": os.getpid()}), encoding="utf-8")
    home = str(Path(__file__).parents[3])  # of the package, wherever it was found
    found = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "multistep.tasks.text.encoding", str(path)],
        env={**os.environ, "PYTHONPATH": found, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the run to answer
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(arguments: Sequence[str]) -> None:
    from tokenizers import Tokenizer

    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    folder, number = Path(job["folder"]), job["number"]
    texts = LongTexts(Path(job["file"]), np.load(folder / f"{number}.npy"))
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    kind = np.dtype(job["kind"])
    write_tokens(folder / f"tokens.{number}", texts, tokenizer, job["end"], kind, job["parent"])


if __name__ == "__main__":
    main(sys.argv[1:])
