"""A served model, asked by a real client over a real socket."""

from __future__ import annotations

import base64
import json
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
from cases_images import picture, small_swin
from cases_language import write_classes
from commands import start
from PIL import Image
from test_predict import trained
from tiny_chat import write_tiny_chat

from multistep import api
from multistep.tasks.prediction import Prediction, Predictor
from multistep.tasks.serving.service import AT_ONCE, MOST_WAITING, Busy, Service

WHY = 'serving needs FastAPI: pip install "multistep[serve]"'
JSON = "application/json"


def asked(address: str, body: bytes | object | None = None, kind: str = JSON) -> tuple[int, Any]:
    """The status and the answer, of a POST where there is a body."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address, data=data, headers={"content-type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@contextmanager
def served(model: str | Path, most_bytes: int = 10**6) -> Iterator[str]:
    """The address of a server in this process."""
    uvicorn = pytest.importorskip("uvicorn", reason=WHY)
    pytest.importorskip("fastapi", reason=WHY)
    from multistep.tasks.serving.app import make_app

    app = make_app(Service(str(model), tokens=8), most_bytes=most_bytes)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def form(files: Sequence[tuple[str, bytes]]) -> tuple[bytes, str]:
    """A multipart form with files, and its content type."""
    parts = [
        f'--xyz\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in files
    ]
    return b"".join(parts) + b"--xyz--\r\n", "multipart/form-data; boundary=xyz"


def test_texts_are_answered_until_ctrl_c(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason=WHY)
    model = trained(tmp_path, write_classes)
    process = start(tmp_path, "serve", str(model), "--port", "0", "--limit-mb", "0.1")
    assert process.stderr is not None
    said = process.stderr.readline()
    assert "/predict (docs: http://127.0.0.1:" in said
    address = said.split("answers at ")[1].split("/predict")[0]
    try:
        texts = ["a lovely film", "cold and stupid", "warm and clever"]
        expected = api.predict(model, texts)
        with ThreadPoolExecutor(8) as pool:  # all at once, as clients are
            found = list(pool.map(lambda _: asked(f"{address}/predict", {"inputs": texts, "top_k": 2}), range(24)))
        assert [status for status, _ in found] == [200] * 24
        for _, answer in found:
            for each, one in zip(answer["predictions"], expected, strict=True):
                assert each["prediction"] == one.output == each["top"][0]["label"]
                assert each["probability"] == pytest.approx(one.probability, abs=1e-5)
                assert {top["label"]: pytest.approx(top["probability"], abs=1e-5) for top in each["top"]} == one.others
        about = asked(f"{address}/health")[1]
        assert (about["task"], about["classes"], about["threshold"]) == ("text-classification", ["bad", "good"], 0.5)
        content = asked(f"{address}/openapi.json")[1]["paths"]["/predict"]["post"]
        example = content["requestBody"]["content"][JSON]["example"]
        told = content["responses"]["200"]["content"][JSON]["example"]
        assert asked(f"{address}/predict", example) == (200, told), "the page's example is what really comes"
        for body, status, why in (
            ({"inputs": []}, 422, "inputs: List should have at least 1 item"),
            ({"texts": ["a"]}, 422, 'inputs: Field required; send such as {"inputs": ['),
            (b"no json", 422, "the body: Invalid JSON"),
            ({"inputs": [["a", "b"]]}, 422, "inputs.0: a list of texts, but this model reads a text"),
            ({"inputs": [{"base64": "aaaa"}]}, 422, "inputs.0: bytes, but this model reads a text"),
            ({"inputs": ["good", " \n"]}, 422, "inputs.1: a blank text, of which nothing can be said"),
            ({"inputs": ["x" * 200_000]}, 413, "the body has more than 100,000 bytes"),
        ):
            answer = asked(f"{address}/predict", body)
            assert (answer[0], answer[1]["detail"][: len(why)]) == (status, why)
        assert (
            "cannot listen there"
            in start(tmp_path, "serve", str(model), "--port", address.rsplit(":")[-1]).communicate(timeout=240)[1]
        )
    finally:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "multistep: stopped by SIGINT\n")
    with pytest.raises(URLError):
        asked(f"{address}/health")


def test_images_come_as_base64_or_as_files_and_paths_are_never_opened(tmp_path: Path) -> None:
    model = small_swin(tmp_path / "model")
    choose = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(picture("disc", choose, 16)).save(tmp_path / f"{i}.png")
    contents = [(tmp_path / f"{i}.png").read_bytes() for i in range(3)]
    expected = [p.output for p in api.predict(model, [tmp_path / f"{i}.png" for i in range(3)])]
    with served(model) as address:
        encoded = [base64.b64encode(content).decode() for content in contents]
        given = [encoded[0], {"base64": encoded[1]}, f"data:image/png;base64,{encoded[2]}"]
        _, answer = asked(f"{address}/predict", {"inputs": given})
        assert [each["prediction"] for each in answer["predictions"]] == expected
        body, kind = form([(f"../{i}.png", content) for i, content in enumerate(contents)] + [("x.png", b"no image")])
        _, answer = asked(f"{address}/predict", body, kind)
        assert [each.get("prediction") for each in answer["predictions"]] == [*expected, None]
        why = answer["predictions"][3]["error"]
        assert why.startswith("image file: ")
        assert "multistep-" not in why, "where our own copy lay is nobody's business"
        status, answer = asked(f"{address}/predict", {"inputs": [str(tmp_path / "0.png")]})
        assert (status, answer["detail"]) == (
            422,
            "inputs.0: not base64, which the bytes of an image file are sent as",
        )
        assert asked(f"{address}/predict", b"--xyz--\r\n", kind)[0] in (400, 422)
        assert asked(f"{address}/predict", b"x", "text/plain")[0] == 415


def test_turns_are_answered_by_a_model_that_talks(tmp_path: Path) -> None:
    model = write_tiny_chat(tmp_path / "model")
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "x"},
    ]
    with served(model) as address:
        _, answer = asked(f"{address}/predict", {"inputs": [turns, "one"]})
        expected = api.predict(model, [json.dumps(turns), "one"], tokens=8)
        assert [each["prediction"] for each in answer["predictions"]] == [p.output for p in expected]


def serving(
    monkeypatch: pytest.MonkeyPatch, says: Callable[[Sequence[str]], list[Prediction | str]], **about: Any
) -> Service:
    """A service of a model that says this; `about` is what its folder says."""
    from multistep.tasks.serving import service

    predictor = Predictor(says, lambda table, data: ("text",), lambda values, folder: str(values[0]))
    monkeypatch.setattr(service, "existing", lambda model: model)
    monkeypatch.setattr(service, "task_of", lambda model: "text-classification")
    monkeypatch.setattr(service, "read_task", lambda model: about)
    monkeypatch.setattr(service, "load_predictor", lambda *given: predictor)
    return Service("model", tokens=8)


def test_what_waits_together_is_asked_together_and_a_fault_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, sizes = threading.Event(), []

    def says(inputs: Sequence[str]) -> list[Prediction | str]:
        sizes.append(len(inputs))
        if inputs[0] == "first":
            goes_on.wait(30)
        if "bad" in inputs:
            raise ValueError("no")
        return [Prediction(text, text.upper()) for text in inputs]

    service = serving(monkeypatch, says, pairs=False)
    first = service.submit(["first"])
    while not sizes:
        time.sleep(0.01)
    later = [service.submit([f"a{i}", f"b{i}"]) for i in range(AT_ONCE)]
    goes_on.set()
    assert [each.output for each in first.result(30) if isinstance(each, Prediction)] == ["FIRST"]
    said = [each.output for answer in later for each in answer.result(30) if isinstance(each, Prediction)]
    assert said == [text for i in range(AT_ONCE) for text in (f"A{i}", f"B{i}")]
    assert sizes == [1, AT_ONCE, AT_ONCE]
    good, bad = service.submit(["good"]), service.submit(["bad"])
    assert [each.output for each in good.result(30) if isinstance(each, Prediction)] == ["GOOD"]
    with pytest.raises(Exception, match="ValueError: no"):
        bad.result(30)
    service.close()


def test_whether_texts_are_pairs_is_guessed_of_each_request_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, asked_at_once = threading.Event(), []

    def says(inputs: Sequence[str]) -> list[Prediction | str]:
        asked_at_once.append(tuple(inputs))
        goes_on.wait(30)
        return [Prediction(text, text) for text in inputs]

    service = serving(monkeypatch, says)
    answers = [service.submit(inputs) for inputs in (["first"], ["a ||| b", "c ||| d"], ["a ||| b", "no pair"])]
    goes_on.set()
    for answer in answers:
        answer.result(30)
    assert asked_at_once == [("first",), ("a ||| b", "c ||| d"), ("a ||| b", "no pair")]
    service.close()


def test_more_than_may_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()

    def says(inputs: Sequence[str]) -> list[Prediction | str]:
        goes_on.wait(30)
        return [Prediction(text, text) for text in inputs]

    service = serving(monkeypatch, says)
    answers = [service.submit(["a"]) for _ in range(MOST_WAITING)]
    with pytest.raises(Busy):  # one may be with the model already
        answers += [service.submit(["a"]) for _ in range(2)]
    goes_on.set()
    assert all(len(answer.result(30)) == 1 for answer in answers)
    service.close()
