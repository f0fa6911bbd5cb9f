"""The whole, by running the command line: train, look, resume, evaluate, generate; and what bad input gets."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import multistep, start
from corpora import chinese, english, written

from multistep import api
from multistep.core.values.plan import DataSpec
from multistep.engine.clock import BudgetClock
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import FULL_DISK
from multistep.engine.simulate import FakeClock
from multistep.errors import PlanError
from multistep.tasks.text.models import Maker, make_preset
from multistep.tasks.text.preset import Preset
from multistep.tasks.text.sizes import Shape

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
    assert next(t["verdict"] for t in record["trials"] if t["kind"] == "control") == "leads"
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
    assert f"{result(run)['test']['score']:.3f}" in page


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


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
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
    """A folder with splits, BPE by default rule, a time budget of 24 seconds, a few lines of Python."""
    folder = tmp_path / "poems"
    folder.mkdir()
    for name, lines, seed in (("train", 20_000, 1), ("val", 400, 2), ("test", 400, 3)):
        (folder / f"{name}.txt").write_text(chinese(lines, seed), encoding="utf-8")
    script = (
        "import json, multistep\n"
        "result = multistep.train(task='text-generation', data='poems', budget='24s', out='run',\n"
        "                         model={'width': 32, 'layers': 2, 'vocabulary': 400})\n"
        "print(json.dumps([result.score, result.stopped, str(result.model), len(result.verdicts)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    score, stopped, model, verdicts = json.loads(done.stdout)
    record = result(tmp_path)
    assert stopped == "budget"
    assert model == "run/model"
    assert verdicts == sum(trial["verdict"] is not None for trial in record["trials"]) >= 1
    assert score == record["test"]["score"]
    assert record["seconds"]["total"] < 30
    words = multistep(tmp_path, "generate", "run/model", "--prompt", "春风", "--tokens", "20")
    assert words.startswith("春风")


def test_check_says_what_a_run_here_costs_once_there_was_one(run: Path) -> None:
    found = json.loads(multistep(run, "check", "plan.yaml", "--json"))
    first = found["run"][0]
    assert first["pace"]["step_seconds"] > 0
    assert any("a step" in sentence for sentence in first["understood"]["training"])
    assert found["phases"][1]["recipe"]["frozen"] == ["embedding*"]
    assert found["reproducible"] == "bit for bit"
    assert found["cost"]["seconds"] > 0
    fresh = {**os.environ, "XDG_CACHE_HOME": str(run / "elsewhere")}
    script = "from multistep.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "check", "plan.yaml", "--plan-only"],
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
        ("damaged.txt", "déjà vu ".encode() * 200 + b"\xff", "not UTF-8"),
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


@pytest.mark.parametrize("name", ["qwen3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "llama"))])
def test_other_architectures_train_and_export(run: Path, name: str) -> None:
    out = f"as-{name}"
    arguments = ["train", "--task", "text-generation", "--data", "corpus.txt", "--model", name, "--out", out]
    multistep(run, *arguments, "--budget", "20 steps", *SMALL, "--set", "model.heads=2")
    config = json.loads((run / out / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == name
    (run / f"{out}.txt").write_text(english(30, seed=9), encoding="utf-8")
    scored = api.evaluate(run / out / "model", str(run / f"{out}.txt"))
    assert scored["scores"]["bits_per_byte"]["score"] < 8


def test_one_signal_kills_the_import_and_the_plan_resumes(tmp_path: Path) -> None:
    """SIGKILL comes while torch is imported, before there is anything to journal."""
    written(tmp_path)
    arguments = ["--task", "text-generation", "--data", "corpus.txt", "--out", "run", "--budget", "20 steps", *SMALL]
    process = start(tmp_path, "train", *arguments)
    for _ in range(1200):
        if (tmp_path / "run" / "resolved.json").exists():
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == b""
    (tmp_path / "elsewhere").mkdir()
    multistep(tmp_path / "elsewhere", "resume", "../run")
    assert result(tmp_path)["steps"] == 20


def test_ctrl_c_is_told_where_no_run_has_begun(tmp_path: Path) -> None:
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "from multistep.cli import app, main\n"
        "@app.command()\n"
        "def wait(): os.kill(os.getpid(), signal.SIGINT)\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, "wait"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "multistep: stopped by SIGINT\n")


def test_debug_stands_before_or_behind_the_verb_and_changes_no_exit_code(tmp_path: Path) -> None:
    for arguments in (["--debug", "show", "nowhere"], ["show", "nowhere", "--debug"]):
        process = start(tmp_path, *arguments)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "Traceback (most recent call last)" in error
        assert error.splitlines()[-1].startswith("multistep: nowhere: no run there")


def test_numbers_that_mean_nothing_are_refused(run: Path) -> None:
    for option, value, allowed in (
        ("--step-seconds", "0", "allowed: more than 0"),
        ("--step-seconds", "nan", "allowed: more than 0"),
        ("--noise", "-1", "allowed: 0 or more"),
        ("--seed", "-1", "--seed"),
    ):
        assert allowed in multistep(run, "simulate", "plan.yaml", option, value, code=2)
    assert "allowed: 0 or more" in multistep(run, "generate", "run", "--temperature", "nan", code=2)


def test_of_splits_the_test_split_is_scored_and_named(run: Path, tmp_path: Path) -> None:
    for split, seed in (("train", 1), ("val", 2), ("test", 3)):
        (tmp_path / f"{split}.txt").write_text(english(200, seed), encoding="utf-8")
    model = run / "run" / "model"
    found = api.evaluate(model, str(tmp_path))
    assert found["split"] == "test"
    assert found["scores"] == api.evaluate(model, str(tmp_path / "test.txt"))["scores"]
    assert api.evaluate(model, str(tmp_path / "test.txt"))["split"] is None
    shown = multistep(run, "evaluate", "run", "--data", str(tmp_path))
    assert f"{tmp_path},testsplit" in "".join(shown.split()), "wherever a narrow terminal breaks it"
    given = DataSpec(train=str(tmp_path / "train.txt"), validation=str(tmp_path / "val.txt"))
    assert api.evaluate(model, given)["split"] == "validation"
    rows = [{"text": english(60, i), "split": split} for i, split in enumerate(["train", "train", "dev"])]
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    marked = api.evaluate(model, str(table))
    assert (marked["split"], marked["examples"]) == ("validation", 1)
    assert found["scores"]["loss"]["unit"] == "nats per token"


def test_a_loss_is_told_in_its_own_unit(tmp_path: Path) -> None:
    from cases_language import SETTINGS, write_classes

    data = write_classes(tmp_path)
    phases = [{"name": "only", "until": "2 steps"}]
    wanted = plan_from({"task": "text-classification", "data": data, **SETTINGS, "phases": phases})
    result_ = api.train(wanted, out=tmp_path / "run", clock=BudgetClock(FakeClock().now))
    scores = api.evaluate(result_.model, data.test or "")["scores"]
    assert scores["loss"]["unit"] == "nats per example"
    assert scores["accuracy"]["unit"] == "of examples"


# Model folders --------------------------------------------------------------------------------------


def llama(layers: int = 1, width: int = 16, heads: int = 2) -> Maker:
    return make_preset(Preset("llama", "characters", None, Shape(layers, width, heads, 16)), [english(100)])


def changed(source: Path, target: Path, **settings: object) -> Path:
    """A copy of a model folder whose config.json says something else."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(json.dumps(config | settings), encoding="utf-8")
    return target


