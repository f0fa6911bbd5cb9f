"""The rules by which texts are cut into splits, and what stands in two of them: the same for texts of any length."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from multistep.errors import DataError

LEAST_TRAIN_CHARACTERS = 200
ENOUGH_CHARACTERS = 1_000_000  # a smaller text gives more of itself, or its intervals would prove nothing
SHARE, SMALL_SHARE = 0.05, 0.1  # of validation, and of test
# Of a held-out split: some 180 spans of 16 KB. More would make scoring dearer and intervals hardly shorter.
MOST_HELD_OUT = 3_000_000
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
_PARAGRAPHS = re.compile(r"\S\n\s*\n")


def usual_share(characters: int) -> float:
    """Of the characters, what validation and test get where nobody says."""
    if characters < ENOUGH_CHARACTERS:
        return SMALL_SHARE
    return min(SHARE, MOST_HELD_OUT / characters)


def require_enough(origin: str, characters: int, validation: Sequence[str]) -> None:
    """Raises DataError if train has under 200 characters or validation none."""
    if characters < LEAST_TRAIN_CHARACTERS:
        raise DataError(
            f"{origin}: the train split has {characters} characters; at least {LEAST_TRAIN_CHARACTERS} are needed, "
            "and many thousands to learn from"
        )
    if not any(text.strip() for text in validation):
        raise DataError(
            f"{origin}: too little text, or too few different documents, to cut a validation split; add one"
        )


def cut_note(origin: str, sizes: Mapping[str, int]) -> str:
    """What was cut, in characters; and why so little, where a long text would give more than is of use."""
    listed = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    return f"{origin}: cut into {listed} characters"


def hash_texts(
    total: hashlib.blake2b, name: str, parts: Iterable[bytes], sizes: Sequence[int], *, whole: bool = True
) -> None:
    """Add a split of so many texts to a hash, with their lengths, or two cuts of one text would look alike.

    `parts` are the texts, or, not `whole`, those of the only one.
    """
    total.update(f"{name} {len(sizes)}\n".encode())
    if not whole:
        total.update(f"{sizes[0]}\n".encode())
    for number, data in enumerate(parts):
        if whole:
            total.update(f"{sizes[number]}\n".encode())
        total.update(data)


def tails(wanted: Mapping[str, float]) -> list[float]:
    """Share of the text from the beginning of each wanted split to the end."""
    shares = list(wanted.values())
    return [sum(shares[i:]) for i in range(len(shares))]


def line_end(read: Callable[[int, int], str], length: int, share: float) -> int:
    """The paragraph end, else the line end, nearest to `share` of a text of this length, if one is near.

    `read(a, b)` gives the characters from `a` to `b`.
    """
    at = round(share * length)
    reach = length // 100
    low = max(at - reach, 0)
    near_by = read(low, min(at + reach, length))
    for end in ("\n\n", "\n"):
        after = near_by.find(end, at - low)
        before = near_by.rfind(end, 0, at - low)
        near = [low + place + len(end) for place in (before, after) if place >= 0]
        if near:
            return min(near, key=lambda place: abs(place - at))
    return at


def members_of(hashes: Sequence[bytes], sizes: Sequence[int], wanted: Mapping[str, float]) -> dict[str, list[int]]:
    """Which documents each split gets, in the order of the source, which is the order that people know.

    Whole documents in the order of their hash, equal ones together; each belongs to the split in which it begins.
    """
    ordered = sorted(range(len(hashes)), key=hashes.__getitem__)  # equal ones as they come
    groups = [list(group) for _, group in groupby(ordered, key=hashes.__getitem__)]
    total = sum(sizes)
    starts = [1 - share for share in tails(wanted)]
    names = ["train", *wanted]
    members: dict[str, list[list[int]]] = {name: [] for name in names}
    before = 0
    for group in groups:
        members[names[sum(before >= start * total for start in starts)]].append(group)
        before += sum(sizes[i] for i in group)
    for name in wanted:  # a few long documents can leave a split empty: it gets the shortest that train has
        if not members[name] and len(members["train"]) > 1:
            shortest = min(members["train"], key=lambda group: sizes[group[0]])
            members["train"].remove(shortest)
            members[name].append(shortest)
    return {name: sorted(i for group in members[name] for i in group) for name in names}


def duplicates(train: Sequence[str], held_out: Mapping[str, Sequence[str]], *, running: bool = False) -> list[str]:
    """Notes on the documents and paragraphs of held-out splits that stand word for word in train.

    `running`: train is one text, in consecutive parts.
    """
    paragraphs = any(_PARAGRAPHS.search(text) for text in train)
    by_lines = {
        name: not paragraphs and not any(_PARAGRAPHS.search(text) for text in texts) for name, texts in held_out.items()
    }
    wanted = {text.strip() for texts in held_out.values() for text in texts}
    units = {
        mode: {
            unit
            for name, texts in held_out.items()
            if by_lines[name] is mode
            for text in texts
            for unit in _units(text, mode)
            if _is_long(unit)
        }
        for mode in (False, True)
    }
    seen_texts = {text for text in _documents(train, running) if text in wanted}
    seen = {
        mode: {unit for unit in _units_of(train, mode, running) if unit in units[mode]} if units[mode] else set()
        for mode in (False, True)
    }
    return [
        note
        for name, texts in held_out.items()
        if texts
        for note in _repeated(name, texts, seen_texts, seen[by_lines[name]], by_lines[name])
    ]


def _documents(train: Sequence[str], running: bool) -> Iterator[str]:
    if running and len(train) > 1:
        return iter(())  # of a text in parts none is a document
    return (text.strip() for text in train)


def _repeated(name: str, texts: Sequence[str], seen_texts: set[str], seen_units: set[str], by_lines: bool) -> list[str]:
    documents = paragraphs = of_paragraphs = characters = 0
    for text in texts:
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
    what = [f"{documents} of {len(texts)} documents"] if documents else []
    what += [f"{paragraphs} of {of_paragraphs} {'lines' if by_lines else 'paragraphs'}"] if paragraphs else []
    share = characters / sum(map(len, texts))
    percent = f"{share:.1%}" if share >= 0.0005 else "under 0.1%"
    return [
        f"{name}: {' and '.join(what)} stand word for word in train ({percent} of its characters); "
        "on these it measures memory"
    ]


def _units_of(texts: Iterable[str], by_lines: bool, running: bool) -> Iterator[str]:
    """The lines or paragraphs of texts; where they are parts of one, those that go on in the next are whole."""
    behind = ""
    for text in texts:
        units = _units(behind + text, by_lines, strip=False)
        behind = units.pop() if running else ""
        yield from map(str.strip, units)
    yield behind.strip()


def _units(text: str, by_lines: bool, *, strip: bool = True) -> list[str]:
    parts = text.split("\n") if by_lines else re.split(r"\n\s*\n", text)
    return [part.strip() for part in parts] if strip else parts


def _is_long(unit: str) -> bool:
    """At least 40 letters, a Chinese, Japanese or Korean character standing for three: shorter ones recur."""
    if len(unit) >= 40:
        return True
    return len(unit) >= 14 and len(unit) + 2 * len(_CJK.findall(unit)) >= 40
