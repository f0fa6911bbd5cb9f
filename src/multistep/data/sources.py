"""A source -> tables by the splits that it names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from multistep.core.values.plan import DataSpec
from multistep.data.dialect import Reading
from multistep.data.files import read_table
from multistep.data.form import Form, Parts
from multistep.data.long import long_table
from multistep.data.names import ALLOWED, NAMES
from multistep.data.opening import opened
from multistep.data.sets import named_tables
from multistep.data.strangers import strangers, what_else
from multistep.data.table import Table, joined, quoted
from multistep.data.text import existing_file, kind_of
from multistep.data.walk import SHOWN, few, visible
from multistep.engine.queried import about
from multistep.errors import DataError, nearest


def read_parts(source: str, data: DataSpec, form: Form) -> Parts:
    """One source by the splits that it names: those of a Hugging Face data set or of a column; else all under "".

    A file, a folder, an archive of such, a data set, or one of `form.made`. Raises DataError that names the place.
    """
    source, said = opened(source, form)
    said += (about(source) or {}).get("notes", [])
    return {split: table.saying(*said) for split, table in _read_parts(source, data, form).items()}


def _read_parts(source: str, data: DataSpec, form: Form) -> Parts:
    if source in form.made:
        return form.made[source]()
    named = named_tables(source)
    if named is not None:
        if len(named) > 1:
            return named
        ((name, table),) = named.items()
        return {split or name: part for split, part in by_column(table, data, form).items()}
    path = existing_file(Path(source).expanduser())
    if path.is_file():
        return read_file(path, data, form)
    return form.folder(path, data, form) if form.folder else rows_of_folder(path, data, form)


def read_file(path: Path, data: DataSpec, form: Form) -> Parts:
    """A file by the splits that it names."""
    if kind_of(path) in form.tables:
        read = long_table if form.long else read_table
        return form.own_table(path, data) or by_column(read(path, Reading.of(data)), data, form)
    parts = form.read_file(path, data)
    if parts is None:
        # What lies beside tables of images or sounds are arrays of these, not a table to be saved.
        what = "" if form.describes and strangers(path) else what_else(path)
        said = f"not a source of {form.what} but {what}" if what else f"not a source of {form.what}"
        raise DataError(f"{path}: {said}; allowed: {form.allowed}{'' if what else strangers(path)}")
    return parts


def rows_of_folder(folder: Path, data: DataSpec, form: Form) -> Parts:
    """All files of the first kind that a folder holds, by name, as one table."""
    files = [path for path in visible(folder) if path.is_file()]
    kinds = {kind_of(path) for path in files}
    kind = next((kind for kind in form.kinds if kind in kinds), None)
    if kind is None:
        raise DataError(
            f"{folder}: no file to read in this folder; allowed: {', '.join(form.kinds)} "
            "(folders inside it are not read)"
        )
    chosen = [path for path in files if kind_of(path) == kind]
    left_out = len(files) - len(chosen)
    said = [f"{folder}: files left out because they are not {kind}: {left_out}"] if left_out else []
    return rows_of_files(folder, chosen, data, form, *said)


def rows_of_files(folder: Path, files: Sequence[Path], data: DataSpec, form: Form, *said: str) -> Parts:
    """Files of one folder as one table. Raises DataError where one of several tables has no column of the others."""
    sources = {str(path): read_file(path, data, form) for path in files}
    _require_common_columns(sources)
    if len(files) > 1 and any(len(table.names) > 1 for parts in sources.values() for table in parts.values()):
        said = (*said, f"{folder}: {len(files):,} tables are read as one ({few(path.name for path in files)})")
    found = together(sources)
    return {split: replace(joined(str(folder), parts, *said), origin=str(folder)) for split, parts in found.items()}


def _require_common_columns(sources: Mapping[str, Parts]) -> None:
    tables = {name: table for name, parts in sources.items() for table in parts.values()}
    first = next(iter(tables.items()), None)
    for name, table in tables.items():
        if first is not None and not set(table.names) & set(first[1].names):
            raise DataError(
                f"{name}: its columns are {quoted(table.names)}, but those of {first[0]} are "
                f"{quoted(first[1].names)}; tables of one folder are read as one: give them the same columns, or name "
                "one of the files"
            )


def together(sources: Mapping[str, Parts]) -> dict[str, list[Table]]:
    """What several sources hold of each split, in order. Raises DataError where some name splits and some do not."""
    found: dict[str, list[Table]] = defaultdict(list)
    for parts in sources.values():
        for name, part in parts.items():
            found[name].append(part)
    if "" in found and len(found) > 1:
        lacking, having = (next(o for o in sources if ("" in sources[o]) == lacks) for lacks in (True, False))
        raise DataError(f"{lacking}: no column says which split a row is in, but {having} has one; mend one of them")
    return dict(found)


def by_column(table: Table, data: DataSpec, form: Form) -> Parts:
    """The rows of each split by the table's own column of splits; all under "" if it has no such column.

    A column that the user named for something else is none. One whose values are no names of splits at all is left
    where it is, with a note. Raises DataError for a row with none, or an unknown one, beside others.
    """
    taken = (data.text_column, data.second_text_column, data.label_column, data.path_column)
    usual = [name for wanted in form.split_columns for name in table.names if name.strip().lower() == wanted]
    column = next((name for name in usual if name not in taken), None)
    if column is None:
        return _by_flag(table, taken)
    values = ["" if value is None else str(value).strip() for value in table.column(column)]
    known = form.splits_among(dict.fromkeys(values))
    if not known:
        seen = quoted(list(dict.fromkeys(values))[:SHOWN])
        note = f"{table.origin}: column '{column}' names no splits ({seen}), so rows are not split by it"
        return {"": table.saying(note)}
    parts: dict[str, list[int]] = defaultdict(list)
    for row, value in enumerate(values):
        if value not in known:
            problem = f"unknown split '{value}'" if value else "no split, though other rows have one"
            raise DataError(f"{table.place(row)}: {problem} in '{column}'; allowed: {ALLOWED}.{nearest(value, NAMES)}")
        parts[known[value]].append(row)
    return _taken(table.without(column), column, parts)


_FLAGS = {"is_valid": "validation", "is_val": "validation", "is_validation": "validation", "is_test": "test"}
_YES_NO = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def _by_flag(table: Table, taken: Sequence[str | None]) -> Parts:
    """The rows by a column that says yes or no to one split, as fast.ai's `is_valid`; all under "" without one."""
    flag = next((name for name in table.names if name.strip().lower() in _FLAGS and name not in taken), None)
    if flag is None:
        return {"": table}
    said = [_YES_NO.get(str(value).strip().lower()) for value in table.column(flag)]
    if None in said or len(set(said)) < 2:
        return {"": table}
    split = _FLAGS[flag.strip().lower()]
    parts: dict[str, list[int]] = {"train": [], split: []}
    for row, yes in enumerate(said):
        parts[split if yes else "train"].append(row)
    return _taken(table.without(flag), flag, parts)


def _taken(table: Table, column: str, parts: Mapping[str, Sequence[int]]) -> Parts:
    sizes = ", ".join(f"{name} {len(rows):,}" for name, rows in parts.items())
    table = table.saying(f"{table.origin}: splits from column '{column}': {sizes} rows")
    return {split: table if len(parts) == 1 else table.take(rows) for split, rows in parts.items()}
