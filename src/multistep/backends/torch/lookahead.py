"""The batches of a window, the next of which is prepared while the device works on the one before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import torch

from multistep.backends.torch.domain import Batch


def reader_for(device: torch.device) -> Executor | None:
    """A thread that prepares batches; None for a CPU, whose cores it would take from the passes."""
    if device.type != "cuda":
        return None
    # Which device a thread speaks to by default is its own affair; pinned memory belongs to that one.
    return ThreadPoolExecutor(1, "batches", initializer=torch.cuda.set_device, initargs=(device,))


def batches(
    read: Callable[[int], Batch], positions: Sequence[int], reader: Executor | None
) -> Generator[Batch, None, None]:
    """What `read` makes of each position, in order. No more is read than asked for: what follows may be read otherwise.

    A batch is a function of its position, so that it is the same whoever reads it and when.
    """
    if reader is None:
        yield from map(read, positions)
        return
    waiting = reader.submit(read, positions[0])
    try:
        for following in (*positions[1:], None):
            batch = waiting.result()
            if following is not None:
                waiting = reader.submit(read, following)
            yield batch
    finally:
        if not waiting.cancel():  # nothing is read any more once nobody wants it
            waiting.exception()
