"""Where the data of a source begin: inside an archive, or in the one folder that holds them."""

from __future__ import annotations

from pathlib import Path

from multistep.data.archives import is_archive, stem_of_archive, unpacked
from multistep.data.form import Form
from multistep.data.sets import is_hub_folder, is_saved_set
from multistep.data.walk import files_below, visible

DEEPEST = 8  # folders that hold nothing but a folder


def opened(source: str, form: Form) -> tuple[str, list[str]]:
    """The source itself, or what it is packed or wrapped in taken off, with what is to be said of that.

    An archive is unpacked. A folder in which one folder alone holds data is left for that one, unless it is named for
    a split, or holds nothing but loose files: then it is a class. Raises DataError for what cannot be unpacked.
    """
    path, notes = Path(source).expanduser(), list[str]()
    if source in form.made:
        return source, []
    for _ in range(DEEPEST):
        if path.is_file() and is_archive(path):
            packed, path = path, unpacked(path)
            notes.append(_unpacked_note(packed, path))
            inside = visible(path)
            path = inside[0] if len(inside) == 1 and inside[0].is_file() else path
        elif (inner := _only_one(path, form)) is not None:
            notes += (
                [] if is_archive(inner) else [f"{path}: its data are all in the folder '{inner.name}', which is read"]
            )
            path = inner
        else:
            break
    return (str(path) if notes else source), notes


def _unpacked_note(packed: Path, folder: Path) -> str:
    sizes = [file.stat().st_size for file, _ in files_below(folder)]
    return f"{packed}: unpacked {len(sizes):,} files of {_size(sum(sizes))} in {folder}"


def _size(count: int) -> str:
    return (
        f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} bytes"
    )


def _only_one(folder: Path, form: Form) -> Path | None:
    """The one folder or archive of a folder that holds its data; None where that is for the folder itself to say."""
    if not folder.is_dir() or is_saved_set(folder) or is_hub_folder(folder):
        return None
    entries = visible(folder)
    inner = [path for path in entries if path.is_dir()]
    if any(path.is_file() and form.takes(path) for path in entries):
        return None
    if form.splits_among(path.name if path.is_dir() else stem_of_archive(path) for path in entries):
        return None
    holding = [path for path in inner if _holds_data(path, form)]
    if not holding:
        packed = [path for path in entries if path.is_file() and is_archive(path)]
        return packed[0] if len(packed) == 1 else None
    if len(holding) > 1:
        return None
    (only,) = holding
    below = visible(only)
    if form.tree:  # which is read at any depth anyway, but not by its splits
        splits = form.splits_among(path.name if path.is_dir() else path.stem for path in below)
        return only if "train" in splits.values() else None
    if only.name.lower() == folder.name.lower():  # as archives are unpacked into a folder of their own name
        return only
    return only if any(path.is_dir() or form.lists(path) or is_archive(path) for path in below) else None


def _holds_data(folder: Path, form: Form) -> bool:
    return any(not hidden and (form.takes(path) or is_archive(path)) for path, hidden in files_below(folder))
