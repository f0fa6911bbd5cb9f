"""Numbers that are none, in inputs and targets: found before they turn a training into NaN, with their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multistep.tasks.own.data import Indices, Split

LOOKED_AT = 256  # items of a split that is not in memory, evenly spread; the rest is looked at as it is read
NAMED = 5  # rows


@dataclass(frozen=True)
class NotFinite:
    """`places` are the examples of a batch that hold numbers that are not finite, in inputs or targets."""

    places: Indices
    inputs: bool
    targets: bool
    kind: str

    def told(self, split: Split, places: Indices | None, seen: int | None = None) -> str:
        """The message; `places` are the batch's own in the split, None where they are not known."""
        what = " and ".join(name for name, there in (("inputs", self.inputs), ("targets", self.targets)) if there)
        help_ = "fill them in, or leave these examples out"
        if places is None or not len(self.places):
            return f"{split.name}: {what} of a batch hold numbers that are not finite ({self.kind}); {help_}"
        rows = split.rows(places[self.places])
        named = ", ".join(map(str, rows[:NAMED])) + (", ..." if len(rows) > NAMED else "")
        of = f" of the {seen:,} looked at" if seen else ""
        several = "examples" if len(rows) > 1 else "example"
        where = f" of what was given as {split.origin}" if split.origin and split.origin != split.name else ""
        hold = "hold" if len(rows) > 1 else "holds"
        counted = f"row{'s' if len(rows) > 1 else ''} {named}"
        return (
            f"{split.name}: {len(rows):,} {several}{of} {hold} numbers that are not finite ({self.kind} in {what}), "
            f"{counted}{where}, counted from 0; {help_}"
        )


def not_finite(tensors: Sequence[Tensor], inputs: int) -> NotFinite | None:
    """What of a flat batch is not finite; the first `inputs` tensors are its inputs. None if all is."""
    bad: set[int] = set()
    of_inputs = of_targets = False
    kinds: list[str] = []
    for number, tensor in enumerate(tensors):
        if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
            continue
        # A sum is finite where all numbers are, but for overflow: one pass without memory of its own.
        if bool(torch.isfinite(tensor.sum())):
            continue
        fine = torch.isfinite(tensor)
        if bool(fine.all()):
            continue
        kinds += ["nan"] if bool(torch.isnan(tensor).any()) else []
        kinds += ["inf"] if bool(torch.isinf(tensor).any()) else []
        if tensor.ndim:
            bad |= set(torch.nonzero(~fine.reshape(len(tensor), -1).all(1)).flatten().tolist())
        of_inputs, of_targets = of_inputs or number < inputs, of_targets or number >= inputs
    if not kinds:
        return None
    return NotFinite(np.array(sorted(bad), dtype=np.int64), of_inputs, of_targets, " and ".join(dict.fromkeys(kinds)))


def looked_at(split: Split) -> Indices:
    """The examples that are looked at before training: all where they lie in memory, else some."""
    count = len(split) if split.items is None else min(len(split), LOOKED_AT)
    return np.unique(np.linspace(0, len(split) - 1, count).astype(np.int64))
