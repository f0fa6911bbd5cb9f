"""The learner in torch: steps, averaged weights, evaluation, and a state that continues exactly."""

from __future__ import annotations

import copy
import fnmatch
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from multistep.backends.torch.optimizers import StepRule, build_optimizer
from multistep.core.metric import Evaluation
from multistep.core.recipe import Recipe
from multistep.core.trial import Progress
from multistep.engine.learner import Interrupted, Split
from multistep.errors import PlanError, RunFailed

AVERAGE_EVERY = 4  # steps; averaging each of them would cost 1% more time and change nothing that shows
Batch = tuple[Tensor, ...]


class Domain(Protocol):
    """What a task gives to the learner for one phase: data, model and scores."""

    def build(self, seed: int) -> nn.Module:
        """The model with its first weights, on the CPU; the same seed gives the same bits."""

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        """Examples `position` to `position + size` of the endless order that `seed` fixes, on the device."""

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """The summed loss in nats and the number of labels, both left on the device."""

    def set_dropout(self, model: nn.Module, dropout: float) -> None:
        """Make the model drop that share of activations while training."""

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        """Score a split example by example, or its fixed sample."""

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        """A trivial model's name and evaluation."""

    def samples(self, model: nn.Module, device: torch.device) -> Sequence[str]:
        """A few outputs for people to look at."""

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        """Write a model folder; return the SHA-256 of the weights."""


