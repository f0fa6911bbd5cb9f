"""An index, page by page, as it stood at one point in time, and what servers say that do not give it."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from multistep.data.elastic_address import API_KEY, CA_CERTS, Address
from multistep.errors import DataError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

PAGE = 1_000  # documents
KEPT = "5m"  # how long the server keeps its point in time for the next page
WAIT_SECONDS = 60.0
Hit: TypeAlias = dict[str, Any]
# What a server, or what stands before it, may answer that gives no points in time; scrolling is older.
_NO_POINT = (400, 403, 404, 405, 501)


@contextmanager
def connected(address: Address) -> Iterator[Elasticsearch]:
    """The official client. Raises DataError where it is not installed, and for what the server refuses meanwhile."""
    try:
        from elasticsearch import ApiError, Elasticsearch, TransportError
        from elasticsearch.exceptions import ConnectionTimeout, SSLError, UnsupportedProductError
    except ImportError as error:
        raise DataError(
            f"{address.source}: reading it needs Elasticsearch's client ({error}); pip install "
            "'multistep[elasticsearch]'"
        ) from None
    at = f"{address.source}: the server at {address.url}"
    client = Elasticsearch(address.url, request_timeout=WAIT_SECONDS, **_secrets(address))
    try:
        yield client
    except UnsupportedProductError as error:
        raise DataError(f"{at} is no Elasticsearch ({error})") from None
    except ApiError as error:
        raise DataError(f"{at} {_refusal(address, error)}") from None
    except SSLError as error:
        raise DataError(
            f"{at} cannot be trusted ({_innermost(error)}); name the file of its certificate authority in "
            f"{CA_CERTS}, such as its config/certs/http_ca.crt"
        ) from None
    except ConnectionTimeout:
        raise DataError(f"{at} did not answer within {WAIT_SECONDS:.0f}s") from None
    except TransportError as error:
        encrypted = "" if address.url.startswith("https") else ", or elasticsearch+https:// if it speaks TLS"
        raise DataError(f"{at} cannot be reached ({_innermost(error)}); check host and port{encrypted}") from None
    finally:
        client.close()


def _innermost(error: Exception) -> str:
    """What is wrong with a connection, without the errors that it is wrapped in."""
    return str(error).rpartition(": ")[2].rstrip(")")


def _secrets(address: Address) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if key := os.environ.get(API_KEY):
        found["api_key"] = key
    if address.url.startswith("https") and (certs := os.environ.get(CA_CERTS)):
        if not Path(certs).expanduser().is_file():
            raise DataError(f"{CA_CERTS} is {certs}: no such file; name the file of the certificate authority")
        found["ca_certs"] = str(Path(certs).expanduser())
    return found


def _refusal(address: Address, error: Any) -> str:
    status, kind, said = int(error.meta.status), str(error.message), reason_of(error)
    if status == 401:
        given = "does not know the API key" if os.environ.get(API_KEY) else "wants to know who asks"
        return f"{given} (401, {said}); set {API_KEY} to a key that may read '{address.index}'"
    if status == 403:
        return f"does not let this key read '{address.index}' (403, {said}); it needs the index privilege read"
    if kind == "index_not_found_exception":
        return f"has no index '{address.index}'; check its name"
    if status == 406 or "media_type" in kind:
        return (
            f"is of another major version than the client ({said}); install that of its own, such as pip install "
            "'elasticsearch<9'"
        )
    if kind in ("parsing_exception", "x_content_parse_exception", "search_phase_execution_exception"):
        return f"cannot answer this query ({status}, {said}); check query="
    return f"refused it ({status}, {kind}: {said})"


def reason_of(error: Any) -> str:
    """What a server says of itself, in a line."""
    body = error.body if isinstance(error.body, dict) else {}
    told = body.get("error")
    if isinstance(told, dict):
        causes = [*told.get("root_cause", ()), told]
        told = next((cause["reason"] for cause in causes if isinstance(cause, dict) and cause.get("reason")), None)
    return str(told or error.message).strip().splitlines()[0]


def pages(client: Elasticsearch, address: Address, fields: Sequence[str]) -> Generator[list[Hit], None, None]:
    """All documents, a page at a time. Raises DataError where fewer come than the server has said there are."""
    from elasticsearch import ApiError

    asked: dict[str, Any] = {
        "size": PAGE,
        "query": address.query or {"match_all": {}},
        "source": list(fields) or True,
        "track_total_hits": True,
    }
    try:
        point = client.open_point_in_time(index=address.index, keep_alive=KEPT)
    except ApiError as error:
        if error.meta.status not in _NO_POINT or str(error.message) == "index_not_found_exception":
            raise
        found = _scrolled(client, address, asked)
    else:
        found = _from_point(client, str(point["id"]), asked)
    total, read = None, 0
    with closing(found):  # while the client is there, which says that no more is asked
        for answer in found:
            hits: list[Hit] = answer["hits"]["hits"]
            failed = int(answer.get("_shards", {}).get("failed", 0))
            if answer.get("timed_out") or failed:  # which a search may be, and still give what it found
                what = f"{failed} of its shards did not answer" if failed else "it ran out of time"
                raise DataError(f"{address.source}: {what}, so documents would be missing; try again")
            total = int(answer["hits"]["total"]["value"]) if total is None else total
            read += len(hits)
            if not hits:
                break
            yield hits
    if total is not None and read != total:
        raise DataError(f"{address.source}: {read:,} documents came of {total:,} that were announced; try again")


def _from_point(client: Elasticsearch, point: str, asked: dict[str, Any]) -> Generator[Any, None, None]:
    after: dict[str, Any] = {}
    try:
        while True:
            pit = {"id": point, "keep_alive": KEPT}
            answer = client.search(pit=pit, sort=[{"_shard_doc": "asc"}], **asked, **after)
            yield answer
            hits = answer["hits"]["hits"]
            if len(hits) < asked["size"]:
                return
            point, after = answer.get("pit_id", point), {"search_after": hits[-1]["sort"]}
            asked["track_total_hits"] = False
    finally:
        with suppress(Exception):  # it ends by itself, too
            client.close_point_in_time(id=point)


def _scrolled(client: Elasticsearch, address: Address, asked: dict[str, Any]) -> Generator[Any, None, None]:
    answer = client.search(index=address.index, scroll=KEPT, sort=["_doc"], **asked)
    scroll = answer["_scroll_id"]
    try:
        while True:
            yield answer
            if not answer["hits"]["hits"]:
                return
            answer = client.scroll(scroll_id=scroll, scroll=KEPT)
            scroll = answer.get("_scroll_id", scroll)
    finally:
        with suppress(Exception):
            client.clear_scroll(scroll_id=scroll)


def fields_of(client: Elasticsearch, address: Address) -> list[str]:
    """The fields that the index's mapping knows; none where the server does not tell."""
    with suppress(Exception):  # what is wrong is said anyway; this is to say it better
        known = client.field_caps(index=address.index, fields="*")["fields"]
        return sorted(name for name in known if not name.startswith("_"))
    return []
