"""Sets whose completions are a few fixed answers: which the model thinks likeliest; and how written answers score."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.backends.torch.many.sharing import divided
from multistep.core.evidence.answers import exact_match, rouge_l, token_f1
from multistep.tasks.text.generate import PLAIN_TOKENS, Tokens, batches, padded_left, rows_at_once

Floats = NDArray[np.float64]

MOST_ANSWERS = 20
TIMES_EACH = 5  # rows an answer on average; of fewer the answers are texts that happen to repeat


def fixed_answers(completions: Sequence[str]) -> tuple[str, ...] | None:
    """The answers that all training rows have, the most frequent first; None where they are no small fixed set.

    A set is fixed if it holds two to twenty answers and five rows for each, on average. White space at the ends tells
    none from another, but stays as most rows have it: a model has learnt to write it.
    """
    counted = Counter(completion.strip() for completion in completions)
    if not 2 <= len(counted) <= MOST_ANSWERS or len(completions) < TIMES_EACH * len(counted):
        return None
    forms = Counter(completions).most_common()
    return tuple(next(form for form, _ in forms if form.strip() == answer) for answer, _ in counted.most_common())


def right_answers(nats_NA: Floats, answers: Sequence[str], references: Sequence[str]) -> Floats:
    """1 where the likeliest answer is the reference, else 0 (shape: rows); NaN where a probability is.

    A reference that is none of the answers cannot be met.
    """
    numbers = {answer.strip(): number for number, answer in enumerate(answers)}
    wanted = np.array([numbers.get(reference.strip(), -1) for reference in references])
    right: Floats = (nats_NA.argmax(axis=1) == wanted).astype(np.float64)
    right[~np.isfinite(nats_NA).all(axis=1)] = np.nan
    return right


def answer_columns(answers: Sequence[str], references: Sequence[str]) -> dict[str, Floats]:
    """The columns of an evaluation's table for answers that were written out: `exact`, `token_f1`, `rouge_l`."""
    kinds = {"exact": exact_match, "token_f1": token_f1, "rouge_l": rouge_l}
    pairs = list(zip(answers, references, strict=True))
    return {name: np.array([score(*pair) for pair in pairs], np.float64) for name, score in kinds.items()}


def score_answers(model: nn.Module, prompts: Sequence[Tokens], answers: Sequence[Tokens], *, context: int) -> Floats:
    """Each answer's log-probability after each prompt, summed over its tokens, in nats (shape: prompts, answers).

    `answers` hold the token that ends them. With it they are events that exclude each other, one of them no beginning
    of another, so that probabilities of answers of different lengths can be compared as they are. A mean by length
    would favour long answers, whose last tokens follow from their first; without the end "good" would always beat
    "good enough". Prompts are read once, whatever the number of answers.
    """
    longest = max(map(len, answers))
    prompts = [list(prompt)[-(context - longest) :] for prompt in prompts]
    if longest >= context or not all(prompts) or not all(answers):
        raise ValueError(f"prompts and answers hold tokens, and answers fewer than the context of {context}")
    nats_NA = np.zeros((len(prompts), len(answers)))
    cached = _keeps(model, int(prompts[0][0])) if prompts else False
    fitting = rows_at_once(model) if cached else lambda tokens: max(1, PLAIN_TOKENS // tokens)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():

            def scored(rows: list[int]) -> tuple[list[int], Floats]:
                score = _with_cache if cached else _plainly
                return rows, score(model, [prompts[i] for i in rows], answers).double().cpu().numpy()

            for rows, nats in divided(batches([len(p) for p in prompts], longest, fitting), scored):
                nats_NA[rows] = nats
    finally:
        model.train(training)
    return nats_NA


def _keeps(model: Any, token: int) -> bool:
    """Whether a model has keys and values that another text can be read behind; states of Mamba are none."""
    if not hasattr(model, "generate"):
        return False
    with torch.inference_mode():
        read = model(input_ids=torch.tensor([[token]], device=next(model.parameters()).device), use_cache=True)
    return getattr(read, "past_key_values", None) is not None


def _with_cache(model: Any, prompts: Sequence[Tokens], answers: Sequence[Tokens]) -> Tensor:
    """The prompts' keys and values are kept, and each answer is read behind them."""
    device = next(model.parameters()).device
    tokens_BT, mask_BT = padded_left(prompts, 0, device)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # below adapters
    known = inspect.signature(inner.forward).parameters
    placed = "position_ids" in known
    last = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
    lengths_B = mask_BT.sum(1)
    places = {"position_ids": (mask_BT.cumsum(1) - 1).clamp(min=0)} if placed else {}
    read = model(input_ids=tokens_BT, attention_mask=mask_BT, use_cache=True, **places, **last)
    first_BV = read.logits[:, -1].float().log_softmax(-1)
    nats = []
    for answer in answers:
        nats_B = first_BV[:, answer[0]]
        if len(answer) > 1:
            new_BT = torch.tensor([answer], device=device).expand(len(prompts), -1)
            mask = torch.cat((mask_BT, torch.ones_like(new_BT[:, 1:])), 1)
            steps = torch.arange(len(answer) - 1, device=device)
            places = {"position_ids": lengths_B[:, None] + steps} if placed else {}
            cache = copy.deepcopy(read.past_key_values)  # reading writes into it
            logits = model(
                input_ids=new_BT[:, :-1], attention_mask=mask, past_key_values=cache, use_cache=True, **places
            ).logits
            nats_B = nats_B + _nats(logits, new_BT[:, 1:]).sum(1)
        nats.append(nats_B)
    return torch.stack(nats, 1)


def _plainly(model: Any, prompts: Sequence[Tokens], answers: Sequence[Tokens]) -> Tensor:
    """Prompt and answer as one text, padded on the right, which a causal model does not see."""
    device = next(model.parameters()).device
    nats = []
    for answer in answers:
        size = max(map(len, prompts)) + len(answer) - 1
        tokens_BT = torch.zeros(len(prompts), size, dtype=torch.long)
        places_BT = torch.tensor([[len(p) - 1 + step for step in range(len(answer))] for p in prompts])
        for row, prompt in enumerate(prompts):
            text = [*prompt, *answer[:-1]]
            tokens_BT[row, : len(text)] = torch.tensor(text)
        read = model(tokens_BT.to(device))
        logits_BTV = read if isinstance(read, Tensor) else read.logits
        rows = torch.arange(len(prompts))[:, None]
        labels_BT = torch.tensor([answer], device=device).expand(len(prompts), -1)
        nats.append(_nats(logits_BTV[rows, places_BT], labels_BT).sum(1))
    return torch.stack(nats, 1)


def _nats(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Each label's log-probability (shape: B, T)."""
    found: Tensor = logits_BTV.float().log_softmax(-1).gather(-1, labels_BT[..., None])[..., 0]
    return found
