"""Documents -> train, validation and test, cut where the user did not, with what stands in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from multistep.core.values.plan import DataSpec
from multistep.data.names import NO_TEST
from multistep.data.shares import to_cut
from multistep.data.splits import given_splits
from multistep.tasks.text.cutting import (
    cut_note,
    duplicates,
    hash_texts,
    line_end,
    members_of,
    require_enough,
    tails,
    usual_share,
)
from multistep.tasks.text.files import FORM, documents_of
from multistep.tasks.text.long import long_splits

MOST_IN_MEMORY = 2**26  # bytes of text; what is longer is kept in a file


@dataclass(frozen=True)
class TextSplits:
    """Documents of the three splits; `test` may be empty.

    `contiguous`: each split is one running text, of which a long train split has the consecutive parts.
    """

    train: Sequence[str]  # LongTexts, where memory should not hold them
    validation: tuple[str, ...]
    test: tuple[str, ...]
    contiguous: bool
    notes: tuple[str, ...]  # guesses, cuts and duplicates, to be said aloud
    fingerprint: str  # blake2b of all splits, hexadecimal


def load_splits(
    source: str | Mapping[str, str] | DataSpec,
    *,
    text_column: str | None = None,
    shares: Mapping[str, float] | None = None,
) -> TextSplits:
    """Read `source` (see `read_documents`) and cut whatever split is missing, the same way each time.

    A `DataSpec` says itself which column holds the text, how files are written and which shares are cut.
    Splits are taken as given from a mapping of names to sources, from a folder that holds files or folders
    named train, validation (val, valid, dev) or test, from a table's column `split`, and from the splits of a
    Hugging Face data set. With nothing but train, 90 : 5 : 5 of the characters are cut (80 : 10 : 10 of less
    than a million): a running text at line ends, the tail last; documents whole, ordered by their hash, equal
    ones together. A missing validation split is cut from train; a test split missing beside a validation split
    stays missing. `shares` of train go before these. Paragraphs that stand in two splits are reported, not removed.
    Raises DataError if train has under 200 characters or validation none.
    """
    if isinstance(source, DataSpec):
        data, named, shares = source, None, source.shares
    else:
        data = DataSpec(source=source if isinstance(source, str) else None, text_column=text_column)
        named = None if isinstance(source, str) else source
    if (long := long_splits(data, named, shares or {}, MOST_IN_MEMORY)) is not None:
        held = long.held_out
        return TextSplits(long.train, held["validation"], held["test"], long.contiguous, long.notes, long.fingerprint)
    tables, notes = given_splits(data, FORM, named)
    given = {name: documents_of(table, data.text_column) for name, table in tables.items()}
    said = [note for name in given for note in given[name].notes]
    texts = {name: given[name].texts if name in given else () for name in ("train", "validation", "test")}
    contiguous = all(documents.contiguous for documents in given.values())
    origin = given["train"].origin
    usual = usual_share(sum(map(len, texts["train"])))
    if wanted := to_cut(shares or {}, given, usual, origin):
        cut = _cut_running_text if given["train"].contiguous else _cut_documents
        texts |= cut(texts["train"], wanted)
        notes.append(cut_note(origin, {name: sum(map(len, texts[name])) for name in ("train", *wanted)}))
    if not texts["test"]:
        notes.append(NO_TEST)
    held_out = {name: texts[name] for name in ("validation", "test")}
    notes += duplicates(texts["train"], held_out)
    require_enough(origin, sum(len(text.strip()) for text in texts["train"]), texts["validation"])
    return TextSplits(
        texts["train"],
        texts["validation"],
        texts["test"],
        contiguous,
        tuple(dict.fromkeys([*said, *notes])),
        _fingerprint(texts),
    )


def _cut_running_text(texts: Sequence[str], wanted: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    text = texts[0]
    ends = (line_end(lambda a, b: text[a:b], len(text), 1 - share) for share in tails(wanted))
    parts = [text[a:b] for a, b in pairwise([0, *ends, len(text)])]
    return {name: (part,) if part.strip() else () for name, part in zip(["train", *wanted], parts, strict=True)}


def _cut_documents(texts: Sequence[str], wanted: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    members = members_of([_hash(text) for text in texts], [len(text) for text in texts], wanted)
    return {name: tuple(texts[i] for i in held) for name, held in members.items()}


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _fingerprint(texts: Mapping[str, Sequence[str]]) -> str:
    total = hashlib.blake2b(digest_size=32)
    for name, documents in texts.items():
        data = [text.encode() for text in documents]
        hash_texts(total, name, data, [len(each) for each in data])
    return total.hexdigest()
