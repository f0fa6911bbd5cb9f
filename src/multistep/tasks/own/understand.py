"""The user's model tried on a first few examples: how it is called, and what its output and the targets mean."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multistep.core.evidence.function_metric import FunctionMetric
from multistep.data.names import NO_TEST
from multistep.tasks.order import ShuffledOrder, sample_of
from multistep.tasks.own.checks import (
    MEANT,
    check_labels,
    judge_of,
    require_finite,
    require_several_classes,
    targets_of,
    try_split,
)
from multistep.tasks.own.columns import Columns, columns_of
from multistep.tasks.own.cutting import class_counts
from multistep.tasks.own.data import Split
from multistep.tasks.own.first import TRIED, Tried, Wanted, first_examples, is_ragged
from multistep.tasks.own.judge import Judge
from multistep.tasks.own.layout import Layout
from multistep.tasks.own.losses import CLASS_LOSSES, MOST_CALLS
from multistep.tasks.own.model import OwnModel
from multistep.tasks.own.ragged import opened
from multistep.tasks.own.randomness import as_at
from multistep.tasks.own.reader import Reader
from multistep.tasks.own.reading import main_tensor
from multistep.tasks.own.scaling import CLEARLY, Scaling, far_inputs, scaling_of
from multistep.tasks.own.scores import Kind
from multistep.tasks.own.weighted import WeightedOrder

GENERIC = "LABEL_"  # names of classes that nobody has named, in transformers
COUNTED = 64  # examples whose labels are counted, where one has several
IN_WORDS: Mapping[Kind, str] = {
    "classes": "one of {width} classes an example",
    "shares": "a share of each of {width} classes an example, of which the largest is scored",
    "yes-no": "yes or no, by one number",
    "labels": "{width} labels of which several may hold",
    "number": "one number an example",
    "numbers": "{width} numbers an example",
    "places": "one of {width} classes at each place of an example",
    "mask": "yes or no at each place of an example",
    "other": "known to the loss alone, so only that is scored",
}


@dataclass(frozen=True)
class Understood:
    """Model and data, ready to be trained on: made once for all phases.

    `output` is what the model said of a few examples, None if that is no tensor; `floats` tells of each of the inputs'
    tensors whether it holds numbers with a fraction.
    """

    model: OwnModel
    readers: Mapping[str, Reader]
    layout: Layout
    judge: Judge
    order: ShuffledOrder
    floats: tuple[bool, ...]
    output: Tensor | None
    scaling: Scaling | None
    columns: Columns | None
    tokens_per_example: int
    batch_size: int | None
    class_names: tuple[str, ...]
    metrics: tuple[str, ...]
    metric: FunctionMetric | None
    notes: tuple[str, ...]

    def say(self, model: nn.Module, tensors: tuple[Tensor, ...]) -> Any:
        """What the model says of a batch, in the user's unit."""
        if self.columns:
            tensors = (self.columns(tensors[0]), *tensors[1:])
        output = self.layout.call(model, tensors)
        return self.scaling(output) if self.scaling else output

    def folded(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the user's own module, which takes inputs as they are and speaks the targets' unit."""
        found = self.columns.folded(weights) if self.columns else dict(weights)
        return self.scaling.folded(found) if self.scaling else found

    def unfold(self) -> None:
        """Bring the weights of a module that was trained before to the units that it is trained in."""
        for part in (self.columns, self.scaling):
            if part and part.trained:
                part.unfold(self.model.module)

    @property
    def mark(self) -> str:
        """What tells weights in these units from others."""
        return ("-scaled" if self.scaling else "") + ("-columns" if self.columns else "")

    def train_targets(self) -> list[Any]:
        """The targets of some training examples, in pieces."""
        return targets_of(self.layout, self.readers["train"])


def understand(own: OwnModel, wanted: Wanted, seed: int, device: torch.device) -> Understood:
    """Try the model and the loss, and read what they say. Raises PlanError or DataError for what does not fit."""
    train = wanted.splits["train"]
    tried = first_examples(own, wanted, seed)
    layout, types, loss = tried.layout, tried.types, tried.loss
    judge, said = judge_of(own, tried, wanted.metric)
    ragged = is_ragged(train, tried, seed)
    if not ragged:
        layout.require_rows(tried.batch, "train")
    copes = [require_finite(name, split, own, judge, tried, seed) for name, split in wanted.splits.items()]
    if any(note and "targets" in note for note in copes):
        judge = replace(judge, kind="other")  # what is no number has no score but the loss's
    for name, split in wanted.splits.items():
        if name != "train":
            with as_at(seed):
                first = np.arange(min(TRIED, len(split)))
                try_split(own, judge, layout, layout.tidy(split.read(first), name, types), len(first), name)
    notes = [*wanted.notes, *tried.notes, *said, *dict.fromkeys(note for note in copes if note)]
    notes += _notes(own, wanted, layout, judge, ragged)
    readers = {
        name: Reader(
            split,
            layout,
            device,
            types,
            functools.partial(check_labels, judge),
            ragged=ragged,
            finite=not any(copes),
        )
        for name, split in wanted.splits.items()
    }
    require_several_classes(wanted, judge, layout, readers)
    scaling, told = _scaling(own, wanted, tried, judge, readers["train"], seed)
    columns, more = _columns(own, wanted, tried, judge, readers["train"], seed)
    return Understood(
        model=own,
        readers=readers,
        layout=layout,
        judge=judge,
        order=WeightedOrder(train.drawn) if train.drawn else ShuffledOrder(len(train)),
        floats=tuple(part.is_floating_point() for part in tried.batch[: layout.inputs]),
        output=None if (out := main_tensor(tried.output, first=loss.standard)) is None else out.detach(),
        scaling=scaling,
        columns=columns,
        tokens_per_example=_labels_an_example(judge, layout, readers["train"]),
        batch_size=train.batch_size,
        class_names=_class_names(wanted.splits, judge, own.given),
        metrics=(*judge.metrics, *((wanted.metric.metric.name,) if wanted.metric else ())),
        metric=wanted.metric.metric if wanted.metric else None,
        notes=(*notes, *more, *told),
    )


def _scaling(
    own: OwnModel, wanted: Wanted, tried: Tried, judge: Judge, train: Reader, seed: int
) -> tuple[Scaling | None, list[str]]:
    """How targets are scaled, by those of some training examples, and what is to be said of scales."""

    def call(module: nn.Module) -> Any:
        with as_at(seed), torch.no_grad():
            return tried.layout.call(module, tried.batch)

    module = own.build().eval()
    if judge.kind not in ("number", "numbers") and not wanted.standardize:
        return None, []
    found = [target.cpu() for target in targets_of(tried.layout, train) if isinstance(target, Tensor)]
    targets = torch.cat(found) if found and judge.kind in ("number", "numbers") else None
    tried_target = tried.layout.target(tried.batch)
    scaling, told = scaling_of(module, call, judge.loss, judge.kind, targets, tried_target, wanted.standardize)
    return scaling, told


def _columns(
    own: OwnModel, wanted: Wanted, tried: Tried, judge: Judge, train: Reader, seed: int
) -> tuple[Columns | None, list[str]]:
    """How columns of inputs are scaled, by those of some training examples, and what is to be said of inputs."""
    layout, module = tried.layout, own.build().eval()

    def call(asked: nn.Module, rows: Tensor | None = None) -> Any:
        with as_at(seed), torch.no_grad():
            return layout.call(asked, tried.batch if rows is None else (rows, *tried.batch[1:]))

    # A loss that calls the model by itself would give it rows as they are.
    plain = layout.inputs == 1 and tried.batch[0].ndim == 2 and not judge.loss.stand_in.needed
    if wanted.standardize is not False and plain:
        with as_at(seed):
            tensors, size = opened(train.batch(sample_of(len(train), MEANT), torch.device("cpu")))
        rows = tensors[0].cpu()
        trained = _is_trained(judge, layout, module, tensors, size)
        if len(rows) == size and (found := columns_of(module, call, rows, tried.batch[0], trained=trained)):
            return found, [found.said]
    said = far_inputs(module, call, tried.batch[: layout.inputs])
    return None, [said] if said else []


@torch.no_grad()
def _is_trained(judge: Judge, layout: Layout, module: nn.Module, tensors: tuple[Tensor, ...], size: int) -> bool:
    """Whether the module does clearly better on these examples than a trivial output does."""
    target = layout.target(tensors)
    try:
        said = layout.call(module, tensors)
        trivial = judge.constant([target], main_tensor(said))
        if trivial is None:
            return False
        constant = judge.repeated(trivial[1], target, size)
        losses = [float(judge.loss.value(out, target, 0.0).mean()) for out in (said, constant)]
    except Exception:  # whatever a model or a loss says to more examples at once, or to an output that is no model's
        return False
    return losses[0] < CLEARLY * losses[1]


def _notes(own: OwnModel, wanted: Wanted, layout: Layout, judge: Judge, ragged: bool) -> list[str]:
    notes = [f"targets: {IN_WORDS[judge.kind].format(width=judge.width)}"]
    if judge.classifies and (counts := class_counts(wanted.splits, wanted.target)):
        notes.append(counts)
    if ragged:
        notes.append(
            "inputs: parts of a batch have not one row an example, so items are joined anew for each part of it"
        )
    if layout.keys:
        with as_at(0):
            raw = wanted.splits["train"].read(np.arange(1))
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
        tensors, _ = opened(train.batch(places, torch.device("cpu")))
    target = layout.target(tensors)
    ignored = judge.loss.given.ignore_index if isinstance(judge.loss.given, CLASS_LOSSES) else None
    counted = target.numel() if ignored is None else int((target != ignored).sum())
    return max(1, round(counted / len(places)))


def _class_names(splits: Mapping[str, Split], judge: Judge, module: nn.Module) -> tuple[str, ...]:
    """The names of classes that the data set or a model of transformers has, or their numbers; none of no classes."""
    if judge.kind == "yes-no":
        return ("0", "1")
    if judge.kind not in ("classes", "shares"):
        return ()
    named = (split.class_names for split in splits.values() if len(split.class_names) == judge.width)
    known: Any = getattr(getattr(module, "config", None), "id2label", None)
    numbers = tuple(map(str, range(judge.width)))
    if isinstance(known, Mapping) and set(known) == set(range(judge.width)):
        names = tuple(str(known[k]) for k in range(judge.width))
        numbers = numbers if any(name.startswith(GENERIC) for name in names) else names
    return next(named, numbers)
