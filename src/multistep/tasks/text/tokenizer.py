"""Text to token ids and back: characters or byte-level BPE, both as stock `tokenizers` objects.

Everything round-trips exactly: no prefix space, no clean-up, no normalisation. A text that spells out
"<|endoftext|>" is text; only the program writes the special token.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multistep.errors import DataError
from multistep.tasks.sampling import characters_counted
from multistep.tasks.text.corpus import alphabet_of, characters_of, is_long
from multistep.tasks.text.words import WordEncoder, pieces_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<unk>"
LEAST_BYTE_VOCABULARY = 257  # every byte, and the end of text
LEARNT_FROM = 2_000_000  # characters; of long texts as many as 2% of the time bear
A_SECOND, OF_MANY_SIGNS, MANY_SIGNS = 1e6, 1.4e5, 1000  # characters a second; of texts with so many different ones
BYTES_A_CHARACTER = 25.0  # of memory
_THREADS = "TOKENIZERS_PARALLELISM"
_USER_DECIDED = _THREADS in os.environ
_OWN_PROCESS = os.getpid()


def character_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """One token a character (code point) of `texts`, the newline always among them.

    Ids: 0 end of text, 1 unknown, then the characters in the order of their code points.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    characters = sorted(alphabet_of(texts) | {"\n"})
    vocabulary = {token: i for i, token in enumerate([END_OF_TEXT, UNKNOWN, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([END_OF_TEXT, UNKNOWN])
    return tokenizer


def byte_bpe_tokenizer(texts: Sequence[str], vocabulary_size: int, *, most_characters: int | None = None) -> Tokenizer:
    """Byte-level BPE (as GPT-2's) learnt from `texts`, which must be the training split alone.

    Knows every byte, so nothing is unknown in any language. Ids: 0 end of text, then bytes, then merges. The
    same texts give the same tokenizer. Little text may give fewer tokens than asked. Longer texts than
    `most_characters` are represented by evenly spaced pieces, since Chinese takes 7 s a million on two cores
    (English 1 s) and more text hardly changes the merges.
    Raises DataError if `vocabulary_size` is below 257.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocabulary_size < LEAST_BYTE_VOCABULARY:
        raise DataError(
            f"vocabulary_size is {vocabulary_size}; byte-level BPE needs {LEAST_BYTE_VOCABULARY} or more "
            "(256 bytes and the end of text); raise it or use the character tokenizer"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    most_characters = most_characters or LEARNT_FROM
    keep_one_in = -(-characters_of(texts) // most_characters) or 1
    pieces = list(islice(chain.from_iterable(map(pieces_of, texts)), 0, None, keep_one_in))
    with _threads():
        tokenizer.train_from_iterator(pieces, trainer)
    return tokenizer


def learnt_from(texts: Sequence[str], seconds: float | None) -> int:
    """The characters that a byte-level BPE is learnt from, of a plan of so many seconds (None: not told in time)."""
    if seconds is None or not is_long(texts):
        return LEARNT_FROM
    speed = OF_MANY_SIGNS if len(alphabet_of(texts)) > MANY_SIGNS else A_SECOND
    return characters_counted(seconds, speed, BYTES_A_CHARACTER, LEARNT_FROM)


def sample_note(texts: Sequence[str], tokenizer: Tokenizer, seconds: float | None = None) -> list[str]:
    """That a byte-level BPE was learnt from a part of these texts, where they are long."""
    characters, learnt = characters_of(texts), learnt_from(texts, seconds)
    if characters <= learnt or not _is_byte_level(tokenizer):
        return []
    share = f"{learnt / 1e6:g} of the {characters / 1e6:,.1f} million characters of the training split"
    return [f"the tokenizer was learnt from about {share}, evenly spaced"]


def encode(tokenizer: Tokenizer, text: str) -> NDArray[np.int32]:
    """Token ids of `text`, shape (tokens,), without added special tokens."""
    return encoder_of(tokenizer)(text)


def encoder_of(tokenizer: Tokenizer) -> Callable[[str], NDArray[np.int32]]:
    """What gives the token ids of a text, shape (tokens,), without added special tokens.

    Characters by one table look-up (about 10 ms a million), our byte-level BPE by a table of words (about 100 ms a
    million). Any other tokenizer gets the text whole.
    """
    if _is_character_level(tokenizer):
        table = _character_table(tokenizer)
        return lambda text: table[np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)]
    by_library = functools.partial(_by_library, tokenizer)
    if _is_byte_level(tokenizer):
        return WordEncoder(tokenizer, by_library)
    return lambda text: by_library([text])[0]


def _by_library(tokenizer: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    was, tokenizer.encode_special_tokens = tokenizer.encode_special_tokens, True
    try:
        with _threads():
            encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    finally:
        tokenizer.encode_special_tokens = was
    return [np.array(e.ids, dtype=np.int32) for e in encodings]


def token_bytes(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Length in UTF-8 bytes of each token, shape (vocabulary,); special tokens, the unknown one too, count 0.

    Exact for characters, byte-level BPE and byte fallback; for other tokenizers the length of the token as it
    is written, with SentencePiece's mark as one space. Unknown characters have bytes of their own, so take
    the bytes of a split from its text wherever the character tokenizer can meet them.
    """
    from tokenizers import decoders, pre_tokenizers

    lengths = np.zeros(tokenizer.get_vocab_size(), np.int64)
    byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)
    byte_signs = set(pre_tokenizers.ByteLevel.alphabet())
    added = tokenizer.get_added_tokens_decoder()
    for token, i in tokenizer.get_vocab().items():
        if i in added:
            lengths[i] = 0 if added[i].special else len(token.encode())
        elif byte_level and byte_signs.issuperset(token):
            lengths[i] = len(token)  # each sign stands for one byte
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            lengths[i] = 1
        else:
            lengths[i] = len(token.replace("▁", " ").encode())
    return lengths


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, which `transformers.AutoTokenizer` loads.

    `context`: most tokens a model reads. As in GPT-2, the end of text begins texts too, and is also the
    unknown token where nothing can be unknown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": UNKNOWN if tokenizer.token_to_id(UNKNOWN) is not None else END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder; DataError if there is none or it cannot be read."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; a model folder needs the tokenizer.json it was trained with")
    try:
        return as_it_is(Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{path}: `tokenizers` cannot read it ({error}); save the tokenizer again") from None


def as_it_is(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without cutting or filling up: whoever saved it after a call that did has left that in its file."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def for_transformers(tokenizer: Tokenizer, folder: Path | None = None) -> Any:
    """A tokenizer of ours as transformers has it: that of the folder it was exported to, else one made of it."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if folder is not None:
        return AutoTokenizer.from_pretrained(folder)
    make: Any = PreTrainedTokenizerFast  # which has no types
    return make(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=UNKNOWN if tokenizer.token_to_id(UNKNOWN) is not None else END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def _is_character_level(tokenizer: Tokenizer) -> bool:
    from tokenizers import Regex, models, pre_tokenizers

    ours = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return isinstance(tokenizer.model, models.WordLevel) and _same_splits(tokenizer, ours)


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    from tokenizers import models, pre_tokenizers

    ours = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return isinstance(tokenizer.model, models.BPE) and _same_splits(tokenizer, ours)


def _same_splits(tokenizer: Tokenizer, ours: object) -> bool:
    theirs = tokenizer.pre_tokenizer
    if type(theirs) is not type(ours) or tokenizer.normalizer is not None:
        return False
    return bool(theirs.__getstate__() == ours.__getstate__())


def _character_table(tokenizer: Tokenizer) -> NDArray[np.int32]:
    """Token id of each code point, shape (0x110000,)."""
    vocabulary = tokenizer.get_vocab()
    table = np.full(0x110000, vocabulary[UNKNOWN], np.int32)
    for token, i in vocabulary.items():
        if len(token) == 1:
            table[ord(token)] = i
    return table


@contextmanager
def _threads() -> Iterator[None]:
    """Let `tokenizers` use its threads in here alone, unless the user has decided.

    Outside, the variable says "false": otherwise every later fork (data loading) warns, and a fork that uses
    threads whose pool stayed in its parent hangs.
    """
    if _USER_DECIDED or os.getpid() != _OWN_PROCESS:
        yield
        return
    os.environ[_THREADS] = "true"
    try:
        yield
    finally:
        os.environ[_THREADS] = "false"
