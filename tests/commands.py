"""The command line, run as a user runs it, by processes that need not import torch anew each time.

Importing torch and transformers takes seconds of a core, and tests run dozens of commands. So each test process keeps
one that has imported them, and nothing of `multistep`, and forks it for each command. `start` begins a process from
nothing, for tests in which signals or the start itself matter.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAIN = "from multistep.cli import main; main()"
SECONDS = 240  # more than any command of the tests takes

# A line of standard input is a command; the answer is its exit code. Output goes to files, which no reader can stall.
SERVER = """
import atexit, gc, json, os, sys
import pydantic, rich.console, rich.table, sklearn.linear_model, torch, transformers, typer
from transformers import AutoModelForCausalLM, AutoTokenizer
gc.freeze()
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv[1:] = asked["arguments"]
        for number, name in enumerate(("in", "out", "error")):
            os.dup2(os.open(os.path.join(asked["streams"], name), os.O_RDWR | os.O_CREAT), number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)
        try:
            from multistep.cli import main
            main()
        except SystemExit as ended:
            code = ended.code
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # taking torch down takes longer than most commands
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    error: str


def start(folder: Path, *arguments: str, columns: int = 200) -> subprocess.Popen[str]:
    """A process from nothing, with its streams."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", MAIN, *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, env=_environment(folder, columns))


def ran(folder: Path, *arguments: str, lines: str = "", columns: int = 200) -> Ended:
    """A command that was run to its end in a folder, with these lines at its standard input."""
    with tempfile.TemporaryDirectory() as streams:
        Path(streams, "in").write_text(lines, encoding="utf-8")
        asked = {
            "folder": str(folder),
            "arguments": arguments,
            "environment": _environment(folder, columns),
            "streams": streams,
        }
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        with _no_longer_than(server, SECONDS):
            print(json.dumps(asked), file=server.stdin, flush=True)
            answer = server.stdout.readline()
        assert answer, f"the command took over {SECONDS} s, or could not be forked: {' '.join(arguments)}"
        out, error = (Path(streams, name).read_text(encoding="utf-8") for name in ("out", "error"))
    return Ended(int(answer), out, error)


def multistep(folder: Path, *arguments: str, code: int = 0, columns: int = 200) -> str:
    """Standard output of a verb, or standard error where another exit code than 0 is expected."""
    ended = ran(folder, *arguments, columns=columns)
    assert ended.code == code, f"exit {ended.code}\n{ended.out}\n{ended.error}"
    assert "Traceback" not in ended.error
    return ended.error if code else ended.out


def _environment(folder: Path, columns: int) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "COLUMNS": str(columns)}


@cache
def _server() -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=pipe, stdout=pipe, text=True, start_new_session=True
    )
    atexit.register(_end, server)
    return server


@contextmanager
def _no_longer_than(server: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, _end, [server])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(server: subprocess.Popen[str]) -> None:
    """With the command that is under way: it has the server's process group."""
    _server.cache_clear()
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
