"""Tables from files and Hugging Face data sets: their columns, and where each row stands."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from multistep.errors import DataError, nearest

TABLES = (".jsonl", ".ndjson", ".parquet", ".csv", ".tsv")
_TEXT_KINDS = (".txt", ".md", ".json", ".gz")
# The library stops at 128 KiB, shorter than many documents. For all who read tables, whoever of them comes first.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Table:
    """Columns of equal length. `is_text` tells of each column whether it holds text (CSV: not numbers alone).

    `numbers` are the rows' line numbers or, where `unit` is "row", what they count from 1; `values` gives a column
    by its name; `class_names` names the numbers of a column of labels, where the data set knows them.
    """

    origin: str
    is_text: Mapping[str, bool]
    numbers: Sequence[int]
    unit: str
    values: Callable[[str], Sequence[object]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.is_text)

    def place(self, index: int) -> str:
        """Where row `index` (from 0) stands, for messages."""
        number = self.numbers[index]
        return f"{self.origin}:{number}" if self.unit == "line" else f"{self.origin}: row {number}"

    def column(self, name: str) -> Sequence[object]:
        """A column's values. Raises DataError for a name that there is not."""
        if name not in self.is_text:
            raise DataError(
                f"{self.origin}: no column '{name}'; columns: {quoted(self.names)}.{nearest(name, self.names)}"
            )
        return self.values(name)

    def take(self, rows: Sequence[int]) -> Table:
        """Some of the rows."""

        def values(name: str) -> list[object]:
            column = self.values(name)
            return [column[i] for i in rows]

        return replace(self, numbers=[self.numbers[i] for i in rows], values=values)

    def without(self, column: str) -> Table:
        """The table as if it did not have this column."""
        return replace(self, is_text={name: text for name, text in self.is_text.items() if name != column})

    def strings(self, name: str) -> list[str]:
        """A column of texts. Raises DataError that names the first row without one."""
        texts = []
        for index, value in enumerate(self.column(name)):
            if not isinstance(value, str):
                what = "missing or null" if value is None else type(value).__name__
                raise DataError(f"{self.place(index)}: '{name}' is {what}, not a text; mend or remove the {self.unit}")
            texts.append(value)
        return texts


def read_table(path: Path) -> Table:
    """The table of a .jsonl, .ndjson, .csv, .tsv, .parquet or .json file; all but .parquet may end in .gz.

    A .json file must hold a list of objects, each a row. The first line of .csv and .tsv names the columns.
    Raises DataError, with the place in the file.
    """
    kind = kind_of(path)
    if kind == ".parquet":
        return _read_parquet(existing_file(path))
    text = read_text(path)
    if kind in (".jsonl", ".ndjson"):
        return json_lines(path, text)
    if kind in (".csv", ".tsv"):
        return _read_separated(path, text, tabs=kind == ".tsv")
    if kind == ".json":
        return _read_json_list(path, text)
    raise DataError(f"{path}: not a table; allowed: {', '.join(TABLES)}")


def named_tables(source: str) -> dict[str, Table] | None:
    """The splits of a Hugging Face data set under its own names; None if `source` is no such data set.

    A folder made by `save_to_disk`, or a hub id: "name", "owner/name" or "owner/name:configuration".
    """
    path = Path(source).expanduser()
    saved = is_saved_set(path)
    if not saved and (path.exists() or not _may_be_hub_id(path, source)):
        return None
    import datasets

    try:
        if saved:
            found = datasets.load_from_disk(str(path))
        else:
            name, _, configuration = source.partition(":")
            found = datasets.load_dataset(name, configuration or None)
    except Exception as error:  # the library raises its own kinds, OSError, ValueError and those of httpx
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if saved:
            raise DataError(f"{source}: not a data set that `datasets` can read ({reason})") from None
        hint = nearest(path.name, names_in(path.parent))
        raise DataError(
            f"{source}: no such file or folder, and the Hugging Face hub gave no such data set ({reason}); "
            f"check the name and the network, or name a local file.{hint}"
        ) from None
    parts = dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
    return {
        str(name): _of_data_set(f"{source}[{name}]" if len(parts) > 1 else source, part) for name, part in parts.items()
    }


