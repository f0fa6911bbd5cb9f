"""Optimizers behind one small face: a step at a given rate, and a state that safetensors can hold."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multistep.backends.torch.adamw import FusedAdamW
from multistep.backends.torch.muon import Matrix, Muon

Kind = Literal["matrix", "embedding", "head", "vector"]
FUSED = ("qkv", "c_attn", "in_proj", "Wqkv")  # weights that hold queries, keys and values, by usual names


def _without_compiler() -> None:
    """Keep `torch.optim` from importing torch's compiler, which takes 1.4 s, the first time it is used.

    It does so only to exclude its own bookkeeping methods from compilation, and looks first whether they have
    been excluded already: we say so. A torch that looks elsewhere merely imports it after all.
    """
    for method in vars(torch.optim.Optimizer).values():
        original = getattr(method, "__wrapped__", None)
        if original is not None and not hasattr(original, "__dynamo_disable"):
            setattr(original, "__dynamo_disable", original)


class StepRule:
    """One or two torch optimizers that step together.

    Every group has a `multiplier`: its rate is the rate given to `step`, times it. It is 1 but for Muon,
    where the parameters that AdamW takes have `rest_ratio`.
    """

    def __init__(self, model: nn.Module, optimizers: list[torch.optim.Optimizer], clip_norm: float | None) -> None:
        self.optimizers, self.clip_norm = optimizers, clip_norm
        self.names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}

    def _groups(self) -> Iterable[dict[str, Any]]:
        return (group for optimizer in self.optimizers for group in optimizer.param_groups)

    def step(self, learning_rate: float) -> None:
        """One step at this rate. Nothing is copied from the device."""
        if self.clip_norm is not None:
            parameters = [p for group in self._groups() for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        for group in self._groups():
            group["lr"] = learning_rate * group["multiplier"]
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """The state itself, not copies, by names like `momentum_buffer.blocks.0.out.weight`."""
        return {
            f"{key}.{self.names[p]}": value
            for optimizer in self.optimizers
            for p, state in optimizer.state.items()
            for key, value in state.items()
            if isinstance(value, Tensor)
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue exactly from what `state_tensors` returned under the same optimizer and model.

        Raises ValueError if a tensor belongs to no parameter, or has another shape.
        """
        owners = {
            self.names[p]: (optimizer, p)
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        }
        for optimizer in self.optimizers:
            optimizer.state.clear()
        for full, tensor in tensors.items():
            key, _, name = full.partition(".")
            if name not in owners:
                raise ValueError(f"optimizer state {full!r}: the model trains no parameter {name!r}")
            optimizer, p = owners[name]
            if key != "step" and tensor.shape != p.shape:
                shapes = f"shape {tuple(tensor.shape)}, not {tuple(p.shape)}"
                raise ValueError(f"optimizer state {full!r}: {shapes}")
            # copies, in the parameter's own memory layout: the caller's tensors stay as they are
            like = torch.empty_like(p, requires_grad=False)
            value = tensor.to(p.device, copy=True) if key == "step" else like.copy_(tensor)
            optimizer.state[p][key] = value


def kinds(model: nn.Module) -> dict[str, tuple[Kind, Matrix]]:
    """What each trained parameter is. The rule, in order:

    the weight of an `nn.Embedding` is an embedding; the weight of the head (what `get_output_embeddings`
    returns, else the last `nn.Linear` in the module's order) is a head; what has fewer than two dimensions,
    or is a norm's, is a vector; the rest are matrices, a convolution's with its inputs flattened. A fused
    query, key and value weight, three times as long as wide and named as usual, is cut in three.
    """
    modules = list(model.named_modules())
    asked = getattr(model, "get_output_embeddings", lambda: None)()
    head = asked or next((m for _, m in reversed(modules) if isinstance(m, nn.Linear)), None)
    found: dict[int, tuple[Kind, Matrix]] = {}
    for path, module in modules:
        for name, p in module.named_parameters(recurse=False):
            kind: Kind = "matrix"
            transposed = p.ndim == 2 and type(module).__name__ == "Conv1D"
            if isinstance(module, nn.Embedding):
                kind = "embedding"
            elif module is head and p.ndim > 1:
                kind = "head"
            elif p.ndim < 2 or "norm" in type(module).__name__.lower():
                kind = "vector"
            out, into = (p.shape[::-1] if transposed else p.shape) if p.ndim == 2 else (0, 0)
            fused = kind == "matrix" and out == 3 * into and any(f in f"{path}.{name}" for f in FUSED)
            found.setdefault(id(p), (kind, Matrix(3 if fused else 1, transposed)))
    return {name: found[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def build_optimizer(
    name: Literal["sgd", "adamw", "muon"],
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    momentum: float | None = None,
    nesterov: bool = True,
    betas: tuple[float, float] = (0.9, 0.99),
    rest_ratio: float = 0.5,
    clip_norm: float | None = None,
) -> StepRule:
    """An optimizer for the parameters that require gradients; build it after the model is on its device.

    `weight_decay` acts on matrices only, decoupled for AdamW and Muon (for SGD torch's own, in the gradient).
    `momentum` is 0.9 for SGD and 0.95 for Muon unless given. Under Muon, everything but matrices takes AdamW
    at `rest_ratio` times the rate. `clip_norm` bounds the global norm of the gradient.

    Raises ValueError for an unknown name.
    """
    if name not in ("sgd", "adamw", "muon"):
        raise ValueError(f"optimizer: got {name!r}; allowed: sgd, adamw, muon")
    _without_compiler()
    parameters, of = dict(model.named_parameters()), kinds(model)
    matrices = [n for n, (kind, _) in of.items() if kind == "matrix"]
    rest = [n for n in of if n not in set(matrices)]

    def group(names: list[str], decay: float, multiplier: float = 1.0, **more: Any) -> list[dict[str, Any]]:
        params = [parameters[n] for n in names]
        return [{"params": params, "weight_decay": decay, "multiplier": multiplier, **more}] if params else []

    def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return FusedAdamW(groups, lr=learning_rate, betas=betas)

    optimizers: list[torch.optim.Optimizer] = []
    plain = group(matrices, weight_decay) + group(rest, 0.0)
    if name == "sgd":
        beta = 0.9 if momentum is None else momentum
        nesterov = nesterov and beta > 0
        rate = learning_rate
        optimizers = [torch.optim.SGD(plain, lr=rate, momentum=beta, nesterov=nesterov, fused=True)]
    elif name == "adamw":
        optimizers = [adamw(plain)]
    else:
        if taken := group(matrices, weight_decay, matrices=[of[n][1] for n in matrices]):
            beta = 0.95 if momentum is None else momentum
            optimizers.append(Muon(taken, lr=learning_rate, momentum=beta, nesterov=nesterov))
        if left := group(rest, 0.0, rest_ratio):
            optimizers.append(adamw(left))
    return StepRule(model, optimizers, clip_norm)
