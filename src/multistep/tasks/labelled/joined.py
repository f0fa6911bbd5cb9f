"""Fields that look like several labels at once: haze primary, Edema|Effusion."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from multistep.tasks.labelled.fields import SPACE

SURE = ("|", ";")  # which hardly stand in a name
SIGNS = (*SURE, ",", SPACE)
PLURAL = ("tags", "attributes")  # as no column of single labels is called
OFTEN_PLURAL = (*PLURAL, "labels", "classes", "categories")  # of which some have single ones


def separator_of(labels: Collection[str], column: str) -> str | None:
    """The sign between several labels in one field; None where each field is rather one label.

    Signs that hardly stand in names are believed where a part comes back in another label, as are commas and spaces in
    a column called tags. Elsewhere these are believed where most parts come back, rows have different numbers of them,
    and there are more combinations than parts: names such as `fire truck` and `school bus` are not like that. Spaces
    are believed elsewhere between whole numbers alone, and in columns whose names are plural.
    """
    different = {label.strip() for label in labels}
    for sign in SIGNS:
        combined = [label for label in different if sign in label]
        if not combined:
            continue
        parts = parts_of(different, sign)
        shared = sum(count > 1 for count in parts.values())
        if shared and (sign in SURE or column.lower().endswith(PLURAL)):
            return sign
        if sign == SPACE and all(re.fullmatch(r"\d+( \d+)*", label) for label in different):
            return sign
        if sign == SPACE and not column.lower().endswith(OFTEN_PLURAL):
            continue
        sizes = {len(label.split(sign)) for label in different}
        if len(sizes) > 1 and 2 * shared > len(parts) and len(different) > len(parts):
            return sign
    return None


def looks_joined(labels: Collection[str], column: str) -> str | None:
    """The sign between what may be several labels in a field: some parts are labels elsewhere, or most come back."""
    different = {label.strip() for label in labels}
    for sign in SIGNS:
        combined = [label for label in different if sign in label]
        parts = parts_of(different, sign)
        alone = any(part.strip() in different for label in combined for part in label.split(sign))
        most = 2 * sum(count > 1 for count in parts.values()) > len(parts)
        if combined and (sign == SURE[0] or alone or (column.lower().endswith(OFTEN_PLURAL) and most)):
            return sign
    return None


def parts_of(labels: Collection[str], sign: str) -> Counter[str]:
    """In how many different labels each part occurs."""
    return Counter(part.strip() for label in labels for part in {*label.split(sign)})
