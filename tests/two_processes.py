"""Two processes that do the same, as a launcher starts them: by a server that has imported what they need."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import many_worker
from corpora import english

from multistep.core.values.events import Entry, WindowDone
from multistep.engine.journal import read_entries

HERE = Path(__file__).parent
SERVER = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Ended:
    code: int
    said: str


@contextmanager
def serving() -> Iterator[None]:
    """Within, what starts processes can import what they need."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *([before] if before else [])])
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as the command line has it, before torch
    SERVER.set_forkserver_preload(["many_worker"])
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


Running = list[tuple[Any, Path]]


def both(folder: Path, where: Path, do: str, *args: Any, **keywords: Any) -> list[Ended]:
    """What comes of two processes that do the same, as a launcher starts them."""
    return ended(started(folder, where, do, *args, **keywords))


def both_succeed(folder: Path, where: Path, do: str, *args: Any, **keywords: Any) -> None:
    first, second = both(folder, where, do, *args, **keywords)
    assert (first.code, second.code) == (0, 0), f"{first.said}\n-- the second:\n{second.said}"


def started(folder: Path, where: Path, do: str, *args: Any, limit: float = 60.0, **keywords: Any) -> Running:
    """Two processes that work in the folder `where` and write what they say to `folder`."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    running: Running = []
    for rank in map(str, range(2)):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "MULTISTEP_DEVICE": "cpu", "COLUMNS": "400"}
        more = {"MULTISTEP_GROUP_SECONDS": str(limit), "XDG_CACHE_HOME": str(folder / "cache")}
        log = folder / f"log-{rank}"
        log.write_text("", encoding="utf-8")
        arguments = ({**place, **meeting, **more}, where, log, do, args, keywords)
        process = SERVER.Process(target=many_worker.child, args=arguments)
        process.start()
        running.append((process, log))
    return running


def ended(running: Running, seconds: float = 400.0) -> list[Ended]:
    for process, _ in running:
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
    found = [Ended(process.exitcode, log.read_text(encoding="utf-8")) for process, log in running]
    for process, _ in running:
        process.close()
    return found


# Whole runs -----------------------------------------------------------------------------------------


def written(folder: Path, until: str, recipe: Mapping[str, Any], *, layers: int, width: int) -> Path:
    """The file of a plan for running text with its data beside it; contexts are as long as the model is wide."""
    for seed, (split, sentences) in enumerate({"train": 1500, "validation": 200, "test": 200}.items()):
        (folder / f"{split}.txt").write_text(english(sentences, seed), encoding="utf-8")
    content = {
        "task": "text-generation",
        "data": {split: f"{split}.txt" for split in ("train", "validation", "test")},
        "model": {"layers": layers, "width": width, "context": width, "tokenizer": "characters"},
        "recipe": dict(recipe),
        "ship": "network",
        "phases": [{"name": "only", "until": until}],
    }
    (folder / "plan.yaml").write_text(json.dumps(content), encoding="utf-8")
    return folder / "plan.yaml"


def entries(run: Path) -> list[Entry]:
    return list(read_entries(run / "journal.jsonl"))


def losses(run: Path) -> list[float]:
    return [e.event.progress.loss for e in entries(run) if isinstance(e.event, WindowDone) and e.event.progress]
