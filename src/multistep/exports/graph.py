"""What a model is to the exporter: a module of tensors, examples to check it by, and how to read and to tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor, nn

from multistep.core.evidence.metric import Evaluation

Batch: TypeAlias = tuple[Tensor, ...]  # what the module is called with
Say: TypeAlias = Callable[[Batch], Tensor]  # its first output


@dataclass(frozen=True)
class Graph:
    """A model that can be written as a graph.

    `inputs` names what `module` is called with, each with the dimensions that may have any size, `outputs` what it
    gives. `batches` are validation examples in several shapes. `about` is what has to be known to read inputs and to
    tell answers, `files` those of the model folder that it names, `script` the name of the script that does both, if
    there is one.
    `score` is the evaluation of the validation split by whatever says the first output; None where there is none.
    """

    module: nn.Module
    inputs: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]
    batches: Sequence[Batch]
    about: Mapping[str, Any]
    script: str | None = None
    files: tuple[str, ...] = ()
    score: Callable[[Say], Evaluation] | None = None
    metric: str | None = None
    notes: tuple[str, ...] = field(default=())
