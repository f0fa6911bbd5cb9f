"""How Elasticsearch reads texts for a BERT, and whether it reads them as the run did.

It has WordPiece with two ways to come to it: lower case with accents stripped, or the text as it is (`do_lower_case`
sets both, as in BERT's own code). A tokenizer that lowers and keeps accents, as those that are learnt here do, is told
to take texts as they are, and the ingest pipeline lowers them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.errors import PlanError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # which Elasticsearch looks for by these names
LONGEST_WORD = 100  # characters; longer ones are unknown
PREFIX = "##"
WHAT_READS = "Elasticsearch reads texts for a BERT by WordPiece and a vocab.txt"
TRIED = (
    "The film was a bore, and 12.5% too long!",
    "Émile's café — naïve, coöperative, ÜBER señor",
    "你好,世界。日本語の文 한국어",
    "ALL CAPS; mixedCase_words/and-dashes (x=1) <b>",
    "Привет, мир! İstanbul ΌΔΟΣ",
    "tab\tand\nnew line, zero\u200bwidth and soft\u00adhyphen",
)


@dataclass(frozen=True)
class Words:
    """The vocabulary by id, and whether Elasticsearch lowers texts (and strips accents) or the pipeline does."""

    vocabulary: tuple[str, ...]
    lowers: bool
    lowered_before: bool

    def prepared(self, text: str) -> str:
        """A text as it comes to Elasticsearch's tokenizer."""
        return text.lower() if self.lowered_before else text


def words_of(tokenizer: Tokenizer, name: str) -> Words:
    """Raises PlanError for a tokenizer that Elasticsearch's cannot stand in for."""
    told: dict[str, Any] = json.loads(tokenizer.to_str())
    model, normalizer, before = (told.get(part) or {} for part in ("model", "normalizer", "pre_tokenizer"))
    if model.get("type") != "WordPiece" or model.get("continuing_subword_prefix") != PREFIX:
        raise PlanError(
            f"{name}: its tokenizer is {_kind(model)}, and {WHAT_READS}; train with model.tokenizer: wordpiece, or "
            "from a BERT. eland itself takes RoBERTa, BART, XLM-RoBERTa and DeBERTa-v2 from the model folder, untested"
        )
    known = normalizer.get("type") == "BertNormalizer" and normalizer.get("handle_chinese_chars")
    lower = bool(normalizer.get("lowercase"))
    strips = normalizer.get("strip_accents")
    strips = lower if strips is None else bool(strips)
    if not known or before.get("type") != "BertPreTokenizer" or (strips and not lower):
        raise PlanError(
            f"{name}: its tokenizer cuts words by {normalizer.get('type')} and {before.get('type')} "
            f"(lower case: {lower}, strips accents: {strips}), and Elasticsearch's cuts them as BERT's own code does: "
            "as they are, or lowered with accents stripped, each Chinese character a word; train with model.tokenizer: "
            "wordpiece, or from a BERT"
        )
    numbers = tokenizer.get_vocab(with_added_tokens=True)
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise PlanError(f"{name}: the numbers of its tokens have gaps, which no vocab.txt can have; use another model")
    if lacking := [token for token in SPECIAL[:4] if token not in numbers]:
        raise PlanError(
            f"{name}: its tokenizer has no {', '.join(lacking)}, which Elasticsearch looks for by name; train from a "
            "BERT"
        )
    vocabulary = tuple(sorted(numbers, key=numbers.__getitem__))
    if odd := next((token for token in vocabulary if token != token.strip() or not token), None):
        raise PlanError(
            f"{name}: {odd!r} is one of its tokens, which no line of a vocab.txt can hold; use another model"
        )
    return Words(vocabulary, lowers=lower and strips, lowered_before=lower and not strips)


def _kind(model: dict[str, Any]) -> str:
    return {"BPE": "byte-pair encoding", "Unigram": "SentencePiece's unigrams"}.get(model["type"], str(model["type"]))


def read_otherwise(words: Words, tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """The texts that Elasticsearch's tokenizer, as its code has it, makes other tokens of."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    numbers = {token: i for i, token in enumerate(words.vocabulary)}
    theirs = Tokenizer(models.WordPiece(numbers, unk_token=SPECIAL[1], max_input_chars_per_word=LONGEST_WORD))
    theirs.normalizer = normalizers.BertNormalizer(lowercase=words.lowers, strip_accents=words.lowers)
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    theirs.add_special_tokens([token for token in SPECIAL[-1:] if token in numbers])  # the one that it never splits
    own = Tokenizer.from_str(tokenizer.to_str())
    own.no_truncation()
    own.no_padding()

    def ids(of: Any, text: str) -> list[int]:
        return list(of.encode(text, add_special_tokens=False).ids)

    return [text for text in texts if ids(own, text) != ids(theirs, words.prepared(text))]


def write_words(words: Words, folder: Path, context: int) -> None:
    """vocab.txt and the settings that make transformers' BertTokenizer, and so eland, read as Elasticsearch does."""
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in words.vocabulary), encoding="utf-8")
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    if names["mask_token"] not in words.vocabulary:
        del names["mask_token"]
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": words.lowers,
        "strip_accents": words.lowers,
        "tokenize_chinese_chars": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    for name, content in (("tokenizer_config.json", {**settings, **names}), ("special_tokens_map.json", names)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
