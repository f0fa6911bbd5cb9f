"""Talking with a model: through a pipe by the command line, in Python, and models that cannot talk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import ran
from tiny_chat import tiny_llama, tiny_tokenizer, write_tiny_chat

import multistep as package
from multistep.core.values.tasks import TASKS
from multistep.errors import DataError, PlanError
from multistep.tasks.chat.conversation import Conversation, Turn
from multistep.tasks.chat.talk import Pieces, Talk, Writer, load_writer
from multistep.tasks.chat.template import ChatTemplate
from multistep.tasks.folders import write_task
from multistep.tasks.text.generate import generate


def piped(folder: Path, lines: str, *arguments: str) -> tuple[str, str]:
    """Standard output and error of `multistep chat`, which must end well."""
    ended = ran(folder, "chat", *arguments, lines=lines)
    assert ended.code == 0, ended.error
    return ended.out, ended.error


def expected(turns: list[tuple[str, str]], tokens: int) -> str:
    """What the tiny model answers to the turns, by its template written out by hand."""
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns) + "<|im_start|>assistant\n"
    tokenizer = tiny_tokenizer()
    prompt = tokenizer(text, add_special_tokens=False).input_ids
    (answer,) = generate(tiny_llama(), [prompt], ends=(0, 2), most_new=tokens, context=256)
    return str(tokenizer.decode(answer, skip_special_tokens=True))


def test_each_line_of_a_pipe_is_a_turn(tmp_path: Path) -> None:
    write_tiny_chat(tmp_path / "model")
    first = expected([("user", "hello")], 12)
    second = expected([("user", "hello"), ("assistant", first), ("user", "你好")], 12)
    assert first != second
    lines = "hello\n\n你好\n/reset\nhello\n/quit\nnever read\n"
    out, error = piped(tmp_path, lines, "model", "--temperature", "0", "--tokens", "12", "--json")
    said = [json.loads(line) for line in out.splitlines()]
    assert said == [
        {"user": "hello", "assistant": first},
        {"user": "你好", "assistant": second},
        {"user": "hello", "assistant": first},
    ]
    assert error == "what was said is forgotten\n"
    out, _ = piped(tmp_path, "hello", "model", "--temperature=0", "--tokens=12", "--system", "Be brief.")
    assert out == expected([("system", "Be brief."), ("user", "hello")], 12) + "\n", "streamed, it is the same text"


def test_a_model_that_was_given_the_default_template_is_asked_in_it(tmp_path: Path) -> None:
    write_tiny_chat(tmp_path, template=None)
    talk = Conversation((Turn("user", "hi"), Turn("assistant", "yo")))
    ChatTemplate(tiny_tokenizer(None), [talk]).tokenizer.save_pretrained(tmp_path)
    write_task(tmp_path, "text-generation", {"conversations": True})
    assert package.predict(tmp_path, ["hello"], tokens=12)[0].output == expected([("user", "hello")], 12)


def test_a_model_that_was_not_trained_on_conversations_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_chat(tmp_path / "model", template=None)
    talk = package.chat(tmp_path / "model", temperature=0.0, tokens=8)
    said = "model: was not trained on conversations; it goes on with what you write, each time anew"
    assert caplog.messages[0].endswith(said)
    tokenizer = tiny_tokenizer()
    prompt = tokenizer("once", add_special_tokens=False).input_ids
    (written,) = generate(tiny_llama(), [prompt], ends=(0,), most_new=8, context=256)
    assert talk.say("once") == talk.say("once") == tokenizer.decode(written)
    with pytest.raises(PlanError, match=r"has no chat template, so there is no place for a system turn$"):
        package.chat(tmp_path / "model", system="Be brief.")
    # A run on running text leaves the template that its model came with, and says what it was trained on.
    write_tiny_chat(tmp_path / "text")
    write_task(tmp_path / "text", "text-generation")
    assert not load_writer(str(tmp_path / "text")).chats
    write_task(tmp_path / "text", "text-generation", {"conversations": True})
    assert load_writer(str(tmp_path / "text")).chats
    write_task(tmp_path / "model", "text-generation", {"conversations": True})  # of prompts and completions
    assert package.chat(tmp_path / "model", temperature=0.0, tokens=8).say("once") == tokenizer.decode(written)
    assert caplog.messages[-1].endswith("model: was trained on prompts and completions; it answers each line by itself")
    assert package.predict(tmp_path / "model", ["once"], tokens=8)[0].output == tokenizer.decode(written)


def test_generate_puts_a_prompt_into_the_template_and_refuses_what_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_chat(tmp_path / "model")
    answer = package.generate(tmp_path / "model", "hello", tokens=12, temperature=0.0)
    assert answer == expected([("user", "hello")], 12)
    assert "model: trained on conversations; the prompt is put into its chat template" in caplog.text
    for number, task in enumerate(name for name in TASKS if name != "text-generation"):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_task(folder, task)
        for verb in (lambda: package.generate(folder, "hello"), lambda: package.chat(folder)):  # noqa: B023
            with pytest.raises(PlanError, match=f"a model for {task}, which writes no text; use `multistep predict"):
                verb()


def test_an_encoder_without_a_head_writes_nothing(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=259, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    tiny_tokenizer(None).save_pretrained(tmp_path / "encoder")
    with pytest.raises(PlanError, match=r"encoder: the weights of its head are missing .*, so it can write nothing$"):
        package.generate(tmp_path / "encoder", "hello")


def tiny_writer(context: int) -> Writer:
    return Writer("tiny", tiny_tokenizer(), tiny_llama(), True, context, (0, 2))


def test_the_oldest_turns_are_left_out_where_the_context_ends(caplog: pytest.LogCaptureFixture) -> None:
    talk = Talk(tiny_writer(160), temperature=0.0, tokens=10)
    for text in ("first", "second", "third", "fourth"):
        talk.say(text)
    assert talk.turns[0]["content"] != "first"
    assert talk.turns[-2]["content"] == "fourth"
    assert len(talk.writer.prompt(talk.turns)) <= 160
    assert "turns and their answers are left out: the model reads 160 tokens" in caplog.text
    turns = list(talk.turns)
    with pytest.raises(DataError, match=r"^this turn has 4\d\d tokens .*, and the model reads 160; say it in fewer"):
        talk.say("x" * 400)
    assert talk.turns == turns, "what was not answered was not said"


def test_drawn_answers_follow_from_the_seed_and_leave_the_random_state_alone() -> None:
    def drawn(seed: int) -> list[str]:
        talk = Talk(tiny_writer(256), temperature=1.0, tokens=10, seed=seed)
        return [talk.say("a"), talk.say("b")]

    state = torch.random.get_rng_state()
    assert drawn(1) == drawn(1) != drawn(2)
    assert torch.equal(state, torch.random.get_rng_state())


def test_pieces_are_whole_characters() -> None:
    tokenizer = tiny_tokenizer()
    told: list[str] = []
    pieces = Pieces(tokenizer, told.append)
    pieces.put(torch.tensor([[5, 6]]))  # the prompt
    for token in tokenizer("aé你", add_special_tokens=False).input_ids:
        pieces.put(torch.tensor([token]))
    assert told == ["a", "é", "你"]
    assert pieces.end() == "aé你"
    cut = Pieces(tokenizer, told.append)
    cut.put(torch.tensor([[5]]))
    for token in tokenizer("你", add_special_tokens=False).input_ids[:2]:
        cut.put(torch.tensor([token]))
    assert cut.end() == "\ufffd"
