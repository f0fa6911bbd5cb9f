"""The images of a split, decoded beforehand or when they are asked for: cut into parts, told apart, put on the device.

What fits is decoded beforehand and lies in memory, or in the device's memory; the rest is read by threads.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistep.tasks.images.decode import Pixels
from multistep.tasks.images.stored import CHUNK, Stored
from multistep.tasks.images.threads import cores
from multistep.tasks.sending import device_room, sent

Images: TypeAlias = Pixels | Stored
FEW = 1_000  # images show what a set is like, where they have to be decoded for it
BATCHES_AHEAD = 4  # at least, of what threads decode while the device works
AHEAD_BYTES = 2**29  # that such batches may take
FORGOTTEN = 4  # batches decoded in vain that are held: looks at other weights read the first ones again


def divided(images: Images, members: Sequence[Sequence[int]]) -> list[Images]:
    """Parts that hold each image once between them; of an array views, of which the images change places.

    A copy of all images would take as much memory again.
    """
    if isinstance(images, Stored):
        return [images.part(numbers) for numbers in members]
    _arrange(images, [i for numbers in members for i in numbers])
    bounds = np.cumsum([0, *map(len, members)])
    return [images[start:end] for start, end in itertools.pairwise(bounds)]


def _arrange(images: Pixels, order: Sequence[int]) -> None:
    """Bring image `order[i]` to place `i`, for all of them, with room for a single one beside them."""
    settled = np.zeros(len(order), bool)
    for first in range(len(order)):
        if settled[first] or order[first] == first:
            continue
        held, place = images[first].copy(), first
        while order[place] != first:
            images[place] = images[order[place]]
            settled[place] = True
            place = order[place]
        images[place] = held
        settled[place] = True


def hashes_of(images: Images) -> list[bytes]:
    """What tells each image from others: its pixels, or what it is decoded from."""
    if isinstance(images, Stored):
        return images.digests
    return [hashlib.blake2b(image.reshape(-1), digest_size=16).digest() for image in images]


def by_lot(images: Images, most: int) -> NDArray[np.int64]:
    """The numbers of some images, drawn by lot, the same every time; fewer where each has to be decoded for it."""
    most = min(most, FEW) if isinstance(images, Stored) else most
    return np.random.default_rng(0).permutation(len(images))[:most]


class Reader:
    """Batches of a split's images on a device, bytes (B, C, H, W).

    Decoded images that take no more than an eighth of the device's memory are copied there once, and gathered there.
    """

    def __init__(self, images: Images) -> None:
        self._images = images
        self._there: Tensor | None = None
        self._ahead = ReadAhead(images) if isinstance(images, Stored) else None

    def take(
        self, numbers: NDArray[np.int64], device: torch.device, following: Iterable[NDArray[np.int64]] = ()
    ) -> Tensor:
        """The images of these numbers; those `following` are decoded meanwhile, where they have to be."""
        if self._ahead is not None:
            found = sent(self._ahead.take(numbers, following, pinned=device.type == "cuda"), device)
            return found.permute(0, 3, 1, 2)
        held, chosen = self._held(device), torch.from_numpy(numbers)
        if held.device.type == device.type:
            return held[sent(chosen, device)].permute(0, 3, 1, 2)
        return sent(held[chosen], device).permute(0, 3, 1, 2)

    def _held(self, device: torch.device) -> Tensor:
        """All images: on the device from the first time on, if they may."""
        assert isinstance(self._images, np.ndarray), "others are read ahead"
        if self._there is None:
            self._there = torch.from_numpy(self._images)
            if device.type != "cpu" and self._images.nbytes <= device_room(device):
                self._there = self._there.to(device)
        return self._there


class ReadAhead:
    """Batches of stored images, decoded before they are asked for."""

    def __init__(self, images: Stored) -> None:
        self._images = images
        self._begun: OrderedDict[bytes, tuple[Tensor, list[Future[None]]]] = OrderedDict()

    def take(self, numbers: NDArray[np.int64], following: Iterable[NDArray[np.int64]], *, pinned: bool) -> Tensor:
        """Bytes (B, H, W, C) in the process's memory. Raises DataError for an image that cannot be read."""
        wanted = [numbers]
        most = self._most(len(numbers))
        for later in following:
            if len(wanted) > most:
                break
            wanted.append(later)
        for each in wanted:
            self._begin(each, pinned)
        found, work = self._begun.pop(numbers.tobytes())
        while len(self._begun) > most + FORGOTTEN:
            for chunk in self._begun.popitem(last=False)[1][1]:
                chunk.cancel()
        for chunk in work:
            chunk.result()
        return found

    def _begin(self, numbers: NDArray[np.int64], pinned: bool) -> None:
        key = numbers.tobytes()
        if key in self._begun:
            self._begun.move_to_end(key)
            return
        shape = (len(numbers), *self._images.shape[1:])
        out = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        self._begun[key] = out, self._images.reading(numbers, out.numpy())

    def _most(self, size: int) -> int:
        """How many batches of that size are decoded ahead: enough for every thread, within memory."""
        wanted = max(BATCHES_AHEAD, -(-2 * cores() * CHUNK // size))
        return max(1, min(wanted, AHEAD_BYTES // (size * int(np.prod(self._images.shape[1:])))))
