"""Conversations: what the torch learner needs to know of them."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.devices import number, on
from multistep.backends.torch.domain import Batch
from multistep.core.evidence.metric import Evaluation, Floats
from multistep.core.values.recipe import Recipe
from multistep.engine.learner import NO_FORM, Exhibit, Split
from multistep.errors import DataError, PlanError
from multistep.tasks.chat.answers import MOST_ANSWER_TOKENS as MOST
from multistep.tasks.chat.answers import SHOWN, opening, shortened
from multistep.tasks.chat.encode import Encoded, TrainOn, Written, cut, special_tokens, write_all
from multistep.tasks.chat.evaluate import baseline_nats, fit_ngram, sample_size, score, table
from multistep.tasks.chat.judge import Judge
from multistep.tasks.chat.load import LEAST_HELD_OUT, LEAST_TRAIN, ChatSplits
from multistep.tasks.chat.pack import PackingOrder, padded_rows
from multistep.tasks.chat.template import ChatTemplate
from multistep.tasks.folders import write_task
from multistep.tasks.hub import weights_hash
from multistep.tasks.order import sample_of
from multistep.tasks.recipes import refuse_model
from multistep.tasks.text.generate import MOST_NEW_TOKENS, SCORED_MEANWHILE, SPARE_TOKENS, to_show
from multistep.tasks.text.models import Maker
from multistep.tasks.text.nats import IGNORED
from multistep.tasks.text.ngram import SCALAR_VALUES, NGram
from multistep.tasks.text.tokenizer import UNKNOWN

MOST_CONTEXT = 1024  # tokens, unless the plan says more: few conversations are longer, and rows of more take the memory
FITTING = 0.99  # of the conversations are not cut, where that takes no more
ROW = 4  # conversations of mean length that a row holds at least, or packing would leave much of it empty
MOST_SHOWN_PARAMETERS = 300e6  # of which a second model can be held to show what it said before
SPLITS: tuple[Split, ...] = ("validation", "test")


class ChatDomain:
    """One phase's conversations and model. Implements backends.torch.domain.Domain.

    Held-out conversations are cut at the context that the phase begins with, whatever training changes it to: only
    so do all evaluations of a phase have the same rows and the same tokens.
    """

    def __init__(
        self,
        splits: ChatSplits,
        maker: Maker,
        train_on: TrainOn,
        context: int | None = None,
        metric: str | None = None,
        shown: int | None = None,
    ) -> None:
        """`shown` are the tokens that could be scored in the time that there is for writing answers to be shown (None:
        enough).
        """
        self._maker = maker
        self.template = ChatTemplate(maker.hub_tokenizer, (*splits.train, *splits.validation, *splits.test))
        self._special = special_tokens(maker.hub_tokenizer)
        self._train_on = train_on
        written, said = write_all(splits.train, self.template, train_on)
        self._written = written
        notes = [*splits.notes, *self.template.notes, *said]
        self.context = self.scored_context = context or self._fitting(written)
        self.held_out: dict[Split, tuple[Encoded, ...]] = {}
        for name in SPLITS:
            written, said = write_all(getattr(splits, name), self.template, train_on)
            examples, cuts = cut(written, self.context, self._special)
            self.held_out[name] = tuple(examples)
            notes += [f"{name}: {note}" for note in (*said, *cuts)]
        self.train, self.order, said = self._packed(self.context)
        notes += said
        exhibited = self.held_out["validation"][:SHOWN]
        self._prompted = sum(example.length for example in exhibited)
        # Where the data answers by a word, what the untouched model adds to it is soon seen, and costs a pass a token.
        most = min(MOST, SPARE_TOKENS + 2 * max((int(example.trained.sum()) for example in exhibited), default=0))
        self._answer_tokens, self._shows_before = to_show(shown, read=self._prompted, most=most)
        enough = {"train": (self.train, LEAST_TRAIN), "validation": (self.held_out["validation"], LEAST_HELD_OUT)}
        for part, (there, least) in enough.items():
            if len(there) < least:
                raise DataError(
                    f"the {part} split has {len(there)} conversations that can be trained on, at least {least} are "
                    f"needed ({'; '.join(notes)})"
                )
        self.closing = closing_token(self.train, self._special)
        ends = tuple(dict.fromkeys(token for token in (self.closing, maker.end) if token is not None))
        self.judge = Judge.of(
            metric, self.template, ends, room_of(maker, self.scored_context), [example.source for example in self.train]
        )
        several = sum(len(example.source.answers) > 1 for part in self.held_out.values() for example in part)
        if self.judge.wanted and several:
            notes.append(
                f"answers are judged turn by turn, each behind the true history before it ({several:,} held-out "
                "conversations have several); a conversation is one block of the intervals"
            )
        self.notes = tuple(dict.fromkeys([*notes, self._said()]))

    def _fitting(self, written: Sequence[Written]) -> int:
        """The context that nearly all conversations fit into, a multiple of 32."""
        lengths = [len(one.tokens) - 1 for one in written] or [1]
        wanted = float(np.quantile(lengths, FITTING))
        if self._maker.packs:
            wanted = max(wanted, ROW * float(np.mean(lengths)))
        longest = self._maker.longest_context or MOST_CONTEXT
        return min(longest, MOST_CONTEXT, -(-int(np.ceil(wanted)) // 32) * 32)

    def _packed(self, context: int) -> tuple[tuple[Encoded, ...], PackingOrder, list[str]]:
        """The training split, cut and packed for a context; and what is to be said of that."""
        examples, notes = cut(self._written, context, self._special)
        order = PackingOrder([e.length for e in examples], context, packed=self._maker.packs)
        return tuple(examples), order, [f"train: {note}" for note in notes]

    def _said(self) -> str:
        trained = sum(int(e.trained.sum()) for e in self.train)
        everything = sum(e.length for e in self.train)
        rows = self.order.per_epoch
        what = "all tokens" if self._train_on == "all" else "the assistant's turns"
        packed = f"packed into {rows:,} rows of {self.context:,} tokens, {everything / (rows * self.context):.0%} full"
        alone = "one a row, since this model cannot keep two apart"
        return (
            f"trained on {what}: {trained:,} of {everything:,} tokens of {len(self.train):,} conversations, "
            f"{packed if self._maker.packs else alone}"
        )

    # Training ---------------------------------------------------------------------------------------

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        refuse_model(model)
        return self._maker.build(seed)

    def origin(self, model: str | None = None) -> Origin | None:
        return self._maker.origin

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> Batch:
        rows = self.order.rows(position, size, seed)
        tokens, labels, positions = map(torch.from_numpy, padded_rows(self.train, rows, self._maker.end))
        # How many labels count stays on the CPU, where it is asked for.
        return *on(device, tokens, labels, positions), (labels != IGNORED).sum(1)

    def loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        tokens_BT, labels_BT, positions_BT, counts_B = batch
        count = int(counts_B.sum())
        nats = self._maker.summed_nats(
            model,
            tokens_BT,
            labels_BT,
            positions_BT=positions_BT if self._maker.packs else None,
            label_smoothing=label_smoothing,
            count=count,
        )
        return nats, number(count, nats.device)

    @property
    def settings(self) -> tuple[str, ...]:
        """The recipe's keys that conversations and this model answer to."""
        return ("label_smoothing", *self._maker.settings)

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        if recipe.augmentation:
            raise PlanError(f"recipe.augmentation is {recipe.augmentation:g}, but text has none; leave it out")
        if recipe.resolution:
            raise PlanError("recipe.resolution is for images; what a text model has is recipe.context")
        self._maker.configure(model, recipe)
        if recipe.context and recipe.context != self.context:
            train, order, _ = self._packed(recipe.context)
            if len(train) < LEAST_TRAIN:
                raise DataError(
                    f"recipe.context is {recipe.context}, and {len(train)} conversations of the train split can be "
                    f"trained on within so many tokens, at least {LEAST_TRAIN} are needed; ask for a longer one"
                )
            self.context, self.train, self.order = recipe.context, train, order
        return self.context if self._maker.packs else 1  # what a row holds follows the context, or it does not

    def resize(self, resolution: int | None) -> None:
        assert resolution is None, "configure refuses a recipe with sizes"

    # Scores -----------------------------------------------------------------------------------------

    def sampled(self, split: Split, *, sample: bool) -> NDArray[np.int64]:
        """The numbers of the conversations that are scored."""
        examples = self.held_out[split]
        return sample_of(len(examples), sample_size(examples) if sample else len(examples))

    def evaluate(self, model: nn.Module, split: Split, *, sample: bool, device: torch.device) -> Evaluation:
        numbers = self.sampled(split, sample=sample)
        examples = [self.held_out[split][int(i)] for i in numbers]
        nats = score(
            functools.partial(self._maker.token_nats, model),
            examples,
            vocabulary=self._maker.vocabulary,
            pad=self._maker.end,
            lost=lost_on_unknown(self._maker),
            device=device,
        )
        answers = self.judge.columns(model, [example.source for example in examples])
        return table(nats, examples, numbers, answers)

    @functools.cached_property
    def _ngram(self) -> NGram:
        return fit_ngram(self.train)

    def baseline(self, split: Split) -> tuple[str, Evaluation]:
        examples = self.held_out[split]
        nats = baseline_nats(self._ngram, examples)
        name = self._ngram.name + (" of the answers alone" if self._train_on == "assistant" else "")
        if self.judge.wanted:
            name = f"always {shortened(self.judge.usual.strip())!r}"
        answers = self.judge.usual_columns([example.source for example in examples])
        return name, table(nats, examples, np.arange(len(examples)), answers)

    def write_baseline(self, folder: Path) -> str:
        return NO_FORM

    # What comes out ---------------------------------------------------------------------------------

    @property
    def closing_tokens(self) -> int:
        once = self._prompted + self._answer_tokens * SCORED_MEANWHILE
        return once * (2 if self._shows_before else 1) if self._maker.pretrained else 0

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Exhibit]:
        chosen = self.held_out["validation"][:SHOWN]
        pairs = [opening(example.source) for example in chosen]
        prompts = [prompt for prompt, _ in pairs]
        answers = {"after training": self.judge.write(model, prompts, self._answer_tokens)}
        parameters = sum(p.numel() for p in model.parameters())
        if self._shows_before and self._maker.pretrained and parameters <= MOST_SHOWN_PARAMETERS:
            before = self._maker.build(0).to(device).eval()
            answers = {"before training": self.judge.write(before, prompts, self._answer_tokens), **answers}
        rows = tuple(
            (shortened("\n".join(turn.content for turn in prompt.turns)), shortened(reference), *own)
            for (prompt, reference), *own in zip(pairs, *answers.values(), strict=True)
        )
        return [Exhibit("What it answers", columns=("prompt", "the data's answer", *answers), rows=rows)]

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        self._maker.write(model, folder)
        self.template.tokenizer.save_pretrained(folder)  # with the default template, where it was given that
        stop_at(folder, self.closing)
        about = {"conversations": True, "train_on": self._train_on, "context": self.scored_context}
        about |= self.judge.record
        write_task(folder, "text-generation", about)
        (folder / "README.md").write_text(card, encoding="utf-8")
        return weights_hash(folder)


