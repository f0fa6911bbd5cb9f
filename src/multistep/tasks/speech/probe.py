"""The linear probe of a recogniser: a last layer that CTC fits on what it reads of frozen features, which are cached.

Nobody has labelled the frames of a sound, so there is no regression to solve; but a layer alone, on features that do
not change, takes milliseconds a step. Features are centred and brought to one size first, which is folded into the
layer. Not each to its own, and not decorrelated: a layer that leans on what hardly varies is undone by the first steps
of fine-tuning (docs/appendix/measured-tasks.md).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from multistep.backends.torch.devices import pick_device
from multistep.core.values.plan import Plan
from multistep.core.values.recipe import Setting
from multistep.tasks.labelled import linear_probe
from multistep.tasks.labelled.linear_probe import Layer, LinearProbe
from multistep.tasks.labelled.scale import last_linear
from multistep.tasks.order import LengthOrder
from multistep.tasks.pretrained.settle import TUNING, seconds_of
from multistep.tasks.sending import sent
from multistep.tasks.speech.corpus import Clips, Corpus, padded
from multistep.tasks.speech.ctc import CTCMaker
from multistep.tasks.speech.models import Maker
from multistep.tasks.speech.preset import FINE_TUNING_BATCH
from multistep.tasks.speech.score import heard_together, summed_loss
from multistep.tasks.speeds import operations

# Steps of tuning that a plan's time holds at most where a probe is fitted unasked; a step takes thrice a forward pass.
FEW_STEPS, TRAINING = 300, 3.0
LEAST = 50  # utterances, in each of which many characters are said; with fewer, a probe says nothing of the model
MOST_NUMBERS, LARGEST_HALF = 128_000_000, 65504.0  # of features in memory, two bytes each; the largest of them
SIZE = 0.1  # of a feature's deviation from the mean, so that the bias, which tells how rare blanks are, is learnt first
RATES, STEPS = (0.1, 0.3, 1.0), 200  # of AdamW
STEP_FRAMES, SMALLEST_STEP, LARGEST_STEP = 700, 4, 32  # what a step hears, and how few or many utterances that may be
HELD_OUT = 8  # every so many utterances one tells which rate is best
# Operations that CTC takes a frame and a state of its lattice, forward and back: 15 µs of a core for 130 characters.
PER_STATE, PER_WEIGHT = 3000.0, 6.0


@dataclass(frozen=True)
class Features:
    """What the last layer reads of some utterances, each (frames, width) in half precision, and what is said there."""

    states: Sequence[Tensor]
    labels: Sequence[tuple[int, ...]]

    def of(self, places: NDArray[np.int64]) -> Features:
        return Features([self.states[i] for i in places], [self.labels[i] for i in places])

    def batch(self, places: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features (B, T, width), frames, labels and how many these are."""
        states = [self.states[i] for i in places]
        x_BTW = nn.utils.rnn.pad_sequence(states, batch_first=True).float()
        return x_BTW, torch.tensor([len(one) for one in states]), *padded([self.labels[i] for i in places])


def probed(maker: Maker, corpus: Corpus, plan: Plan, given: Mapping[str, Setting]) -> LinearProbe | None:
    """The probe that the maker's new last layer is to begin as; None where none is wanted, can be had or is borne.

    Where the recipe leaves it open, it is for plans whose time holds few steps: it is far ahead after 128 and no more
    after 650, and where it leads before any training, what time is left goes to short attempts from it, which came to
    less (docs/how-to/speech.md).

    Raises PlanError where the recipe asks for one that cannot be had.
    """
    train, why_not = corpus.splits["train"], ""
    if not isinstance(maker, CTCMaker):
        why_not = "no pretrained model of transformers is trained here"
    elif maker.able:
        why_not = "this model brings a last layer for its own characters"
    elif plan.phase_count > 1:  # what another phase has trained, it was not fitted on
        why_not = "it is for plans with one phase"
    elif len(train) < HELD_OUT:
        why_not = f"{len(train)} training utterances are too few for one"
    wanted = linear_probe.asked(given, why_not)
    if wanted is False or not isinstance(maker, CTCMaker):
        return None
    model = maker.build(0)
    seconds, per_utterance = seconds_of(plan), forward_seconds(maker, model, train)
    many = affordable(maker, model, train, len(corpus.splits["validation"]), per_utterance, seconds)
    if not wanted and (
        not many or seconds is None or seconds > FEW_STEPS * FINE_TUNING_BATCH * TRAINING * per_utterance
    ):
        return None
    many = many or min(LEAST, len(train))
    rows = linear_probe.by_lot(len(train), many)
    blank, symbols = maker.alphabet.blank, len(maker.alphabet)

    def fit() -> Layer:
        labels = [train.labels[i] for i in rows]
        return fitted(Features(frozen(maker, model, train, rows), labels), symbols, blank)

    mark = f"{corpus.fingerprint} {maker.alphabet.symbols} {blank} {many} {SIZE} {RATES} {STEPS}"
    weight, bias = linear_probe.remembered(model, mark, fit)
    return LinearProbe(weight, bias, many, "CTC", "utterances")