def is_saved_set(folder: Path) -> bool:
    """Whether `save_to_disk` of a Hugging Face data set made the folder."""
    one, *both = ((folder / mark).is_file() for mark in ("dataset_dict.json", "dataset_info.json", "state.json"))
    return one or all(both)


def _of_data_set(origin: str, part: Any) -> Table:
    is_text: dict[str, bool] = {}
    names: dict[str, tuple[str, ...]] = {}
    for column, kind in part.features.items():
        is_text[column] = getattr(kind, "dtype", None) in ("string", "large_string")
        inner = getattr(kind, "feature", kind)  # of a list of labels
        if type(inner).__name__ == "ClassLabel":
            names[column] = tuple(inner.names)
    return Table(origin, is_text, range(1, len(part) + 1), "row", lambda name: list(part[name][:]), names)


# Files ----------------------------------------------------------------------------------------------


def kind_of(path: Path) -> str:
    """The suffix that says how to read a file, without .gz, in lower case; "" if it has none."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def names_in(folder: Path) -> list[str]:
    """What a folder holds; empty if there is none."""
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def naming(setting: str) -> str:
    """How a user says which column is meant."""
    return f"--set data.{setting}=NAME (evaluate: --{setting.replace('_', '-')} NAME)"


def existing_file(path: Path) -> Path:
    """The path. Raises DataError with the nearest name if there is nothing."""
    if not path.exists():
        here = path.parent
        hint = nearest(path.name, names_in(here)) if here.is_dir() else f" There is no folder {here} either."
        raise DataError(f"{path}: no such file or folder; check the path.{hint}")
    return path


def read_text(path: Path) -> str:
    """A file's text: UTF-8 without its byte-order mark, CRLF as LF. Raises DataError, for an empty file too."""
    try:
        data = existing_file(path).read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    text = decoded(path, data)
    if not text.strip():
        raise DataError(f"{path}: the file is empty; name one with text in it")
    return text


def decoded(path: Path, data: bytes, at: int = 0) -> str:
    """The text of a part of a file that begins at byte `at`, as `read_text` gives it. Raises DataError."""
    begin = at
    if begin == 0 and data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: the file is UTF-16; save it as UTF-8, for instance with iconv")
    if (at := data.find(b"\0")) >= 0:
        allowed = "text, " + ", ".join(TABLES)
        raise DataError(f"{path}: byte {begin + at} is NUL, so this is not a text file; allowed: {allowed}")
    try:
        return data.decode("utf-8" if begin else "utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        # "utf-8-sig" counts from behind the mark.
        at = error.start + (3 if not begin and data.startswith(b"\xef\xbb\xbf") else 0)
        raise DataError(
            f"{path}: byte {begin + at} is not UTF-8 (0x{data[at]:02x}); save the file as UTF-8, for instance with "
            "`iconv -f ITS_ENCODING -t UTF-8`"
        ) from None


def json_lines(path: Path, text: str, before: int = 0) -> Table:
    """The table of lines that are an object each, with so many lines of the file before them. Raises DataError."""
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(text.split("\n"), start=before + 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{number}: not JSON ({error.msg}, column {error.colno}); each line must be one object"
            ) from None
        if not isinstance(row, dict):
            raise DataError(f'{path}:{number}: not an object; each line must be like {{"text": "..."}}')
        rows.append(row)
        numbers.append(number)
    return _of_objects(path, rows, numbers, "line")


def _read_json_list(path: Path, text: str) -> Table:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: not a table, since it is no list of objects; allowed: {', '.join(TABLES)}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f'{path}: row {number}: not an object; each must be like {{"text": "..."}}')
    return _of_objects(path, rows, range(1, len(rows) + 1), "row")


def _of_objects(path: Path, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int], unit: str) -> Table:
    columns = dict.fromkeys(key for row in rows for key in row)
    # A column that mixes text with something else still counts: the error then names the row.
    is_text = {key: any(isinstance(row.get(key), str) for row in rows) for key in columns}
    return Table(str(path), is_text, numbers, unit, lambda name: [row.get(name) for row in rows])


