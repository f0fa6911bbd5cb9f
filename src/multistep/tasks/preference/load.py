"""Whatever holds pairs of answers -> their splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multistep.core.values.plan import DataSpec
from multistep.data.names import NO_TEST
from multistep.data.peek import first_columns
from multistep.data.shares import to_cut
from multistep.errors import DataError
from multistep.tasks.chat.load import FORM, cut_items, duplicates, read_given, usual_share
from multistep.tasks.preference.pairs import CHOSEN, REJECTED, Pair, fingerprint_parts, read_pairs

LEAST_TRAIN, LEAST_HELD_OUT = 4, 2


@dataclass(frozen=True)
class PairSplits:
    """Pairs of the three splits; `test` may be empty."""

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]
    notes: tuple[str, ...]
    fingerprint: str  # blake2b of all splits, hexadecimal


def holds_pairs(data: DataSpec) -> bool:
    """Whether data are pairs of answers, by the columns of their table."""
    return {CHOSEN, REJECTED} <= {name.strip().lower() for name in first_columns(data, FORM)}


def load_pairs(data: DataSpec) -> PairSplits:
    """Read what the plan names and cut whatever split is missing, as conversations are: pairs of one prompt together.

    Raises DataError if train has under 4 pairs or validation under 2.
    """
    given, said = read_given(data, read_pairs)
    splits = {name: given[name].items if name in given else () for name in ("train", "validation", "test")}
    origin = given["train"].origin
    if missing := to_cut(data.shares, given, usual_share(splits["train"]), origin):
        splits |= cut_items(splits["train"], missing)
        sizes = ", ".join(f"{name} {len(splits[name]):,}" for name in ("train", *missing))
        said.append(f"{origin}: cut into {sizes} pairs, those of one prompt together")
    if not splits["test"]:
        said.append(NO_TEST)
    for name in ("validation", "test"):
        said += duplicates(splits["train"], splits[name], name, "pairs have the prompt")
    for name, least in {"train": LEAST_TRAIN, "validation": LEAST_HELD_OUT}.items():
        if len(splits[name]) < least:
            raise DataError(
                f"{origin}: the {name} split has {len(splits[name])} pairs, at least {least} are needed (those of one "
                "prompt stay in one split); give more"
            )
    return PairSplits(**splits, notes=tuple(dict.fromkeys(said)), fingerprint=_fingerprint(splits))


def _fingerprint(splits: Mapping[str, Sequence[Pair]]) -> str:
    total = hashlib.blake2b(digest_size=32)
    for name, pairs in splits.items():
        total.update(f"{name} {len(pairs)}\n".encode())
        for pair in pairs:
            for part in fingerprint_parts(pair):
                content = part.encode()
                total.update(f"{len(content)}\n".encode() + content)  # lengths, or two cuts would look alike
            total.update(b"\0")
    return total.hexdigest()