def room_of(maker: Maker, context: int) -> int:
    """The longest text that is read where answers are judged: an answer stands behind what a row of training held."""
    room = context + MOST_NEW_TOKENS
    return min(room, maker.reads(context) or room)


def lost_on_unknown(maker: Maker) -> Floats:
    """What each token costs beside itself (shape: vocabulary): an unknown one is one of the rest of Unicode."""
    lost = np.zeros(maker.vocabulary)
    unknown = maker.tokenizer.token_to_id(UNKNOWN)
    if unknown is not None:
        lost[unknown] = np.log(SCALAR_VALUES - maker.tokenizer.get_vocab_size())
    return lost


def closing_token(examples: Sequence[Encoded], special: NDArray[np.int32]) -> int | None:
    """The token that ends the assistant's turns, if they have one."""
    last = Counter(int(e.tokens[np.flatnonzero(e.trained)[-1]]) for e in examples)
    return next((token for token, _ in last.most_common() if token in special), None)


def stop_at(folder: Path, closing: int | None) -> None:
    """Let whoever generates with the exported model stop where the assistant's turn is closed."""
    path = folder / "generation_config.json"
    if closing is None or not path.is_file():
        return
    settings = json.loads(path.read_text(encoding="utf-8"))
    ends = settings.get("eos_token_id")
    known = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if closing not in known:
        settings["eos_token_id"] = [closing, *known]
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
