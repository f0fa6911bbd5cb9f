"""Weights of a model: which are trained, and how they are written, read and averaged."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from multistep.errors import PlanError

STATE, COUNTERS = "state.safetensors", "state.json"  # of a checkpoint


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Exclude parameters by glob pattern. Raises PlanError for a pattern that matches none, or if none is left."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            shown = ", ".join([*names[:3], "...", *names[-2:]])
            raise PlanError(f"recipe.frozen: no parameter matches '{pattern}'; the model has {shown}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(fnmatch.fnmatch(name, pattern) for pattern in patterns))
    if not any(p.requires_grad for p in model.parameters()):
        raise PlanError("recipe.frozen: every parameter is frozen; leave some to train")


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Raise a full disk as the OSError that it is: safetensors hides it in an exception without a number."""
    try:
        yield
    except SafetensorError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
        raise


def read_counters(folder: Path) -> dict[str, Any]:
    """Steps, position and what they are counted in."""
    counters: dict[str, Any] = json.loads((folder / COUNTERS).read_text(encoding="utf-8"))
    return counters


def named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and saved buffers, each tensor once even if two modules share it."""
    yield from model.named_parameters()
    saved = model.state_dict()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in saved)


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named with this prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def fill(model: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Set every parameter and saved buffer from the tensors named with this prefix."""
    with torch.no_grad():
        for name, tensor in named(model):
            tensor.copy_(tensors[f"{prefix}{name}"])


def fill_shared(model: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Set what has the same name and shape in both: of a phase of another task, the backbone.

    Raises PlanError if there is nothing.
    """
    shared = 0
    with torch.no_grad():
        for name, tensor in named(model):
            other = tensors.get(f"{prefix}{name}")
            if other is not None and other.shape == tensor.shape:
                tensor.copy_(other)
                shared += 1
    if not shared:
        raise PlanError("the phase before trained another model, of which this phase's has no part; give both one")


def mean_weights(folders: Sequence[Path]) -> dict[str, Tensor]:
    """The uniform mean of what is named `average.*` in each folder's state, under the same names.

    Summed in float64, so that the order of the folders makes no difference that float32 could show. What is not
    a floating-point number, a counter, is the last folder's. Sources: stochastic weight averaging, arXiv
    1803.05407; model soups, 2203.05482.
    """
    total: dict[str, Tensor] = {}
    for folder in folders:
        with safe_open(folder / STATE, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - a file, not a mapping
                if name.startswith("average."):
                    tensor = file.get_tensor(name)
                    if tensor.is_floating_point():
                        tensor = tensor.double() + total[name] if name in total else tensor.double()
                    total[name] = tensor
    return {name: tensor / len(folders) if tensor.is_floating_point() else tensor for name, tensor in total.items()}
