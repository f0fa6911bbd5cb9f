"""The splits of what the user gave for a module, and the classes of their examples."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from multistep.tasks.own.data import Split
from multistep.tasks.own.layout import TARGET_KEYS
from multistep.tasks.own.loaders import split_given
from multistep.tasks.own.parting import Labels, as_classes, classes_counted, split_up


def read_splits(given: Mapping[str, object], target: str | None) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The splits "train", "validation" and perhaps "test", and what is to be said about them."""
    return split_up(given, split_given, functools.partial(labels_of, target=target))


def class_counts(splits: Mapping[str, Split], target: str | None) -> str | None:
    """How many examples each class has in each split, in words; None where there are no classes."""
    return classes_counted(splits, functools.partial(labels_of, target=target))


def labels_of(split: Split, target: str | None) -> Labels | None:
    """The class of each example, as far as that is known without reading the items; None where there are no classes."""
    found = _given_labels(split, target)
    if found is None or found.ndim != 1:
        return None
    return as_classes(found if split.indices is None else found[split.indices])


def _given_labels(split: Split, target: str | None) -> NDArray[Any] | None:
    if split.items is None:
        found = _target_in(split.whole, target)
        return found.detach().cpu().numpy() if isinstance(found, Tensor) else None
    columns = getattr(split.items, "column_names", None)  # of Hugging Face's datasets
    if isinstance(columns, list):
        keys = [target] if target else [key for key in TARGET_KEYS if key in columns]
        return _as_array(list(split.items[keys[0]])) if len(keys) == 1 and keys[0] in columns else None
    for name in ("targets", "labels"):
        found = getattr(split.items, name, None)
        if isinstance(found, list | tuple | np.ndarray | Tensor) and len(found) == len(split.items):
            return _as_array(found)
    if isinstance(split.items, list | tuple):
        parts = [_target_in(item, target) for item in split.items]
        return _as_array([part.item() if isinstance(part, Tensor) and part.numel() == 1 else part for part in parts])
    return None


def _target_in(value: Any, target: str | None) -> Any:
    """The target of a batch or item, by its key or its place."""
    if isinstance(value, Mapping):
        keys = [target] if target else [key for key in TARGET_KEYS if key in value]
        return value.get(keys[0]) if len(keys) == 1 else None
    return value[-1] if isinstance(value, tuple | list) and len(value) > 1 else None


def _as_array(found: Any) -> NDArray[Any] | None:
    try:
        return np.asarray(found)
    except (TypeError, ValueError, RuntimeError):  # of several shapes
        return None
