"""The loss tried on a first few examples: what it is a mean of, which shapes meet in it, and which loss is meant."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from multistep.errors import DataError, PlanError
from multistep.tasks.own.layout import rows_of
from multistep.tasks.own.losses import CLASS_LOSSES, FLOAT_TARGETS, OwnLoss
from multistep.tasks.own.meeting import watched
from multistep.tasks.own.names import NAMED
from multistep.tasks.own.reading import Reading, lies_last, loss_within, main_tensor

CLEAR = "reshape one of them, for instance with squeeze(1) in the model or unsqueeze(1) in the data"


@torch.no_grad()
def try_out(loss: OwnLoss, output: Any, target: Any, size: int) -> list[str]:
    """See on a first batch whether the loss is a mean over examples; returns what is to be said of it.

    Raises DataError or PlanError for a loss that cannot be called, or that broadcasts the target by mistake.
    """
    try:
        whole = loss.value(output, target, 0.0)
    except (PlanError, DataError):
        raise
    except Exception as error:
        raise PlanError(
            f"the loss {loss.name} cannot be called with the model's output and the target "
            f"({type(error).__name__}: {error}); {shapes(output, target)}{_advice(loss, output, target)}"
        ) from error
    notes = [] if loss.of_model or loss.joint else _require_no_crossing(loss, output, target, size)
    if whole.ndim:
        if len(whole) != size:
            raise PlanError(
                f"the loss {loss.name} gives {tuple(whole.shape)} for {size} examples; it must give their mean, or "
                "one number an example"
            )
        return notes
    loss.by_example, loss.joint = False, True
    parts = [(rows_of(output, slice(i, i + 1), size), rows_of(target, slice(i, i + 1), size)) for i in range(size)]
    if size > 1 and all(out is not None and wanted is not None for out, wanted in parts):
        try:
            singles = [float(loss.value(*part, 0.0)) for part in parts]
        except Exception:  # whatever a loss says to a single example: it is scored by batches then
            return notes
        loss.joint = not math.isclose(sum(singles) / size, float(whole), rel_tol=1e-3, abs_tol=1e-6)
    return notes


def _require_no_crossing(loss: OwnLoss, output: Any, target: Any, size: int) -> list[str]:
    """Raises PlanError where the loss compares each example with all others because shapes differ.

    It is watched with two numbers of examples: what looks so with both is no coincidence of sizes.
    """

    def call(out: Any, wanted: Any) -> None:
        loss.value(out, wanted, 0.0)

    met, _ = watched(call, output, target, size)
    if size < 2 or not met:
        return []
    fewer = size // 2
    part = rows_of(output, slice(0, fewer), size), rows_of(target, slice(0, fewer), size)
    again, failed = watched(call, *part, fewer) if all(value is not None for value in part) else (met, None)
    crossed = next((one for one in met if one.crossed), None)
    if crossed and (fewer < 2 or any(one.crossed for one in again)):
        raise PlanError(
            f"the loss {loss.name} broadcasts {crossed} to {crossed.together}: it would compare each example with all "
            f"others, and so train to the mean; {shapes(output, target)}: {CLEAR}. Where pairs are meant, name both "
            "axes: a[:, None] - b[None, :]"
        )
    if failed is not None:
        raise PlanError(
            f"the loss {loss.name} takes {size} examples but not {fewer} ({type(failed).__name__}: {failed}): "
            f"with {size} it broadcasts {met[0]}; {shapes(output, target)}: {CLEAR}"
        )
    plain = next((one for one in met if one.plain), None)
    if plain and plain.other == plain.together:
        raise PlanError(
            f"the loss {loss.name} broadcasts the output {plain.one} to the target {plain.other}: one number would be "
            f"trained to several; {shapes(output, target)}: have the model give as many, or expand the output yourself "
            "in the loss where that is meant"
        )
    if plain:
        return [f"loss: {loss.name} broadcasts the target {plain.other} to the output {plain.one}"]
    return []


def _advice(loss: OwnLoss, output: Any, target: Any) -> str:
    """What to do about common shapes that a loss does not take."""
    out, wanted = loss.read(output, target)
    if not isinstance(out, Tensor) or not isinstance(wanted, Tensor):
        parts = ", ".join(map(str, output)) if isinstance(output, Mapping) else ""
        told = f" of {parts}" if parts else ""
        return f"; give a loss that takes the model's {type(output).__name__}{told}: lambda output, target: ..."
    if isinstance(loss.given, CLASS_LOSSES):
        if wanted.ndim == 2 and wanted.shape[1] == 1:
            return "; class numbers are one an example: squeeze(1) in the data"
        if out.ndim == 1 or out.shape[1] == 1:
            return "; one output tells no classes apart: give the model as many outputs as classes, or bce_with_logits"
    return ""


# Which loss is meant ----------------------------------------------------------------------------------


def inferred(output: Any, target: Any) -> nn.Module:
    """The loss that output and target ask for, as `Reading` gives them. Raises PlanError where they leave it open."""
    if isinstance(output, Tensor) and isinstance(target, Tensor):
        if not target.is_floating_point() and output.ndim == target.ndim + 1 and output.shape[1] > 1:
            return nn.CrossEntropyLoss()
        if target.is_floating_point() and output.shape == target.shape:
            return nn.MSELoss()
    tensors = isinstance(output, Tensor) and isinstance(target, Tensor)
    advice = f"; or {CLEAR}" if tensors and output.numel() == target.numel() else ""
    raise PlanError(
        f"loss is missing and cannot be told from the data: {shapes(output, target)}; give loss=nn.CrossEntropyLoss(), "
        f"another loss module, a name ({', '.join(NAMED)}), or a function (output, target) -> mean loss{advice}"
    )


def reading_for(output: Any, target: Any, *, standard: bool) -> Reading:
    """How the output is read; `standard` for a loss of torch's, to which the first of several tensors is given."""
    reading = Reading(first=standard)
    return replace(reading, moved=lies_last(*reading(output, target)))


def reading_of_function(loss: OwnLoss, output: Any, target: Any) -> Reading:
    """How the output of a function of the user's is read for scores: where its axes leave that open, as its value says.

    Of tokens, nobody could tell otherwise whether a place stands for its own label or for the next one's.
    """
    reading = reading_for(output, target, standard=False)
    out = main_tensor(output, first=False)
    if out is None or out.ndim != 3 or not isinstance(target, Tensor) or target.ndim != 2:
        return reading
    if out.shape[:2] != target.shape or target.is_floating_point():
        return reading
    with torch.no_grad(), contextlib.suppress(Exception):  # whatever it says: it is tried out later
        found = same_as(output, target, float(loss.value(output, target, 0.0)), reading)
        if found is not None:
            return found[1]
    return replace(reading, moved=False)


def own_loss_of(model: nn.Module, output: Any, target: Any) -> OwnLoss | None:
    """The loss that a model computed itself from the target, as a loss of torch's where it has the same value.

    None where the output holds none.
    """
    found = loss_within(output)
    if found is None:
        return None
    out, value = main_tensor(output), float(found.detach())
    if out is None or not isinstance(target, Tensor):
        return OwnLoss.of_the_model(None, Reading(), model)
    simple = reading_for(output, target, standard=True)
    same = same_as(output, target, value, simple)
    return OwnLoss.of_the_model(*same, model) if same else OwnLoss.of_the_model(None, simple, model)


def same_as(output: Any, target: Tensor, value: float, simple: Reading) -> tuple[nn.Module, Reading] | None:
    """The loss of torch's, and the way to read the output, that come to the same value; None if none does."""
    out = main_tensor(output, first=simple.first)
    candidates: list[tuple[nn.Module, Reading]] = [(nn.CrossEntropyLoss(), simple)]
    if out is not None and out.ndim == 3 and target.ndim == 2:
        candidates += [(nn.CrossEntropyLoss(), replace(simple, moved=True))]
        candidates += [(nn.CrossEntropyLoss(), replace(simple, moved=True, shifted=True))]
    candidates += [(nn.BCEWithLogitsLoss(), simple), (nn.MSELoss(), simple)]
    candidates += [(nn.MSELoss(), replace(simple, flat=True))]
    for loss, reading in candidates:
        read, wanted = reading(output, target)
        if isinstance(loss, FLOAT_TARGETS) and (read.shape != wanted.shape or not wanted.is_floating_point()):
            continue
        try:
            if math.isclose(float(loss(read, wanted).detach()), value, rel_tol=1e-4, abs_tol=1e-6):
                return loss, reading
        except (RuntimeError, IndexError, ValueError):  # a loss that takes no such shapes is not the one
            continue
    return None


def shapes(output: Any, target: Any) -> str:
    """What the model gives and what is wanted of it, in words."""
    return f"the model gives {_shape(output)}, the target is {_shape(target)}"


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
