"""Arrow and Feather files -> tables, and what the library `datasets` writes into a schema about its columns."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multistep.data.table import Table
from multistep.errors import DataError

_ROWS = 500  # that are held at once where a column is read value by value
_KINDS = {"Image": "image", "Audio": "audio", "ClassLabel": "label"}


def read_arrow(path: Path) -> Table:
    """The table of a file of Arrow's, as a file, a stream or in the form of Feather. Raises DataError."""
    import pyarrow
    from pyarrow import feather, ipc

    try:
        with pyarrow.memory_map(str(path)) as source:
            begins = source.read(6)
            source.seek(0)
            if begins == b"ARROW1":
                held = ipc.open_file(source).read_all()
            elif begins.startswith(b"FEA1"):
                held = feather.read_table(path)
            else:
                held = ipc.open_stream(source).read_all()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not an Arrow file that can be read ({error})") from None
    values = functools.cache(lambda name: held[name].to_pylist())
    names, roles = said_of_columns(held.schema)

    def each(name: str) -> Iterator[object]:
        for chunk in held[name].chunks:  # which lie in the file
            for at in range(0, len(chunk), _ROWS):
                yield from chunk.slice(at, _ROWS).to_pylist()

    numbers = range(1, held.num_rows + 1)
    return Table(str(path), texts_of(held.schema), numbers, "row", values, names, roles=roles, each_of=each)


def texts_of(schema: Any) -> dict[str, bool]:
    """The columns of a schema, and whether each holds text."""
    from pyarrow import types

    return {field.name: types.is_string(field.type) or types.is_large_string(field.type) for field in schema}


def said_of_columns(schema: Any) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """The names of classes by column, and which column is the image, the sound or the label, as `datasets` notes it."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}, {}
    names: dict[str, tuple[str, ...]] = {}
    roles: dict[str, list[str]] = {}
    for column, kind in features.items():
        inner = kind.get("feature", kind) if isinstance(kind, Mapping) else {}  # of a list of labels
        if not isinstance(inner, Mapping) or inner.get("_type") not in _KINDS or column not in schema.names:
            continue
        roles.setdefault(_KINDS[inner["_type"]], []).append(column)
        if inner["_type"] == "ClassLabel" and inner.get("names"):
            names[column] = tuple(inner["names"])
    return names, {role: columns[0] for role, columns in roles.items() if len(columns) == 1}
