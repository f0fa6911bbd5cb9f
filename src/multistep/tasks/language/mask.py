"""Masked language modelling: what the torch learner needs to know of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.devices import number, on, places_of
from multistep.backends.torch.domain import Batch
from multistep.core.evidence.metric import Evaluation, Floats
from multistep.core.values.recipe import Recipe
from multistep.engine.learner import NO_FORM, Exhibit, Split
from multistep.errors import PlanError
from multistep.tasks.fitting import brought, that_fit
from multistep.tasks.folders import write_task
from multistep.tasks.hub import weights_hash
from multistep.tasks.language.encode import Ints
from multistep.tasks.language.exhibits import short
from multistep.tasks.language.masking import NO_LABEL, Masker
from multistep.tasks.language.models import Encoder, Head
from multistep.tasks.language.reading import Padded, in_order, scoring_batches
from multistep.tasks.language.spans import Spans, word_bytes
from multistep.tasks.order import LengthOrder, sample_of
from multistep.tasks.recipes import refuse_model
from multistep.tasks.sending import sent

TASK = "fill-mask"
METRICS = ("loss", "perplexity", "bits_per_byte")
MOST_SAMPLED = 400  # spans of the validation split that each look scores
SCORED_TOKENS = 1024  # at once: logits of hidden tokens take a vocabulary each
SEED = 0  # of the words that are hidden where a model is scored: the same for all models
SHOWN = 6
COUNTED_AT_ONCE = 2**22  # tokens


class MaskDomain:
    """One phase's text and model. Implements backends.torch.domain.Domain."""

    def __init__(self, spans: dict[str, Spans], head: Head, batch_size: int) -> None:
        self.spans, self.head = spans, head
        self._masker = masker_for(head.encoder)
        self._order = LengthOrder(spans["train"].encoded.lengths, batch_size)

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        if model != self.head.name:  # which a phase of classes in the same plan may name
            refuse_model(model)
        return self.head.build(seed)

    def origin(self, model: str | None = None) -> Origin | None:
        return self.head.origin

    @property
    def settings(self) -> tuple[str, ...]:
        """The recipe's keys that this task and model answer to."""
        return ("label_smoothing", *self.head.settings)

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        for key in ("augmentation", "resolution", "context"):
            if getattr(recipe, key):
                instead = "; how long spans are is model.context" if key == "context" else ""
                raise PlanError(f"recipe.{key} has no meaning for fill-mask{instead}; leave it out")
        self.head.configure(model, recipe)
        return 1

    def resize(self, resolution: int | None) -> None:
        assert resolution is None, "configure refuses a recipe with sizes"

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        rows, epochs = self._order.indices(position, size, seed)
        tokens, words, types, inside = self.spans["train"].encoded.padded(rows, self.head.encoder.pad)
        shown, labels = self._masker(tokens, words, seed, epochs, rows)
        padded = Padded.of(shown, types, inside)
        hidden_B = torch.from_numpy((labels != NO_LABEL).sum(1))  # on the CPU, where their number is asked for
        return *on(device, padded.tokens, padded.inside, padded.types, torch.from_numpy(labels)), hidden_B

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        tokens_BT, inside_BT, types_BT, labels_BT, hidden_B = batch
        places_N = places_of(labels_BT != NO_LABEL, int(hidden_B.sum()))
        logits_NV = self.head.hidden_logits(model, tokens_BT, inside_BT, types_BT, places_N).float()
        labels_N = labels_BT.flatten()[places_N]
        total = F.cross_entropy(logits_NV, labels_N, reduction="sum", label_smoothing=label_smoothing)
        return total, number(len(labels_N), total.device)

    # Scores -----------------------------------------------------------------------------------------

    def sample(self, split: Split) -> Ints:
        return sample_of(len(self.spans[split]), MOST_SAMPLED)

    def hidden(self, split: Split, rows: Ints | None = None) -> int:
        """How many tokens are hidden of a split, or of some of its spans."""
        spans = self.spans[split]
        chosen = np.arange(len(spans)) if rows is None else rows
        return int(
            sum(hidden_of(self._masker, self.head.encoder, spans, part)[1].sum() for part in _parts(spans, chosen))
        )

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        rows = self.sample(split) if sample else None
        return score_spans(self.head, model, self.spans[split], rows, device)

    @functools.cached_property
    def _unigram(self) -> Floats:
        """Nats that each token costs by its share of the training tokens."""
        tokens, vocabulary = self.spans["train"].encoded.tokens, self.head.encoder.config.vocab_size
        counts = np.zeros(vocabulary, np.int64)
        for first in range(0, len(tokens), COUNTED_AT_ONCE):  # they may lie in a file
            counts += np.bincount(tokens[first : first + COUNTED_AT_ONCE], minlength=vocabulary)
        counts[list(self.head.encoder.special)] = 0
        nats: Floats = -np.log((counts + 1.0) / (counts + 1.0).sum())
        return nats

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        spans = self.spans[split]
        losses, batches = [], []
        for rows in _parts(spans, np.arange(len(spans))):
            labels, hidden = hidden_of(self._masker, self.head.encoder, spans, rows)
            losses.append(np.where(hidden, self._unigram[np.where(hidden, labels, 0)], 0.0).sum(1))
            batches.append(rows)
        loss = np.concatenate(losses)[in_order(batches, np.arange(len(spans)))]
        return "unigram", _table(self._masker, self.head.encoder, spans, np.arange(len(spans)), loss)

    def write_baseline(self, folder: Path) -> str:
        return NO_FORM

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Exhibit]:
        """What is hidden in a few texts, and what the model takes it for."""
        spans = self.spans["test" if len(self.spans["test"]) else "validation"]
        rows = np.unique(np.linspace(0, len(spans) - 1, min(SHOWN, len(spans))).round().astype(np.int64))
        encoder = self.head.encoder
        tokens, words, types, inside = spans.encoded.padded(rows, encoder.pad)
        shown, labels = self._masker(tokens, words, SEED, np.zeros_like(rows), rows)
        arguments = Padded.of(shown, types, inside).to(device)
        hidden = torch.from_numpy(labels != NO_LABEL).to(device)
        logits_NV = self.head.hidden_logits(model, *arguments, places_of(hidden, None)).float()
        guesses = logits_NV.argmax(-1).cpu().numpy()
        found, at = [], 0
        for row, own in zip(shown, labels, strict=True):
            here = int((own != NO_LABEL).sum())
            truth = encoder.tokenizer.decode(own[own != NO_LABEL].tolist())
            guess = encoder.tokenizer.decode(guesses[at : at + here].tolist())
            kept = [t for t in row.tolist() if t == encoder.mask or t not in encoder.special]
            text = encoder.tokenizer.decode(kept, skip_special_tokens=False)
            found.append((short(truth), short(guess), short(text)))
            at += here
        return [
            Exhibit("Hidden words and what it takes them for", columns=("hidden", "guess", "text"), rows=tuple(found))
        ]

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        self.head.write(model, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_task(folder, TASK, {"context": self.head.encoder.context})
        return weights_hash(folder)


def masker_for(encoder: Encoder) -> Masker:
    assert encoder.mask is not None, "masked_model has asked for it"
    special = set(encoder.special)
    ordinary = [i for i in range(encoder.tokenizer.get_vocab_size()) if i not in special]
    return Masker(encoder.mask, np.array(ordinary, np.int64), tuple(sorted(special)))


def hidden_of(
    masker: Masker, encoder: Encoder, spans: Spans, rows: Ints
) -> tuple[Ints, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """The labels of some spans as they are scored, and which tokens are hidden (shape: rows, longest)."""
    tokens, words, _, _ = spans.encoded.padded(rows, encoder.pad)
    _, labels = masker(tokens, words, SEED, np.zeros_like(rows), rows)
    return labels, labels != NO_LABEL


def score_spans(head: Head, model: nn.Module, spans: Spans, rows: Ints | None, device: torch.device) -> Evaluation:
    """The evaluation with one row a span: nats and number of its hidden tokens, and their bytes."""
    encoder, masker = head.encoder, masker_for(head.encoder)
    chosen = np.arange(len(spans)) if rows is None else rows

    def scored(part: Ints) -> tuple[Tensor, Tensor]:
        tokens, words, types, inside = spans.encoded.padded(part, encoder.pad)
        shown, labels = masker(tokens, words, SEED, np.zeros_like(part), part)
        hidden = torch.from_numpy(labels != NO_LABEL)
        places_N = sent(places_of(hidden, None), device)
        logits_NV = head.hidden_logits(model, *Padded.of(shown, types, inside).to(device), places_N).float()
        truth = sent(torch.from_numpy(labels)[hidden], device)
        return F.cross_entropy(logits_NV, truth, reduction="none"), hidden

    batches, found = zip(*that_fit(_parts(spans, chosen), scored), strict=True)
    losses = [
        np.bincount(hidden.nonzero()[:, 0].numpy(), weights=nats, minlength=len(hidden))
        for nats, (_, hidden) in zip(brought([nats for nats, _ in found]), found, strict=True)
    ]
    loss = np.concatenate(losses).astype(np.float64)[in_order(list(batches), chosen)]
    return _table(masker, encoder, spans, chosen, loss)


def _parts(spans: Spans, rows: Ints) -> list[Ints]:
    return list(scoring_batches(spans.encoded, rows, SCORED_TOKENS))


def _table(masker: Masker, encoder: Encoder, spans: Spans, rows: Ints, loss: Floats) -> Evaluation:
    sizes = word_bytes(encoder.tokenizer).astype(np.float64)
    counts, lengths, batches = [], [], []
    for part in _parts(spans, rows):
        labels, hidden = hidden_of(masker, encoder, spans, part)
        counts.append(hidden.sum(1).astype(np.float64))
        lengths.append(np.where(hidden, sizes[np.where(hidden, labels, 0)], 0.0).sum(1))
        batches.append(part)
    place = in_order(batches, rows)
    columns = {"loss": loss, "count": np.concatenate(counts)[place], "bytes": np.concatenate(lengths)[place]}
    return Evaluation({**columns, "block": spans.block[rows]})
