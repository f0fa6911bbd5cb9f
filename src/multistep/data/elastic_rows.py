"""Documents -> a file of rows, an object a line, in the order of their ids: the same documents are the same bytes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multistep.data.cache import cache_folder, kept
from multistep.data.elastic_address import COLUMNS, Address
from multistep.data.elastic_pages import Hit, connected, fields_of, pages
from multistep.data.table import quoted
from multistep.engine.checkpoints import LEFTOVERS
from multistep.engine.queried import ABOUT, KIND
from multistep.errors import DataError, nearest

_TEXTS = ("text", "text_pair")


def read_rows(address: Address) -> Path:
    """Read the documents of an address into the cache. Raises DataError for what cannot be read."""
    logger = logging.getLogger("multistep")
    with _reading_folder() as folder:
        rows = _Rows(address, folder / "unsorted.jsonl")
        with connected(address) as client, closing(pages(client, address, [*address.fields.values()])) as read:
            for page in read:
                rows.add(page)
                if absent := rows.absent():  # at once: there may be millions more
                    raise _no_such_field(address, absent, rows.read, fields_of(client, address))
        if not rows.read:
            query = "" if address.query is None else f" that {json.dumps(address.query, ensure_ascii=False)} finds"
            raise DataError(f"{address.source}: the index '{address.index}' holds no document{query}")
        if not rows.places:
            raise DataError(f"{address.source}: no document has all of {quoted(address.fields.values())}")
        ordered, digest = rows.in_order(folder / f"{_file_name(address.index)}.jsonl")
        about = {
            "source": address.source,
            "index": address.index,
            "query": address.query,
            "fields": dict(address.fields),
            "documents": len(rows.places),
            "hash": digest,
            "notes": [f"{address.source}: documents that were read: {len(rows.places):,}", *rows.notes()],
        }
        told = json.dumps(about, ensure_ascii=False, indent=1)

        def write(target: Path) -> None:
            shutil.move(ordered, target / ordered.name)
            (target / ABOUT).write_text(told, encoding="utf-8")

        key = hashlib.blake2b(told.encode(), digest_size=12).hexdigest()
        found = kept(KIND, key, write) / ordered.name
    logger.info(f"{address.source}: {len(rows.places):,} documents were read into {found}.")
    return found


@contextmanager
def _reading_folder() -> Iterator[Path]:
    """A folder on the disk of the cache, which what clears the cache knows for a leftover after a kill."""
    base = cache_folder() / KIND
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".reading-", suffix=LEFTOVERS[0], dir=base))
    except OSError as error:
        raise DataError(f"{base}: documents cannot be kept there ({error.strerror or error})") from None
    try:
        yield folder
    except OSError as error:
        raise DataError(f"{folder}: documents cannot be kept there ({error.strerror or error})") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _file_name(index: str) -> str:
    return re.sub(r"[^\w.-]+", "_", index)[:80].strip("._-") or "rows"


def _no_such_field(address: Address, column: str, read: int, known: Iterable[str]) -> DataError:
    name, known = address.fields[column], list(known)
    if name in known:
        why = "the mapping has it, but their _source does not hold it (an alias, or a field that is left out of it)"
        return DataError(f"{address.source}: none of the first {read:,} documents has a value in '{name}'; {why}")
    there = f"; fields: {quoted(known)}.{nearest(name, known)}" if known else ""
    return DataError(f"{address.source}: none of the first {read:,} documents has a field '{name}'{there}")


@dataclass
class _Rows:
    """Rows that are written as they come. `places` are index, id, begin and length of each."""

    address: Address
    path: Path
    places: list[tuple[str, str, int, int]] = field(default_factory=list)
    read: int = 0
    lacks: dict[str, int] = field(default_factory=dict)  # how many documents lack a column, and the first of them
    first: dict[str, str] = field(default_factory=dict)

    def add(self, page: Iterable[Hit]) -> None:
        with self.path.open("ab") as file:
            for hit in page:
                self.read += 1
                row = self._row(hit)
                if row is not None:
                    line = _line(row)
                    self.places.append((str(hit["_index"]), str(hit["_id"]), file.tell(), len(line)))
                    file.write(line)

    def absent(self) -> str | None:
        """A column that no document has had until now."""
        return next((column for column, count in self.lacks.items() if count == self.read), None)

    def _row(self, hit: Hit) -> dict[str, Any] | None:
        """A document as a row; None where it lacks what was asked for."""
        document = hit.get("_source")
        where = f"{self.address.source}: document '{hit['_id']}'"
        if not isinstance(document, Mapping):
            raise DataError(f"{where} has no _source; an index that keeps none cannot be read")
        if not self.address.fields:
            return dict(document)
        row = {column: _value(document, name) for column, name in self.address.fields.items()}
        for column in _TEXTS:
            if isinstance(row.get(column), list) and len(row[column]) == 1:
                row[column] = row[column][0]  # to Elasticsearch a field is one value or several
        for column, value in row.items():
            name = self.address.fields[column]
            if value is None or value == []:
                self.lacks[column] = self.lacks.get(column, 0) + 1
                self.first.setdefault(column, str(hit["_id"]))
            elif isinstance(value, Mapping) or (isinstance(value, list) and column != "label"):
                key = next(key for key, made in COLUMNS.items() if made == column)
                what = "an object" if isinstance(value, Mapping) else f"a list of {len(value)} values"
                inner = f", such as {key}={name}.{next(iter(value), '')}" if isinstance(value, Mapping) else ""
                raise DataError(f"{where} has {what} in '{name}', which is to be the {key}; name another field{inner}")
        return None if any(value is None or value == [] for value in row.values()) else row

    def notes(self) -> list[str]:
        """What was left out."""
        fields = self.address.fields
        return [
            f"{self.address.source}: documents left out because they have no '{fields[column]}': {count:,} (first: "
            f"'{self.first[column]}')"
            for column, count in self.lacks.items()
        ]

    def in_order(self, target: Path) -> tuple[Path, str]:
        """Write the rows by index and id, and say the hash of them all."""
        digest = hashlib.blake2b(digest_size=16)
        with self.path.open("rb") as rows, target.open("wb") as file:
            for _, _, begin, length in sorted(self.places):
                rows.seek(begin)
                line = rows.read(length)
                digest.update(line)
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return target, digest.hexdigest()


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which JSON alone can spell
        return json.dumps(row).encode() + b"\n"


def _value(document: Any, name: str) -> Any:
    """What a document holds under a name: a.b is b inside a, or a key of that name; of a list of objects all."""
    if isinstance(document, list):
        found = [value for part in document if (value := _value(part, name)) is not None]
        return found or None
    if not isinstance(document, Mapping):
        return None
    if name in document:
        return document[name]
    for at, character in enumerate(name):
        if character == "." and name[:at] in document:
            return _value(document[name[:at]], name[at + 1 :])
    return None
