"""What the processes of a run compute together: the gradients of a batch, the scores of a split, and when to stop.

Each process has a copy of the model and takes its share of every batch. One sum over all of them makes of their mean
gradients that of the whole batch, weighted by the labels that each share has, so that all take the same step: what
`DistributedDataParallel` does, whose hooks would have to wrap the forward pass that tasks make their own way.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from multistep.backends.torch.domain import Batch
from multistep.backends.torch.many import means
from multistep.backends.torch.many.group import Group
from multistep.backends.torch.many.means import buckets
from multistep.backends.torch.many.shards import Shards
from multistep.backends.torch.passes import Passes
from multistep.core.values.recipe import Recipe
from multistep.engine.learner import Interrupted
from multistep.errors import MultistepError, ProcessLost, RunFailed, Stopped

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Share:
    """Of a batch: so many examples from an offset on."""

    offset: int
    size: int


class Sharing:
    """One process's part in the work of all. `asked` tells the signal that asks it to stop, 0 for none; `stop` is told
    the one that any of them was asked by. `full`: each has a part of the model.
    """

    done: Callable[[], None] | None = None  # what a process does when its part of scores is done

    def __init__(
        self,
        group: Group,
        device: torch.device,
        asked: Callable[[], int],
        stop: Callable[[int], None],
        *,
        full: bool = False,
    ) -> None:
        self.rank, self.size, self.full = group.rank, group.size, full
        self._group, self._device, self._asked, self._stop = group, device, asked, stop
        # Small things that no device has to be waited for.
        self._by_cpu = dist.new_group(backend="gloo") if device.type != "cpu" else None
        self._aside: dist.ProcessGroup | None = None  # in whose order nothing else stands
        self._waiting: tuple[dist.Work, Tensor] | None = None
        self._failure: RunFailed | None = None  # of this process, in this window
        self._failed: Tensor | None = None  # how often one of all could not pass over its share, in this window

    def share(self, batch_size: int) -> Share:
        """The part of each batch that is this process's; none, where there are fewer examples than processes."""
        first, end = (batch_size * rank // self.size for rank in (self.rank, self.rank + 1))
        return Share(first, end - first)

    def shards(self, model: nn.Module, fixed: Set[str], recipe: Recipe) -> Shards:
        """A model, which is parted in place, and its average."""
        return Shards(self._group, model, fixed, recipe, self._device, self._by_cpu)

    # Stopping ---------------------------------------------------------------------------------------

    def stopping(self) -> bool:
        """Whether any process was asked to stop when it last asked this. All ask before each step, and hear the same.

        What they say is summed up while the step in between is computed.
        """
        stop = 0
        with self._group.collective():
            if self._waiting is not None:
                work, number = self._waiting
                work.wait()
                stop = int(number)
            mine = torch.tensor(self._asked(), dtype=torch.int32)
            work = dist.all_reduce(mine, dist.ReduceOp.MAX, group=self._by_cpu, async_op=True)
            assert work is not None, "asked for"
            self._waiting = work, mine
        if stop:
            self._stop(stop)
        return stop != 0

    # Coming together between steps that each takes alone ---------------------------------------------

    def called(self) -> bool:
        """Whether to go to the others at once: this process was asked to stop, or one of them waits (see `call`)."""
        if self._asked():
            self.call()
            return True
        return self._group.called()

    def call(self) -> None:
        """Have the others come within about a second, each in the midst of its steps."""
        self._group.call()

    def meet(self, *, failed: bool) -> bool:
        """Wait for all; whether any of them `failed`. Raises Interrupted where any was asked to stop."""
        self._group.meetings += 1
        said = torch.tensor([self._asked(), int(failed)], dtype=torch.int32)
        with self._group.collective():
            dist.all_reduce(said, dist.ReduceOp.MAX, group=self._by_cpu)
        stop, any_failed = said.tolist()
        if stop:
            self._stop(stop)
            raise Interrupted
        return bool(any_failed)

    def most(self, number: int) -> int:
        """The largest of what all say."""
        said = torch.tensor(number)
        with self._group.collective():
            dist.all_reduce(said, dist.ReduceOp.MAX, group=self._by_cpu)
        return int(said)

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Make these tensors everywhere their mean over the processes."""
        means.begun(tensors, self._group, None)()

    def mean_aside(self, tensors: Sequence[Tensor], bits: int) -> Callable[[], None]:
        """Begin that, beside all else that the processes send; what is returned has to be called to finish it."""
        begun = means.begun_in_four_bits if bits == means.FEW_BITS else means.begun
        return begun(tensors, self._group, self._aside)

    def open_aside(self) -> None:
        """Before `mean_aside`, by all processes."""
        if self._aside is None:
            with self._group.collective():
                self._aside = dist.new_group()

    # Gradients --------------------------------------------------------------------------------------

    def gradients(self, passes: Passes, trained: Sequence[Tensor], batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
        """Mean gradients of the whole batch, of which this is one's own share; the summed loss and its labels, of all.

        A process that cannot pass over its share goes on with the others to the end of the window
        (`require_passes`), so that none waits in vain.
        """
        loss = count = torch.zeros((), device=self._device)
        if batch and self._failure is None:
            try:
                loss, count = passes.gradients(batch, seed)
            except RunFailed as error:
                self._failure = error
        if not batch or self._failure is not None:
            passes.forget()
        none = torch.zeros((), device=self._device)
        failed = none if self._failure is None else none + 1.0
        skip = None if passes.scale is None else none if passes.skip is None else passes.skip
        loss, count, failed, skip_all = self._summed(trained, [loss, count, failed, none if skip is None else skip])
        self._failed = failed if self._failed is None else self._failed + failed
        passes.skip = None if skip is None else skip_all.clamp_max(1.0)
        return loss, count

    def require_passes(self) -> None:
        """At the end of a window. Raises RunFailed in all processes where one could not pass over its share."""
        failed, self._failed = self._failed, None
        failure, self._failure = self._failure, None
        if failed is not None and bool(failed):
            raise failure or RunFailed("another process: memory runs out with a single example of its share")

    @torch.no_grad()
    def _summed(self, trained: Sequence[Tensor], numbers: Sequence[Tensor]) -> Sequence[Tensor]:
        """Sum numbers, of which the second is that of a share's labels, and make gradients the mean over all labels.

        A parameter has a gradient where it has one in any share, as it would of the whole batch.
        """
        weight = numbers[1].float().clamp_min(1.0)
        missing = [i for i, p in enumerate(trained) if p.grad is None]
        there = torch.ones(len(trained), device=self._device)
        there[missing] = 0.0
        tail = torch.cat([torch.stack([number.float() for number in numbers]), there])
        flats = [(bucket, torch.cat([_flat(p) for p in bucket]).mul_(weight)) for bucket in buckets(trained)]
        with self._group.collective():
            works = [dist.all_reduce(each, async_op=True) for each in (tail, *(flat for _, flat in flats))]
        means.waited(works, self._group)
        labels = tail[1].clamp_min(1.0)
        for bucket, flat in flats:
            parts = torch.split(flat.div_(labels), [p.numel() for p in bucket])
            for p, part in zip(bucket, parts, strict=True):
                if p.grad is None:
                    p.grad = torch.empty_like(p)
                p.grad.copy_(part.view_as(p))
        if missing:  # only then the device is asked for what the others have
            elsewhere = tail[len(numbers) :].tolist()
            for i in missing:
                if not elsewhere[i]:
                    trained[i].grad = None
        return tail[: len(numbers)].unbind()

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Make these tensors everywhere what they are in the first process."""
        with self._group.collective(), torch.no_grad():
            for tensor in tensors:
                whole = tensor.contiguous()
                dist.broadcast(whole, 0, group=self._by_cpu if whole.device.type == "cpu" else None)
                if whole is not tensor:
                    tensor.copy_(whole)

    def parted(self, rows: Tensor, do: Callable[[Tensor], Tensor]) -> Tensor:
        """What `do` makes of rows (shape: N, ...), one by one: each process of some of them, and all have all."""
        each = -(-len(rows) // self.size)
        first = min(len(rows), each * self.rank)
        own = rows[first : first + each]
        found = do(own) if len(own) else None
        # The type is the same everywhere, also where there is nothing to do.
        kind = found.dtype if found is not None else do(rows[:1]).dtype
        mine = torch.zeros(each, *rows.shape[1:], dtype=kind, device=rows.device)
        if found is not None:
            mine[: len(own)] = found
        everything = [torch.empty_like(mine) for _ in range(self.size)]
        with self._group.collective():
            dist.all_gather(everything, mine)
        return torch.cat(everything)[: len(rows)]

    # Scores -----------------------------------------------------------------------------------------

    def divided(self, items: Sequence[Item], run: Callable[[Item], Found]) -> list[Found]:
        """What `run` makes of each item, in order: every process does its part, and all have all of it.

        What goes wrong with one process is raised in all of them.
        """
        own: list[Found] = []
        wrong: BaseException | None = None
        try:
            own.extend(run(item) for item in items[self.rank :: self.size])
        except (Exception, KeyboardInterrupt) as error:
            wrong = error
        if self.done is not None and not isinstance(wrong, ProcessLost):
            self.done()
        buffer = io.BytesIO()
        torch.save(own if wrong is None else _told(wrong), buffer)
        everything: list[Any] = [None] * self.size
        with self._group.collective():
            dist.all_gather_object(everything, buffer.getvalue(), group=self._by_cpu)
        if wrong is not None:
            raise wrong
        found = [own if rank == self.rank else self._opened(each) for rank, each in enumerate(everything)]
        for rank, each in enumerate(found):
            if isinstance(each, BaseException):
                raise type(each)(f"process {rank} of {self.size}: {each}") if str(each) else each
        return [found[i % self.size][i // self.size] for i in range(len(items))]

    def _opened(self, sent: bytes) -> Any:
        """What another process has sent, with what lay on its device on this one's."""
        here = str(self._device)
        return torch.load(
            io.BytesIO(sent), map_location=lambda storage, where: _at(storage, where, here), weights_only=False
        )


def _at(storage: Any, where: str, here: str) -> Any:
    return storage if where == "cpu" else storage.to(here)


def _told(error: BaseException) -> BaseException:
    """An error as others can raise it: of a kind that they have, too."""
    if isinstance(error, Interrupted):
        return Interrupted()
    kind = type(error) if isinstance(error, MultistepError | torch.OutOfMemoryError) else RuntimeError
    said = str(error) if kind is not RuntimeError else f"{type(error).__name__}: {error}"
    return kind(said) if kind is not Stopped else RuntimeError(said)


def _flat(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    if gradient is None:
        return torch.zeros(parameter.numel(), device=parameter.device)
    return gradient.float().flatten()


# Whose part in scoring is taken where batches are scored: set while all processes score the same split.
_DIVIDING: ContextVar[Sharing | None] = ContextVar("dividing", default=None)


@contextmanager
def dividing(sharing: Sharing | None) -> Iterator[None]:
    """Within, `divided` has each process do its part; all processes must come to the same calls of it."""
    token = _DIVIDING.set(sharing)
    try:
        yield
    finally:
        _DIVIDING.reset(token)


def divided(items: Iterable[Item], run: Callable[[Item], Found]) -> Iterator[Found]:
    """What `run` makes of each item, in order: by all processes together within `dividing`, else one by one."""
    sharing = _DIVIDING.get()
    yield from map(run, items) if sharing is None else sharing.divided(list(items), run)
