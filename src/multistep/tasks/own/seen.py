"""Whether examples are among those that a run was trained on, or chose its model by, told by a few bytes of each.

Beside the weights stand the digests of some examples of train and validation; data that are scored later are held
against them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multistep.engine.seen import LIKE_NEW
from multistep.errors import DataError
from multistep.tasks.own.ragged import opened
from multistep.tasks.own.randomness import as_at
from multistep.tasks.own.reader import Reader

KEPT, KEPT_ITEMS = 1000, 200  # digests of a split: of tensors, of items, which take longer to read
MOST_READ, MOST_ITEMS = 100_000, 2000  # examples that are held against them
LEAST, LEAST_SHARE = 3, 0.01  # that are worth a word: so many digests, and such a share of those kept
SIGNS = 12  # of a digest


def digests(reader: Reader, most: int, most_items: int) -> list[str]:
    """Those of some examples, evenly spread, as the model is given them; each drawn as if it were the first."""
    return list(_digests(reader, most if reader.split.items is None else most_items))


def _digests(reader: Reader, most: int) -> Iterator[str]:
    places = np.unique(np.linspace(0, len(reader) - 1, min(len(reader), most)).astype(np.int64))
    if reader.split.items is None:
        tensors, _ = opened(reader.batch(places, torch.device("cpu")))
        yield from (_digest(row) for row in zip(*tensors, strict=True))
        return
    for place in places:
        with as_at(0):
            tensors, _ = opened(reader.batch(np.array([place]), torch.device("cpu")))
        yield _digest(tensors)


def _digest(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=SIGNS // 2)
    for tensor in tensors:
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(str(array.dtype).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def kept_digests(readers: Mapping[str, Reader]) -> dict[str, list[str]]:
    """What stands beside the weights."""
    return {name: digests(readers[name], KEPT, KEPT_ITEMS) for name in ("train", "validation") if name in readers}


def told(reader: Reader, kept: Any) -> str | None:
    """What is to be said of scores on these examples; None where nothing is."""
    if not isinstance(kept, Mapping):
        return None
    try:
        found = set(digests(reader, MOST_READ, MOST_ITEMS))
    except DataError:
        return None
    for role, what in (("train", "was trained on"), ("validation", "chose its model by")):
        known = list(kept.get(role) or ())
        shared = sum(each in found for each in known)
        if shared >= min(LEAST, len(known) or 1) and shared >= LEAST_SHARE * len(known):
            share = "all" if shared == len(known) else f"about {shared / len(known):.0%}"
            return f"{reader.split.name}: {share} of the examples that this run {what} are in it, {LIKE_NEW}"
    return None