def separated(path: Path, names: str, text: str, before: int, *, tabs: bool) -> Table:
    """Some rows of a .csv or .tsv file below the line of its `names`, with so many lines before them in the file."""
    return _read_separated(path, names + text, tabs=tabs, skipped=before - names.count("\n"))


def _read_separated(path: Path, text: str, *, tabs: bool, skipped: int = 0) -> Table:
    """Tab-separated files are read without quoting, since there a quotation mark is a character more often than not.

    One that is not even then, and is with quoting, is read with it.
    """
    if not tabs:
        header, rows, numbers = _separated(path, text, ",", csv.QUOTE_MINIMAL, skipped)
    else:
        try:
            header, rows, numbers = _separated(path, text, "\t", csv.QUOTE_NONE, skipped)
        except DataError as problem:
            try:
                header, rows, numbers = _separated(path, text, "\t", csv.QUOTE_MINIMAL, skipped)
            except DataError:
                raise problem from None
            note = f"{path}: read with quoting, since without it the rows have different numbers of fields"
            return _of_rows(path, header, rows, numbers, (note,))
    return _of_rows(path, header, rows, numbers, ())


def _of_rows(path: Path, header: list[str], rows: list[list[str]], numbers: list[int], notes: tuple[str, ...]) -> Table:
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}:1: two columns are called '{twice}'; rename one")
    is_text = {name: not all(is_number(row[i]) for row in rows) for i, name in enumerate(header)}
    return Table(
        str(path), is_text, numbers, "line", lambda name: [row[header.index(name)] for row in rows], notes=notes
    )


def _separated(
    path: Path, text: str, delimiter: str, quoting: Any, skipped: int
) -> tuple[list[str], list[list[str]], list[int]]:
    """The names of the first line, the rows below it, and the line that each begins in; `skipped` lie between them."""
    # strict, else an open quotation mark swallows the rest of the file
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    rows: list[list[str]] = []
    numbers: list[int] = []
    header: list[str] | None = None
    began = 1
    try:
        for row in reader:
            line, began = began, reader.line_num + 1 + skipped
            if not row:
                continue
            if header is None:
                header = row
            elif len(row) != len(header):
                raise DataError(
                    f"{path}:{began - 1}: {len(row)} fields, but the first line names {len(header)}"
                    + ("" if delimiter == "\t" else '; put a text that holds commas between "quotation marks"')
                )
            else:
                rows.append(row)
                numbers.append(line)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num + skipped}: not {path.suffix[1:]} ({error})") from None
    return header or [], rows, numbers


def _read_parquet(path: Path) -> Table:
    import pyarrow
    from pyarrow import parquet

    def read(columns: list[str]) -> Any:
        try:
            return parquet.read_table(path, columns=columns)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path}: not a parquet file that can be read ({error})") from None

    try:
        schema = parquet.read_schema(path)
        rows = int(parquet.read_metadata(path).num_rows)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a parquet file that can be read ({error})") from None
    values = functools.cache(lambda name: read([name])[name].to_pylist())
    return Table(str(path), _texts_of(schema), range(1, rows + 1), "row", values)


def of_parquet(path: Path, part: Any, before: int) -> Table:
    """The table of a pyarrow.Table that holds some rows of a file, with so many before them."""
    values = functools.cache(lambda name: part[name].to_pylist())
    return Table(str(path), _texts_of(part.schema), range(before + 1, before + 1 + part.num_rows), "row", values)


def _texts_of(schema: Any) -> dict[str, bool]:
    from pyarrow import types

    return {field.name: types.is_string(field.type) or types.is_large_string(field.type) for field in schema}


def is_number(value: str) -> bool:
    """Whether a field is a number, or nothing."""
    try:
        float(value or "0")
    except ValueError:
        return False
    return True


def _may_be_hub_id(path: Path, source: str) -> bool:
    shaped = re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", source) is not None
    is_file_name = kind_of(path) in (*TABLES, *_TEXT_KINDS) or path.suffix.lower() == ".gz"
    in_a_folder_here = "/" in source and path.parent.is_dir()
    return shaped and not source.startswith(".") and not is_file_name and not in_a_folder_here
