"""The loss of many tokens in pieces: the numbers of the whole, without its logits in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from multistep.tasks.text import summed
from multistep.tasks.text.lean import LeanConfig, LeanGPT
from multistep.tasks.text.summed import summed_nats


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most numbers that any one tensor had which was made meanwhile."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor))])
        return out


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("trained", ["both", "hidden", "weight"])
def test_loss_and_gradients_in_pieces_are_those_of_the_whole(
    smoothing: float, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(70, 16, requires_grad=trained != "weight")
    weight = torch.randn(300, 16, requires_grad=trained != "hidden")
    labels = torch.randint(300, (70,)).where(torch.arange(70) % 9 > 0, -100)  # some do not count
    monkeypatch.setattr(summed, "ON_CPU", 300 * 16)  # pieces of 16 labels, the last of 6
    leaves = [leaf for leaf in (hidden, weight) if leaf.requires_grad]
    expected = F.cross_entropy(hidden @ weight.t(), labels, reduction="sum", label_smoothing=smoothing)
    wanted = torch.autograd.grad(expected / 70, leaves)
    with Largest() as largest:
        found = summed_nats(hidden, weight, labels, smoothing)
        gradients = torch.autograd.grad(found / 70, leaves)
    assert largest.numbers == 16 * 300, "a piece's logits, and never more"
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    with torch.inference_mode():
        assert float(summed_nats(hidden, weight, labels, smoothing)) == pytest.approx(
            float(expected.detach()), rel=1e-6
        )


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_reduced_products_in_pieces_are_those_of_the_whole(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(64, 32, requires_grad=True), (torch.randn(200, 32) / 6).requires_grad_()
    labels = torch.randint(200, (64,))
    with torch.autocast("cpu", dtype=kind):
        expected = F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum")
        found = summed_nats(hidden, weight, labels)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    wanted, gradients = (torch.autograd.grad(loss, (hidden, weight)) for loss in (expected, found))
    for one, other in zip(gradients, wanted, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm() / other.norm()) < 0.02


@pytest.mark.parametrize("architecture", ["nanochat", "gpt2"])
def test_a_model_from_nothing_never_holds_the_logits_of_a_long_batch(
    architecture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LeanGPT(LeanConfig(architecture, 512, 1, 16, 2, 64)).initialise(0)
    with torch.no_grad():
        model.head.weight.add_(0.1 * torch.randn(512, 16))
    tokens = torch.randint(512, (8, 65))

    def step() -> tuple[float, list[Tensor]]:
        loss, count = model.loss(tokens[:, :-1], tokens[:, 1:])
        assert int(count) == 512
        return float(loss.detach()), list(torch.autograd.grad(loss / count, list(model.parameters())))

    whole, wanted = step()
    monkeypatch.setattr(summed, "FROM", 2**14)
    monkeypatch.setattr(summed, "ON_CPU", 2**14)
    with Largest() as largest:
        loss, gradients = step()
    assert largest.numbers == 512 * 16 * 4, "the feed-forward layer's; the logits would be eight times as many"
    assert loss == pytest.approx(whole, rel=1e-6)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
