"""The linear probe of an encoder: of how many texts there is time for, and its fit on what the classifier reads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor, nn

from multistep.backends.torch.devices import pick_device
from multistep.tasks.labelled import linear_probe
from multistep.tasks.labelled.linear_probe import LinearProbe
from multistep.tasks.language.encode import Ints
from multistep.tasks.language.examples import LabelledSplits
from multistep.tasks.language.models import Head
from multistep.tasks.language.network import Prepared
from multistep.tasks.language.reading import Padded, scoring_batches
from multistep.tasks.pretrained.settle import TUNING
from multistep.tasks.speeds import operations

PER_PARAMETER_AND_TOKEN = 2.0  # operations, forward alone


def affordable(head: Head, length: float, examples: int, scored: int, seconds: float | None) -> int:
    """Of how many training texts, `length` tokens long on average, the features fit the probe's share of the time."""
    active = sum(p.numel() for name, p in head.model.named_parameters() if "embeddings" not in name)
    per_text = PER_PARAMETER_AND_TOKEN * active * length / operations(TUNING)
    return linear_probe.affordable(examples, scored, per_text, seconds)


def fitted(prepared: Prepared, splits: LabelledSplits, many: int) -> LinearProbe | None:
    """The probe of `many` training texts."""
    head = prepared.network
    assert isinstance(head, Head)
    encoded, device = prepared.encoded["train"], pick_device()

    def read(rows: Ints) -> Iterator[tuple[Ints, Callable[[nn.Module], object]]]:
        for chosen in scoring_batches(encoded, rows):
            tokens, _, types, inside = encoded.padded(chosen, head.pad)
            inputs = Padded.of(tokens, types, inside).to(device)
            yield chosen, functools.partial(_forward, head, inputs)

    labels = splits.train.labels.astype(np.int64)
    mark = f"{splits.fingerprint} {head.mark} {head.context}"
    return linear_probe.fitted(head.model, labels, len(splits.labels.names), many, read, mark=mark)


def _forward(head: Head, inputs: tuple[Tensor, Tensor, Tensor], model: nn.Module) -> None:
    head.logits(model, *inputs)
