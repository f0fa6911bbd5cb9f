"""What a module of the user's own says, with the weights that a run gave it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

AT_ONCE = 256  # examples


def outputs(module: nn.Module, folder: Path, inputs: Any) -> Tensor:
    """The outputs for all inputs, a row an example, on the CPU; the module itself stays as it is.

    `inputs` are a tensor or array with a row an example, a data set or list of inputs, or one of dicts that name the
    module's arguments. Raises PlanError where the weights do not fit, DataError where an output is no tensor.
    """
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from multistep.tasks.own.use import load_weights

    filled = load_weights(copy.deepcopy(module), folder)
    where = next((each.device for each in filled.parameters()), torch.device("cpu"))
    rows: Any = torch.from_numpy(np.ascontiguousarray(inputs)) if isinstance(inputs, np.ndarray) else inputs
    if not hasattr(rows, "__getitem__"):
        rows = list(rows)
    found = []
    with torch.no_grad():
        for batch in DataLoader(rows, batch_size=AT_ONCE):
            if isinstance(batch, Mapping):
                said = filled(**{name: _ready(part, where) for name, part in batch.items()})
            elif isinstance(batch, list | tuple):
                said = filled(*(_ready(part, where) for part in batch))
            else:
                said = filled(_ready(batch, where))
            said = getattr(said, "logits", said)
            if not isinstance(said, torch.Tensor):
                raise DataError(
                    f"predict: the module gives a {type(said).__name__}, not a tensor; call result.load(model) and the "
                    "module yourself"
                )
            found.append(said.cpu())
    if not found:
        raise DataError("predict: inputs holds no example")
    return torch.cat(found)


def _ready(part: Tensor, where: Any) -> Tensor:
    """On the module's device; 64-bit numbers as training had them."""
    import torch

    return part.to(where, torch.float32 if part.dtype == torch.float64 else part.dtype)
