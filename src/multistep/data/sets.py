"""Hugging Face data sets -> tables: folders made by `save_to_disk`, and hub ids."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multistep.data.table import Table
from multistep.data.text import names_in
from multistep.engine.names import may_be_hub_id
from multistep.errors import DataError, nearest

_ROWS = 500  # that are held at once where a column is read value by value


def named_tables(source: str) -> dict[str, Table] | None:
    """The splits of a Hugging Face data set under its own names; None if `source` is no such data set.

    A folder made by `save_to_disk`, one that was cloned from the hub, or a hub id: "name", "owner/name"; a folder or
    an id may be followed by ":configuration". Images and sounds stay as they are stored, {"bytes": ..., "path": ...}.
    Raises DataError for what the library cannot read.
    """
    path = Path(source).expanduser()
    name, _, configuration = source.rpartition(":") if ":" in source else (source, "", "")
    cloned = is_hub_folder(folder := Path(name).expanduser()) and not (configuration and path.exists())
    saved = is_saved_set(path)
    if not saved and not cloned and (path.exists() or not may_be_hub_id(source)):
        return None
    import datasets

    try:
        if saved:
            found = datasets.load_from_disk(str(path))
        else:
            found = datasets.load_dataset(str(folder) if cloned else name, configuration or None)
    except Exception as error:  # the library raises its own kinds, OSError, ValueError and those of httpx
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "Config name is missing" in reason:
            which = " ".join(str(error).split("\n")[1:2])
            raise DataError(f"{source}: has several configurations; name one as {source}:NAME ({which})") from None
        if saved or cloned:
            raise DataError(f"{source}: not a data set that `datasets` can read ({reason})") from None
        hint = nearest(path.name, names_in(path.parent))
        raise DataError(
            f"{source}: no such file or folder, and the Hugging Face hub gave no such data set ({reason}); "
            f"check the name and the network, or name a local file.{hint}"
        ) from None
    return of_sets(source, found)


def of_sets(source: str, found: Any) -> dict[str, Table]:
    """The tables of a `Dataset` (as train) or a `DatasetDict`."""
    import datasets

    parts = dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
    return {str(name): _of_set(f"{source}[{name}]" if len(parts) > 1 else source, part) for name, part in parts.items()}


def is_saved_set(folder: Path) -> bool:
    """Whether `save_to_disk` of a Hugging Face data set made the folder."""
    one, *both = ((folder / mark).is_file() for mark in ("dataset_dict.json", "dataset_info.json", "state.json"))
    return one or all(both)


_SHARD = re.compile(r".+-\d{5}-of-\d{5}[\w.-]*\.(parquet|arrow|jsonl|json|csv|txt)(\.gz)?", re.IGNORECASE)
_CARD = re.compile(r"^(configs|dataset_info):", re.MULTILINE)


def is_hub_folder(folder: Path) -> bool:
    """Whether a folder is a data set of the hub as it is cloned: with shards, or a card that names the files."""
    if not folder.is_dir() or is_saved_set(folder):
        return False
    if any(_SHARD.fullmatch(name) for name in (*names_in(folder), *names_in(folder / "data"))):
        return True
    card = folder / "README.md"
    if not card.is_file():
        return False
    with card.open(encoding="utf-8", errors="replace") as file:
        if file.readline().strip() != "---":
            return False
        return _CARD.search("".join(itertools.takewhile(lambda line: line.strip() != "---", file))) is not None


def _of_set(origin: str, part: Any) -> Table:
    import datasets

    is_text: dict[str, bool] = {}
    names: dict[str, tuple[str, ...]] = {}
    roles: dict[str, list[str]] = {"image": [], "audio": [], "label": []}
    for column, kind in part.features.items():
        is_text[column] = getattr(kind, "dtype", None) in ("string", "large_string")
        inner = getattr(kind, "feature", kind)  # of a list of labels
        if isinstance(inner, datasets.ClassLabel):
            names[column] = tuple(inner.names)
            roles["label"].append(column)
        if isinstance(kind, datasets.Image | datasets.Audio):
            roles["image" if isinstance(kind, datasets.Image) else "audio"].append(column)
            part = part.cast_column(column, type(kind)(decode=False))
    only = {role: columns[0] for role, columns in roles.items() if len(columns) == 1}

    def each(name: str) -> Iterator[object]:
        column = part.select_columns(name)
        for at in range(0, len(part), _ROWS):
            yield from column[at : at + _ROWS][name]

    return Table(
        origin,
        is_text,
        range(1, len(part) + 1),
        "row",
        lambda name: list(part[name][:]),
        names,
        roles=only,
        each_of=each,
        kept_in=tuple(Path(file["filename"]) for file in part.cache_files),
    )
