"""What causal models write after prompts, many at a time: greedy where it is scored, drawn where somebody listens.

A model of `transformers` writes with its own `generate` and a cache of keys and values. The lean module of
`tasks/text/lean.py` has no cache; its plain path reads the whole text for each token, which its short contexts bear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from multistep.backends.torch.many.sharing import divided
from multistep.tasks.hub import quietly

Tokens = Sequence[int]

CACHE_BYTES = 2**28  # of keys and values held at once, on a CPU; eight times that on other devices
MOST_ROWS = 64  # of a batch; more rows make a step slower without making a token cheaper
PLAIN_TOKENS = 2048  # of a batch that is read without a cache
LEAST_FOR_ANSWERS = 4  # the share of a context, that prompts leave to answers at least
SPARE_TOKENS = 8  # beyond the longest reference, so that an answer that is a little longer ends by itself
MOST_NEW_TOKENS = 512  # of any answer that is scored
# As many tokens are scored in the time that a few rows take to be written further by one: the weights are read once for
# either. 24 to 38 with 135 million parameters on a CPU core (2026-11-29).
SCORED_MEANWHILE = 32
LEAST_SHOWN = 12  # tokens of what is written to be shown


def generate(
    model: nn.Module,
    prompts: Sequence[Tokens],
    *,
    ends: Sequence[int],
    most_new: int,
    context: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[int]]:
    """What the model writes after each prompt, up to the first of `ends`, which is left out; `most_new` tokens at most.

    Temperature 0 takes the likeliest token; above, tokens are drawn as the model's own generation settings say, from
    `seed`. In a `context` of so many tokens prompts come first: an answer has what they leave, at least a quarter, for
    which the end of a longer prompt is read. The model is left in the mode that it was in, and the random state as it
    was.
    """
    least_new = min(most_new, max(1, context // LEAST_FOR_ANSWERS))
    prompts = [list(prompt)[-(context - least_new) :] for prompt in prompts]
    if not all(prompts):
        raise ValueError("a prompt holds no token; begin it with the token that stands before texts")
    write = _by_transformers if hasattr(model, "generate") else _plainly
    device = next(model.parameters()).device
    answers: list[list[int]] = [[] for _ in prompts]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)

            def written(batch: list[int]) -> list[tuple[int, list[int]]]:
                found: list[tuple[int, list[int]]] = []
                # By length, so that those of one room stand together: none is cut for what a longer one leaves.
                for room, rows in groupby(batch, key=lambda i: min(most_new, context - len(prompts[i]))):
                    chosen = list(rows)
                    texts = write(model, [prompts[i] for i in chosen], tuple(ends), room, temperature, device)
                    found += zip(chosen, texts, strict=True)
                return found

            for found in divided(batches([len(p) for p in prompts], most_new, rows_at_once(model)), written):
                for row, tokens in found:
                    answers[row] = _until(tokens, ends)
    finally:
        model.train(training)
    return answers


def to_show(bears: int | None, *, read: int, most: int) -> tuple[int, bool]:
    """How many tokens, of `most`, an answer has that is written to be shown, and whether both models write, the one
    before training and the one after it.

    `bears` is how many tokens could be scored in the time that there is for it (None: enough), `read` are those of the
    prompts.
    """
    if bears is None or 2 * (read + most * SCORED_MEANWHILE) <= bears:
        return most, True
    return max(LEAST_SHOWN, min(most, (bears - read) // SCORED_MEANWHILE)), False


def room_for(references: Sequence[Tokens]) -> int:
    """How many tokens an answer may have: as many as the longest reference and a few more, 512 at most.

    One number for all: a limit by each row's own reference would stop a model that does not know when to.
    """
    return min(max((len(reference) for reference in references), default=0) + SPARE_TOKENS, MOST_NEW_TOKENS)


def rows_at_once(model: nn.Module) -> Callable[[int], int]:
    """How many rows of so many tokens fit into a batch."""
    if not hasattr(model, "generate"):
        return lambda tokens: max(1, min(MOST_ROWS, PLAIN_TOKENS // tokens))
    here = next(model.parameters()).device.type == "cpu"
    fitting = (CACHE_BYTES if here else 8 * CACHE_BYTES) // _cache_bytes(model)
    most = MOST_ROWS if here else 4 * MOST_ROWS
    return lambda tokens: max(1, min(most, fitting // tokens))


def _cache_bytes(model: Any) -> int:
    """Of one token's keys and values in all layers."""
    config = model.config.get_text_config()
    heads = int(getattr(config, "num_attention_heads", 0) or 1)
    width = int(getattr(config, "head_dim", 0) or config.hidden_size // heads)
    shared = int(getattr(config, "num_key_value_heads", 0) or heads)
    size = int(next(model.parameters()).element_size())
    return 2 * int(config.num_hidden_layers) * shared * width * size


def batches(lengths: Sequence[int], more: int, fitting: Callable[[int], int]) -> Iterator[list[int]]:
    """Rows of about one length together, each of `more` tokens beyond it, as many as fit."""
    ordered = sorted(range(len(lengths)), key=lambda row: lengths[row])
    start = 0
    while start < len(ordered):
        end = start + 1
        # Sorted: the last of a batch is its longest.
        while end < len(ordered) and end + 1 - start <= fitting(lengths[ordered[end]] + more):
            end += 1
        yield ordered[start:end]
        start = end


def padded_left(prompts: Sequence[Tokens], fill: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens and 1 where there are such (both: prompts, longest); all prompts end at the right edge."""
    longest = max(map(len, prompts))
    tokens = torch.tensor([[fill] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    return tokens, mask


def _by_transformers(
    model: Any, prompts: Sequence[Tokens], ends: tuple[int, ...], most_new: int, temperature: float, device: Any
) -> list[list[int]]:
    tokens_BT, mask_BT = padded_left(prompts, ends[0] if ends else 0, device)
    with quietly():
        written = model.generate(
            tokens_BT,
            attention_mask=mask_BT,
            generation_config=settings_for(ends, most_new, temperature),
        )
    new: list[list[int]] = written[:, tokens_BT.shape[1] :].tolist()
    return new


def settings_for(ends: tuple[int, ...], most_new: int, temperature: float) -> Any:
    """A GenerationConfig; what the model's own says of penalties and beams does not count where answers are scored."""
    from transformers import GenerationConfig

    how: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1}
    if temperature > 0:
        how = {"do_sample": True, "temperature": temperature}
    # Without ends a number that is no token, since None would mean the model's own.
    stop = {"eos_token_id": list(ends) or [-1], "pad_token_id": ends[0] if ends else 0}
    make: Any = GenerationConfig  # whose types are not given
    return make(max_new_tokens=most_new, use_cache=True, **how, **stop)


def _plainly(
    model: nn.Module, prompts: Sequence[Tokens], ends: tuple[int, ...], most_new: int, temperature: float, device: Any
) -> list[list[int]]:
    """Without a cache. Texts are padded on the right, which a causal model does not see."""
    texts = [list(prompt) for prompt in prompts]
    going = list(range(len(texts)))
    for _ in range(most_new):
        lengths = torch.tensor([len(texts[row]) for row in going])
        tokens_BT = torch.zeros(len(going), int(lengths.max()), dtype=torch.long)
        for place, row in enumerate(going):
            tokens_BT[place, : len(texts[row])] = torch.tensor(texts[row])
        logits_BV = model(tokens_BT.to(device))[torch.arange(len(going)), lengths - 1].float().cpu()
        if temperature > 0:
            drawn = torch.multinomial((logits_BV / temperature).softmax(-1), 1)[:, 0]
        else:
            drawn = logits_BV.argmax(-1)
        for row, token in zip(going, drawn.tolist(), strict=True):
            texts[row].append(token)
        going = [row for row in going if texts[row][-1] not in ends]
        if not going:
            break
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]


def _until(tokens: Tokens, ends: Sequence[int]) -> list[int]:
    stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:stop])
