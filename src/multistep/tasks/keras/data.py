"""Data as people give them to Keras: arrays, tf.data, PyDatasets, whatever yields batches; each read by index."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multistep.errors import DataError, PlanError
from multistep.tasks.machine import CPU, total_memory
from multistep.tasks.order import ChunkedOrder, ShuffledOrder
from multistep.tasks.own.parting import Indices, Labels, as_classes
from multistep.tasks.own.randomness import as_at

MEMORY_SHARE = 4  # a stream is read into memory if it takes less than this part of it
HASHED_BYTES = 2**28  # arrays of a split up to this size are hashed whole
HASHED_ROWS = 4096  # of others, so many rows, evenly spread
SEEN_TWICE = 2  # batches of a stream that are read again, to see whether they are the same
CACHED = 8  # batches of a PyDataset that is not held in memory
FORMS = (
    "arrays as (inputs, targets) or (inputs, targets, sample_weights), a tf.data.Dataset, a keras.utils.PyDataset, or "
    "a function that returns a generator of batches"
)
Parts = tuple[Any, Any, Any]  # inputs, targets, sample weights (None: 1 each), nested as the model has them
Array = NDArray[Any]


class Arrays:
    """Examples in memory, or in mapped files."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.size, self.batch_size = parts, len(leaves(parts)[0]), None

    def read(self, rows: Indices, epoch: int) -> Parts:
        found: Parts = mapped(lambda array: array[rows], self.parts)
        return found


class Batches:
    """A PyDataset that is read batch by batch: too large for memory, or with randomness of its own."""

    def __init__(self, name: str, given: Any) -> None:
        self._name, self._given = name, given
        with as_at(0):
            self.batch_size = len(leaves(_parts(name, given[0]))[0])
            last = len(leaves(_parts(name, given[len(given) - 1]))[0])
        self.size = self.batch_size * (len(given) - 1) + last
        self._cached: OrderedDict[tuple[int, int], Parts] = OrderedDict()

    def read(self, rows: Indices, epoch: int) -> Parts:
        numbers, within = np.divmod(rows, self.batch_size)
        found = {number: self._batch(int(number), epoch) for number in dict.fromkeys(numbers.tolist())}
        flat = {number: leaves(parts) for number, parts in found.items()}
        some = next(iter(found.values()))
        count = len(leaves(some))
        columns = [
            np.stack([flat[n][k][i] for n, i in zip(numbers.tolist(), within.tolist(), strict=True)])
            for k in range(count)
        ]
        given = iter(columns)
        read: Parts = mapped(lambda _: next(given), some)
        return read

    def _batch(self, number: int, epoch: int) -> Parts:
        key = (number, epoch)
        if key not in self._cached:
            with as_at(number, epoch):  # what it draws is then a function of the place
                self._cached[key] = _parts(self._name, self._given[number])
            if len(self._cached) > CACHED:
                self._cached.popitem(last=False)
        self._cached.move_to_end(key)
        return self._cached[key]


@dataclass(frozen=True)
class Split:
    """One split: `indices` are the examples of `source` that belong to it (None: all)."""

    name: str
    source: Arrays | Batches
    indices: Indices | None = None
    batch_size: int | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.source.size if self.indices is None else len(self.indices)

    def read(self, places: Indices, epoch: int = 0) -> Parts:
        """The examples at these places. Raises DataError."""
        return self.source.read(places if self.indices is None else self.indices[places], epoch)

    def part(self, places: Indices, name: str) -> Split:
        """Some of its examples."""
        rows = places if self.indices is None else self.indices[places]
        return replace(self, name=name, indices=rows, notes=())

    def order(self) -> ShuffledOrder:
        if isinstance(self.source, Batches):
            return ChunkedOrder(len(self), self.source.batch_size)
        return ShuffledOrder(len(self))

    def fingerprint(self) -> str:
        """A hash of the examples, or of a bounded number of them, and of how many there are."""
        digest = hashlib.blake2b(f"{len(self)}".encode(), digest_size=8)
        rows = min(len(self), CACHED)
        if isinstance(self.source, Arrays):
            whole = sum(int(array.nbytes) for array in leaves(self.source.parts)) <= HASHED_BYTES
            rows = len(self) if whole else min(len(self), HASHED_ROWS)
        places = np.unique(np.linspace(0, len(self) - 1, rows).astype(np.int64))
        for array in leaves(self.read(places)):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(_bytes_of(array))
        return digest.hexdigest()


