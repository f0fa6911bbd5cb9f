"""Tokenizers of encoders: WordPiece or byte-level BPE learnt from the training texts, as stock `tokenizers` objects."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from multistep.errors import PlanError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, UNKNOWN, CLASS, SEPARATOR, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LEAST_FREQUENCY = 2  # of a merge: what occurs once teaches nothing
MOST_CHARACTERS = 5_000_000  # learnt from; longer texts are represented by evenly spaced ones
MOST_ALPHABET = 6000  # characters with tokens of their own; rarer ones are unknown
Kind = Literal["wordpiece", "bpe"]


def make_tokenizer(texts: Sequence[str], kind: Kind, vocabulary: int) -> Tokenizer:
    """A tokenizer learnt from texts, which must be those of the training split alone; the same texts give the same.

    "wordpiece": lower case, cut at white space and punctuation, every Chinese character a word (as in BERT, arXiv
    1810.04805), so that languages without spaces need no other tokenizer. "bpe": byte-level, case kept, nothing
    unknown. Ids 0 to 4 are [PAD], [UNK], [CLS], [SEP] and [MASK]; [CLS] a [SEP] or [CLS] a [SEP] b [SEP] is what a
    model reads. Raises PlanError for a vocabulary that is too small.
    """
    characters = sum(map(len, texts))
    texts = texts[:: -(-characters // MOST_CHARACTERS) or 1]
    tokenizer = _wordpiece(texts, vocabulary) if kind == "wordpiece" else _bpe(texts, vocabulary)
    add_template(tokenizer)
    return tokenizer


def add_template(tokenizer: Tokenizer) -> None:
    from tokenizers import processors

    marks = [(token, tokenizer.token_to_id(token)) for token in (CLASS, SEPARATOR)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLASS} $A {SEPARATOR}", pair=f"{CLASS} $A {SEPARATOR} $B:1 {SEPARATOR}:1", special_tokens=marks
    )


def _wordpiece(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(w for w, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)))
    counts = Counter[str]()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    frequent = sorted(counts, key=lambda c: (-counts[c], c))[:MOST_ALPHABET]
    inner = sorted({c for word in words for c in word[1:]} & set(frequent))
    # The trainer numbers "##a" and the like in the order in which a hash table gives it words, another in each
    # process, and ties between merges go by number. Numbered beforehand, as if they were special, they stay put.
    pieces = [*SPECIAL, *(f"##{c}" for c in inner)]
    if vocabulary < len(pieces) + len(frequent):
        vocabulary = len(pieces) + len(frequent)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        min_frequency=LEAST_FREQUENCY,
        special_tokens=pieces,
        initial_alphabet=sorted(frequent),
        limit_alphabet=MOST_ALPHABET,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    learnt = tokenizer.get_vocab(with_added_tokens=False)
    plain = Tokenizer(models.WordPiece(learnt, unk_token=UNKNOWN, max_input_chars_per_word=100))
    plain.normalizer, plain.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    plain.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    plain.add_special_tokens(list(SPECIAL))
    return plain


def _bpe(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    least = 256 + len(SPECIAL)
    if vocabulary < least:
        raise PlanError(f"model.vocabulary is {vocabulary}; byte-level BPE needs {least} or more; allowed: {least} up")
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=LEAST_FREQUENCY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, which `transformers.AutoTokenizer` loads."""
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],  # pairs are told apart by the second
        "clean_up_tokenization_spaces": False,
        **dict(zip(names, SPECIAL, strict=True)),
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
