"""A tiny Llama with random weights and a tokenizer that talks, for tests of conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def tiny_tokenizer(template: str | None = CHATML) -> Any:
    """Bytes as tokens, behind three marks."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*MARKS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(MARKS))
    found = make(tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    if template:
        found.chat_template = template
    return found


def tiny_llama(seed: int = 0, context: int = 256) -> Any:
    """Two layers of 32 with two heads that share their keys; larger weights than usual, so that its words differ."""
    from transformers import LlamaConfig, LlamaForCausalLM

    make: Any = LlamaForCausalLM
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
        initializer_range=0.3,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return make(config).eval()


def write_tiny_chat(folder: Path, template: str | None = CHATML, seed: int = 0) -> Path:
    """The folder of such a model."""
    tiny_llama(seed).save_pretrained(folder)
    tiny_tokenizer(template).save_pretrained(folder)
    return folder
