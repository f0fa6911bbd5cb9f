"""Reading an Elasticsearch index, from a server on the loopback that checks requests by the API specification."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from elastic_server import Document, Elastic, elastic

import multistep
from multistep.core.values.events import Entry
from multistep.core.values.history import History
from multistep.core.values.plan import DataSpec
from multistep.data.elastic import data_in_files, fetched
from multistep.data.elastic_address import address_of
from multistep.errors import DataError, RunDirectoryError

pytest.importorskip("jsonschema", reason="the loopback server checks requests by JSON Schemas")
pytest.importorskip("elasticsearch", reason="the official client is not installed: multistep[elasticsearch]")


def reviews(count: int = 120) -> dict[str, Document]:
    words = {"good": ("fine", "lovely", "great"), "bad": ("dull", "poor", "awful")}
    kinds = list(words)
    return {
        f"r{i:04}": {
            "body": f"review number {i} is {words[kinds[i % 2]][i % 3]} – {i // 2}",
            "about": {"topic": kinds[i % 2]},
            "year": 2000 + i % 20,
        }
        for i in range(count)
    }


TEXTS = "reviews?text=body&label=about.topic"


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def source(server: Elastic, rest: str = TEXTS) -> str:
    return f"elasticsearch://{server.url}/{rest}"


def test_pages_from_a_point_in_time_and_scrolled_ones_are_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multistep.data.elastic_pages.PAGE", 7)
    documents = reviews(30)
    with elastic(indices={"reviews": documents}) as server:
        path = fetched(source(server))
        assert path.name == "reviews.jsonl"
        assert rows(path) == [{"text": d["body"], "label": d["about"]["topic"]} for d in documents.values()]
        assert server.asked == ["open_point_in_time", *["search"] * 5, "close_point_in_time"]
        server.asked.clear()
        server.points = False
        assert fetched(source(server)) == path
        assert server.asked == ["open_point_in_time", "search", *["scroll"] * 5, "clear_scroll"]
        whole = rows(fetched(source(server, "reviews")))
        assert whole == list(documents.values())
        assert server.wrong == []


def test_a_query_is_lucenes_or_json_and_stands_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    with elastic(indices={"reviews": reviews(40)}) as server:
        words = fetched(source(server, "reviews?text=body&query=year:2003"))
        spelt = fetched(source(server, 'reviews?text=body&query={"query":{"term":{"year":2003}}}'))
        assert rows(words) == rows(spelt) == [{"text": d["body"]} for d in reviews(40).values() if d["year"] == 2003]
        about = json.loads((words.parent / "about.json").read_text(encoding="utf-8"))
        assert about["query"] == {"query_string": {"query": "year:2003"}}
        assert (about["documents"], len(about["hash"])) == (2, 32)
        assert json.loads((spelt.parent / "about.json").read_text())["hash"] == about["hash"]
        assert server.wrong == []
    assert address_of("elasticsearch://h/i?text=a&query=%2Bb %26 c").query == {"query_string": {"query": "+b & c"}}
    there = address_of("elasticsearch+https://[::1]/proxy/i,j-*?second=b&text=a.c")
    assert (there.url, there.index) == ("https://[::1]:443/proxy", "i,j-*")
    assert there.fields == {"text_pair": "b", "text": "a.c"}


def test_what_is_wrong_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = {**reviews(6), "later": {"body": "nobody has said what it is", "tags": []}}

    def said(rest: str) -> str:
        with pytest.raises(DataError) as caught:
            fetched(source(server, rest))
        assert str(caught.value).startswith(source(server, rest))
        return str(caught.value)

    with elastic(indices={"reviews": documents, "empty": {}}) as server:
        assert "has no index 'review'; check its name" in said("review?text=body")
        assert "none of the first 7 documents has a field 'bdy'; fields: " in (wrong := said("reviews?text=bdy"))
        assert wrong.endswith("Did you mean 'body'?")
        assert "the index 'empty' holds no document" in said("empty?text=body")
        assert "holds no document that" in said("reviews?text=body&query=year:1999")
        assert "such as label=about.topic" in said("reviews?text=body&label=about")
        assert "says which field is the label, but not which is the text" in said("reviews?label=body")
        assert "Did you mean 'label'?" in said("reviews?text=body&lable=about.topic")
        server.broken_shards = 1
        assert "1 of its shards did not answer" in said(TEXTS)
        server.broken_shards, server.key = 0, "secret"
        assert "(401, unable to authenticate" in (wrong := said(TEXTS))
        assert "set ELASTICSEARCH_API_KEY" in wrong
        monkeypatch.setenv("ELASTICSEARCH_API_KEY", "another")
        assert "does not know the API key (401" in said(TEXTS)
        monkeypatch.setenv("ELASTICSEARCH_API_KEY", "secret")
        notes = json.loads((fetched(source(server)).parent / "about.json").read_text())["notes"]
        assert notes[1].endswith("documents left out because they have no 'about.topic': 1 (first: 'later')")
        server.readable = False
        assert "it needs the index privilege read" in said(TEXTS)
        server.product, server.readable = False, True
        assert "is no Elasticsearch" in said(TEXTS)
    assert "cannot be reached ([Errno 111] Connection refused); check host and port" in said(TEXTS)
    with pytest.raises(DataError) as caught:
        fetched("elasticsearch://me:hidden@host:9200/reviews?text=body")
    assert "hidden" not in str(caught.value)


def test_lists_of_labels_and_columns_of_splits_are_read_as_from_files() -> None:
    documents: dict[str, Document] = {
        "a": {"t": ["one text"], "tags": ["x", "y"], "part": "train"},
        "b": {"t": "another", "tags": ["y"], "part": "test"},
    }
    with elastic(indices={"i": documents}) as server:
        path = fetched(source(server, "i?text=t&label=tags&split=part"))
        spec = data_in_files(DataSpec(train=source(server, "i?text=t"), test="elsewhere.csv"))
    assert rows(path)[0] == {"text": "one text", "label": ["x", "y"], "split": "train"}
    assert spec.train is not None
    assert spec.train.endswith("i.jsonl")
    assert spec.test == "elsewhere.csv"


def test_a_run_goes_on_with_the_rows_that_it_began_with(tmp_path: Path) -> None:
    seen: list[Entry] = []

    def stop(entry: Entry, history: History) -> None:
        seen.append(entry)
        if len(seen) == 6:
            raise InterruptedError

    def train(out: str, **keywords: Any) -> multistep.Result:
        task, data = "text-classification", source(server)
        out = str(tmp_path / out)
        return multistep.train(
            task=task, data=data, model="scratch", budget="12 steps", out=out, progress=False, **keywords
        )

    with elastic(indices={"reviews": reviews()}) as server:
        whole = train("whole")
        with pytest.raises(InterruptedError):
            train("cut", on_entry=stop)
        for i in range(60):  # meanwhile somebody writes
            server.indices["reviews"][f"new{i}"] = {"body": f"new {i}", "about": {"topic": "bad"}}
        record = json.loads((tmp_path / "cut" / "resolved.json").read_text())
        place = Path(record["places"][source(server)])
        told = record["phases"][0]["queries"][source(server)]
        assert (told["documents"], told["fields"]) == (120, {"text": "body", "label": "about.topic"})
        # Without its rows it does not go on, nor with others.
        shutil.move(place.parent, tmp_path / "aside")
        with pytest.raises(RunDirectoryError, match=r"are gone from the cache .*multistep resume .* --data 'elastic"):
            train("cut")
        with pytest.raises(RunDirectoryError, match=r"gives other rows than .* \(120 documents then, 180 now"):
            multistep.resume(tmp_path / "cut", data=source(server), progress=False)
        shutil.move(tmp_path / "aside", place.parent)
        asked = len(server.asked)
        result = train("cut")
        assert len(server.asked) == asked
        assert result.record["weights_sha256"] == whole.record["weights_sha256"]
        assert any(note.endswith("documents that were read: 120") for note in seen[1].event.facts.notes)  # type: ignore[union-attr]
        scored = multistep.evaluate(result.folder, source(server), metric="accuracy")
        assert scored["examples"] == 180
        assert any("this run was trained on this data" in note for note in scored["notes"])
        assert server.wrong == []
