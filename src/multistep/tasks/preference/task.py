"""Preferences: what the torch learner needs to know of pairs of answers, and the loss of DPO (arXiv 2305.18290).

The model of a phase is held against the weights that the phase began with. Their log-probabilities of both answers of
every pair are computed once, before the first step, and saved with each checkpoint, so that no second model is held.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.devices import number, on
from multistep.backends.torch.domain import Batch
from multistep.core.evidence.metric import Evaluation, Floats
from multistep.core.values.recipe import Recipe
from multistep.engine.learner import NO_FORM, Exhibit, Interrupted, Split
from multistep.errors import DataError, PlanError
from multistep.tasks.chat.answers import shortened
from multistep.tasks.chat.conversation import Conversation
from multistep.tasks.chat.encode import special_tokens
from multistep.tasks.chat.pack import padded_rows
from multistep.tasks.chat.task import closing_token, stop_at
from multistep.tasks.chat.template import ChatTemplate
from multistep.tasks.folders import write_task
from multistep.tasks.hub import weights_hash
from multistep.tasks.order import ShuffledOrder
from multistep.tasks.preference.encode import EncodedPair, WrittenPair, fit_pairs, write_pairs
from multistep.tasks.preference.load import LEAST_HELD_OUT, LEAST_TRAIN, PairSplits
from multistep.tasks.preference.preset import BETA
from multistep.tasks.preference.score import (
    LengthRule,
    batches_of,
    log_probabilities,
    margins,
    sampled,
    table,
)
from multistep.tasks.recipes import refuse_model
from multistep.tasks.text.models import Maker
from multistep.tasks.text.nats import IGNORED

TASK = "preference"
METRICS = ("preference_accuracy", "margin", "loss")
MOST_CONTEXT = 1024  # tokens, unless the plan says more
FITTING = 0.99  # of the pairs are read whole, where that takes no more
SPLITS: tuple[Split, ...] = ("validation", "test")
SHOWN = 12  # pairs of the validation split


class PreferenceDomain:
    """One phase's pairs and model. Implements backends.torch.domain.Domain, and Anchor: the reference."""

    def __init__(
        self,
        splits: PairSplits,
        maker: Maker,
        context: int | None = None,
        earlier: Sequence[Conversation] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """`earlier` is what the model has learnt turns from before, in whose form the pairs are written, too."""
        self._maker, self._should_stop, self._beta = maker, should_stop, BETA
        everything = [*splits.train, *splits.validation, *splits.test]
        both = [conversation for pair in everything for conversation in (pair.chosen, pair.rejected)]
        self.template = ChatTemplate(maker.hub_tokenizer, [*both, *earlier])
        written, said = write_pairs(splits.train, self.template)
        notes = [*splits.notes, *self.template.notes, *said]
        self.context = context or self._fitting(written)
        self.train, cuts = self._fit(written)
        notes += [f"train: {note}" for note in cuts]
        self.held_out: dict[Split, tuple[EncodedPair, ...]] = {}
        for name in SPLITS:
            written, said = write_pairs(getattr(splits, name), self.template)
            self.held_out[name], cuts = self._fit(written)
            notes += [f"{name}: {note}" for note in (*said, *cuts)]
        for part, pairs, least in (
            ("train", self.train, LEAST_TRAIN),
            ("validation", self.held_out["validation"], LEAST_HELD_OUT),
        ):
            if len(pairs) < least:
                raise DataError(
                    f"the {part} split has {len(pairs)} pairs that can be learnt from, at least {least} are needed "
                    f"({'; '.join(notes)})"
                )
        self.order = ShuffledOrder(len(self.train))
        self.closing = closing_token([pair.chosen for pair in self.train], special_tokens(maker.hub_tokenizer))
        self._splits: dict[str, tuple[EncodedPair, ...]] = {"train": self.train}
        self._splits.update((name, self.held_out[name]) for name in SPLITS)
        self._batches = {name: batches_of(pairs, maker.vocabulary) for name, pairs in self._splits.items()}
        self._reference: dict[str, Floats] = {}  # log-probabilities by split; shape: pairs, 2
        lengths = [len(answer) for pair in self.train for answer in pair.source.answers]
        notes.append(
            f"{len(self.train):,} pairs to learn from, held against the weights that the phase begins with, which are "
            f"scored once; answers have {np.mean(lengths):,.0f} characters on average"
        )
        self.notes = tuple(dict.fromkeys(notes))

    def _fitting(self, written: Sequence[WrittenPair]) -> int:
        """The context that nearly all pairs fit into, a multiple of 32."""
        wanted = float(np.quantile([one.length for one in written] or [1], FITTING))
        longest = self._maker.longest_context or MOST_CONTEXT
        return min(longest, MOST_CONTEXT, -(-int(np.ceil(wanted)) // 32) * 32)

    def _fit(self, written: Sequence[WrittenPair]) -> tuple[tuple[EncodedPair, ...], list[str]]:
        found, notes = fit_pairs(written, self.context, self.template)
        return tuple(found), notes

    # The reference ----------------------------------------------------------------------------------

    def compute(self, model: nn.Module, device: torch.device) -> None:
        """Score every pair with the weights that the phase begins with. Raises Interrupted."""
        if self._reference:
            return
        nats_of = functools.partial(self._maker.token_nats, model)
        self._reference = {
            name: log_probabilities(
                nats_of, pairs, self._batches[name], pad=self._maker.end, device=device, before=self._stop_if_asked
            )
            for name, pairs in self._splits.items()
        }

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise Interrupted

    def tensors(self) -> Mapping[str, Tensor]:
        return {f"reference.{name}": torch.from_numpy(scored) for name, scored in self._reference.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        assert len(tensors) == len(self._splits), "a checkpoint of this phase holds its reference"
        self._reference = {name: tensors[f"reference.{name}"].numpy() for name in self._splits}

    # Training ---------------------------------------------------------------------------------------

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        refuse_model(model)
        return self._maker.build(seed)

    def origin(self, model: str | None = None) -> Origin | None:
        return self._maker.origin

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        """Tokens and labels of both answers (shape: pairs, 2, T), and the reference's log-ratio of each pair."""
        numbers, _ = self.order.indices(position, size, seed)
        both = [side for i in numbers for side in (self.train[int(i)].chosen, self.train[int(i)].rejected)]
        tokens, labels, _ = padded_rows(both, [[i] for i in range(len(both))], self._maker.end)
        reference = self._reference["train"][numbers]
        ratio = torch.from_numpy(reference[:, 0] - reference[:, 1]).float()
        both_P2T = [torch.from_numpy(array).view(size, 2, -1) for array in (tokens, labels)]
        # How many labels count stays on the CPU, where it is asked for.
        return *on(device, *both_P2T, ratio), (both_P2T[1] != IGNORED).sum((1, 2))

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """The summed loss of DPO in nats, and the number of pairs.

        With label smoothing, so much of the pairs is taken to be the wrong way round (conservative DPO,
        https://ericmitchell.ai/cdpo.pdf).
        """
        tokens_P2T, labels_P2T, reference_P, counts_P = batch
        both, labels, count = tokens_P2T.flatten(0, 1), labels_P2T.flatten(0, 1), int(counts_P.sum())
        nats_BT = self._maker.token_nats(model, both, labels, count=count)
        log_p_P2 = -nats_BT.sum(1).view(-1, 2)
        margin_P = self._beta * (log_p_P2[:, 0] - log_p_P2[:, 1] - reference_P)
        loss_P = -F.logsigmoid(margin_P) * (1.0 - label_smoothing) - F.logsigmoid(-margin_P) * label_smoothing
        return loss_P.sum(), number(len(loss_P), loss_P.device)

    @property
    def settings(self) -> tuple[str, ...]:
        """The recipe's keys that pairs and this model answer to; their context is fixed, since no pair is cut."""
        return ("label_smoothing", "beta", *(name for name in self._maker.settings if name != "context"))

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        if recipe.augmentation:
            raise PlanError(f"recipe.augmentation is {recipe.augmentation:g}, but text has none; leave it out")
        if recipe.resolution:
            raise PlanError("recipe.resolution is for images; what a text model has is recipe.context")
        self._maker.configure(model, recipe)
        self._beta = recipe.beta or BETA
        return 1

    def resize(self, resolution: int | None) -> None:
        assert resolution is None, "configure refuses a recipe with sizes"

    # Scores -----------------------------------------------------------------------------------------

    def scored(self, split: Split, *, sample: bool) -> list[NDArray[np.int64]]:
        """The pairs that are scored together."""
        batches = self._batches[split]
        return sampled(batches, self.held_out[split]) if sample else batches

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        pairs, numbers, found = self._margins(model, split, device, sample=sample)
        return table(found, pairs, numbers)

    def _margins(
        self, model: nn.Module, split: Split, device: torch.device, *, sample: bool
    ) -> tuple[Sequence[EncodedPair], NDArray[np.int64], Floats]:
        pairs, batches = self.held_out[split], self.scored(split, sample=sample)
        nats_of = functools.partial(self._maker.token_nats, model)
        own = log_probabilities(nats_of, pairs, batches, pad=self._maker.end, device=device)
        chosen = np.sort(np.concatenate(batches))
        return pairs, chosen, margins(own[chosen], self._reference[split][chosen], self._beta)

    @functools.cached_property
    def _rule(self) -> LengthRule:
        return LengthRule.fit(self.train)

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        pairs = self.held_out[split]
        return self._rule.name, table(self._rule.margins(pairs), pairs, np.arange(len(pairs)))

    def write_baseline(self, folder: Path) -> str:
        return NO_FORM

    # What comes out ---------------------------------------------------------------------------------

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Exhibit]:
        pairs, numbers, found = self._margins(model, "validation", device, sample=True)
        shown = [int(k) for k in np.argsort(found)[np.linspace(0, len(found) - 1, SHOWN).round().astype(int)]]
        rows = []
        for k in dict.fromkeys(shown):
            source = pairs[int(numbers[k])].source
            prompt = "\n".join(turn.content for turn in source.prompt)
            rows.append((f"{found[k]:+.3f}", *map(shortened, (prompt, *source.answers))))
        columns, title = ("margin", "prompt", "chosen", "rejected"), "Which answer it prefers, the most wrong first"
        return [Exhibit(title, columns=columns, rows=tuple(rows))]

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        self._maker.write(model, folder)
        self.template.tokenizer.save_pretrained(folder)  # with the default template, where it was given that
        stop_at(folder, self.closing)
        write_task(folder, "text-generation", {"conversations": True, "train_on": "assistant", "context": self.context})
        (folder / "README.md").write_text(card, encoding="utf-8")
        return weights_hash(folder)
