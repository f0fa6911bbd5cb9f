"""What is done with a finished text model: score other data, write text."""

from __future__ import annotations

import functools
from typing import Any

import torch

from multistep.backends.torch.devices import pick_device
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec
from multistep.data.splits import held_out_table
from multistep.tasks.notes import say
from multistep.tasks.text.evaluate import score_stream
from multistep.tasks.text.files import FORM, documents_of
from multistep.tasks.text.models import load_model
from multistep.tasks.text.stream import read_stream


def evaluate_model(model: str, data: DataSpec) -> Evaluation:
    """Score a model folder or hub id on data, in the same spans as training does; of several splits the test split."""
    documents = documents_of(held_out_table(data, FORM), data.text_column)
    say(documents.notes)
    maker = load_model(model)
    device = pick_device()
    module = maker.build(0).to(device).eval()
    stream = read_stream(documents.texts, maker.tokenizer, several=not documents.contiguous, end=maker.end)
    with torch.inference_mode():
        return score_stream(
            functools.partial(maker.logits, module),
            stream,
            context=maker.context,
            vocabulary=maker.vocabulary,
            before=maker.end,
            spans=None,
            device=device,
        )


def continue_text(tokenizer: Any, module: Any, prompt: str, *, tokens: int, temperature: float, seed: int) -> str:
    """The prompt and what `transformers` generates after it; never more than the model's context at once."""
    start = tokenizer(prompt, return_tensors="pt").input_ids if prompt else None
    if start is None or start.shape[1] == 0:
        start = torch.tensor([[module.config.bos_token_id or 0]])
    context = int(getattr(module.config, "max_position_embeddings", 1024))
    written = start.to(module.device)
    torch.manual_seed(seed)
    left = tokens
    while left > 0:
        # A text longer than the context is written in pieces, each seeing the last half of a context.
        seen = written[:, -max(1, context // 2) :] if written.shape[1] >= context else written
        count = min(left, context - seen.shape[1])
        out = module.generate(
            seen,
            attention_mask=torch.ones_like(seen),
            max_new_tokens=count,
            do_sample=temperature > 0,
            temperature=temperature or None,
            pad_token_id=module.config.eos_token_id,
        )
        new = out[:, seen.shape[1] :]
        written = torch.cat((written, new), 1)
        left -= count
        if new.shape[1] < count:
            break  # the model ended the text
    return str(tokenizer.decode(written[0], skip_special_tokens=True))
