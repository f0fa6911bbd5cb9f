"""Arrays of pixels with labels: .npz, the IDX files of the MNIST family, scikit-learn's handwritten digits."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from multistep.data.form import Parts
from multistep.data.names import NAMES
from multistep.data.separated import unnamed
from multistep.data.table import Table, of_columns
from multistep.errors import DataError

DIGITS = "handwritten-digits"
IMAGES = ("x", "images", "image", "data", "pixels", "inputs")
LABELS = ("y", "labels", "label", "targets", "target")
CLASS_NAMES = ("label_names", "class_names")
_IDX = re.compile(r"(?P<split>.*?)[-_.]?(?P<what>images|labels)[-_.]idx[13]-ubyte(\.gz)?$", re.IGNORECASE)
_IDX_SPLITS = {**NAMES, "t10k": "test"}
_PIXEL = re.compile(r"(?:pixel|pix|px|p|x|v|f)?[ ._-]?\d+(?:x\d+)?", re.IGNORECASE)
LEAST_PIXELS, MOST_OTHERS = 64, 2  # columns of a table of pixels, and of what stands beside them
_LONGEST_HEADER = 2**22  # bytes: of 512 x 512 pixels
Pixels: TypeAlias = NDArray[np.uint8]


def digits() -> Parts:
    """The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except Exception as error:
        raise DataError(f"{DIGITS} come with scikit-learn ({error}); pip install 'multistep[images]'") from error
    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)
    return {"": _table(DIGITS, pixels, [str(label) for label in found.target])}


def npz_parts(path: Path) -> Parts:
    """Images and labels of each split in a .npz; "" where the names of its arrays name none.

    Raises DataError for arrays that are missing, of other shapes or lengths, or that only pickle could read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a .npz that numpy can read ({error})") from None
    pairs: dict[str, dict[str, str]] = {}
    for name in [name for name in arrays if name not in CLASS_NAMES]:
        words = re.split(r"[_\W]+", name.lower())
        split = next((NAMES[word] for word in words if word in NAMES), "")
        role = "images" if set(words) & set(IMAGES) else "labels" if set(words) & set(LABELS) else None
        if role and len(words) <= 2:
            if role in pairs.setdefault(split, {}):
                raise DataError(f"{path}: both '{pairs[split][role]}' and '{name}' look like {role}; keep one")
            pairs[split][role] = name
    whole = {split: pair for split, pair in pairs.items() if len(pair) == 2}
    if not whole:
        held = ", ".join(f"'{name}'" for name in arrays) or "nothing"
        raise DataError(f"{path}: holds {held}; name arrays images and labels, or x_train, y_train, x_test, y_test")
    names = next((arrays[name] for name in CLASS_NAMES if name in arrays), None)
    found = {}
    for split, pair in whole.items():
        pixels = pixels_of(f"{path}[{pair['images']}]", arrays[pair["images"]])
        labels = _labels(f"{path}[{pair['labels']}]", arrays[pair["labels"]], names)
        if len(pixels) != len(labels):
            raise DataError(
                f"{path}: {len(pixels):,} images in '{pair['images']}' but {len(labels):,} labels in '{pair['labels']}'"
            )
        found[split] = (pixels, labels)
    left = [name for name in arrays if not any(name in pair.values() for pair in whole.values())]
    left = [name for name in left if name not in CLASS_NAMES]
    notes = [f"{path}: arrays left out: {', '.join(left)}"] if left else []
    return {
        split: _table(f"{path}[{split}]" if split else str(path), *held, *notes, names=names)
        for split, held in found.items()
    }


def pixel_table(path: Path) -> Table | None:
    """The columns `image` and `label` of a .csv with a column for each pixel, as of MNIST; None for any other.

    The pixels are k x k, or k x k x 3 with the channels of a pixel side by side. A file without a header has the label
    first; one without a column beside the pixels has no `label`. Raises DataError for what are no pixels.
    """
    import pyarrow
    from pyarrow import csv

    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        first = [
            name.strip().strip('"') for name in file.readline(_LONGEST_HEADER).decode("utf-8-sig", "replace").split(",")
        ]
    headless = all(name.isdigit() for name in first) and first != [str(i) for i in range(len(first))]
    pixels = pixel_columns(unnamed(len(first)) if headless else first)
    if not pixels:
        return None
    others = [i for i in range(len(first)) if i not in set(pixels)]
    label = next((i for i in others if first[i].lower() in LABELS), others[0] if others else None)
    try:
        read = csv.ReadOptions(autogenerate_column_names=headless)
        held = csv.read_csv(path, read_options=read)
        values = np.stack([held.column(i).to_numpy() for i in pixels], 1)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: a table of pixels that cannot be read ({error})") from None
    images = pixels_of(f"{path}: its pixels", values.reshape(-1, *_shape(len(pixels))))
    said = f"{path}: each row is {_described(images.shape[1:])}"
    unit = 1 if headless else 2
    places = [f"{path}:{i + unit}" for i in range(len(images))]
    columns: dict[str, Sequence[object]] = {"image": list(images)}
    if label is not None:
        columns["label"] = held.column(label).to_pylist()
        said += f", its label in {f'column {label + 1}' if headless else repr(first[label])}"
    return of_columns(str(path), columns, places, notes=(said,))


def pixel_columns(names: Sequence[str]) -> Sequence[int]:
    """Which columns are an image's pixels; none where they make none.

    Of columns without names they are all but the first, or all.
    """
    every = range(len(names))
    named = [i for i in every if _PIXEL.fullmatch(names[i])]
    for pixels in (every[1:], every) if list(names) == unnamed(len(names)) else (named,):
        if LEAST_PIXELS <= len(pixels) >= len(names) - MOST_OTHERS and _shape(len(pixels)):
            return pixels
    return ()


def image_in_row(where: str, cells: Sequence[object]) -> Pixels:
    """The image whose pixels are these cells, numbers or texts. Raises DataError for what are no pixels."""
    try:
        values: NDArray[Any] = np.array([float(str(cell)) for cell in cells])
    except ValueError:
        raise DataError(f"{where}: a pixel is missing, or no number") from None
    if all(str(cell).strip().isdigit() for cell in cells):
        values = values.astype(np.int64)  # what has fractions may be 0.0 to 1.0
    found: Pixels = pixels_of(where, values.reshape(1, *_shape(len(cells))))[0]
    return found


def _shape(pixels: int) -> tuple[int, ...]:
    """Height and width of a square of so many values, and 3 if it is one in colour; empty where they make none."""
    sides = {channels: math.isqrt(pixels // channels) for channels in (1, 3)}
    found = next((channels for channels, side in sides.items() if side**2 * channels == pixels), None)
    return () if found is None else (sides[found],) * 2 + ((3,) if found == 3 else ())


def _described(shape: tuple[int, ...]) -> str:
    return f"an image of {shape[0]} x {shape[1]} pixels{'' if len(shape) == 2 else ' in colour'}"


def _table(
    where: str, pixels: Pixels, labels: Sequence[object], *notes: str, names: NDArray[Any] | None = None
) -> Table:
    """`names` are those of several labels at once, by their places in a list."""
    places = [f"{where} #{i}" for i in range(len(labels))]
    several = bool(len(labels)) and isinstance(labels[0], list)
    named = {} if names is None or not several else {"label": tuple(map(str, names))}
    return of_columns(where, {"image": list(pixels), "label": labels}, places, notes=notes, class_names=named)


def pixels_of(where: str, array: NDArray[Any]) -> Pixels:
    """(N, H, W) or (N, H, W, C) bytes. Channels may come first; floats may be 0 to 1."""
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3)) or not array.size:
        raise DataError(
            f"{where}: shape {array.shape}; allowed: (N, height, width), with 1 or 3 channels last or first"
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "iufb":
        raise DataError(f"{where}: {array.dtype}; pixels must be numbers, 0 to 255 or 0.0 to 1.0")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 255):  # NaN fails too
        raise DataError(f"{where}: values from {low:g} to {high:g}; pixels must be 0 to 255, or 0.0 to 1.0")
    scale = 255.0 if high <= 1 and array.dtype.kind in "fb" else 1.0
    return np.round(array * scale).astype(np.uint8)


def _labels(where: str, array: NDArray[Any], names: NDArray[Any] | None) -> Sequence[object]:
    """Names or whole numbers of classes as texts, numbers with a fraction, or lists of zeros and ones."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.shape[1] > 1 and bool((array.sum(1) == 1).all()) and bool((array.max(1) == 1).all()):
        array = array.argmax(1)  # one-hot
    if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "iufb" and bool(np.isin(array, (0, 1)).all()):
        return [*array.astype(np.int64).tolist()]  # several at once
    if array.ndim != 1 or array.dtype.kind not in "iufUSb":
        raise DataError(
            f"{where}: shape {array.shape} of {array.dtype}; labels must be a number or name each, or zeros and ones"
        )
    if array.dtype.kind == "f":
        if not bool(np.isfinite(array).all()):
            first = int(np.flatnonzero(~np.isfinite(array))[0])
            raise DataError(f"{where}: label #{first} (from 0) is {array[first]}; leave its image out, or mend it")
        if not bool((array == np.round(array)).all()):
            return [*array.tolist()]
        array = array.astype(np.int64)
    if names is not None and array.dtype.kind in "iu":
        if array.min() < 0 or array.max() >= len(names):
            raise DataError(f"{where}: labels from {array.min()} to {array.max()}, but {len(names)} label names")
        return [str(names[label]) for label in array]
    return [label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label) for label in array.tolist()]


