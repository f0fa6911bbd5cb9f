"""A model of the user's own: what the engine and the torch learner need to know of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.batchnorm import batch_norms
from multistep.backends.torch.devices import pick_device
from multistep.backends.torch.domain import Batch
from multistep.backends.torch.groups import kinds
from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Facts
from multistep.core.values.understood import Part, classes_in_words
from multistep.engine.learner import NO_FORM, Exhibit, Learner, Readiness, Split
from multistep.errors import PlanError
from multistep.tasks.machine import device_name, versions_of
from multistep.tasks.order import sample_of
from multistep.tasks.own.checks import MEANT, SPLITS
from multistep.tasks.own.described import described
from multistep.tasks.own.first import Wanted
from multistep.tasks.own.model import OwnModel
from multistep.tasks.own.preset import BATCH_SIZE, default_recipe
from multistep.tasks.own.ragged import opened
from multistep.tasks.own.randomness import as_at, seed_everything
from multistep.tasks.own.scoring import Say, Scorer
from multistep.tasks.own.seen import kept_digests
from multistep.tasks.own.shown import gives_a_number, shown
from multistep.tasks.own.understand import Understood, understand
from multistep.tasks.own.use import USAGE, write_model
from multistep.tasks.recipes import refuse_model
from multistep.tasks.understood import counted, told

SAMPLE = 2000  # examples of the validation split that are looked at after each window


class OwnDomain:
    """One phase's data and model. Implements backends.torch.domain.Domain."""

    draws_from_shared_states = True  # the user's data set, that is

    def __init__(self, understood: Understood, device: torch.device, *, scored: bool = False) -> None:
        """`scored` tells that this metric has given numbers before: what the run has won is not to be lost by it."""
        self._opened, self._scored = understood, scored
        self._readers, self._layout, self._judge = understood.readers, understood.layout, understood.judge
        self._device = device
        self._scorer = Scorer(understood.layout, understood.judge, understood.batch_size)
        self._loss = understood.judge.loss
        self._loss.to(device)
        self._order = understood.order
        self._tested: Evaluation | None = None

    # Training ---------------------------------------------------------------------------------------

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        refuse_model(model)
        return self._opened.model.build()

    def origin(self, model: str | None = None) -> Origin | None:
        # Nobody knows what the module that was given has seen.
        return Origin(None, frozen=self._opened.model.frozen)

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        # What the data set and the model draw, augmentation and noise, then follows from the place in the data.
        seed_everything(seed, position, device=device)
        places, _ = self._order.indices(position, size, seed)
        return self._readers["train"].batch(places, device)

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        tensors, size = opened(batch)
        output, scaling = self._opened.say(model, tensors), self._opened.scaling
        with self._loss.standing_for(model):
            total, labels = self._loss.summed(output, self._layout.target(tensors), size, label_smoothing)
        return (scaling.eased(total) if scaling else total), labels

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        for key in ("augmentation", "resolution", "context"):
            if getattr(recipe, key):
                raise PlanError(f"recipe.{key}: a model of your own has none; leave it out")
        if recipe.label_smoothing and not self._loss.smooths:
            raise PlanError(f"recipe.label_smoothing: {self._loss.name} does not support it; use nn.CrossEntropyLoss()")
        own = self._opened.model
        if own.dropout is None and recipe.dropout:
            raise PlanError(f"recipe.dropout: {own.name} has no nn.Dropout; leave it out, or add one")
        if recipe.dropout != own.dropout:
            own.set_dropout(model, recipe.dropout)
        if 1 in (recipe.batch_size, recipe.micro_batch) and batch_norms(model):
            self._require_single(model)
        for name in own.frozen:
            model.get_parameter(name).requires_grad_(False)
        return 1

    def _require_single(self, model: nn.Module) -> None:
        """Raises PlanError where batch normalisation finds a single number a channel in a batch of one example."""
        with as_at(0):
            batch, _ = opened(self._readers["train"].batch(np.arange(1), torch.device("cpu")))
            try:
                self._layout.call(copy.deepcopy(model).train(), batch)
            except ValueError as error:
                raise PlanError(
                    f"recipe.batch_size is 1, with which batch normalisation in {self._opened.model.name} cannot train "
                    f"({error}); take 2 or more"
                ) from error

    @property
    def settings(self) -> tuple[str, ...]:
        """The recipe's keys that this model and loss answer to."""
        dropout = ("dropout",) if self._opened.model.dropout is not None else ()
        return (*dropout, *(("label_smoothing",) if self._loss.smooths else ()))

    def resize(self, resolution: int | None) -> None:
        assert resolution is None, "configure refuses a recipe with sizes"

    # Evaluation -------------------------------------------------------------------------------------

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        with self._loss.standing_for(model):
            found = self._table(split, sample, device, lambda tensors, _: self._opened.say(model, tensors))
        self._note_score(found, split)
        if split == "test":
            self._tested = found
        return found

    def _note_score(self, table: Evaluation, split: Split) -> None:
        if self._opened.metric is not None:
            self._scored |= gives_a_number(
                self._opened.metric, table, split, scored=self._scored, classifies=self._judge.classifies
            )

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        """The classes' shares or the mean of the training targets; of other targets, the model as it was given."""
        model = self._opened.model.build().to(self._device).eval()
        if (found := self._trivial()) is not None:
            name, constant = found

            def say(tensors: Batch, size: int) -> Any:
                return self._judge.repeated(constant.to(self._device), self._layout.target(tensors), size)

            try:
                with self._loss.standing_for(model):
                    table = self._table(split, False, self._device, say)
                if np.isfinite(table.columns["loss"]).all():  # the mean may be nothing to a loss that takes logarithms
                    return name, table
            except Exception:  # whatever a user's loss says to such an output: the model itself is scored then
                pass
        with torch.inference_mode(), self._loss.standing_for(model):
            table = self._table(split, False, self._device, lambda tensors, _: self._opened.say(model, tensors))
        return "untrained model", table

    def write_baseline(self, folder: Path) -> str:
        return NO_FORM

    def classes(self) -> tuple[dict[str, int], str]:
        """How many training examples each class has; of large splits, in words, those that were looked at."""
        names, size = self._opened.class_names, len(self._readers["train"])
        if not names:
            return {}, ""
        labels = torch.cat([torch.as_tensor(target).flatten() for target in self._opened.train_targets()])
        known = labels.long()[(labels >= 0) & (labels < len(names))]
        found = counted(names, known.tolist())
        if size <= MEANT:
            return found, ""
        return {}, f"of {MEANT:,} examples that were looked at, classes: {classes_in_words(found)}"

    def _trivial(self) -> tuple[str, Tensor] | None:
        return self._judge.constant(self._opened.train_targets(), self._opened.output)

    def _table(self, split: Split, sample: bool, device: torch.device, say: Say) -> Evaluation:
        return self._scorer.table(self._readers[split], self._places(split, sample), SPLITS[split], device, say)

    def _places(self, split: Split, sample: bool) -> NDArray[np.int64]:
        count = len(self._readers[split])
        return sample_of(count, SAMPLE if sample else count)

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Exhibit]:
        split: Split = "test" if "test" in self._readers else "validation"
        sample = split != "test"
        table = self._tested or self.evaluate(model, split, sample=sample, device=device)
        return shown(table, self._opened.class_names, split, self._places(split, sample))

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        own = self._opened
        layout = own.layout
        content = {
            "class": own.model.name,
            "module": type(own.model.given).__module__,
            "source": own.model.source[0],
            "source_sha256": own.model.source[1],
            "loss": self._loss.name,
            "loss_as": described(self._loss),
            "metric": own.metric.name if own.metric else None,
            "kind": own.judge.kind,
            "classes": list(own.class_names),
            "layout": {
                "target": layout.target_key,
                "keys": list(layout.keys),
                "parts": 0 if layout.keys else len(layout.shape[0][1]),
                "columns": list(self._readers["train"].split.columns),
                "floats": list(own.floats),
            },
            "seen": kept_digests(self._readers),
        }
        return write_model(model, folder, card, content, own.folded)