def pick_device() -> torch.device:
    """The accelerator that torch finds (CUDA, MPS, ...), else the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found or torch.device("cpu")


class TorchLearner:
    """Trains one phase of a plan on one device. Implements engine.learner.Learner."""

    def __init__(self, domain: Domain, should_stop: Callable[[], bool], device: torch.device | None = None) -> None:
        self._domain = domain
        self._should_stop = should_stop
        self._device = device or pick_device()
        self._rule: StepRule
        self._micro_batch: int | None = None  # halved when memory runs out; the effective batch stays

    # Weights ----------------------------------------------------------------------------------------

    def initial(self, recipe: Recipe, seed: int) -> None:
        self._place(self._domain.build(seed), recipe, seed)

    def load(self, folder: Path, recipe: Recipe, seed: int) -> None:
        tensors = load_file(folder / "state.safetensors")
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        self._place(self._domain.build(seed), recipe, seed)
        _fill(self._model, tensors, "model.")
        _fill(self._average, tensors, "average.")
        self._rule.load_state_tensors(_part(tensors, "optimizer."))
        self._steps, self._position = state["steps"], state["position"]

    def adopt(self, folder: Path, recipe: Recipe, seed: int) -> None:
        tensors = load_file(folder / "state.safetensors")
        model = self._domain.build(seed)
        _fill(model, tensors, "average.")
        self._place(model, recipe, seed)

    def _place(self, model: nn.Module, recipe: Recipe, seed: int) -> None:
        _freeze(model, recipe.frozen)
        self._recipe, self._seed = recipe, seed
        self._domain.set_dropout(model, recipe.dropout)
        self._model = model.to(self._device)
        self._average = copy.deepcopy(self._model).requires_grad_(False).eval()
        self._steps = self._position = 0
        self._trained: list[Tensor] = [p for p in self._model.parameters() if p.requires_grad]
        pairs = zip(self._model.parameters(), self._average.parameters(), strict=True)
        self._averaged: list[Tensor] = [average for p, average in pairs if p.requires_grad]
        self._rule = _step_rule(self._model, recipe)

    def save(self, folder: Path) -> None:
        tensors = {
            **{f"model.{name}": tensor for name, tensor in _named(self._model)},
            **{f"average.{name}": tensor for name, tensor in _named(self._average)},
            **{f"optimizer.{name}": tensor for name, tensor in self._rule.state_tensors().items()},
        }
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        # Written by Python, since safetensors hides a full disk in an exception without a number.
        (folder / "state.safetensors").write_bytes(save(on_cpu))
        state = {"steps": self._steps, "position": self._position}
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

    def export(self, folder: Path, card: str) -> str:
        self._copy_buffers()
        return self._domain.export(self._average, folder, card)

    # Training ---------------------------------------------------------------------------------------

    def advance(self, rates: Sequence[float]) -> Progress:
        self._model.train()
        loss_sum = torch.zeros((), device=self._device)
        labels = torch.zeros((), device=self._device)
        batch_size = self._recipe.batch_size
        assert batch_size is not None, "a resolved recipe has a batch size"
        for rate in rates:
            if self._should_stop():
                raise Interrupted
            batch = self._domain.batch(self._position, batch_size, self._seed, self._device)
            if self._recipe.dropout:
                # Seeded by the step, not carried along: a repeated step drops the same activations.
                torch.manual_seed(hash((self._seed, self._steps)) % 2**63)
            loss, count = self._gradients(batch)
            self._rule.step(rate)
            self._steps += 1
            self._position += batch_size
            loss_sum += loss
            labels += count
            if self._recipe.averaging and (self._steps % AVERAGE_EVERY == 0 or self._steps < AVERAGE_EVERY):
                self._update_average()
        if not self._recipe.averaging:
            self._average_is_model()
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self._gradient_list())))
        self._rule.zero_grad()
        # One transfer a window: until here, nothing of it left the device.
        total, seen, gradient = torch.stack([loss_sum, labels, norm]).tolist()
        return Progress(len(rates), total / max(seen, 1.0), gradient, len(rates) * batch_size, int(seen))

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean gradients of the whole batch, in pieces that fit; the summed loss and its labels."""
        size = batch[0].shape[0]
        while True:
            self._rule.zero_grad()
            piece = min(self._micro_batch or size, size)
            try:
                if piece == size:
                    with self._precision():
                        loss, count = self._domain.loss(self._model, batch, self._recipe.label_smoothing)
                    (loss / count).backward()  # type: ignore[no-untyped-call]
                    return loss.detach(), count
                return self._accumulate(batch, piece)
            except torch.OutOfMemoryError as error:
                if piece == 1:
                    raise RunFailed(
                        "memory runs out with a single example; choose a smaller model or a shorter context"
                    ) from error
                self._micro_batch = piece // 2
                torch.accelerator.empty_cache()

    def _accumulate(self, batch: Batch, piece: int) -> tuple[Tensor, Tensor]:
        losses, counts = [], []
        for start in range(0, batch[0].shape[0], piece):
            part = tuple(tensor[start : start + piece] for tensor in batch)
            with self._precision():
                loss, count = self._domain.loss(self._model, part, self._recipe.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            counts.append(count)
        total = torch.stack(counts).sum()
        torch._foreach_div_(self._gradient_list(), total)
        return torch.stack(losses).sum(), total

    def _gradient_list(self) -> list[Tensor]:
        return [p.grad for p in self._trained if p.grad is not None]

    def _precision(self) -> AbstractContextManager[object]:
        wanted = self._recipe.precision
        if wanted == "auto":
            # bfloat16 pays on GPUs that have it; on CPUs without AMX it is 3.4 times slower.
            wanted = "bfloat16" if self._device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
        if wanted == "bfloat16":
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _update_average(self) -> None:
        """Move the average towards the weights; its horizon is a fixed share of the steps so far."""
        weight = AVERAGE_EVERY / (AVERAGE_EVERY + self._recipe.averaging * self._steps)
        if self._steps <= AVERAGE_EVERY:
            weight = 1.0
        with torch.no_grad():
            torch._foreach_lerp_(self._averaged, self._trained, weight)

    def _average_is_model(self) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self._averaged, self._trained)

    # Evaluation -------------------------------------------------------------------------------------

    def evaluate(self, split: Split, *, sample: bool) -> Evaluation:
        with self._evaluating():
            return self._domain.evaluate(self._average, split, sample=sample, device=self._device)

    def samples(self) -> Sequence[str]:
        with self._evaluating():
            return self._domain.samples(self._average, self._device)

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        return self._domain.baseline(split)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Inference that leaves everything as it was, the random state included."""
        self._copy_buffers()
        devices = [] if self._device.type == "cpu" else [self._device]
        kind = self._device.type if devices else "cuda"  # named even where nothing of it is forked
        with torch.random.fork_rng(devices, device_type=kind), torch.inference_mode(), self._precision():
            yield

    def _copy_buffers(self) -> None:
        for own, theirs in zip(self._average.buffers(), self._model.buffers(), strict=True):
            own.copy_(theirs)


def _step_rule(model: nn.Module, recipe: Recipe) -> StepRule:
    assert recipe.learning_rate is not None, "a resolved recipe has a learning rate"
    return build_optimizer(
        recipe.optimizer,
        model,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay or 0.0,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        betas=recipe.betas,
        clip_norm=recipe.gradient_clip or None,
    )


def _freeze(model: nn.Module, patterns: Sequence[str]) -> None:
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


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and saved buffers, each tensor once even if two modules share it."""
    yield from model.named_parameters()
    saved = model.state_dict()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in saved)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _fill(model: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    part = _part(tensors, prefix)
    with torch.no_grad():
        for name, tensor in _named(model):
            tensor.copy_(part[name])
