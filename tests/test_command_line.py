"""The whole, by running the command line: train, look, resume, evaluate, generate; and what bad input gets."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from corpora import chinese, english, written

SMALL = ["--set", "model.layers=2", "--set", "model.width=32", "--set", "model.context=32"]
PLAN = """
task: text-generation
data: corpus.txt
metric: bits_per_byte
model: {layers: 2, width: 32, context: 32, tokenizer: characters}
recipe: {batch_size: 8}
phases:
  - {name: first, until: 200 steps}
  - {name: second, until: 120 steps, recipe: {optimizer: adamw, learning_rate: 2e-3, frozen: ["embedding*"]}}
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from multistep.cli import main; main()", *arguments]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, env=environment)


def multistep(folder: Path, *arguments: str, code: int = 0) -> str:
    """Standard output of a verb, or standard error where another exit code than 0 is expected."""
    process = start(folder, *arguments)
    out, error = process.communicate(timeout=240)
    assert process.returncode == code, f"exit {process.returncode}\n{out}\n{error}"
    assert "Traceback" not in error
    return error if code else out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two phases in `run`, with its folder."""
    folder = tmp_path_factory.mktemp("finished")
    written(folder)
    (folder / "plan.yaml").write_text(PLAN, encoding="utf-8")
    multistep(folder, "train", "plan.yaml", "--out", "run")
    return folder


def result(folder: Path, name: str = "run") -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / name / "result.json").read_text(encoding="utf-8"))
    return record


def test_a_finished_run_says_what_other_programs_need(run: Path) -> None:
    record = result(run)
    assert record["metric"] == "bits_per_byte"
    assert record["goal"] == "minimize"
    assert record["steps"] == 320
    assert record["examples"] == 320 * 8
    assert record["stopped"] == "length"
    assert next(t["verdict"] for t in record["trials"] if t["kind"] == "control") == "keep"
    for split in ("validation", "test"):
        score = record[split]
        assert score["low"] < score["score"] < score["high"]
        assert score["n"] >= 2
        assert record["baseline"][split]["score"] > 0
    assert record["seconds"]["total"] == pytest.approx(sum(record["seconds"].values()) / 2, abs=0.1)
    assert record["validation"]["score"] < 2.0, "a small grammar is learnt in 320 steps"


def test_the_run_directory_holds_what_the_design_says(run: Path) -> None:
    names = {path.name for path in (run / "run").iterdir()}
    expected = {"plan.yaml", "resolved.json", "journal.jsonl", "evaluations", "checkpoints", "model", "result.json"}
    assert expected | {"report.html", "events"} <= names
    page = (run / "run" / "report.html").read_text(encoding="utf-8")
    assert f"{result(run)['test']['score']:.4f}" in page


def test_the_model_loads_in_stock_transformers_and_scores_the_same(run: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    folder = run / "run" / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "NanoChatForCausalLM"
    text = english(300, seed=5)
    (run / "held-out.txt").write_text(text, encoding="utf-8")
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    assert tokenizer.decode(ids) == text
    found = json.loads(multistep(run, "evaluate", "run/model", "--data", "held-out.txt", "--json"))
    context, start = 32, torch.tensor([tokenizer.bos_token_id])
    padded, nats = torch.cat((start, ids)), 0.0
    size = 2048  # characters of a span; the last takes the rest
    edges = [*range(0, len(ids) // size * size, size), len(ids)]
    for left, right in itertools.pairwise(edges):
        for begin in range(left, right, context):
            end = min(begin + context, right)
            with torch.no_grad():
                logits = model(padded[None, begin:end]).logits[0]
            nats += float(torch.nn.functional.cross_entropy(logits, padded[begin + 1 : end + 1], reduction="sum"))
    assert found["scores"]["loss"]["score"] == pytest.approx(nats / len(ids), abs=1e-4)
    written_text = pipeline("text-generation", model=str(folder))("the cat", max_new_tokens=10)[0]["generated_text"]
    assert written_text.startswith("the cat")


def test_the_other_verbs_read_the_run(run: Path) -> None:
    assert "second" in multistep(run, "show", "run")
    shown = json.loads(multistep(run, "show", "run", "--json"))
    assert shown["test"]["score"] == result(run)["test"]["score"]
    (run / "run" / "report.html").unlink()
    assert multistep(run, "report", "run").strip().endswith("report.html")
    assert (run / "run" / "report.html").exists()
    text = json.loads(multistep(run, "generate", "run", "--prompt", "nobody", "--tokens", "40", "--json"))["text"]
    assert text.startswith("nobody")
    assert len(text) == len("nobody") + 40
    again = json.loads(multistep(run, "train", "plan.yaml", "--out", "run", "--json"))
    assert again == result(run), "the same command again returns the finished run"


def wait_for(journal: Path, what: str, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if journal.exists() and what in journal.read_text(encoding="utf-8"):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen")


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_resumes_to_the_same_bits(run: Path, tmp_path: Path, kind: signal.Signals, code: int) -> None:
    (tmp_path / "corpus.txt").write_bytes((run / "corpus.txt").read_bytes())
    (tmp_path / "plan.yaml").write_text(PLAN, encoding="utf-8")
    process = start(tmp_path, "train", "plan.yaml", "--out", "run")
    wait_for(tmp_path / "run" / "journal.jsonl", '"phase": 1' if kind is signal.SIGTERM else '"window_done"', process)
    process.send_signal(kind)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    if code > 0:
        assert "go on with `multistep resume run`" in error
    verb = ["train", "plan.yaml", "--out", "run"] if kind is signal.SIGKILL else ["resume", "run"]
    multistep(tmp_path, *verb)
    assert result(tmp_path)["weights_sha256"] == result(run)["weights_sha256"]
    assert result(tmp_path)["kills_survived"] == 1


def test_a_budget_is_kept_and_chinese_works_as_well(tmp_path: Path) -> None:
    """A folder with splits, BPE by default rule, a time budget of 12 seconds, a few lines of Python."""
    folder = tmp_path / "poems"
    folder.mkdir()
    for name, lines, seed in (("train", 4000, 1), ("val", 400, 2), ("test", 400, 3)):
        (folder / f"{name}.txt").write_text(chinese(lines, seed), encoding="utf-8")
    script = (
        "import json, multistep\n"
        "result = multistep.train(task='text-generation', data='poems', budget='12s', out='run',\n"
        "                         model={'width': 32, 'layers': 2, 'vocabulary': 400})\n"
        "print(json.dumps([result.score, result.stopped, str(result.model), len(result.verdicts)]))\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    score, stopped, model, verdicts = json.loads(done.stdout)
    record = result(tmp_path)
    assert stopped == "budget"
    assert model == "run/model"
    assert verdicts == 1
    assert score == record["test"]["score"]
    assert record["seconds"]["total"] < 17 < 60 + began
    words = multistep(tmp_path, "generate", "run/model", "--prompt", "春风", "--tokens", "20")
    assert words.startswith("春风")


def test_check_says_what_a_run_here_costs_once_there_was_one(run: Path) -> None:
    found = json.loads(multistep(run, "check", "plan.yaml", "--json"))
    assert found["phases"][1]["recipe"]["frozen"] == ["embedding*"]
    assert found["reproducible"] == "bit for bit"
    assert found["cost"]["seconds"] > 0
    fresh = {**os.environ, "XDG_CACHE_HOME": str(run / "elsewhere")}
    script = "from multistep.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "check", "plan.yaml"],
        cwd=run,
        env=fresh,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cost: unknown" in done.stdout


def bad(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "missing.txt"),
        ("empty.txt", b"", "empty"),
        ("binary.txt", b"abc\x00\x01\x02" * 100, "binary|NUL"),
        ("latin.txt", "déjà vu ".encode("latin-1") * 200, "not UTF-8"),
        ("short.txt", b"too short", "character"),
    ],
)
def test_data_that_cannot_be_used_gets_one_clear_message(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    import re

    if content is not None:
        bad(tmp_path, name, content)
    error = multistep(tmp_path, "train", "--task", "text-generation", "--data", name, "--budget", "5s", code=2)
    last = error.strip().splitlines()[-1]
    assert last.startswith("multistep: ")
    assert re.search(message, last), last


def test_text_shorter_than_one_context_says_which_context_would_do(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text(english(40), encoding="utf-8")
    arguments = ["train", "--task", "text-generation", "--data", "small.txt", "--set", "model.context=2000"]
    error = multistep(tmp_path, *arguments, "--set", "model.tokenizer=characters", code=2)
    assert "less than two contexts of 2000" in error
    assert "set model.context to" in error


def test_a_budget_too_small_for_one_evaluation_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    error = multistep(
        tmp_path, "train", "--task", "text-generation", "--data", "corpus.txt", "--budget", "0.5s", *SMALL, code=2
    )
    assert "budget" in error
    assert "at least" in error


def test_other_mistakes_exit_with_two_and_failures_with_one(run: Path, tmp_path: Path) -> None:
    assert "no run there" in multistep(tmp_path, "resume", "nowhere", code=2)
    assert "name a plan file" in multistep(tmp_path, "train", code=2)
    arguments = ["train", "--task", "text-generation", "--data", "corpus.txt", "--out", "run", "--budget", "3 steps"]
    assert "of another plan" in multistep(run, *arguments, code=2)
    assert "holds no model" in multistep(run, "evaluate", ".", "--data", "corpus.txt", code=2)
    error = multistep(run, "train", "--task", "text-generation", "--data", "corpus.txt", "--model", "nanochatt", code=2)
    assert "Did you mean 'nanochat'" in error


def test_a_model_folder_is_trained_further(run: Path) -> None:
    arguments = ["train", "--task", "text-generation", "--data", "corpus.txt", "--model", "run/model", "--out", "more"]
    multistep(run, *arguments, "--budget", "30 steps", "--set", "recipe.batch_size=8")
    assert result(run, "more")["parameters"] == result(run)["parameters"]
    assert result(run, "more")["scores"]["test"]["bits_per_byte"] < 2.0


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_other_architectures_train_and_export(run: Path, name: str) -> None:
    out = f"as-{name}"
    arguments = ["train", "--task", "text-generation", "--data", "corpus.txt", "--model", name, "--out", out]
    multistep(run, *arguments, "--budget", "20 steps", *SMALL, "--set", "model.heads=2")
    config = json.loads((run / out / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == name
    scored = json.loads(multistep(run, "evaluate", f"{out}/model", "--data", "held-out.txt", "--json"))
    assert scored["scores"]["bits_per_byte"]["score"] < 8


def test_imports_point_down() -> None:
    root = Path(__file__).parents[1]
    found = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=root, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout
