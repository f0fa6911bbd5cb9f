"""What is special in speech recognition: alphabets, decoding, order, augmentation, networks, models of transformers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from cases_speech import say, words, write, write_manifest, write_sound
from numpy.typing import NDArray
from pyarrow import parquet

from multistep import api
from multistep.backends.torch.groups import layers_below_head
from multistep.backends.torch.learner import TorchLearner
from multistep.core.values.plan import DataSpec
from multistep.engine.clock import BudgetClock
from multistep.engine.learner import Readiness
from multistep.engine.planfile import plan_from
from multistep.engine.rundir import RunDirectory
from multistep.engine.simulate import FakeClock
from multistep.errors import DataError, PlanError
from multistep.tasks.order import LengthOrder
from multistep.tasks.speech.alphabet import Alphabet, frames_needed, has_spaces, spoken
from multistep.tasks.speech.augment import Draws, FeatureAugmentation, stretched
from multistep.tasks.speech.decode import Decoder, best_path
from multistep.tasks.speech.features import LogMel
from multistep.tasks.speech.language import CharacterModel
from multistep.tasks.speech.load import load_model
from multistep.tasks.speech.nets import Kind, NetConfig, make_net
from multistep.tasks.speech.preset import SpeechFacts, batch_size, choose_shape, default_recipe, gentle_steps
from multistep.tasks.speech.probe import Features, fitted, forward_seconds
from multistep.tasks.speech.score import character_errors, word_errors
from multistep.tasks.speech.task import SpeechDomain, SpeechWorkshop

ABC = Alphabet(("", "a", "b"))


# Transcripts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Hello,  World!", "hello world"),
        ("Don't — it's 3.5 km, well-known.", "don't it's 3.5 km well-known"),
        ("你好，世界。", "你好 世界"),
        ("यह है।", "यह है"),
        ("کیا؟ ہاں، ٹھیک۔", "کیا ہاں ٹھیک"),
        ("ab|cd | e", "ab cd e"),
        ("  ?! ", ""),
        ("Cafe\u0301", "café"),
    ],
)
def test_transcripts_are_learnt_as_they_are_said(written: str, said: str) -> None:
    assert spoken(written) == said


def test_any_language_is_spelt_and_what_lacks_is_counted() -> None:
    alphabet = Alphabet.of(["你好", "hi 你"])
    labels, unknown = alphabet.encode("hi 好x")
    assert alphabet.decode(labels) == "hi 好"
    assert unknown == 1
    assert not has_spaces(["你好", "世界 ok"])
    assert has_spaces(["hello world"])
    assert frames_needed(alphabet.encode("hh")[0]) == 3
    again = Alphabet.from_json(json.loads(json.dumps(alphabet.as_json())))
    assert again == alphabet
    assert again.with_characters_of(["hiß"]).encode("ß") == ([len(alphabet)], 0)


def test_a_tokenizers_alphabet_has_its_case_and_delimiter() -> None:
    vocabulary = {"<pad>": 0, "<s>": 1, "|": 2, "A": 3, "B": 4}
    alphabet = Alphabet.of_vocabulary(vocabulary, 0, "|", {"<pad>", "<s>", "|"})
    assert alphabet.case == "upper"
    assert alphabet.encode(spoken("ab a", alphabet.case)) == ([3, 4, 2, 3], 0)
    assert alphabet.decode([1, 3, 2, 4]) == "A B"


# Decoding -------------------------------------------------------------------------------------------


def by_force(log_probs: NDArray[np.float32], alphabet: Alphabet, bonus: dict[tuple[int, ...], float]) -> list[int]:
    """The best transcript by adding up every path over the frames."""
    total: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(len(alphabet)), repeat=len(log_probs)):
        labels = tuple(alphabet.collapse(path))
        total[labels] = total.get(labels, 0.0) + float(
            np.exp(sum(row[s] for row, s in zip(log_probs, path, strict=True)))
        )
    ranks = {labels: np.log(found) + bonus.get(labels, 0.0) for labels, found in total.items()}
    best = max(ranks, key=ranks.__getitem__)
    return list(best)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("language", [None, CharacterModel.of(["ab", "abb", "ba"], order=3)])
def test_the_search_finds_what_adding_up_all_paths_finds(seed: int, language: CharacterModel | None) -> None:
    choose = np.random.default_rng(seed)
    log_probs = torch.from_numpy(choose.normal(0, 2, (5, 3))).log_softmax(-1).numpy().astype(np.float32)
    bonus: dict[tuple[int, ...], float] = {}
    if language is not None:
        for length in range(6):
            for labels in itertools.product((1, 2), repeat=length):
                text, context, rank = ABC.decode(labels), language.context(""), 0.0
                for character in text:
                    rank += language.log_probability(context, character) - language.mean
                    context = (context + character)[1:]
                bonus[labels] = 0.7 * (rank + language.log_probability(context, "\x03"))
    decoder = Decoder(ABC, language, beam=200, weight=0.7, least=0.0)
    assert decoder(log_probs) == by_force(log_probs, ABC, bonus)


def test_the_best_path_is_collapsed_and_long_sounds_do_not_underflow() -> None:
    frames = np.log(np.array([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], np.float32))
    assert best_path(frames, ABC) == [1, 1]
    long = np.tile(frames, (1000, 1))
    assert Decoder(ABC)(long) == best_path(long, ABC)


def test_the_character_model_leads_to_what_was_written_in_training() -> None:
    alphabet = Alphabet.of(["seven", "nine"])
    language = CharacterModel.of(["seven"] * 9 + ["nine"])
    labels = alphabet.encode("sevin")[0]
    probabilities = np.full((2 * len(labels), len(alphabet)), 0.02)
    for i, label in enumerate(labels):
        probabilities[2 * i, label] = 0.6
        probabilities[2 * i + 1, 0] = 0.8
    probabilities[6, alphabet.encode("e")[0][0]] = 0.25
    log_probs = np.log(probabilities / probabilities.sum(1, keepdims=True)).astype(np.float32)
    assert alphabet.decode(best_path(log_probs, alphabet)) == "sevin"
    assert alphabet.decode(Decoder(alphabet, language, weight=1.0)(log_probs)) == "seven"
    again = CharacterModel.from_json(json.loads(json.dumps(language.as_json())))
    assert again.log_probability("seve", "n") == language.log_probability("seve", "n")
    after_s = [language.log_probability(language.context("s"), c) for c in "\x03einsv"]
    assert sum(np.exp(after_s)) + np.exp(language.log_probability(language.context("s"), "?")) == pytest.approx(1.0)


def test_errors_of_each_utterance_are_those_that_jiwer_counts() -> None:
    import jiwer

    said, heard = [*words(40, 0), "a b c", "ab"], [*words(40, 1), "", "b a ab ab"]
    by_word, by_character = word_errors(said, heard), character_errors(said, heard)
    assert by_word[-2:] == [3, 3]
    assert by_character[-2:] == [5, 7]
    one_by_one = [len(s.split()) * jiwer.wer(s, h) for s, h in zip(said, heard, strict=True)]
    assert by_word == pytest.approx(one_by_one)
    assert sum(by_word) / sum(len(s.split()) for s in said) == pytest.approx(jiwer.wer(said, heard))
    assert sum(by_character) / sum(map(len, said)) == pytest.approx(jiwer.cer(said, heard))


# Order and augmentation -----------------------------------------------------------------------------


def test_each_epoch_has_every_utterance_once_in_batches_of_one_length() -> None:
    lengths = np.random.default_rng(0).integers(10, 1000, 1003)
    order = LengthOrder(lengths, 16)
    for epoch in range(3):
        found, epochs = order.indices(epoch * 1003, 1003, seed=5)
        assert sorted(found) == list(range(1003))
        assert set(epochs) == {epoch}
    again = LengthOrder(lengths, 16)
    assert np.array_equal(again.indices(2500, 48, 5)[0], order.indices(2500, 48, 5)[0])
    spread = [np.ptp(lengths[order.indices(16 * i, 16, 5)[0]]) for i in range(120)]
    assert np.mean(spread) < 0.25 * np.ptp(lengths)


def test_augmentation_depends_on_the_utterance_and_its_epoch_alone() -> None:
    features = LogMel(8000, 20)
    augment = FeatureAugmentation(features, torch.zeros(20))
    frames = torch.randn(3, 40, 20, generator=torch.Generator().manual_seed(0))
    lengths, least = torch.tensor([40, 30, 20]), torch.tensor([1, 1, 20])
    frames *= (torch.arange(40)[None] < lengths[:, None])[..., None]
    drawn = Draws(7, np.array([1, 1, 1]), np.array([4, 5, 6]))
    new = stretched(lengths, drawn, 1.0, least)
    together = augment(frames, lengths, new, drawn, 1.0)
    assert new[2] >= 20
    alone_drawn = Draws(7, np.array([1]), np.array([5]))
    alone_new = stretched(lengths[1:2], alone_drawn, 1.0, least[1:2])
    alone = augment(frames[1:2, :30], lengths[1:2], alone_new, alone_drawn, 1.0)
    assert torch.equal(alone_new, new[1:2])
    assert torch.allclose(alone[0], together[1, : int(new[1])], atol=1e-5)
    other = Draws(7, np.array([2]), np.array([5]))
    assert not torch.equal(other.speed_B, alone_drawn.speed_B)
    many = Draws(0, np.zeros(5000, np.int64), np.arange(5000)).many(20)
    assert many.mean(0).sub(0.5).abs().max() < 0.02
    assert ((many >= 0) & (many < 1)).all()


# Networks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["deepspeech", "wavenet"])
def test_an_utterance_comes_out_the_same_in_any_batch(kind: Kind) -> None:
    net = make_net(NetConfig(kind, 20, 7, 2, 16)).initialise(0).eval()
    with torch.no_grad():
        net.head.weight.normal_(generator=torch.Generator().manual_seed(1))  # type: ignore[operator, union-attr]
        frames = torch.randn(2, 61, 20)
        lengths = torch.tensor([61, 33])
        logits, steps = net(frames, lengths)
        alone, own = net(frames[1:, :33], lengths[1:])
    assert steps.tolist() == [31, 17]
    assert own.tolist() == [17]
    assert torch.allclose(logits[1, :17], alone[0], atol=1e-5)


def test_sizes_follow_data_and_budget() -> None:
    plan = plan_from({"task": "speech-recognition", "data": "x", "budget": "5m"})
    small = choose_shape(plan.model, SpeechFacts(900, 2000), plan, rate=5e10)
    large = choose_shape(plan.model, SpeechFacts(360_000, 30_000), plan, rate=5e10)
    assert small == large, "a hundred hours want more than five minutes on two cores"
    hours = plan_from({"task": "speech-recognition", "data": "x", "budget": "20h", "model": {"name": "deepspeech"}})
    grown = choose_shape(hours.model, SpeechFacts(360_000, 30_000), hours, rate=2e13)
    assert grown.kind == "deepspeech"
    assert grown.width > small.width
    wanted = plan_from({"task": "speech-recognition", "data": "x", "model": {"context": 64}})
    with pytest.raises(PlanError, match=r"model\.context"):
        choose_shape(wanted.model, SpeechFacts(900, 2000), wanted, rate=5e10)


@pytest.mark.parametrize(
    ("seconds", "utterances", "size"),
    [
        (180, 60, 4),  # sentences of 3 s
        (27, 60, 8),  # single words: six steps an epoch at the least
        (610, 200, 4),
        (132, 300, 32),
        (880, 2000, 32),  # spoken digits but for one or two speakers
        (36_000, 7_200, 32),
        (10, 3, 4),
    ],
)
def test_little_sound_is_read_in_small_batches(seconds: float, utterances: int, size: int) -> None:
    facts = SpeechFacts(seconds, utterances)
    recipe = default_recipe({}, facts, pretrained=False, own=True, frozen=None)
    assert recipe.batch_size == batch_size(facts) == size
    assert (gentle_steps(utterances) > 0) is (utterances < 1000)
    assert default_recipe({"batch_size": 16}, facts, pretrained=False, own=True, frozen=None).batch_size == 16
    assert default_recipe({}, facts, pretrained=True, own=False, frozen=None).batch_size == 8


# Whole runs -----------------------------------------------------------------------------------------


def train(folder: Path, data: DataSpec, **settings: object) -> api.Result:
    plan = plan_from({"task": "speech-recognition", "data": data, **settings})
    return api.run(plan, RunDirectory(folder), clock=BudgetClock(FakeClock().now))


def test_augmentation_of_a_net_from_nothing_begins_gently(tmp_path: Path) -> None:
    """The first utterances are as they are; later ones differ the more from that, until all are fully augmented."""
    settings = {"recipe": {"batch_size": 8, "augmentation": 0.5}, "model": {"layers": 1, "width": 16}}
    plan = plan_from({"task": "speech-recognition", "data": write(tmp_path), "budget": "10 steps", **settings})
    learner, ready = SpeechWorkshop().open(plan, 0, lambda: False)
    assert isinstance(learner, TorchLearner)
    domain = learner._domain
    assert isinstance(domain, SpeechDomain)
    model = domain.build(0)
    cpu = torch.device("cpu")

    def changed(epoch: int) -> float:
        """How far the sounds of an epoch's utterances are from as they are, by the mean of all features."""
        domain.configure(model, ready.recipe)
        loud = torch.cat([domain.batch(64 * epoch + 8 * i, 8, 0, cpu)[0].flatten() for i in range(8)])
        domain.configure(model, replace(ready.recipe, augmentation=0.0))
        plain = torch.cat([domain.batch(64 * epoch + 8 * i, 8, 0, cpu)[0].flatten() for i in range(8)])
        return abs(float(loud.mean() - plain.mean()))

    domain.configure(model, ready.recipe)
    frames, lengths, *_ = domain.batch(0, 8, 0, cpu)
    plain, known = domain.train.gather(domain._order.indices(0, 8, 0)[0])
    assert torch.equal(lengths, known)
    assert torch.equal(frames, plain.float())
    assert changed(0) < changed(4) < changed(40)


