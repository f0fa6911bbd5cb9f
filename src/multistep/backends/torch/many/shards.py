"""A model of which each process holds a part: torch's `fully_shard`, of the blocks that it repeats and of the rest.

A block's matrices are whole in a process only while it computes with them; those of no block (embeddings, the head) are
while anything at all is done with the model. Gradients, the optimizer's state and the average are parted in the same
way. Vectors and single numbers are the same everywhere: they are next to nothing, and their gradients are summed.
Sources: ZeRO, arXiv 1910.02054; FSDP, 2304.11277.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from multistep.backends.torch.compiling import regions
from multistep.backends.torch.devices import products_in
from multistep.backends.torch.domain import Batch
from multistep.backends.torch.many.convoy import Convoy
from multistep.backends.torch.many.group import Group
from multistep.backends.torch.many.spreading import Spreading
from multistep.backends.torch.parts import gathered, is_parted, local, put
from multistep.backends.torch.passes import Passes
from multistep.backends.torch.weights import named
from multistep.core.values.recipe import Recipe
from multistep.errors import MultistepError, PlanError, ProcessLost, RunFailed

OPTIMIZERS = ("muon", "adamw", "adam")  # whose steps are those of the whole model, though each takes a part of them
CAST = (
    "Linear",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Conv1D",
)  # classes whose weights are rounded to 16 bits for their products in any case
ENDLESS = 2**31 - 1
Found = TypeVar("Found")


class Company(Protocol):
    """Who has work divided. `done` is called by each process that has done its own."""

    done: Callable[[], None] | None


class _Within(nn.Module):
    """The root: what is done with a model is done in its forward pass, whichever methods and weights that uses."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, do: Callable[[], object]) -> object:
        return do()


