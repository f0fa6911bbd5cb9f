"""What counts of a user's DataLoader: its data set, how it joins items, its batch size, and which examples it draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from multistep.errors import PlanError
from multistep.tasks.own.data import Split, split_of
from multistep.tasks.own.weighted import Drawn

ORDER = "the order of examples is a function of seed and position here"


def split_given(name: str, given: Any) -> Split:
    """A split of a loader, or of whatever holds (input, target) pairs. Raises DataError or PlanError."""
    return of_loader(name, given) if isinstance(given, DataLoader) else split_of(name, given)


def of_loader(name: str, loader: DataLoader[Any]) -> Split:
    """A loader's data set, collate function, batch size and weights; the order of examples is not the loader's."""
    collate = loader.collate_fn
    split = split_of(name, loader.dataset, as_items=collate is not default_collate)
    batching = getattr(loader, "batch_sampler", None)
    size = loader.batch_size or getattr(batching, "batch_size", None)
    if not size:
        raise PlanError(f"{name}: the loader has no batch size; give its dataset, and recipe={{'batch_size': ...}}")
    notes = [*split.notes]
    if not isinstance(loader.dataset, IterableDataset):
        split, said = _as_drawn(name, split, loader, batching)
        notes += said
    notes.append(
        f"{name}: of the loader, the dataset, collate_fn and batch size count; its shuffling and workers do not"
    )
    return replace(split, collate=collate, batch_size=size, notes=tuple(notes))


def _as_drawn(name: str, split: Split, loader: DataLoader[Any], batching: Any) -> tuple[Split, list[str]]:
    """The split with what the loader's sampler says of it. Raises PlanError for a sampler that cannot be kept."""
    if batching is not None and type(batching) is not BatchSampler:
        raise PlanError(
            f"{name}: the loader's {type(batching).__name__} cannot be kept, since {ORDER}; give the dataset, or a "
            "loader with a WeightedRandomSampler"
        )
    # Of a batch sampler that was given, the loader's own sampler knows nothing.
    sampler: Any = loader.sampler if batching is None else batching.sampler
    if isinstance(sampler, SubsetRandomSampler):
        return split.part(np.asarray(list(sampler.indices), dtype=np.int64), name), []
    if type(sampler) is WeightedRandomSampler:
        if name != "train":
            raise PlanError(
                f"{name}: is scored on each example once, so its loader can draw none by weight; give the dataset"
            )
        return _weighted(name, split, sampler)
    if isinstance(sampler, RandomSampler) and sampler.replacement and name == "train":
        drawn = Drawn(np.ones(len(split)), True, len(split))
        return replace(split, drawn=drawn), [
            f"{name}: examples are drawn with replacement, as the loader's sampler does"
        ]
    if isinstance(sampler, RandomSampler | SequentialSampler):
        return split, []
    raise PlanError(
        f"{name}: the loader's {type(sampler).__name__} cannot be kept, since {ORDER}; give the dataset, and put "
        "weights into the loss, or into a WeightedRandomSampler"
    )


def _weighted(name: str, split: Split, sampler: WeightedRandomSampler) -> tuple[Split, list[str]]:
    weights = torch.as_tensor(sampler.weights, dtype=torch.float64).cpu().numpy()
    if len(weights) != len(split):
        raise PlanError(
            f"{name}: the WeightedRandomSampler has {len(weights):,} weights, the dataset {len(split):,} examples; "
            "give one an example"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise PlanError(f"{name}: the weights of the WeightedRandomSampler must be finite, 0 or more, and not all 0")
    drawn = Drawn(weights, bool(sampler.replacement), min(int(sampler.num_samples), int((weights > 0).sum())))
    how = "with" if drawn.replacement else "without"
    said = f"{name}: examples are drawn by the loader's weights ({weights.min():.3g} to {weights.max():.3g}), {how} "
    return replace(split, drawn=drawn), [f"{said}replacement, in an order that is a function of seed and position"]
