"""The user's model tried on a first few examples: how it is called, and what its output and the targets mean."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multistep.core.evidence.function_metric import FunctionMetric
from multistep.data.names import NO_TEST
from multistep.errors import PlanError
from multistep.tasks.own.data import Reader, Split
from multistep.tasks.own.judge import Judge, Kind, OwnMetric, kind_of, require_columns, require_labels
from multistep.tasks.own.layout import Layout, main_tensor
from multistep.tasks.own.losses import CLASS_LOSSES, FLOAT_TARGETS, MOST_CALLS, OwnLoss, inferred, shapes
from multistep.tasks.own.model import OwnModel
from multistep.tasks.own.randomness import as_at

TRIED = 4  # examples
COUNTED = 64  # examples whose labels are counted, where one has several
IN_WORDS: Mapping[Kind, str] = {
    "classes": "one of {width} classes an example",
    "yes-no": "yes or no, by one number",
    "labels": "{width} labels of which several may hold",
    "number": "one number an example",
    "numbers": "{width} numbers an example",
    "places": "one of {width} classes at each place of an example",
    "other": "known to the loss alone, so only that is scored",
}


@dataclass(frozen=True)
class Wanted:
    """What the user gave beside the model."""

    splits: Mapping[str, Split]
    notes: tuple[str, ...]
    loss: object
    target: str | None
    metric: OwnMetric | None


@dataclass(frozen=True)
class Understood:
    """Model and data, ready to be trained on: made once for all phases.

    `output` is what the model said of a few examples, None if that is no tensor.
    """

    model: OwnModel
    readers: Mapping[str, Reader]
    layout: Layout
    judge: Judge
    output: Tensor | None
    tokens_per_example: int
    batch_size: int | None
    class_names: tuple[str, ...]
    metrics: tuple[str, ...]
    metric: FunctionMetric | None
    notes: tuple[str, ...]


def understand(own: OwnModel, wanted: Wanted, seed: int, device: torch.device) -> Understood:
    """Try the model and the loss, and read what they say. Raises PlanError or DataError for what does not fit."""
    train = wanted.splits["train"]
    with as_at(seed):
        raw = train.read(np.arange(min(TRIED, len(train))))
    layout = Layout.of(raw, wanted.target, own.takes)
    loss = OwnLoss(wanted.loss) if wanted.loss is not None else None
    whole_numbers = torch.float32 if loss and loss.float_targets else torch.long
    batch = layout.tidy(raw, "train", double=own.double, target=whole_numbers)
    own.materialise(lambda module: _call(module, layout, batch, "train"), seed)
    model = own.build().eval()
    with as_at(seed):
        output = _call(model, layout, batch, "train")
    target = layout.target(batch)
    notes = list(wanted.notes)
    if loss is None:
        loss = OwnLoss(inferred(output, target))
        notes.append(f"loss: {loss.name}, by the shapes and types of output and target")
    judge = _judge(output, target, loss, wanted.metric, len(batch[0]))
    for name, split in wanted.splits.items():
        if name != "train":
            with as_at(seed):
                first = split.read(np.arange(min(TRIED, len(split))))
                _try(model, judge, layout, layout.tidy(first, name, double=own.double, target=whole_numbers), name)
    notes += _notes(own, wanted, layout, raw, judge)
    readers = {
        name: Reader(
            split,
            layout,
            device,
            double=own.double,
            target=whole_numbers,
            check=functools.partial(_check_labels, judge),
        )
        for name, split in wanted.splits.items()
    }
    return Understood(
        model=own,
        readers=readers,
        layout=layout,
        judge=judge,
        output=output.detach() if isinstance(output, Tensor) else None,
        tokens_per_example=_labels_an_example(judge, layout, readers["train"]),
        batch_size=train.batch_size,
        class_names=_class_names(wanted.splits, judge),
        metrics=(*judge.metrics, *((wanted.metric.metric.name,) if wanted.metric else ())),
        metric=wanted.metric.metric if wanted.metric else None,
        notes=tuple(notes),
    )


def _call(model: nn.Module, layout: Layout, batch: tuple[Tensor, ...], split: str) -> Any:
    try:
        return layout.call(model, batch)
    except Exception as error:
        inputs = ", ".join(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in batch[: layout.inputs])
        names = f" named {', '.join(layout.keys)}" if layout.keys else ""
        raise PlanError(
            f"the model {type(model).__name__} cannot be called with a batch of {split}, {inputs}{names} "
            f"({type(error).__name__}: {error})"
        ) from error


@torch.no_grad()
def _try(model: nn.Module, judge: Judge, layout: Layout, batch: tuple[Tensor, ...], split: str) -> None:
    """Score a few examples of a split, which otherwise would be called for the first time when all is trained.

    Raises PlanError or DataError where they fit neither the model nor the loss.
    """
    output, target = _call(model, layout, batch, split), layout.target(batch)
    _require_one_shape(output, target, judge.loss, f"{split}: ")
    _check_labels(judge, split, target)
    try:
        judge.rows(output, target, len(batch[0]), 1)
    except Exception as error:
        raise PlanError(
            f"{split} cannot be scored by the loss {judge.loss.name} ({type(error).__name__}: {error}); "
            f"{shapes(output, target)}"
        ) from error


def _judge(output: Any, target: Any, loss: OwnLoss, metric: OwnMetric | None, size: int) -> Judge:
    """How outputs are scored. Raises PlanError where loss or metric do not fit them."""
    _require_one_shape(output, target, loss, "")
    out = main_tensor(output)
    kind = kind_of(output, target, loss)
    width = out.shape[1] if out is not None and out.ndim > 1 else 1
    judge = Judge(kind, width, loss, metric is not None and (metric.outputs or (metric.pairs and kind == "numbers")))
    _check_labels(judge, "train", target)
    loss.try_out(output, target, size)
    value, _ = loss.summed(output, target, size, 0.0)
    if not value.requires_grad:
        raise PlanError(f"the loss {loss.name} has no gradient with respect to the model's parameters")
    if metric:
        # Of a loss that we do not know, labels of train may be no classes.
        known = target.clamp(0, width - 1) if kind == "classes" else target
        columns = list(judge.rows(output, known, size, 1))
        require_columns(metric, kind, [name for name in columns if name != "block"])
    return judge


def _require_one_shape(output: Any, target: Any, loss: OwnLoss, split: str) -> None:
    """Raises PlanError where a loss of torch would compare each number with all others of the batch."""
    out = main_tensor(output)
    if isinstance(loss.given, FLOAT_TARGETS) and isinstance(target, Tensor) and out is not None:
        if out.shape == target.shape:
            return
        raise PlanError(
            f"{split}{shapes(output, target)}: {loss.name} would compare each with all others; reshape one, for "
            "instance with squeeze(1) in the model or unsqueeze(1) in the data"
        )


def _check_labels(judge: Judge, split: str, target: Any) -> None:
    """Raises DataError for a label outside the classes; of an unknown loss, labels of train may mean anything."""
    torch_loss = isinstance(judge.loss.given, CLASS_LOSSES)
    if judge.kind not in ("classes", "places") or (split == "train" and not torch_loss):
        return
    may_be_ignored = torch_loss and (split == "train" or judge.kind == "places")
    ignored = int(judge.loss.given.ignore_index) if may_be_ignored else None
    require_labels(split, target, judge.width, ignored)


def _notes(own: OwnModel, wanted: Wanted, layout: Layout, raw: Any, judge: Judge) -> list[str]:
    notes = [f"targets: {IN_WORDS[judge.kind].format(width=judge.width)}"]
    if isinstance(raw, Mapping):
        left_out = [str(key) for key in raw if key not in layout.keys and key != layout.target_key]
        if left_out:
            notes.append(f"the model takes no {', '.join(left_out)}: left out")
    loss = judge.loss
    if loss.joint:
        notes.append(f"loss: {loss.name} is no mean over examples, so it is scored by whole batches, each a block")
    elif not loss.by_example and any(len(split) > MOST_CALLS for split in wanted.splits.values()):
        notes.append(f"loss: {loss.name} gives one number a call, so examples of large splits are scored some together")
    if own.frozen:
        notes.append(f"{len(own.frozen)} parameters require no gradient, and stay as they are")
    return [*notes, *([] if "test" in wanted.splits else [NO_TEST])]


def _labels_an_example(judge: Judge, layout: Layout, train: Reader) -> int:
    """How many labels count in an example, about; 1 but where it has a class at each place."""
    if judge.kind != "places":
        return 1
    places = np.arange(min(COUNTED, len(train)))
    with as_at(0):
        target = layout.target(train.batch(places, torch.device("cpu")))
    ignored = judge.loss.given.ignore_index if isinstance(judge.loss.given, CLASS_LOSSES) else None
    counted = target.numel() if ignored is None else int((target != ignored).sum())
    return max(1, round(counted / len(places)))


def _class_names(splits: Mapping[str, Split], judge: Judge) -> tuple[str, ...]:
    """The data set's names of its classes, or their numbers; none where nothing is classified."""
    if judge.kind == "yes-no":
        return ("0", "1")
    if judge.kind != "classes":
        return ()
    named = (split.class_names for split in splits.values() if len(split.class_names) == judge.width)
    return next(named, tuple(map(str, range(judge.width))))