class Shards:
    """A placed model and its `average`, both parted. To be made by all processes, of the same module."""

    def __init__(
        self,
        group: Group,
        model: nn.Module,
        fixed: Set[str],
        recipe: Recipe,
        device: torch.device,
        by_cpu: dist.ProcessGroup | None,
    ) -> None:
        """The module lies on the CPU, whole, and is parted in place. What is `fixed` is the same memory in its average.

        Raises PlanError for a recipe whose steps need whole matrices.
        """
        require_parted_steps(recipe)
        self._group, self._device, self._by_cpu = group, device, by_cpu
        self.rank, self.size = group.rank, group.size
        self.spread = Spreading(group)
        kind = products_in(recipe, device)
        # Copied without its matrices, which are then those that were parted already: nothing is whole twice.
        empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in model.parameters() if p.ndim > 1}
        average = self.average = copy.deepcopy(model, empty).requires_grad_(False).eval()
        self._roots = {id(each): _parted(each, kind, device) for each in (model, average)}
        copies: dict[Tensor, nn.Parameter] = {}
        for name, p in model.named_parameters(remove_duplicate=False):
            if is_parted(p):
                own = p if name in fixed else copies.setdefault(p, nn.Parameter(p.detach().clone(), False))
                path, _, last = name.rpartition(".")
                setattr(average.get_submodule(path), last, own)
        for module in average.modules():
            # By which transformers knows that processes are to write as many tokens: here they need not.
            module._is_fsdp_managed_module = False  # type: ignore[assignment]
        self._same = [p for p in model.parameters() if p.requires_grad and not is_parted(p)]
        self._convoy = Convoy(group, regions(average), by_cpu)

    def within(self, model: nn.Module, do: Callable[[], Found]) -> Found:
        """What `do` makes of the model or the average, for which its parameters are there."""
        root: Any = self._roots[id(model)]
        try:
            with self._together():
                found: Found = root(do)
        except BaseException:
            root.reset_iter_state()
            raise
        return found

    def scored(self, average: nn.Module, do: Callable[[], Found], company: Company) -> Found:
        """What `do` makes of the average, by processes that may each score other examples (`Convoy`)."""

        def all_done() -> Found:
            try:
                return do()
            except ProcessLost:
                raise
            except MultistepError:
                self._convoy.accompany()
                raise

        with self._convoy.under_way():
            company.done = self._convoy.accompany
            try:
                return self.within(average, all_done)
            finally:
                company.done = None

    def by_first(self, average: nn.Module, do: Callable[[], Found], other: Found) -> Found:
        """What `do` makes of the average in the first process; `other` in those that only help it."""

        def first_done() -> Found:
            try:
                return do() if self._group.leads else other
            finally:
                self._convoy.accompany()

        with self._convoy.under_way():
            return self.within(average, first_done)

    def whole(self, average: nn.Module, build: Callable[[], nn.Module]) -> nn.Module | None:
        """In the first process what it builds, with the weights and statistics of the average: one of them at a time
        is whole. None in the others.
        """
        found = build() if self._group.leads else None
        own = dict(named(found)) if found is not None else {}
        for name, tensor in named(average):
            whole = self.gathered(tensor)
            if whole is not None:
                put(own[name], whole)
        return found

    def gathered(self, tensor: Tensor) -> Tensor | None:
        """The whole of it, on the CPU, in the first process; None in the others, which must come here, too."""
        with self._group.collective():
            return gathered(tensor, self._group.leads)

    def agreed(self, micro_batch: int | None) -> int | None:
        """The fewest examples that a process wants a pass to hold; None where all take what they have."""
        fewest = torch.tensor(micro_batch or ENDLESS)
        with self._group.collective():
            dist.all_reduce(fewest, dist.ReduceOp.MIN, group=self._by_cpu)
        return int(fewest) if int(fewest) < ENDLESS else None

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Within, what collectives raise is told as ProcessLost; what goes wrong here ends the others, who wait."""
        try:
            yield
        except (RunFailed, torch.OutOfMemoryError):
            raise
        except RuntimeError as error:
            if isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "Connection")):
                raise self._group.lost(error) from error
            raise

    # Gradients --------------------------------------------------------------------------------------

    def gradients(self, passes: Passes, batch: Batch, pieces: int, seed: int, *, counts: bool) -> tuple[Tensor, Tensor]:
        """Mean gradients of the whole batch, of which this is one's own share; the summed loss and its labels, of all.

        All processes pass over as many `pieces`, since they compute each together; who has fewer examples repeats one
        that does not count, nor does the share of a process that has none of the batch (`counts`).
        """
        try:
            return self._gradients(passes, batch, pieces, seed, counts)
        except (RunFailed, torch.OutOfMemoryError) as error:
            passes.forget()
            short = isinstance(error, torch.OutOfMemoryError)
            failed = (
                RunFailed("memory runs out in a pass; set recipe.micro_batch to fewer examples") if short else error
            )
            # The others wait for this one in the middle of a pass, where nothing but its end can reach them.
            self._group.failed(failed)
            raise ProcessLost(f"process {self._group.rank} of {self._group.size} failed: {failed}") from error

    def _gradients(self, passes: Passes, batch: Batch, pieces: int, seed: int, counts: bool) -> tuple[Tensor, Tensor]:
        passes.begin(seed)
        size = batch[0].shape[0]
        sums = torch.zeros(2, device=self._device)
        base: Tensor | None = None
        for i in range(pieces):
            first, end = size * i // pieces, size * (i + 1) // pieces
            loss, count = passes.loss(tuple(tensor[first : max(end, first + 1)] for tensor in batch))
            if end == first or not counts:
                loss, count = loss * 0.0, torch.zeros_like(count)
            labels = count.detach().float().to(self._device)
            if base is None:  # by which all divide, so that gradients can be summed as they come
                base = self.total(labels.clone()).clamp_min(1.0)
            with self._together():
                passes.backward(loss / base)
            sums += torch.stack([loss.detach().float(), labels])
        assert base is not None, "a batch has a piece"
        skip = passes.scale.unscale(passes.gradient_list()) if passes.scale else None
        own = torch.zeros((), device=self._device) if skip is None else skip
        loss, count, skip_all = self._summed([*sums.unbind(), own])
        if pieces > 1:
            torch._foreach_mul_(passes.gradient_list(), base / count.clamp_min(1.0))
        passes.skip = None if skip is None else skip_all.clamp_max(1.0)
        return loss, count

    @torch.no_grad()
    def _summed(self, numbers: Sequence[Tensor]) -> Sequence[Tensor]:
        """Sum these numbers, and the gradients of what all have, over the processes."""
        flat = [torch.stack(list(numbers))]
        for p in self._same:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            flat.append(p.grad.float().flatten())
        together = self.total(torch.cat(flat))
        sizes = [len(numbers), *(p.numel() for p in self._same)]
        found, *gradients = torch.split(together, sizes)
        for p, gradient in zip(self._same, gradients, strict=True):
            assert p.grad is not None, "set above"
            p.grad.copy_(gradient.view_as(p))
        return found.unbind()

    def total(self, numbers: Tensor) -> Tensor:
        """The sum of these over the processes; in place."""
        with self._group.collective():
            dist.all_reduce(numbers)
        return numbers

    @torch.no_grad()
    def norm(self, parameters: Sequence[Tensor]) -> Tensor:
        """The norm of the whole gradient of these parameters, the same everywhere."""
        pairs = [(p, p.grad) for p in parameters if p.grad is not None]
        square = torch.zeros((), device=self._device)
        for parted in (True, False):
            some = [local(gradient) for p, gradient in pairs if is_parted(p) == parted]
            if some and (parted or self._group.leads):  # what all have counts once
                square += torch.stack(torch._foreach_norm(some)).float().square().sum()
        return self.total(square).sqrt()


def require_parted_steps(recipe: Recipe) -> None:
    """Raises PlanError."""
    if recipe.optimizer not in OPTIMIZERS:
        raise PlanError(
            f"recipe.optimizer is {recipe.optimizer}, which needs the whole model in each process, but it is sharded; "
            f"choose one of {', '.join(OPTIMIZERS)}, or set recipe.sharding to none"
        )
    if recipe.adapter == "qlora":
        raise PlanError("recipe.adapter is qlora, whose four bits cannot be sharded; set it to lora")


def _parted(model: nn.Module, products: torch.dtype, device: torch.device) -> nn.Module:
    """The root of a model that is parted in place: each of its blocks by itself, all else together."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    same = {p for p in model.parameters() if p.ndim < 2}
    with torch.no_grad():
        for p in model.parameters():
            p.data = p.data.to(device) if p in same else p.data.contiguous()
    root = _Within(model)
    mesh = DeviceMesh.from_group(dist.group.WORLD, device.type)  # type: ignore[arg-type]
    parts: list[tuple[nn.Module, torch.dtype | None]] = [
        (block, products if products != torch.float32 and _is_cast(block) else None) for block in regions(model)
    ]
    for part, kind in (*parts, (root, None)):
        part.register_forward_hook(_as_itself)
        # Autocast decides what is computed in which precision, as ever; what is sent is what it would have made of it.
        policy = MixedPrecisionPolicy(param_dtype=kind, reduce_dtype=torch.float32, cast_forward_inputs=False)
        found: Any = fully_shard(part, mesh=mesh, reshard_after_forward=True, mp_policy=policy, ignored_params=same)
        found.set_gradient_divide_factor(1.0)  # losses are divided by the labels of all
        found.set_force_sum_reduction_for_comms(True)
        found.set_reduce_scatter_unused_params(True, recurse=False)
    return root


def _as_itself(_: nn.Module, __: object, found: object) -> object:
    """Copies of what a block gives as views: written to in place, they lose what gathers it for the gradient."""
    if not torch.is_grad_enabled():
        return found
    return tree_map_only(Tensor, lambda tensor: tensor if tensor._base is None else tensor.clone(), found)


def _is_cast(block: nn.Module) -> bool:
    """Whether all of a block's matrices are weights of linear layers and convolutions."""
    return all(
        p.ndim < 2 or type(module).__name__ in CAST
        for module in block.modules()
        for p in module.parameters(recurse=False)
    )
