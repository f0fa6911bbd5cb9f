"""Data sets as users have them in Python: datasets, loaders, lists, tensors. Each split is read by index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, Subset, TensorDataset, default_collate

from multistep.errors import DataError, PlanError
from multistep.tasks.own.layout import flatten
from multistep.tasks.own.randomness import as_at
from multistep.tasks.own.weighted import Drawn

MOST_ITEMS = 100_000  # of a stream, which is read into memory once
HASHED_BYTES = 2**28  # tensors of a split up to this size are hashed whole
HASHED_ITEMS = 256  # of others, so many items, evenly spread
Indices = NDArray[np.int64]
Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class Split:
    """One split: `whole` tensors with a row an example, nested as a batch is, or `items` that `collate` joins.

    `indices` are the examples that belong to it (None: all), of what the user gave as `origin`. `batch_size` and
    `drawn`, weights by which examples are drawn, are the loader's, `class_names` the data set's. `columns` are
    those of the table that the inputs came as.
    """

    name: str
    whole: Any = None
    items: Any = None
    collate: Collate = default_collate
    indices: Indices | None = None
    batch_size: int | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    drawn: Drawn | None = None
    origin: str = ""
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        if self.indices is not None:
            return len(self.indices)
        return len(flatten(self.whole, self.name)[1][0]) if self.items is None else len(self.items)

    def rows(self, places: Indices) -> Indices:
        """The numbers that these examples have in what the user gave."""
        return places if self.indices is None else self.indices[places]

    def read(self, places: Indices) -> Any:
        """The batch of the examples at these places, as the loader would make it. Raises DataError."""
        if self.items is None:
            return _rows(self.whole, torch.from_numpy(self.rows(places)))
        return self.join(self.take(places), places)

    def take(self, places: Indices) -> list[Any]:
        """The items at these places, one by one. Raises DataError."""
        return [self._item(int(i)) for i in self.rows(places)]

    def join(self, items: list[Any], places: Indices | None = None) -> Any:
        """Items as a batch. Raises DataError."""
        try:
            return self.collate(items)
        except Exception as error:
            which = "" if places is None else f" {', '.join(map(str, self.rows(places)[:4]))}, ..."
            raise DataError(
                f"{self.name}: items{which} cannot be joined to a batch ({_short(error)}); give a DataLoader whose "
                "collate_fn does it"
            ) from error

    def _item(self, index: int) -> Any:
        try:
            return self.items[index]
        except Exception as error:
            raise DataError(f"{self.name}: item {index} cannot be read ({_short(error)})") from error

    def part(self, places: Indices, name: str) -> Split:
        """Some of its examples."""
        drawn = self.drawn.of(places) if self.drawn else None
        return replace(
            self, name=name, indices=self.rows(places), notes=(), drawn=drawn, origin=self.origin or self.name
        )

    def fingerprint(self) -> str:
        """A hash of the tensors, or of a bounded sample of the items, and their number."""
        digest = hashlib.blake2b(f"{len(self)}".encode(), digest_size=8)
        places = np.arange(len(self))
        bits = sum(t.numel() * t.element_size() for t in flatten(self.whole, self.name)[1]) if self.items is None else 0
        if self.drawn is not None:
            digest.update(self.drawn.weights.tobytes() + f"{self.drawn.replacement}{self.drawn.count}".encode())
        if self.items is None and bits <= HASHED_BYTES:
            _feed(digest, self.read(places))
            return digest.hexdigest()
        for place in np.unique(np.linspace(0, len(self) - 1, min(len(self), HASHED_ITEMS)).astype(np.int64)):
            with as_at(int(place)):
                _feed(digest, self.read(np.array([place])))
        return digest.hexdigest()


# What users give ------------------------------------------------------------------------------------


def split_of(name: str, given: Any, *, as_items: bool = False) -> Split:
    """A split of whatever holds (input, target) pairs; `as_items` for a collate function that wants them one by one.

    Raises DataError or PlanError.
    """
    if isinstance(given, str | bytes) or hasattr(given, "__fspath__"):
        raise PlanError(f"{name} is {given!r}; a model of your own takes a dataset, a DataLoader, pairs or tensors")
    if type(given).__name__ == "DataFrame":
        raise PlanError(
            f"{name} is a table; give its columns as (inputs, targets), for instance (table[features].to_numpy(), "
            "table['target'].to_numpy())"
        )
    if isinstance(given, TensorDataset) and not as_items:
        return Split(name, whole=given.tensors)
    if isinstance(given, Subset):
        inner = split_of(name, given.dataset, as_items=as_items)
        return inner.part(np.asarray(given.indices, dtype=np.int64), name)
    if isinstance(given, Mapping) and given and _are_columns(list(given.values())):
        return Split(name, whole=_tensors(name, {str(key): value for key, value in given.items()}))
    if isinstance(given, tuple | list) and len(given) > 1 and _are_columns(given):
        columns = getattr(given[0], "columns", ()) if len(given) == 2 else ()  # of a table of pandas or polars
        return Split(name, whole=_tensors(name, tuple(given)), columns=tuple(map(str, columns)))
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
    return (
        Split(name, whole=whole) if whole is not None else Split(name, items=given, collate=joined, class_names=names)
    )


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
        whole = joined(list(items))
        flatten(whole, name)
    except Exception:  # whatever torch raises at items of several shapes or kinds: they are joined batch by batch
        return None
    return whole if isinstance(whole, tuple | list | Mapping) else None


def joined(items: list[Any]) -> Any:
    """A batch of items, by torch's default_collate; lists of numbers within an item are rows of a tensor."""
    return default_collate([_with_tensors(item) for item in items])


def _with_tensors(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: _tensor_of_list(part) for key, part in item.items()}
    return tuple(_tensor_of_list(part) for part in item) if isinstance(item, tuple | list) else item


def _tensor_of_list(part: Any) -> Any:
    if isinstance(part, list) and part and isinstance(part[0], int | float | list):
        with suppress(ValueError, TypeError):  # nested lists of several lengths: for a collate function
            return torch.tensor(part)
    return part


def _are_columns(parts: Sequence[Any]) -> bool:
    """Whether these are inputs and targets with a row an example each: arrays, with lists of numbers among them."""
    arrays = [part for part in parts if _is_array(part)]
    if not arrays:  # two lists of the same length, which is not that of an item
        lists = isinstance(parts, tuple) and all(isinstance(part, list) for part in parts)
        return lists and len({len(part) for part in parts}) == 1 and len(parts[0]) > max(2, len(parts))
    rest = [part for part in parts if not _is_array(part)]
    return all(isinstance(part, list | tuple) and len(part) == len(arrays[0]) for part in rest)


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
        if array.dtype == object:  # a table's columns of several types, yes-or-no among numbers
            array = array.astype(np.float64)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: an array of {array.dtype} cannot be a tensor ({_short(error)}); make numbers of it: of names, "
            "for instance, np.unique(names, return_inverse=True)[1]"
        ) from error


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
