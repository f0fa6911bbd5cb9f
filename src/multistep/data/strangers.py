"""Kinds of files that are not read here: what they are, and what to do with them, which is the end of many messages."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from multistep.data.encodings import what_it_is
from multistep.data.table import Table
from multistep.data.walk import files_below, visible
from multistep.errors import DataError


@dataclass(frozen=True)
class _Kind:
    """What is said of a kind of file to whoever brings tables or texts, and to whoever brings images or sounds."""

    rows: str = ""
    media: str = ""


_ARRAYS = "give its arrays to multistep.train in Python, or write them by numpy.savez(FILE, images=..., labels=...)"
_PICKLE = _Kind(
    "a pickle, which could run anything when it is opened; save it anew by pandas: frame.to_parquet(...)",
    f"a pickle, which can run any code when it is opened, so none is: open it in Python yourself and {_ARRAYS}",
)
_HDF5 = _Kind("an HDF5 file; save its table as .parquet or .csv", f"HDF5, read by h5py: {_ARRAYS}")
_DATABASE = _Kind("a database; export the table as .csv")
_YAML = _Kind("YAML; make a table with a row a text of it")
_WEIGHTS = _Kind(media=_PICKLE.media)
_OF_TENSORFLOW = _Kind(media=f"of TensorFlow: {_ARRAYS}")
# What is told by its name.
_KINDS = {
    ".xls": _Kind("an old Excel file; save it as .xlsx or .csv"),
    ".ods": _Kind("an OpenDocument spreadsheet; save it as .xlsx or .csv"),
    ".numbers": _Kind("a spreadsheet of Numbers; export it as .csv"),
    ".docx": _Kind("a Word document; save its text as .txt"),
    ".doc": _Kind("a Word document; save its text as .txt"),
    ".odt": _Kind("an OpenDocument text; save it as .txt"),
    ".rtf": _Kind("a rich text; save it as .txt"),
    ".epub": _Kind("an e-book; convert it to .txt"),
    ".mobi": _Kind("an e-book; convert it to .txt"),
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".pt": _WEIGHTS,
    ".pth": _WEIGHTS,
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".mat": _Kind("a MATLAB file; save its table as .csv", f"of MATLAB, read by scipy.io.loadmat: {_ARRAYS}"),
    ".npy": _Kind(media=f"an array without a name: {_ARRAYS}"),
    ".npz": _Kind(media=f"arrays under other names than images and labels: {_ARRAYS}"),
    ".bin": _Kind(media=f"bytes whose form it does not tell: {_ARRAYS}"),
    ".tfrec": _OF_TENSORFLOW,
    ".tfrecord": _OF_TENSORFLOW,
    ".rds": _Kind("an R object; save its table as .csv"),
    ".rdata": _Kind("R objects; save the table as .csv"),
    ".sav": _Kind("an SPSS file; save its table as .csv"),
    ".dta": _Kind("a Stata file; save its table as .csv"),
    ".db": _DATABASE,
    ".sqlite": _DATABASE,
    ".xml": _Kind("XML; make a table with a row a text of it"),
    ".html": _Kind("a web page; make a table with a row a text of it"),
    ".yml": _YAML,
    ".yaml": _YAML,
    ".conllu": _Kind("sentences of tagged words (CoNLL-U); make a table with a row a sentence of it"),
}
# What images and sounds without a suffix are told by; tables and texts by what `encodings` knows.
_BEGINNINGS = {
    b"\x80\x02}": _PICKLE.media,
    b"\x80\x03}": _PICKLE.media,
    b"\x80\x04\x95": _PICKLE.media,
    b"\x80\x05\x95": _PICKLE.media,
    b"\xff\xd8\xff": "a JPEG by its content: give it the suffix .jpg",
    b"\x89PNG": "a PNG by its content: give it the suffix .png",
    b"RIFF": "a WAV file by its content: give it the suffix .wav",
    b"version https://git-lfs": "a pointer of Git LFS: `git lfs pull` fetches the file",
}
_TAG = re.compile(r"O|[BIESLU]-\S+")
_LOOKED_AT = 200  # lines
_SHOWN = 4  # suffixes
_MOST = 10_000  # files that are looked at


# Tables and texts -----------------------------------------------------------------------------------


def what_else(path: Path) -> str | None:
    """What a file is that we do not read, and what to do with it; None where that is not known."""
    if (known := _KINDS.get(path.suffix.lower())) is not None and known.rows:
        return known.rows
    with path.open("rb") as file:
        return what_it_is(file.read(64))


def refuse_pages(path: Path, text: str) -> None:
    """Raises DataError for a web page under the name of a table, as a click on "save" leaves it."""
    if text[:200].lstrip().lower().startswith(("<!doctype html", "<html")):
        raise DataError(f'{path}: a web page (HTML), not a table; download the file itself (on GitHub: "Raw")')


def tagged_words(text: str) -> str | None:
    """That a text is one tagged word a line, as of CoNLL, if it is."""
    lines = [line.split() for line in text.split("\n")[:_LOOKED_AT]]
    words = [line for line in lines if line]
    if (
        len(words) < len(lines)
        and words
        and sum(len(w) > 1 and bool(_TAG.fullmatch(w[-1])) for w in words) > 0.8 * len(words)
    ):
        return (
            "a tagged word a line, as CoNLL files have it; labels here are of whole texts: make a table with a row a "
            "sentence and a column for its label"
        )
    return None


# Images and sounds ---------------------------------------------------------------------------------


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


_OF_A_BOX = 5  # figures in a line of YOLO: the class, the middle and the size
_BOXES = {"labels": (".txt",), "annotations": (".xml", ".json"), "label_txt": (".txt",)}  # of YOLO, VOC and COCO


def boxes_beside(table: Table) -> str:
    """Empty, or that boxes for a detector lie beside the images of a folder, or beside that."""
    folder = Path(table.origin)
    for place in [folder, *folder.parents][:3]:
        for each in visible(place) if place.is_dir() else ():
            endings = _BOXES.get(each.name.lower()) if each.is_dir() else None
            files = (path for path, _ in files_below(each, 1) if path.name.endswith(endings)) if endings else iter(())
            found = next(files, None)
            if found is not None and found.suffix == ".txt":
                with found.open("rb") as file:
                    found = found if len(file.readline().split()) >= _OF_A_BOX else None
            if found:
                return (
                    f"; {found} and its kin hold boxes, as for a detector: none is trained here, where images have "
                    "classes as a whole"
                )
    return ""


def by_suffix(names: Iterable[str]) -> str:
    """How many files there are of each suffix, the commonest first."""
    counts = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
    rest = f" and {len(counts) - _SHOWN} more kinds" if len(counts) > _SHOWN else ""
    return ", ".join(f"{suffix} {count:,}" for suffix, count in counts.most_common(_SHOWN)) + rest


def _told(path: Path) -> str:
    if (known := _KINDS.get(path.suffix.lower())) is not None and known.media:
        return known.media
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
