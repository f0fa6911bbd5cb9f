"""Documents -> train, validation and test, cut where the user did not, with what stands in two of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from multistep.core.values.plan import DataSpec
from multistep.data.names import NO_TEST
from multistep.data.shares import to_cut
from multistep.data.splits import given_splits
from multistep.errors import DataError
from multistep.tasks.text.files import FORM, documents_of

LEAST_TRAIN_CHARACTERS = 200
ENOUGH_CHARACTERS = 1_000_000  # a smaller text gives more of itself, or its intervals would prove nothing
SHARE, SMALL_SHARE = 0.05, 0.1  # of validation, and of test
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(frozen=True)
class TextSplits:
    """Documents of the three splits; `test` may be empty. `contiguous`: each split is one running text."""

    train: tuple[str, ...]
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
    tables, notes = given_splits(data, FORM, named)
    given = {name: documents_of(table, data.text_column) for name, table in tables.items()}
    said = [note for name in given for note in given[name].notes]
    texts = {name: given[name].texts if name in given else () for name in ("train", "validation", "test")}
    contiguous = all(documents.contiguous for documents in given.values())
    origin = given["train"].origin
    usual = SHARE if sum(map(len, texts["train"])) >= ENOUGH_CHARACTERS else SMALL_SHARE
    if wanted := to_cut(shares or {}, given, usual, origin):
        cut = _cut_running_text if given["train"].contiguous else _cut_documents
        texts |= cut(texts["train"], wanted)
        sizes = ", ".join(f"{name} {sum(map(len, texts[name])):,}" for name in ("train", *wanted))
        notes.append(f"{origin}: cut into {sizes} characters")
    if not texts["test"]:
        notes.append(NO_TEST)
    for name in ("validation", "test"):
        notes += _duplicates(texts["train"], texts[name], name)
    size = sum(len(text.strip()) for text in texts["train"])
    if size < LEAST_TRAIN_CHARACTERS:
        raise DataError(
            f"{origin}: the train split has {size} characters; at least {LEAST_TRAIN_CHARACTERS} are needed, "
            "and many thousands to learn from"
        )
    if not any(text.strip() for text in texts["validation"]):
        raise DataError(
            f"{origin}: too little text, or too few different documents, to cut a validation split; add one"
        )
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
    places = [0, *(_line_end(text, 1 - share) for share in _tails(wanted)), len(text)]
    parts = [text[a:b] for a, b in pairwise(places)]
    return {name: (part,) if part.strip() else () for name, part in zip(["train", *wanted], parts, strict=True)}


def _tails(wanted: Mapping[str, float]) -> list[float]:
    """Share of the text from the beginning of each wanted split to the end."""
    shares = list(wanted.values())
    return [sum(shares[i:]) for i in range(len(shares))]


def _line_end(text: str, share: float) -> int:
    """The paragraph end, else the line end, nearest to `share` of `text`, if one is near."""
    at = round(share * len(text))
    reach = len(text) // 100
    for end in ("\n\n", "\n"):
        after = text.find(end, at, at + reach)
        before = text.rfind(end, max(at - reach, 0), at)
        near = [place + len(end) for place in (before, after) if place >= 0]
        if near:
            return min(near, key=lambda place: abs(place - at))
    return at


def _cut_documents(texts: Sequence[str], wanted: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """Whole documents in the order of their hash; a document belongs to the split in which it begins."""
    ordered = sorted((_hash(text), i) for i, text in enumerate(texts))
    groups = [[i for _, i in group] for _, group in groupby(ordered, key=lambda pair: pair[0])]
    total = sum(map(len, texts))
    starts = [1 - share for share in _tails(wanted)]
    names = ["train", *wanted]
    members: dict[str, list[list[int]]] = {name: [] for name in names}
    before = 0
    for group in groups:
        members[names[sum(before >= start * total for start in starts)]].append(group)
        before += sum(len(texts[i]) for i in group)
    for name in wanted:  # a few long documents can leave a split empty: it gets the shortest that train has
        if not members[name] and len(members["train"]) > 1:
            shortest = min(members["train"], key=lambda group: len(texts[group[0]]))
            members["train"].remove(shortest)
            members[name].append(shortest)
    # In the order of the source, which is the order that people know.
    return {name: tuple(texts[i] for i in sorted(i for group in members[name] for i in group)) for name in names}


def _duplicates(train: Sequence[str], other: Sequence[str], name: str) -> list[str]:
    """A note on the documents and paragraphs of `other` that stand word for word in `train`."""
    by_lines = not any(re.search(r"\S\n\s*\n", text) for text in (*train, *other))
    wanted = {text.strip() for text in other}
    units = {unit for text in other for unit in _units(text, by_lines) if _is_long(unit)}
    seen_texts = wanted.intersection(text.strip() for text in train)
    seen_units = {unit for text in train for unit in _units(text, by_lines) if unit in units}
    documents = paragraphs = of_paragraphs = characters = 0
    for text in other:
        if text.strip() in seen_texts:
            documents += 1
            characters += len(text)
            continue
        here = [unit for unit in _units(text, by_lines) if unit]
        repeated = [unit for unit in here if unit in seen_units]
        of_paragraphs += len(here)
        paragraphs += len(repeated)
        characters += sum(map(len, repeated))
    if not characters:
        return []
    what = [f"{documents} of {len(other)} documents"] if documents else []
    what += [f"{paragraphs} of {of_paragraphs} {'lines' if by_lines else 'paragraphs'}"] if paragraphs else []
    share = characters / sum(map(len, other))
    percent = f"{share:.1%}" if share >= 0.0005 else "under 0.1%"
    return [
        f"{name}: {' and '.join(what)} stand word for word in train ({percent} of its characters); "
        "on these it measures memory"
    ]


def _units(text: str, by_lines: bool) -> list[str]:
    parts = text.split("\n") if by_lines else re.split(r"\n\s*\n", text)
    return [part.strip() for part in parts]


def _is_long(unit: str) -> bool:
    """At least 40 letters, a Chinese, Japanese or Korean character standing for three: shorter ones recur."""
    if len(unit) >= 40:
        return True
    return len(unit) >= 14 and len(unit) + 2 * len(_CJK.findall(unit)) >= 40


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _fingerprint(texts: Mapping[str, Sequence[str]]) -> str:
    total = hashlib.blake2b(digest_size=32)
    for name, documents in texts.items():
        total.update(f"{name} {len(documents)}\n".encode())
        for text in documents:
            data = text.encode()
            total.update(f"{len(data)}\n".encode() + data)  # lengths, or two cuts of one text would look alike
    return total.hexdigest()
