"""Within a window nothing is asked of the device: each question would make the host wait for all that was queued.

On a CPU nothing waits, so this watches for what would: operations whose result the host must know (their Python faces,
`nonzero`, masks as indices), tensors made of numbers, and copies to the device that wait. What a batch holds on the CPU
whatever the device is, and what is computed from that alone, is the host's own.
"""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from contract import CASES
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

import multistep
from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.lookahead import Reader, batches
from multistep.backends.torch.optimizers import usable_optimizers
from multistep.core.values.optimizers import TYPICAL_RATE
from multistep.core.values.recipe import OptimizerName
from multistep.engine.learner import Interrupted
from multistep.tasks.language.nets import weighted_sums

ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "repeat_interleave")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
OF_THE_HOST = {"conversations": (3,), "speech-recognition": (1, 2, 3), "fill-mask": (4,)}  # of a batch, by task
# transformers asks once a pass whether a mask masks anything; weighted_sums asks on a CPU alone, where that is quick.
PACKAGE = str(Path(multistep.__file__).parent)  # not any folder of that name: a clone has it, too
THEIRS = ("transformers/masking_utils.py", "weighted_sums")
ASKING_OPTIMIZERS = ("adafactor", "prodigy")  # for the norms that they scale by
WINDOW = 3
CASE = {case.name: case for case in CASES}
WATCHED = (
    *("text-generation", "conversations", "image-classification", "text-classification-several"),
    *("text-classification-bag", "text-classification-cnn", "speech-recognition", "fill-mask", "own-model-tensors"),
)


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what would be asked of a device, by what and where."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()
        self.paused = False
        self._host = WeakIdKeyDictionary()

    def is_of_host(self, tensor: Tensor) -> bool:
        return tensor in self._host

    def mark(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            self._host[tensor] = True

    def note(self, what: str) -> None:
        stack = "".join(f"{f.filename} {f.name} {f.line}\n" for f in traceback.extract_stack())
        if not self.paused and not any(name in stack for name in THEIRS):
            line = next(f for f in reversed(traceback.extract_stack()) if f.filename.startswith(PACKAGE))
            self.found[f"{what} at {Path(line.filename).name}: {line.line}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name, given = func.__name__.split(".")[0], [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        hosts = all(map(self.is_of_host, given)) if given else kwargs.get("device") is None
        if hosts:
            self.mark([t for t in tree_leaves(out) if isinstance(t, Tensor)])
        elif name in ASKING:
            self.note(name)
        elif name in INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            self.note(f"{name} by a mask")
        return out


@contextmanager
def watching(learner: TorchLearner, of_the_host: Sequence[int] = ()) -> Iterator[Counter[str]]:
    watch, domain = Watch(), learner._domain
    batch = domain.batch

    def unwatched(*given: Any) -> tuple[Tensor, ...]:
        watch.paused = True
        try:
            out = batch(*given)
        finally:
            watch.paused = False
        watch.mark([out[i] for i in of_the_host])
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain, "batch", unwatched)

        def watched(owner: Any, name: str) -> None:
            original = getattr(owner, name)

            def called(*given: Any, **named: Any) -> Any:
                if owner is torch:
                    asks = named.get("device") is not None
                elif name == "to":
                    there = any(isinstance(value, torch.device) for value in (*given, *named.values()))
                    asks = there and watch.is_of_host(given[0]) and not named.get("non_blocking")
                else:
                    asks = not watch.is_of_host(given[0])
                if asks:
                    watch.note(name)
                return original(*given, **named)

            patch.setattr(owner, name, called)

        for name in ("tolist", "numpy", "cpu", "__array__", "to"):
            watched(Tensor, name)
        for name in ("tensor", "as_tensor"):
            watched(torch, name)
        with watch:
            yield watch.found


ONE_TRANSFER = {"tolist at learner.py: total, seen, gradient = torch.stack([loss_sum, labels, norm]).tolist()": 1}


@pytest.mark.parametrize("name", WATCHED)
def test_a_window_of_each_task_ends_in_one_transfer(name: str, tmp_path: Path) -> None:
    case = CASE[name]
    learner, ready = case.open(tmp_path, case.prepare(tmp_path))
    assert isinstance(learner, TorchLearner)
    resolution = ready.recipe.resolution[0] if ready.recipe.resolution else None
    learner.initial(ready.recipe, 0)
    learner.advance([1e-3], resolution=resolution)  # what is moved once is moved here
    with watching(learner, OF_THE_HOST.get(name, ())) as found:
        learner.advance([1e-3] * WINDOW, resolution=resolution)
    assert found == ONE_TRANSFER


@pytest.mark.parametrize("optimizer", usable_optimizers())
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_window_of_each_optimizer_ends_in_one_transfer(
    optimizer: OptimizerName, precision: Any, tmp_path: Path
) -> None:
    case = CASE["text-generation"]
    learner, ready = case.open(tmp_path, case.prepare(tmp_path))
    assert isinstance(learner, TorchLearner)
    rate = TYPICAL_RATE[optimizer]
    recipe = replace(ready.recipe, optimizer=optimizer, learning_rate=rate, gradient_clip=1.0, precision=precision)
    learner.initial(recipe, 0)
    learner.advance([rate])
    with watching(learner) as found:
        learner.advance([rate] * WINDOW)
    told = {text: number for text, number in found.items() if "bool(skip)" in text}
    own = {text: number for text, number in found.items() if text not in told and "optimizer.step()" not in text}
    assert own == ONE_TRANSFER
    assert bool(len(found) > len(own) + len(told)) == (optimizer in ASKING_OPTIMIZERS)
    on_device = precision == "float32" or optimizer in ("muon", "adamw", "adam", "sgd")
    assert sum(told.values()) == (0 if on_device else WINDOW)


def test_batches_are_the_same_when_the_next_one_is_read_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASE["conversations"]
    learner, ready = case.open(tmp_path, case.prepare(tmp_path))
    assert isinstance(learner, TorchLearner)
    read = learner._domain.batch
    ends, threads = [], set()
    for reader in (None, Reader(ThreadPoolExecutor(1), Streams(monkeypatch).theirs)):

        def noted(*given: Any) -> tuple[Tensor, ...]:
            threads.add(threading.get_ident())
            return read(*given)

        learner.initial(ready.recipe, 0)
        monkeypatch.setattr(learner, "_reader", reader)
        monkeypatch.setattr(learner._domain, "batch", noted)
        ends.append([learner.advance([1e-3] * 5) for _ in range(2)])
    assert ends[0] == ends[1]
    assert len(threads) == 2
    stops = iter([False, False, True])
    learner._should_stop = lambda: next(stops)
    with pytest.raises(Interrupted):
        learner.advance([1e-3] * 5)
    learner._should_stop = lambda: False
    assert learner.advance([1e-3]).examples == ready.recipe.batch_size, "the thread waits for the next window"


class Streams:
    """Two streams of a device, and what is asked of them in order. `theirs` is the reader's."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.ours: Any = SimpleNamespace(device="fake", wait_stream=lambda _: self.said.append("we wait"))
        self.theirs: Any = SimpleNamespace(device="fake", wait_stream=lambda _: self.said.append("they wait"))
        patch.setattr(torch.cuda, "current_stream", lambda device: self.ours)
        patch.setattr(torch.cuda, "stream", self.within)

    @contextmanager
    def within(self, stream: object) -> Iterator[None]:
        assert stream is self.theirs
        self.said.append("(")
        yield
        self.said.append(")")


def test_copies_have_a_stream_of_their_own_that_is_waited_for_by_the_device_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch is waited for before the next is begun, else that would be waited for, too; its memory is kept for us."""
    streams = Streams(monkeypatch)
    kept: list[int] = []

    def read(position: int) -> tuple[Any, ...]:
        streams.said.append(str(position))

        def record(stream: object) -> None:
            assert stream is streams.ours
            kept.append(position)

        on_device = SimpleNamespace(is_cuda=True, record_stream=record)
        return on_device, torch.tensor(position)  # what stays on the CPU is no stream's

    found = [int(batch[1]) for batch in batches(read, [3, 4], Reader(ThreadPoolExecutor(1), streams.theirs))]
    assert found == kept == [3, 4]
    assert " ".join(streams.said) == "they wait ( 3 ) we wait ( 4 ) we wait we wait"


def test_a_bag_sums_the_same_where_all_embeddings_are_looked_up() -> None:
    torch.manual_seed(0)
    table, ids = torch.randn(50, 8, requires_grad=True), torch.randint(50, (4, 12))
    shares = torch.rand(4, 12) * (torch.rand(4, 12) < 0.3)
    few, all_of_them = (weighted_sums(table, ids, shares, few=few) for few in (True, False))
    torch.testing.assert_close(all_of_them, few)
    (one,), (other,) = (torch.autograd.grad(sums.square().sum(), table) for sums in (few, all_of_them))
    torch.testing.assert_close(other, one)
