"""Text classification: what the torch learner needs to know of it; one class, several, or a number."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.devices import number, on
from multistep.backends.torch.domain import Batch
from multistep.backends.torch.weights import mark_of
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.recipe import Recipe
from multistep.engine.learner import Exhibit, Split
from multistep.errors import PlanError, nearest
from multistep.tasks.calibrated import fold
from multistep.tasks.fitting import that_fit
from multistep.tasks.folders import write_task
from multistep.tasks.hub import weights_hash
from multistep.tasks.labelled.loss import loss_of, loss_unit, metrics_of, targets
from multistep.tasks.labelled.score import table_of
from multistep.tasks.language.baseline import Baseline
from multistep.tasks.language.encode import Ints
from multistep.tasks.language.examples import Examples, LabelledSplits
from multistep.tasks.language.exhibits import exhibits_of
from multistep.tasks.language.masking import drop_words
from multistep.tasks.language.network import Encodings, Network, Prepared
from multistep.tasks.language.reading import Padded, in_order, scoring_batches
from multistep.tasks.order import sample_of
from multistep.tasks.text.corpus import LongTexts

TASK = "text-classification"
MOST_SAMPLED, MOST_SAMPLED_PRETRAINED = 500, 128  # examples of the validation split that each look scores
FOLDED_ON = 8  # examples that show whether the logits follow their last layer


class ClassifyDomain:
    """One phase's examples and its networks, the one in training first. Implements backends.torch.domain.Domain."""

    def __init__(self, splits: LabelledSplits, networks: Sequence[Prepared], counted: int | None = None) -> None:
        """`counted` are the characters of a long split from which the baseline is learnt."""
        self._counted = counted if isinstance(splits.train.texts, LongTexts) else None
        self._splits, self.labels = splits, splits.labels
        self._networks = {prepared.network.name: prepared for prepared in networks}
        self._now = networks[0]  # what the weights that were placed last are of
        self._examples: dict[str, Examples] = {
            "train": splits.train,
            "validation": splits.validation,
            "test": splits.test,
        }
        self._targets = torch.from_numpy(targets(splits.train.labels, splits.labels, self.network.scale))
        self._weights = None if splits.weights is None else torch.tensor(splits.weights)
        self._hidden = 0.0
        self._scored: tuple[tuple[float, ...], Evaluation] | None = None

    @property
    def network(self) -> Network:
        return self._now.network

    @property
    def encoded(self) -> dict[str, Encodings]:
        return self._now.encoded

    # Training ---------------------------------------------------------------------------------------

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        return self._named(model).network.build(seed)

    def origin(self, model: str | None = None) -> Origin | None:
        return self._named(model).network.origin

    def _named(self, model: str | None) -> Prepared:
        """The network that a recipe names; of one that names none, the task's own choice."""
        if model is None:
            return next(iter(self._networks.values()))
        if model not in self._networks:
            allowed = ", ".join(self._networks)
            raise PlanError(f"recipe.model is {model}; allowed here: {allowed}.{nearest(model, self._networks)}")
        return self._networks[model]

    @property
    def settings(self) -> tuple[str, ...]:
        """The recipe's keys that this task and network answer to."""
        smoothing = () if self.labels.kind == "number" else ("label_smoothing",)
        hidden = () if self.network.mask is None else ("augmentation",)
        return (*smoothing, *self.network.settings, *hidden)

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        if recipe.resolution or recipe.context:
            key = "context" if recipe.context else "resolution"
            instead = "; how much of a text is read is model.context" if recipe.context else ""
            raise PlanError(f"recipe.{key} has no meaning for text classification{instead}; leave it out")
        if recipe.label_smoothing and self.labels.kind == "number":
            raise PlanError(
                f"recipe.label_smoothing is {recipe.label_smoothing:g}, but numbers have none; leave it out"
            )
        self._now = self._named(recipe.model)
        self._hidden = self.network.hidden(recipe)
        self.network.configure(model, recipe)
        return 1

    def resize(self, resolution: int | None) -> None:
        assert resolution is None, "configure refuses a recipe with sizes"

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        rows, epochs = self._now.order.indices(position, size, seed)
        tokens, words, types, inside = self.encoded["train"].padded(rows, self.network.pad)
        if self._hidden:
            mask = self.network.mask
            assert mask is not None, "configure has asked for it"
            tokens = drop_words(tokens, words, mask, self._hidden, seed, epochs, rows)
        padded = Padded.of(tokens, types, inside)
        return on(device, padded.tokens, padded.inside, padded.types, self._targets[rows])

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        tokens_BT, inside_BT, types_BT, targets_B = batch
        logits_BC = self.network.logits(model, tokens_BT, inside_BT, types_BT).float()
        if self._weights is not None and self._weights.device != logits_BC.device:
            self._weights = self._weights.to(logits_BC.device)  # once
        total = loss_of(logits_BC, targets_B, self.labels.kind, self._weights, label_smoothing, "sum")
        return total, number(len(tokens_BT), total.device)

    # Scores -----------------------------------------------------------------------------------------

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that these labels can be judged by, the default first."""
        return metrics_of(self.labels)

    @property
    def loss_unit(self) -> str:
        return loss_unit(self.labels)

    def sample(self, split: Split) -> Ints:
        # A pretrained encoder has ten looks on its way to the first fork, and each costs seconds.
        most = MOST_SAMPLED_PRETRAINED if self.network.pretrained else MOST_SAMPLED
        return sample_of(len(self._examples[split]), most)

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        examples, encoded = self._examples[split], self.encoded[split]
        rows = self.sample(split) if sample else np.arange(len(examples))
        logits_NC = logits_of(self.network, model, encoded, rows, device)
        table = table_of(logits_NC, examples.labels[rows], self.labels, self.network.scale)
        if split == "test":
            self._scored = (mark_of(model), table)
        return table

    @functools.cached_property
    def _baseline(self) -> Baseline:
        return Baseline.fit(self._splits.train, self._splits.labels, self._counted)

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        return self._baseline.name, self._baseline.score(self._examples[split])

    def write_baseline(self, folder: Path) -> str:
        return self._baseline.write(folder, TASK, self._splits.columns)

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Exhibit]:
        """Of the test split, which has just been scored; without one, of the validation split."""
        split: Split = "test" if len(self._splits.test) else "validation"
        if self._scored is not None and split == "test" and self._scored[0] == mark_of(model):
            table, rows = self._scored[1], np.arange(len(self._splits.test))
        else:
            rows = np.arange(len(self._examples[split])) if split == "test" else self.sample(split)
            logits_NC = logits_of(self.network, model, self.encoded[split], rows, device)
            table = table_of(logits_NC, self._examples[split].labels[rows], self.labels, self.network.scale)
        examples = self._examples[split]
        texts = [examples.texts[i] if examples.seconds is None else _both(examples, i) for i in rows.tolist()]
        return exhibits_of(table, texts, self.labels)

    def fold(self, model: nn.Module, temperature: float, device: torch.device) -> bool:
        if self.labels.kind == "number":
            return False
        some = np.arange(min(FOLDED_ON, len(self._splits.validation)))
        encoded = self.encoded["validation"]
        return fold(
            model, temperature, self.labels.outputs, lambda: logits_of(self.network, model, encoded, some, device)
        )

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        self.network.write(model, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        content = {
            **self.labels.record,
            "pairs": self._splits.train.seconds is not None,
            "columns": dict(self._splits.columns),
            **self.network.about(),
        }
        write_task(folder, TASK, content)
        return weights_hash(folder)


def _both(examples: Examples, row: int) -> str:
    assert examples.seconds is not None
    return f"{examples.texts[row]} ||| {examples.seconds[row]}"


def logits_of(network: Network, model: nn.Module, encoded: Encodings, rows: Ints, device: torch.device) -> Tensor:
    """Logits of some texts in their order (shape: rows, outputs), on the device."""

    def said(chosen: Ints) -> Tensor:
        tokens, _, types, inside = encoded.padded(chosen, network.pad)
        return network.logits(model, *Padded.of(tokens, types, inside).to(device)).float()

    batches, found = zip(*that_fit(scoring_batches(encoded, rows), said), strict=True)
    return torch.cat(found)[torch.from_numpy(in_order(list(batches), rows)).to(device)]
