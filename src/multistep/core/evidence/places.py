"""Statistics of examples that have a class at each place: pixels of an image, tokens of a text.

An example's row counts its places by class: `hit_k` those of class k that were predicted as such, `labelled_k`
those that are of it, `predicted_k` those that were said to be. Places that are ignored are in none of them.
"""

from __future__ import annotations

import numpy as np

from multistep.core.evidence.statistics import Columns, Estimate


def mean_iou(columns: Columns) -> Estimate:
    """Intersection over union (Jaccard), of each class over the whole split, and the mean of the classes."""
    return _over_classes(columns, doubled=False)


def dice(columns: Columns) -> Estimate:
    """Dice's coefficient, which is F1 of places, of each class over the whole split, and the mean of the classes."""
    return _over_classes(columns, doubled=True)


def _over_classes(columns: Columns, *, doubled: bool) -> Estimate:
    """The mean of ratios of sums. A class that no place of the split has is left out, as of F1 (`statistics`)."""
    count = sum(1 for name in columns if name.startswith("labelled_") and name[9:].isdigit())
    hit_NK, labelled_NK, predicted_NK = (
        np.stack([columns[f"{kind}_{k}"] for k in range(count)], axis=1) for kind in ("hit", "labelled", "predicted")
    )
    present_K = labelled_NK.any(axis=0)
    if not present_K.any():
        return 0.0, np.full(len(hit_NK), np.nan)
    both_NK = (labelled_NK + predicted_NK)[:, present_K]
    above_NK = hit_NK[:, present_K]
    below_NK = both_NK / 2 if doubled else both_NK - above_NK
    value_K = above_NK.sum(axis=0) / below_NK.sum(axis=0)
    influence_NK = (above_NK - value_K * below_NK) / below_NK.mean(axis=0)
    return float(value_K.mean()), influence_NK.mean(axis=1)
