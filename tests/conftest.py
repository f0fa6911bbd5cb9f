"""What several test files need."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Before torch or a tokenizer is imported anywhere: nothing in the tests may go to the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nor may what a machine happens to have in its cache change what `auto` comes to.
os.environ["HF_HUB_CACHE"] = str(Path(tempfile.gettempdir()) / "multistep-tests-no-cache")
os.environ.pop("MULTISTEP_PRETRAINED", None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that use it are skipped where MULTISTEP_DATA does not name it."""
    folder = os.environ.get("MULTISTEP_DATA")
    if not folder:
        pytest.skip("MULTISTEP_DATA is not set")
    return Path(folder)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs of test runs are not remembered on the machine, nor is what was made of long data."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MULTISTEP_CACHE", raising=False)


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk: tests kill processes, not the machine, and simulated runs would wait most of all."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
