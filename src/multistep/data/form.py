"""What a task takes as data: the one thing about reading that tasks say themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from multistep.core.values.plan import DataSpec
from multistep.data.names import COLUMNS, begins_with_split, splits_among
from multistep.data.table import Table
from multistep.data.text import TABLES, kind_of

Parts: TypeAlias = Mapping[str, Table]  # a source by the splits that it names; all under "" where it names none


@dataclass(frozen=True)
class Form:
    """Which sources hold rows for a task.

    `what` the rows are, and what is `allowed`, for messages. `tables` are the kinds of files that are tables, and
    `items` the endings of those that are a row each, or belong to a layout of its own. Of a folder without splits
    `folder` reads everything, by default all files of the first of its `kinds` that it holds. `read_file` reads what
    is no table, `own_table` a table in a form that the task alone knows (None: it is in no such form); `made` are
    sources by name that no file holds. `describes` says that a table lists the files beside it; `loose` that a split's
    name may go on, as in train-clean-100; `tree` that folders inside folders are read, so that one called test may be
    no split. `names_items` tells whether a text file without a header is a list of items and what they are, `by_class`
    whether a folder's files are of one class each, whatever splits their names tell. `long` says that memory should
    not hold the rows: then tables of lines are read value by value.
    """

    what: str
    allowed: str
    tables: tuple[str, ...] = TABLES
    kinds: tuple[str, ...] = TABLES
    items: tuple[str, ...] = ()
    made: Mapping[str, Callable[[], Parts]] = field(default_factory=dict)
    read_file: Callable[[Path, DataSpec], Parts | None] = lambda *_: None
    own_table: Callable[[Path, DataSpec], Parts | None] = lambda *_: None
    folder: Callable[[Path, DataSpec, Form], Parts] | None = None
    describes: bool = False
    loose: bool = False
    tree: bool = False
    split_columns: tuple[str, ...] = COLUMNS
    names_items: Callable[[Path], bool] = lambda _: False
    by_class: Callable[[Path], bool] = lambda _: False
    long: bool = False

    def takes(self, path: Path) -> bool:
        """Whether a file may hold data, by its name."""
        return self.lists(path) or path.name.lower().endswith(self.items)

    def lists(self, path: Path) -> bool:
        """Whether a file may hold many rows, by its name."""
        return kind_of(path) in (*self.tables, *self.kinds)

    def splits_among(self, names: Iterable[str]) -> dict[str, str]:
        """Which of these names are of splits, and of which."""
        names = list(names)
        return {**(begins_with_split(names) if self.loose else {}), **splits_among(names)}
