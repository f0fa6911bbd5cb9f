"""The hub: what a card says of a run, which commits are recorded, and what a server with the hub's API is sent."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from runs import execute, plan

from multistep import api
from multistep.core.values.history import fold
from multistep.engine.card import model_card
from multistep.engine.journal import read_entries
from multistep.engine.revisions import revisions_of_phase
from multistep.engine.rundir import RunDirectory
from multistep.errors import PlanError, RunDirectoryError

COMMIT = "5503434ddd753f426f4b38109466949a1217c2bb"
OTHER = "0" * 39 + "1"
WEIGHTS = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a data set of the hub, with its card and weights of 10 KB."""
    folder = tmp_path_factory.mktemp("pushed") / "run"
    wanted = plan(data="someone/texts", budget="400 steps", moves=[])
    history = execute(wanted, folder)
    card = model_card(wanted, history, [{"data": {"someone/texts": COMMIT}, "models": {"them/base": OTHER}}])
    model = RunDirectory(folder).model
    model.mkdir(exist_ok=True)
    (model / "README.md").write_text(card, encoding="utf-8")
    (model / "multistep.json").write_text('{"task": "text-generation"}', encoding="utf-8")
    (model / "config.json").write_text("{}", encoding="utf-8")
    (model / "model.safetensors").write_bytes(WEIGHTS)
    return folder


def test_the_cards_head_is_what_the_hubs_own_library_reads(run: Path) -> None:
    card = ModelCard.load(run / "model" / "README.md")
    card.data.model_name = card.data.model_name or "run"
    history = fold(read_entries(RunDirectory(run).journal))
    assert history.leader is not None
    leads = history.trial(history.leader.trial).full
    assert leads is not None
    found = {(each.dataset_split, each.metric_type): each for each in card.data.eval_results or []}
    loss = found["validation", "loss"]
    assert loss.metric_value == pytest.approx(leads.interval.score, abs=1e-6)
    assert loss.metric_args["interval_95"] == pytest.approx([leads.interval.low, leads.interval.high], abs=1e-6)
    assert loss.metric_args["examples"] == leads.interval.n
    assert (loss.dataset_type, loss.dataset_revision) == ("someone/texts", COMMIT)
    assert ("test", "loss") in found
    assert card.data.base_model == ["them/base"]
    assert card.data.datasets == ["someone/texts"]


def test_the_commits_that_were_read_are_found_in_the_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "prepared"))
    refs = tmp_path / "hub" / "models--them--base" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(OTHER)
    for at, commit in ((1, OTHER), (2, COMMIT)):
        folder = tmp_path / "prepared" / "someone___texts" / "default" / "0.0.0" / commit
        folder.mkdir(parents=True)
        os.utime(folder, (at, at))
    wanted = plan(data="someone/texts", model="them/base")
    assert revisions_of_phase(wanted, 0) == {"models": {"them/base": OTHER}, "data": {"someone/texts": COMMIT}}
    here = f"{tmp_path}/hub/models--me--mine/snapshots/{COMMIT}"
    assert revisions_of_phase(plan(model=here), 0) == {"models": {"me/mine": COMMIT}}
    assert revisions_of_phase(plan(data="no/such", model="scratch"), 0) == {}


# A server that speaks the hub's API ----------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """Answers what `huggingface_hub` asks for when a model is sent; checks what is sent as the hub does."""

    server: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers["Authorization"])
        kept: dict[str, bytes] = self.server.kept
        if self.headers["Authorization"] != "Bearer hf_good":
            self._answer(401, {"error": "Invalid username or password."})
            return
        match self.path.split("?")[0]:
            case "/api/repos/create":
                self.server.created.append(json.loads(body))
                self._answer(200, {"url": f"{self.server.url}/me/reviews", "id": "me/reviews"})
            case "/api/validate-yaml":
                self._answer(200, {"errors": [], "warnings": []})
            case "/api/models/me/reviews/preupload/main":
                files = json.loads(body)["files"]
                how = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in files
                ]
                self._answer(200, {"files": how})
            case "/me/reviews.git/info/lfs/objects/batch":
                objects = json.loads(body)["objects"]
                for each in objects:
                    each["actions"] = {"upload": {"href": f"{self.server.url}/store/{each['oid']}", "header": {}}}
                self._answer(200, {"transfer": "basic", "objects": objects})
            case "/api/models/me/reviews/commit/main":
                for line in body.splitlines():
                    item = json.loads(line)
                    value = item["value"]
                    match item["key"]:
                        case "header":
                            self.server.messages.append(value["summary"])
                        case "file":
                            kept[value["path"]] = b64decode(value["content"])
                        case "lfsFile":
                            kept[value["path"]] = self.server.store[value["oid"]]
                            assert len(kept[value["path"]]) == value["size"]
                url = f"{self.server.url}/me/reviews/commit/{COMMIT}"
                self._answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
            case _:
                self._answer(404, {"error": self.path})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == name
        self.server.store[name] = content
        self._answer(200, {})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def hub() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.kept, server.store, server.created, server.messages, server.tokens = {}, {}, [], [], set()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def push(hub: Any, *arguments: str, token: str = "hf_good") -> subprocess.CompletedProcess[str]:
    """The verb, in a process of its own: the library reads the hub's address when it is imported."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",  # whose storage has an API of its own
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-c", "from multistep.cli import main; main()", "push", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_is_sent_in_one_commit_with_its_card(run: Path, hub: Any) -> None:
    done = push(hub, str(run), "me/reviews", "--private", "--license", "apache-2.0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/me/reviews"
    created = [(each["name"], each["organization"], each["visibility"]) for each in hub.created]
    assert created == [("reviews", "me", "private")]
    assert set(hub.kept) == {"README.md", "config.json", "model.safetensors", "multistep.json", "state.json"}
    assert hub.kept["model.safetensors"] == WEIGHTS
    assert hub.messages == ["multistep: run"]
    card = ModelCard(hub.kept["README.md"].decode())
    assert vars(card.data)["license"] == "apache-2.0"
    before = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert card.text.strip() == before.partition("---\n")[2].partition("---\n")[2].strip()
    # The token is nowhere in the run.
    assert not any(b"hf_good" in path.read_bytes() for path in run.rglob("*") if path.is_file())


def test_a_refused_token_and_a_dry_run_send_nothing(run: Path, hub: Any) -> None:
    refused = push(hub, str(run), "me/reviews", token="hf_bad")
    assert refused.returncode == 2
    assert "hf auth login" in refused.stderr
    dry = push(hub, str(run), "me/reviews", "--dry-run", "--with-report", token="hf_bad")
    assert dry.returncode == 0, dry.stderr
    assert "10,240 bytes  model.safetensors" in dry.stdout
    assert "multistep/result.json" in dry.stdout
    assert "model-index:" in dry.stdout
    assert not hub.created
    assert not hub.kept


def test_names_that_the_hub_cannot_have_and_runs_without_a_model_are_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="OWNER/NAME"):
        api.push(run, "reviews")
    with pytest.raises(PlanError, match="such as apache"):
        api.push(run, "me/reviews", license="My Own License")
    open_run = tmp_path / "open"
    RunDirectory(open_run).create()
    with pytest.raises(RunDirectoryError, match="has not finished"):
        api.push(open_run, "me/reviews")
