"""A server on the loopback that answers as Elasticsearch does where this project asks, and checks how it is asked."""

from __future__ import annotations

import base64
import fnmatch
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from elastic_api import NotInTheSpecification, checked

Document = Mapping[str, Any]


class Refused(Exception):
    def __init__(self, status: int, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.kind, self.reason = status, kind, reason


@dataclass
class Elastic:
    """Indices with documents by id, and models, parts of them, vocabularies and pipelines by their ids.

    `asked` are the endpoints in their order, `wrong` what was not as the specification has it. `before_page` is called
    with the number of the page before each search.
    """

    indices: dict[str, dict[str, Document]] = field(default_factory=dict)
    key: str | None = None
    readable: bool = True
    points: bool = True  # in time
    version: str = "9.2.0"
    product: bool = True
    broken_shards: int = 0
    url: str = ""
    asked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    models: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, dict[int, Any]] = field(default_factory=dict)
    vocabularies: dict[str, list[str]] = field(default_factory=dict)
    pipelines: dict[str, Any] = field(default_factory=dict)
    deployed: set[str] = field(default_factory=set)
    _views: dict[str, Any] = field(default_factory=dict)  # points in time and scrolls, as they were when opened
    _count: int = 0

    def answer(self, method: str, path: str, params: Mapping[str, str], body: Any, key: str | None) -> Any:
        try:
            endpoint, parts = checked(method, path, params, body)
        except NotInTheSpecification as error:
            self.wrong.append(str(error))
            raise Refused(400, "illegal_argument_exception", str(error)) from error
        self.asked.append(endpoint.name)
        if self.key is not None and key != self.key:
            raise Refused(401, "security_exception", f"unable to authenticate for REST request [{path}]")
        if not self.readable:
            raise Refused(403, "security_exception", "action [indices:data/read/search] is unauthorized for API key")
        return getattr(self, f"_{endpoint.name}")(parts, params, body or {})

    # Reading --------------------------------------------------------------------------------------

    def _hits_of(self, index: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        names = [name for pattern in index.split(",") for name in fnmatch.filter(self.indices, pattern)]
        if not names:
            raise Refused(404, "index_not_found_exception", f"no such index [{index}]")
        # Not in the order of ids: as shards have them.
        found = [(name, *held) for name in names for held in reversed(self.indices[name].items())]
        return [
            {"_index": name, "_id": id_, "_source": document}
            for name, id_, document in found
            if _matches(document, query)
        ]

    def _new(self, view: Any) -> str:
        self._count += 1
        self._views[name := f"view-{self._count}"] = view
        return name

    def _open_point_in_time(self, parts: Mapping[str, str], *_: Any) -> Any:
        if not self.points:
            raise Refused(400, "illegal_argument_exception", "contains unrecognized parameter: [keep_alive]")
        self._hits_of(parts["index"], {"match_all": {}})
        held = {name: dict(documents) for name, documents in self.indices.items()}
        return {"id": self._new((parts["index"], held)), "_shards": _shards(0)}

    def _close_point_in_time(self, parts: Any, params: Any, body: Mapping[str, Any]) -> Any:
        return {"succeeded": self._views.pop(body["id"], None) is not None, "num_freed": 1}

    def _search(self, parts: Mapping[str, str], params: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        if "pit" not in body:
            hits = self._hits_of(parts["index"], body["query"])
            name = self._new((hits, body))
            return {"_scroll_id": name, **self._page(hits, body, 0)}
        view = self._views.pop(body["pit"]["id"], None)
        if view is None or "index" in parts:
            raise Refused(404, "search_context_missing_exception", f"No search context found for {body['pit']}")
        now, self.indices = self.indices, view[1]
        try:
            hits = self._hits_of(view[0], body["query"])
        finally:
            self.indices = now
        begin = int(body["search_after"][0]) + 1 if "search_after" in body else 0
        # "Always use the most recently received id": the one before is gone.
        return {"pit_id": self._new(view), **self._page(hits, body, begin)}

    def _page(self, hits: list[dict[str, Any]], body: Mapping[str, Any], begin: int) -> Any:
        page = [{**hit, "sort": [begin + i]} for i, hit in enumerate(hits[begin : begin + body.get("size", 10)])]
        wanted = body.get("_source", True)
        if isinstance(wanted, list):
            page = [{**hit, "_source": _filtered(hit["_source"], wanted)} for hit in page]
        total = {"total": {"value": len(hits), "relation": "eq"}} if body.get("track_total_hits") else {}
        return {"timed_out": False, "_shards": _shards(self.broken_shards), "hits": {**total, "hits": page}}

    def _scroll(self, parts: Any, params: Any, body: Mapping[str, Any]) -> Any:
        hits, asked = self._views.pop(body["scroll_id"])
        hits = hits[asked["size"] :]
        return {"_scroll_id": self._new((hits, asked)), **self._page(hits, asked, 0)}

    def _clear_scroll(self, *_: Any) -> Any:
        return {"succeeded": True, "num_freed": 1}

    def _field_caps(self, parts: Mapping[str, str], *_: Any) -> Any:
        documents = [
            document
            for name in fnmatch.filter(self.indices, parts["index"])
            for document in self.indices[name].values()
        ]
        names = {name for document in documents for name in _names(document)}
        kinds = {"text": {"type": "text", "metadata_field": False, "searchable": True, "aggregatable": False}}
        return {"indices": [parts["index"]], "fields": dict.fromkeys(["_id", *names], kinds)}

    # Models ---------------------------------------------------------------------------------------

    def _info(self, *_: Any) -> Any:
        return {"name": "node", "cluster_name": "test", "version": {"number": self.version}, "tagline": "You Know"}

    def _get_trained_models(self, parts: Mapping[str, str], *_: Any) -> Any:
        if (name := parts["model_id"]) not in self.models:
            raise Refused(404, "resource_not_found_exception", f"No known trained model with model_id [{name}]")
        return {"count": 1, "trained_model_configs": [{"model_id": name, **self.models[name]}]}

    def _put_trained_model(self, parts: Mapping[str, str], params: Any, body: Any) -> Any:
        # As documented: lowercase letters and digits, hyphens and underscores, beginning and ending with the first two.
        if not _is_model_id(parts["model_id"]):
            raise Refused(400, "illegal_argument_exception", f"Invalid model_id [{parts['model_id']}]")
        self.models[parts["model_id"]] = body
        return {"model_id": parts["model_id"], **body}

    def _put_trained_model_definition_part(self, parts: Mapping[str, str], params: Any, body: Any) -> Any:
        self.parts.setdefault(parts["model_id"], {})[int(parts["part"])] = body
        return {"acknowledged": True}

    def definition(self, model: str) -> bytes:
        """The model's bytes, put together again; asserts that all parts came."""
        parts = self.parts[model]
        total = {(part["total_parts"], part["total_definition_length"]) for part in parts.values()}
        ((count, length),) = total
        assert sorted(parts) == list(range(count))
        joined = b"".join(base64.b64decode(parts[i]["definition"]) for i in range(count))
        assert len(joined) == length
        return joined

    def _put_trained_model_vocabulary(self, parts: Mapping[str, str], params: Any, body: Any) -> Any:
        self.vocabularies[parts["model_id"]] = body["vocabulary"]
        return {"acknowledged": True}

    def _start_trained_model_deployment(self, parts: Mapping[str, str], *_: Any) -> Any:
        name = parts["model_id"]
        if name not in self.vocabularies or name not in self.parts:
            raise Refused(400, "status_exception", f"Model definition of [{name}] is not complete")
        self.definition(name)
        self.deployed.add(name)
        return {"assignment": {"assignment_state": "started", "task_parameters": {"model_id": name}}}

    def _delete_trained_model(self, parts: Mapping[str, str], *_: Any) -> Any:
        if (name := parts["model_id"]) in self.deployed:
            raise Refused(409, "status_exception", f"Cannot delete model [{name}] as it is currently deployed")
        del self.models[name], self.parts[name], self.vocabularies[name]
        return {"acknowledged": True}

    def _stop_trained_model_deployment(self, parts: Mapping[str, str], *_: Any) -> Any:
        self.deployed.discard(parts["model_id"])
        return {"stopped": True}

    def _simulate(self, parts: Mapping[str, str], params: Any, body: Any) -> Any:
        from elastic_inference import infer, processed

        def ask(model: str, text: str) -> Any:
            if model not in self.deployed:
                raise Refused(409, "status_exception", f"Model [{model}] must be deployed to use")
            config = self.models[model]["inference_config"]
            return infer(self.definition(model), self.vocabularies[model], config, text)

        steps = self.pipelines[parts["id"]]["processors"]
        return {"docs": [{"doc": {"_source": processed(each["_source"], steps, ask)}} for each in body["docs"]]}

    def _delete_pipeline(self, parts: Mapping[str, str], *_: Any) -> Any:
        del self.pipelines[parts["id"]]
        return {"acknowledged": True}

    # Writing --------------------------------------------------------------------------------------

    def _bulk(self, parts: Any, params: Any, body: Any) -> Any:
        for action, document in zip(body[::2], body[1::2], strict=True):
            held = self.indices.setdefault(action["index"]["_index"], {})
            held[action["index"]["_id"]] = document
        items = [{"index": {"status": 201, **action["index"]}} for action in body[::2]]
        return {"took": 1, "errors": False, "items": items}

    def _refresh(self, *_: Any) -> Any:
        return {"_shards": _shards(0)}

    def _delete_index(self, parts: Mapping[str, str], *_: Any) -> Any:
        del self.indices[parts["index"]]
        return {"acknowledged": True}

    def _put_pipeline(self, parts: Mapping[str, str], params: Any, body: Any) -> Any:
        for processor in body["processors"]:
            if (name := processor.get("inference", {}).get("model_id")) and name not in self.models:
                raise Refused(404, "resource_not_found_exception", f"No known trained model with model_id [{name}]")
        self.pipelines[parts["id"]] = body
        return {"acknowledged": True}


def _shards(failed: int) -> dict[str, int]:
    return {"total": 2, "successful": 2 - failed, "skipped": 0, "failed": failed}


def _is_model_id(name: str) -> bool:
    inside = set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
    return bool(name) and set(name) <= inside and name[0].isalnum() and name[-1].isalnum() and len(name) <= 64


def _matches(document: Document, query: Mapping[str, Any]) -> bool:
    ((kind, said),) = query.items()
    if kind == "match_all":
        return True
    if kind == "term":
        return all(document.get(name) == value for name, value in said.items())
    if kind == "query_string":
        name, _, value = said["query"].partition(":")
        return document.get(value) is not None if name == "_exists_" else str(document.get(name)) == value
    raise Refused(400, "parsing_exception", f"unknown query [{kind}]")


def _filtered(document: Document, names: list[str]) -> dict[str, Any]:
    """What `_source` gives: a.b is b inside a, also of each object in a list."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        if key in names:
            found[key] = value
            continue
        inner = [name.removeprefix(f"{key}.") for name in names if name.startswith(f"{key}.")]
        if inner and isinstance(value, Mapping):
            found[key] = _filtered(value, inner)
        elif inner and isinstance(value, list):
            found[key] = [_filtered(each, inner) for each in value]
    return found


def _names(document: Document) -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner in _names(value))
        else:
            yield key


@contextmanager
def elastic(**settings: Any) -> Iterator[Elastic]:
    """Such a server, as long as it is needed."""
    server = Elastic(**settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            scheme, _, key = (self.headers.get("Authorization") or "").partition(" ")
            try:
                given = dict(parse_qsl(parts.query, keep_blank_values=True))
                lines = "ndjson" in (self.headers.get("Content-Type") or "")
                body = [*map(json.loads, content.splitlines())] if lines else json.loads(content) if content else None
                said = server.answer(
                    self.command, unquote(parts.path), given, body, key if scheme == "ApiKey" else None
                )
                status = 200
            except Refused as error:
                status = error.status
                cause = {"type": error.kind, "reason": error.reason}
                said = {"error": {**cause, "root_cause": [cause]}, "status": status}
            answer = json.dumps(said).encode()
            self.send_response(status)
            if server.product:
                self.send_header("X-Elastic-Product", "Elasticsearch")
            compatible = self.headers.get("Accept") or "application/json"
            self.send_header("Content-Type", compatible)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _do  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.url = f"127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
