"""Conversations: read from every form, written with the model's template, packed without looking across."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases_chat import CHATML, llama, tokenizer

from multistep.core.values.plan import DataSpec
from multistep.data.sources import read_parts
from multistep.errors import DataError
from multistep.tasks.chat.conversation import Conversation, Turn
from multistep.tasks.chat.encode import Encoded, cut, special_tokens, write_all
from multistep.tasks.chat.evaluate import baseline_nats, fit_ngram, score, table
from multistep.tasks.chat.formats import read_conversations
from multistep.tasks.chat.load import FORM, holds_conversations, items_of, load_conversations
from multistep.tasks.chat.pack import PackingOrder, best_fit, padded_rows
from multistep.tasks.chat.template import ChatTemplate, tokens_around
from multistep.tasks.text.causal import TransformersMaker

USER, ASSISTANT = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4 = four"}


def lines(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def only(source: str) -> tuple[list[Conversation], tuple[str, ...]]:
    (table,) = read_parts(source, DataSpec(source=source), FORM).values()
    part = items_of(table, read_conversations)
    return list(part.items), part.notes


def of(*pairs: tuple[str, str], completion: bool = False) -> Conversation:
    return Conversation(tuple(Turn(role, content) for role, content in pairs), completion, "here:1")


def encoded(
    conversations: Sequence[Conversation], hub: Any, context: int = 1000, train_on: Any = "assistant"
) -> tuple[list[Encoded], list[str]]:
    written, notes = write_all(conversations, ChatTemplate(hub, conversations), train_on)
    found, more = cut(written, context, special_tokens(hub))
    return found, [*notes, *more]


# Read -----------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_no_conversation_and_left_to_whoever_reads_it(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("a" * 200_000 + ",prompt,completion\n1,2,3\n", encoding="utf-8")
    packed = bytearray(gzip.compress(b'{"prompt": "a", "completion": "b"}\n'))
    packed[12] ^= 0xFF
    (tmp_path / "bad.jsonl.gz").write_bytes(packed)
    assert holds_conversations(DataSpec(source=str(tmp_path / "long.csv"))), "a long name is a name"
    for name in ("bad.jsonl.gz", "none.jsonl"):
        assert not holds_conversations(DataSpec(source=str(tmp_path / name)))


def test_every_form_gives_the_same_turns(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows: dict[str, list[object]] = {
        "messages": [{"messages": [USER, ASSISTANT]}],
        "parts": [{"messages": [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}, ASSISTANT]}],
        "sharegpt": [{"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4 = four"}]}],
        "pairs": [{"prompt": "2 + 2?", "completion": "4 = four"}],
        "lists": [{"prompt": [USER], "completion": [ASSISTANT]}],
        "alpaca": [{"instruction": "2 + 2?", "input": "", "output": "4 = four", "text": "Below is ..."}],
    }
    sources = {name: lines(tmp_path / f"{name}.jsonl", *row) for name, row in rows.items()}
    (tmp_path / "list.json").write_text(json.dumps(rows["sharegpt"]), encoding="utf-8")
    (tmp_path / "pairs.csv").write_text("prompt,completion\n2 + 2?,4 = four\n", encoding="utf-8")
    parquet.write_table(pyarrow.table({"messages": [[USER, ASSISTANT]]}), tmp_path / "a.parquet")
    sources |= {name: str(tmp_path / name) for name in ("list.json", "pairs.csv", "a.parquet")}
    for name, source in sources.items():
        assert holds_conversations(DataSpec(source=source)), name
        (found,), notes = only(source)
        assert found.turns == (Turn("user", "2 + 2?"), Turn("assistant", "4 = four")), name
        assert found.completion == (name in ("pairs", "alpaca", "pairs.csv")), name
        assert "conversations from '" in notes[0], name
    (found,), notes = only(lines(tmp_path / "b.jsonl", {"instruction": "Add.", "input": "2 + 2", "output": "4"}))
    assert found.turns[0].content == "Add.\n\n2 + 2"
    assert "from 'instruction', 'output', 'input', as instruction and output" in notes[0]
    assert "--set data.text_column=text" in only(sources["alpaca"])[1][0]


def test_a_text_column_is_running_text_as_before(tmp_path: Path) -> None:
    texts = lines(tmp_path / "a.jsonl", {"text": "a"}, {"text": "b"})
    assert not holds_conversations(DataSpec(source=texts))
    assert not holds_conversations(DataSpec(source="python-manual"))
    both = lines(tmp_path / "b.jsonl", {"prompt": "a", "completion": "b", "text": "c"})
    assert holds_conversations(DataSpec(source=both))
    assert not holds_conversations(DataSpec(source=both, text_column="text"))


def test_rows_that_cannot_be_trained_on_are_left_out_and_counted(tmp_path: Path) -> None:
    good = {"messages": [{"role": "system", "content": ""}, USER, ASSISTANT, USER]}
    bad = {
        "two turns of the user in a row": [USER, USER, ASSISTANT],
        "begun by the assistant, not by the user": [ASSISTANT, USER, ASSISTANT],
        "an empty turn": [USER, {"role": "assistant", "content": " "}],
        "nothing of an assistant in them": [USER],
        "a system's turn that is not the first": [USER, {"role": "system", "content": "x"}, ASSISTANT],
        "calls of tools, which are not read": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}],
    }
    source = lines(tmp_path / "a.jsonl", good, *({"messages": turns} for turns in bad.values()), {"messages": []})
    (found,), notes = only(source)
    assert [turn.role for turn in found.turns] == ["user", "assistant"], "no empty system, no question without answer"
    for line, why in enumerate(bad, start=2):
        count = 2 if why.startswith("nothing") else 1
        assert any(f"rows left out, {why}: {count} of 8 (first: {source}:{line})" in note for note in notes), notes
    assert any(f"do not end with the assistant, read up to its last turn: 1 (first: {source}:1)" in n for n in notes)
    with pytest.raises(DataError, match=r"no row holds a conversation .* an empty turn: 1 \(first: .*b.jsonl:1\)"):
        only(lines(tmp_path / "b.jsonl", {"messages": bad["an empty turn"]}))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"messages": [USER, ASSISTANT]}, {"prompt": "a", "completion": "b"}],
            r":2: prompt and completion, but .*:1 is messages; one form a file",
        ),
        ([{"prompt": "a", "completion": "b"}, {"prompt": "c"}], r":2: 'completion' is missing or null"),
        ([{"prompt": "a", "completion": 4}], r":1: 'completion' is '4', a int; allowed: a text"),
        ([{"messages": "Hello"}], r":1: 'messages' is 'Hello', a str; allowed: a list of turns"),
        (
            [{"messages": [USER, {"role": "assistant", "content": None}]}],
            r":1: turn 2 of 'messages' is missing or null",
        ),
        (
            [{"messages": [{"role": "asistant", "content": "x"}]}],
            r":1: turn 1 of 'messages' has the role 'asistant'; allowed: system, user, .* Did you mean 'assistant'",
        ),
        ([{"messages": [USER, "4"]}], r":1: turn 2 of 'messages' is '4', a str"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_with_its_place(tmp_path: Path, rows: list[object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        only(lines(tmp_path / "a.jsonl", *rows))


def test_splits_are_cut_by_conversation_and_duplicates_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i % 50}?", "completion": f"{i % 50}!"} for i in range(100)]
    splits = load_conversations(DataSpec(source=lines(tmp_path / "a.jsonl", *rows)))
    sizes = [len(part) for part in (splits.train, splits.validation, splits.test)]
    assert sum(sizes) == 100
    assert sizes[1] >= 8 <= sizes[2]
    assert not {c.key() for c in splits.train} & {c.key() for c in (*splits.validation, *splits.test)}
    again = load_conversations(DataSpec(source=str(tmp_path / "a.jsonl")))
    assert again == splits
    given = DataSpec(
        train=lines(tmp_path / "train.jsonl", *rows[:50]), validation=lines(tmp_path / "dev.jsonl", *rows[45:52])
    )
    notes = load_conversations(given).notes
    repeated = [
        note for note in notes if "7 of 7 conversations have the first prompt and answer of one in train" in note
    ]
    assert repeated, notes
    assert "dev.jsonl:1" in repeated[0]
    with pytest.raises(DataError, match="the train split has 3 conversations, at least 4"):
        load_conversations(DataSpec(train=lines(tmp_path / "few.jsonl", *rows[:3]), validation=given.validation))


# Written out ----------------------------------------------------------------------------------------


def trained_text(example: Encoded, hub: Any) -> str:
    return str(hub.decode(example.tokens[example.trained], skip_special_tokens=False))


def test_the_assistants_turns_are_trained_on_with_the_token_that_ends_them() -> None:
    hub = tokenizer()
    talk = of(
        ("system", "Add."), ("user", "2 + 2?"), ("assistant", "4 = four"), ("user", "4?"), ("assistant", "4 = four")
    )
    (found,), notes = encoded([talk], hub)
    whole = hub.apply_chat_template([{"role": t.role, "content": t.content} for t in talk.turns], tokenize=False)
    assert hub.decode(found.tokens) == whole
    assert trained_text(found, hub) == "4 = four<|im_end|>" * 2
    assert (found.texts, found.closed, found.bytes) == (("4 = four",) * 2, (True, True), 16)
    assert notes == []
    (everything,), _ = encoded([talk], hub, train_on="all")
    assert everything.trained.tolist() == [False] + [True] * (len(everything.tokens) - 1)
    assert everything.texts[:3] == ("system\nAdd.", "\n", "user\n2 + 2?")


def test_templates_that_trim_think_or_name_no_generation_are_understood() -> None:
    talk = of(("user", "2 + 2?"), ("assistant", " 4 = four\n"), ("user", "4?"), ("assistant", "four"))
    spaced = "{% for m in messages %}{% if m['role'] == 'user' %}[A]{{ m['content'] }}[B]{% else %}"
    spaced += " {{ m['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}"
    hub = tokenizer(spaced)
    (found,), _ = encoded([talk], hub)
    assert trained_text(found, hub) == " 4 = four <|endoftext|> four <|endoftext|>", "as Llama 2 writes them"
    # As Qwen 3: only the last answer shows that it thought.
    thinks = CHATML.replace(
        "m['content'] + '<",
        "(('<think>\n\n</think>\n\n' if loop.last and m['role'] == 'assistant' else '') + m['content']) + '<",
    )
    hub = tokenizer(thinks)
    (found,), _ = encoded([talk], hub)
    dated = tokenizer("{{ strftime_now('%d %B %Y') }}" + CHATML)
    assert "26 Jul 2024<|im_start|>" in dated.decode(encoded([talk], dated)[0][0].tokens), "tomorrow, too"
    assert trained_text(found, hub) == " 4 = four\n<|im_end|><think>\n\n</think>\n\nfour<|im_end|>"


def test_a_template_that_rewrites_what_stands_before_is_refused() -> None:
    rewrites = "{{ messages | length }}" + CHATML
    with pytest.raises(
        DataError, match=r"here:1: the model's chat template writes what stands before turn 2 differently"
    ):
        encoded([of(("user", "a"), ("assistant", "b"))], tokenizer(rewrites))
    (found,), _ = encoded([of(("user", "a"), ("assistant", "b"))], tokenizer(rewrites), train_on="all")
    assert found.trained.sum() == len(found.tokens) - 1
    with pytest.raises(DataError, match=r"here:1: the model's chat template refuses this conversation \(no system\)"):
        encoded([of(("user", "a"), ("assistant", "b"))], tokenizer("{{ raise_exception('no system') }}"))
    with pytest.raises(DataError, match="does not write turn 2 as it stands"):
        encoded(
            [of(("user", "a"), ("assistant", "b"))], tokenizer(CHATML.replace("m['content']", "m['content']|upper"))
        )


def test_an_answer_that_the_template_spells_before_it_is_found_where_it_stands() -> None:
    thinking = CHATML.replace(
        "+ m['content']",
        "+ ('<think>\n\n</think>\n\n' if loop.last and m['role'] == 'assistant' else '') + m['content']",
    )
    for answer in ("t", "think", "<", "\u4f60"):
        hub = tokenizer(thinking)
        (found,), notes = encoded([of(("user", "a"), ("assistant", answer))], hub)
        assert trained_text(found, hub) == f"<think>\n\n</think>\n\n{answer}<|im_end|>"
        assert not notes


def test_a_model_without_template_has_a_stated_default_or_plain_text() -> None:
    hub, talk = tokenizer(None), of(("user", "a"), ("assistant", "b"))
    (found,), _ = encoded([talk], hub)
    assert hub.decode(found.tokens) == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    assert trained_text(found, hub) == "b<|im_end|>"
    assert not hub.chat_template, "phases share it, and a run that goes on opens the last alone"
    exported = ChatTemplate(hub, [talk]).tokenizer
    again = ChatTemplate(exported, [of(("user", "a"), ("assistant", "b"), completion=True)])
    assert again.given, "what learnt the default template is asked and scored in it, whatever the data"
    assert not again.notes
    base = tokenizer(None, marks=())
    template = ChatTemplate(base, [of(("user", "a"), ("assistant", "b"))])
    assert (
        "no chat template: turns are written as <|im_start|>role, a new line, the text, <|endoftext|>"
        in template.notes[0]
    )
    plain, pair = tokenizer(None), of(("user", "2 + 2 ="), ("assistant", " 4"), completion=True)
    (found,), _ = encoded([pair], plain)
    assert plain.decode(found.tokens) == "2 + 2 = 4<|endoftext|>"
    assert trained_text(found, plain) == " 4<|endoftext|>"
    assert (found.texts, found.closed) == ((" 4",), (True,))
    assert not plain.chat_template


def test_what_stands_around_words_is_counted_for_every_model() -> None:
    talk, pair = of(("user", "a"), ("assistant", "b")), of(("user", "a"), ("assistant", "b"), completion=True)
    assert tokens_around(tokenizer(), [talk]) == tokens_around(tokenizer(None), [talk])
    assert tokens_around(tokenizer(), [talk]) == len("user\n" + "\n" + "assistant\n" + "\n") + 4
    assert tokens_around(tokenizer(None), [pair]) == 1, "the end of text"
    assert tokens_around(tokenizer("{{ raise_exception('no') }}"), [talk]) == 0


def test_texts_that_spell_out_marks_are_left_out() -> None:
    found, notes = encoded(
        [of(("user", "a"), ("assistant", "b")), of(("user", "a<|im_end|>\n<|im_start|>system\n"), ("assistant", "b"))],
        tokenizer(),
    )
    assert len(found) == 1
    assert "spells out a token that the model has for other ends: 1 of 2 (first: here:1)" in notes[0]


def test_what_is_longer_than_the_context_is_cut_and_counted() -> None:
    hub = tokenizer()
    short, long = of(("user", "a"), ("assistant", "b")), of(("user", "a"), ("assistant", "b" * 100))
    asks = of(("user", "a" * 100), ("assistant", "b"))
    found, notes = encoded([short, long, asks], hub, context=30)
    assert [len(example.tokens) - 1 <= 30 for example in found] == [True, True]
    assert set(found[1].texts[0]) == {"b"}
    assert found[1].closed == (False,)
    assert found[1].bytes == found[1].trained.sum()
    assert notes[0] == (
        "conversations longer than the context of 30 tokens, whose end is cut off: 1 of 3 (first: here:1)"
    )
    assert "left out, since what is to be learnt of them begins beyond the context of 30 tokens: 1 of 3" in notes[1]


# Packed ---------------------------------------------------------------------------------------------


def test_packing_keeps_conversations_whole_and_follows_from_seed_and_position() -> None:
    lengths = np.random.default_rng(0).integers(1, 65, 500)
    rows = best_fit(lengths, 64, np.arange(500))
    assert sorted(i for row in rows for i in row) == list(range(500))
    assert max(int(lengths[row].sum()) for row in rows) <= 64
    assert len(rows) <= 1.03 * max(lengths.sum() / 64, (lengths > 32).sum())
    order = PackingOrder(lengths.tolist(), 64)
    epochs = [order.rows(epoch * order.per_epoch, order.per_epoch, seed=3) for epoch in (0, 1, 2)]
    for epoch in epochs:
        assert sorted(i for row in epoch for i in row) == list(range(500)), "every conversation once an epoch"
    assert {tuple(sorted(row)) for row in epochs[0]} != {tuple(sorted(row)) for row in epochs[1]}, "other neighbours"
    fresh, middle = PackingOrder(lengths.tolist(), 64), order.per_epoch - 3
    assert fresh.rows(middle, 6, seed=3) == [*epochs[0][-3:], *epochs[1][:3]], "whatever was asked for before"
    assert fresh.rows(middle, 6, seed=4) != fresh.rows(middle, 6, seed=3)
    with pytest.raises(ValueError, match="an item of 64 does not fit"):
        best_fit(np.array([64]), 63, np.arange(1))
    alone = PackingOrder([5, 6, 7], 64, packed=False)
    assert sorted(alone.rows(0, 3, seed=0)) == [[0], [1], [2]]


def test_a_neighbour_changes_no_logit_of_another_conversation() -> None:
    hub = tokenizer()
    maker = TransformersMaker(llama(len(hub), spread=0.5), hub, pretrained=True, context=None, name="tiny")
    assert maker.packs
    model = maker.build(0).eval()
    talks = [of(("user", "what is " + "x" * n), ("assistant", "yes" * (n + 1))) for n in range(6)]
    examples, _ = encoded(talks, hub)
    tokens, labels, positions = (
        torch.from_numpy(array) for array in padded_rows(examples, [[0, 3, 1], [2], [5, 4]], maker.end)
    )
    with torch.inference_mode():
        packed = maker.token_nats(model, tokens, labels, positions_BT=positions)
        alone = [
            maker.token_nats(model, *(torch.from_numpy(a) for a in padded_rows(examples, [[i]], maker.end)[:2]))
            for i in range(6)
        ]
        # Rows with the same places but other words beside conversation 3 leave every bit of it as it was.
        at, end = examples[0].length, examples[0].length + examples[3].length
        other = tokens.clone()
        other[0, :at], other[0, end:] = 5, 7
        again = maker.token_nats(model, other, labels, positions_BT=positions)
        mixed = maker.token_nats(model, tokens, labels)
    for row, numbers in enumerate([[0, 3, 1], [2], [5, 4]]):
        expected = torch.cat([alone[i][0] for i in numbers])
        torch.testing.assert_close(packed[row, : len(expected)], expected, rtol=1e-4, atol=1e-4)
        assert not packed[row, len(expected) :].any(), "padding is not learnt"
    assert torch.equal(again[0, at:end], packed[0, at:end])
    assert not torch.allclose(mixed[0, at:end], packed[0, at:end], atol=1e-2), "without positions they would see it"


def test_an_evaluation_sums_what_the_assistant_says_of_each_conversation() -> None:
    hub = tokenizer()
    maker = TransformersMaker(llama(len(hub), spread=0.5), hub, pretrained=True, context=None, name="tiny")
    model = maker.build(0).eval()
    talks = [of(("user", "a" * n), ("assistant", "é" * (9 - n)), ("user", "?"), ("assistant", "b")) for n in (5, 1, 8)]
    examples, _ = encoded(talks, hub)
    with torch.inference_mode():
        nats = score(
            lambda tokens, labels: maker.token_nats(model, tokens, labels),
            examples,
            vocabulary=maker.vocabulary,
            pad=maker.end,
            lost=np.zeros(maker.vocabulary),
            device=torch.device("cpu"),
        )
        found = table(nats, examples, np.array([4, 5, 6]))
        for i, talk in enumerate(talks):
            whole = hub.apply_chat_template(
                [{"role": t.role, "content": t.content} for t in talk.turns], tokenize=False
            )
            ids = torch.tensor([hub(whole).input_ids])
            own = model(input_ids=ids).logits[0].log_softmax(-1)
            ends = [p for p in range(ids.shape[1]) if ids[0, p] == hub.convert_tokens_to_ids("<|im_end|>")]
            # The second and fourth turn: as many bytes before the end of the turn as they have, and that end.
            sizes = [len(talk.turns[k].content.encode()) for k in (1, 3)]
            places = [p for end, size in zip(ends[1::2], sizes, strict=True) for p in range(end - size, end + 1)]
            assert found.columns["loss"][i] == pytest.approx(
                -sum(float(own[p - 1, ids[0, p]]) for p in places), rel=1e-4
            )
            assert found.columns["count"][i] == sum(sizes) + 2
            assert found.columns["bytes"][i] == sum(sizes)
    assert found.columns["block"].tolist() == [4, 5, 6]
    ngram = fit_ngram(examples)
    counted = [sum(ngram.score(text, end=True).sum() for text in talk.answers) for talk in talks]
    assert baseline_nats(ngram, examples).tolist() == pytest.approx(counted)
