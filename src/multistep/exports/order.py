"""What an export is asked for, and what is said of it once it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Order:
    """A model folder and its task; `data` to check it by (a DataSpec, or the inputs of a module of the user's own).

    `name` is what messages call the model, as the user did. `module` is a user's own, where that is not at hand.
    `target` is the folder as it will be. `hub_model_id` and `task_type` are for Elasticsearch, as eland calls them.
    """

    model: str
    name: str
    task: str
    data: Any = None
    quantize: bool = False
    module: nn.Module | None = None
    target: Path | None = None
    hub_model_id: str | None = None
    task_type: str | None = None


@dataclass(frozen=True)
class Exported:
    """What lies in `folder`.

    `megabytes` are those of its files. `difference` is the largest between torch and the other runtime, relative to the
    value or to 1, in `checked` batches. `scores` are those of torch on the validation split, `quantized` those of the
    int8 graph; both empty where none was asked for.
    """

    folder: Path
    megabytes: Mapping[str, float]
    checked: int
    difference: float
    scores: Mapping[str, Any] = field(default_factory=dict)
    quantized: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
