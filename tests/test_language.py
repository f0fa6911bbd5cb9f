"""Encoders: tokenizers, hidden words, heads, phases that share a backbone, and what is said of new texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases_language import SETTINGS, class_inputs, opinions, write_classes, write_numbers, write_several
from safetensors.torch import load_file

from multistep import api
from multistep.backends.torch.devices import places_of
from multistep.backends.torch.groups import kinds, layers_below_head
from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.core.evidence.compare import compare
from multistep.core.evidence.metric import Evaluation, metric_named, scores_of
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.recipe import OptimizerName, Recipe
from multistep.engine.learner import Readiness
from multistep.engine.planfile import plan_from
from multistep.errors import DataError, PlanError
from multistep.tasks.labelled.counted import majority_note
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.labelled.loss import targets
from multistep.tasks.labelled.scale import Scale, scale_of
from multistep.tasks.language.baseline import Baseline, is_spaceless
from multistep.tasks.language.classify import logits_of
from multistep.tasks.language.counts import occurrences
from multistep.tasks.language.encode import encode_texts
from multistep.tasks.language.examples import Examples
from multistep.tasks.language.first_token import reads_first_token
from multistep.tasks.language.load import classifier, load_encoder, masked_model, new_encoder
from multistep.tasks.language.mask import masker_for
from multistep.tasks.language.masking import NO_LABEL, drop_words
from multistep.tasks.language.models import Encoder
from multistep.tasks.language.nets import BAG, Reader, TextNetConfig, words_of
from multistep.tasks.language.small import new_network
from multistep.tasks.language.spans import Texts, read_spans, word_bytes
from multistep.tasks.language.splits import load_labelled
from multistep.tasks.language.task import LanguageWorkshop
from multistep.tasks.language.tokenizer import SPECIAL, make_tokenizer, save_tokenizer

TEXTS = [text for text, _ in opinions(300, 0)]
TWO = Labels("class", ("bad", "good"))
STEPS: Mapping[str, Any] = {**SETTINGS, "phases": [{"name": "only", "until": "6 steps"}]}


def encoder(context: int = 64, layers: int = 2) -> Encoder:
    return new_encoder(make_tokenizer(TEXTS, "wordpiece", 200), layers=layers, width=16, heads=2, context=context)


def opened(plan: Plan, phase: int = 0) -> tuple[TorchLearner, Readiness]:
    learner, ready = LanguageWorkshop().open(plan, phase, lambda: False)
    assert isinstance(learner, TorchLearner)
    return learner, ready


# Tokenizers -----------------------------------------------------------------------------------------


def test_tokenizers_are_the_same_in_every_process() -> None:
    """Those of the library are not: ties between merges go by the order of a hash table."""
    program = (
        "import hashlib; from cases_language import opinions\n"
        "from multistep.tasks.language.tokenizer import make_tokenizer\n"
        "texts = [t + w for i, (t, _) in enumerate(opinions(300, 0)) for w in (f' {i} times', ' 好的书')]\n"
        "made = [make_tokenizer(texts, kind, 400).to_str() for kind in ('wordpiece', 'bpe')]\n"
        "print([hashlib.md5(one.encode()).hexdigest() for one in made])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", program]
    runs = {
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout for _ in range(3)
    }
    assert len(runs) == 1


def test_words_are_cut_into_pieces_and_chinese_into_characters() -> None:
    tokenizer = make_tokenizer([*TEXTS, "这本书很好看", "我不喜欢这本书"], "wordpiece", 300)
    assert tokenizer.encode("这本书 Lovely").tokens == ["[CLS]", "这", "本", "书", "lovely", "[SEP]"]
    assert tokenizer.encode("☃").tokens == ["[CLS]", "[UNK]", "[SEP]"]
    assert tokenizer.encode("a", "film").type_ids == [0, 0, 0, 1, 1]
    bytes_only = make_tokenizer(TEXTS, "bpe", 400)
    assert bytes_only.decode(bytes_only.encode("Ein Schneemann ☃!").ids).strip() == "Ein Schneemann ☃!"
    with pytest.raises(PlanError, match="byte-level BPE needs 261 or more"):
        make_tokenizer(TEXTS, "bpe", 100)


def test_long_texts_lose_their_end_and_are_counted() -> None:
    tokenizer = encoder().tokenizer
    found = encode_texts(tokenizer, [TEXTS[0], TEXTS[1] * 30], longest=16)
    assert (found.lengths.max(), found.cut) == (16, 1)
    assert found.tokens[found.starts[2] - 1] == tokenizer.token_to_id("[SEP]"), "the end is still marked"
    pairs = encode_texts(tokenizer, ["what a joy", "a"], ["a dull film", "b"], longest=16)
    words = pairs.words[: pairs.starts[1]].tolist()
    assert words == [-1, 0, 1, 2, -1, 3, 4, 5, -1], "words of a pair are numbered through"


# Hidden words ---------------------------------------------------------------------------------------


def test_whole_words_are_hidden_by_a_rule_of_seed_epoch_and_row() -> None:
    made = encoder()
    tokenizer, masker = made.tokenizer, masker_for(made)
    texts = ["fiercely unbelievable whatnots " + text for text in TEXTS]
    found = encode_texts(tokenizer, texts, longest=64)
    rows = np.arange(len(texts))
    tokens, words, _, inside = found.padded(rows, made.pad)
    shown, labels = masker(tokens, words, 0, np.zeros_like(rows), rows)
    hidden = labels != NO_LABEL
    assert (labels[hidden] == tokens[hidden]).all()
    assert (shown[~hidden] == tokens[~hidden]).all()
    assert hidden.any(1).all(), "at least one in each text"
    assert not hidden[~inside].any()
    for i in rows[:50]:
        for word in range(words[i].max() + 1):
            assert len(set(hidden[i, words[i] == word])) == 1, "all pieces of a word or none"
    wordy = (words >= 0) & (tokens != tokenizer.token_to_id("[UNK]"))
    assert hidden.sum() / wordy.sum() == pytest.approx(0.17, abs=0.03), "15%, and one in short texts"
    assert (shown == made.mask)[hidden].mean() == pytest.approx(0.8, abs=0.04)
    assert (shown == tokens)[hidden].mean() == pytest.approx(0.1, abs=0.04)
    some = rows[[5, 3]]
    part_tokens, part_words, _, _ = found.padded(some, made.pad)
    again, _ = masker(part_tokens, part_words, 0, np.zeros(2, np.int64), some)
    assert (again[0] == shown[5, : again.shape[1]]).all(), "whatever else is in the batch"
    other, _ = masker(tokens, words, 0, np.ones_like(rows), rows)
    assert (other != shown).any(1).mean() > 0.9, "other words in the next epoch"
    dropped = drop_words(tokens, words, int(made.mask or 0), 0.5, 0, np.zeros_like(rows), rows)
    assert (dropped == made.mask)[words >= 0].mean() == pytest.approx(0.5, abs=0.05)


def test_long_texts_become_spans_whose_blocks_hold_two_thousand_bytes() -> None:
    made = encoder(context=16)
    spans = read_spans(made.tokenizer, Texts((" . ".join(TEXTS), TEXTS[0])), 16)
    tokens = spans.encoded.tokens
    classes, ends = tokens[spans.encoded.starts[:-1]], tokens[spans.encoded.starts[1:] - 1]
    assert (classes == made.tokenizer.token_to_id("[CLS]")).all()
    assert (ends == made.tokenizer.token_to_id("[SEP]")).all()
    assert spans.encoded.lengths.max() == 16
    long = spans.block[spans.text == 0]
    assert len(set(long)) == pytest.approx(len(" . ".join(TEXTS)) / 2048, abs=2)
    assert spans.block[-1] > long.max(), "a text begins a block of its own"
    ids = made.tokenizer.encode("a lovely film", add_special_tokens=False).ids
    assert word_bytes(made.tokenizer)[ids].sum() == len("alovelyfilm")


# Models ---------------------------------------------------------------------------------------------


def test_the_head_sees_hidden_tokens_alone_and_says_what_the_whole_would() -> None:
    made = encoder()
    head = masked_model(made)
    model: Any = head.build(3).eval()
    found = encode_texts(made.tokenizer, TEXTS[:4], longest=64)
    tokens, _, types, inside = (torch.from_numpy(a) for a in found.padded(np.arange(4), made.pad))
    hidden = torch.zeros_like(inside)
    hidden[:, 2] = True
    with torch.inference_mode():
        some = head.hidden_logits(model, tokens, inside, types, places_of(hidden, None))
        whole = model(input_ids=tokens, attention_mask=inside.long()).logits[hidden]
    torch.testing.assert_close(some, whole)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_bert_that_works_out_its_first_token_alone_says_and_learns_what_the_whole_would(layers: int) -> None:
    head = classifier(encoder(layers=layers), TWO, Scale())
    model = head.build(0)
    model.eval()
    tokens, _, types, inside = encode_texts(head.encoder.tokenizer, TEXTS[:8], longest=32).padded(np.arange(8), 0)
    assert not inside.all()
    given = [torch.from_numpy(values.astype(np.int64)) for values in (tokens, inside, types)]
    whole = model(input_ids=given[0], attention_mask=given[1], token_type_ids=given[2]).logits
    assert reads_first_token(model)
    found = head.logits(model, *given)
    torch.testing.assert_close(found, whole)
    for one, other in zip(
        *(torch.autograd.grad(logits.square().sum(), list(model.parameters())) for logits in (found, whole)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_the_layers_and_kinds_of_a_bert() -> None:
    model = classifier(encoder(), TWO, Scale()).build(0)
    below = layers_below_head(model)
    names = {"classifier.weight": 0, "bert.pooler.dense.weight": 0, "bert.encoder.layer.1.output.dense.weight": 1}
    names |= {"bert.encoder.layer.0.output.dense.weight": 2, "bert.embeddings.word_embeddings.weight": 3}
    names |= {"bert.embeddings.LayerNorm.weight": 3}
    assert {name: below[name] for name in names} == names
    kind = {name: found for name, (found, _) in kinds(model).items()}
    assert kind["bert.encoder.layer.0.attention.self.query.weight"] == "matrix"
    assert kind["bert.embeddings.position_embeddings.weight"] == "embedding"
    assert kind["classifier.weight"] == "head"


def test_the_same_seed_builds_the_same_weights_and_dropout_is_the_recipes() -> None:
    head = classifier(encoder(), TWO, Scale())
    one, same, other = (head.build(seed).state_dict()["classifier.weight"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    model = head.build(0)
    head.configure(model, Recipe(learning_rate=1e-3, dropout=0.4))
    found = {module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert found == {0.4, 0.0}, "attention drops nothing"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that was trained for some steps, with its data."""
    folder = tmp_path_factory.mktemp("exported")
    api.train(plan_from({"task": "text-classification", "data": write_classes(folder), **STEPS}), out=folder / "run")
    return folder


