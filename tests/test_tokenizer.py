"""Tokens: exact round trips, equal to the library's own, readable by transformers."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from multistep.errors import DataError
from multistep.tasks.text.tokenizer import (
    END_OF_TEXT,
    UNKNOWN,
    byte_bpe_tokenizer,
    character_tokenizer,
    encode,
    load_tokenizer,
    save_tokenizer,
    token_bytes,
)

AWKWARD = (
    " two  spaces\n\n\n and a tab\t.\nDon't 'quote' , no clean up !\r\n明月几时有\n把酒问青天。🙂👩‍👩‍👧"
    " e\u0301\u2028\u0085\x1c\n"
    f" 12,345\n{END_OF_TEXT} is text\n<unk>\n trailing  "
)


def build(kind: str, text: str = AWKWARD) -> Tokenizer:
    return character_tokenizer([text]) if kind == "character" else byte_bpe_tokenizer([text], 400)


@pytest.mark.parametrize("kind", ["character", "bpe"])
def test_round_trip_here_and_in_transformers(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = build(kind)
    save_tokenizer(tokenizer, tmp_path, context=128)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in [AWKWARD, *AWKWARD, "", "\n", "  ", AWKWARD * 30]:
        ids = encode(tokenizer, text)
        assert ids.dtype == np.int32
        assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text
        np.testing.assert_array_equal(ids, encode(load_tokenizer(tmp_path), text))
        assert theirs.decode(ids.tolist()) == text
        if END_OF_TEXT not in text and UNKNOWN not in text:
            assert theirs.encode(text) == ids.tolist()
            assert theirs.decode(theirs.encode(text)) == text
    assert theirs.eos_token == theirs.bos_token == END_OF_TEXT
    assert theirs.eos_token_id == tokenizer.token_to_id(END_OF_TEXT) == 0
    assert theirs.unk_token == (UNKNOWN if kind == "character" else END_OF_TEXT)
    assert theirs.model_max_length == 128
    assert len(theirs) == tokenizer.get_vocab_size()


@pytest.mark.parametrize("kind", ["character", "bpe"])
def test_our_shortcut_gives_the_librarys_tokens(kind: str) -> None:
    tokenizer = build(kind)
    tokenizer.encode_special_tokens = True
    random = np.random.default_rng(0)
    parts = ["a", "ab", " ", "\n", "\n\n", "\t", "'s", ",", "12", "明月", "🙂"]
    parts += ["\x1c", "\u0085", "\u3000", "\u200b"]  # white space to Python, to Unicode, to both, to neither
    for _ in range(20):
        text = "".join(random.choice(parts) for _ in range(6000))
        assert encode(tokenizer, text).tolist() == tokenizer.encode(text).ids
    tokenizer.encode_special_tokens = False
    assert 0 not in encode(tokenizer, END_OF_TEXT), "text never makes a special token"
    assert tokenizer.encode(END_OF_TEXT).ids == [0], "and the setting is as it was"


def test_characters_never_seen_are_unknown() -> None:
    tokenizer = character_tokenizer(["abc"])
    assert encode(tokenizer, "a\n☃").tolist() == [3, 2, 1]


@pytest.mark.parametrize("kind", ["character", "bpe"])
def test_token_bytes_add_up_to_the_text(kind: str) -> None:
    tokenizer = build(kind)
    lengths = token_bytes(tokenizer)
    assert lengths.shape == (tokenizer.get_vocab_size(),)
    assert lengths[encode(tokenizer, AWKWARD)].sum() == len(AWKWARD.encode())
    assert lengths[0] == 0


def test_bpe_is_deterministic_and_bounded() -> None:
    texts = [AWKWARD, "the cat sat on the mat and the bat sat on the hat " * 20]
    first, second = (json.loads(byte_bpe_tokenizer(texts, 300).to_str()) for _ in range(2))
    assert first == second
    assert len(first["model"]["vocab"]) == 300
    with pytest.raises(DataError, match="257 or more"):
        byte_bpe_tokenizer(texts, 256)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="cannot read it"):
        load_tokenizer(tmp_path)


@pytest.mark.real_data
@pytest.mark.skipif("MULTISTEP_DATA" not in os.environ, reason="needs the real data")
def test_a_million_characters_in_a_moment() -> None:
    text = (Path(os.environ.get("MULTISTEP_DATA", "")) / "tinyshakespeare/input.txt").read_text()
    tokenizer = character_tokenizer([text])
    encode(tokenizer, "warm")
    started = time.process_time()
    ids = encode(tokenizer, text)
    assert time.process_time() - started < 0.2
    assert len(ids) == len(text)
    assert tokenizer.decode(ids.tolist()) == text
    bpe = byte_bpe_tokenizer([text[:200_000]], 1024)
    assert encode(bpe, text).tolist() == bpe.encode(text).ids
