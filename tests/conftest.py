"""What several test files need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch or a tokenizer is imported anywhere: nothing in the tests may go to the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that use it are skipped where MULTISTEP_DATA does not name it."""
    folder = os.environ.get("MULTISTEP_DATA")
    if not folder:
        pytest.skip("MULTISTEP_DATA is not set")
    return Path(folder)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs of test runs are not remembered on the machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
