"""Data sets as users have them in Python: datasets, loaders, lists, tensors. Each split is read by index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from multistep.errors import DataError, PlanError
from multistep.tasks.own.layout import Layout, flatten
from multistep.tasks.own.randomness import as_at

MOST_ITEMS = 100_000  # of a stream, which is read into memory once
HASHED_BYTES = 2**28  # tensors of a split up to this size are hashed whole
HASHED_ITEMS = 256  # of others, so many items, evenly spread
VALIDATION_SHARE = 0.1
RESIDENT_SHARE = 8  # a split lies on a GPU if it takes less than this part of its free memory
Indices = NDArray[np.int64]
Collate = Callable[[list[Any]], Any]
Check = Callable[[str, Any], None]


@dataclass(frozen=True)
class Split:
    """One split: `whole` tensors with a row an example, nested as a batch is, or `items` that `collate` joins.

    `indices` are the examples that belong to it (None: all). `batch_size` is the loader's, `class_names` the
    data set's.
    """

    name: str
    whole: Any = None
    items: Any = None
    collate: Collate = default_collate
    indices: Indices | None = None
    batch_size: int | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        if self.indices is not None:
            return len(self.indices)
        return len(flatten(self.whole, self.name)[1][0]) if self.items is None else len(self.items)

    def read(self, places: Indices) -> Any:
        """The batch of the examples at these places, as the loader would make it. Raises DataError."""
        taken = places if self.indices is None else self.indices[places]
        if self.items is None:
            return _rows(self.whole, torch.from_numpy(taken))
        items = [self._item(int(i)) for i in taken]
        try:
            return self.collate(items)
        except Exception as error:
            raise DataError(
                f"{self.name}: items {', '.join(map(str, taken[:4]))}, ... cannot be joined to a batch "
                f"({_short(error)}); give a DataLoader whose collate_fn does it"
            ) from error

    def _item(self, index: int) -> Any:
        try:
            return self.items[index]
        except Exception as error:
            raise DataError(f"{self.name}: item {index} cannot be read ({_short(error)})") from error

    def part(self, places: Indices, name: str) -> Split:
        """Some of its examples."""
        taken = places if self.indices is None else self.indices[places]
        return replace(self, name=name, indices=taken, notes=())

    def fingerprint(self) -> str:
        """A hash of the tensors, or of a bounded sample of the items, and their number."""
        digest = hashlib.blake2b(f"{len(self)}".encode(), digest_size=8)
        places = np.arange(len(self))
        bits = sum(t.numel() * t.element_size() for t in flatten(self.whole, self.name)[1]) if self.items is None else 0
        if self.items is None and bits <= HASHED_BYTES:
            _feed(digest, self.read(places))
            return digest.hexdigest()
        for place in np.unique(np.linspace(0, len(self) - 1, min(len(self), HASHED_ITEMS)).astype(np.int64)):
            with as_at(int(place)):
                _feed(digest, self.read(np.array([place])))
        return digest.hexdigest()


class Reader:
    """A split's batches as the learner wants them: flat tuples of tensors on the device."""

    def __init__(
        self, split: Split, layout: Layout, device: torch.device, *, double: bool, target: torch.dtype, check: Check
    ) -> None:
        """`double` and `target` are the types of numbers as `tidy` says; `check` raises for a wrong target."""
        self.split, self._layout, self._double, self._target, self._check = split, layout, double, target, check
        self._whole: tuple[Tensor, ...] | None = None
        if split.items is None:
            everything = split.whole if split.indices is None else split.read(np.arange(len(split)))
            flat = self._flat(everything)
            self._whole = tuple(part.to(device) for part in flat) if _fits(flat, device) else flat

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, places: Indices, device: torch.device) -> tuple[Tensor, ...]:
        """The examples at these places, on the device."""
        if self._whole is not None:
            taken = torch.from_numpy(places).to(self._whole[0].device)
            return tuple(part[taken].to(device) for part in self._whole)
        tensors = self._flat(self.split.read(places))
        if device.type == "cuda":
            pinned = (part if part.is_cuda else part.pin_memory() for part in tensors)
            return tuple(part.to(device, non_blocking=True) for part in pinned)
        return tuple(part.to(device) for part in tensors)

    def _flat(self, batch: Any) -> tuple[Tensor, ...]:
        tensors = self._layout.tidy(batch, self.split.name, double=self._double, target=self._target)
        self._check(self.split.name, self._layout.target(tensors))
        return tensors


def _fits(tensors: Sequence[Tensor], device: torch.device) -> bool:
    """Whether a split may lie on the device beside model and activations."""
    if device.type != "cuda":
        return True
    return sum(t.numel() * t.element_size() for t in tensors) < torch.cuda.mem_get_info(device)[0] / RESIDENT_SHARE


# What users give ------------------------------------------------------------------------------------


