"""Objects in Python -> files that a run can keep: tables as parquet, arrays of images as .npz, data sets as they save.

A file is called after the keyword that it came by and a hash of what it holds, so the same objects make the same plan.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from multistep.data.media import Kind, is_array
from multistep.data.memory_columns import columns_of, pair_of
from multistep.engine.kept import PREFIX
from multistep.errors import DataError

ROWS_AT_ONCE = 10_000  # that are hashed together


@dataclass(frozen=True)
class Kept:
    """One object, ready to be written under its name; `size` is how much it holds, in words."""

    name: str
    size: str
    write: Callable[[Path], None] = field(repr=False, compare=False)

    @property
    def source(self) -> str:
        """What a plan calls it."""
        return PREFIX + self.name

    def put(self, folder: Path) -> Path:
        """Write it into a folder, whole or not at all; what is there already has the same content."""
        target, beside = folder / self.name, folder / f".new-{self.name}"
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(beside, ignore_errors=True)
            beside.unlink(missing_ok=True)
            self.write(beside)
            beside.replace(target)
        return target


def keep(keyword: str, given: Any, kind: Kind) -> Kept:
    """What a run keeps of an object that was given by a keyword, for a task of this kind.

    A pandas or polars DataFrame, a pyarrow Table or anything else that exports Arrow; a list of dicts, of texts, or of
    (input, label) pairs; a mapping of columns; a pair of (inputs, labels), of which images may be one array (N, height,
    width[, channels]); a Hugging Face `Dataset` or `DatasetDict`. Raises DataError that names column and row.
    """
    library = sys.modules.get("datasets")
    if library and isinstance(given, library.Dataset | library.DatasetDict):
        return _of_data_set(keyword, given)
    if library and isinstance(given, library.IterableDataset | library.IterableDatasetDict):
        raise DataError(
            f"{keyword}: a {type(given).__name__} is read once and has no length; make a Dataset of it with "
            "datasets.Dataset.from_list(list(...)), or give the id of the data set"
        )
    if kind == "image" and (pair := pair_of(given)) and is_array(pair[0]) and _is_numeric(pair[0]):
        return _of_arrays(keyword, *pair)
    if kind == "image" and is_array(given) and not hasattr(given, "columns"):
        raise DataError(f"{keyword}: an array alone says nothing of its images; give (images, labels)")
    table, media = columns_of(keyword, given, kind)
    if not table.num_rows:
        raise DataError(f"{keyword}: there are no rows in it")
    size = f"{table.num_rows:,} rows"
    name = f"{keyword}-{_digest([table])}"
    if media:
        return Kept(name, size, lambda path: _save_with_media(table, media, path))
    return Kept(f"{name}.parquet", size, lambda path: _write_parquet(table, path))


def _is_numeric(array: Any) -> bool:
    return np.asarray(array[:1]).dtype.kind in "iufb"


# Tables ---------------------------------------------------------------------------------------------


def _write_parquet(table: Any, path: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(table, path)


def _save_with_media(table: Any, media: Mapping[str, Kind], path: Path) -> None:
    """As a data set, whose readers know which columns are images or sounds."""
    import datasets

    found = datasets.Dataset(table)
    with _without_bars():
        for name, kind in media.items():
            found = found.cast_column(name, datasets.Image() if kind == "image" else datasets.Audio())
        found.save_to_disk(str(path))


def _of_data_set(keyword: str, given: Any) -> Kept:
    parts = dict(given) if isinstance(given, Mapping) else {"": given}
    if not sum(map(len, parts.values())):
        raise DataError(f"{keyword}: there are no rows in it")
    hashed = hashlib.blake2b(digest_size=6)
    for name, part in parts.items():
        pieces = part.with_format("arrow").iter(batch_size=ROWS_AT_ONCE)
        hashed.update(f"{name} {part.features} {_digest(pieces)}".encode())
    sizes = ", ".join(f"{name} {len(part):,} rows" if name else f"{len(part):,} rows" for name, part in parts.items())

    def write(path: Path) -> None:
        with _without_bars():
            given.save_to_disk(str(path))

    return Kept(f"{keyword}-{hashed.hexdigest()}", sizes, write)


@contextmanager
def _without_bars() -> Iterator[None]:
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _digest(tables: Any) -> str:
    """Twelve hexadecimal digits of the rows' bytes, their columns and types, whatever chunks they lie in."""
    import pyarrow

    sink = _Hashing()
    for table in tables:
        plain = table.replace_schema_metadata(None)  # pandas writes its version there
        with pyarrow.ipc.new_stream(pyarrow.PythonFile(sink, mode="w"), plain.schema) as stream:
            for start in range(0, plain.num_rows, ROWS_AT_ONCE):
                stream.write_table(plain.slice(start, ROWS_AT_ONCE).combine_chunks())
    return sink.hashed.hexdigest()


class _Hashing(io.RawIOBase):
    """A file that is hashed instead of being written."""

    def __init__(self) -> None:
        super().__init__()
        self.hashed = hashlib.blake2b(digest_size=6)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hashed.update(data)
        return len(data)


# Arrays ---------------------------------------------------------------------------------------------


def _of_arrays(keyword: str, images: Any, labels: Any) -> Kept:
    """Images (N, height, width) or with channels first or last, and a number or name for each."""
    pixels = _array(keyword, images)
    several = _several_names(labels)
    names = _array(keyword, labels) if several is None else several[0]
    if names.dtype == object and all(isinstance(name, str) for name in names.reshape(-1)):
        names = names.astype(str)
    kinds = {type(name).__name__ for name in labels} if isinstance(labels, list | tuple) else set()
    if names.dtype == object or len(kinds) > 1:
        told = " and ".join(sorted(kinds)) or f"{type(names.reshape(-1)[0]).__name__} objects"
        raise DataError(f"{keyword}: labels must be numbers or names, all of one type; these are {told}")
    if pixels.ndim not in (3, 4):
        raise DataError(
            f"{keyword}: images have the shape {pixels.shape}; allowed: (N, height, width), with 1 or 3 channels last "
            "or first"
        )
    if len(pixels) != len(names):
        raise DataError(f"{keyword}: {len(pixels):,} images but {len(names):,} labels; give one label an image")
    if not len(pixels):
        raise DataError(f"{keyword}: there are no images in it")
    hashed = hashlib.blake2b(digest_size=6)
    for array in (pixels, names, *([] if several is None else [np.array(several[1])])):
        hashed.update(f"{array.dtype} {array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)

    def write(path: Path) -> None:
        with path.open("wb") as file:
            arrays: dict[str, Any] = {"images": pixels, "labels": names}
            np.savez(file, **arrays if several is None else {**arrays, "label_names": np.array(several[1])})

    return Kept(f"{keyword}-{hashed.hexdigest()}.npz", f"{len(pixels):,} images", write)


def _several_names(labels: Any) -> tuple[np.ndarray[Any, Any], list[str]] | None:
    """Lists of names as zeros and ones (rows, names), and these names; None where labels are no such lists."""
    lists = (list, tuple, set, frozenset)
    if not isinstance(labels, list | tuple) or not all(isinstance(row, lists) for row in labels):
        return None
    names = sorted({name for row in labels for name in row if isinstance(name, str)})
    if not names or not all(isinstance(name, str) for row in labels for name in row):
        return None
    return np.array([[name in row for name in names] for row in labels], np.uint8), names


def _array(keyword: str, given: Any) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, rows of several lengths
        raise DataError(f"{keyword}: cannot be made an array ({str(error).splitlines()[0]})") from None
