"""The learner in torch: steps, averaged weights, evaluation, and a state that continues exactly."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from multistep.backends.torch.adapters import FOLDER, Adapter, hold_in_half, merge, write_adapter
from multistep.backends.torch.anchor import Anchor
from multistep.backends.torch.averages import AVERAGE_EVERY, equal, follow
from multistep.backends.torch.batchnorm import batch_norms, recompute_statistics, training_norms
from multistep.backends.torch.devices import pick_device, reduces
from multistep.backends.torch.domain import Batch, Domain, Draws, Folds
from multistep.backends.torch.fitting import Fitting
from multistep.backends.torch.lookahead import batches, reader_for
from multistep.backends.torch.many.outer import COPIES, Outer
from multistep.backends.torch.many.sharing import Share, Sharing, dividing
from multistep.backends.torch.muon import Muon
from multistep.backends.torch.optimizers import StepRule, step_rule
from multistep.backends.torch.parts import locals_of
from multistep.backends.torch.passes import Passes
from multistep.backends.torch.placing import adopted, built, copied, require_same_network
from multistep.backends.torch.randomness import undisturbed
from multistep.backends.torch.recomputing import require_recompute
from multistep.backends.torch.rehearsal import Rehearsal
from multistep.backends.torch.saved import Named, Saved, mean_weights, write, write_file
from multistep.backends.torch.sharpness import uphill
from multistep.backends.torch.weights import COUNTERS, fill, freeze, named, read_counters
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Carry, Fit, Progress
from multistep.engine.learner import Exhibit, Interrupted, Split
from multistep.errors import PlanError

# What names of their tensors begin with in a checkpoint.
ANCHOR, SCALE, OPTIMIZER, OUTER = "anchor.", "scale.", "optimizer.", "outer."
STATE_COPIES = 2  # of the trained weights, that optimizers keep at most, but for SOAP
STATISTICS_BATCHES = 32  # forward passes, at most, over which statistics of batch normalisation are computed anew
SCORING_EXAMPLES = 512  # are enough for those that scoring needs
Found = TypeVar("Found")


class TorchLearner:
    """Trains one phase of a plan on one device, or a share of its batches. Implements engine.learner.Learner.

    `sharing` is its part where several processes train one model, set before the first verb; None: it is alone.
    """

    sharing: Sharing | None = None

    def __init__(
        self,
        domain: Domain,
        should_stop: Callable[[], bool],
        device: torch.device | None = None,
        at_once: Callable[[], int | None] = lambda: None,
        guard: tuple[Domain, int] | None = None,
        anchor: Anchor | None = None,
    ) -> None:
        """`at_once` tells how many examples of the recipe that is placed a pass should hold; None: the whole batch.

        `guard` is the domain of what the phase must not forget, of the same kind of network, and the context that it is
        read in; `anchor` what is kept of the weights that the phase begins with.
        """
        self._domain, self._at_once, self._guard, self._anchor = domain, at_once, guard, anchor
        self._should_stop = should_stop
        self._device = device or pick_device()
        self._reader = None if isinstance(domain, Draws) else reader_for(self._device)
        self._rule: StepRule
        self._passes: Passes
        self._fitting: Fitting
        self._outer: Outer | None

    # Weights ----------------------------------------------------------------------------------------

    def initial(self, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        model, fixed = built(self._domain, recipe, seed)
        if self.sharing and self.sharing.full:
            self.sharing.same([*model.parameters(), *model.buffers()])
        self._place(model, fixed, recipe, seed)
        if self.sharing and not self.sharing.full:
            # What they built is the same by rule; that of other hardware may differ in its last bits.
            self.sharing.same([*self._trained, *self._averaged, *self._model.buffers(), *self._average.buffers()])
        self._position = skip_examples
        self._begin()

    def load(self, folder: Path, recipe: Recipe, seed: int, *, carry: Carry = "all", skip_examples: int = 0) -> None:
        tensors = Saved(folder)
        saved = read_counters(folder)
        require_same_network(saved, recipe, folder, exact=carry == "all")
        if carry == "all" and (other := saved.get("optimizer", recipe.optimizer)) != recipe.optimizer:
            raise PlanError(
                f"{folder.name} was saved under {other}, whose state means nothing to {recipe.optimizer}; carry the "
                "weights alone"
            )
        own_base = bool(saved.get("own_base"))
        self._place(*built(self._domain, recipe, seed, own_base=own_base), recipe, seed, own_base)
        fill(self._model, tensors, "model.", self._fixed)
        fill(self._average, tensors, "average.", self._not_saved)
        if carry == "all":
            own = self._outer.own_file(folder) if self._outer else None
            inner = load_file(own) if own and own.is_file() else tensors
            self._rule.load_state_tensors(Named(inner, OPTIMIZER))
            if self._passes.scale:
                self._passes.scale.load(Named(inner, SCALE))
            if self._outer:
                self._outer.load(Named(tensors, OUTER))
        self._steps = saved["steps"]
        self._position = self._converted(saved) + skip_examples
        if self._anchor is not None:
            self._anchor.restore(Named(tensors, ANCHOR))

    def adopt(self, folder: Path, recipe: Recipe, seed: int, *, skip_examples: int = 0) -> None:
        saved = read_counters(folder)
        if None not in (named := (saved.get("model"), recipe.model)) and len(set(named)) > 1:
            require_same_network(saved, recipe, folder, exact=False)  # where one names none, what both have is taken
        model, fixed, own_base = adopted(self._domain, recipe, seed, Saved(folder), saved)
        self._place(model, fixed, recipe, seed, own_base)
        self._position = skip_examples
        self._begin()

    def _begin(self) -> None:
        """Have the anchor know the weights that the phase begins with, which stand here."""
        if self._anchor is not None:
            self._scored(functools.partial(self._anchor.compute, self._average, self._device))

    def average(self, folders: Sequence[Path], recipe: Recipe, seed: int) -> None:
        saved = [read_counters(folder) for folder in folders]
        for folder, state in zip(folders, saved, strict=True):
            require_same_network(state, recipe, folder, exact=True)
        own_base = any(state.get("own_base") for state in saved)
        model, fixed = built(self._domain, recipe, seed, own_base=own_base)
        fill(model, mean_weights(folders), "average.", frozenset() if own_base else fixed)
        self._place(model, fixed, recipe, seed, own_base)
        if self._norms:
            self._recompute_statistics(self._model, STATISTICS_BATCHES)
        # Whoever goes on from here reads on where the longest of them was.
        self._steps = max(state["steps"] for state in saved)
        self._position = max(map(self._converted, saved))
        if self._anchor is not None:
            self._anchor.restore(Named(Saved(folders[0]), ANCHOR))

    def _converted(self, saved: Mapping[str, Any]) -> int:
        """A saved position in examples of the present size: about the same place in the data."""
        old, new = saved.get("example_size", self._example_size), self._example_size
        return int(saved["position"] * old + new // 2) // new

    def _place(self, model: nn.Module, fixed: Set[str], recipe: Recipe, seed: int, own_base: bool = False) -> None:
        """Stand at these weights; what is `fixed`, adapters leave as it is: as the task built it, so that no checkpoint
        holds it, or as it became in this run (`own_base`).
        """
        freeze(model, recipe.frozen, fixed)
        self._recipe, self._seed, self._fixed = recipe, seed, frozenset(fixed)
        self._not_saved = frozenset[str]() if own_base else self._fixed
        self._example_size = self._domain.configure(model, recipe)
        sharded = self.sharing is not None and self.sharing.full
        self._model = model if sharded else model.to(self._device)  # which no device may hold
        origin = self._domain.origin(recipe.model)
        if origin and origin.half and reduces(recipe, self._device):
            hold_in_half(self._model, self._not_saved)
        self._whole: nn.Module | None = None
        self._shards = self.sharing.shards(self._model, self._fixed, recipe) if self.sharing and sharded else None
        if self._shards:
            self._average = self._shards.average
        else:
            self._average = copied(self._model, self._fixed).requires_grad_(False).eval()
        self._steps = self._position = 0
        self._trained: list[Tensor] = [p for p in self._model.parameters() if p.requires_grad]
        pairs = zip(self._model.parameters(), self._average.parameters(), strict=True)
        self._averaged: list[Tensor] = [average for p, average in pairs if p.requires_grad]
        if recipe.checkpointing is True:
            require_recompute(self._model)
        # Made anew: what did not fit under another recipe says nothing of this one.
        size = self._at_once() if recipe.micro_batch == "auto" else recipe.micro_batch
        self._passes = Passes(self._domain, self._model, self._trained, recipe, self._device, size)
        self._share = self.sharing.share(self._batch_size) if self.sharing else Share(0, self._batch_size)
        if self._shards:
            self._passes.within, self._passes.micro_batch = self._shards.within, self._shards.agreed(size)
        shared = replace(recipe, batch_size=max(1, self._share.size))
        self._fitting = Fitting(
            self._model, self._passes, shared, self._device, self._rehearsal, self._reserve, sharded
        )
        self._following = training_norms(self._model)
        self._norms = batch_norms(self._model, self._following)
        self._statistics_due = True
        asked = recipe.outer is not None
        self._outer = Outer(recipe, self._model, self._norms, self.sharing, self._should_stop) if asked else None
        self._rule = step_rule(self._model, recipe)
        self._rule.norm = self._shards.norm if self._shards else None
        for optimizer in self._rule.optimizers:
            if isinstance(optimizer, Muon) and self.sharing:
                optimizer.parted = None if self._shards or self._outer else self.sharing.parted
                optimizer.spread = self._shards.spread if self._shards else None

    @property
    def saves_apart(self) -> bool:
        """Whether every process is to `save`, since each has a state of its own."""
        return self._outer is not None and self.sharing is not None

    def _inner_state(self) -> dict[str, Tensor]:
        """What each process has for itself where all take steps alone; else it is the same in all of them."""
        scale = self._passes.scale
        return {
            **{f"{OPTIMIZER}{name}": tensor for name, tensor in self._rule.state_tensors().items()},
            **{f"{SCALE}{name}": tensor for name, tensor in (scale.tensors() if scale else {}).items()},
        }

    def save(self, folder: Path) -> None:
        if self._outer and (own_file := self._outer.own_file(folder)):
            write_file(own_file, self._inner_state())
            return
        parameters = dict(self._average.named_parameters())
        own = {name: tensor for name, tensor in named(self._model) if name not in self._not_saved}
        outer = self._outer.tensors(self._steps) if self._outer else {}
        tensors = {
            # What is fixed is the same memory in both, and written once.
            **{f"model.{name}": tensor for name, tensor in own.items() if name not in self._fixed},
            # Buffers are those of training, whether or not somebody has looked since.
            **{f"average.{name}": parameters[name] if name in parameters else t.clone() for name, t in own.items()},
            **{f"{ANCHOR}{name}": tensor for name, tensor in (self._anchor.tensors() if self._anchor else {}).items()},
            **{f"{OUTER}{name}": tensor for name, tensor in outer.items()},
            **self._inner_state(),
        }
        state = {
            "steps": self._steps,
            "position": self._position,
            "example_size": self._example_size,
            "optimizer": self._recipe.optimizer,
            "model": self._recipe.model,
            "adapter": adapter.to_json() if (adapter := Adapter.of(self._recipe)) else None,
            "own_base": not self._not_saved,
        }
        if self.sharing is None or self.sharing.rank == 0:
            (folder / COUNTERS).write_text(json.dumps(state), encoding="utf-8")
        write(folder, tensors, self._shards)

    def export(self, folder: Path, card: str) -> str:
        average = self._whole_average()
        if average is None:
            return ""
        adapter, origin = Adapter.of(self._recipe), self._domain.origin(self._recipe.model)
        if adapter is None or origin is None:
            return self._domain.export(average, folder, card)
        weights = self._domain.export(merge(copied(average, frozenset()).float()), folder, card)
        if origin.source is not None and self._not_saved:
            write_adapter(average, adapter, origin, folder / FOLDER)
        return weights

    def fold(self, temperature: float) -> bool:
        average = self._whole_average()
        if not isinstance(self._domain, Folds) or average is None:
            return False
        with self._evaluating():
            return self._domain.fold(average, temperature, next(average.parameters()).device)

    def _whole_average(self) -> nn.Module | None:
        """The averaged model; where it is sharded, whole on the first process's CPU, and None in the others."""
        self._make_average_ready()
        if self._shards is None:
            return self._average
        if self._whole is None:
            self._whole = self._shards.whole(
                self._average, lambda: built(self._domain, self._recipe, self._seed, own_base=True)[0]
            )
            if self._whole is not None:
                self._domain.configure(self._whole.eval(), self._recipe)
        return self._whole

    # Training ---------------------------------------------------------------------------------------

    def prepare(self, known: Mapping[str, Fit], seconds_left: float | None) -> Callable[[], None] | None:
        return self._fitting.prepare(known, seconds_left)

    @property
    def fit(self) -> Fit | None:
        return self._fitting.fit

    def _rehearsal(self) -> Rehearsal:
        """Passes for measuring from where training stands, at the largest size of images that the recipe names."""
        self._domain.resize(max(self._recipe.resolution, default=None))

        def batch(offset: int, size: int) -> Batch:
            return self._domain.batch(self._position + offset, size, self._seed, self._device)

        return Rehearsal(self._model, self._passes, batch, max(1, self._share.size), self._device)

    def _reserve(self) -> int:
        """Bytes that a step will take beside a pass: the optimizer's state before its first one, weights uphill."""
        state = any(optimizer.state for optimizer in self._rule.optimizers)
        copies = (0 if state else STATE_COPIES) + bool(self._recipe.sharpness) + (COPIES if self._outer else 0)
        return copies * sum(p.nbytes for p in self._trained)

    def advance(self, rates: Sequence[float], *, resolution: int | None = None) -> Progress:
        self._model.train()
        self._domain.resize(resolution)
        self._statistics_due, self._whole = True, None
        averaging = self._recipe.averaging and not self._rule.keeps_average
        loss_sum = torch.zeros((), device=self._device)
        labels = torch.zeros((), device=self._device)
        norm = torch.zeros((), device=self._device)
        batch_size = self._batch_size
        positions = range(self._position, self._position + len(rates) * batch_size, batch_size)
        reading = batches(self._read, positions, self._reader)
        together = self._outer or self.sharing
        if self._outer:
            self._outer.begin(self._steps)
        averaged = self._steps  # at this step, which ended a window
        for i, rate in enumerate(rates):
            if together.stopping() if together else self._should_stop():
                reading.close()
                raise Interrupted
            batch = next(reading)
            loss, count = self._gradients(batch)
            if self._recipe.sharpness:
                with uphill(self._trained, self._norms, self._recipe.sharpness, self._norm_of):
                    self._gradients(batch)
            if i + 1 == len(rates) or self._passes.skip is not None:
                norm = self._norm(norm)
            self._rule.step(rate, self._passes.skip)
            if self._passes.scale and self._passes.skip is not None:
                self._passes.scale.follow(self._passes.skip)
            self._steps += 1
            self._position += batch_size
            loss_sum += loss
            labels += count
            if self._outer:
                if self._outer.together(self._steps, window_ends=i + 1 == len(rates)) and averaging:
                    since = self._steps - averaged  # only weights that all have are averaged
                    follow(self._averaged, self._trained, self._steps, self._recipe.averaging, since)
                    averaged = self._steps
            elif averaging and (self._steps % AVERAGE_EVERY == 0 or self._steps < AVERAGE_EVERY):
                follow(locals_of(self._averaged), locals_of(self._trained), self._steps, self._recipe.averaging)
        if self._rule.keeps_average:
            self._rule.write_average(self._trained, self._averaged)
        elif not averaging:
            equal(locals_of(self._averaged), locals_of(self._trained))
        self._passes.forget()
        if self._outer:
            loss_sum, labels, norm = self._outer.totals(loss_sum, labels, norm)
        elif self.sharing:
            self.sharing.require_passes()
        # One transfer a window: until here, nothing of it left the device.
        total, seen, gradient = torch.stack([loss_sum, labels, norm]).tolist()
        return Progress(len(rates), total / max(seen, 1.0), gradient, len(rates) * batch_size, int(seen))

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.sharing is None:
            return self._passes.gradients(batch, hash((self._seed, self._steps)) % 2**63)
        # What is dropped of one share says nothing of what is dropped of another.
        place = (self._seed, self._steps, self.sharing.rank) if self.sharing.rank else (self._seed, self._steps)
        if self._shards:
            largest = -(-self._batch_size // self.sharing.size)
            pieces = -(-largest // (self._passes.micro_batch or largest))
            seed, counts = hash(place) % 2**63, self._share.size > 0
            return self._shards.gradients(self._passes, batch, pieces, seed, counts=counts)
        if self._outer:
            return self._outer.gradients(self._passes, batch, hash(place) % 2**63)
        return self.sharing.gradients(self._passes, self._trained, batch, hash(place) % 2**63)

    def _read(self, position: int) -> Batch:
        share = self._share
        if not share.size:
            # All must pass over something where a model is sharded.
            return self._domain.batch(position, 1, self._seed, self._device) if self._shards else ()
        return self._domain.batch(position + share.offset, share.size, self._seed, self._device)

    def _norm(self, last: Tensor) -> Tensor:
        """The norm of the gradients, before the step: some optimizers, and clipping, work in their memory.

        Where the loss scale alone is to blame for gradients that are not finite, the `last` one that was.
        """
        norm = self._norm_of(self._trained)
        if self._passes.scale is None or self._passes.skip is None:
            return norm
        return torch.where((self._passes.skip > 0) & ~self._passes.scale.exhausted, last, norm)

    def _norm_of(self, parameters: Sequence[Tensor]) -> Tensor:
        if self._shards:
            return self._shards.norm(parameters)
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        return norm

    def _recompute_statistics(self, model: nn.Module, batches: int) -> None:
        """Batch normalisation's statistics of these weights, from the first batches that there are."""
        # Pieces of a batch would have other statistics than the batch has in training, but must fit.
        size = min(self._batch_size, self._passes.micro_batch or self._batch_size)
        passes = [functools.partial(self._forward, model, i * size, size) for i in range(batches)]
        recompute_statistics(model, batch_norms(model, self._following), passes)

    def _forward(self, model: nn.Module, position: int, size: int) -> None:
        self._passes.forward(model, self._domain.batch(position, size, self._seed, self._device))

    @property
    def _batch_size(self) -> int:
        size = self._recipe.batch_size
        assert size is not None, "a resolved recipe has a batch size"
        return size

    # Evaluation -------------------------------------------------------------------------------------

    def evaluate(self, split: Split, *, sample: bool) -> Evaluation:
        if split == "guard":
            return self._evaluate_guard()
        return self._scored(lambda: self._domain.evaluate(self._average, split, sample=sample, device=self._device))

    def _scored(self, do: Callable[[], Found]) -> Found:
        """What `do` makes of the averaged model, by all processes together."""
        with self._evaluating(), dividing(self.sharing):
            if self._shards is None or self.sharing is None:
                return do()
            return self._shards.scored(self._average, do, self.sharing)

    def _evaluate_guard(self) -> Evaluation:
        assert self._guard is not None, "a phase with a guard brings its domain"
        domain, context = self._guard

        def looked() -> Evaluation:
            domain.configure(self._average, replace(self._recipe, context=context))
            try:
                return domain.evaluate(self._average, "validation", sample=True, device=self._device)
            finally:
                self._domain.configure(self._average, self._recipe)

        return self._scored(looked)

    def exhibits(self) -> Sequence[Exhibit]:
        def shown() -> Sequence[Exhibit]:
            return self._domain.exhibits(self._average, self._device)

        with self._evaluating():
            return self._shards.by_first(self._average, shown, ()) if self._shards else shown()

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        return self._domain.baseline(split)

    def write_baseline(self, folder: Path) -> str:
        return self._domain.write_baseline(folder)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Inference that leaves everything as it was, the random state included."""
        self._make_average_ready()
        # What is gathered in inference mode could not be written to outside of it.
        apart = torch.no_grad() if self._shards else torch.inference_mode()
        with undisturbed(self._device), apart, self._passes.precision():
            yield

    def _make_average_ready(self) -> None:
        """Make the averaged weights ready for use: buffers are the model's, but for batch normalisation's statistics.

        Those are of other weights, and of images that were augmented and perhaps smaller, so they are computed anew.
        """
        if not self._statistics_due:
            return
        self._statistics_due = False
        for own, theirs in zip(self._average.buffers(), self._model.buffers(), strict=True):
            own.copy_(theirs)
        if self._norms:
            passes = min(STATISTICS_BATCHES, -(-SCORING_EXAMPLES // self._batch_size))
            with undisturbed(self._device):  # reading batches may draw
                self._recompute_statistics(self._average, passes)
            self._average.eval()
