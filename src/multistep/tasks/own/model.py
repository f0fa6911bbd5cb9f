"""The user's module: copied, never changed; its first weights, its dropout, and what cannot be trained."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from multistep.engine.checkpoints import sha256
from multistep.errors import PlanError, RunDirectoryError
from multistep.tasks.own.code import is_own
from multistep.tasks.own.layout import Layout
from multistep.tasks.own.randomness import as_at

HALF = (torch.float16, torch.bfloat16)


class OwnModel:
    """A copy of the module as it was given, on the CPU. `frozen` are parameters that the user froze."""

    def __init__(self, wrapped: nn.Module) -> None:
        self.given, wrappers = unwrapped(wrapped)
        given = self.given
        if isinstance(given, torch.jit.ScriptModule):
            raise PlanError("the model is scripted, which cannot be trained here; give the module that it was made of")
        self.notes = [f"model: trained and exported without {' and '.join(wrappers)}"] if wrappers else []
        try:
            self.module = copy.deepcopy(given).to("cpu")
        except Exception as error:
            raise PlanError(
                f"the model {type(given).__name__} cannot be copied ({type(error).__name__}: {error}); copy.deepcopy "
                "must work on it"
            ) from error
        self.frozen = tuple(name for name, p in given.named_parameters() if not p.requires_grad)
        _require_trainable(self.module)
        _unfold_buffers(self.module)
        if halves := {str(p.dtype).removeprefix("torch.") for p in self.module.parameters() if p.dtype in HALF}:
            self.module.float()
            self.notes.append(f"model: its {' and '.join(sorted(halves))} weights are trained and exported as float32")

    @property
    def name(self) -> str:
        return type(self.given).__qualname__

    @property
    def double(self) -> bool:
        """Whether it computes in float64."""
        return any(p.dtype == torch.float64 for p in self.module.parameters())

    @functools.cached_property
    def takes(self) -> tuple[str, ...] | None:
        """The names of the arguments of `forward`; None where it takes any."""
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in self._parameters):
            return None
        return self.arguments

    @functools.cached_property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments that `forward` spells out."""
        several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return tuple(p.name for p in self._parameters if p.kind not in several)

    @property
    def _parameters(self) -> list[inspect.Parameter]:
        try:
            return list(inspect.signature(self.given.forward).parameters.values())
        except (TypeError, ValueError):  # of a scripted module
            return [inspect.Parameter("inputs", inspect.Parameter.VAR_POSITIONAL)]

    def next_argument(self, layout: Layout) -> str | None:
        """The name of the argument behind those that items without names fill."""
        filled = len(layout.shape[0][1])
        return self.arguments[filled] if filled < len(self.arguments) else None

    def build(self) -> nn.Module:
        """A copy with the first weights."""
        return copy.deepcopy(self.module)

    def materialise(self, forward: Any, seed: int) -> None:
        """Have lazy modules make their weights in a first `forward`, from the seed."""
        if any(is_lazy(p) for p in self.module.parameters()):
            with as_at(seed), torch.no_grad():
                forward(self.module)

    def weights(self) -> dict[str, Tensor]:
        """Its tensors by name, each with memory of its own."""
        return weights_of(self.module)

    def weights_hash(self) -> str:
        """A hash of the first weights."""
        return hashlib.blake2b(save(self.weights()), digest_size=8).hexdigest()

    def write_start(self, path: Path) -> None:
        """Keep the first weights: code that is run again may draw others."""
        beside = path.with_suffix(".new")
        beside.write_bytes(save(self.weights()))
        beside.replace(path)

    def read_start(self, path: Path) -> None:
        """Begin from the weights that `write_start` kept. Raises RunDirectoryError if the model has changed."""
        try:
            fill(self.module, path)
        except PlanError as error:
            raise RunDirectoryError(
                f"{path.parent}: holds a run of another model ({error}); name another out="
            ) from error

    def set_dropout(self, model: nn.Module, dropout: float) -> None:
        """Give the layers this share of dropout; where they have several, the largest, and the rest in proportion."""
        own = self.dropout
        for module, attribute in zip(*_dropouts(model), strict=True):
            share = getattr(module, attribute)
            setattr(module, attribute, dropout * (share / own if own else 1.0))

    @functools.cached_property
    def dropout(self) -> float | None:
        """The largest share of dropout among its layers; None if it has none that could drop."""
        modules, attributes = _dropouts(self.module)
        return max((float(getattr(m, a)) for m, a in zip(modules, attributes, strict=True)), default=None)

    @functools.cached_property
    def source(self) -> tuple[str | None, str | None]:
        """The file that its class stands in, and the file's SHA-256; None where it was typed in, or is a library's."""
        if not is_own(type(self.given).__module__):
            return None, None
        try:
            file = inspect.getsourcefile(type(self.given))
        except TypeError:
            return None, None
        path = Path(file) if file else None
        return (path.name, sha256(path)) if path and path.is_file() else (None, None)


def unwrapped(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """The user's own module within torch.compile's and data-parallel wrappers, and what these are."""
    wrappers: list[str] = []
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module, wrappers
        wrappers.append("torch.compile" if hasattr(module, "_orig_mod") else type(module).__name__)
        module = inner


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Every tensor of the state dict, shared ones copied, so that `load_state_dict` finds all it asks for."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}


def fill(module: nn.Module, path: Path) -> None:
    """Load exported weights into a module. Raises PlanError where names or shapes do not fit."""
    module, _ = unwrapped(module)
    _unfold_buffers(module)
    try:
        module.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise PlanError(f"{path}: no such file; it is in the model folder of a finished run") from error
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise PlanError(f"{path}: the weights do not fit {type(module).__name__}: {' '.join(lines[1:3])}") from error


def _dropouts(model: nn.Module) -> tuple[list[nn.Module], list[str]]:
    """The modules that drop activations, and the attribute that says how many of them."""
    found: list[tuple[nn.Module, str]] = []
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            found.append((module, "p"))
        elif isinstance(module, nn.MultiheadAttention) or (isinstance(module, nn.RNNBase) and module.num_layers > 1):
            found.append((module, "dropout"))
    return [module for module, _ in found], [attribute for _, attribute in found]


def _unfold_buffers(module: nn.Module) -> None:
    """Give memory of their own to buffers that are views, such as expanded ones: they are written to, and saved."""
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.untyped_storage().nbytes() != buffer.numel() * buffer.element_size():
                part._buffers[name] = buffer.clone(memory_format=torch.contiguous_format)


def _require_trainable(module: nn.Module) -> None:
    """Raises PlanError for what cannot be trained or saved."""
    if not any(p.requires_grad for p in module.parameters()):
        raise PlanError(f"the model {type(module).__name__} has no parameter that requires a gradient")
    if complex_ones := [name for name, p in module.named_parameters() if p.is_complex()]:
        raise PlanError(
            f"{complex_ones[0]}: a parameter of complex numbers, which the optimizers here do not train; hold it as "
            "pairs of real ones and call torch.view_as_complex on it"
        )
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse:
            raise PlanError(f"{name}: sparse gradients are not supported; make it with sparse=False")
    extra = [name for name, value in module.state_dict().items() if not isinstance(value, Tensor)]
    if extra:
        raise PlanError(f"{extra[0]}: the model's state holds what is no tensor; keep it out of the state dict")
