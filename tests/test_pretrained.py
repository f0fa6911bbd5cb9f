"""`model: auto`: which pretrained model is taken, from where, what is said of it, and that a run keeps its choice."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import Killed
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from multistep import api
from multistep.core.evidence.metric import metric_named
from multistep.core.values.events import Entry, VerdictGiven, WindowDone
from multistep.core.values.history import History
from multistep.core.values.plan import Plan
from multistep.engine.clock import BudgetClock
from multistep.engine.learner import Readiness
from multistep.engine.planfile import plan_from, to_yaml
from multistep.engine.rundir import RunDirectory, plan_hash
from multistep.engine.simulate import FakeClock
from multistep.errors import PlanError
from multistep.tasks import workshop_for
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.labelled.linear_probe import LinearProbe
from multistep.tasks.labelled.scale import Scale
from multistep.tasks.language.load import classifier, load_encoder
from multistep.tasks.language.mean import LOUDER, add_mean_layer, wants_mean
from multistep.tasks.language.probe import affordable
from multistep.tasks.language.tokenizer import make_tokenizer
from multistep.tasks.pretrained.choose import Need, choose
from multistep.tasks.pretrained.listed import LISTED, listed_for
from multistep.tasks.pretrained.script import kind_of
from multistep.tasks.pretrained.where import local

MINILM, ROOT = "sentence-transformers/all-MiniLM-L6-v2", Path(__file__).parents[1]
ENGLISH = [f"a {word} film of {n} hours" for n in range(100) for word in ("good", "bad", "dull", "fine")]
BY_FIRST_TOKEN = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}  # as BGE has it
NEED = Need("text-classification", "English", 5000, 25.0, 600.0, 6e10)


def tiny_encoder(folder: Path) -> Path:
    """A BERT of two layers with its tokenizer and no head, as sentence encoders are published."""
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(ENGLISH, "wordpiece", 300)
    config: Any = BertConfig  # whose types do not know of keywords in a mapping
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(config(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=64, **sizes)).save_pretrained(
        folder
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]", "sep_token": "[SEP]"}
    whole: Any = PreTrainedTokenizerFast
    whole(tokenizer_object=tokenizer, cls_token="[CLS]", model_max_length=64, **special).save_pretrained(folder)
    return folder


def cached(cache: Path, model: str = MINILM) -> Path:
    """The model in a cache as the hub's library lays it out."""
    place = cache / f"models--{model.replace('/', '--')}"
    folder = tiny_encoder(place / "snapshots" / "0123abcd")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123abcd")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    rows = [json.dumps({"text": text, "label": "+" if "good" in text or "fine" in text else "-"}) for text in ENGLISH]
    (tmp_path / "reviews.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path / "reviews.jsonl"


def plan_for(reviews: Path, **changes: Any) -> Plan:
    return plan_from({"task": "text-classification", "data": str(reviews), "budget": "90s", **changes})


def opened(plan: Plan) -> Readiness:
    return workshop_for(plan).open(plan, 0, lambda: False)[1]


# What is chosen -----------------------------------------------------------------------------------------


def test_auto_takes_what_is_cached_and_says_size_and_licence(cache: Path, reviews: Path) -> None:
    snapshot = cached(cache)
    ready = opened(plan_for(reviews))
    assert ready.facts.pretrained
    assert ready.models == (str(snapshot),)
    assert ready.facts.description.startswith(f"{MINILM} (bert)")
    assert ready.facts.notes[0] == (
        f"starts from {MINILM} (23 million parameters, 92 MB, Apache-2.0), in the local cache; `--model scratch` "
        "starts from nothing"
    )
    for nothing in ({"model": "scratch"}, {"model": {"width": 8}}, {"recipe": {"learning_rate": 0.01}}):
        other = opened(plan_for(reviews, **nothing))
        assert (other.facts.pretrained, other.models) == (False, ())
        assert not any("starts from" in note for note in other.facts.notes)


def test_without_a_model_it_starts_from_nothing_and_says_what_would_be_better(cache: Path, reviews: Path) -> None:
    ready = opened(plan_for(reviews))
    assert (ready.recipe.model, ready.models) == ("bag", ("scratch",))
    assert ready.facts.notes[0] == (
        f"from nothing: {MINILM} (23 million parameters, 92 MB, Apache-2.0), would be a better start, but it is not on "
        f"this machine and the hub cannot be asked (HF_HUB_OFFLINE is set); `hf download {MINILM}` gets it, or a "
        "folder in MULTISTEP_PRETRAINED that holds it"
    )


def test_folders_of_the_users_own_come_first(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, reviews: Path
) -> None:
    cached(cache)
    mine = tiny_encoder(tmp_path / "mine" / "all-MiniLM-L6-v2")
    monkeypatch.setenv("MULTISTEP_PRETRAINED", f"{tmp_path / 'none'}:{tmp_path / 'mine'}")
    assert opened(plan_for(reviews)).models == (str(mine),)
    (mine / "model.safetensors").unlink()
    assert local(MINILM) == cache / f"models--{MINILM.replace('/', '--')}/snapshots/0123abcd", "half a folder is none"


def test_the_time_decides_which_and_whether(cache: Path) -> None:
    large, small = (m.id for m in listed_for("text-classification", "English"))
    for model in (large, small):
        cached(cache, model)
    chosen = {s: choose(Need("text-classification", "English", 5000, 25.0, s, 6e10)) for s in (30.0, 600.0, 36_000.0)}
    assert chosen[30.0].source is None
    assert "30s are too few" in chosen[30.0].notes[0]
    assert "all-MiniLM" in str(chosen[600.0].source)
    assert "ModernBERT" in str(chosen[36_000.0].source)
    slow = choose(Need("text-classification", "English", 5000, 25.0, 90.0, 1e9))
    assert slow.source is None
    assert slow.notes[0].startswith(
        f"from nothing: of {small}, the smallest listed for text-classification, 90s hold about 34 training examples, "
        "and tuning it takes 1,000"
    )
    writes = choose(Need("text-generation", "English", 10**6, 1.0, 60.0, 1e9, least_examples=25_000))
    assert " tokens of training, and tuning it takes 25,000" in writes.notes[0]
    unknown = choose(Need("text-classification", "English", 5000, 25.0, None, 6e10))
    assert "all-MiniLM" in str(unknown.source), "no time says that the larger one pays"


def test_languages_are_told_by_their_letters() -> None:
    assert (
        kind_of(["The plot is thin, and so is the café."] + ["It works as well as it can be hoped."] * 20) == "English"
    )
    few = ["The plot is thin, and so is the café.", *["It works as well as hoped."] * 20]
    assert kind_of(few) == "English"
    assert kind_of(["酒店的服务很好, wifi 也快"]) == "Chinese"
    assert kind_of(["このホテルはとても良かったです"]) == "any language"
    assert kind_of(["Das Hotel war schön, nur das Frühstück fehlte."]) == "any language"
    assert kind_of([]) == "English"


def test_the_list_is_permissive_and_documented() -> None:
    page = (ROOT / "docs/how-to/pretrained.md").read_text(encoding="utf-8")
    assert len({m.id for m in LISTED}) == len(LISTED)
    for model in LISTED:
        assert model.licence in ("Apache-2.0", "MIT")
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{model.id}` |"))
        told = [cell.strip() for cell in row.split("|")[2:8]]
        assert told[0].split(", ")[: len(model.tasks)] == sorted(model.tasks, reverse=True)
        assert told[1:3] == [model.kind, f"{model.parameters / 1e6:.0f}"]
        assert told[3:5] == [str(model.megabytes), model.licence]
    for task in ("text-classification", "fill-mask", "text-generation", "speech-recognition"):
        assert all(listed_for(task, kind) for kind in ("English", "Chinese", "any language"))
    assert [m.id for m in listed_for("text-generation", "English", chat=True)][-1].endswith("Instruct")


# A run keeps its choice ---------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_with_what_it_chose(tmp_path: Path, cache: Path, reviews: Path) -> None:
    """Begun with nothing in the cache, killed, and gone on with once a better model has come."""
    plan = plan_for(reviews, budget="60 steps", moves=[], ship="network")

    def run(out: Path, kill: bool = False) -> api.Result:
        def on_entry(entry: Entry, history: History) -> None:
            if kill and isinstance(entry.event, WindowDone):
                raise Killed

        return api.run(plan, RunDirectory(out), clock=BudgetClock(FakeClock().now), on_entry=on_entry)

    with pytest.raises(Killed):
        run(tmp_path / "run", kill=True)
    cached(cache)
    result = run(tmp_path / "run")
    (phase,) = RunDirectory(tmp_path / "run").resolved_phases()
    assert phase["models"] == ["scratch"]
    assert (result.model / "net.py").exists(), "the bag's"
    with pytest.raises(Killed):
        run(tmp_path / "later", kill=True)
    cached(cache, "answerdotai/ModernBERT-base")
    result = run(tmp_path / "later")
    (phase,) = RunDirectory(tmp_path / "later").resolved_phases()
    assert phase["models"] == [str(local(MINILM))]
    assert json.loads((result.model / "config.json").read_text())["model_type"] == "bert"


# The hub ------------------------------------------------------------------------------------------------


class _Answers(BaseHTTPRequestHandler):
    """A hub with one model: what the library asks of it to tell and to fetch its files."""

    folder: Path

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        name, files = self.path.partition("?")[0], [p for p in sorted(self.folder.rglob("*")) if p.is_file()]
        names = [str(p.relative_to(self.folder)) for p in files]
        commit = "f" * 40
        if refused := next((code for code in ("GatedRepo", "RepoNotFound") if code in name), None):
            self.send_response(403 if refused == "GatedRepo" else 404)
            self.send_header("X-Error-Code", refused)
            self.end_headers()
            return
        if "/resolve/" in name:
            asked = self.folder / name.partition("/resolve/")[2].partition("/")[2]
            if not asked.is_file():
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                return
            content = asked.read_bytes()
        elif "/tree/" in name:
            sizes = [(name, path.stat().st_size) for name, path in zip(names, files, strict=True)]
            tree = [{"type": "file", "path": path, "size": size, "oid": "0" * 40} for path, size in sizes]
            content = json.dumps(tree).encode()
        elif name.startswith(f"/api/models/{MINILM}"):
            siblings = [{"rfilename": path} for path in names]
            content = json.dumps({"id": MINILM, "sha": commit, "gated": False, "siblings": siblings}).encode()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for key, value in (("ETag", f'"{len(content)}"'), ("X-Repo-Commit", commit), ("Content-Length", len(content))):
            self.send_header(key, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def hub() -> Iterator[int]:
    """A server that has the files of `_Answers.folder`; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library believes that the hub is at an address of this machine."""

    def at(port: int) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
        file = f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", file)

    return at


def test_what_the_hub_has_is_downloaded_into_the_cache(tmp_path: Path, cache: Path, online: Any) -> None:
    _Answers.folder = tiny_encoder(tmp_path / "published")
    for folder, name, text in (("1_Pooling", "config.json", json.dumps(BY_FIRST_TOKEN)), ("onnx", "model.onnx", "")):
        (_Answers.folder / folder).mkdir()
        (_Answers.folder / folder / name).write_text(text, encoding="utf-8")
    with hub() as port:
        online(port)
        chosen = choose(NEED)
    assert chosen.source == str(local(MINILM)), chosen.notes
    assert "downloaded from the hub" in chosen.notes[0]
    theirs, ours = _Answers.folder / "model.safetensors", Path(str(chosen.source)) / "model.safetensors"
    assert ours.read_bytes() == theirs.read_bytes()
    assert not (ours.parent / "onnx").exists(), "the same weights in another format"
    assert json.loads((ours.parent / "1_Pooling/config.json").read_text()) == BY_FIRST_TOKEN


def test_what_an_encoder_says_a_text_by_is_asked_of_the_hub(tmp_path: Path, cache: Path, online: Any) -> None:
    """Of BGE, which speaks by its first token, a classifier reads that; of others the mean of all."""
    model = classifier(
        load_encoder(str(tiny_encoder(tmp_path / "encoder"))), Labels("class", ("-", "+")), Scale()
    ).model
    fresh = ("classifier.weight",)
    _Answers.folder = tmp_path / "published"
    (_Answers.folder / "1_Pooling").mkdir(parents=True)
    (_Answers.folder / "1_Pooling/config.json").write_text(json.dumps(BY_FIRST_TOKEN), encoding="utf-8")
    assert wants_mean(model, fresh, str(tmp_path / "encoder")), "a folder that says nothing of it"
    assert not wants_mean(model, fresh, str(_Answers.folder))
    with hub() as port:
        online(port)
        assert not wants_mean(model, fresh, MINILM)
        (_Answers.folder / "1_Pooling/config.json").unlink()
        assert wants_mean(model, fresh, "some/other")
    assert not wants_mean(model, fresh, MINILM), "what was fetched once is known without the hub"


def test_a_hub_that_does_not_answer_costs_seconds_once(cache: Path, online: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        online(silent.getsockname()[1])
        port, began = silent.getsockname()[1], time.monotonic()
        chosen = choose(NEED)
    assert time.monotonic() - began < 5.5
    assert chosen.source is None
    assert "the hub cannot be asked (" in chosen.notes[0]
    online(port)  # closed by now
    began = time.monotonic()
    assert choose(NEED).source is None
    assert time.monotonic() - began < 1.0, "who is refused waits for nothing"


def test_models_that_are_not_to_be_had_are_told_apart(tmp_path: Path, cache: Path, online: Any) -> None:
    with pytest.raises(PlanError, match=r"HF_HUB_OFFLINE is set and it is not in the cache: `hf download some/thing` "):
        load_encoder("some/thing")
    _Answers.folder = tmp_path
    with hub() as port:
        online(port)
        with pytest.raises(PlanError, match=r"it is gated: accept its terms .* log in with `hf auth login`"):
            load_encoder("some/GatedRepo")
        with pytest.raises(PlanError, match=r"the hub has no such model, or shows it only to some: check the spelling"):
            load_encoder("some/RepoNotFound")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    """The library makes one of its five special tokens, for which all texts are alike."""
    folder = tiny_encoder(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(PlanError, match=r"has no tokenizer \(neither tokenizer.json nor its vocabulary\); copy those"):
        load_encoder(str(folder))


# The probe ----------------------------------------------------------------------------------------------


def test_fine_tuning_begins_from_a_linear_probe_that_transformers_loads(
    reviews: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(cache)
    monkeypatch.setenv("MULTISTEP_CACHE", str(tmp_path / "made"))
    plan = plan_for(reviews, budget="10m", recipe={"head": "linear-probe"})
    learner, ready = workshop_for(plan).open(plan, 0, lambda: False)
    (note,) = (note for note in ready.facts.notes if "linear probe" in note)
    told = re.search(r"begins as a linear probe: logistic regression on frozen features of (\d+) training", note)
    assert told
    assert int(told[1]) >= 200
    assert ready.facts.able, "it is judged before anything is trained, and ships where nothing is better"
    learner.initial(ready.recipe, 0)
    before = metric_named("accuracy").score(learner.evaluate("validation", sample=False))
    assert before > 0.9, "which word it is stands in the mean of the features, whatever the weights"
    learner.export(tmp_path / "model", "")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert type(model).__name__ == "BertForSequenceClassification"
    assert model.config.num_hidden_layers == 3, "a layer that takes the mean of the tokens stands behind its two"
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "model")
    logits = model(**tokenizer(["a good film of 3 hours", "a bad film of 3 hours"], return_tensors="pt")).logits
    names = [model.config.id2label[i] for i in logits.argmax(1).tolist()]
    assert names == ["+", "-"]

    def never(*_: object) -> None:
        raise AssertionError("a run that goes on finds its probe in the cache")

    monkeypatch.setattr("multistep.tasks.labelled.linear_probe.features", never)
    again, _ = workshop_for(plan).open(plan, 0, lambda: False)
    again.initial(ready.recipe, 0)
    assert metric_named("accuracy").score(again.evaluate("validation", sample=False)) == before
    drawn = opened(plan_for(reviews, budget="10m", recipe={"head": "random"}))
    assert not drawn.facts.able
    with pytest.raises(PlanError, match=r"head is linear-probe, but no pretrained encoder is trained here"):
        opened(plan_for(reviews, model="scratch", recipe={"head": "linear-probe"}))


def test_a_layer_that_takes_the_mean_passes_it_on(tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_encoder(tmp_path / "encoder")))
    model = classifier(encoder, Labels("class", ("-", "+")), Scale()).model.eval()
    tokens = torch.tensor([[2, 20, 30, 3], [2, 40, 3, 0]])
    inside = (tokens != 0).long()
    with torch.no_grad():
        states = model.bert(tokens, inside)[0]
        mean = (states * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)
        add_mean_layer(model)
        passed = model.bert(tokens, inside)[0][:, 0]
    wanted = torch.nn.functional.layer_norm(LOUDER * mean + states[:, 0], mean.shape[1:])
    torch.testing.assert_close(passed, wanted, atol=1e-4, rtol=1e-4)
    model.train()
    model(tokens, inside).logits.square().sum().backward()
    added = model.bert.encoder.layer[-1]
    assert float(added.attention.self.query.weight.grad.abs().sum()) > 0, "it can learn to look more closely"
    assert float(added.output.dense.weight.grad.abs().sum()) > 0


def test_a_probe_of_two_or_three_classes_is_what_scikit_learn_says() -> None:
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(0)
    for classes in (2, 3):
        features, labels = draw.normal(3, 5, (90, 4)), draw.integers(0, classes, 90)
        probe = LinearProbe.fit(features, labels, classes + 1)
        logits = features @ probe.weight.numpy().T.astype(float) + probe.bias.numpy()
        found = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
        wanted = LogisticRegression(C=10 / 90, max_iter=300).fit(scaled, labels).predict_proba(scaled)
        assert np.abs(found[:, :classes] - wanted).max() < 1e-3
        assert found[:, classes].max() < 1e-3, "a class that the probe has not seen"


def test_a_probe_costs_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    class Minilm:
        class model:  # noqa: N801
            @staticmethod
            def named_parameters() -> Any:
                return [("bert.embeddings", torch.zeros(5)), ("bert.layer", torch.empty(10_600_000, device="meta"))]

    monkeypatch.setattr("multistep.tasks.language.probe.operations", lambda *_: 5.3e10)
    head: Any = Minilm()
    # A hundred texts a second: 5% of the time, less the validation split.
    assert affordable(head, 25.0, 6920, 872, 600.0) == 2000
    assert affordable(head, 25.0, 6920, 872, 300.0) == pytest.approx(1500 - 872, abs=2)
    assert affordable(head, 25.0, 6920, 872, 90.0) == 0
    assert affordable(head, 25.0, 6920, 872, None) == 2000


# Several ------------------------------------------------------------------------------------------------


def test_a_list_of_models_are_candidates(reviews: Path, cache: Path) -> None:
    snapshot = str(cached(cache))
    several = plan_for(reviews, model=["scratch", snapshot], budget="150s")
    assert several.model.candidates == ("scratch", snapshot)
    assert plan_for(reviews, model=f"scratch,{snapshot}", budget="150s") == several
    assert plan_from(json.loads(json.dumps({"task": "text-classification", "data": "a", "model": ["bert"]}))).model == (
        plan_from({"task": "text-classification", "data": "a", "model": "bert"}).model
    )
    assert plan_hash(several) != plan_hash(plan_for(reviews, model="scratch"))
    from ruamel.yaml import YAML

    assert plan_from(YAML(typ="safe").load(to_yaml(several))) == several
    ready = opened(several)
    assert (ready.recipe.model, ready.facts.pretrained) == ("all-MiniLM-L6-v2", True), "what knows something goes first"
    assert [recipe.model for recipe in ready.facts.rivals] == ["bag", "cnn", "bert"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ["a", "b", "a"]}, r"model: 'a' stands twice among the candidates \(a, b, a\); name each once"),
        ({"model": {"name": "a", "candidates": ["b", "c"]}}, r"model: both a name \(a\) and candidates \(b, c\)"),
        ({"model": ["a", "b"], "task": "fill-mask"}, r"raced in text-classification alone; name one for fill-mask"),
        ({"model": ["a", "b"], "phases": [{}, {}]}, "several candidates .* all phases train one network"),
        ({"model": ["a", "b"], "recipe": {"model": "bag"}}, "recipe.model names one; leave that out"),
        ({"model": {"candidates": ["a", "b"], "width": 8}}, "model.width: sizes are for one network"),
        ({"model": ["a", "b"], "budget": "3 epochs"}, "so with a budget of 3 epochs they could not be raced"),
        ({"model": []}, "names no model"),
    ],
)
def test_candidates_that_contradict_the_plan_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan_from({"task": "text-classification", "data": "a.csv", **changes})


def test_the_better_of_several_leads_a_run(tmp_path: Path, cache: Path, reviews: Path) -> None:
    """A tiny encoder with random weights against a bag, which tells the two words apart at once."""
    snapshot = str(cached(cache))
    plan = plan_for(reviews, model=[snapshot, "bag"], budget="400 steps", ship="network")
    verdicts: list[VerdictGiven] = []

    def on_entry(entry: Entry, history: History) -> None:
        verdicts.extend([entry.event] if isinstance(entry.event, VerdictGiven) else [])

    result = api.run(plan, RunDirectory(tmp_path / "run"), clock=BudgetClock(FakeClock().now), on_entry=on_entry)
    assert "0.model-bag" in [verdict.trial for verdict in verdicts]
    assert result.validation.score > 0.9
