"""Names of splits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

NAMES = {
    "train": "train",
    "trn": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "validate": "validation",
    "test": "test",
    "tst": "test",
    "holdout": "test",
    "heldout": "test",
    "testing": "test",
    "publictest": "validation",  # as competitions call what is shown on the way, and what decides
    "privatetest": "test",
}
ALLOWED = "train (training), validation (valid, val, dev, development, eval, evaluation), test (testing, holdout)"
COLUMNS = ("split", "subset", "partition")  # of tables, that say of each row which split it is in
SPLITS = ("train", "validation", "test")
NO_TEST = "there is no test split: the final score will be the validation split's own, chosen on it"

# Behind the name of a split that "train" stands beside alone: of several tests the first of these is meant. GLUE's
# dev_matched is one, RefCOCO's testA; what else people append.
_QUALIFIERS = ("matched", "a", "seen", "public", "clean", "set", "data", "split")
_PARTED = re.compile(r"(?<=held)[-_. ](?=out)|(?<=hold)[-_. ](?=out)")
_GOING_ON = re.compile(r"([a-z]+?)(\d{2,4}|set|data|images|imgs)")  # train2017, trainset


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """Which of these names are of splits, and of which: train, Testing; or seg_train, where there is seg_test.

    A longer name counts only beside one that differs in nothing but the split: train_station and test_tube are none.
    """
    families: dict[str, dict[str, str]] = defaultdict(dict)
    names = list(names)
    for name in names:
        words = re.split(r"([-_. ]+)", _PARTED.sub("", name.strip().lower()))
        for i, word in enumerate(words):
            more = None if word in NAMES else _GOING_ON.fullmatch(word)
            word, rest = (more[1], more[2]) if more else (word, "")
            if word in NAMES:
                families["".join((*words[:i], "*", rest, *words[i + 1 :]))][name] = NAMES[word]
    if "*" in families:
        return _with_qualified(families["*"], names)
    several = (family for family in families.values() if len(set(family.values())) > 1)
    return {name: split for family in several for name, split in family.items()}


def _with_qualified(known: dict[str, str], names: Sequence[str]) -> dict[str, str]:
    """These, and of the splits that train lacks beside it the first of those whose names go on: dev_matched, testA."""
    if "train" not in known.values():
        return known
    found = dict(known)
    for qualifier in _QUALIFIERS:
        ending = re.compile(rf"(.+?)[-_. ]?{qualifier}")
        told = {name: m[1] for name in names if name not in known and (m := ending.fullmatch(name.strip().lower()))}
        for split in {NAMES[begun] for begun in told.values() if begun in NAMES} - {*found.values()}:
            of_split = [name for name, begun in told.items() if NAMES.get(begun) == split]
            found |= {name: split for name in of_split if len(of_split) == 1}
    return found


def begins_with_split(names: Iterable[str]) -> dict[str, str]:
    """Which of these names begin with a split's: train-clean-100, dev_manifest."""
    firsts = {name: re.split(r"[-_.]", name.strip().lower())[0] for name in names}
    return {name: NAMES[first] for name, first in firsts.items() if first in NAMES}