def test_a_damaged_model_folder_gets_one_clear_message(run: Path, tmp_path: Path) -> None:
    model, text = run / "run" / "model", str(run / "corpus.txt")
    broken = changed(model, tmp_path / "broken")
    (broken / "config.json").write_text('{"architectures": [', encoding="utf-8")
    with pytest.raises(PlanError, match=r"config.json: damaged, not JSON \(.*\); export or download"):
        api.evaluate(broken, text)
    (broken / "config.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(PlanError, match=r"config.json: damaged, not a JSON object"):
        api.predict(broken, ["a"])
    short = changed(model, tmp_path / "short")
    weights = short / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    own = tmp_path / "llama"
    own.mkdir()
    maker = llama()
    maker.write(maker.build(0), own)
    reason = "it is damaged, or holds another model than its config.json says: export or download it again"
    wide = changed(own, tmp_path / "wide", hidden_size=32)
    deep = changed(own, tmp_path / "deep", num_hidden_layers=3)
    heads = changed(own, tmp_path / "heads", num_attention_heads=5)
    for use in (lambda folder: api.generate(folder, "the", tokens=3), lambda folder: api.evaluate(folder, text)):
        assert use(own)
        for folder, why in ((short, ""), (wide, "misshapen, such as "), (deep, "18 weights are missing"), (heads, "")):
            with pytest.raises(PlanError, match=rf"model: {folder} cannot be loaded \(.*{why}.*\); {reason}"):
                use(folder)


def test_a_name_of_no_model_is_not_taken_for_one_that_writes(run: Path) -> None:
    for name in ("./nosuch", "/nosuch", "~/nosuch", f"{run}/nosuch"):
        with pytest.raises(PlanError, match=rf"^{name}: no such folder; name a model folder, "):
            api.predict(name, ["hello"])
    with pytest.raises(
        PlanError, match=r"^model 'nosuch': not on this machine, and HF_HUB_OFFLINE is set; check the name"
    ):
        api.predict("nosuch", ["hello"])
    with pytest.raises(PlanError, match=r"corpus.txt: is a file; name the model folder"):
        api.predict(run / "corpus.txt", ["hello"])
    assert "./nosuch: no such folder" in multistep(run, "predict", "./nosuch", "hello", code=2)


def test_sizes_that_no_model_can_have_are_refused_before_it_is_made() -> None:
    for architecture, width, heads in (("llama", 99, 3), ("qwen3", 32, 64), ("qwen3", 32, 3), ("gpt2", 32, 3)):
        shape = Shape(1, width, heads, 16)
        with pytest.raises(PlanError, match=rf"^model: width {width} cannot be cut into {heads} heads of equal width"):
            make_preset(Preset(architecture, "characters", None, shape), [english(100)])


def test_a_disk_that_is_full_at_the_export_is_told_as_such(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk; safetensors itself raises an exception without a number."""
    maker = llama(width=32)
    module = maker.build(0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            maker.write(module, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno in FULL_DISK


def test_imports_point_down() -> None:
    root = Path(__file__).parents[1]
    found = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=root, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout
