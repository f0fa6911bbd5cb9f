"""Running text: what the torch learner needs to know of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.devices import number, on
from multistep.backends.torch.domain import Batch
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.recipe import Recipe
from multistep.engine.learner import NO_FORM, Exhibit, Split
from multistep.errors import PlanError
from multistep.tasks.folders import write_task
from multistep.tasks.hub import weights_hash
from multistep.tasks.recipes import refuse_model
from multistep.tasks.text.causal import TransformersMaker
from multistep.tasks.text.corpus import LongTexts, some_of
from multistep.tasks.text.evaluate import sample_tokens, score_stream
from multistep.tasks.text.generate import SCORED_MEANWHILE, generate, to_show
from multistep.tasks.text.lean import LeanGPT
from multistep.tasks.text.models import Maker
from multistep.tasks.text.ngram import COUNTED, NGram
from multistep.tasks.text.splits import TextSplits
from multistep.tasks.text.stream import ReadingOrder, Stream, baseline_table, read_stream
from multistep.tasks.text.tokens import let_go, train_tokens, windows

# What is written at the end to be shown; models that come from elsewhere are large, and slow at it.
SAMPLES, TEMPERATURE = 3, 0.8
SAMPLE_TOKENS, FEWER_TOKENS = 120, 60


class TextDomain:
    """One phase's text and model. Implements backends.torch.domain.Domain."""

    def __init__(
        self,
        splits: TextSplits,
        maker: Maker,
        context: int | None = None,
        *,
        counted: int = COUNTED,
        shown: int | None = None,
    ) -> None:
        """`counted` are the characters of long texts from which the baseline is counted, `shown` the tokens that could
        be scored in the time that there is for writing samples (None: enough).
        """
        self._counted = counted
        self._sample_tokens, _ = to_show(shown, read=0, most=FEWER_TOKENS)
        several = not splits.contiguous
        read = functools.partial(read_stream, tokenizer=maker.tokenizer, several=several, end=maker.end)
        self._maker = maker
        self._splits = splits
        self.train = train_tokens(splits.train, maker.tokenizer, several=several, end=maker.end)
        self.held_out: dict[Split, Stream] = {
            "validation": read(splits.validation),
            "test": read(splits.test),
        }
        self._read_at(context)

    def _read_at(self, context: int | None) -> None:
        """Read training and held-out text in windows of a recipe's context, or of the model's own."""
        self.context = context or self._maker.context
        setting = "recipe.context" if context else "model.context"
        self.order = ReadingOrder(len(self.train), self.context, setting)

    @functools.cached_property
    def _ngram(self) -> NGram:
        train = self._splits.train
        let_go(self.train)
        if isinstance(train, LongTexts):  # whose beginning is counted
            train = list(some_of(train, self._counted))
            train = ["".join(train)] if self._splits.contiguous else train
            return NGram.fit(train, most_characters=self._counted)
        return NGram.fit(train)

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        refuse_model(model)
        return self._maker.build(seed)

    def origin(self, model: str | None = None) -> Origin | None:
        return self._maker.origin

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        starts = self.order.starts(position, size, seed)
        (tokens,) = on(device, torch.from_numpy(windows(self.train, starts, self.context + 1)))
        return tokens[:, :-1], tokens[:, 1:]

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        tokens_BT, labels_BT = batch
        if isinstance(model, LeanGPT) and not label_smoothing:
            return model.loss(tokens_BT, labels_BT)
        count = labels_BT.numel()
        nats = self._maker.summed_nats(model, tokens_BT, labels_BT, label_smoothing=label_smoothing, count=count)
        return nats, number(count, nats.device)

    @property
    def settings(self) -> tuple[str, ...]:
        """The recipe's keys that text and this model answer to."""
        return ("label_smoothing", *self._maker.settings)

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        if recipe.augmentation:
            raise PlanError(f"recipe.augmentation is {recipe.augmentation:g}, but text has none; leave it out")
        if recipe.resolution:
            raise PlanError("recipe.resolution is for images; what a text model has is recipe.context")
        self._maker.configure(model, recipe)
        if self.context != (recipe.context or self._maker.context):
            self._read_at(recipe.context)
        return self.context

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        stream = self.held_out[split]
        let_go(self.train)  # a long run would come to hold all of it
        return score_stream(
            functools.partial(self._maker.logits, model),
            stream,
            context=self.context,
            vocabulary=self._maker.vocabulary,
            before=self._maker.end,
            spans=stream.sample_spans() if sample else None,
            device=device,
        )

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        return self._ngram.name, baseline_table(self._ngram, self.held_out[split])

    def write_baseline(self, folder: Path) -> str:
        return NO_FORM

    def resize(self, resolution: int | None) -> None:
        assert resolution is None, "configure refuses a recipe with sizes"

    @property
    def closing_tokens(self) -> int:
        # A model that is small enough to do without a cache takes no time that is worth foreseeing.
        large = self._maker.pretrained and isinstance(self._maker, TransformersMaker)
        return self._sample_tokens * SCORED_MEANWHILE if large else 0

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Exhibit]:
        start = [self._maker.end]
        if self._splits.contiguous:
            # A running text never showed its end: begin as a line of it begins.
            start = self._maker.tokenizer.encode("\n", add_special_tokens=False).ids or start
        if hasattr(model, "generate"):  # and keeps keys and values, without which large models write for minutes
            room = self._maker.longest_context or self.context
            ends = (self._maker.end,)
            drawn = generate(
                model, [start] * SAMPLES, ends=ends, most_new=self._sample_tokens, context=room, temperature=TEMPERATURE
            )
        else:
            drawn = sample_tokens(
                functools.partial(self._maker.logits, model),
                torch.tensor(start, device=device),
                SAMPLE_TOKENS,
                context=self.context,
                many=SAMPLES,
                temperature=TEMPERATURE,
                forbidden=(self._maker.end,),
                seed=0,
            ).tolist()
        return [Exhibit("What it writes", texts=tuple(self._maker.tokenizer.decode(row) for row in drawn))]

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        self._maker.write(model, folder)
        write_task(folder, "text-generation")  # of running text, whatever template the tokenizer came with
        (folder / "README.md").write_text(card, encoding="utf-8")
        return weights_hash(folder)