def idx_parts(folder: Path) -> Parts:
    """Splits of a folder with IDX files, by their usual names; empty if there are none.

    The format: yann.lecun.com/exdb/mnist. Raises DataError for a file that is cut off, or without its partner.
    """
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and (match := _IDX.match(path.name)):
            words = re.split(r"[-_.]", match["split"].lower())
            split = next((_IDX_SPLITS[word] for word in words if word in _IDX_SPLITS), "")
            known = files.setdefault(split, {}).setdefault(match["what"].lower(), path)
            if known != path and known.name.removesuffix(".gz") != path.name.removesuffix(".gz"):
                raise DataError(f"{folder}: {known.name} and {path.name} look like the same split; keep one set")
    found = {}
    for split, pair in files.items():
        for what, other in (("images", "labels"), ("labels", "images")):
            if what not in pair:
                raise DataError(f"{pair[other]}: the IDX file with its {what} is missing beside it")
        pixels, labels = _read_idx(pair["images"], 3), _read_idx(pair["labels"], 1)
        if len(pixels) != len(labels):
            name = pair["labels"].name
            raise DataError(f"{pair['images']}: {len(pixels):,} images, but {len(labels):,} labels in {name}")
        found[split] = _table(str(pair["images"]), pixels, [str(label) for label in labels.tolist()])
    return found


def _read_idx(path: Path, dimensions: int) -> Pixels:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{path}: not an IDX file of bytes in {dimensions} dimensions (it begins with {data[:4]!r})")
    shape: Sequence[int] = struct.unpack(f">{dimensions}I", data[4:header])
    expected = int(np.prod(shape, dtype=np.int64))
    if len(data) - header != expected:
        held = len(data) - header
        raise DataError(f"{path}: {held:,} bytes of data, but its header says {expected:,}; it is cut off")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
