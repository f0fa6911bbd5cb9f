"""The model tried on the first examples of train: how it is called, in which types, and which loss is meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multistep.errors import DataError, PlanError
from multistep.tasks.own.data import Split
from multistep.tasks.own.functions import OwnMetric
from multistep.tasks.own.layout import TARGET_KEYS, Layout, Types, in_rows
from multistep.tasks.own.losses import CLASS_LOSSES, OwnLoss
from multistep.tasks.own.model import OwnModel
from multistep.tasks.own.randomness import as_at
from multistep.tasks.own.trying import inferred, own_loss_of, reading_for, reading_of_function

TRIED = 4  # examples


@dataclass(frozen=True)
class Wanted:
    """What the user gave beside the model. `named` is the metric's name, `standardize` as `train` has it."""

    splits: Mapping[str, Split]
    notes: tuple[str, ...]
    loss: object
    target: str | None
    metric: OwnMetric | None
    named: str | None = None
    standardize: bool | None = None


@dataclass(frozen=True)
class Tried:
    """A first few examples of a split, train unless said otherwise, with what the model says of them."""

    layout: Layout
    types: Types
    batch: tuple[Tensor, ...]
    size: int
    output: Any
    loss: OwnLoss
    notes: tuple[str, ...]
    split: str = "train"


def first_examples(own: OwnModel, wanted: Wanted, seed: int) -> Tried:
    """The first examples of train, the model's output of them, and the loss that is meant."""
    train, notes = wanted.splits["train"], [*own.notes]
    name = train.name
    size = min(TRIED, len(train))
    with as_at(seed):
        raw = train.read(np.arange(size))
    layout = Layout.of(raw, wanted.target, own.takes)
    loss = OwnLoss(wanted.loss, own.given) if wanted.loss is not None else None
    types = Types(own.double, torch.float32 if loss and loss.float_targets else torch.long)
    batch = layout.tidy(raw, name, types)
    asked = layout.target_key in own.arguments if layout.keys else own.next_argument(layout) in TARGET_KEYS
    with_target = replace(layout, gives_target=True)
    if loss is None and asked and (found := _own_loss(own, with_target, batch, seed, name)) is not None:
        output, loss = found
        notes.append(f"loss: {loss.name}")
        return Tried(with_target, types, batch, size, output, loss, tuple(notes), name)
    own.materialise(lambda module: call_model(module, layout, batch, name), seed)
    try:
        output = _output(own, layout, batch, seed, name)
    except PlanError:
        as_floats = types.with_float_inputs()
        if any(part.is_floating_point() for part in batch[: layout.inputs]):
            as_floats = types
        for other_layout, other in ((layout, as_floats), (with_target, types)):
            usable = other is not types if other_layout is layout else asked
            if usable and (found_output := _again(own, other_layout, raw, other, seed, name)) is not None:
                output, layout, types = found_output, other_layout, other
                break
        else:
            raise
        batch = layout.tidy(raw, name, types)
        if types.float_inputs:
            notes.append("inputs: whole numbers, given to the model as float32")
    target = layout.target(batch)
    if loss is None:
        loss = OwnLoss(inferred(*reading_for(output, target, standard=True)(output, target)), own.given)
        notes.append(f"loss: {loss.name}, by the shapes and types of output and target")
    loss.reading = (
        reading_for(output, target, standard=True) if loss.standard else reading_of_function(loss, output, target)
    )
    if loss.reading.moved and loss.standard:
        notes.append("output: its last axis are the classes, as the targets' shape shows")
    if loss.standard and isinstance(output, tuple | list):
        notes.append(f"output: of the {len(output)} parts that the model returns the first tensor is scored")
    types, said = _suited(types, loss, *loss.read(output, target))
    types = replace(types, masks=not loss.standard)
    return Tried(layout, types, layout.tidy(raw, name, types), size, output, loss, (*notes, *said), name)


def _own_loss(
    own: OwnModel, layout: Layout, batch: tuple[Tensor, ...], seed: int, name: str
) -> tuple[Any, OwnLoss] | None:
    """What the model says when it is given the target too, and the loss in it; None if it computes none."""
    try:
        own.materialise(lambda module: layout.call(module, batch), seed)
        output = _output(own, layout, batch, seed, name)
    except Exception:  # whatever a model says to an argument that is no target: it is called without
        return None
    loss = own_loss_of(own.given, output, layout.target(batch))
    return (output, loss) if loss else None


def _again(own: OwnModel, layout: Layout, raw: Any, types: Types, seed: int, name: str) -> Any:
    """The output in another way of calling the model; None where that fails too."""
    try:
        return _output(own, layout, layout.tidy(raw, name, types), seed, name)
    except (PlanError, DataError):
        return None


def _suited(types: Types, loss: OwnLoss, out: Any, target: Any) -> tuple[Types, list[str]]:
    """The types that suit the loss: class numbers that came as floats, one-hot ones that came whole."""
    if not (isinstance(loss.given, CLASS_LOSSES) and isinstance(out, Tensor) and isinstance(target, Tensor)):
        return types, []
    if target.is_floating_point() and out.ndim == target.ndim + 1:
        return replace(types, classes=True), ["targets: class numbers that came as floats"]
    if not target.is_floating_point() and out.shape == target.shape and out.ndim == 2:
        return replace(types, whole=torch.float32), ["targets: one column a class (one-hot)"]
    return types, []


def _output(own: OwnModel, layout: Layout, batch: tuple[Tensor, ...], seed: int, name: str) -> Any:
    with as_at(seed):
        return call_model(own.build().eval(), layout, batch, name)


def call_model(model: nn.Module, layout: Layout, batch: tuple[Tensor, ...], split: str) -> Any:
    try:
        return layout.call(model, batch)
    except Exception as error:
        inputs = ", ".join(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in batch[: layout.inputs])
        names = f" named {', '.join(layout.keys)}" if layout.keys else ""
        raise PlanError(
            f"the model {type(model).__name__} cannot be called with a batch of {split}, {inputs}{names} "
            f"({type(error).__name__}: {error}){_how_read(layout, batch)}"
        ) from error


def _how_read(layout: Layout, batch: tuple[Tensor, ...]) -> str:
    """What may be wrong with how items were taken apart, or with how images are laid out."""
    inputs = batch[: layout.inputs]
    if any(t.ndim == 4 and t.shape[3] in (1, 3, 4) and t.shape[1] not in (1, 3, 4) for t in inputs):
        return "; images are (channels, height, width), as floats, to most modules: x.permute(0, 3, 1, 2) / 255"
    if layout.keys or len(inputs) < 2:
        return "; items are (input, target): an input of several parts is (input, ..., target), or a dict by name"
    return (
        f"; the first {len(inputs)} parts of an item were taken for the model's inputs, the last for the target: put "
        "the label last, and several targets into one tuple, (input, (target, target))"
    )


def is_ragged(train: Split, tried: Tried, seed: int) -> bool:
    """Whether parts of a batch have not one row an example, seen with two numbers of examples."""
    if train.items is None:
        return False
    if not in_rows(tried.batch, tried.size):
        return True
    fewer = max(1, tried.size - 1)
    with as_at(seed):
        again = tried.layout.tidy(train.read(np.arange(fewer)), "train", tried.types)
    return not in_rows(again, fewer)
