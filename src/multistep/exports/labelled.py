"""Classifiers of texts, pairs and images, and models of numbers, as graphs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.core.evidence.metric import Evaluation
from multistep.errors import PlanError
from multistep.exports.graph import Batch, Graph, Say
from multistep.exports.held import Held
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.labelled.labels import Labels
from multistep.tasks.labelled.scale import UNSCALED
from multistep.tasks.labelled.score import table_of
from multistep.tasks.order import sample_of

MOST_SCORED = 2_000  # examples of the validation split
SIZES = (1, 2, 5)  # examples of the batches that a graph is checked by
AT_ONCE = 64  # images
CPU = torch.device("cpu")


def answering(model: str, labels: Labels) -> dict[str, Any]:
    """How logits become answers."""
    settled = Calibrated.read(model)
    said: dict[str, Any] = {"kind": labels.kind, "labels": list(labels.output_names)}
    if labels.kind != "number":
        said |= {"temperature": settled.temperature, "threshold": settled.cut}
    return said


def texts(model: str, held: Held) -> Graph:
    """A classifier of texts or of pairs, or a model that tells a number of them."""
    from multistep.tasks.language.examples import taken
    from multistep.tasks.language.long import held as reading
    from multistep.tasks.language.models import Head
    from multistep.tasks.language.reading import Padded, in_order, scoring_batches
    from multistep.tasks.language.splits import load_labelled
    from multistep.tasks.language.use import examples_of, load_classifier

    network, module, labels = load_classifier(model, CPU)
    if held.split:
        splits = load_labelled(held.data)
        examples = splits.validation
        _require_same(model, splits.labels, labels)
    else:
        with reading(held.data) as holding:
            examples = examples_of(model, held.data, labels, holding)
            examples = taken(examples, sample_of(len(examples), MOST_SCORED))
    encoded = network.encode(examples.texts, examples.seconds)
    rows = sample_of(len(examples), MOST_SCORED)
    head = isinstance(network, Head)
    kinds = getattr(network.encoder.config, "type_vocab_size", 0) if isinstance(network, Head) else 2
    # Models of one kind of tokens alone have no use for the third.
    typed = kinds > 1

    def batch(chosen: NDArray[np.int64]) -> Batch:
        tokens, _, types, inside = encoded.padded(chosen, network.pad)
        padded = Padded.of(tokens, types, inside)
        return (padded.tokens, *((padded.inside.long(),) if head else ()), *((padded.types,) if typed else ()))

    def score(say: Say) -> Evaluation:
        chosen = list(scoring_batches(encoded, rows))
        logits_NC = torch.cat([say(batch(each)) for each in chosen])[torch.from_numpy(in_order(chosen, rows))]
        settled = Calibrated.read(model)
        return settled.decided(
            lambda: table_of(logits_NC / settled.temperature, examples.labels[rows], labels, UNSCALED), model
        )

    names = ("input_ids", *(("attention_mask",) if head else ()), *(("token_type_ids",) if typed else ()))
    about: dict[str, Any] = {"task": "text-classification", "pairs": examples.seconds is not None}
    if head:
        about |= {"tokenizer": "tokenizer.json", "longest": network.context, "pad_id": network.pad}
        files, script = ("tokenizer.json",), "encoder.py"
        if not (Path(model) / files[0]).is_file():
            raise PlanError(f"{model}: has no tokenizer.json, by which texts are read without torch; save it so")
    else:
        net = network.about()["net"]
        about |= {key: net[key] for key in ("kind", "spaceless", "longest")} | {"vocabulary": "vocabulary.txt"}
        about["reads"] = about.pop("kind")
        files, script = ("vocabulary.txt",), "words.py"
    return Graph(
        _Texts(network, module, head=head, typed=typed),
        {name: {0: "batch", 1: "length"} for name in names},
        ("logits",),
        [batch(some) for some in _of_several_lengths(encoded.lengths)],
        {**about, **answering(model, labels)},
        script,
        files,
        score,
        held.metric,
    )


class _Texts(nn.Module):
    """A network that is called with what its graph is called with."""

    def __init__(self, network: Any, module: nn.Module, *, head: bool, typed: bool) -> None:
        super().__init__()
        self.module, self._network, self._head, self._typed = module, network, head, typed

    def forward(self, tokens_BT: Tensor, *more: Tensor) -> Tensor:
        inside_BT = more[0] if self._head else tokens_BT
        types_BT = more[-1] if self._typed else torch.zeros_like(tokens_BT)
        logits: Tensor = self._network.logits(self.module, tokens_BT, inside_BT, types_BT)
        return logits


def images(model: str, held: Held) -> Graph:
    """A classifier of images, or a model that tells a number of them."""
    from multistep.tasks.images.load import load_model
    from multistep.tasks.images.splits import load_splits, look_through
    from multistep.tasks.images.use import images_of

    maker, _ = load_model(model, None, None)
    module, form, labels = maker.build(0).eval(), maker.form, maker.labels
    if held.split:
        splits = load_splits(look_through(held.data), form, labels)
        shown = splits.validation
        _require_same(model, splits.labels, labels)
    else:
        shown = images_of(held.data, form, labels)
    rows = sample_of(len(shown), MOST_SCORED)

    def batch(chosen: NDArray[np.int64]) -> Batch:
        pixels = np.stack([np.asarray(shown.images[int(i)]) for i in chosen])
        return (torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float(),)

    def score(say: Say) -> Evaluation:
        settled = Calibrated.read(model)
        parts = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
        logits_NC = torch.cat([say(batch(part)) for part in parts])
        return settled.decided(
            lambda: table_of(logits_NC / settled.temperature, shown.labels[rows], labels, UNSCALED), model
        )

    starts = np.cumsum((0, *SIZES))
    chosen = [np.arange(a, b) % len(shown) for a, b in itertools.pairwise(starts)]
    size = {"channels": form.channels, "height": form.height, "width": form.width, "white": form.white}
    return Graph(
        module,
        {"pixels": {0: "batch"}},
        ("logits",),
        [batch(some) for some in chosen],
        {"task": "image-classification", **size, "values": "0 to 255", **answering(model, labels)},
        "image.py",
        score=score,
        metric=held.metric,
    )


def _require_same(model: str, data: Labels, own: Labels) -> None:
    if (data.kind, data.names) != (own.kind, own.names):
        raise PlanError(
            f"{model}: the labels of its run's data are not its own any more, so it cannot be scored by them; name "
            "other data with --data FILE"
        )


def _of_several_lengths(lengths: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
    """The shortest and the longest text alone, and some of all lengths together."""
    order = np.argsort(lengths, kind="stable")
    across = order[np.linspace(0, len(order) - 1, min(len(order), SIZES[-1])).astype(np.int64)]
    return [across, order[:1], order[-1:], order[len(order) // 2 :][: SIZES[1]]]
