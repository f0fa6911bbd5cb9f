"""Encoders of `bench/gpu.py`: examples a second in tuning a BERT of MiniLM's size, against a bare loop."""

from __future__ import annotations

import csv
import functools
import math
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from gpu_kit import Form, Rows, device_of
from gpu_language import fit_of, steps_of
from gpu_timing import LENGTHS, Advance, operations_of, rates, timed
from torch import Tensor, nn

from multistep.backends.torch.learner import TorchLearner
from multistep.core.values.plan import DataSpec, ModelSpec, Plan
from multistep.core.values.units import Amount, Unit
from multistep.tasks import workshop_for

# MiniLM-L6: arXiv 2002.10957.
SIZES = {
    "gpu": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "cpu": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}
VOCABULARY = {"gpu": 30_522, "cpu": 400}
EXAMPLES = {"gpu": 20_000, "cpu": 160}
BATCHES = {"gpu": (32, 256), "cpu": (8,)}
WORDS = (8, 120)  # of a text
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
RATE = 5e-5


def write_encoder(folder: Path, form: Form) -> None:
    """A BERT with weights drawn by lot, and a tokenizer that knows as many words as it has places for."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(SPECIAL)}
    words |= {f"w{number}": number for number in range(len(SPECIAL), VOCABULARY[form])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(name, words[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    make: Any = PreTrainedTokenizerFast  # which has no types
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    make(tokenizer_object=made, model_max_length=512, **named).save_pretrained(folder)
    torch.manual_seed(0)
    configure: Any = BertConfig
    config = configure(vocab_size=VOCABULARY[form], **SIZES[form])
    BertModel(config).save_pretrained(folder)


def write_texts(path: Path, form: Form) -> None:
    """Texts of words drawn by lot, of lengths between eight words and 120, with a label each."""
    choose = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(EXAMPLES[form]):
            words = [f"w{choose.randrange(len(SPECIAL), VOCABULARY[form])}" for _ in range(choose.randint(*WORDS))]
            writer.writerow([" ".join(words), choose.choice(["no", "yes"])])


def bare_steps(
    model: nn.Module, batches: list[tuple[Tensor, ...]], device: torch.device, operations: list[float | None]
) -> Advance:
    """The loop that a person writes around a model of transformers; its batches lie on the device already.

    They are those that ours reads, in the same order and with the same padding.
    """
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    reduced, place = device.type == "cuda", 0

    def once(batch: tuple[Tensor, ...]) -> None:
        tokens, inside, types, targets = batch
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            logits = model(input_ids=tokens, attention_mask=inside, token_type_ids=types).logits
            loss = F.cross_entropy(logits.float(), targets)
        loss.backward()  # type: ignore[no-untyped-call]

    def advance(steps: int) -> None:
        nonlocal place
        for _ in range(steps):
            once(batches[place % len(batches)])
            place += 1
            nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    counted = [operations_of(lambda batch=batch: once(batch)) for batch in batches[:4]]  # type: ignore[misc]
    known = [one for one in counted if one]
    operations.append(sum(known) / len(known) if known else None)
    optimizer.zero_grad(set_to_none=True)
    return advance


def measure(rows: Rows, form: Form) -> None:
    # Batches differ in length: both sides are to read the same ones, however fast they are.
    device, length = device_of(form), replace(LENGTHS[form], seconds=math.inf)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "encoder").mkdir()
        write_encoder(folder / "encoder", form)
        write_texts(folder / "texts.csv", form)
        plan = Plan(
            "text-classification",
            DataSpec(source=str(folder / "texts.csv")),
            ModelSpec(name=str(folder / "encoder")),
            budget=Amount(300.0, Unit.SECONDS),
        )
        learner, ready = workshop_for(plan).open(plan, 0, lambda: False)
        assert isinstance(learner, TorchLearner)
        domain: Any = learner._domain
        rows.facts = {
            "model": "BERT, " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in SIZES[form].items()),
            "vocabulary": VOCABULARY[form],
            "parameters": ready.facts.parameters,
            "examples": EXAMPLES[form],
            "preset_batch_size": ready.recipe.batch_size,
        }
        for size in BATCHES[form]:
            recipe = replace(
                ready.recipe,
                optimizer="adamw",
                learning_rate=RATE,
                batch_size=size,
                gradient_clip=1.0,
                adapter="none",
                augmentation=0.0,
                sharpness=0.0,
            )
            steps = length.warm_up + 1 + length.steps * (length.windows + 1)
            bare: dict[str, Any] = {}
            operations: list[float | None] = []
            with rows.attempting(f"bare loop, batch {size}"):
                model = domain.build(0)
                domain.configure(model, recipe)
                batches = [domain.batch(i * size, size, 0, device) for i in range(steps)]
                make = functools.partial(bare_steps, model, batches, device, operations)
                found = timed(make, device, length)
                numbers = rates(found, rows, count=size, unit="examples", operations=operations[0])
                bare = rows.add(f"bare loop, batch {size}", **numbers)
            with rows.attempting(f"multistep, batch {size}"):
                found = timed(functools.partial(steps_of, learner, recipe), device, length)
                counted = operations[0] if operations else None
                numbers = rates(found, rows, count=size, unit="examples", operations=counted)
                share = {"share_of_bare": numbers["per_second"] / bare["per_second"]} if bare else {}
                rows.add(f"multistep, AdamW, batch {size}", **numbers, **share, **fit_of(learner))
