"""What the tests of exports share: the folder's own script without torch, and an exporter that starts once."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WITHOUT_TORCH = """
import sys, runpy
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "multistep"):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Refused())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def say(folder: Path, *given: str) -> Any:
    """What the folder's own script says, in a process that cannot import torch."""
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder / "run.py"), *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def started_once() -> Iterator[None]:
    """The exporter reads the source of five hundred operators at each start, a second of every export."""
    from torch.onnx._internal.exporter import _registration

    with pytest.MonkeyPatch.context() as patch:
        read = _registration.ONNXRegistry.from_torchlib
        patch.setattr(_registration.ONNXRegistry, "from_torchlib", staticmethod(functools.cache(read)))
        yield
