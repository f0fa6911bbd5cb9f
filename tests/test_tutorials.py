"""The tutorials, followed as they are written: each block marked `sh` or `python` is run, in order, in one folder.

The budgets are shortened, and the data are made here where a page has the reader bring them.
"""

from __future__ import annotations

import json
import math
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from tiny_chat import write_tiny_chat
from typer.testing import CliRunner

from multistep.cli import app

TUTORIALS = Path(__file__).parents[1] / "docs/tutorials"
Follow = Callable[..., list[str]]


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Follow:
    """Follow a page in tmp_path; `instead` has what stands in the page for what is run. What each command printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def following(page: str, instead: Mapping[str, str], *, typed: str = "") -> list[str]:
        text = (TUTORIALS / page).read_text(encoding="utf-8").replace(" \\\n    ", " ")
        for written, run in instead.items():
            assert written in text, f"{page} has no {written!r}"
            text = text.replace(written, run)
        said = []
        space: dict[str, object] = {"__name__": "tutorial"}
        for language, title, code in re.findall(r'^```(sh|python)(?: title="([^"]*)")?\n(.*?)^```', text, re.M | re.S):
            if title:
                Path(title).write_text(code, encoding="utf-8")
            elif language == "python":
                exec(compile(code, page, "exec"), space)
                said.append(capsys.readouterr().out)
            else:
                said += [_command(line, typed) for line in code.splitlines() if line]
        return said

    return following


def _command(line: str, typed: str) -> str:
    program, *arguments = shlex.split(line)
    if program == "python":
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
    assert program == "multistep", line
    ended = CliRunner().invoke(app, arguments, input=typed, catch_exceptions=False)
    assert ended.exit_code == 0, f"{line}\n{ended.output}"
    return str(ended.stdout)


WORDS = {
    "positive": ["warm", "funny", "moving", "clever", "lovely", "touching", "graceful", "charming"],
    "negative": ["dull", "tired", "empty", "clumsy", "boring", "lifeless", "shallow", "tedious"],
}


def reviews(path: Path, rows: int, *, labelled: bool) -> None:
    choose = random.Random(rows)
    lines = ["review,sentiment" if labelled else "review"]
    for number in range(rows):
        mood = choose.choice(list(WORDS))
        words = choose.sample(WORDS[mood], 2)
        review = f"a {words[0]} and {words[1]} film with number {number} in its title"
        lines.append(f"{review},{mood}" if labelled else review)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_sentiment(tmp_path: Path, follow: Follow) -> None:
    reviews(tmp_path / "reviews.csv", 400, labelled=True)
    reviews(tmp_path / "new.csv", 30, labelled=False)
    understood, trained, said, _, loaded = follow("sentiment.md", {"--budget 1m": "--budget '60 steps'"})
    assert "2 in training: " in understood
    assert "Accuracy on the test split (higher is better" in trained
    assert re.search("warm and funny film +│ positive", said)
    answers = (tmp_path / "answers.csv").read_text(encoding="utf-8").splitlines()
    assert answers[0] == "review,prediction,probability"
    assert len(answers) == 31
    for answer in answers[1:]:
        review, mood, _ = answer.split(",")
        assert review.split()[1] in WORDS[mood]
    assert loaded.startswith("positive")


def photos(folder: Path, photographs: int, seed: int) -> None:
    """Pictures with a bar across or down, in a folder for each."""
    from PIL import Image

    draw = np.random.default_rng(seed)
    for name in ("across", "down"):
        (folder / name).mkdir(parents=True)
        for number in range(photographs):
            picture = draw.integers(0, 60, (24, 24, 3), dtype=np.uint8)
            picture[draw.integers(3, 19) :][:3] = 220
            picture = picture if name == "across" else picture.swapaxes(0, 1)
            Image.fromarray(picture).save(folder / name / f"{number}.png")


@pytest.mark.slow
def test_photos(tmp_path: Path, follow: Follow) -> None:
    photos(tmp_path / "photos", 60, 0)
    photos(tmp_path / "made", 4, 1)
    (new := tmp_path / "new-photos").mkdir()
    for number, path in enumerate(sorted((tmp_path / "made").rglob("*.png"))):
        path.rename(new / ("first.png" if number == 0 else f"{number:02}.png"))
    trained, said, _, used = follow("photos.md", {"--budget 1m": "--budget '40 steps'"})
    assert re.search(r"baseline +\d+\.\d%  \(.*\)  logistic regression on pixels", trained)
    assert len(re.findall('"top": ', said)) == 8
    answers = (tmp_path / "answers.csv").read_text(encoding="utf-8")
    assert len(re.findall(r"across", answers)) == 4
    assert used.strip() == "across"


@pytest.mark.slow
def test_own_module(tmp_path: Path, follow: Follow) -> None:
    trained, shown, _ = follow("own-module.md", {'budget="1m"': 'budget="200 steps"'})
    error, baseline = (float(number) for number in re.findall(r"(?:network|baseline) +(\d+\.\d+) \(", trained))
    assert baseline == pytest.approx(40.4, abs=0.1)
    assert error < 0.5 * baseline
    assert re.search(r"0\.trunk +\d+", shown)


@pytest.mark.slow
def test_chat(tmp_path: Path, follow: Follow) -> None:
    write_tiny_chat(tmp_path / "tiny")
    trained, talked, used = follow(
        "chat.md",
        {"--model HuggingFaceTB/SmolLM2-135M-Instruct --budget 3m": "--model tiny --budget '30 steps'"},
        typed="How often do I water basil?\n",
    )[-3:]
    before = float(re.findall(r"before training +(\d+\.\d+)", trained)[0])
    after = float(re.findall(r"network +(\d+\.\d+)", trained)[0])
    assert after < before - 1
    assert len((tmp_path / "chats.jsonl").read_text(encoding="utf-8").splitlines()) == 128
    assert used.strip() in talked


def spoken(folder: Path) -> None:
    """Words of two tones each, said by six people at pitches of their own, in the names that the page expects."""
    import soundfile

    folder.mkdir()
    draw = np.random.default_rng(0)
    time = np.arange(3200) / 8000
    for digit in (1, 2):
        for pitch, speaker in enumerate(["ada", "ben", "cai", "dot", "eve", "fay"]):
            for number in range(6):
                tones = (500, 1500) if digit == 1 else (1500, 500)
                half = len(time) // 2
                wave = np.sin(2 * math.pi * np.where(np.arange(len(time)) < half, *tones) * (1 + pitch / 40) * time)
                sound = 0.4 * wave + 0.01 * draw.standard_normal(len(time))
                soundfile.write(folder / f"{digit}_{speaker}_{number}.wav", sound, 8000)


@pytest.mark.slow
def test_voice_commands(tmp_path: Path, follow: Follow) -> None:
    spoken(tmp_path / "clips")
    names = {"7_nicolas_0": "1_ada_0", "2_nicolas_1": "2_ada_1"}
    trained, said, _ = follow("voice-commands.md", {"--budget 3m": "--budget '60 steps'", **names})[-3:]
    assert "WER on the test split (lower is better" in trained
    assert "clips/1_ada_0.wav" in said


@pytest.mark.slow
def test_coming_from_other_trainers(tmp_path: Path, follow: Follow) -> None:
    reviews(tmp_path / "reviews.csv", 300, labelled=True)
    photos(tmp_path / "photos", 40, 0)
    (tmp_path / "new-photos").mkdir()
    (tmp_path / "photos/across/0.png").rename(tmp_path / "new-photos/first.png")
    text, own, images, _, said = follow(
        "coming-from.md",
        {
            'model="distilbert/distilbert-base-uncased",\n    budget="10m"': 'model="scratch",\n    steps=20',
            'budget="1m"': "steps=30",
            'budget="10m"': "steps=12",
            "--budget 10m --out": "--steps 12 --out",
        },
    )
    for result, metric in ((text, "accuracy"), (own, "accuracy"), (images, "accuracy")):
        assert result.startswith(f"Result: {metric} on the test split")
        assert re.search(r"network +\d+\.\d% ", result)
    assert re.search("first.png +│ (across|down)", said)


@pytest.mark.slow
def test_reading_the_report(tmp_path: Path, follow: Follow) -> None:
    """The words that the page explains are those that a run shows."""
    reviews(tmp_path / "reviews.csv", 400, labelled=True)
    _, rewritten = follow("reading-the-report.md", {"--budget 1m": "--budget '600 steps'"})
    assert "runs/sentiment/report.html" in rewritten
    report = (tmp_path / "runs/sentiment/report.html").read_text(encoding="utf-8")
    page = (TUTORIALS / "reading-the-report.md").read_text(encoding="utf-8")
    for words in ("higher is better", "95% interval", "Did it overfit", "What was tried", "Weighed against"):
        assert words in report
        assert words.lower() in page.lower()
    record = json.loads((tmp_path / "runs/sentiment/result.json").read_text(encoding="utf-8"))
    assert {trial["verdict"] for trial in record["trials"]} >= {None, "leads"}
