"""Image classification: what the engine and the torch learner need to know of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.devices import number, pick_device
from multistep.backends.torch.domain import Batch
from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.backends.torch.weights import Weights
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Recipe, Setting
from multistep.core.values.trial import Facts
from multistep.core.values.understood import Part
from multistep.data.names import SPLITS
from multistep.engine.learner import Exhibit, Learner, Readiness, Split
from multistep.errors import PlanError
from multistep.tasks.begun import lies_at, planned_device
from multistep.tasks.calibrated import fold
from multistep.tasks.fitting import Numbers, cut, that_fit
from multistep.tasks.hub import first_line, weights_hash
from multistep.tasks.images.augment import augment, draw, mix
from multistep.tasks.images.baseline import PixelBaseline
from multistep.tasks.images.decode import Form
from multistep.tasks.images.exhibits import exhibits_of
from multistep.tasks.images.holding import Reader, by_lot
from multistep.tasks.images.load import form_of_model, load_model, own_labels
from multistep.tasks.images.mirror import mirroring_helps
from multistep.tasks.images.models import Maker, NetMaker, Statistics, TransformersMaker, make_standard
from multistep.tasks.images.preset import (
    PER_PRODUCT,
    PRESETS,
    WORK,
    Choice,
    ImageFacts,
    choose,
    default_recipe,
    products,
)
from multistep.tasks.images.probe import probed
from multistep.tasks.images.splits import ImageSet, ImageSplits, Seen, load_splits, look_through
from multistep.tasks.images.timed import net_speed
from multistep.tasks.labelled.counted import class_counts, number_range
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.labelled.loss import loss_of, loss_unit, metrics_of, targets
from multistep.tasks.labelled.scale import Scale, scale_of
from multistep.tasks.labelled.score import table_of
from multistep.tasks.machine import device_name, versions_of
from multistep.tasks.order import ShuffledOrder, sample_of
from multistep.tasks.pretrained.choose import Need
from multistep.tasks.pretrained.settle import Settled, seconds_of, settle
from multistep.tasks.pretrained.timed import tuning_speed
from multistep.tasks.recipes import refuse_model
from multistep.tasks.reckoned import Costs
from multistep.tasks.sending import sent
from multistep.tasks.speeds import operations
from multistep.tasks.understood import told

SAMPLE = 3_000  # images of the validation split that are looked at after each window
SCORED = 256  # images a batch
COUNTED = 32  # images whose values are counted at once
FOLDED_ON = 8  # images that show whether the logits follow their last layer
IN_UNIT = "root_mean_squared_error"
PHOTOGRAPH_SIDE, COLOURS = 64, 3  # pixels and channels: less is a small picture, and no photograph


class ImageDomain:
    """One phase's images and model. Implements backends.torch.domain.Domain."""

    def __init__(self, splits: ImageSplits, maker: Maker, *, mirror: bool = False) -> None:
        self.splits, self._maker, self._mirror = splits, maker, mirror
        self.held_out: dict[Split, ImageSet] = {"validation": splits.validation, "test": splits.test}
        self._reader = Reader(splits.train.images)
        self._readers = {split: Reader(images.images) for split, images in self.held_out.items()}
        self.labels, self._scale = splits.labels, scale_of(splits.train.labels, splits.labels)
        self._targets = torch.from_numpy(targets(splits.train.labels, self.labels, self._scale))
        self._weights = None if splits.weights is None else torch.tensor(splits.weights)
        self._order = ShuffledOrder(len(splits.train))
        self._strength = 0.0
        self._full = self._size = (splits.form.height, splits.form.width)
        self._readable: set[tuple[int, int]] = set()
        self._scored: tuple[Weights, Split, Evaluation] | None = None

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        refuse_model(model)
        return self._maker.build(seed)

    def origin(self, model: str | None = None) -> Origin | None:
        return self._maker.origin

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        """Bytes (B, C, H, W), labels, and the lots of augmentation."""
        numbers, epochs = self._order.indices(position, size, seed)
        later = (self._order.indices(position + i * size, size, seed)[0] for i in itertools.count(1))
        lots = draw(seed, epochs, numbers) if self._strength else torch.empty(size, 0)
        pixels = self._reader.take(numbers, device, later)
        return pixels, sent(self._targets[torch.from_numpy(numbers)], device), sent(lots, device)

    def pixels(self, numbers: NDArray[np.int64], device: torch.device) -> Tensor:
        """Training images as they are, in the size that is scored (B, C, H, W), from 0 to 255."""
        return resized(self._reader.take(numbers, device, iter(())), *self._full)

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """Pictures are made smaller and augmented in training alone: otherwise they are what is scored."""
        images, labels, lots = batch
        if self._weights is not None:
            self._weights = sent(self._weights, labels.device)

        def losses(logits: Tensor, targets: Tensor) -> Tensor:
            return loss_of(logits.float(), targets, self.labels.kind, self._weights, label_smoothing, "none")

        pixels = resized(images, *(self._size if model.training else self._full))
        count = number(len(labels), labels.device)
        if not (model.training and self._strength):
            return losses(model(pixels), labels).sum(), count
        fill = model.get_buffer("mean")
        pixels = augment(pixels, lots, self._strength, mirror=self._mirror, fill=fill)
        pixels, kept = mix(pixels, lots, self._strength)
        logits = model(pixels)
        mixed = kept * losses(logits, labels) + (1 - kept) * losses(logits, labels.roll(1, 0))
        return mixed.sum(), count

    @property
    def settings(self) -> tuple[str, ...]:
        """The recipe's keys that images and this model answer to."""
        smoothing = () if self.labels.kind == "number" else ("label_smoothing",)
        return (*smoothing, "augmentation", *self._maker.settings)

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        if recipe.context is not None:
            raise PlanError("recipe.context is for text; what images have is recipe.resolution")
        if recipe.label_smoothing and self.labels.kind == "number":
            raise PlanError(
                f"recipe.label_smoothing is {recipe.label_smoothing:g}, but numbers have none; leave it out"
            )
        self._maker.configure(model, recipe)
        self._strength = recipe.augmentation
        sizes = [self._sized(side) for side in recipe.resolution or (None,)]
        for size in dict.fromkeys(sizes):
            self._require_readable(model, size, "recipe.resolution: " if recipe.resolution else "")
        self._size = self._full = sizes[-1]
        return 1

    def _require_readable(self, model: nn.Module, size: tuple[int, int], where: str) -> None:
        """Raises PlanError for a size of which nothing is left behind the model's strides, by showing it an image."""
        if size in self._readable:
            return
        training = model.training
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, self.splits.form.channels, *size))
        except (RuntimeError, ValueError) as error:
            raise PlanError(
                f"{where}images of {size[0]} x {size[1]} cannot be read by this {self._maker.architecture} "
                f"({first_line(error)}); give a larger recipe.resolution, or take another model"
            ) from error
        model.train(training)
        self._readable.add(size)

    def resize(self, resolution: int | None) -> None:
        self._size = self._sized(resolution) if resolution else self._full

    def _sized(self, side: int | None) -> tuple[int, int]:
        form = self.splits.form.sized(side) if side else self.splits.form
        return form.height, form.width

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        images = self.held_out[split]
        chosen = sample_of(len(images), SAMPLE if sample else len(images))
        reader = self._readers[split]
        table = score(model, images, chosen, *self._full, self.labels, self._scale, device=device, reader=reader)
        if not sample and (split == "test" or not len(self.held_out["test"])):
            self._scored = Weights.of(model), split, table
        return table

    @functools.cached_property
    def _baseline(self) -> PixelBaseline:
        return PixelBaseline.fit(self.splits.train, self.labels)

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        return self._baseline.name, self._baseline.score(self.held_out[split])

    def write_baseline(self, folder: Path) -> str:
        return self._baseline.write(folder, "image-classification", self.splits.form)

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Exhibit]:
        """Of the test split, which has just been scored; without one, of the validation split."""
        split: Split = "test" if len(self.held_out["test"]) else "validation"
        if self._scored and self._scored[1] == split and self._scored[0].are_those_of(model):
            table = self._scored[2]
        else:
            table = self.evaluate(model, split, sample=False, device=device)
        return exhibits_of(self.held_out[split], table, self.labels, split)

    def fold(self, model: nn.Module, temperature: float, device: torch.device) -> bool:
        if self.labels.kind == "number":
            return False
        some = torch.from_numpy(self.splits.validation.images[:FOLDED_ON]).permute(0, 3, 1, 2).to(device)
        return fold(model, temperature, self.labels.outputs, lambda: model(resized(some, *self._full)))

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        self._maker.write(model, folder, *self._full)
        (folder / "README.md").write_text(card, encoding="utf-8")
        return weights_hash(folder)


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Bytes (B, C, H, W) as numbers from 0 to 255 in another size: averaged down, or interpolated up."""
    if images.shape[2:] != (height, width):
        # On CPUs torch has a fast way for bytes; elsewhere it knows only how to average numbers.
        images = images if images.device.type == "cpu" else images.float()
        images = F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)
    return images.float()


def score(
    model: nn.Module,
    images: ImageSet,
    chosen: NDArray[np.int64],
    height: int,
    width: int,
    labels: Labels,
    scale: Scale,
    *,
    device: torch.device,
    reader: Reader | None = None,
) -> Evaluation:
    """The evaluation of the images of those numbers, in that size; images of one group are one block."""
    reader = reader or Reader(images.images)

    def said(part: Numbers) -> Tensor:
        first, end = int(part[0]), int(part[-1]) + 1
        pixels = reader.take(chosen[first:end], device, cut(chosen[end:], len(part)))
        logits: Tensor = model(resized(pixels, height, width)).float()
        return logits

    logits = [found for _, found in that_fit(cut(np.arange(len(chosen)), SCORED), said)]
    table = table_of(torch.cat(logits), images.labels[chosen], labels, scale)
    return Evaluation({**table.columns, "block": images.blocks[chosen].astype(np.float64)})


class ImageWorkshop:
    """Opens the phases of an image-classification plan. Implements engine.learner.Workshop."""

    def __init__(self) -> None:
        self._choice: Choice | None = None
        self._settled: Settled | None = None

    def open(self, plan: Plan, phase: int, should_stop: Callable[[], bool]) -> tuple[Learner, Readiness]:
        data = plan.phase(phase).data
        assert data is not None, "a plan has data"
        seen = look_through(data)
        given = plan.phase(phase).recipe
        device = pick_device()
        settled = self._settled = self._settled or settle(plan, lambda: _need(plan, seen))
        plan = settled.applied(plan)
        if plan.model.name not in ("auto", *PRESETS):
            maker, splits, notes = _loaded(plan, seen, given)
            choice = None
        else:
            choice = self._choice = self._choice or self._first_choice(plan, phase, seen, planned_device(device))
            splits = load_splits(seen, _form(choice.form, given))
            maker, notes = _made(choice, splits), []
        mirror, said = mirroring_helps(splits.train, splits.labels.kind)
        domain = ImageDomain(splits, maker, mirror=mirror)
        probe = probed(maker, splits, domain.pixels, plan, given)
        if isinstance(maker, TransformersMaker):
            maker.probe = probe
        parameters = sum(p.numel() for p in maker.build(plan.seed).parameters())
        # A shift, a turn or a zoom may change an angle, a size or a count: that is for the user, or for a move, to try.
        plain = {"augmentation": 0.0} if splits.labels.kind == "number" else {}
        recipe = default_recipe({**plain, **given}, choice, form=splits.form, parameters=parameters)
        facts = Facts(
            parameters=parameters,
            train_examples=len(splits.train),
            tokens_per_example=1,
            sample_tokens=min(SAMPLE, len(splits.validation)),
            validation_tokens=len(splits.validation),
            test_tokens=len(splits.test),
            pretrained=maker.pretrained,
            device=device_name(device),
            description=maker.description,
            notes=(
                *settled.notes,
                *splits.notes,
                *notes,
                *([said] if recipe.augmentation else []),
                *([probe.note] if probe else []),
            ),
            able=probe is not None or maker.able,
            settings=domain.settings,
            optimizers=usable_optimizers(),
            usage=maker.usage,
            loss_unit=loss_unit(splits.labels),
        )
        facts = told(
            facts,
            plan,
            phase,
            recipe,
            splits=[Part(name, len(getattr(splits, name)), "images") for name in SPLITS],
            models=settled.names,
            classes=class_counts(splits.labels, splits.train.labels),
            labels=number_range(splits.labels, splits.train.labels),
            costs=Costs(WORK, PER_PRODUCT * products(choice.net, choice.form)) if choice and choice.net else None,
        )
        rate_open = "learning_rate" not in given and not maker.pretrained
        ready = Readiness(facts, recipe, rate_open, splits.fingerprint, metrics_in(splits.labels), settled.record)
        return TorchLearner(domain, should_stop, device), ready

    def _first_choice(self, plan: Plan, phase: int, seen: Seen, device: str) -> Choice:
        """By the first phase, whichever is opened: a run that goes on in a later one has the same net."""
        first = plan.phase(0)
        assert first.data is not None, "a plan has data"
        seen = seen if first.data == plan.phase(phase).data else look_through(first.data)
        return _chosen(plan, ImageFacts(seen.train_images, seen.form, seen.labels.outputs), first.recipe, device)

    def versions(self) -> Mapping[str, str]:
        return versions_of("multistep", "torch", "safetensors", "numpy", "pillow", "scikit-learn", "transformers")


def _chosen(plan: Plan, about: ImageFacts, given: Mapping[str, Setting], device: str) -> Choice:
    """What the preset comes to at the speed of this device, which is that of the nets that it comes to."""

    def measured(rate: float, seconds: float) -> float:
        choice = choose(plan, about, given, device, rate)
        return net_speed(choice.net, choice.form, seconds) if choice.net else rate

    choice = choose(plan, about, given, device, operations(WORK, plan, measured))
    if choice.net is None:  # of transformers, whose processors of images know no grey ones
        return replace(choice, form=replace(choice.form, channels=COLOURS))
    return choice


def _need(plan: Plan, seen: Seen) -> Need:
    """What a run has to offer a model of photographs; small pictures are none, and our own nets read those as well."""
    photographs = max(seen.form.height, seen.form.width) >= PHOTOGRAPH_SIDE and seen.form.channels == COLOURS
    return Need(
        plan.task,
        "photographs" if photographs else "small pictures",
        seen.train_images,
        1.0,
        seconds_of(plan),
        tuning_speed(plan),
    )


def _loaded(plan: Plan, seen: Seen, given: Mapping[str, Setting]) -> tuple[Maker, ImageSplits, list[str]]:
    """A model that exists, and the data in its form and in the order of its classes."""
    sizes = ("parameters", "layers", "width", "heads", "context", "vocabulary")
    for name in sizes:
        if getattr(plan.model, name) is not None:
            raise PlanError(f"model.{name}: '{plan.model.name}' has its own, which cannot be changed; leave it out")
    name = lies_at(plan.model.name)
    form = _form(form_of_model(name), given)
    form = replace(form, white=form.white or seen.form.white)  # the model's own, if it has seen such images
    splits = load_splits(seen, form, own_labels(name))
    scale = scale_of(splits.train.labels, splits.labels)
    maker, notes = load_model(name, splits.labels, _statistics(splits), form.white, scale)
    return maker, splits, notes


def _made(choice: Choice, splits: ImageSplits) -> Maker:
    """A model from nothing."""
    scale = scale_of(splits.train.labels, splits.labels)
    if choice.net is None:
        return make_standard(choice.name, splits.labels, splits.form, _statistics(splits), scale)
    return NetMaker(choice.net, splits.labels, splits.form, _statistics(splits), scale=scale)


def metrics_in(labels: Labels) -> tuple[str, ...]:
    """Those that labels can be judged by; numbers first by one in their own unit."""
    found = metrics_of(labels)
    return (IN_UNIT, *(name for name in found if name != IN_UNIT)) if labels.kind == "number" else found


def _form(form: Form, given: Mapping[str, Setting]) -> Form:
    """The form in the size that the recipe trains and scores at, if it names any."""
    resolution = given.get("resolution")
    return form.sized(int(resolution[-1])) if isinstance(resolution, tuple) and resolution else form


def _statistics(splits: ImageSplits) -> Statistics:
    """From how often each channel has each value: no copy of the images in numbers is made."""
    counts = np.zeros((splits.form.channels, 256))
    images = splits.train.images
    chosen = np.sort(by_lot(images, len(images)))
    for start in range(0, len(chosen), COUNTED):
        for channel, values in enumerate(np.moveaxis(images[chosen[start : start + COUNTED]], -1, 0)):
            counts[channel] += np.bincount(values.ravel(), minlength=256)
    levels, total = np.arange(256.0), counts.sum(1)
    mean = counts @ levels / total
    std = np.sqrt((counts * np.square(levels - mean[:, None])).sum(1) / total)
    return Statistics(tuple(mean.tolist()), tuple(np.maximum(std, 1.0).tolist()))  # pictures of one colour have none
