"""Answers: how they are compared with references, how they are written, and which of a few is likeliest."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from tiny_chat import CHATML, tiny_llama, tiny_tokenizer

from multistep.core.evidence.answers import (
    exact_match,
    longest_common,
    rouge_l,
    squad_tokens,
    token_f1,
    word_tokens,
)
from multistep.core.evidence.metric import Evaluation, beside, metric_named, scores_of
from multistep.tasks.chat.answers import prompt_tokens
from multistep.tasks.chat.conversation import Conversation, Turn
from multistep.tasks.chat.encode import cut, special_tokens, write_all
from multistep.tasks.chat.ends import end_of_turn, ends_of
from multistep.tasks.chat.fixed import answer_columns, fixed_answers, right_answers, score_answers
from multistep.tasks.chat.judge import Judge
from multistep.tasks.chat.template import ChatTemplate
from multistep.tasks.text.generate import batches, generate, room_for, rows_at_once, to_show
from multistep.tasks.text.lean import LeanConfig, LeanGPT


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1", "rouge"),
    [
        ("Paris", " Paris\n", 1, 1, 1),
        ("paris.", "Paris", 0, 1, 1),
        ("The capital is Paris.", "Paris", 0, 2 / 4, 2 / 5),  # SQuAD drops the article, ROUGE keeps it
        ("police killed the gunman", "police kill the gunman", 0, 4 / 6, 6 / 8),  # Lin, 2004: 3 of 4
        ("the gunman kill police", "police kill the gunman", 0, 1, 2 * 2 / 8),  # Lin, 2004: order counts, 2 of 4
        ("a well-known fact", "well known fact", 0, 2 / 5, 2 * 3 / 7),
        ("don't", "don't", 1, 1, 1),
        ("这部电影很好看", "这电影好看", 0, 10 / 12, 10 / 12),  # by character: five in common of seven and five
        ("好看很", "很好看", 0, 1, 4 / 6),
        ("我用iPhone拍照", "我用 iphone 拍照", 0, 1, 1),
        ("東京タワー", "東京", 0, 4 / 7, 4 / 7),
        ("서울에서", "서울", 0, 4 / 6, 4 / 6),  # hangul by character, as KorQuAD
        ("", "yes", 0, 0, 0),
        ("!", "?", 0, 0, 0),
        ("!", "!", 1, 1, 1),
        ("the", "a", 0, 0, 0),
        ("ＡＢＣ　１", "abc 1", 0, 1, 1),  # full width
        ("हिन्दी भाषा", "हिन्दी", 0, 2 / 3, 2 / 3),  # vowel signs belong to their word
    ],
)
def test_answers_are_compared_by_known_numbers(
    answer: str, reference: str, exact: float, f1: float, rouge: float
) -> None:
    assert exact_match(answer, reference) == exact
    assert token_f1(answer, reference) == pytest.approx(f1)
    assert rouge_l(answer, reference) == pytest.approx(rouge)


def test_less_is_written_to_be_shown_where_it_would_take_much_of_the_time() -> None:
    assert to_show(None, read=390, most=48) == (48, True)
    assert to_show(3852, read=390, most=48) == (48, True)
    assert to_show(1352, read=390, most=48) == (30, False), "and the model before training writes nothing"
    assert to_show(100, read=390, most=48) == (12, False)


def test_tokens_are_words_or_characters() -> None:
    assert squad_tokens("The cat's $5 - a well-known fact!") == ["cats", "5", "wellknown", "fact"]
    assert word_tokens("The cat's $5") == ["the", "cat", "s", "5"]
    assert word_tokens("第2章：Deep Learning入门") == ["第", "2", "章", "deep", "learning", "入", "门"]


def test_the_longest_common_subsequence_is_that_of_the_usual_table() -> None:
    def table(first: list[str], second: list[str]) -> int:
        above = [0] * (len(second) + 1)
        for one in first:
            row = [0]
            for j, other in enumerate(second):
                row.append(above[j] + 1 if one == other else max(row[j], above[j + 1]))
            above = row
        return above[-1]

    choose = random.Random(0)
    for size in (0, 1, 5, 70, 200):  # beyond a machine word, too
        for _ in range(20):
            first, second = (choose.choices("abcde", k=choose.randint(0, size)) for _ in range(2))
            assert longest_common(first, second) == table(first, second)


def test_answers_become_columns_and_metrics_with_intervals() -> None:
    columns = answer_columns(["yes", "no", "maybe so"], ["yes", "yes", "maybe"])
    assert {name: column.tolist() for name, column in columns.items()} == {
        "exact": [1, 0, 0],
        "token_f1": pytest.approx([1, 0, 2 / 3]),
        "rouge_l": pytest.approx([1, 0, 2 / 3]),
    }
    ones = np.ones(3)
    both = {**columns, "right_answer": np.array([1.0, 1, 0]), "loss": ones, "count": ones, "block": np.arange(3.0)}
    evaluation = Evaluation(both)
    scores = scores_of(evaluation)
    assert scores == pytest.approx(
        {"loss": 1, "exact_match": 1 / 3, "token_f1": 5 / 9, "rouge_l": 5 / 9, "answer_accuracy": 2 / 3}
    )
    exact = metric_named("EM")
    assert exact.goal == "maximize"
    assert exact.tolerance(0.9) == exact.tolerance(0.0) == 0.002
    interval = exact.interval(evaluation)
    assert 0 < interval.low < 1 / 3 < interval.high < 1
    assert beside(exact, scores) is metric_named("loss"), "the loss tells answers apart long before they change"
    assert [metric_named(name).name for name in ("rouge-l", "f1", "token-f1")] == ["rouge_l", "macro_f1", "token_f1"]


# Writing ----------------------------------------------------------------------------------------------


def naive(model: Any, prompt: list[int], count: int, ends: tuple[int, ...]) -> list[int]:
    """The likeliest token, again and again, without a cache, one prompt at a time."""
    tokens = list(prompt)
    for _ in range(count):
        with torch.inference_mode():
            out = model(torch.tensor([tokens]))
        token = int((out if isinstance(out, torch.Tensor) else out.logits)[0, -1].argmax())
        if token in ends:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


def prompts_of(lengths: tuple[int, ...], vocabulary: int) -> list[list[int]]:
    draw = random.Random(1)
    return [[draw.randrange(3, vocabulary) for _ in range(length)] for length in lengths]


def lean_model() -> LeanGPT:
    model = LeanGPT(LeanConfig("nanochat", 50, 2, 16, 2, 64)).initialise(0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.4, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


@pytest.mark.parametrize("kind", ["llama", "lean"])
def test_generation_equals_a_loop_without_a_cache(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama() if kind == "llama" else lean_model()
    prompts = prompts_of((7, 1, 19, 3, 12, 3, 30), 50)
    free = [naive(model, prompt, 24, ()) for prompt in prompts]
    assert len({tuple(tokens) for tokens in free}) == len(free), "the prompts matter"
    ends = (free[0][5], free[2][2])  # tokens that do come up
    expected = [naive(model, prompt, 24, ends) for prompt in prompts]
    assert {len(tokens) == 24 for tokens in expected} == {True, False}
    model.train()
    state = torch.random.get_rng_state()
    assert generate(model, prompts, ends=ends, most_new=24, context=64) == expected
    assert model.training
    assert torch.equal(state, torch.random.get_rng_state())
    monkeypatch.setattr("multistep.tasks.text.generate.MOST_ROWS", 2)
    assert generate(model, prompts, ends=ends, most_new=24, context=64) == expected, "however many at once"
    assert generate(model, prompts, ends=(), most_new=24, context=64) == free
    tail = generate(model, [prompts[6]], ends=ends, most_new=24, context=30)
    kept = prompts[6][-23:]
    room = min(24, 30 - len(kept))
    assert tail == [naive(model, kept, room, ends)], "prompts come first, and leave a quarter of the context"


@pytest.mark.parametrize("kind", ["llama", "lean"])
def test_drawn_answers_follow_from_the_seed(kind: str) -> None:
    model = tiny_llama() if kind == "llama" else lean_model()
    prompts = prompts_of((4, 9), 50)

    def drawn(seed: int, temperature: float) -> list[list[int]]:
        return generate(model, prompts, ends=(0,), most_new=20, context=64, temperature=temperature, seed=seed)

    assert drawn(1, 1.5) == drawn(1, 1.5) != drawn(2, 1.5)
    assert drawn(1, 1e-4) == drawn(2, 0.0), "hardly any temperature takes the likeliest"


def test_an_answer_has_the_room_that_its_own_prompt_leaves() -> None:
    prompts = prompts_of((10, 30, 60, 63, 40, 55), 259)
    model = tiny_llama()
    together = generate(model, prompts, ends=(2,), most_new=40, context=64)
    alone = [generate(model, [prompt], ends=(2,), most_new=40, context=64)[0] for prompt in prompts]
    assert together == alone, "whatever shares the batch"
    assert [len(answer) for answer in alone if len(answer) > 16], "a short prompt leaves more than a long one"


def test_answers_end_where_the_template_ends_a_turn() -> None:
    tokenizer = tiny_tokenizer()
    assert end_of_turn(tokenizer) == 2
    assert ends_of(tokenizer, tiny_llama()) == (0, 2)
    assert ends_of(tiny_tokenizer(template=None)) == (0,)
    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    assert ends_of(tiny_tokenizer(plain)) == (0,), "a line break ends no answer"
    assert end_of_turn(tiny_tokenizer("{{ raise_exception('no') }}")) is None


def test_batches_hold_texts_of_one_length_and_fit() -> None:
    lengths = [30, 2, 4, 3, 31, 5]
    found = list(batches(lengths, 10, lambda tokens: 100 // tokens))
    assert found == [[1, 3, 2, 5], [0, 4]]
    assert rows_at_once(tiny_llama())(100) == 64
    # 2 layers, 1 head of 16, keys and values in 4 bytes: 256 bytes a token
    assert rows_at_once(tiny_llama())(2**15) == 2**28 // 256 // 2**15
    assert (room_for([[1] * 4, [1] * 9]), room_for([[1] * 5000]), room_for([])) == (17, 512, 8)


# A few fixed answers ------------------------------------------------------------------------------------


def test_answers_are_fixed_where_a_few_cover_all_rows() -> None:
    assert fixed_answers([" no", *["yes"] * 12, " no", "no\n", *["maybe"] * 5]) == ("yes", "maybe", " no")
    assert fixed_answers(["yes"] * 50) is None, "one answer asks nothing"
    assert fixed_answers([f"answer {i}" for i in range(100)]) is None
    assert fixed_answers([f"answer {i % 20}" for i in range(100)]) is not None
    assert fixed_answers([f"answer {i % 21}" for i in range(1000)]) is None
    assert fixed_answers(["yes", "no", "yes", "no"]) is None, "four rows are no set"


@pytest.mark.parametrize("kind", ["llama", "lean"])
def test_fixed_answers_are_scored_as_directly(kind: str) -> None:
    model = tiny_llama() if kind == "llama" else lean_model()
    prompts = prompts_of((7, 1, 19, 12), 50)
    answers = [[5, 2], [5, 6, 7, 2], [9]]
    model.train()
    found = score_answers(model, prompts, answers, context=64)
    assert model.training
    model.eval()
    for row, prompt in enumerate(prompts):
        for column, answer in enumerate(answers):
            with torch.inference_mode():
                out = model(torch.tensor([prompt + answer]))
            logits = out if kind == "lean" else out.logits
            nats = logits[0].log_softmax(-1)
            direct = sum(float(nats[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
            assert found[row, column] == pytest.approx(direct, abs=2e-4)
    assert (np.exp(found).sum(axis=1) < 1).all(), "with their ends they exclude each other"
    cut = score_answers(model, [prompts[2]], answers, context=10)
    assert cut[0] == pytest.approx(score_answers(model, [prompts[2][-6:]], answers, context=64)[0], abs=2e-4)


def test_the_likeliest_answer_is_held_against_the_reference() -> None:
    nats = np.array([[-1.0, -2.0], [-3.0, -2.5], [-1.0, -2.0], [-1.0, -2.0], [math.nan, -1.0]])
    right = right_answers(nats, ["yes", "no"], ["yes", "no ", "no", "perhaps", "yes"])
    assert right[:4].tolist() == [1, 1, 0, 0]
    assert math.isnan(right[4]), "a model that diverged has no score"


def test_states_that_are_no_keys_and_values_are_read_anew() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    make: Any = MambaForCausalLM
    sizes: dict[str, Any] = {"vocab_size": 259, "hidden_size": 16, "num_hidden_layers": 1}
    model = make(MambaConfig(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    prompts, answers = prompts_of((3, 9), 259), [[5, 2], [5, 6, 2]]
    nats = score_answers(model, prompts, answers, context=64)
    for row, prompt in enumerate(prompts):
        for column, answer in enumerate(answers):
            with torch.inference_mode():
                logits = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
            expected = sum(float(logits[len(prompt) - 1 + k, token]) for k, token in enumerate(answer))
            assert nats[row, column] == pytest.approx(expected, abs=1e-4)


def test_a_thought_that_the_template_writes_is_no_part_of_an_answer() -> None:
    thinking = CHATML.replace(
        "{{ message['content'] }}",
        "{% if loop.last and message['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
        "{{ message['content'] }}",
    )
    template = ChatTemplate(tiny_tokenizer(thinking))
    assert template.opening == "<think>\n\n</think>\n\n"
    assert template.words_of("<think>\nWhich is it?\n</think>\n\nParis").strip() == "Paris"
    assert template.words_of("Paris") == "Paris"
    assert ChatTemplate(tiny_tokenizer()).words_of("a </think> b") == "a </think> b", "where the template writes it"
    asked = [Conversation((Turn("user", "?"), Turn("assistant", text))) for text in ("<think>x</think>\nyes", "no")]
    judge = Judge("exact_match", template, (2,), 64, "yes", None)
    assert judge.usual_columns(asked)["exact"].tolist() == [1, 0]
    assert judge.room(["yes"]) == len("yes") + len(template.opening) + 8


def test_fixed_answers_have_the_tokens_that_they_have_in_training() -> None:
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    letters = {s: i for i, s in enumerate(["<unk>", "</s>", *"▁\n|>aegilnorstuv"])}
    made = Tokenizer(models.BPE(letters, [], unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])  # as Llama 2
    made.add_special_tokens(["<unk>", "</s>"])
    make: Any = PreTrainedTokenizerFast
    hub = make(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")
    hub.chat_template = (
        "{% for m in messages %}{{ '|' + m['role'] + '>\n' + m['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '|assistant>\n' }}{% endif %}"
    )
    talk = Conversation((Turn("user", "great"), Turn("assistant", "good")))
    template = ChatTemplate(hub)
    (found,), _ = cut(write_all([talk], template, "assistant")[0], 64, special_tokens(hub))
    prompt = Conversation(talk.turns[:1])
    judge = Judge("answer_accuracy", template, (1,), 64, "good", ("good",))
    answer = judge._answer_tokens("good", prompt)
    assert answer == found.tokens[found.trained].tolist()
    assert [*prompt_tokens(prompt, template), *answer] == found.tokens.tolist()
