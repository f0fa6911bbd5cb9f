"""The batches of a window, the next of which is prepared while the device works on the one before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from multistep.backends.torch.domain import Batch


@dataclass(frozen=True)
class Reader:
    """A thread that prepares batches, and the stream that the device copies them in and works on them in meanwhile."""

    thread: Executor
    stream: torch.cuda.Stream


def reader_for(device: torch.device) -> Reader | None:
    """None for a CPU, whose cores a thread would take from the passes."""
    if device.type != "cuda":
        return None
    # Which device a thread speaks to by default is its own affair; pinned memory belongs to that one.
    thread = ThreadPoolExecutor(1, "batches", initializer=torch.cuda.set_device, initargs=(device,))
    return Reader(thread, torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def batches(
    read: Callable[[int], Batch], positions: Sequence[int], reader: Reader | None
) -> Generator[Batch, None, None]:
    """What `read` makes of each position, in order. No more is read than asked for: what follows may be read otherwise.

    A batch is a function of its position, so that it is the same whoever reads it and when. The host waits for nothing:
    streams of the device wait for each other.
    """
    if reader is None:
        yield from map(read, positions)
        return
    ours, theirs = torch.cuda.current_stream(reader.stream.device), reader.stream
    theirs.wait_stream(ours)  # for what lies on the device and is read from

    def ahead(position: int) -> Batch:
        with torch.cuda.stream(theirs):
            return read(position)

    waiting = reader.thread.submit(ahead, positions[0])
    try:
        for following in (*positions[1:], None):
            batch = waiting.result()
            ours.wait_stream(theirs)  # before the next is begun, which is not to be waited for
            for tensor in batch:
                if tensor.is_cuda:
                    tensor.record_stream(ours)  # its memory is not theirs again before we are done with it
            if following is not None:
                waiting = reader.thread.submit(ahead, following)
            yield batch
    finally:
        if not waiting.cancel():  # nothing is read any more once nobody wants it
            waiting.exception()
        ours.wait_stream(theirs)  # for what reading has left on the device
