"""What a source holds that is not read here, and what to do with it: the end of a message that nothing was found."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from multistep.data.walk import files_below

_ARRAYS = "give its arrays to multistep.train in Python, or write them by numpy.savez(FILE, images=..., labels=...)"
_PICKLE = f"a pickle, which can run any code when it is opened, so none is: open it in Python yourself and {_ARRAYS}"
_KINDS = {
    ".mat": f"of MATLAB, read by scipy.io.loadmat: {_ARRAYS}",
    ".npy": f"an array without a name: {_ARRAYS}",
    ".npz": f"arrays under other names than images and labels: {_ARRAYS}",
    ".h5": f"HDF5, read by h5py: {_ARRAYS}",
    ".hdf5": f"HDF5, read by h5py: {_ARRAYS}",
    ".tfrec": f"of TensorFlow: {_ARRAYS}",
    ".tfrecord": f"of TensorFlow: {_ARRAYS}",
    ".bin": f"bytes whose form it does not tell: {_ARRAYS}",
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".pt": _PICKLE,
    ".pth": _PICKLE,
}
_BEGINNINGS = {
    b"\x80\x02}": _PICKLE,
    b"\x80\x03}": _PICKLE,
    b"\x80\x04\x95": _PICKLE,
    b"\x80\x05\x95": _PICKLE,
    b"\xff\xd8\xff": "a JPEG by its content: give it the suffix .jpg",
    b"\x89PNG": "a PNG by its content: give it the suffix .png",
    b"RIFF": "a WAV file by its content: give it the suffix .wav",
    b"version https://git-lfs": "a pointer of Git LFS: `git lfs pull` fetches the file",
}
_SHOWN = 4  # suffixes
_MOST = 10_000  # files that are looked at


def strangers(source: Path) -> str:
    """Empty, or `; it holds 4 .mat (the first: train.mat, of MATLAB, ...)` for the commonest kind that is known."""
    if source.is_file():
        said = _told(source)
        return f"; it is {said}" if said else ""
    found: dict[str, list[Path]] = {}
    for path in islice((path for path, hidden in files_below(source) if not hidden), _MOST):
        if said := _told(path):
            found.setdefault(said, []).append(path)
    if lost := _links_to_nothing(source):
        found.setdefault("a link to a file that is not there", []).extend(lost)
    if not found:
        return ""
    said, paths = max(found.items(), key=lambda item: len(item[1]))
    first = paths[0].relative_to(source)
    return f"; it holds {first}, {said}" + (f" ({len(paths):,} such files)" if len(paths) > 1 else "")


def by_suffix(names: Iterable[str]) -> str:
    """How many files there are of each suffix, the commonest first."""
    counts = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
    rest = f" and {len(counts) - _SHOWN} more kinds" if len(counts) > _SHOWN else ""
    return ", ".join(f"{suffix} {count:,}" for suffix, count in counts.most_common(_SHOWN)) + rest


def _told(path: Path) -> str:
    if said := _KINDS.get(path.suffix.lower()):
        return said
    if path.suffix:
        return ""
    try:
        with path.open("rb") as file:
            begun = file.read(32)
    except OSError:
        return ""
    return next((said for beginning, said in _BEGINNINGS.items() if begun.startswith(beginning)), "")


def _links_to_nothing(folder: Path) -> list[Path]:
    links = (Path(where) / name for where, _, names in os.walk(folder) for name in names)
    return [path for path in islice(links, _MOST) if path.is_symlink() and not path.exists()]
