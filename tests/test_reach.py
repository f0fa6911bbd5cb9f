"""Names that are of nothing here: misspelt ones are said at once, the hub is asked for seconds and no longer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from multistep import api
from multistep.core.values.plan import DataSpec
from multistep.core.values.tasks import TASKS
from multistep.errors import DataError, PlanError, UserError
from multistep.tasks import reach
from multistep.tasks.images.preset import PRESETS as IMAGE_PRESETS
from multistep.tasks.language.contenders import SMALL
from multistep.tasks.language.load import PRESETS as LANGUAGE_PRESETS
from multistep.tasks.reach import Named, why_offline, within_reach
from multistep.tasks.speech.models import PRESETS as SPEECH_PRESETS
from multistep.tasks.text.preset import PRESETS as TEXT_PRESETS

ASK = reach._ask
TASK_NAMES = [name for name in TASKS if name != "own-model"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table and a model folder, where nobody may ask the hub, and whose cache is empty."""

    def asked(names: Any) -> Any:
        raise AssertionError(f"the hub was asked for {names}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(reach, "_ask", asked)
    (tmp_path / "reviews.csv").write_text("text,label\na,b\n")
    (tmp_path / "my-model").mkdir()
    (tmp_path / "runs").mkdir()
    return tmp_path


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes calls and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(20)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(reach, "ANSWER_SECONDS", 0.4)
        yield


@pytest.mark.parametrize("task", TASK_NAMES)
def test_what_is_misspelt_is_said_before_the_hub_is_asked(task: str, here: Path) -> None:
    for data, meant in (("revews.csv", "reviews.csv"), ("revievs", "reviews.csv"), ("reviews", "reviews.csv")):
        with pytest.raises(DataError, match=rf"data: {data}: no such file or folder.* Did you mean '{meant}'\?"):
            api.train(task=task, data=data, budget="20s", out="out")
    preset = TASKS[task].presets[0]
    for model, meant in (("my-modl", "my-model"), ("runs/x", ""), ("./my-modl", "my-model"), (f"{preset}z", preset)):
        hint = rf".* Did you mean '{meant}'\?" if meant else ""
        with pytest.raises(PlanError, match=rf"model: {model}: no such file or folder{hint}"):
            api.train(task=task, data="reviews.csv", model=model, budget="20s", out="out")
    assert not (here / "out").exists()


def test_presets_are_those_of_the_tasks() -> None:
    for task, presets in (
        ("text-generation", TEXT_PRESETS),
        ("preference", TEXT_PRESETS),
        ("text-classification", (*LANGUAGE_PRESETS, *SMALL)),
        ("fill-mask", LANGUAGE_PRESETS),
        ("image-classification", IMAGE_PRESETS),
        ("speech-recognition", SPEECH_PRESETS),
    ):
        assert TASKS[task].presets == presets


def test_a_hub_that_does_not_answer_is_waited_for_once_and_briefly(
    here: Path, silent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_ask", ASK)
    spec: dict[str, Any] = {"task": "text-classification", "budget": "20s", "out": "out"}
    asked: list[Callable[[], object]] = [
        lambda: api.train(data="someone/set", **spec),
        lambda: api.train(data="reviews.csv", model=["someone/net", "someone/other"], **spec),
        lambda: api.evaluate("someone/net", "reviews.csv"),
        lambda: api.predict("someone/net", ["a"]),
        lambda: api.generate("someone/net", "a"),
        lambda: api.chat("someone/net"),
    ]
    for ask in asked:
        began = time.monotonic()
        with pytest.raises(
            UserError, match=r"'someone/.*: not on this machine, and the hub cannot be asked \(no answer"
        ):
            ask()
        assert time.monotonic() - began < 2
    (here / "cache" / "models--someone--net").mkdir(parents=True)
    with within_reach([Named("someone/net", "model")]):  # of what is cached, nobody asks again
        assert constants.is_offline_mode()
        assert "no answer" in why_offline()
    assert not constants.is_offline_mode()
    assert not why_offline()


class Answers(BaseHTTPRequestHandler):
    """A hub that has some models, keeps others for some, and is at work on one."""

    def do_GET(self) -> None:
        code, told = {"gated": (403, "GatedRepo"), "gone": (404, "RepoNotFound"), "busy": (503, None)}.get(
            self.path.rpartition("/")[2], (200, None)
        )
        self.send_response(code)
        if told:
            self.send_header("X-Error-Code", told)
        self.end_headers()
        if code == 200:
            self.wfile.write(b'{"id": "someone/there", "modelId": "someone/there"}')

    def log_message(self, *_: object) -> None:
        pass


def test_what_the_hub_refuses_is_told_and_what_it_has_is_left_to_the_loader(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_ask", ASK)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, said in (
            ("gone", "not on this machine, and the hub has no such model"),
            ("gated", "not on this machine, and it is gated: accept its terms"),
            ("busy", "not on this machine, and the hub cannot be asked .*503"),
        ):
            with pytest.raises(PlanError, match=f"model 'someone/{name}': {said}"):
                api.predict(f"someone/{name}", ["a"])
        with within_reach([Named("someone/there", "model")]):
            assert not constants.is_offline_mode()
        server.shutdown()


def test_data_that_need_no_file_are_not_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hub may be asked, each look-up of a name that it does not have would take a minute."""
    import datasets

    from multistep.tasks.chat.load import holds_conversations
    from multistep.tasks.language.rows import is_table
    from multistep.tasks.preference.load import holds_pairs
    from multistep.tasks.writing.sources import read_splits

    asked: list[str] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *_: asked.append(name))
    manual = DataSpec(source="python-manual")
    assert not holds_conversations(manual)
    assert not holds_pairs(manual)
    assert not is_table("python-manual")
    assert read_splits(manual).train
    assert asked == []