def test_an_encoder_begins_other_tasks_with_new_heads(exported: Path, tmp_path: Path) -> None:
    model = str(exported / "run" / "model")
    loaded = load_encoder(model)
    assert loaded.pretrained
    assert not classifier(loaded, TWO, Scale()).fresh
    other = classifier(loaded, Labels("class", ("a", "b", "c")), Scale())
    assert set(other.fresh) == {"classifier.weight", "classifier.bias"}
    assert "made for other labels (bad, good)" in " ".join(other.notes)
    renamed = classifier(loaded, Labels("class", ("yes", "no")), Scale())
    assert set(renamed.fresh) == {"classifier.weight", "classifier.bias"}
    assert not torch.equal(
        renamed.build(0).state_dict()["classifier.weight"], renamed.build(1).state_dict()["classifier.weight"]
    )
    masked = masked_model(loaded)
    assert "it has no last layer for hidden words" in " ".join(masked.notes)
    assert torch.isfinite(masked.build(0).state_dict()["cls.predictions.transform.dense.weight"]).all()
    with pytest.raises(PlanError, match="reads at most 64 tokens"):
        load_encoder(model, 65)
    with pytest.raises(PlanError, match="holds no config"):
        load_encoder(str(tmp_path))
    with pytest.raises(PlanError, match="is neither a preset"):
        load_encoder("brt")
    data = DataSpec(source=str(exported / "test.csv"))
    plan = plan_from({"task": "text-classification", "data": data, "model": {"name": model, "layers": 3}})
    with pytest.raises(PlanError, match=r"model\.layers: .* has its own, which cannot"):
        opened(plan)


