"""What an Elasticsearch index holds, as data: elasticsearch://host:9200/index?text=body&label=topic -> a file of rows.

The documents are read once, into a file of the cache that is named by what it holds; a run knows by `engine.queried`
which.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from multistep.core.values.plan import DataSpec, Plan
from multistep.engine.moved import PARTS, placed
from multistep.engine.names import is_query
from multistep.engine.queried import queries_of


def fetched(source: str) -> Path:
    """The file with the rows of a query, which is asked now. Raises DataError that says what is wrong."""
    from multistep.data.elastic_address import address_of
    from multistep.data.elastic_rows import read_rows

    return read_rows(address_of(source))


def plan_in_files(plan: Plan) -> Plan:
    """The plan with the rows of its queries in place of these, read now."""
    return placed(plan, {source: str(fetched(source)) for source in queries_of(plan)})


def data_in_files(data: DataSpec) -> DataSpec:
    """The same for data alone."""
    named = {part: getattr(data, part) for part in PARTS}
    found: dict[str, Any] = {part: str(fetched(name)) for part, name in named.items() if name and is_query(name)}
    return replace(data, **found) if found else data


def place_in_files(entry: str) -> str:
    """What `resume --data` was given, a place or OLD=NEW, with the rows of a query in place of it."""
    if is_query(entry):
        # Either a query alone, or what the plan calls a query with where its rows are now.
        old, _, new = entry.rpartition("=")
        return entry if old and Path(new).expanduser().exists() else f"{entry}={fetched(entry)}"
    old, sign, new = entry.partition("=")
    return f"{old}={fetched(new)}" if sign and is_query(new) else entry
