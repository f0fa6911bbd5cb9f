"""Where a call computes, named for that call alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

NAME = "MULTISTEP_DEVICE"  # what `backends.torch.devices.pick_device` reads, in processes that are started, too


@contextmanager
def on_device(device: str | None) -> Iterator[None]:
    """Within, work on that device: cpu, cuda, cuda:1, mps; None: on the one that was named before, or is found.

    It holds for the whole process, so calls on several devices at once need processes of their own.
    """
    if device is None:
        yield
        return
    before = os.environ.get(NAME)
    os.environ[NAME] = str(device)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(NAME, None)
        else:
            os.environ[NAME] = before