class OwnWorkshop:
    """Opens the phases of a run of the user's model. Implements engine.learner.Workshop.

    `start` is where the first weights are kept in the run directory; `resuming` tells to take them from there.
    """

    def __init__(self, model: OwnModel, wanted: Wanted, identity: str, *, pretrained: bool) -> None:
        self._model, self._wanted, self._identity, self._pretrained = model, wanted, identity, pretrained
        self._start: Path | None = None
        self._resuming = False
        self._opened: Understood | None = None

    def keep_start(self, path: Path, *, resuming: bool) -> OwnWorkshop:
        """Keep the first weights at `path`, or go on from those kept there."""
        self._start, self._resuming = path, resuming
        return self

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        device = pick_device()
        if self._opened is None:
            self._opened = self._open(plan.seed, device)
        opened, model = self._opened, self._model
        domain = OwnDomain(opened, device, scored=self._resuming or phase > 0)
        given = dict(plan.phase(phase).recipe)
        train, validation = opened.readers["train"], opened.readers["validation"]
        parameters = sum(p.numel() for p in model.module.parameters())
        recipe = default_recipe(
            given,
            pretrained=self._pretrained,
            parameters=parameters,
            batch_size=min(opened.batch_size or BATCH_SIZE, len(train)),
            dropout=model.dropout or 0.0,
            label_smoothing=opened.judge.loss.smoothing,
        )
        matrices = any(kind == "matrix" for kind, _ in kinds(model.module).values())
        tokens = opened.tokens_per_example
        facts = Facts(
            parameters=parameters,
            train_examples=len(train),
            tokens_per_example=tokens,
            sample_tokens=tokens * min(SAMPLE, len(validation)),
            validation_tokens=tokens * len(validation),
            test_tokens=tokens * len(opened.readers["test"]) if "test" in opened.readers else 0,
            pretrained=self._pretrained,
            device=device_name(device),
            description=f"{model.name}, {opened.judge.loss.name}",
            notes=opened.notes,
            settings=domain.settings,
            optimizers=tuple(name for name in usable_optimizers() if name != "muon" or matrices),
            usage=USAGE,
            loss_unit=opened.judge.loss.unit,
        )
        classes, labels = domain.classes()
        facts = told(
            facts,
            plan,
            phase,
            recipe,
            splits=[Part(name, len(reader), "examples") for name, reader in opened.readers.items()],
            classes=classes,
            labels=labels,
            data="given in Python",
            weights="as the module holds them",
            checked=False,
        )
        rate_open = "learning_rate" not in given and not self._pretrained
        fingerprint = f"{self._identity}-{model.weights_hash()}{opened.mark}"
        return TorchLearner(domain, should_stop, device), Readiness(
            facts, recipe, rate_open, fingerprint, opened.metrics
        )

    def _open(self, seed: int, device: torch.device) -> Understood:
        known = self._start is not None and self._resuming and self._start.exists()
        if self._start is not None and known:
            self._model.read_start(self._start)
        opened = understand(self._model, self._wanted, seed, device)
        if self._start is not None and not known:
            self._model.write_start(self._start)
        opened.unfold()  # after the weights as they were given are kept
        return opened

    def versions(self) -> Mapping[str, str]:
        return versions_of("multistep", "torch", "safetensors", "numpy")
