"""A table: named columns, and where each row stands."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise, repeat
from pathlib import Path

from multistep.errors import DataError, nearest

MOST_LISTED = 20  # columns in a message


@dataclass(frozen=True)
class Table:
    """Columns of equal length. `is_text` tells of each column whether it holds text (CSV: not numbers alone).

    `numbers` are the rows' line numbers or, where `unit` is "row", what they count from 1; `place_of` says where a row
    stands in other words. `values` gives a column by its name. `class_names` names the numbers of a column of labels,
    where the data set knows them. `roles` are the columns whose meaning is known by how the table came to be: "file",
    "image", "audio", "text", "label", "speaker" -> a column's name. Paths in it are relative to `folder`.
    Where memory need not hold a column, `each_of` gives its values one by one; then a text may be a `LongText`.
    `kept_in` are files of a data set that came from elsewhere.
    """

    origin: str
    is_text: Mapping[str, bool]
    numbers: Sequence[int]
    unit: str
    values: Callable[[str], Sequence[object]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    place_of: Callable[[int], str] | None = None
    each_of: Callable[[str], Iterable[object]] | None = None
    kept_in: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.is_text)

    def place(self, index: int) -> str:
        """Where row `index` (from 0) stands, for messages."""
        if self.place_of is not None:
            return self.place_of(index)
        number = self.numbers[index]
        return f"{self.origin}:{number}" if self.unit == "line" else f"{self.origin}: row {number}"

    def column(self, name: str) -> Sequence[object]:
        """A column's values. Raises DataError for a name that there is not."""
        if name not in self.is_text:
            raise DataError(
                f"{self.origin}: no column '{name}'; columns: {quoted(self.names)}.{nearest(name, self.names)}"
            )
        return self.values(name)

    def each(self, name: str) -> Iterable[object]:
        """A column's values one by one, without all of them in memory where that can be spared."""
        return self.column(name) if self.each_of is None or name not in self.is_text else self.each_of(name)

    def take(self, rows: Sequence[int]) -> Table:
        """Some of the rows, in their order."""
        values, place, each = self.values, self.place, self.each_of

        def taken(name: str) -> list[object]:
            column = values(name)
            return [column[i] for i in rows]

        def taken_each(name: str) -> Iterator[object]:
            assert each is not None
            wanted = iter(rows)
            row = next(wanted, None)
            for index, value in enumerate(each(name)):
                if index == row:
                    yield value
                    row = next(wanted, None)

        numbers = [self.numbers[i] for i in rows]
        streamed = taken_each if each is not None and all(a < b for a, b in pairwise(rows)) else None
        return replace(self, numbers=numbers, values=taken, place_of=lambda i: place(rows[i]), each_of=streamed)

    def without(self, column: str) -> Table:
        """The table as if it did not have this column."""
        return replace(self, is_text={name: text for name, text in self.is_text.items() if name != column})

    def saying(self, *notes: str) -> Table:
        """The same with more to be said of it."""
        return replace(self, notes=(*self.notes, *notes))

    def strings(self, name: str) -> list[str]:
        """A column of texts. Raises DataError that names the first row without one."""
        texts = []
        for index, value in enumerate(self.column(name)):
            if not isinstance(value, str):
                what = "missing or null" if value is None else type(value).__name__
                raise DataError(f"{self.place(index)}: '{name}' is {what}, not a text; mend or remove the {self.unit}")
            texts.append(value)
        return texts


def of_columns(
    origin: str, columns: Mapping[str, Sequence[object]], places: Sequence[str] | None = None, **more: object
) -> Table:
    """A table of columns in memory; `places` says where each row stands (None: its number). `more` are its fields."""
    rows = len(next(iter(columns.values()), ()))
    is_text = {name: bool(len(held)) and isinstance(held[0], str) for name, held in columns.items()}
    place_of = None if places is None else places.__getitem__
    fields = {"roles": {name: name for name in columns}, **more}
    return Table(origin, is_text, range(1, rows + 1), "row", columns.__getitem__, place_of=place_of, **fields)  # type: ignore[arg-type]


def joined(origin: str, tables: Sequence[Table], *notes: str) -> Table:
    """Several tables as one, in their order; a column that one of them lacks is None in its rows."""
    if len(tables) == 1:
        return tables[0].saying(*notes) if notes else tables[0]
    ends = list(accumulate(map(len, tables)))
    is_text: dict[str, bool] = {}
    for table in tables:
        for name, text in table.is_text.items():
            is_text[name] = is_text.get(name, False) or text

    def values(name: str) -> list[object]:
        parts = (t.values(name) if name in t.is_text else [None] * len(t) for t in tables)
        return [value for part in parts for value in part]

    def each(name: str) -> Iterator[object]:
        for table in tables:
            yield from table.each(name) if name in table.is_text else repeat(None, len(table))

    def place(row: int) -> str:
        which = bisect_right(ends, row)
        return tables[which].place(row - (ends[which - 1] if which else 0))

    return replace(
        tables[0],
        origin=origin,
        is_text=is_text,
        numbers=range(1, ends[-1] + 1),
        values=values,
        place_of=place,
        each_of=each if any(table.each_of is not None for table in tables) else None,
        kept_in=tuple(file for table in tables for file in table.kept_in),
        notes=(*notes, *dict.fromkeys(note for table in tables for note in table.notes)),
    )


def quoted(names: Iterable[str]) -> str:
    """Names for a message; of very many the first, and how many more there are."""
    listed = [f"'{name}'" for name in names]
    more = len(listed) - MOST_LISTED
    return ", ".join(listed[:MOST_LISTED]) + (f" and {more:,} more" if more > 0 else "")


def naming(setting: str) -> str:
    """How a user says which column is meant."""
    return f"--set data.{setting}=NAME (evaluate: --{setting.replace('_', '-')} NAME)"
