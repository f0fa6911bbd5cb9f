"""Which documents a source means: elasticsearch://host:9200/index?text=body&label=topic."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from multistep.errors import DataError, nearest

API_KEY, CA_CERTS = "ELASTICSEARCH_API_KEY", "ELASTICSEARCH_CA_CERTS"  # environment variables
# What a field may be called for, and the column that it becomes: names that every task knows.
COLUMNS: Mapping[str, str] = {"text": "text", "second": "text_pair", "label": "label", "split": "split"}
PORTS: Mapping[str, int] = {"http": 9200, "https": 443}
FORM = "elasticsearch://HOST:9200/INDEX?text=FIELD&label=FIELD"
_QUERY = "query"
_NO_INDEX = re.compile(r'[\s\\/?"<>|#]')


@dataclass(frozen=True)
class Address:
    """Which documents of which server: `fields` by the columns that they become (none: whole documents)."""

    source: str
    url: str
    index: str
    fields: Mapping[str, str]
    query: Mapping[str, Any] | None = None


def address_of(source: str) -> Address:
    """What a source means. Raises DataError for what none can mean, and for a password in it."""
    parts = urlsplit(source)
    try:
        port = parts.port
    except ValueError as error:
        raise DataError(f"{source}: its port is no number up to 65535 ({error}); allowed: {FORM}") from None
    if parts.username is not None or parts.password is not None:
        shown = source.replace(parts.netloc, parts.netloc.rpartition("@")[2])
        raise DataError(
            f"{shown}: a name and a password in it would stand in the record of the run; give an API key in {API_KEY}, "
            "and leave them out"
        )
    if parts.fragment:
        raise DataError(f"{source}: what follows # is lost; write it as %23")
    *prefix, index = unquote(parts.path).strip("/").split("/")
    if not parts.hostname or not index:
        raise DataError(f"{source}: names no {'index' if parts.hostname else 'host'}; allowed: {FORM}")
    if _NO_INDEX.search(index):
        raise DataError(f"{source}: '{index}' is no name of an index; allowed: names, patterns, several with commas")
    scheme = "https" if parts.scheme.endswith("+https") else "http"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    given = _given(source, parts.query)
    query = given.pop(_QUERY, None)
    fields = {COLUMNS[key]: field for key, field in given.items()}
    if fields and "text" not in fields:
        raise DataError(f"{source}: says which field is the {next(iter(given))}, but not which is the text: text=FIELD")
    url = "/".join([f"{scheme}://{host}:{port or PORTS[scheme]}", *prefix])
    return Address(source, url, index, fields, None if query is None else _query(source, query))


def _given(source: str, query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    allowed = (*COLUMNS, _QUERY)
    for part in filter(None, query.split("&")):
        key, _, value = part.partition("=")
        if key not in allowed:
            raise DataError(
                f"{source}: unknown '{key}' behind the question mark; allowed: {', '.join(allowed)} (an & inside a "
                f"value is written %26).{nearest(key, allowed)}"
            )
        if key in given or not value:
            what = "is there twice; say it once" if key in given else "has no value; give one or leave it out"
            raise DataError(f"{source}: '{key}' {what}")
        # Not as forms do it: in Lucene's syntax + means that a word must be there.
        given[key] = unquote(value)
    return given


def _query(source: str, said: str) -> Mapping[str, Any]:
    """Elasticsearch's query: JSON in its own language, or words in Lucene's."""
    if not said.lstrip().startswith("{"):
        return {"query_string": {"query": said}}
    try:
        query = json.loads(said)
    except ValueError as error:
        raise DataError(f"{source}: its query begins like JSON and is none ({error})") from None
    inner = query.get("query")
    return dict(inner) if set(query) == {"query"} and isinstance(inner, dict) else dict(query)
