"""Passes over real batches that leave weights, statistics and random states as they were: for measuring."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from multistep.backends.torch.domain import Batch
from multistep.backends.torch.passes import Passes
from multistep.backends.torch.randomness import undisturbed

SHAPES = 3  # batches that are looked at for theirs
REFINED = 2  # tries between what did not fit and twice as many pieces that did
SHARE_OF_MEMORY = 0.92  # that a pass may take with all else; batches differ, and memory is cut into pieces


def pieces_that_fit(size: int, fits: Callable[[int], bool]) -> int | None:
    """The examples of a pass when a batch is cut into the fewest equal pieces that fit; None if not even one does.

    `fits` is asked for the whole first, then for halves, quarters and so on, and at last twice in between.
    """
    too_few, pieces = 0, 1
    while not fits(-(-size // pieces)):
        if pieces >= size:
            return None
        too_few, pieces = pieces, min(2 * pieces, size)
    for _ in range(REFINED):
        between = (too_few + pieces) // 2
        if between <= too_few or -(-size // between) == -(-size // pieces):
            break
        if fits(-(-size // between)):
            pieces = between
        else:
            too_few = between
    return -(-size // pieces)


class Rehearsal:
    """Passes of a model in training that are for measuring alone. `batch` gives the first so many examples."""

    def __init__(
        self,
        model: nn.Module,
        passes: Passes,
        batch: Callable[[int, int], Batch],
        batch_size: int,
        device: torch.device,
    ) -> None:
        """`batch` gives examples of an offset and a number, from where training stands."""
        self._model, self._passes, self._batch = model, passes, batch
        self._size, self._device = batch_size, device

    def fits(self, size: int, *, reserve: int) -> bool:
        """Whether memory holds a pass over so many examples, and `reserve` bytes beside it."""
        with self._untouched():
            _forget_peak(self._device)
            self._passes.micro_batch = size
            try:
                self._passes.whole(self._batch(0, size))
            except torch.OutOfMemoryError:
                enough = False
            else:
                enough = _room_beside_peak(self._device) >= reserve
        if self._device.type != "cpu":
            torch.accelerator.empty_cache()
        return enough

    def seconds(self, steps: int) -> float:
        """Of the passes of a step, the mean of `steps` of them."""
        with self._untouched():
            _wait(self._device)
            began = time.perf_counter()
            for i in range(steps):
                self._passes.gradients(self._batch(i * self._size, self._size), i)
            _wait(self._device)
            return (time.perf_counter() - began) / steps

    def same_shapes(self) -> bool:
        """Whether batches have the same shapes, as far as the next ones tell."""
        with self._untouched():
            batches = [self._batch(i * self._size, self._size) for i in range(SHAPES)]
        return len({tuple(tensor.shape for tensor in batch) for batch in batches}) == 1

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        micro_batch, halved = self._passes.micro_batch, self._passes.halved
        training = self._model.training
        buffers: list[tuple[Tensor, Tensor]] = [(b, b.detach().clone()) for b in self._model.buffers()]
        self._model.train()
        try:
            with undisturbed(self._device):
                yield
        finally:
            self._passes.forget()
            self._passes.micro_batch, self._passes.halved = micro_batch, halved
            self._model.train(training)
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _room_beside_peak(device: torch.device) -> float:
    """Bytes that were left when most was in use; endless where no such count is kept."""
    if device.type != "cuda":
        return float("inf")
    free, _ = torch.cuda.mem_get_info(device)  # what other processes hold is not ours to use
    ours = free + torch.cuda.memory_reserved(device)
    return SHARE_OF_MEMORY * ours - torch.cuda.max_memory_allocated(device)
