"""The linear probe: logistic regression on what a frozen pretrained encoder says of a text, the mean over its tokens.

The honest cheap rival of fine-tuning: it shows what the weights knew before. Its cost is bounded by rule.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multistep.backends.torch.devices import pick_device
from multistep.core.evidence.metric import Evaluation, Floats, metric_named
from multistep.tasks.classes import table_of_probabilities
from multistep.tasks.language.encode import Encoded, Ints
from multistep.tasks.language.models import Head
from multistep.tasks.language.network import Prepared
from multistep.tasks.language.reading import Padded, in_order, scoring_batches
from multistep.tasks.language.splits import LabelledSplits
from multistep.tasks.pretrained.settle import TUNING
from multistep.tasks.speeds import operations

SHARE = 0.05  # of the budget's seconds may go to a probe's features
MOST_TEXTS, LEAST_TEXTS = 2000, 200  # of train; with fewer, a probe says nothing of the encoder
# scikit-learn's C, divided by the number of texts; of 1 to 1000, the best on SST-2: docs/appendix/measured-tasks.md
PENALTY = 10.0
PER_PARAMETER_AND_TOKEN = 2.0  # operations, forward alone
ITERATIONS = 300


@dataclass(frozen=True)
class Probe:
    """What was fitted: logistic regression on features of mean zero and deviation one."""

    texts: int
    mean: Floats
    deviation: Floats
    model: Any  # scikit-learn's
    classes: int

    @classmethod
    def fit(cls, features: Floats, labels: Ints, classes: int) -> Probe:
        """Deterministic; `features` are (texts, width)."""
        from sklearn.linear_model import LogisticRegression

        mean, deviation = features.mean(0), features.std(0) + 1e-6
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # converged or not
            model = LogisticRegression(C=PENALTY / len(features), max_iter=ITERATIONS)
            model.fit((features - mean) / deviation, labels)
        return cls(len(features), mean, deviation, model, classes)

    def score(self, features: Floats, labels: Ints) -> Evaluation:
        """The evaluation of texts with these features, in the columns of the network's own."""
        probabilities = np.zeros((len(features), self.classes))
        probabilities[:, self.model.classes_] = self.model.predict_proba((features - self.mean) / self.deviation)
        return table_of_probabilities(probabilities, labels)


def probe_note(prepared: Prepared, splits: LabelledSplits, metric: str, seconds: float | None) -> tuple[str, ...]:
    """What a linear probe scores on the validation split, as a note; none where it does not fit its share of the time.

    Of one class a text, and of encoders that were loaded. `seconds` are the plan's; None: not told in time.
    """
    head = prepared.network
    if splits.labels.kind != "class" or not isinstance(head, Head) or not head.pretrained:
        return ()
    train, validation = prepared.encoded["train"], prepared.encoded["validation"]
    many = affordable(head, train, len(validation), seconds)
    if many < LEAST_TEXTS:
        return ()
    try:
        import sklearn  # noqa: F401
    except Exception:  # not installed, or made for another numpy
        return ()
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:many])
    labels = splits.train.labels.astype(np.int64)
    if len(set(labels[rows].tolist())) < 2:
        return ()
    probe = Probe.fit(features_of(head, train, rows), labels[rows], len(splits.labels.names))
    everything = np.arange(len(validation))
    table = probe.score(features_of(head, validation, everything), splits.validation.labels.astype(np.int64))
    score = metric_named(metric).score(table)
    words = metric_named(metric).name.replace("_", " ")
    return (
        f"linear probe on the untouched weights (frozen features of {many:,} texts): {words} {score:.4f} on validation",
    )


def affordable(head: Head, train: Encoded, validation: int, seconds: float | None) -> int:
    """Of how many training texts the features fit the probe's share of the time, beside those of the validation split;
    by rule, nothing is measured.
    """
    most = min(MOST_TEXTS, len(train))
    if seconds is None:
        return most
    active = sum(p.numel() for name, p in head.model.named_parameters() if "embeddings" not in name)
    per_text = PER_PARAMETER_AND_TOKEN * active * float(train.lengths.mean())
    per_text /= operations(TUNING)
    return max(0, min(most, int(SHARE * seconds / per_text) - validation))


def features_of(head: Head, encoded: Encoded, rows: Ints) -> Floats:
    """The mean of the last layer over the tokens of each text (shape: rows, width)."""
    device = pick_device()
    body: nn.Module = head.model.base_model
    was_training = body.training
    body.to(device).eval()
    found, batches = [], []
    with torch.no_grad():
        for chosen in scoring_batches(encoded, rows):
            tokens, _, types, inside = encoded.padded(chosen, head.pad)
            tokens_BT, inside_BT, types_BT = Padded.of(tokens, types, inside).to(device)
            hidden_BTW: Tensor = body(**head.inputs(tokens_BT, inside_BT, types_BT))[0]
            mask_BT1 = inside_BT[..., None].to(hidden_BTW.dtype)
            found.append(((hidden_BTW * mask_BT1).sum(1) / mask_BT1.sum(1)).float().cpu())
            batches.append(chosen)
    body.to("cpu").train(was_training)
    return torch.cat(found)[torch.from_numpy(in_order(batches, rows))].numpy().astype(np.float64)
