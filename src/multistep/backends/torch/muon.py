"""Muon: momentum, made orthogonal, for all matrices of a model at once.

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon. torch's own takes matrices one by one and in
bfloat16, which CPUs emulate.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multistep.backends.torch.parts import is_parted, local, locals_of

# Odd quintics a x + b x³ + c x⁵, applied in turn to the singular values, at most 1 before the first. Each is
# the one nearest to 1 on what the last one leaves of [0.01, 1] (the way of Polar Express, arXiv 2505.16932);
# together they lift the smallest values 78-fold and end within 0.73 to 1.27. A flatter triple trains worse.
QUINTICS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))


def orthogonalise(
    x_NRC: Tensor,
    quintics: tuple[tuple[float, float, float], ...] = QUINTICS,
    *,
    gram_form: bool | None = None,
) -> Tensor:
    """For each of N matrices, R <= C, nearly the orthogonal factor of its polar decomposition, in new memory.

    Computed in float32, on CUDA in bfloat16. A matrix of zeros stays zero. `gram_form` forces one of the two
    equal ways to compute it; None takes the cheaper one.
    """
    rows, columns = x_NRC.shape[-2:]
    x = x_NRC.bfloat16() if x_NRC.is_cuda else x_NRC.float()
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    if gram_form is None:  # too coarse for bfloat16; else by counting products
        n = len(quintics)
        gram_form = not x.is_cuda and (4 * n - 3) * rows + 2 * columns < n * (2 * columns + rows)
    gram = x @ x.mT
    # the root of the Gram matrix's Frobenius norm bounds the largest singular value more tightly than the
    # norm of x does (by up to R to the 1/4), which is worth one or two iterations
    bound = gram.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    gram, x = gram / bound, x / bound.sqrt()
    if not gram_form:
        for i, (a, b, c) in enumerate(quintics):
            gram = x @ x.mT if i else gram
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x
    # All iterates are a polynomial in the Gram matrix times x, so they can act on R by R matrices alone.
    total: Tensor | None = None
    for i, (a, b, c) in enumerate(quintics):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        total = factor if total is None else factor @ total
        if i + 1 < len(quintics):
            gram = factor @ gram @ factor
    assert total is not None
    return torch.bmm(total, x)


@dataclass(frozen=True)
class Matrix:
    """How a parameter is read as matrices of shape (out, in).

    `parts` > 1: a fused weight, cut along `out` (queries, keys and values are three maps, not one).
    `transposed`: stored as (in, out), as in GPT-2's Conv1D.
    """

    parts: int = 1
    transposed: bool = False

    def views(self, parameter: Tensor, like: Tensor) -> tuple[Tensor, ...]:
        """The matrices (out, in) inside `parameter`, sharing its memory if its layout is that of `like`."""
        # convolutions may be stored channels-last: flatten in the order of memory, or it would be a copy
        order = sorted(range(1, like.ndim), key=like.stride, reverse=True)
        flat = parameter.permute(0, *order).flatten(1)
        return (flat.mT if self.transposed else flat).chunk(self.parts)


class Muon(torch.optim.Optimizer):
    """Updates have unit spectral norm times sqrt(max(1, out / in)) times the rate; weight decay is decoupled.

    All matrices of one shape, either way up, are made orthogonal in one batch. Each group needs `matrices`, a
    `Matrix` for every parameter in `params`. A step is left out where `found_inf` is 1.0. Where several processes
    take the same steps, `parted` has each of them make some of the matrices orthogonal, and gives all of them. Where
    each has some rows of every matrix, `spread` (`many.spreading`) has each make the steps of some whole ones.
    """

    found_inf: Tensor | None = None
    parted: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor] | None = None
    spread: Callable[..., list[Tensor]] | None = None

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        quintics: tuple[tuple[float, float, float], ...] = QUINTICS,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(groups, defaults)
        self.quintics = quintics

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            pairs = [(p, m) for p, m in zip(group["params"], group["matrices"], strict=True) if p.grad is not None]
            if not pairs:
                continue
            matrices = [m for _, m in pairs]
            parameters, gradients = locals_of(p for p, _ in pairs), [local(p.grad) for p, _ in pairs]
            for p, _ in pairs:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffers = [local(self.state[p]["momentum_buffer"]) for p, _ in pairs]
            taken: float | Tensor = 1.0
            if self.found_inf is not None:
                taken, none = 1.0 - self.found_inf, self.found_inf > 0
                gradients = [torch.where(none, b, g) for b, g in zip(buffers, gradients, strict=True)]
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
            directions: Sequence[Tensor] = buffers
            if group["nesterov"]:
                directions = torch._foreach_lerp(gradients, buffers, group["momentum"])
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"] * taken)
            if not is_parted(pairs[0][0]):
                self._move(matrices, parameters, directions, group["lr"], taken)
                continue
            assert self.spread is not None, "who shards a model tells how"
            whole = functools.partial(self._moved, matrices, group["lr"], taken)
            torch._foreach_add_(parameters, self.spread(directions, [p.shape for p, _ in pairs], whole))

    def _moved(
        self, matrices: list[Matrix], rate: float, taken: float | Tensor, which: Sequence[int], wholes: list[Tensor]
    ) -> list[Tensor]:
        """By how much some of the parameters move, by their directions."""
        changes = [torch.zeros_like(whole) for whole in wholes]
        self._move([matrices[i] for i in which], changes, wholes, rate, taken)
        return changes

    def _move(
        self,
        matrices: list[Matrix],
        parameters: list[Tensor],
        directions: Sequence[Tensor],
        rate: float,
        taken: float | Tensor,
    ) -> None:
        batches: dict[tuple[Any, ...], list[tuple[Tensor, Tensor, float]]] = {}
        for matrix, parameter, direction in zip(matrices, parameters, directions, strict=True):
            targets, sources = matrix.views(parameter, parameter), matrix.views(direction, parameter)
            for target, source in zip(targets, sources, strict=True):
                out, into = target.shape
                scale = max(1.0, out / into) ** 0.5
                if out > into:
                    target, source = target.mT, source.mT
                key = (*target.shape, target.device, target.dtype)
                batches.setdefault(key, []).append((target, source, scale))
        for batch in batches.values():
            stacked = torch.stack([source for _, source, _ in batch])
            if self.parted is None:
                updates = orthogonalise(stacked, self.quintics)
            else:
                updates = self.parted(stacked, lambda some: orthogonalise(some, self.quintics))
            steps = list(updates.to(batch[0][0].dtype).unbind())
            torch._foreach_mul_(steps, [-rate * scale for *_, scale in batch])
            if isinstance(taken, Tensor):
                torch._foreach_mul_(steps, taken)
            torch._foreach_add_([target for target, *_ in batch], steps)