def test_it_shows_that_nothing_was_recognised_yet(tmp_path: Path) -> None:
    plan = plan_from({"task": "speech-recognition", "data": write(tmp_path), "budget": "10 steps"})
    learner, ready = SpeechWorkshop().open(plan, 0, lambda: False)
    learner.initial(ready.recipe, 0)
    columns = learner.evaluate("validation", sample=True).columns
    assert not columns["heard_characters"].any()
    assert np.array_equal(columns["errors"], columns["words"])
    assert np.array_equal(columns["character_errors"], columns["characters"])
    assert (columns["loss"] > 0).all()
    assert np.array_equal(columns["count"], columns["characters"])


def tiny_wav2vec2(folder: Path, letters: str) -> Path:
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder.mkdir()
    config = Wav2Vec2Config(
        vocab_size=len(letters) + 3,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16, 16),
        conv_stride=(5, 4, 4),
        conv_kernel=(10, 4, 4),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=8000, return_attention_mask=True).save_pretrained(folder)  # type: ignore[no-untyped-call]
    if letters:
        vocabulary = {token: i for i, token in enumerate(["<pad>", "<unk>", "|", *letters])}
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        Wav2Vec2CTCTokenizer(  # type: ignore[no-untyped-call]
            str(folder / "vocab.json"), bos_token=None, eos_token=None, word_delimiter_token="|"
        ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("letters", ["ABCD", ""])
def test_a_model_of_transformers_is_trained_and_comes_out_as_one(letters: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCTC, AutoTokenizer

    data = write(tmp_path)
    source = tiny_wav2vec2(tmp_path / "pretrained", letters)
    settings = {"model": str(source), "recipe": {"batch_size": 4, "dropout": 0.1, "augmentation": 0.5}}
    phases = [{"name": "only", "until": "4 steps"}]
    result = train(tmp_path / "run", data, **settings, phases=phases)
    assert result.test is not None
    symbols = AutoTokenizer.from_pretrained(result.model).get_vocab()
    assert AutoModelForCTC.from_pretrained(result.model).config.vocab_size == len(symbols)
    assert set(symbols) >= ({"A", "|"} if letters else {"a", "|"})
    scores = api.evaluate(result.model, data.test or "")["scores"]
    assert scores["loss"]["score"] == pytest.approx(result.record["scores"]["test"]["loss"], rel=1e-3)
    again = train(tmp_path / "again", data, **settings, phases=phases)
    assert again.record["weights_sha256"] == result.record["weights_sha256"]
    usage = str(result.record["usage"]).replace("{model}", repr(str(result.model)))
    exec(usage, {})


def test_transcripts_are_spelt_for_each_model_that_asks(tmp_path: Path) -> None:
    """What was read to choose a model, in lower case, was given to one that writes capitals."""
    data = write(tmp_path)
    workshop = SpeechWorkshop()
    for case, first in (("lower", "a"), ("upper", "A"), ("lower", "a")):
        texts = workshop._survey(data, case).texts  # type: ignore[arg-type]
        assert first in "".join(texts)


def test_a_head_that_a_model_lacks_is_drawn_from_the_seed_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    source = tiny_wav2vec2(tmp_path / "pretrained", "ABCD")
    weights = load_file(source / "model.safetensors")
    head = {name: weights.pop(name) for name in ("lm_head.weight", "lm_head.bias")}
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    capfd.readouterr()
    drawn = []
    for global_seed, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(global_seed)
        maker = load_model(str(source)).ready(["abba"])
        drawn.append(maker.build(seed).state_dict())
    assert "a new head for 7 symbols" in maker.description
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    changed = [name for name in drawn[0] if not torch.equal(drawn[0][name], drawn[2][name])]
    assert changed == ["lm_head.weight"]
    assert not torch.equal(drawn[0]["lm_head.weight"], head["lm_head.weight"])
    (tmp_path / "out").mkdir()
    maker.write(maker.build(0), tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(PlanError, match=r"the weights of lm_head\.bias are missing, so it cannot transcribe yet"):
        load_model(str(source)).ready(())


def test_a_layer_that_ctc_fits_on_frozen_features_writes_what_they_say() -> None:
    """Features far from zero: that they were centred and scaled is folded into the layer."""
    draw = np.random.default_rng(0)
    states, labels = [], []
    for _ in range(120):
        said = tuple(int(symbol) for symbol in draw.integers(1, 5, draw.integers(1, 5)))
        frames = [0, *itertools.chain.from_iterable((symbol, symbol, 0) for symbol in said)]
        shown = 40.0 + 3.0 * np.eye(8)[frames] + draw.normal(0, 0.3, (len(frames), 8))
        states.append(torch.from_numpy(shown).half())
        labels.append(said)
    weight, bias = fitted(Features(states[:100], labels[:100]), symbols=5, blank=0)
    alphabet = Alphabet(("", "a", "b", "c", "d"))
    for features, said in zip(states[100:], labels[100:], strict=True):
        log_probs = (features.float() @ weight.T + bias).log_softmax(-1).numpy()
        assert tuple(best_path(log_probs, alphabet)) == said
    again = fitted(Features(states[:100], labels[:100]), symbols=5, blank=0)
    assert torch.equal(weight, again[0])


def test_fine_tuning_begins_from_a_probe_of_the_frozen_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCTC, AutoProcessor

    data = write(tmp_path)
    monkeypatch.setenv("MULTISTEP_CACHE", str(tmp_path / "made"))
    source = tiny_wav2vec2(tmp_path / "pretrained", "")

    def begun(budget: str = "10m", **recipe: Any) -> tuple[Any, Readiness]:
        about = {"task": "speech-recognition", "data": data, "model": str(source), "budget": budget, "recipe": recipe}
        learner, ready = SpeechWorkshop().open(plan_from(about), 0, lambda: False)
        learner.initial(ready.recipe, 0)
        return learner, ready

    learner, ready = begun(head="linear-probe")
    assert "linear probe: CTC on frozen features of 64 training utterances (recipe.head)" in ready.facts.notes[-1]
    assert ready.facts.able, "it is judged before anything is trained, and can ship"
    assert ready.recipe.dropout == 0.0, "the layer was fitted on features of which nothing is dropped"
    assert ready.recipe.learning_rate == 1e-3, "so small an encoder bears ten times the rate of the usual one"
    before = learner.evaluate("validation", sample=True).columns
    assert before["heard_characters"].any(), "it writes without any training"
    drawn, without = begun()
    assert not without.facts.able
    blank = drawn.evaluate("validation", sample=True).columns
    assert before["loss"].sum() < 0.7 * blank["loss"].sum()

    (tmp_path / "out").mkdir()
    learner.export(tmp_path / "out", "")
    model = AutoModelForCTC.from_pretrained(tmp_path / "out").eval()
    processor: Any = AutoProcessor.from_pretrained(tmp_path / "out")  # type: ignore[no-untyped-call]
    clips = learner._domain.clips["validation"]
    frames = clips.gather(np.array([3]))[0]
    with torch.no_grad():
        path = model(frames[..., 0].float()).logits.argmax(-1)
    assert len(processor.batch_decode(path)[0]) == before["heard_characters"][3]

    def never(*_: object) -> None:
        raise AssertionError("a run that goes on finds its probe in the cache")

    monkeypatch.setattr("multistep.tasks.speech.probe.frozen", never)
    again, _ = begun(head="linear-probe")
    assert np.array_equal(again.evaluate("validation", sample=True).columns["loss"], before["loss"])
    monkeypatch.undo()
    monkeypatch.setattr("multistep.tasks.speech.probe.operations", lambda *_: 1e6)
    clips = learner._domain.train
    maker: Any = load_model(str(source)).ready(["ab cd"])
    a_step = 8 * 3 * forward_seconds(maker, maker.build(0), clips)
    assert begun(f"{int(150 * a_step)}s")[1].facts.able, "few steps fit into the time, so it is fitted unasked"
    assert not begun(f"{int(600 * a_step)}s")[1].facts.able
    assert "of 50 training utterances" in begun("2s", head="linear-probe")[1].facts.notes[-1], "the share holds no more"


def test_layers_of_a_speech_encoder_have_rates_of_their_own(tmp_path: Path) -> None:
    """The projection goes with the first layer of the transformer, the convolutions lie below, the head above."""
    maker = load_model(str(tiny_wav2vec2(tmp_path / "pretrained", ""))).ready(["abba"])
    below = layers_below_head(maker.build(0))
    assert "layer_decay" in maker.settings
    assert below["lm_head.weight"] == 0
    assert below["wav2vec2.encoder.layers.0.attention.q_proj.weight"] == 1
    assert below["wav2vec2.feature_projection.projection.weight"] == 1
    heights = [below[f"wav2vec2.feature_extractor.conv_layers.{i}.conv.weight"] for i in (2, 1, 0)]
    assert heights == [2, 3, 4]


def test_a_probe_that_cannot_be_had_is_refused_and_what_can_transcribe_is_scored_first(tmp_path: Path) -> None:
    data = write(tmp_path)
    able = tiny_wav2vec2(tmp_path / "able", "ABCD")
    about = {"task": "speech-recognition", "data": data, "budget": "10m"}
    _, ready = SpeechWorkshop().open(plan_from({**about, "model": str(able)}), 0, lambda: False)
    assert ready.facts.able
    asked = {**about, "recipe": {"head": "linear-probe"}}
    with pytest.raises(PlanError, match=r"linear-probe, but this model brings a last layer for its own characters"):
        SpeechWorkshop().open(plan_from({**asked, "model": str(able)}), 0, lambda: False)
    with pytest.raises(PlanError, match=r"linear-probe, but no pretrained model of transformers is trained here"):
        SpeechWorkshop().open(plan_from({**asked, "model": "scratch"}), 0, lambda: False)


def test_phases_of_the_same_data_share_its_features(tmp_path: Path) -> None:
    data = write(tmp_path)
    phases = [{"name": "one", "until": "2 steps"}, {"name": "two", "until": "2 steps"}]
    plan = plan_from({"task": "speech-recognition", "data": data, "phases": phases})
    workshop = SpeechWorkshop()
    domains: list[Any] = [workshop.open(plan, phase, lambda: False)[0] for phase in (0, 1)]
    one, two = (learner._domain for learner in domains)
    assert one.train.frames.data_ptr() == two.train.frames.data_ptr()


def test_what_cannot_be_scored_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write(tmp_path)
    model = {"name": "wavenet", "layers": 1, "width": 16}
    result = train(tmp_path / "run", data, model=model, phases=[{"name": "only", "until": "2 steps"}])
    manifest = tmp_path / "test.csv"
    manifest.write_text(manifest.read_text(encoding="utf-8") + "none.wav,ab\n", encoding="utf-8")
    caplog.clear()
    assert api.evaluate(result.model, str(manifest))["examples"] == 16
    said = f"data: 1 of 17 rows cannot be used: 1 no such file (first: {manifest}:18: {tmp_path}/none.wav)"
    assert said in caplog.messages


def test_a_language_without_spaces_is_judged_by_characters_and_a_phase_goes_on(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    for i, text in enumerate(words(40, 0, "你好")):
        text = text.replace(" ", "")
        write_sound(tmp_path / f"{i}.flac", text, seed=i)
        rows.append({"audio_filepath": f"{i}.flac", "text": text})
    manifest = write_manifest(tmp_path / "all.csv", rows)
    phases = [{"name": "one", "until": "4 steps"}, {"name": "two", "until": "4 steps"}]
    model = {"name": "deepspeech", "layers": 1, "width": 16}
    result = train(tmp_path / "run", DataSpec(source=str(manifest)), model=model, phases=phases)
    assert result.metric == "cer"
    exhibits = json.loads(RunDirectory(tmp_path / "run").exhibits.read_text(encoding="utf-8"))
    assert exhibits[0]["title"] == "What it hears"


def test_settings_that_speech_has_not_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path)
    for recipe, said in (
        ({"label_smoothing": 0.1}, "CTC"),
        ({"context": 64}, "read whole"),
        ({"resolution": [32]}, "whole"),
    ):
        with pytest.raises(PlanError, match=said):
            train(tmp_path / "run", data, recipe=recipe, phases=[{"name": "only", "until": "2 steps"}])


def test_sounds_that_cannot_be_predicted_are_named(tmp_path: Path) -> None:
    from multistep.tasks.speech.use import load_recognizer

    data = write(tmp_path)
    model = {"name": "wavenet", "layers": 1, "width": 16}
    result = train(tmp_path / "run", data, model=model, phases=[{"name": "only", "until": "2 steps"}])
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    for name in ("bad.wav", "missing.wav"):
        with pytest.raises(DataError, match=name):
            api.predict(result.model, [tmp_path / name])
    of_transformers = load_recognizer(str(tiny_wav2vec2(tmp_path / "pretrained", "ABCD")))
    with pytest.raises(DataError, match="too short for this model"):
        of_transformers.transcribe(np.zeros(10, np.float32), 8000)
    recognizer = load_recognizer(str(result.model))
    assert isinstance(recognizer.transcribe(say("ab", 16_000), 16_000), str)
    with pytest.raises(DataError, match="no sound"):
        recognizer.transcribe(np.zeros(0, np.float32), 8000)


def test_sounds_that_lie_in_a_table_are_predicted_as_files_are(tmp_path: Path) -> None:
    data = write(tmp_path)
    model = {"name": "wavenet", "layers": 1, "width": 16}
    result = train(tmp_path / "run", data, model=model, phases=[{"name": "only", "until": "20 steps"}])
    sounds = sorted(tmp_path.rglob("*.wav"))[:3]
    expected = [(p.output, p.probability) for p in api.predict(result.model, sounds)]
    cells = [*({"bytes": sound.read_bytes(), "path": None} for sound in sounds), {"bytes": b"no sound", "path": None}]
    parquet.write_table(pyarrow.table({"audio": cells, "number": range(4)}), tmp_path / "held.parquet")
    done = api.predict_file(result.model, tmp_path / "held.parquet", tmp_path / "out.parquet")
    assert (done.rows, done.without) == (4, 1)
    said = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["prediction"], row["probability"]) for row in said] == [*expected, (None, None)]
    assert [row["audio"] for row in said] == cells


def test_parts_of_a_sound_are_predicted_as_its_pieces_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where the table lacks the transcripts of training, and the sounds lie in a folder that training named."""
    import soundfile

    data = write(tmp_path)
    model = {"name": "wavenet", "layers": 1, "width": 16}
    result = train(tmp_path / "run", data, model=model, phases=[{"name": "only", "until": "20 steps"}])
    sounds = sorted(tmp_path.rglob("*.wav"))[:3]
    pieces = [soundfile.read(sound, dtype="float32") for sound in sounds]
    (tmp_path / "elsewhere").mkdir()
    soundfile.write(tmp_path / "elsewhere/long.wav", np.concatenate([samples for samples, _ in pieces]), pieces[0][1])
    starts = np.cumsum([0, *(len(samples) / rate for samples, rate in pieces)])
    rows = [
        {"clip": "long.wav", "offset": starts[i], "duration": len(samples) / rate, "audio": "none.wav"}
        for i, (samples, rate) in enumerate(pieces)
    ]
    (tmp_path / "lists").mkdir()
    table = tmp_path / "lists/parts.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    about = Path(result.model) / "multistep.json"
    told = {"columns": {"path_column": "clip", "text_column": "said"}, "reading": {"root": str(tmp_path / "elsewhere")}}
    about.write_text(json.dumps(json.loads(about.read_text()) | told), encoding="utf-8")
    api.predict_file(result.model, table, tmp_path / "out.jsonl")
    assert "sound file from 'clip', 'offset', 'duration'" in caplog.text
    said = [json.loads(line)["prediction"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert said == [each.output for each in api.predict(result.model, sounds)]
    table.write_text(json.dumps({"clip": "long.wav", "offset": 0.5}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="'offset' needs a 'duration' beside it"):
        api.predict_file(result.model, DataSpec(source=str(table)), tmp_path / "out.jsonl")
