"""Hugging Face image sets: a folder of `save_to_disk`, or a hub id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multistep.errors import DataError, nearest
from multistep.tasks.images.items import Item


def read_hub(
    source: str, saved: bool, path_column: str | None, label_column: str | None
) -> tuple[dict[str, Sequence[Item]], list[str]]:
    """Items by the set's own splits, and what was guessed. Raises DataError for what the library cannot read."""
    import datasets

    try:
        if saved:
            found = datasets.load_from_disk(str(Path(source).expanduser()))
        else:
            name, _, configuration = source.partition(":")
            found = datasets.load_dataset(name, configuration or None)
    except Exception as error:  # the library raises its own kinds, OSError, ValueError and those of httpx
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if saved:
            raise DataError(f"{source}: not a data set that `datasets` can read ({reason})") from None
        raise DataError(
            f"{source}: no such file or folder, and the Hugging Face hub gave no such data set ({reason}); check the "
            "name and the network, or name local data"
        ) from None
    parts = dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
    items: dict[str, Sequence[Item]] = {}
    notes: list[str] = []
    for split, part in parts.items():
        where = f"{source}[{split}]" if len(parts) > 1 else source
        items[str(split)], said = _items(where, part, path_column, label_column)
        notes += said
    return items, list(dict.fromkeys(notes))


def _items(where: str, part: Any, path_column: str | None, label_column: str | None) -> tuple[list[Item], list[str]]:
    import datasets

    kinds = part.features
    images = [name for name, kind in kinds.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)]
    labels = labels or [name for name in kinds if name.lower() in ("label", "labels", "class", "target")]
    image = _column(where, path_column, images, kinds, "path_column", "the images")
    label = _column(where, label_column, labels, kinds, "label_column", "the labels")
    part = part.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
    names = getattr(kinds[label], "names", None)
    items = []
    for number, row in enumerate(part, start=1):
        content = row[image] or {}
        if row[label] is None or (names and row[label] < 0):
            raise DataError(f"{where}: row {number} has no label; mend or remove the row")
        held = content.get("bytes")
        file = held if held is not None else Path(content.get("path") or "")
        name = names[row[label]] if names else str(row[label])
        items.append(Item(f"{where}: row {number}", name, file))
    return items, [f"{where}: images from '{image}', labels from '{label}'"]


def _column(where: str, wanted: str | None, found: Sequence[str], kinds: Any, setting: str, what: str) -> str:
    names = ", ".join(f"'{name}'" for name in kinds)
    if wanted is not None:
        if wanted not in kinds:
            raise DataError(f"{where}: no column '{wanted}'; columns: {names}.{nearest(wanted, kinds)}")
        return wanted
    if len(found) != 1:
        raise DataError(f"{where}: which column holds {what}? columns: {names}; name it with data.{setting}")
    return found[0]