def test_a_pretrained_encoder_is_fine_tuned_by_another_recipe(exported: Path) -> None:
    data = DataSpec(source=str(exported / "train.csv"))
    model = str(exported / "run" / "model")
    recipe = {"layer_decay": 0.5, "frozen": ["bert.embeddings.*", "bert.encoder.layer.0.*"]}
    settings = {"task": "text-classification", "data": data, "model": model, "recipe": recipe}
    learner, ready = opened(plan_from(settings))
    assert (ready.recipe.optimizer, ready.recipe.learning_rate, ready.recipe.warmup_steps) == ("adamw", 1e-3, 100)
    assert ready.recipe.dropout == pytest.approx(0.1), "as the model has it"
    assert ready.recipe.augmentation == 0
    assert ready.facts.pretrained
    assert not ready.rate_open
    learner.initial(ready.recipe, 0)
    before = {name: p.clone() for name, p in learner._model.named_parameters()}
    learner.advance([1e-3] * 2)
    moved = {name for name, p in learner._model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if not name.startswith(("bert.embeddings", "bert.encoder"))}


def test_a_pretrained_encoder_has_a_recipe_for_a_budget_of_seconds(exported: Path) -> None:
    """How long its training texts are is not counted: no rule may divide by it."""
    data, model = DataSpec(source=str(exported / "train.csv")), str(exported / "run" / "model")
    for task in ("text-classification", "fill-mask"):
        _, ready = opened(plan_from({"task": task, "data": data, "model": model, "budget": "20s"}))
        assert ready.facts.pretrained
        assert (ready.recipe.learning_rate, ready.recipe.augmentation, ready.recipe.sharpness) == (1e-3, 0, 0)