def labels_of(split: Split) -> Labels | None:
    """The class of each example, where it has one; only of what lies in memory."""
    if not isinstance(split.source, Arrays) or not isinstance(targets := split.source.parts[1], np.ndarray):
        return None
    flat = targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else targets
    return as_classes(flat if split.indices is None else flat[split.indices])


# What users give ------------------------------------------------------------------------------------


def split_of(name: str, given: Any) -> Split:
    """A split of whatever Keras takes. Raises DataError or PlanError."""
    import keras

    if isinstance(given, str | bytes) or hasattr(given, "__fspath__"):
        raise PlanError(f"{name} is {given!r}; a Keras model takes {FORMS}")
    if isinstance(given, tuple | list) and not _are_batches(given):
        parts = _parts(name, tuple(given))
        _require_rows(name, parts)
        return Split(name, Arrays(parts))
    if isinstance(given, keras.utils.PyDataset):
        return _of_py_dataset(name, given)
    if isinstance(given, Iterator):
        raise PlanError(f"{name} is a generator, which can be read once; give the function that makes it")
    if callable(given) and not hasattr(given, "__iter__"):
        return _of_stream(name, given)
    if hasattr(given, "as_numpy_iterator"):
        return _of_tf_data(name, given)
    if hasattr(given, "__iter__") and not isinstance(given, Mapping | np.ndarray):
        return _of_stream(name, lambda: iter(given))
    raise PlanError(f"{name} is a {type(given).__name__}; allowed: {FORMS}")


def _are_batches(given: Sequence[Any]) -> bool:
    """Whether it is a list of batches, rather than (inputs, targets)."""
    return isinstance(given, list) and all(isinstance(part, tuple) and len(part) in (2, 3) for part in given)


def _of_tf_data(name: str, given: Any) -> Split:
    cardinality = int(given.cardinality())
    if cardinality == -1:
        raise DataError(f"{name}: the dataset repeats without end; give it without .repeat()")
    return _of_stream(name, given.as_numpy_iterator)


def _of_stream(name: str, begin: Callable[[], Iterable[Any]]) -> Split:
    """What yields batches, read into memory once; its batch size is that of the first."""
    most, taken = total_memory(CPU) // MEMORY_SHARE, 0
    batches: list[Parts] = []
    with as_at(0):
        for batch in begin():
            batches.append(_parts(name, batch))
            _require_rows(name, batches[-1])
            taken += sum(array.nbytes for array in leaves(batches[-1]))
            if taken > most:
                raise DataError(
                    f"{name}: yields more than {most / 1e9:.0f} GB, a quarter of the memory, where it would be held; "
                    "give arrays that are mapped from files (numpy.load(..., mmap_mode='r')) or a PyDataset"
                )
        if not batches:
            raise DataError(f"{name}: yields no batches")
        _require_repeatable(name, begin, batches)
    parts, size = _joined(name, batches), len(leaves(batches[0])[0])
    note = f"{name}: was read once into memory, {len(leaves(parts)[0]):,} examples; its shuffling does not count"
    return Split(name, Arrays(parts), batch_size=size, notes=(note,))


def _require_repeatable(name: str, begin: Callable[[], Iterable[Any]], batches: Sequence[Parts]) -> None:
    """Raises DataError for what yields other examples each time: read once, it would stand still."""
    rows = {row for parts in batches for row in _hashes(parts)}
    for _, batch in zip(range(SEEN_TWICE), begin(), strict=False):
        strange = [row for row in _hashes(_parts(name, batch)) if row not in rows]
        if strange:
            raise DataError(
                f"{name}: yields other examples each time it is read, so that it cannot be read once and repeated "
                "exactly; put what augments into the model (keras.layers.RandomFlip, ...), or give a "
                "keras.utils.PyDataset, which is read anew in each epoch"
            )


