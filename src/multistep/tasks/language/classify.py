"""Text classification: what the torch learner needs to know of it; one class, several, or a number."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from multistep.backends.torch.learner import Batch
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.recipe import Recipe
from multistep.engine.learner import Exhibit, Split
from multistep.errors import PlanError
from multistep.tasks.classes import class_metrics
from multistep.tasks.folders import write_task
from multistep.tasks.hub import weights_hash
from multistep.tasks.language.baseline import Baseline
from multistep.tasks.language.encode import Encoded, Ints, encode_texts
from multistep.tasks.language.exhibits import exhibits_of
from multistep.tasks.language.labels import Array, Labels
from multistep.tasks.language.masking import drop_words
from multistep.tasks.language.models import Head, Scale
from multistep.tasks.language.reading import Padded, in_order, on, scoring_batches
from multistep.tasks.language.score import table_of
from multistep.tasks.language.splits import Examples, LabelledSplits
from multistep.tasks.order import LengthOrder, sample_of

TASK = "text-classification"
MOST_SAMPLED, MOST_SAMPLED_PRETRAINED = 500, 128  # examples of the validation split that each look scores
STRONGEST = 0.5  # of the words are dropped at full augmentation
SEVERAL_METRICS = ("micro_f1", "macro_f1", "loss")
NUMBER_METRICS = ("mean_squared_error", "pearson", "spearman")


class ClassifyDomain:
    """One phase's examples and model. Implements backends.torch.learner.Domain."""

    def __init__(self, splits: LabelledSplits, head: Head, encoded: dict[str, Encoded], batch_size: int) -> None:
        self._splits, self.head, self.labels = splits, head, splits.labels
        self._examples: dict[str, Examples] = {
            "train": splits.train,
            "validation": splits.validation,
            "test": splits.test,
        }
        self.encoded = encoded
        self._targets = torch.from_numpy(targets(splits.train.labels, splits.labels, head.scale))
        self._order = LengthOrder(encoded["train"].lengths, batch_size)
        self._strength = 0.0
        self._scored: tuple[tuple[float, ...], Evaluation] | None = None

    # Training ---------------------------------------------------------------------------------------

    def build(self, seed: int) -> nn.Module:
        return self.head.build(seed)

    @property
    def settings(self) -> tuple[str, ...]:
        """The recipe's keys that this task and model answer to."""
        smoothing = () if self.labels.kind == "number" else ("label_smoothing",)
        return (*smoothing, *self.head.settings, *(("augmentation",) if self.head.encoder.mask is not None else ()))

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        if recipe.resolution or recipe.context:
            key = "context" if recipe.context else "resolution"
            instead = "; how much of a text is read is model.context" if recipe.context else ""
            raise PlanError(f"recipe.{key} says nothing of text classification{instead}; leave it out")
        if recipe.label_smoothing and self.labels.kind == "number":
            raise PlanError(
                f"recipe.label_smoothing is {recipe.label_smoothing:g}, but numbers have none; leave it out"
            )
        if recipe.augmentation and self.head.encoder.mask is None:
            raise PlanError("recipe.augmentation hides words behind a mask token, and this tokenizer has none")
        self.head.configure(model, recipe)
        self._strength = recipe.augmentation
        return 1

    def resize(self, resolution: int | None) -> None:
        assert resolution is None, "configure refuses a recipe with sizes"

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        rows, epochs = self._order.indices(position, size, seed)
        tokens, words, types, inside = self.encoded["train"].padded(rows, self.head.encoder.pad)
        if self._strength:
            mask = self.head.encoder.mask
            assert mask is not None, "configure has asked for it"
            tokens = drop_words(tokens, words, mask, STRONGEST * self._strength, seed, epochs, rows)
        padded = Padded.of(tokens, types, inside)
        return on(device, padded.tokens, padded.inside, padded.types, self._targets[rows])

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        tokens_BT, inside_BT, types_BT, targets_B = batch
        logits_BC = self.head.logits(model, tokens_BT, inside_BT, types_BT).float()
        if self.labels.kind == "class":
            total = F.cross_entropy(logits_BC, targets_B, reduction="sum", label_smoothing=label_smoothing)
        elif self.labels.kind == "classes":
            smooth = targets_B * (1.0 - label_smoothing) + 0.5 * label_smoothing
            total = F.binary_cross_entropy_with_logits(logits_BC, smooth, reduction="sum")
        else:
            total = (logits_BC[:, 0] - targets_B).square().sum()
        return total, torch.tensor(len(tokens_BT), device=total.device)

    # Scores -----------------------------------------------------------------------------------------

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that these labels can be judged by, the default first."""
        if self.labels.kind == "class":
            return class_metrics(len(self.labels.names))
        return SEVERAL_METRICS if self.labels.kind == "classes" else NUMBER_METRICS

    @property
    def loss_unit(self) -> str:
        return "squared deviations" if self.labels.kind == "number" else "nats per example"

    def sample(self, split: Split) -> Ints:
        # A pretrained encoder has ten looks on its way to the first fork, and each costs seconds.
        most = MOST_SAMPLED_PRETRAINED if self.head.encoder.pretrained else MOST_SAMPLED
        return sample_of(len(self._examples[split]), most)

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        examples, encoded = self._examples[split], self.encoded[split]
        rows = self.sample(split) if sample else np.arange(len(examples))
        logits_NC = logits_of(self.head, model, encoded, rows, device)
        table = table_of(logits_NC, examples.labels[rows], self.labels, self.head.scale)
        if split == "test":
            self._scored = (_mark(model), table)
        return table

    @functools.cached_property
    def _baseline(self) -> Baseline:
        return Baseline.fit(self._splits.train, self._splits.labels)

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        return self._baseline.name, self._baseline.score(self._examples[split])

    def write_baseline(self, folder: Path) -> str:
        return self._baseline.write(folder, TASK)

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Exhibit]:
        """Of the test split, which has just been scored; without one, of the validation split."""
        split: Split = "test" if len(self._splits.test) else "validation"
        if self._scored is not None and split == "test" and self._scored[0] == _mark(model):
            table, rows = self._scored[1], np.arange(len(self._splits.test))
        else:
            rows = np.arange(len(self._examples[split])) if split == "test" else self.sample(split)
            logits_NC = logits_of(self.head, model, self.encoded[split], rows, device)
            table = table_of(logits_NC, self._examples[split].labels[rows], self.labels, self.head.scale)
        examples = self._examples[split]
        texts = [examples.texts[i] if examples.seconds is None else _both(examples, i) for i in rows.tolist()]
        return exhibits_of(table, texts, self.labels)

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        self.head.write(model, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        content = {
            "labels": self.labels.kind,
            "names": list(self.labels.names),
            "separator": self.labels.separator,
            "pairs": self._splits.train.seconds is not None,
            "context": self.head.encoder.context,
        }
        write_task(folder, TASK, content)
        return weights_hash(folder)


def _both(examples: Examples, row: int) -> str:
    assert examples.seconds is not None
    return f"{examples.texts[row]} ||| {examples.seconds[row]}"


def encode_splits(splits: LabelledSplits, head: Head) -> dict[str, Encoded]:
    """Each split as tokens; an empty one as none."""
    tokenizer, longest = head.encoder.tokenizer, head.encoder.context
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: encode_texts(tokenizer, p.texts, p.seconds, longest=longest) for name, p in parts.items()}


def targets(labels: Array, of: Labels, scale: Scale) -> Array:
    """What the loss compares logits with: class numbers, zeros and ones, or deviations from the mean."""
    if of.kind == "class":
        return labels.astype(np.int64)
    return ((labels - scale.mean) / scale.deviation).astype(np.float32)  # type: ignore[return-value]


def scale_of(train: Examples, labels: Labels) -> Scale:
    """Mean and deviation of numbers; of classes nothing."""
    if labels.kind != "number":
        return Scale()
    return Scale(float(train.labels.mean()), float(train.labels.std()) or 1.0)


def logits_of(head: Head, model: nn.Module, encoded: Encoded, rows: Ints, device: torch.device) -> Tensor:
    """Logits of some texts in their order (shape: rows, outputs), on the device."""
    found, batches = [], []
    for chosen in scoring_batches(encoded, rows):
        tokens, _, types, inside = encoded.padded(chosen, head.encoder.pad)
        found.append(head.logits(model, *Padded.of(tokens, types, inside).to(device)).float())
        batches.append(chosen)
    return torch.cat(found)[torch.from_numpy(in_order(batches, rows)).to(device)]


def _mark(model: nn.Module) -> tuple[float, ...]:
    """What tells these weights from others, well enough to know whether they have just been scored."""
    return tuple(float(p.double().sum()) for p in model.parameters())
