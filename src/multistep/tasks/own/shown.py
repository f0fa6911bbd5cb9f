"""What is shown and said of a table of predictions, whatever framework they come from."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from multistep.core.evidence.function_metric import FunctionMetric
from multistep.core.evidence.metric import Evaluation
from multistep.engine.learner import Exhibit
from multistep.errors import DataError, PlanError
from multistep.tasks.classes import confusion, per_class

SHOWN = 12
Ints = NDArray[np.integer]


def shown(table: Evaluation, names: Sequence[str], split: str, places: Ints) -> list[Exhibit]:
    """The worst predictions, with what is confused with what where there are classes of these `names`.

    `places` are those of the table's examples in their split (shape: rows).
    """
    if "prediction" not in table.columns:
        return []
    columns = {"prediction": table.columns["prediction"], "label": table.columns["label"]}
    misses = table.columns["loss"] if names else np.abs(columns["prediction"] - columns["label"])
    order, extra = np.argsort(-misses, kind="stable"), "probability" if names else "loss"
    rows = [
        (
            *(names[int(column[i])] if names else f"{column[i]:.4g}" for column in columns.values()),
            f"{table.columns[extra][i]:.3f}",
            str(places[i]),
        )
        for i in order[:SHOWN]
    ]
    worst = Exhibit(
        f"The worst predictions of the {split} split", columns=(*columns, extra, "example"), rows=tuple(rows)
    )
    return [confusion(table, names), per_class(table, names), worst] if names else [worst]


def gives_a_number(metric: FunctionMetric, table: Evaluation, split: str, *, scored: bool, classifies: bool) -> bool:
    """Whether the user's function gives a number; tells where it does not and the model is not to blame.

    That would look like divergence. The model may be to blame: of outputs that are not finite, or all the same, as some
    models' are at first, much is undefined. Raises PlanError where no model has been `scored` yet.
    """
    columns = table.columns
    if not all(np.isfinite(column).all() for column in columns.values()):
        return False
    said = ["prediction"] if "prediction" in columns else [name for name in columns if name.startswith("output_")]
    same = said and all(np.ptp(columns[name]) == 0 for name in said)
    if math.isfinite(score := metric.score(table)) or same:
        return math.isfinite(score)
    told = f"metric '{metric.name}' returned {score:g} of {len(table):,} examples whose outputs are finite numbers"
    if classifies and np.ptp(labels := columns["label"]) == 0:
        raise DataError(
            f"{told}: all {len(table):,} examples of {split} are of class {labels[0]:g}, so it cannot be "
            f"measured on them; give a {split} split with more than one class, or another metric"
        )
    if not scored:
        raise PlanError(f"{told}; it must give one too, whatever a model says")
    logging.getLogger("multistep").warning(f"{told}; the run takes that for divergence")
    return False