def read_splits(given: Mapping[str, object]) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The splits "train", "validation" and perhaps "test", and what is to be said about them."""
    splits = {name: split_of(name, value) for name, value in given.items() if value is not None}
    notes = [note for split in splits.values() for note in split.notes]
    for name, split in splits.items():
        if len(split) == 0:
            raise DataError(f"{name}: holds no examples")
    if "validation" not in splits:
        train = splits["train"]
        if len(train) < 20:
            raise DataError(f"train: {len(train)} examples are too few to cut validation from; give validation=...")
        order = np.random.default_rng(0).permutation(len(train))
        count = round(VALIDATION_SHARE * len(train))
        splits["validation"] = train.part(np.sort(order[:count]), "validation")
        splits["train"] = train.part(np.sort(order[count:]), "train")
        notes.append(f"no validation was given: a tenth of train, {count:,} examples drawn by lot, is held out for it")
    return {name: splits[name] for name in ("train", "validation", "test") if name in splits}, tuple(notes)


def split_of(name: str, given: Any, *, as_items: bool = False) -> Split:
    """A split of whatever holds (input, target) pairs; `as_items` for a collate function that wants them one by one.

    Raises DataError or PlanError.
    """
    if isinstance(given, str | bytes) or hasattr(given, "__fspath__"):
        raise PlanError(f"{name} is {given!r}; a model of your own takes a dataset, a DataLoader, pairs or tensors")
    if isinstance(given, DataLoader):
        return _of_loader(name, given)
    if isinstance(given, TensorDataset) and not as_items:
        return Split(name, whole=given.tensors)
    if isinstance(given, Subset):
        inner = split_of(name, given.dataset, as_items=as_items)
        return inner.part(np.asarray(given.indices, dtype=np.int64), name)
    if isinstance(given, Mapping) and given and all(map(_is_array, given.values())):
        return Split(name, whole=_tensors(name, {str(key): value for key, value in given.items()}))
    if isinstance(given, tuple | list) and len(given) > 1 and all(map(_is_array, given)):
        return Split(name, whole=_tensors(name, tuple(given)))
    if isinstance(given, IterableDataset) or (hasattr(given, "__iter__") and not hasattr(given, "__getitem__")):
        items = _stream_items(name, given)
        note = f"{name}: the stream was read once into memory, {len(items):,} items"
        return replace(split_of(name, items, as_items=as_items), notes=(note,))
    if not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
        raise PlanError(
            f"{name} is a {type(given).__name__}; allowed: a dataset with __len__ and __getitem__, an iterable one, a "
            "DataLoader, a list of (input, target) pairs, or tensors and arrays as (inputs, targets)"
        )
    names = tuple(str(label) for label in getattr(given, "classes", None) or ())
    whole = None if as_items else _in_memory(name, given)
    return Split(name, whole=whole) if whole is not None else Split(name, items=given, class_names=names)


def _of_loader(name: str, loader: DataLoader[Any]) -> Split:
    """A loader's data set, collate function and batch size; the order of examples is not the loader's."""
    collate: Collate = loader.collate_fn
    split = split_of(name, loader.dataset, as_items=collate is not default_collate)
    sampler = getattr(loader, "sampler", None)
    batching = getattr(loader, "batch_sampler", None)
    size = loader.batch_size or getattr(batching, "batch_size", None)
    if not size:
        raise PlanError(f"{name}: the loader has no batch size; give its dataset, and recipe={{'batch_size': ...}}")
    if isinstance(sampler, SubsetRandomSampler):
        split = split.part(np.asarray(list(sampler.indices), dtype=np.int64), name)
    elif not isinstance(loader.dataset, IterableDataset) and not isinstance(sampler, RandomSampler | SequentialSampler):
        raise PlanError(
            f"{name}: the loader's {type(sampler).__name__} cannot be kept, since the order of examples is a function "
            "of seed and position here; give the dataset, and put weights into the loss"
        )
    note = f"{name}: of the loader, the dataset, collate_fn and batch size count; its shuffling and workers do not"
    return replace(split, collate=collate, batch_size=size, notes=(*split.notes, note))


def _stream_items(name: str, stream: Iterable[Any]) -> list[Any]:
    items: list[Any] = []
    with as_at(0):
        for item in stream:
            if len(items) == MOST_ITEMS:
                raise DataError(
                    f"{name}: the stream yields more than {MOST_ITEMS:,} items, which are not all read into memory; "
                    "give a dataset with __len__ and __getitem__"
                )
            items.append(item)
    return items


def _in_memory(name: str, items: Any) -> Any:
    """A list of items of one shape as whole tensors; None where they are not such."""
    if not isinstance(items, list | tuple) or not items:
        return None
    try:
        whole = default_collate(list(items))
        flatten(whole, name)
    except Exception:  # whatever torch raises at items of several shapes or kinds: they are joined batch by batch
        return None
    return whole if isinstance(whole, tuple | list | Mapping) else None


def _is_array(value: Any) -> bool:
    return (isinstance(value, Tensor | np.ndarray) or hasattr(value, "__array__")) and len(np.shape(value)) > 0


def _tensors(name: str, parts: Any) -> Any:
    """Arrays as tensors, all with the same number of rows."""
    named = dict(parts) if isinstance(parts, dict) else dict(enumerate(parts))
    found = {key: _tensor(f"{name}[{key!r}]", value) for key, value in named.items()}
    lengths = {key: len(value) for key, value in found.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{name}: inputs and targets must have one row an example each; there are {lengths}")
    return found if isinstance(parts, dict) else tuple(found.values())


def _tensor(where: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    array = np.ascontiguousarray(np.asarray(value))
    try:
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except TypeError as error:
        raise DataError(f"{where}: an array of {array.dtype} cannot be a tensor; make numbers of it") from error


def _rows(value: Any, taken: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[taken.to(value.device)]
    if isinstance(value, Mapping):
        return {key: _rows(part, taken) for key, part in value.items()}
    return tuple(_rows(part, taken) for part in value)


def _feed(digest: Any, batch: Any) -> None:
    """Add a batch's bytes to a hash; parts that are no tensors by their look."""
    if isinstance(batch, Tensor):
        digest.update(f"{batch.dtype}{tuple(batch.shape)}".encode())
        digest.update(batch.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    elif isinstance(batch, Mapping):
        for key, part in batch.items():
            digest.update(str(key).encode())
            _feed(digest, part)
    elif isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        for part in batch:
            _feed(digest, part)
    elif isinstance(batch, str | bytes | int | float | bool | None):
        digest.update(repr(batch).encode())


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
