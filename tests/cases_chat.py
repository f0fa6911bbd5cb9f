"""Small conversations with something to learn, and a small Llama with a chat template."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpora import OBJECTS, SUBJECTS, VERBS

from multistep.core.evidence.answers import token_f1
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec
from multistep.tasks.prediction import Prediction

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKS = ("<|im_start|>", "<|im_end|>")
SETTINGS = {"recipe": {"batch_size": 4, "learning_rate": 3e-3, "warmup_steps": 0}}
SIZES = {"train": 200, "validation": 24, "test": 24}


def tokenizer(template: str | None = CHATML, marks: Sequence[str] = MARKS) -> Any:
    """Of bytes, with an end of text and the marks of turns."""
    from transformers import PreTrainedTokenizerFast

    from multistep.tasks.text.tokenizer import byte_bpe_tokenizer

    made = byte_bpe_tokenizer(["user and assistant say four"], 257)
    made.add_special_tokens(list(marks))
    make: Any = PreTrainedTokenizerFast  # which has no types
    found = make(tokenizer_object=made, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    found.chat_template = template
    return found


def llama(tokens: int, spread: float = 0.02) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokens,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=spread,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def small_llama(folder: Path) -> str:
    hub = tokenizer()
    llama(len(hub)).save_pretrained(folder)
    hub.save_pretrained(folder)
    return str(folder)


def write(folder: Path) -> DataSpec:
    """Who does something to what, and the question who it was: the answer stands in the prompt."""
    choose = random.Random(0)
    for split, size in SIZES.items():
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(size):
                who, does, what = choose.choice(SUBJECTS), choose.choice(VERBS), choose.choice(OBJECTS)
                turns = [("user", f"{who} {does} {what}. Who?"), ("assistant", who)]
                if choose.random() < 0.3:
                    turns += [("user", "What?"), ("assistant", what)]
                row = {"messages": [{"role": role, "content": content} for role, content in turns]}
                file.write(json.dumps(row) + "\n")
    train, validation, test = (str(folder / f"{split}.jsonl") for split in SIZES)
    return DataSpec(train=train, validation=validation, test=test)


def _first_turns(folder: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line)["messages"] for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row[0]["content"], row[1]["content"]) for row in rows]


def inputs(folder: Path) -> list[str]:
    return [prompt for prompt, _ in _first_turns(folder)]


def agree(predictions: Sequence[Prediction], table: Evaluation, folder: Path) -> bool:
    """What is answered to a first question is what was scored of it: a conversation's first row."""
    answers = [reference for _, reference in _first_turns(folder)]
    found = [token_f1(str(p.output), answer) for p, answer in zip(predictions, answers, strict=True)]
    _, first = np.unique(table.columns["block"], return_index=True)
    return bool(np.allclose(found, table.columns["token_f1"][first]))
