"""`--device` and `device=`: every verb that computes takes it, for that call alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from corpora import english
from typer.testing import CliRunner

import multistep
from multistep import cli
from multistep.errors import PlanError

LIST = r"device is 'cuda:99'; torch finds cpu.* on this machine"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text(english(900), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(text: Path) -> Path:
    size = {"name": "nanochat", "layers": 1, "width": 16, "heads": 2, "context": 16}
    out = text.parent / "run"
    task = "text-generation"
    result = multistep.train(
        task=task, data=text, model=size, batch_size=2, steps=2, lr=1e-3, device="cpu", out=out, progress=False
    )
    return result.model


CALLS: dict[str, Callable[[Path, Path, str], object]] = {
    "train": lambda model, text, device: multistep.train(
        task="text-generation", data=text, model="scratch", steps=2, device=device, out=text.parent / "other"
    ),
    "evaluate": lambda model, text, device: multistep.evaluate(model, text, device=device),
    "generate": lambda model, text, device: multistep.generate(model, "the", tokens=2, device=device),
    "chat": lambda model, text, device: multistep.chat(model, device=device),
}


@pytest.mark.parametrize("name", CALLS)
def test_python_takes_a_device_for_one_call(
    name: str, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTISTEP_DEVICE", "auto")
    with pytest.raises(PlanError, match=LIST):
        CALLS[name](model, text, "cuda:99")
    assert os.environ["MULTISTEP_DEVICE"] == "auto"
    if name != "train":
        assert CALLS[name](model, text, "cpu")


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "MODEL", "--data", "TEXT"],
        ["generate", "MODEL", "--tokens", "2"],
        ["chat", "MODEL"],
        ["serve", "MODEL"],
    ],
    ids=lambda words: words[0],
)
def test_the_command_line_takes_a_device(words: list[str], model: Path, text: Path) -> None:
    typed = [{"MODEL": str(model), "TEXT": str(text)}.get(word, word) for word in words]
    done = CliRunner().invoke(cli.app, [*typed, "--device", "cuda:99"], catch_exceptions=True)
    assert done.exit_code != 0
    said = f"{done.output} {done.exception}"
    assert "torch finds cpu" in said or ("predict" in words and "multistep generate" in said)
