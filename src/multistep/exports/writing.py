"""Language models and masked ones as graphs: token ids -> logits of the next, or of hidden, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.core.evidence.metric import Evaluation
from multistep.errors import DataError, PlanError
from multistep.exports.graph import Batch, Graph, Say
from multistep.exports.held import Held

CPU = torch.device("cpu")
MOST_SPANS = 400  # of the validation split that are scored
TOKENIZER, TEMPLATE = "tokenizer.json", "chat_template.jinja"
NO_CACHE = (
    "the graph reads the whole context for each token and keeps no keys and values of those before; optimum's export "
    "of RUN/model does, where a text is written token by token"
)


def language_model(model: str, held: Held) -> Graph:
    """A model that writes: ids (batch, length) -> logits of the token after each. Texts need no padding in front."""
    from multistep.tasks.chat.ends import ends_of
    from multistep.tasks.chat.load import holds_conversations
    from multistep.tasks.folders import read_task
    from multistep.tasks.preference.load import holds_pairs
    from multistep.tasks.text.models import load_model

    if held.data.text_column is None and holds_pairs(held.data):
        raise PlanError(
            f"{model}: was trained on pairs of answers; name text or conversations to check the graph by: --data FILE"
        )
    maker = load_model(model)
    module = maker.build(0).to(CPU).eval()
    tokenizer: Any = maker.hub_tokenizer
    rows, score = (_conversations if holds_conversations(held.data) else _texts)(model, maker, module, held)
    about: dict[str, Any] = {"task": "text-generation", "tokenizer": TOKENIZER, "context": maker.context}
    about["ends"] = list(ends_of(tokenizer)) if tokenizer is not None else [maker.end]
    files = [TOKENIZER]
    if (Path(model) / TEMPLATE).is_file() and read_task(model).get("conversations", True):
        files.append(TEMPLATE)
        about |= {"chat_template": TEMPLATE, "bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}
    _require(model, files)
    return Graph(
        _Writer(maker, module),
        {"input_ids": {0: "batch", 1: "length"}},
        ("logits",),
        _batches(rows, maker.context),
        about,
        "writer.py",
        tuple(files),
        score,
        held.metric,
        (NO_CACHE,),
    )


class _Writer(nn.Module):
    def __init__(self, maker: Any, module: nn.Module) -> None:
        super().__init__()
        self.module, self._maker = module, maker

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self._maker.logits(self.module, input_ids)
        return logits


def _batches(rows: Sequence[NDArray[np.int64]], context: int) -> list[Batch]:
    """A few tokens, some rows side by side, and as much of a context as there is."""
    usable = [row for row in rows if len(row) > 1] or list(rows)
    if not usable:
        raise DataError("no text of the validation split can be read; name others with --data FILE")
    longest = max(usable, key=len)[:context]
    length = min(7, *(len(row) for row in usable[:3]), context)
    side = np.stack([row[:length] for row in (usable * 3)[:3]])
    return [(torch.from_numpy(np.asarray(each, np.int64)),) for each in (side, longest[None], longest[None, :2])]


def _texts(model: str, maker: Any, module: nn.Module, held: Held) -> tuple[list[NDArray[np.int64]], Any]:
    from multistep.data.splits import held_out_table
    from multistep.tasks.text.evaluate import score_stream
    from multistep.tasks.text.files import FORM, documents_of
    from multistep.tasks.text.splits import load_splits
    from multistep.tasks.text.stream import read_stream

    if held.split:
        splits = load_splits(held.data)
        texts, several = splits.validation, not splits.contiguous
    else:
        documents = documents_of(held_out_table(held.data, FORM), held.data.text_column)
        texts, several = documents.texts, not documents.contiguous
    stream = read_stream(texts, maker.tokenizer, several=several, end=maker.end)
    spans = np.unique(np.linspace(0, stream.spans - 1, min(stream.spans, MOST_SPANS)).astype(np.int64))

    def score(say: Say) -> Evaluation:
        return score_stream(
            lambda tokens_BT: say((tokens_BT,)),
            stream,
            context=maker.context,
            vocabulary=maker.vocabulary,
            before=maker.end,
            spans=spans,
            device=CPU,
        )

    tokens = np.asarray(stream.tokens, np.int64)
    size = max(2, min(maker.context, len(tokens) // 3))
    return [tokens[start : start + size] for start in range(0, len(tokens), size)][:3], score


def _conversations(model: str, maker: Any, module: nn.Module, held: Held) -> tuple[list[NDArray[np.int64]], Any]:
    from multistep.tasks.chat.encode import cut, special_tokens, write_all
    from multistep.tasks.chat.evaluate import score as score_all
    from multistep.tasks.chat.evaluate import table
    from multistep.tasks.chat.load import load_conversations, read_held_out
    from multistep.tasks.chat.task import lost_on_unknown
    from multistep.tasks.chat.template import ChatTemplate
    from multistep.tasks.folders import read_task
    from multistep.tasks.text.nats import IGNORED

    items = load_conversations(held.data).validation if held.split else read_held_out(held.data).items
    template, about = ChatTemplate(maker.hub_tokenizer, items), read_task(model)
    written, _ = write_all(items, template, about.get("train_on", held.data.train_on))
    examples, _ = cut(written, int(about.get("context", maker.context)), special_tokens(maker.hub_tokenizer))
    examples = examples[:MOST_SPANS]

    def score(say: Say) -> Evaluation:
        def nats(tokens_BT: Tensor, labels_BT: Tensor) -> Tensor:
            logits_BTV = say((tokens_BT,)).float()
            found = F.cross_entropy(
                logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED, reduction="none"
            )
            return found.view(labels_BT.shape)

        lost = lost_on_unknown(maker)
        said = score_all(nats, examples, vocabulary=maker.vocabulary, pad=maker.end, lost=lost, device=CPU)
        return table(said, examples, np.arange(len(examples)))

    return [np.asarray(example.tokens, np.int64) for example in examples], score


def masked(model: str, held: Held) -> Graph:
    """A model that fills in: ids -> logits of the vocabulary at each place."""
    from multistep.tasks.folders import read_task
    from multistep.tasks.language.load import load_encoder, masked_model
    from multistep.tasks.language.spans import load_all, load_texts, read_spans

    context = read_task(model).get("context")
    encoder = load_encoder(model, int(context) if context else None)
    head = masked_model(encoder)
    if head.fresh:
        raise PlanError(
            f"{model}: the weights of its head are missing (such as {head.fresh[0]}), so it can say nothing"
        )
    texts = load_texts(held.data).validation if held.split else load_all(held.data)
    spans = read_spans(encoder.tokenizer, texts, encoder.context)
    typed = getattr(encoder.config, "type_vocab_size", 0) > 1

    def batch(rows: NDArray[np.int64]) -> Batch:
        tokens, _, types, inside = spans.encoded.padded(rows, encoder.pad)
        found = (tokens, inside.astype(np.int64), *((types,) if typed else ()))
        return tuple(torch.from_numpy(each) for each in found)

    order = np.argsort(spans.encoded.lengths, kind="stable")
    across = order[np.linspace(0, len(order) - 1, min(len(order), 4)).astype(np.int64)]
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if typed else ()))
    _require(model, [TOKENIZER])
    assert encoder.mask is not None, "masked_model has asked for it"
    mask = {"mask_id": encoder.mask, "mask_token": encoder.tokenizer.id_to_token(encoder.mask)}
    about = {"task": "fill-mask", "tokenizer": TOKENIZER, "longest": encoder.context, "pad_id": encoder.pad, **mask}
    return Graph(
        _Masked(head, head.model.to(CPU).eval(), typed=typed),
        {name: {0: "batch", 1: "length"} for name in names},
        ("logits",),
        [batch(rows) for rows in (across, order[:1], order[-1:])],
        about,
        "mask.py",
        (TOKENIZER,),
        _mask_score(head, spans),
        held.metric,
    )


class _Masked(nn.Module):
    def __init__(self, head: Any, module: nn.Module, *, typed: bool) -> None:
        super().__init__()
        self.module, self._head, self._typed = module, head, typed

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *types: Tensor) -> Tensor:
        types_BT = types[0] if self._typed else torch.zeros_like(input_ids)
        logits: Tensor = self.module(**self._head.inputs(input_ids, attention_mask, types_BT)).logits
        return logits


def _mask_score(head: Any, spans: Any) -> Any:
    from multistep.tasks.language.mask import score_spans

    rows = np.unique(np.linspace(0, len(spans) - 1, min(len(spans), MOST_SPANS)).astype(np.int64))
    typed = getattr(head.encoder.config, "type_vocab_size", 0) > 1

    def score(say: Say) -> Evaluation:
        return score_spans(_Asked(head, say, typed=typed), head.model, spans, rows, CPU)  # type: ignore[arg-type]

    return score


class _Asked:
    """A head whose logits are those of a graph."""

    def __init__(self, head: Any, say: Say, *, typed: bool) -> None:
        self.encoder, self._say, self._typed = head.encoder, say, typed

    def hidden_logits(self, _: Any, tokens_BT: Tensor, inside_BT: Tensor, types_BT: Tensor, places_N: Tensor) -> Tensor:
        said = self._say((tokens_BT, inside_BT.long(), *((types_BT,) if self._typed else ())))
        return said.flatten(0, 1)[places_N]


def _require(model: str, files: Sequence[str]) -> None:
    for name in files:
        if not (Path(model) / name).is_file():
            raise PlanError(f"{model}: has no {name}, by which texts are read without torch; save its tokenizer there")
