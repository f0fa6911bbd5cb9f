"""What is looked at before training begins: that model, loss, metric and every split fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multistep.errors import DataError, PlanError
from multistep.tasks.order import sample_of
from multistep.tasks.own.data import Split
from multistep.tasks.own.finite import looked_at, not_finite
from multistep.tasks.own.first import Tried, Wanted, call_model
from multistep.tasks.own.functions import OwnMetric, require_columns
from multistep.tasks.own.judge import Judge, kind_of, require_labels
from multistep.tasks.own.layout import Layout
from multistep.tasks.own.losses import CLASS_LOSSES, FLOAT_TARGETS, OwnLoss
from multistep.tasks.own.model import OwnModel
from multistep.tasks.own.ragged import opened
from multistep.tasks.own.randomness import as_at
from multistep.tasks.own.reader import Reader
from multistep.tasks.own.reading import main_tensor
from multistep.tasks.own.rebound import foreign_parameters
from multistep.tasks.own.scores import MOST_OUTPUTS
from multistep.tasks.own.squashed import require_shares, squashed_twice
from multistep.tasks.own.trying import CLEAR, shapes, try_out

MEANT = 2000  # examples whose targets the baseline, and the scale of targets, are told by
AT_ONCE = 128
SPLITS: Mapping[str, int] = {"train": 0, "validation": 1, "test": 2}  # numbers that randomness is seeded by
OF_SEVERAL_CLASSES = ("roc_auc", "matthews")  # what is nothing where a split has one class


def judge_of(own: OwnModel, tried: Tried, metric: OwnMetric | None) -> tuple[Judge, list[str]]:
    """How outputs are scored, and what is to be said of it. Raises PlanError where loss or metric do not fit them."""
    output, target, loss, size = tried.output, tried.layout.target(tried.batch), tried.loss, tried.size
    _require_one_shape(output, target, loss, "")
    kind = kind_of(output, target, loss, size)
    out, wanted = loss.read(output, target)
    known_shape = isinstance(out, Tensor)
    width = out.shape[1] if known_shape and out.ndim > 1 else 1
    judge = Judge(
        kind,
        width,
        loss,
        with_outputs=metric is not None and metric.outputs,
        with_scores=metric is not None and metric.scores,
        axes=out.ndim if known_shape else 0,
    )
    check_labels(judge, tried.split, target)
    notes = _try_loss(own, tried, target)
    if metric:
        # Of a loss that we do not know, labels of train may be no classes.
        known = target
        if kind == "classes" and isinstance(wanted, Tensor):
            known = target.clamp(0, width - 1)
        columns = list(judge.rows(output, known, size, 1))
        require_columns(metric, kind, [name for name in columns if name != "block"], MOST_OUTPUTS)
    return judge, notes


def _try_loss(own: OwnModel, tried: Tried, target: Any) -> list[str]:
    """Try the loss, and see which parameters it has gradients for. Raises PlanError for those that nothing trains."""
    loss = tried.loss
    model = own.build().eval()
    with as_at(0):
        output = tried.layout.call(model, tried.batch)
    _require_own(output, model, f"the model {own.name}")
    with loss.standing_for(model):
        notes = try_out(loss, output, target, tried.size)
        value, _ = loss.summed(output, target, tried.size, 0.0)
    if not value.requires_grad:
        raise PlanError(f"the loss {loss.name} has no gradient with respect to the model's parameters")
    notes += squashed_twice(loss, *loss.read(output, target))
    if loss.standard:
        return notes
    given = {id(parameter) for parameter in own.given.parameters()}
    if {id(parameter) for parameter in foreign_parameters(_value_outside(loss, tried, output, target), model)} & given:
        loss.stand_in.needed = True
        notes.append(f"loss: {loss.name} reads the parameters of the model; it is given those that are trained")
    if found := [p for p in foreign_parameters(value, model) if id(p) in given]:
        raise PlanError(
            f"the loss {loss.name} reads parameters that were taken out of the model before ({_shapes_of(found)}), so "
            "that it would never see them trained; have it read them from the module: model.parameters()"
        )
    _require_own(value, model, f"the loss {loss.name}")
    return notes


def _value_outside(loss: OwnLoss, tried: Tried, output: Any, target: Any) -> Any:
    """The loss where nothing stands in for the given module; None where that fails (it lies elsewhere, is lazy)."""
    try:
        return loss.summed(output, target, tried.size, 0.0)[0]
    except Exception:
        return None


def _require_own(value: Any, model: nn.Module, who: str) -> None:
    """Raises PlanError where a gradient flows to parameters that nothing would train."""
    if found := foreign_parameters(value, model):
        raise PlanError(
            f"{who} reads parameters that are none of the model's ({_shapes_of(found)}), so that nothing would train "
            "them; make them part of the model (of modules in a list, nn.ModuleList), or say that they are fixed with "
            "requires_grad_(False)"
        )


def _shapes_of(parameters: list[nn.Parameter]) -> str:
    shown = ", ".join(str(tuple(p.shape)) for p in parameters[:3])
    return f"{len(parameters)}, of shape {shown}{', ...' if len(parameters) > 3 else ''}"


# The other examples -------------------------------------------------------------------------------------


@torch.no_grad()
def try_split(own: OwnModel, judge: Judge, layout: Layout, batch: tuple[Tensor, ...], size: int, split: str) -> None:
    """Score a few examples of a split, which otherwise would be called for the first time when all is trained.

    Raises PlanError or DataError where they fit neither the model nor the loss.
    """
    model = own.build().eval()
    output, target = call_model(model, layout, batch, split), layout.target(batch)
    _require_one_shape(output, target, judge.loss, f"{split}: ")
    check_labels(judge, split, target)
    try:
        with judge.loss.standing_for(model):
            judge.rows(output, target, size, 1)
    except Exception as error:
        raise PlanError(
            f"{split} cannot be scored by the loss {judge.loss.name} ({type(error).__name__}: {error}); "
            f"{shapes(output, target)}"
        ) from error


@torch.no_grad()
def require_finite(name: str, split: Split, own: OwnModel, judge: Judge, tried: Tried, seed: int) -> str | None:
    """Look for numbers that are not finite. What is to be said where model and loss cope with them, None without any.

    Raises DataError where they do not, with the rows.
    """
    layout, places = tried.layout, looked_at(split)
    for start in range(0, len(places), len(places) if split.items is None else AT_ONCE):
        part = places[start:] if split.items is None else places[start : start + AT_ONCE]
        with as_at(seed, int(part[0])):
            tensors = layout.tensors(split.read(part), name)
        if (found := not_finite(tensors, layout.inputs)) is None:
            continue
        if not len(found.places) or max(found.places) >= len(part):
            raise DataError(found.told(split, None))
        if not _copes(own, judge, tried, split, part[found.places[:1]], seed):
            seen = None if len(places) == len(split) else len(places)
            raise DataError(found.told(split, part, seen))
        what = "targets, so that only the loss is scored" if found.targets else "inputs"
        return f"{name}: model and loss give finite numbers although there is {found.kind} in {what}"
    return None


def _copes(own: OwnModel, judge: Judge, tried: Tried, split: Split, place: Any, seed: int) -> bool:
    """Whether an example with such numbers has a finite loss, which no broken one has."""
    model, layout = own.build().eval(), tried.layout
    try:
        with as_at(seed), judge.loss.standing_for(model):
            tensors = layout.tidy(split.read(place), split.name, tried.types)
            output = layout.call(model, tensors)
            rows, _, _ = judge.loss.rows(output, layout.target(tensors), 1, 1)
    except Exception:  # a model or loss that fails of them copes with nothing
        return False
    tensor = main_tensor(output)
    return bool(torch.isfinite(rows).all()) and (tensor is None or bool(torch.isfinite(tensor).all()))


def _require_one_shape(output: Any, target: Any, loss: OwnLoss, split: str) -> None:
    """Raises PlanError where a loss of torch would compare each number with all others of the batch."""
    out, wanted = loss.read(output, target)
    if isinstance(loss.given, FLOAT_TARGETS) and isinstance(wanted, Tensor) and isinstance(out, Tensor):
        if out.shape == wanted.shape:
            return
        raise PlanError(f"{split}{shapes(out, wanted)}: {loss.name} would compare each with all others; {CLEAR}")


def check_labels(judge: Judge, split: str, target: Any) -> None:
    """Raises DataError for a label outside the classes; of an unknown loss, labels of train may mean anything."""
    require_shares(judge.loss, split, target)
    torch_loss = isinstance(judge.loss.given, CLASS_LOSSES)
    if judge.kind not in ("classes", "places") or (not torch_loss and (split == "train" or judge.kind == "places")):
        return
    may_be_ignored = torch_loss and (split == "train" or judge.kind == "places")
    require_labels(split, target, judge.width, judge.loss.ignored if may_be_ignored else None)


def require_several_classes(wanted: Wanted, judge: Judge, layout: Layout, readers: Mapping[str, Reader]) -> None:
    """Raises DataError where the metric that decides is nothing, since a split has a single class."""
    if not judge.classifies or wanted.named not in OF_SEVERAL_CLASSES:
        return
    for name in ("validation", "test"):
        if name not in readers or (wanted.splits[name].items is not None and len(wanted.splits[name]) > MEANT):
            continue
        found = [
            t.flatten().long() if t.ndim == 1 or t.shape[1] == 1 else t.argmax(1)
            for t in targets_of(layout, readers[name])
            if isinstance(t, Tensor)
        ]
        classes = np.unique(torch.cat(found).numpy()) if found else np.zeros(0)
        if len(classes) == 1:
            raise DataError(
                f"{name}: all {len(wanted.splits[name]):,} examples are of class {int(classes[0])}, so that "
                f"{wanted.named} cannot be measured on them; give a {name} split with both classes, or another metric"
            )


def targets_of(layout: Layout, reader: Reader) -> list[Any]:
    """The targets of some examples of a split, in pieces, on the CPU."""
    places = sample_of(len(reader), MEANT)
    targets = []
    for start in range(0, len(places), AT_ONCE):
        part = places[start : start + AT_ONCE]
        with as_at(SPLITS[reader.split.name], int(part[0])):
            tensors, _ = opened(reader.batch(part, torch.device("cpu")))
        targets.append(layout.target(tensors))
    return targets
