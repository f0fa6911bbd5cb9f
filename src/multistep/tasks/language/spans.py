"""Text to hide words in: rows of a table, or running text cut into spans, each with its block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from multistep.core.evidence.metric import Floats
from multistep.core.values.plan import DataSpec
from multistep.data.names import SPLITS
from multistep.data.splits import held_out_table
from multistep.errors import DataError
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.language.encode import Encoded, Ints, encode_texts
from multistep.tasks.language.examples import NOTHING, Examples, LabelledSplits
from multistep.tasks.language.long import IN_MEMORY, Holding, kept_splits
from multistep.tasks.language.rows import FORM, Rows, is_table, rows_of
from multistep.tasks.text.corpus import LongTexts
from multistep.tasks.text.files import FORM as TEXT_FORM
from multistep.tasks.text.files import documents_of
from multistep.tasks.text.splits import load_splits
from multistep.tasks.text.stream import LEAST_SPAN_BYTES
from multistep.tasks.text.tokenizer import token_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PIECE_CHARACTERS = 2000  # that a running text is encoded in; at line ends alone
LEAST_SPANS = 2


@dataclass(frozen=True)
class Texts:
    """The texts of one split, and their pairs; of running text one text is a document."""

    texts: Sequence[str]
    seconds: Sequence[str] | None = None
    notes: tuple[str, ...] = ()  # of the source, to be said aloud


@dataclass(frozen=True)
class TextParts:
    """All splits, what is to be said of them, and a hash of them. `test` may be empty."""

    train: Texts
    validation: Texts
    test: Texts
    notes: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class Spans:
    """Encoded spans of a split, the block that each belongs to, and the text that each is of."""

    encoded: Encoded
    block: Floats
    text: Ints

    def __len__(self) -> int:
        return len(self.encoded)


def load_texts(data: DataSpec) -> TextParts:
    """What the plan names: text files and folders as text generation reads them, or the texts of a table.

    A table is cut as it would be for classification, so that a phase of either sees the same splits.
    """
    sources = [source for source in (data.source, data.train, data.validation, data.test) if source]
    if not is_table(sources[0]):
        found = load_splits(data)
        long = isinstance(found.train, LongTexts)
        train = Texts(found.train if long else tuple(found.train))
        validation, test = Texts(tuple(found.validation)), Texts(tuple(found.test))
        return TextParts(train, validation, test, found.notes, found.fingerprint)
    read = partial(_unlabelled, data)
    splits = kept_splits(data, read, "unlabelled") or read(IN_MEMORY)
    train, validation, test = (
        Texts(part.texts, part.seconds) for part in (splits.train, splits.validation, splits.test)
    )
    return TextParts(train, validation, test, splits.notes, splits.fingerprint)


def _unlabelled(data: DataSpec, holding: Holding) -> LabelledSplits:
    """The texts of a table, each with a label that says nothing."""
    from multistep.tasks.language.splits import fingerprint, read_splits  # torch, which processes that encode lack

    rows, notes = read_splits(data, holding)
    parts = {name: Examples(part.texts, part.seconds, np.zeros(len(part))) for name, part in rows.items()}
    train, validation, test = (parts.get(name, NOTHING) for name in SPLITS)
    return LabelledSplits(train, validation, test, Labels("number"), tuple(dict.fromkeys(notes)), fingerprint(rows))


def load_all(data: DataSpec) -> Texts:
    """All texts of one source; of several splits the test split, else the validation split."""
    if is_table(data.source or data.test or data.validation or data.train or ""):
        return _texts_of(rows_of(held_out_table(data, FORM), data, labelled=False))
    documents = documents_of(held_out_table(data, TEXT_FORM), data.text_column)
    return Texts(documents.texts, notes=documents.notes)


def _texts_of(rows: Rows) -> Texts:
    return Texts(rows.texts, rows.seconds, rows.notes)


def read_spans(tokenizer: Tokenizer, of: Texts, context: int) -> Spans:
    """Encode a split. Texts longer than `context` tokens become several spans; pairs are read whole, or lose their end.

    A text is a block; of a long one, every 2,048 bytes are, since its spans depend on each other.
    """
    if of.seconds is not None:
        encoded = encode_texts(tokenizer, of.texts, of.seconds, longest=context)
        rows = np.arange(len(encoded))
        return Spans(encoded, rows.astype(np.float64), rows)
    empty = tokenizer.encode("").ids
    before, after = (empty[:1], empty[1:]) if len(empty) > 1 else ([], empty)
    size = max(2, context - len(empty))
    sizes = word_bytes(tokenizer)
    tokens, words, starts, text, block = [], [], [0], [], []
    blocks = 0
    for number, document in enumerate(of.texts):
        ids, word = _encoded(tokenizer, document)
        ends = np.cumsum(sizes[ids])
        for first in range(0, len(ids), size):
            part = slice(first, first + size)
            tokens.append(np.concatenate((before, ids[part], after)))
            words.append(np.concatenate(([-1] * len(before), word[part], [-1] * len(after))))
            starts.append(starts[-1] + len(tokens[-1]))
            text.append(number)
            block.append(blocks + int(ends[first] // LEAST_SPAN_BYTES))
        blocks = block[-1] + 1 if block else 0
    flat = np.concatenate(tokens or [np.zeros(0)]).astype(np.int32)
    encoded = Encoded(
        flat,
        np.concatenate(words or [np.zeros(0)]).astype(np.int32),
        np.zeros(len(flat), np.int8),
        np.array(starts, np.int64),
    )
    return Spans(encoded, np.array(block, np.float64), np.array(text, np.int64))


def require_spans(spans: Spans, split: str, where: str) -> None:
    if len(spans) < LEAST_SPANS:
        raise DataError(f"{where}: the {split} split is {len(spans)} span of text; give more text")


def word_bytes(tokenizer: Tokenizer) -> Ints:
    """Length in UTF-8 bytes of what each token stands for in a text; of WordPiece without its mark of continuation."""
    from tokenizers import decoders

    lengths = token_bytes(tokenizer)
    if isinstance(tokenizer.decoder, decoders.WordPiece):
        for token, i in tokenizer.get_vocab().items():
            if token.startswith("##") and lengths[i] > 2:
                lengths[i] -= 2
    return lengths


def _encoded(tokenizer: Tokenizer, document: str) -> tuple[Ints, Ints]:
    """Token ids of a text without special tokens, and the number of the word that each is of."""
    pieces = _pieces(document)
    ids, words, offset = [], [], 0
    for encoding in tokenizer.encode_batch(pieces, add_special_tokens=False):
        found = np.array([-1 if word is None else word for word in encoding.word_ids], np.int64)
        ids.append(np.array(encoding.ids, np.int64))
        words.append(np.where(found < 0, -1, found + offset))
        offset += int(found.max(initial=-1)) + 1
    return np.concatenate(ids), np.concatenate(words)


def _pieces(text: str) -> Sequence[str]:
    """A long text in pieces that end at line ends: many times faster to encode."""
    if len(text) <= PIECE_CHARACTERS:
        return [text]
    pieces, held, size = [], [], 0
    for line in text.splitlines(keepends=True):
        held.append(line)
        size += len(line)
        if size >= PIECE_CHARACTERS:
            pieces.append("".join(held))
            held, size = [], 0
    return [*pieces, "".join(held)] if held else pieces