def _of_py_dataset(name: str, given: Any) -> Split:
    number = given.num_batches if hasattr(given, "num_batches") else len(given)
    if not number:
        raise DataError(f"{name}: the PyDataset {'repeats without end' if number is None else 'has no batches'}")
    with as_at(0):
        first, again = (_parts(name, given[0]) for _ in range(2))
    taken = sum(array.nbytes for array in leaves(first)) * number
    same = all(np.array_equal(one, other) for one, other in zip(leaves(first), leaves(again), strict=True))
    size = len(leaves(first)[0])
    if not same or taken > total_memory(CPU) // MEMORY_SHARE:
        why = "draws at random" if not same else "is larger than a quarter of the memory"
        note = f"{name}: the PyDataset {why}, so it is read batch by batch, in an order that follows from the seed"
        return Split(name, Batches(name, given), batch_size=size, notes=(note,))
    with as_at(0):
        batches = [_parts(name, given[i]) for i in range(number)]
    return Split(name, Arrays(_joined(name, batches)), batch_size=size)


def _parts(name: str, batch: Any) -> Parts:
    """(inputs, targets) or (inputs, targets, sample weights) as arrays. Raises DataError."""
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        told = f"a tuple of {len(batch)}" if isinstance(batch, tuple | list) else f"a {type(batch).__name__}"
        raise DataError(f"{name}: {told}; allowed: (inputs, targets) or (inputs, targets, sample_weights)")
    inputs, targets, weights = (*batch, None)[:3]
    return (
        mapped(lambda value: _array(f"{name}, inputs", value), inputs),
        mapped(lambda value: _array(f"{name}, targets", value), targets),
        None if weights is None else mapped(lambda value: _array(f"{name}, sample weights", value), weights),
    )


def of_inputs(value: Any) -> Any:
    """Inputs alone as arrays, nested as the model has them. Raises DataError."""
    return mapped(lambda part: _array("inputs", part), value)


def _array(where: str, value: Any) -> Array:
    """One part as an array: texts as they are, whole numbers and floats in the types that Keras computes in."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if hasattr(value, "to_list") and hasattr(value, "flat_values"):
        raise DataError(f"{where}: ragged tensors are not read; pad them: .to_tensor()")
    array: Array = np.asanyarray(value)  # a mapped file stays one
    if array.dtype == object and array.size and all(isinstance(each, str | bytes) for each in array.flat):
        return array
    if array.dtype == object:
        try:
            array = array.astype(np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: an array of {array.dtype} holds no numbers ({error})") from error
    if array.dtype.kind in "US":
        return array.astype(object)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where}: {array.dtype} is not understood; give numbers or texts")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _require_rows(name: str, parts: Parts) -> None:
    lengths = {len(array) if array.ndim else 0 for array in leaves(parts)}
    if len(lengths) > 1 or 0 in lengths:
        shapes = ", ".join(str(array.shape) for array in leaves(parts))
        raise DataError(f"{name}: inputs, targets and weights must have one row an example each; there are {shapes}")


def _joined(name: str, batches: Sequence[Parts]) -> Parts:
    columns = zip(*(leaves(parts) for parts in batches), strict=True)
    try:
        joined = iter([np.concatenate(column) for column in columns])
    except ValueError as error:
        raise DataError(f"{name}: batches have examples of several shapes ({error}); pad them to one") from error
    whole: Parts = mapped(lambda _: next(joined), batches[0])
    return whole


def _hashes(parts: Parts) -> Iterator[int]:
    for row in zip(*leaves(parts), strict=True):
        yield hash(b"".join(_bytes_of(np.asarray(value)) for value in row))


def _bytes_of(array: Array) -> bytes:
    return repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes()


# Nested arrays --------------------------------------------------------------------------------------


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Each array in nested tuples, lists and mappings changed; None stays."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {key: mapped(change, part) for key, part in value.items()}
    if isinstance(value, tuple | list) and not _is_numbers(value):
        return tuple(mapped(change, part) for part in value)
    return change(value)


def leaves(value: Any) -> list[Array]:
    """The arrays in nested tuples, lists and mappings."""
    found: list[Array] = []
    mapped(lambda array: found.append(array), value)
    return found


def _is_numbers(value: Sequence[Any]) -> bool:
    """Whether a list is one of numbers or texts, which is an array to Keras too."""
    return not value or isinstance(value[0], int | float | str | bytes)
