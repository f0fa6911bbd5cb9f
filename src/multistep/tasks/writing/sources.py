"""What a phase of text generation reads, told by its task and columns, and the model that all phases train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from multistep.backends.torch.devices import pick_device
from multistep.core.values.plan import DataSpec, Plan
from multistep.core.values.understood import Part
from multistep.data.peek import first_columns
from multistep.errors import DataError, PlanError
from multistep.tasks.begun import lies_at
from multistep.tasks.chat.conversation import ROLES, Conversation
from multistep.tasks.chat.load import ChatSplits, holds_conversations, load_conversations
from multistep.tasks.chat.template import MARKS
from multistep.tasks.machine import total_memory
from multistep.tasks.preference.load import PairSplits, holds_pairs, load_pairs
from multistep.tasks.preference.task import TASK as PREFERENCE
from multistep.tasks.pretrained.choose import Need
from multistep.tasks.pretrained.script import kind_of
from multistep.tasks.pretrained.settle import seconds_of
from multistep.tasks.pretrained.timed import tuning_speed
from multistep.tasks.speeds import operations, operations_usually
from multistep.tasks.text.corpus import alphabet_of, characters_of, heads_of, share_of_a_document, together
from multistep.tasks.text.files import FORM
from multistep.tasks.text.models import Maker, load_model, make_preset
from multistep.tasks.text.preset import (
    PRESETS,
    WORK,
    TextFacts,
    batch_size,
    characters_a_token,
    choose_preset,
    expected_tokens,
)
from multistep.tasks.text.sizes import operations_per_token
from multistep.tasks.text.splits import TextSplits, load_splits
from multistep.tasks.text.timed import preset_speed
from multistep.tasks.text.tokenizer import learnt_from

CHARACTERS_A_TOKEN = 4.0  # about
LEAST_TOKENS = 25_000  # that tuning a language model must be able to read: some fifty steps of 512
GUARD_TRAIN, GUARD_TRAIN_CHARACTERS = 2000, 1_000_000  # conversations or characters, for what follows from lengths
CHAT_CONTEXT = 512  # of a model from nothing, whose positions end somewhere; rows are as long as conversations ask for


def read_splits(data: DataSpec, task: str = "text-generation") -> TextSplits | ChatSplits | PairSplits:
    if task == PREFERENCE:
        return load_pairs(data)
    if holds_conversations(data):
        return load_conversations(data)
    if data.text_column is None and holds_pairs(data):
        raise DataError(
            f"{data}: these are pairs of a chosen and a rejected answer; learn from them by task: preference, or name "
            "a column of running text with data.text_column"
        )
    if data.text_column is None:
        _refuse_lone_turns(data)
    splits = load_splits(data)
    if not splits.validation:
        raise DataError(f"{data}: the validation split is empty; give more text")
    return splits


def _refuse_lone_turns(data: DataSpec) -> None:
    """Raises DataError for a table with a turn a row, such as exports of chats: which follow which it does not say."""
    names = {name.strip().lower(): name for name in first_columns(data, FORM)}
    said = next((names[name] for name in ("content", "text", "value") if name in names), None)
    if "role" in names and said is not None:
        raise DataError(
            f"{data}: each row is one turn (columns '{names['role']}' and '{said}'), so nothing says which belong to "
            'one conversation; write a conversation a row, {"messages": [{"role": "user", "content": "..."}, ...]}, or '
            f"read them as running text with --set data.text_column={said}"
        )


def earlier_turns(plan: Plan, phase: int) -> tuple[Conversation, ...]:
    """What earlier phases learnt turns from: preferences are written as those were, also where a run is resumed."""
    data = [plan.phase(i).data for i in range(phase) if plan.phase(i).task != PREFERENCE]
    parts = [read_splits(source) for source in dict.fromkeys(data) if source]
    return tuple(conversation for part in parts if isinstance(part, ChatSplits) for conversation in part.train)


def shortened(splits: TextSplits) -> TextSplits:
    """The same held-out texts beside little to train on, which nobody reads."""
    kept, left = list[str](), GUARD_TRAIN_CHARACTERS
    for text in splits.train:
        kept.append(text[:left])
        left -= len(kept[-1])
        if left <= 0:
            break
    return replace(splits, train=tuple(kept))


def need(plan: Plan, splits: TextSplits | ChatSplits | PairSplits) -> Need:
    """What a run has to offer a pretrained language model: each token counts as an example, no epoch is asked."""
    texts = texts_of(splits)
    return Need(
        "text-generation",
        kind_of(heads_of(texts)),
        round(characters_of(texts) / CHARACTERS_A_TOKEN),
        1.0,
        seconds_of(plan),
        tuning_speed(plan),
        chat=isinstance(splits, ChatSplits | PairSplits),
        least_examples=LEAST_TOKENS,
    )


def make_model(plan: Plan, splits: TextSplits | ChatSplits | PairSplits | None) -> Maker:
    """The model that all phases train; a tokenizer from nothing is learnt from all their training texts."""
    if plan.model.name not in ("auto", *PRESETS):
        sizes = ("parameters", "layers", "width", "heads", "vocabulary")
        given = [name for name in sizes if getattr(plan.model, name) is not None]
        given += ["tokenizer"] if plan.model.tokenizer != "auto" else []
        if given:
            raise PlanError(f"model.{given[0]}: '{plan.model.name}' has its own, which cannot be changed; leave it out")
        return load_model(lies_at(plan.model.name), plan.model.context)
    if splits is not None:
        parts = [splits]
    else:
        sources = {(plan.phase(i).data, str(plan.phase(i).task)) for i in range(plan.phase_count)}
        parts = [read_splits(data, task) for data, task in sorted(sources, key=str) if data]
    texts = together([texts_of(part) for part in parts])
    spec, marks = plan.model, tuple[str, ...]()
    if any(isinstance(part, ChatSplits | PairSplits) for part in parts):
        spec, marks = replace(spec, context=spec.context or CHAT_CONTEXT), MARKS
    facts = TextFacts(characters_of(texts), len(alphabet_of(texts)), share_of_a_document(texts))
    device = pick_device()
    memory = total_memory(device)

    usual = operations_usually(WORK)

    def measured(rate: float, seconds: float) -> float:
        preset = choose_preset(spec, facts, plan, rate, memory, usual)
        vocabulary = preset.vocabulary or facts.alphabet
        a_token = operations_per_token(preset.shape, vocabulary)
        text = facts.characters / characters_a_token(facts, preset.vocabulary)
        tokens = expected_tokens(plan, a_token=a_token, tokens=text, rate=rate)
        return preset_speed(preset, vocabulary, batch_size(tokens, text, preset.shape.context, device.type), seconds)

    preset = choose_preset(spec, facts, plan, operations(WORK, plan, measured), memory, usual)
    return make_preset(preset, texts, marks, learnt_from(texts, seconds_of(plan)))


def texts_of(splits: TextSplits | ChatSplits | PairSplits) -> Sequence[str]:
    """What a tokenizer is learnt from: of conversations the turns, and the names of the roles that stand above them."""
    if isinstance(splits, TextSplits):
        return splits.train
    if isinstance(splits, PairSplits):
        return tuple(turn.content for pair in splits.train for c in (pair.chosen, pair.rejected) for turn in c.turns)
    return (*(turn.content for c in splits.train for turn in c.turns), "\n".join(ROLES))


def parts_of(
    splits: TextSplits | ChatSplits | PairSplits, held_out_tokens: Mapping[str, int], train_tokens: int
) -> tuple[Part, ...]:
    """The splits and their sizes, in documents, conversations or pairs."""
    names, tokens = ("train", "validation", "test"), {"train": train_tokens, **held_out_tokens}
    if isinstance(splits, TextSplits) and splits.contiguous:
        return tuple(Part(name, tokens[name], "tokens of running text") for name in names)
    if isinstance(splits, PairSplits):  # a pair counts once in the loss, so its tokens say little
        return tuple(Part(name, len(getattr(splits, name)), "pairs") for name in names)
    unit = "documents" if isinstance(splits, TextSplits) else "conversations"
    return tuple(Part(name, len(getattr(splits, name)), unit, tokens[name]) for name in names)