def test_an_encoder_of_relative_places_reads_as_far_as_its_tokenizer_and_from_the_end(tmp_path: Path) -> None:
    """XLNet's max_position_embeddings is -1, and its head reads the last place, which must not be padding."""
    from transformers import XLNetConfig, XLNetForSequenceClassification

    tokenizer = encoder().tokenizer
    config = XLNetConfig(vocab_size=tokenizer.get_vocab_size(), d_model=16, n_layer=1, n_head=2, d_inner=32)
    assert config.max_position_embeddings == -1
    XLNetForSequenceClassification(config).save_pretrained(tmp_path)
    save_tokenizer(tokenizer, tmp_path, 2000)
    loaded = load_encoder(str(tmp_path))
    assert (loaded.longest, loaded.context) == (2000, 2000)
    found = api.predict(tmp_path, [TEXTS[0], TEXTS[1] * 9])
    assert found[0].probability == pytest.approx(api.predict(tmp_path, [TEXTS[0]])[0].probability, abs=1e-6)


def test_a_saved_tokenizer_tells_the_texts_of_a_pair_apart_in_transformers_too(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(encoder().tokenizer, tmp_path, 128)
    found = AutoTokenizer.from_pretrained(tmp_path)(TEXTS[0], TEXTS[1])
    ours = encoder().tokenizer.encode(TEXTS[0], TEXTS[1])
    assert (found["input_ids"], found["token_type_ids"]) == (ours.ids, ours.type_ids)
    assert set(ours.type_ids) == {0, 1}


def test_numbers_leave_the_house_in_their_own_unit(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    data = write_numbers(tmp_path)
    phase = {"name": "only", "until": "80 steps", "recipe": {"augmentation": 0.0}}
    settings = {**SETTINGS, "phases": [phase], "metric": "pearson", "ship": "network"}
    result = api.train(plan_from({"task": "text-classification", "data": data, **settings}), out=tmp_path / "run")
    assert result.record["scores"]["test"]["mean_squared_error"] < 400, "which is what always saying the mean costs"
    assert result.record["baseline"]["name"].startswith("TF-IDF of words and pairs of words with ridge")
    model = AutoModelForSequenceClassification.from_pretrained(result.model)
    assert model.config.problem_type == "regression"
    assert float(model.classifier.bias.detach()) == pytest.approx(50, abs=15)
    with pytest.raises(PlanError, match="label_smoothing"):
        api.train(
            plan_from({"task": "text-classification", "data": data, **STEPS, "recipe": {"label_smoothing": 0.1}}),
            out=tmp_path / "other",
        )


# Phases ---------------------------------------------------------------------------------------------


def test_hidden_words_first_and_classes_on_the_same_encoder(tmp_path: Path) -> None:
    data = write_classes(tmp_path)
    phases = [
        {"name": "hidden words", "task": "fill-mask", "until": "20 steps"},
        {"name": "classes", "until": "4 steps", "recipe": {"learning_rate": 1e-6, "warmup_steps": 0}},
    ]
    settings = {**SETTINGS, "phases": phases, "ship": "network"}
    plan = plan_from({"task": "text-classification", "data": data, **settings})
    result = api.train(plan, out=tmp_path / "run")
    assert result.metric == "accuracy"
    workshop = LanguageWorkshop()
    before = {}
    for phase in range(2):
        learner, ready = workshop.open(plan, phase, lambda: False)
        assert isinstance(learner, TorchLearner)
        learner.initial(ready.recipe, 0)
        before[phase] = dict(learner._model.named_parameters())
    shared = set(before[0]) & set(before[1])
    assert "bert.embeddings.word_embeddings.weight" in shared
    from transformers import AutoModelForSequenceClassification

    after = dict(AutoModelForSequenceClassification.from_pretrained(result.model).named_parameters())
    name = "bert.encoder.layer.0.output.dense.weight"
    moved = float((after[name] - before[1][name]).detach().abs().mean())
    assert moved > 1e-3, "the second phase hardly moved: this comes from the first"


def test_settings_that_mean_nothing_here_are_refused(exported: Path) -> None:
    data = DataSpec(source=str(exported / "train.csv"))
    for task, recipe, message in (
        ("text-classification", {"context": 32}, "how much of a text is read is model.context"),
        ("text-classification", {"resolution": [32]}, "has no meaning for text classification"),
        ("fill-mask", {"augmentation": 0.5}, "has no meaning for fill-mask"),
    ):
        plan = plan_from({"task": task, "data": data, **SETTINGS, "recipe": recipe})
        learner, ready = opened(plan)
        with pytest.raises(PlanError, match=message):
            learner.initial(ready.recipe, 0)
    with pytest.raises(PlanError, match="an encoder takes wordpiece or bpe"):
        opened(plan_from({"task": "fill-mask", "data": data, "model": {"tokenizer": "characters"}}))


# Scores, baselines and use --------------------------------------------------------------------------


def test_baselines_know_scripts_without_spaces_and_do_without_scikit_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_spaceless(["这本书很好看,我喜欢"])
    assert not is_spaceless(TEXTS)
    splits = load_labelled(write_classes(tmp_path))
    fitted = Baseline.fit(splits.train, splits.labels)
    assert scores_of(fitted.score(splits.test))["accuracy"] == 1.0
    several = load_labelled(write_several(tmp_path))
    assert scores_of(Baseline.fit(several.train, several.labels).score(several.test))["micro_f1"] > 0.9
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    plain = Baseline.fit(splits.train, splits.labels)
    assert plain.name == "majority"
    most = max(np.bincount(splits.train.labels)) == np.bincount(splits.train.labels)[1]
    share = np.mean(splits.test.labels == int(most))
    assert scores_of(plain.score(splits.test))["accuracy"] == pytest.approx(share)
    numbers = load_labelled(write_numbers(tmp_path))
    mean = Baseline.fit(numbers.train, numbers.labels)
    assert mean.name == "mean"
    assert scores_of(mean.score(numbers.test))["mean_squared_error"] == pytest.approx(400, rel=0.1)


def test_what_is_said_of_new_texts(exported: Path) -> None:
    model = exported / "run" / "model"
    found = api.predict(model, class_inputs(exported)[:3])
    for prediction in found:
        assert prediction.output in ("bad", "good")
        assert sum(prediction.others.values()) == pytest.approx(1.0)
        assert prediction.probability == max(prediction.others.values())
    (exported / "other.csv").write_text("text,label\na,excellent\nb,good\n", encoding="utf-8")
    with pytest.raises(DataError, match="'excellent' does not occur in training"):
        api.evaluate(model, str(exported / "other.csv"))


def test_what_is_scored_of_a_table_and_left_out_is_said(exported: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = exported / "run" / "model"
    marked = [
        (text, "good" if label else "bad", ("train", "TEST")[i % 2]) for i, (text, label) in enumerate(opinions(60, 7))
    ]
    rows = [*marked, ("", "good", "test"), ("what a joy", "", "test")]
    lines = ["review,label,Split", *(",".join(f'"{field}"' for field in row) for row in rows)]
    source = exported / "marked.csv"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = api.evaluate(model, str(source))
    assert found["examples"] == 30
    right = [
        p.output == label
        for p, (_, label, _) in zip(api.predict(model, [r[0] for r in marked[1::2]]), marked[1::2], strict=True)
    ]
    assert found["scores"]["accuracy"]["score"] == pytest.approx(np.mean(right)), "of the rows marked as test"
    assert caplog.messages == [
        f"{source}: splits from column 'Split': train 30, test 32 rows",
        "text from column 'review', label from 'label' (of 'review', 'label'), as in training",
        f"{source}: rows left out because they have no text: 1 ({source}:62)",
        f"{source}: rows left out because they have no label: 1 (first: {source}:63)",
    ]


def test_what_is_scored_is_read_as_in_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the columns of training, whatever else is called a label; one-hot columns and lists of zeros and ones, too."""
    rows = [(text, "good" if label else "bad", i % 3) for i, (text, label) in enumerate(opinions(60, 7))]
    held = "opinion,verdict,class\n" + "".join(f'"{text}",{name},{other}\n' for text, name, other in rows)
    (tmp_path / "train.csv").write_text(held, encoding="utf-8")
    data = {"source": str(tmp_path / "train.csv"), "text_column": "opinion", "label_column": "verdict"}
    plan = {"task": "text-classification", "data": data, "budget": "4 steps", "model": "bag", "ship": "network"}
    api.train(plan, out=tmp_path / "run", progress=False)
    (tmp_path / "new.csv").write_text(held, encoding="utf-8")
    caplog.clear()
    assert api.evaluate(tmp_path / "run" / "model", str(tmp_path / "new.csv"))["examples"] == 60
    assert "label from 'verdict'" in caplog.text
    for hot in ("two columns", "lists"):
        frame: dict[str, Any] = {"text": [text for text, *_ in rows]}
        ones = [[int(name == "good"), int(i % 2 == 0)] for i, (_, name, _) in enumerate(rows)]
        if hot == "lists":
            frame["labels"] = ones
        else:
            frame |= {"fine": [row[0] for row in ones], "even": [row[1] for row in ones]}
        api.train({**plan, "data": frame}, out=tmp_path / hot, progress=False)
        frame = {name: held[:1] + held[-3:] for name, held in frame.items()}
        found = api.evaluate(tmp_path / hot / "model", frame)
        assert found["examples"] == 4, hot


def test_a_bag_for_numbers_begins_within_their_range() -> None:
    """What n-grams say of a number is averaged; added up, a text of many was many deviations off."""
    some = opinions(200, 3)
    texts = [text for text, _ in some]
    train = Examples(tuple(texts), None, np.array([100.0 + 20.0 * good for _, good in some]))
    labels = Labels("number")
    network = new_network("bag", texts, train, labels, scale_of(train.labels, labels), longest=4096)
    encoded = network.encode(texts, None)
    said = logits_of(network, network.build(0).eval(), encoded, np.arange(200), torch.device("cpu"))[:, 0]
    wanted = targets(train.labels, labels, scale_of(train.labels, labels))
    assert said.abs().max() < 1.2 * np.abs(wanted).max()
    assert float(((said.detach().numpy() - wanted) ** 2).mean()) < 1.0, "better than the mean"


def test_always_saying_the_same_is_told_of_every_kind_of_labels() -> None:
    def note(labels: Labels, train: Any, validation: Any) -> str:
        parts = [Examples(tuple("ab" * len(rows)), None, np.array(rows)) for rows in (train, validation)]
        return majority_note(parts[0].labels, parts[1].labels, labels)

    assert note(TWO, [0, 1, 1], [1, 0, 0, 1]) == (
        "always saying 'good', the most frequent class of train, is right 50.0% of validation"
    )
    numbers = note(Labels("number"), [1.0, 2.0, 6.0], [3.0, 5.0])
    assert numbers == "always saying 3, the mean of train, has a mean squared error of 2 on validation"
    several = Labels("classes", ("a", "b", "c"))
    usual = note(several, [[1.0, 1, 0], [1, 1, 1], [1, 0, 0]], [[1.0, 0, 0], [0, 1, 1]])
    assert usual == "always saying 'a', 'b', what is most frequent in train, has a micro F1 of 0.571 on validation"
    rare = note(several, [[1.0, 0, 0], [0, 0, 0], [0, 0, 0]], [[1.0, 0, 0], [0, 0, 0]])
    assert "always saying 'a', what" in rare
    assert "micro F1 of 0.667" in rare


def class_rows(labels: Any, predictions: Any) -> Evaluation:
    columns = {"label": labels, "prediction": predictions, "block": np.arange(len(labels))}
    return Evaluation({name: np.asarray(column, np.float64) for name, column in columns.items()})


def test_classes_that_the_truth_lacks_are_left_out_of_means() -> None:
    """As scikit-learn does if it is given the truth's own labels; its default would divide by what a model says."""
    from sklearn import metrics

    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 200)
    predictions = np.where(generator.random(200) < 0.6, labels, generator.integers(0, 6, 200))
    scores = scores_of(class_rows(labels, predictions))
    known: Any = {"labels": np.unique(labels), "average": "macro", "zero_division": 0}
    for name in ("f1", "precision", "recall"):
        theirs = getattr(metrics, f"{name}_score")(labels, predictions, **known)
        assert scores["macro_f1" if name == "f1" else name] == pytest.approx(theirs)
    everything = metrics.f1_score(labels, predictions, average="macro")
    assert everything == pytest.approx(scores["macro_f1"] * 4 / 6)
    different = 0
    for _ in range(200):
        labels = generator.integers(0, 3, 200)
        one, other = (
            class_rows(labels, np.where(generator.random(200) < 0.85, labels, drawn))
            for drawn in generator.choice(4, (2, 200), p=[0.3, 0.3, 0.37, 0.03])
        )
        different += compare(metric_named("macro_f1"), one, other).significant
    assert different / 200 <= 0.08, "readers that are equally good; with the default's mean it is about 0.25"


def test_pairs_are_written_in_two_ways(tmp_path: Path) -> None:
    data = write_several(tmp_path)
    plan = plan_from({"task": "text-classification", "data": data, "ship": "network", **STEPS})
    result = api.train(plan, out=tmp_path / "run")
    one, other = api.predict(result.model, ["what a joy ||| a dull film", json.dumps(["what a joy", "a dull film"])])
    assert one.others == other.others
    with pytest.raises(DataError, match="trained on pairs of texts; write 'first ||| second'".replace("|", r"\|")):
        api.predict(result.model, ["what a joy"])
    with pytest.raises(DataError, match="one of the two texts is empty"):
        api.predict(result.model, ["what a joy |||"])
    exhibits = json.loads((tmp_path / "run" / "exhibits.json").read_text(encoding="utf-8"))
    *titles, last = [exhibit["title"] for exhibit in exhibits]
    assert titles == ["A few predictions", "The worst mistakes", "By class"]
    assert last.startswith("Probabilities of the network: temperature ")


def test_hidden_words_are_filled_in(tmp_path: Path) -> None:
    data = write_classes(tmp_path)
    settings = {**SETTINGS, "phases": [{"name": "only", "until": "150 steps"}]}
    result = api.train(plan_from({"task": "fill-mask", "data": data, **settings}), out=tmp_path / "run")
    assert result.record["baseline"]["name"] == "unigram"
    assert result.score < result.record["baseline"]["test"]["score"], "words of so small a world can be told"
    assert result.record["scores"]["test"].keys() == {"loss", "perplexity", "bits_per_byte"}
    (prediction,) = api.predict(result.model, ["what a [MASK]"])
    assert prediction.output.startswith("what a ")
    assert "[MASK]" not in prediction.output
    assert prediction.probability == pytest.approx(max(prediction.others.values()))
    with pytest.raises(DataError, match=r"write \[MASK\]"):
        api.predict(result.model, ["what a joy"])
    assert set(SPECIAL) & set(prediction.others) == set()
    on = plan_from({"task": "fill-mask", "data": data, "model": str(result.model), "budget": "10 steps"})
    assert opened(on)[1].facts.able, "a model that fills in words already is scored before it is trained on"
    assert not opened(plan_from({"task": "fill-mask", "data": data, **settings}))[1].facts.able


@pytest.mark.real_data
@pytest.mark.skipif("MULTISTEP_DATA" not in os.environ, reason="needs the real data")
def test_the_baselines_reach_what_is_known_of_them() -> None:
    data = Path(os.environ.get("MULTISTEP_DATA", ""))
    films = load_labelled(DataSpec(source=str(data / "sst2")))
    assert scores_of(Baseline.fit(films.train, films.labels).score(films.test))["accuracy"] == pytest.approx(
        0.81, abs=5e-3
    )
    train, dev, test = (str(data / "chnsenticorp" / f"{name}.tsv") for name in ("train", "dev_clean", "test_clean"))
    found = load_labelled(DataSpec(train=train, validation=dev, test=test))
    assert scores_of(Baseline.fit(found.train, found.labels).score(found.test))["accuracy"] == pytest.approx(
        0.91, abs=5e-3
    )


# Several networks within a run ------------------------------------------------------------------------


def raced(tmp_path: Path, **changes: object) -> tuple[TorchLearner, Readiness]:
    data = write_classes(tmp_path)
    return opened(plan_from({"task": "text-classification", "data": data, "budget": "150s", **changes}))


def test_a_small_set_begins_with_the_bag_and_its_rivals_have_recipes_of_their_own(tmp_path: Path) -> None:
    _, ready = raced(tmp_path)
    assert ready.recipe.model == "bag"
    assert [recipe.model for recipe in ready.facts.rivals] == ["cnn", "bert"]
    assert [recipe.optimizer for recipe in ready.facts.rivals] == ["muon", "muon"]
    assert all(recipe.learning_rate and recipe.batch_size for recipe in ready.facts.rivals)
    for chosen in ({"model": "cnn"}, {"recipe": {"model": "cnn"}}):
        _, named = raced(tmp_path, **chosen)
        assert (named.recipe.model, named.facts.rivals) == ("cnn", ())
    _, sized = raced(tmp_path, model={"layers": 1})
    assert (sized.recipe.model, sized.facts.rivals) == ("bert", ()), "only one network has layers"
    _, short = raced(tmp_path, budget="40s")
    assert [recipe.model for recipe in short.facts.rivals] == ["cnn"]


def test_what_contradicts_the_named_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"recipe.model is cnn, but model is bag"):
        raced(tmp_path, model="bag", recipe={"model": "cnn"})
    with pytest.raises(PlanError, match=r"model.layers: 'bag' has none; allowed: width, vocabulary, context"):
        raced(tmp_path, model={"name": "bag", "layers": 2})
    learner, ready = raced(tmp_path)
    with pytest.raises(PlanError, match=r"recipe.model is cnm; allowed here: bag, cnn, bert. Did you mean 'cnn'"):
        learner.initial(replace(ready.recipe, model="cnm"), 0)


def test_a_learner_goes_from_one_network_to_another_and_back_exactly(tmp_path: Path) -> None:
    learner, ready = raced(tmp_path)
    first, other = ready.recipe, ready.facts.rivals[0]
    rates = [0.01] * 3
    folders = {name: tmp_path / name for name in ("first", "other", "on", "again")}
    for folder in folders.values():
        folder.mkdir()
    learner.initial(first, 0)
    learner.advance(rates)
    learner.save(folders["first"])
    before = learner.evaluate("validation", sample=False)
    learner.advance(rates)
    learner.save(folders["on"])
    learner.initial(other, 0)
    learner.advance(rates)
    learner.save(folders["other"])
    between = learner.evaluate("validation", sample=False)
    assert not np.array_equal(between.columns["loss"], before.columns["loss"])
    learner.load(folders["first"], first, 0)
    after = learner.evaluate("validation", sample=False)
    assert all(np.array_equal(before.columns[name], after.columns[name]) for name in before.columns)
    learner.advance(rates)
    learner.save(folders["again"])
    on, again = (load_file(folders[name] / "state.safetensors") for name in ("on", "again"))
    assert on.keys() == again.keys()
    assert all(torch.equal(on[name], again[name]) for name in on)
    with pytest.raises(PlanError, match="other holds weights of cnn, which say nothing to bag"):
        learner.average([folders["first"], folders["other"]], first, 0)
    with pytest.raises(PlanError, match="first holds weights of bag, which say nothing to cnn"):
        learner.load(folders["first"], other, 0, carry="weights")
    with pytest.raises(PlanError, match="first holds weights of bag"):
        learner.adopt(folders["first"], other, 0)


@pytest.mark.parametrize("name", ["bag", "cnn"])
@pytest.mark.parametrize("optimizer", usable_optimizers())
def test_every_optimizer_trains_the_small_nets(tmp_path: Path, name: str, optimizer: OptimizerName) -> None:
    recipe = {"optimizer": optimizer, "warmup_steps": 0, "augmentation": 0.3, "dropout": 0.0}
    learner, ready = raced(tmp_path, model={"name": name, "width": 8}, recipe=recipe)
    learner.initial(ready.recipe, 0)
    assert ready.recipe.learning_rate is not None
    losses = [learner.advance([ready.recipe.learning_rate] * 4).loss for _ in range(3)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    found = kinds(learner._model)
    assert found["embedding.weight"][0] == "embedding"
    assert found["head.weight"][0] == "head"


def test_a_bag_begins_at_naive_bayes_and_reads_pieces_of_words(tmp_path: Path) -> None:
    learner, ready = raced(tmp_path, model="bag")
    learner.initial(ready.recipe, 0)
    labels = learner.evaluate("validation", sample=False).columns
    assert (labels["label"] == labels["prediction"]).mean() > 0.9, "before the first step"
    assert words_of("Don't stop, 2 times!", spaceless=False) == ["don't", "stop", ",", "2", "times", "!"]


@pytest.mark.parametrize(
    ("texts", "spaceless", "short", "long", "first"),
    [
        (
            ["Ab c", "c ab"],
            False,
            {"ab": 2, "c": 2, "ab c": 1, "c ab": 1},
            {" <ab": 2, " ab>": 2, " <ab>": 2, " <c>": 2},
            ["ab", "ab c", " <ab", " ab>", " <ab>", "c", " <c>"],
        ),
        (
            ["好 的书", "的书的书"],
            True,
            {"好": 1, "的": 2, "书": 2, "好的": 1, "的书": 2, "书的": 1},
            {" 好的书": 1, " 的书的": 1, " 书的书": 1, " 的书的书": 1},
            ["好", "好的", " 好的书", "的", "的书", "书"],
        ),
    ],
)
def test_a_bag_counts_in_how_many_texts_each_ngram_occurs_and_reads_each_once(
    texts: list[str], spaceless: bool, short: dict[str, int], long: dict[str, int], first: list[str]
) -> None:
    assert [dict(each) for each in occurrences(BAG, texts, spaceless)] == [short, long]
    keys = [*short, *long]
    read = Reader(TextNetConfig(BAG, 2, len(keys) + 2, len(short), 8, spaceless), keys).ids
    assert [keys[i - 2] for i in read(texts[0])] == first
    known = [keys[i - 2] for i in read(texts[1])]
    assert len(known) == len(set(known))
    assert set(known) == {key for each in occurrences(BAG, texts[1:], spaceless) for key in each}
    assert read("☃") == [1]


def test_a_text_without_anything_known_has_an_answer() -> None:
    data = Examples(("a good film", "a bad film"), None, np.array([1, 0]))
    for kind in ("bag", "cnn"):
        network = new_network(kind, data.texts, data, TWO, Scale(), longest=20)
        found = network.encode(["☃", "good " * 30], None)
        assert found.cut == (kind == "cnn"), "each n-gram of a bag counts once"
        tokens, _, types, inside = found.padded(np.arange(2), network.pad)
        tensors = (torch.from_numpy(part) for part in (tokens, inside, types))
        assert torch.isfinite(network.logits(network.build(0).eval(), *tensors)).all()
