"""One model on two processes: what they do is what one does, and what goes wrong with either is told once."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import many_worker
import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
# One for each task, and for what batches are made of: rows of one length, packed, padded; a module.
SHARED = (
    "text-generation",
    "conversations-from-nothing",
    "preference",
    "text-classification",
    "fill-mask",
    "speech-recognition",
    "images-of-one-folder-by-a-swin",
    "own-model-tensors",
    "own-model-bags-by-weight",
)


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def start(command: Sequence[str], rank: int, port: str, **more: str) -> subprocess.Popen[str]:
    """One of two processes, as a launcher starts it."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "MULTISTEP_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "MULTISTEP_GROUP_SECONDS": "20", **place, **meeting, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
    )


def both(command: Sequence[str], seconds: float = 120.0, **more: str) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of two processes with one command."""
    port = free_port()
    processes = [start(command, rank, port, **more) for rank in range(2)]
    try:
        told = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [(process.returncode, *said) for process, said in zip(processes, told, strict=True)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes make of all cases, in one start of them."""
    folder = tmp_path_factory.mktemp("shared")
    for name in SHARED:
        (folder / name).mkdir()
        data = many_worker.KNOWN[name].prepare(folder / name)
        (folder / name / "data").write_bytes(pickle.dumps(data))
    if (config := folder / "images-of-one-folder-by-a-swin/begin/config.json").exists():  # layers left out by lot
        config.write_text(config.read_text(encoding="utf-8").replace('"drop_path_rate": 0.5', '"drop_path_rate": 0.0'))
    for code, _, errors in both(["-W", "ignore", "many_worker.py", str(folder), *SHARED], seconds=400.0):
        assert code == 0, errors
    return folder


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_do_what_one_does(name: str, shared: Path) -> None:
    torch.manual_seed(0)  # an own module's first weights are those that it has in the first process
    losses, table, weights = many_worker.alone(name, shared)
    found, scores, placed = pickle.loads((shared / name / "seen").read_bytes())
    assert len(found) == many_worker.steps_of(name)
    np.testing.assert_allclose(found, losses, rtol=1e-5, atol=1e-5)
    assert scores.keys() == table.keys()
    for column in table:
        assert len(scores[column]) == len(table[column]), "every example once"
    for column in ("block", "count", "label", "words", "bytes"):
        if column in table:  # of the data alone, and so in what order
            np.testing.assert_array_equal(scores[column], table[column])
    np.testing.assert_allclose(scores["loss"], table["loss"], rtol=1e-3, atol=1e-4)
    assert placed.keys() == weights.keys()