def mean_length(train: Clips) -> int:
    return max(1, round(float(train.lengths.mean())))


def forward_seconds(maker: CTCMaker, model: nn.Module, train: Clips) -> float:
    """What the encoder takes for an utterance of the usual length, by rule."""
    length = mean_length(train)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        maker.logits(model.eval(), torch.zeros(1, length, train.frames.shape[1]), torch.tensor([length]))
    return max(counter.get_total_flops() / operations(TUNING), 1e-9)


def affordable(
    maker: CTCMaker, model: nn.Module, train: Clips, scored: int, per_utterance: float, seconds: float | None
) -> int:
    """Of how many utterances features and fit together take the probe's share of the time, and fit into memory."""
    symbols, width = last_layer(model).weight.shape
    length = mean_length(train)
    frames = max(1, maker.output_length(length))
    states = 2 * train.characters() / max(1, len(train)) + 1
    a_frame = PER_STATE * states + PER_WEIGHT * width * symbols
    fit = len(RATES) * STEPS * step_size(frames) * frames * a_frame / TUNING.a_core
    left = None if seconds is None else max(0.0, seconds - fit / linear_probe.SHARE)
    most = min(linear_probe.MOST, MOST_NUMBERS // (frames * width))
    return linear_probe.affordable(len(train), scored, per_utterance, left, most=most, least=LEAST)


def last_layer(model: nn.Module) -> nn.Linear:
    layer = model.get_submodule(last_linear(model))
    assert isinstance(layer, nn.Linear), "a head for CTC is one"
    return layer


def step_size(frames: float) -> int:
    """Utterances a step, of so many frames on average."""
    return int(min(LARGEST_STEP, max(SMALLEST_STEP, STEP_FRAMES // max(1.0, frames))))


def frozen(maker: CTCMaker, model: nn.Module, clips: Clips, rows: NDArray[np.int64]) -> list[Tensor]:
    """What the last layer reads of some utterances, each (frames, width), in half precision: of features of unit size
    that is three digits, more than a layer tells apart.
    """
    device = pick_device()

    def batches() -> Iterator[tuple[NDArray[np.intp], Callable[[nn.Module], object]]]:
        for places in heard_together(clips.lengths[rows], clips.frames.shape[1], alone=maker.alone):
            frames, lengths = clips.gather(rows[places])
            waves = sent(frames, device).float()
            yield places, functools.partial(maker.logits, frames_BTW=waves, lengths_B=lengths)

    found: dict[int, Tensor] = {}
    for places, states_BTW in linear_probe.read_by_last(model, batches()):
        half = states_BTW.clamp(-LARGEST_HALF, LARGEST_HALF).half()
        for place, states in zip(places.tolist(), half, strict=True):
            found[place] = states[: max(1, maker.output_length(int(clips.lengths[rows[place]])))].clone()
    return [found[place] for place in range(len(rows))]


def fitted(features: Features, symbols: int, blank: int) -> Layer:
    """Deterministic; that the features were scaled is folded into the layer."""
    mean, size = measures(features.states)
    scaled = replace(features, states=[((x.float() - mean) * size).half() for x in features.states])
    places = np.arange(len(scaled.states))
    told_by = places % HELD_OUT == HELD_OUT - 1
    held_out = scaled.of(places[told_by])
    found: list[tuple[float, Layer]] = []
    for rate in RATES:
        layer = trained(scaled.of(places[~told_by]), symbols, blank, rate)
        with torch.no_grad():
            loss = float(ctc(layer, held_out.batch(np.arange(len(held_out.states))), blank))
        found.append((loss if math.isfinite(loss) else math.inf, (layer.weight.detach(), layer.bias.detach())))
    weight, bias = min(found, key=lambda one: one[0])[1]
    weight = weight * size
    return weight, bias - weight @ mean


def measures(states: Sequence[Tensor]) -> tuple[Tensor, float]:
    """The mean of all frames (shape: width), and what brings the deviations from it to their size."""
    count = sum(map(len, states))
    mean = torch.stack([one.double().sum(0) for one in states]).sum(0) / count
    squares = sum(float((one.double() - mean).square().sum()) for one in states)
    return mean.float(), SIZE / max(1e-9, math.sqrt(squares / (count * len(mean))))


def trained(features: Features, symbols: int, blank: int, rate: float) -> nn.Linear:
    """A layer from zero after the steps of a fit, at a rate that falls to zero."""
    lengths = np.array([len(one) for one in features.states])
    with torch.random.fork_rng([]):
        layer = nn.Linear(features.states[0].shape[1], symbols)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    size = min(len(lengths), step_size(float(lengths.mean())))
    order = LengthOrder(lengths, size)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / STEPS)
        loss = ctc(layer, features.batch(order.indices(step * size, size, 0)[0]), blank)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return layer


def ctc(layer: nn.Linear, batch: tuple[Tensor, Tensor, Tensor, Tensor], blank: int) -> Tensor:
    """Nats a character."""
    x_BTW, frames, labels, counts = batch
    losses: Tensor = summed_loss(layer(x_BTW), frames, labels, counts, blank).sum() / counts.sum()
    return losses
