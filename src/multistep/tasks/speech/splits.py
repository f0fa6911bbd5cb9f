"""Rows -> train, validation and test, cut by speaker or by hash where the user did not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multistep.core.values.plan import DataSpec
from multistep.data.names import NO_TEST, SPLITS
from multistep.data.shares import to_cut
from multistep.data.splits import given_splits
from multistep.errors import DataError
from multistep.tasks.speech.files import FORM, Row, listing_of, tells_transcripts

SHARE, SMALL_SHARE = 0.05, 0.1  # of validation, and of test
ENOUGH_ROWS = 20_000  # less gives more of itself, or its intervals would prove nothing
ENOUGH_SPEAKERS = 6  # to give some to validation and some to test, and keep most


@dataclass(frozen=True)
class Splits:
    """The rows of the three splits; `test` may be empty."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    notes: tuple[str, ...]

    def of(self, name: str) -> tuple[Row, ...]:
        rows: tuple[Row, ...] = getattr(self, name)
        return rows


def read_splits(data: DataSpec) -> Splits:
    """The splits that the data has (by folders, names or a `split` column), the others cut, the same way each time.

    With nothing but train, 80 : 10 : 10 of the rows are cut (90 : 5 : 5 of 20,000 or more): whole speakers where
    there are six or more, else rows by the hash of their path. A validation split missing beside a test split is
    cut from train by speaker if the test split's speakers are not in train either. A test split missing beside a
    validation split stays missing. Raises DataError.
    """
    tables, said = given_splits(data, FORM)
    told = {name: table for name, table in tables.items() if name == "train" or tells_transcripts(table, data)}
    said += [
        f"{tables[name].origin}: left aside, since it tells no transcripts" for name in tables.keys() - told.keys()
    ]
    listings = {name: listing_of(table, data) for name, table in told.items()}
    found = {name: list(listings[name].rows) if name in listings else [] for name in SPLITS}
    notes = [*(note for listing in listings.values() for note in listing.notes), *said]
    origin = data.source or data.train
    notes += _cut(found, data.shares, str(origin))
    if not found["test"]:
        notes.append(NO_TEST)
    if not found["validation"]:
        raise DataError(f"{origin}: too few rows to cut a validation split ({len(found['train'])}); add more")
    train, validation, test = (tuple(found[name]) for name in SPLITS)
    return Splits(train, validation, test, tuple(dict.fromkeys(notes)))


def _cut(found: dict[str, list[Row]], shares: Mapping[str, float], origin: str) -> list[str]:
    """Take from train what is missing, in place; the notes say what and how."""
    train = found["train"]
    usual = SHARE if len(train) >= ENOUGH_ROWS else SMALL_SHARE
    if not (wanted := to_cut(shares, [name for name in found if found[name]], usual, origin)):
        return []
    speakers = _speakers(train)
    apart = {speaker for name in ("validation", "test") for speaker in _speakers(found[name])}
    by_speaker = len(speakers) >= ENOUGH_SPEAKERS and not set(speakers) & apart
    groups = speakers if by_speaker else _files(train)
    ordered = sorted(groups, key=_hash)
    chosen: dict[str, str] = {}
    for name, share in wanted.items():
        size = 0
        while size < share * len(train) and len(chosen) < len(ordered) - 1:
            group = ordered[len(chosen)]
            chosen[group] = name
            size += len(groups[group])
    place = {id(row): chosen.get(group, "train") for group, rows in groups.items() for row in rows}
    for name in ("train", *wanted):
        found[name] = [row for row in train if place[id(row)] == name]
    sizes = ", ".join(f"{name} {len(found[name]):,}" for name in ("train", *wanted))
    how = "by speaker: nobody is in two" if by_speaker else "by the hash of the path"
    return [f"{origin}: cut into {sizes} utterances {how}"]


def _speakers(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    """The rows of each speaker; empty unless every row has one."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.speaker is None:
            return {}
        groups.setdefault(row.speaker, []).append(row)
    return groups


def _files(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    """The rows of each sound, by the last parts of its path: the same data elsewhere are cut in the same way."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row.path.parent.name}/{row.path.name}@{row.start}", []).append(row)
    return groups


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()
