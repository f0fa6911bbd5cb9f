"""What is done with a finished model of conversations: score other data."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

from multistep.backends.torch.devices import pick_device
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec
from multistep.errors import DataError, PlanError
from multistep.tasks.chat.encode import cut, special_tokens, write_all
from multistep.tasks.chat.evaluate import score, table
from multistep.tasks.chat.judge import COMPARED, WRITTEN, Judge
from multistep.tasks.chat.load import read_held_out
from multistep.tasks.chat.task import closing_token, lost_on_unknown, room_of
from multistep.tasks.chat.template import ChatTemplate
from multistep.tasks.folders import read_task
from multistep.tasks.notes import say
from multistep.tasks.text.models import load_model


def evaluate_model(model: str, data: DataSpec, metrics: Sequence[str] = ()) -> Evaluation:
    """Score a model folder or hub id on conversations, as training does; of several splits the test split.

    Answers are written, or compared, where the run was judged by them, or one of `metrics` asks for it.
    """
    part = read_held_out(data)
    maker = load_model(model)
    template = ChatTemplate(maker.hub_tokenizer, part.items)
    about = read_task(model)
    train_on = about.get("train_on", data.train_on)
    written, left_out = write_all(part.items, template, train_on)
    examples, cuts = cut(written, int(about.get("context", maker.context)), special_tokens(maker.hub_tokenizer))
    say([*part.notes, *template.notes, *left_out, *cuts])
    if not examples:
        raise DataError(f"{part.origin}: no conversation of it can be scored")
    device = pick_device()
    module = maker.build(0).to(device).eval()
    with torch.inference_mode():
        nats = score(
            functools.partial(maker.token_nats, module),
            examples,
            vocabulary=maker.vocabulary,
            pad=maker.end,
            lost=lost_on_unknown(maker),
            device=device,
        )
        sources = [example.source for example in examples]
        judge = Judge.recorded(about, template)
        answers = judge.columns(module, sources) if judge else {}
        asked = {WRITTEN[0] if name in WRITTEN else name for name in metrics if name in (*WRITTEN, COMPARED)}
        if judge and judge.metric in (*WRITTEN, COMPARED):
            asked.discard(WRITTEN[0] if judge.metric in WRITTEN else COMPARED)
        for name in sorted(asked):
            closing = closing_token(examples, special_tokens(maker.hub_tokenizer))
            ends = tuple(dict.fromkeys(token for token in (closing, maker.end) if token is not None))
            room = room_of(maker, int(about.get("context", maker.context)))
            other = Judge.of(name, template, ends, room, sources)
            if name not in other.metrics:
                raise PlanError(
                    f"metric '{name}' compares a few fixed answers, but those of {part.origin} are too many, or each "
                    f"is there too seldom; there are {', '.join(WRITTEN)}"
                )
            answers |= other.columns(module, sources)
    return table(nats, examples, np.arange(len(examples)), answers)
