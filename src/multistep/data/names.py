"""Names of splits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
    "testing": "test",
    "publictest": "validation",  # as competitions call what is shown on the way, and what decides
    "privatetest": "test",
}
ALLOWED = "train (training), validation (valid, val, dev, development, eval, evaluation), test (testing)"
COLUMNS = ("split", "subset", "partition")  # of tables, that say of each row which split it is in
SPLITS = ("train", "validation", "test")
NO_TEST = "there is no test split: the final score will be the validation split's own, chosen on it"


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """Which of these names are of splits, and of which: train, Testing; or seg_train, where there is seg_test.

    A longer name counts only beside one that differs in nothing but the split: train_station and test_tube are none.
    """
    families: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        words = re.split(r"([-_. ]+)", name.strip().lower())
        for i, word in enumerate(words):
            if word in NAMES:
                families["".join((*words[:i], "*", *words[i + 1 :]))][name] = NAMES[word]
    if "*" in families:
        return families["*"]
    several = (family for family in families.values() if len(set(family.values())) > 1)
    return {name: split for family in several for name, split in family.items()}


def begins_with_split(names: Iterable[str]) -> dict[str, str]:
    """Which of these names begin with a split's: train-clean-100, dev_manifest."""
    firsts = {name: re.split(r"[-_.]", name.strip().lower())[0] for name in names}
    return {name: NAMES[first] for name, first in firsts.items() if first in NAMES}
