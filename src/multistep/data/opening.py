"""Where the data of a source begin: inside an archive, or in the one folder that holds them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from multistep.data.archives import is_archive, stem_of_archive, unpacked
from multistep.data.class_names import is_class_list
from multistep.data.classes import is_no_class
from multistep.data.form import Form
from multistep.data.lists import is_kaldi
from multistep.data.sets import is_hub_folder, is_saved_set
from multistep.data.walk import few, files_below, is_about, visible

# What folders are called that hold data of all classes.
_ALL = frozenset({"images", "image", "imgs", "img", "photos", "pictures", "jpg", "jpegs", "jpegimages", "data"})
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
            if not is_archive(inner):
                others = [each.name for each in visible(path) if each != inner]
                aside = f"; left out: {few(others)}" if others else ""
                notes.append(f"{path}: its data are all in the folder '{inner.name}', which is read{aside}")
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
    if not folder.is_dir() or is_saved_set(folder) or is_hub_folder(folder) or form.by_class(folder):
        return None
    entries = visible(folder)
    files = [path for path in entries if path.is_file() and not is_about(path)]
    if form.splits_among(path.name if path.is_dir() else stem_of_archive(path) for path in entries):
        return None
    lists = [path for path in files if (form.lists(path) and not is_class_list(path)) or form.names_items(path)]
    if any(not _may_name_classes(path, form) for path in lists):
        return None
    holding = [path for path in entries if path.is_dir() and not is_no_class(path) and _holds_data(path, form)]
    # Of recordings, what is said may lie beside the folder whose sounds are split, unless that is Kaldi's.
    split = [path for path in holding if (_holds_kaldi(path) if form.loose else _has_splits(path, form))]
    if len(split) == 1:  # whatever lies beside: a picture for the title, masks, notebooks, names of the classes
        return split[0]
    if lists:
        return None
    if len(holding) > 1 or any(form.takes(path) and not is_class_list(path) for path in files):
        return None
    if not holding:
        packed = [path for path in files if is_archive(path)]
        return packed[0] if len(packed) == 1 else None
    (only,) = holding
    if only.name.lower() in (folder.name.lower(), *_ALL):  # the first as archives are unpacked
        return only
    if form.tree:  # which is read at any depth anyway
        return None
    if form.by_class(only):
        return only
    return only if any(path.is_dir() or form.lists(path) or is_archive(path) for path in visible(only)) else None


def _has_splits(folder: Path, form: Form) -> bool:
    """Whether the folder holds one called train, or a table or an archive of that name, beside one of another split."""
    with os.scandir(folder) as entries:  # of which there may be a million
        folders, files = list[str](), list[str]()
        for entry in entries:
            (folders if entry.is_dir() else files).append(entry.name)
    listing = [Path(name) for name in files if not name.lower().endswith(form.items)]
    # Of images, train.json beside test.json says something about those that lie elsewhere.
    listing = [path for path in listing if not _may_name_classes(path, form)]
    names = folders + [stem_of_archive(path.with_suffix("")) for path in listing]
    return {"train", "validation"} <= (found := {*form.splits_among(names).values()}) or {"train", "test"} <= found


def _may_name_classes(path: Path, form: Form) -> bool:
    """Whether a file is of a kind that, beside folders of images, is more often names of classes than a table."""
    if not form.describes or form.loose:
        return False
    return is_class_list(path) or (path.suffix.lower() == ".json" and not _begins_with_a_file(path, form))


def _begins_with_a_file(path: Path, form: Form) -> bool:
    """Whether the first key of a .json is a file, so that it says what each file is: {"0.png": "cat", ...}."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        key = re.match(rb'\s*\{\s*"([^"]+)"\s*:', file.read(400))
    return key is not None and key[1].decode("utf-8", "replace").lower().endswith(form.items)


def _holds_kaldi(folder: Path) -> bool:
    return any(is_kaldi(path) for path in visible(folder) if path.is_dir())


def _holds_data(folder: Path, form: Form) -> bool:
    return form.by_class(folder) or any(
        not hidden and (is_archive(path) or (form.takes(path) and not _may_name_classes(path, form)))
        for path, hidden in files_below(folder)
    )
