"""A model as a folder that eland imports into Elasticsearch, with the traced model and the ingest pipeline."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multistep.errors import PlanError
from multistep.exports.elastic_models import Going, Inputs, Pooling, going
from multistep.exports.elastic_use import FIELD, Use, fields_of, model_id, write_use
from multistep.exports.elastic_words import TRIED, Words, read_otherwise, words_of, write_words
from multistep.exports.held import held_out
from multistep.exports.order import Exported, Order
from multistep.tasks.hub import quietly

TRACED = "traced"  # the folder of what eland would make: the model, its configuration, its vocabulary
TOLERANCE = 1e-4  # of a value, or of one of 1
MOST_READ = 500  # texts of the validation split
MOST_ODD = 0.01  # of the texts, at most, may be read otherwise: such as those that hold a special token
SIDE = 4  # texts at once
# What eland traces a model with, uncut, by task: one that reads less cannot be traced by it.
_SAMPLE = "This is an example sentence."
_LONG = "What is the meaning of life?The meaning of life, according to the hitchikers guide, is 42."
SAMPLES: dict[str, tuple[str, ...]] = {
    "text_classification": (_SAMPLE,),
    "text_embedding": (_SAMPLE,),
    "zero_shot_classification": (_SAMPLE, "This example is an example."),
    "text_similarity": (_LONG,),
    "fill_mask": ("Who was Jim Henson?", "[MASK] Henson was a puppeteer"),
}


def write(order: Order, folder: Path) -> Exported:
    """Write the folder. Raises PlanError for what Elasticsearch does not take, or would read or answer otherwise."""
    name = model_id(order.hub_model_id)
    if order.quantize:
        raise PlanError("--quantize is for ONNX; eland_import_hub_model has a --quantize of its own")
    going_there = going(order)
    words = words_of(going_there.tokenizer, order.name)
    if words.lowered_before and going_there.task == "zero_shot_classification":
        raise PlanError(
            f"{order.name}: reads lower case with accents, and Elasticsearch puts labels into a sentence that begins "
            "with a capital; train from a BERT without capitals, whose tokenizer strips accents"
        )
    texts, notes = _texts(order)
    notes += _require_same_words(order, words, going_there.tokenizer, texts)
    notes += going_there.notes
    short = _eland_needs(going_there) > going_there.longest
    if short:
        notes.append(
            f"eland cannot trace it: its sample has {_eland_needs(going_there)} tokens, and the model reads "
            f"{going_there.longest}; the command uploads the traced model that lies here"
        )
    masked = going_there.task == "fill_mask"
    use = Use(name, going_there.task, fields_of(order.model), words.lowered_before, masked, traced=short)
    with quietly():
        going_there.module.save_pretrained(folder)
    write_words(words, folder, going_there.context)
    if going_there.pooling is not None:
        _write_pooling(going_there.pooling, going_there, folder)
    checked, difference = _traced(order, going_there, words, texts, folder / TRACED)
    called = str(order.target if order.target is not None else folder)
    write_use(use, folder, called, notes)
    if words.lowered_before:
        notes.append("texts have to come in lower case, accents kept; the pipeline does that (README.md)")
    said = {
        "model_id": name,
        "task_type": going_there.task,
        "inference_config": _inference_config(going_there, words),
        "fields": list(use.fields),
        "checked": {"batches": checked, "largest_difference": difference, "texts": len(texts)},
        "versions": {package: version(package) for package in ("multistep", "torch", "transformers")},
    }
    (folder / "elasticsearch.json").write_text(json.dumps(said, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".safetensors", ".pt")]
    sizes = {path.relative_to(folder).as_posix(): round(path.stat().st_size / 1e6, 3) for path in files}
    return Exported(
        folder, sizes, checked, difference, notes=(*notes, f"README.md has the commands that upload and use {name}")
    )


def _texts(order: Order) -> tuple[list[str], list[str]]:
    """Texts to be read, those of the validation split among them where the run has one, and what is to be said."""
    from multistep.tasks.language.spans import load_all, load_texts
    from multistep.tasks.language.splits import load_labelled
    from multistep.tasks.language.use import examples_of, load_classifier
    from multistep.tasks.order import sample_of

    found: Sequence[str]
    seconds: Sequence[str] | None
    try:
        with held_out(order.model, order.task, order.data) as held:
            if order.task == "fill-mask":
                parts = load_texts(held.data).validation if held.split else load_all(held.data)
                found, seconds = parts.texts, parts.seconds
            elif held.split:
                examples = load_labelled(held.data).validation
                found, seconds = examples.texts, examples.seconds
            else:
                from multistep.tasks.language.long import held as reading

                labels = load_classifier(order.model, torch.device("cpu"))[2]
                with reading(held.data) as holding:
                    examples = examples_of(order.model, held.data, labels, holding)
                found, seconds = examples.texts, examples.seconds
            rows = sample_of(len(found), MOST_READ)
            chosen = [str(found[int(i)]) for i in rows]
            chosen += [str(seconds[int(i)]) for i in rows] if seconds is not None else []
    except PlanError:
        if order.data is not None:
            raise
        return list(TRIED), [
            "checked by texts of its own, since no run names a validation split; --data FILE names some"
        ]
    return [*TRIED, *chosen], []


def _require_same_words(order: Order, words: Words, tokenizer: Any, texts: Sequence[str]) -> list[str]:
    odd = read_otherwise(words, tokenizer, texts)
    told = [text for text in odd if text not in TRIED]
    if len(told) > MOST_ODD * len(texts) or (odd and not told and len(odd) > len(TRIED) // 2):
        raise PlanError(
            f"{order.name}: Elasticsearch's tokenizer reads {len(odd):,} of {len(texts):,} texts otherwise than this "
            f"model does, such as {odd[0][:80]!r}; use a model with a tokenizer like BERT's"
        )
    if not told:
        return []
    return [f"Elasticsearch reads {len(told):,} of {len(texts):,} texts otherwise, such as {told[0][:80]!r}"]


def _eland_needs(model: Going) -> int:
    """How many tokens eland's own sample has for this model."""
    from tokenizers import Tokenizer

    reads = Tokenizer.from_str(model.tokenizer.to_str())
    reads.no_truncation()
    reads.no_padding()
    first, *second = SAMPLES[model.task]
    return len(reads.encode(first, second[0] if second else None).ids)


# Tracing ------------------------------------------------------------------------------------------


def _traced(order: Order, model: Going, words: Words, texts: Sequence[str], folder: Path) -> tuple[int, float]:
    """Trace the model as eland does, and compare it with the run's own on texts of several lengths.

    Raises PlanError where it says something else.
    """
    gives = model.gives
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has newer ways, which Elasticsearch does not read
        with quietly():
            if hasattr(model.module, "set_attn_implementation") and model.module.config.model_type != "squeezebert":
                model.module.set_attn_implementation("eager")  # the operators that every version of torch has
            with torch.no_grad():
                example = _inputs(model, words, [" ".join(["sample"] * 8)], model.context)
                made = torch.jit.trace(gives, example, check_trace=False)  # type: ignore[no-untyped-call]
                traced = torch.jit.freeze(made)
    batches = _batches(model, words, texts)
    largest = 0.0
    for batch in batches:
        with torch.no_grad():
            own, other = model.ours(batch), traced(*batch)
        apart = (own - other).abs() / own.abs().clamp(min=1.0)
        if model.task == "fill_mask":
            apart = apart[batch[1].bool()]  # what stands behind a text says nothing
        largest = max(largest, float(apart.max())) if own.shape == other.shape else float("inf")
        if not largest <= TOLERANCE:
            raise PlanError(
                f"{order.name}: what Elasticsearch would run differs by {largest:.2g} from what the run has, for "
                f"inputs of shape {tuple(batch[0].shape)}, where {TOLERANCE:g} is allowed; nothing was written. Please "
                "report it with the model's architecture"
            )
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(traced, str(folder / "traced_pytorch_model.pt"))
    about = {
        "description": f"{order.hub_model_id} for {model.task}, trained by multistep",
        "model_type": "pytorch",
        "inference_config": _inference_config(model, words),
        "input": {"field_names": [FIELD]},
        "metadata": _memory_of(gives, model),
    }
    (folder / "config.json").write_text(json.dumps(about, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    listed = json.dumps({"vocabulary": list(words.vocabulary)}, ensure_ascii=False)
    (folder / "vocabulary.json").write_text(listed, encoding="utf-8")
    return len(batches), largest


def _memory_of(gives: Any, model: Going) -> dict[str, int]:
    """The bytes of the weights, and about those that a text of full length takes beside them: what its layers make.

    eland's profiler counts 41 MB for MiniLM and 256 tokens, this 80.
    """
    config, length = model.module.config, model.context
    width, heads, layers = (
        int(getattr(config, name, 0) or getattr(config, other, 1))
        for name, other in (
            ("hidden_size", "dim"),
            ("num_attention_heads", "n_heads"),
            ("num_hidden_layers", "n_layers"),
        )
    )
    inner = int(getattr(config, "intermediate_size", 4 * width))
    logits = length * int(getattr(config, "vocab_size", 0)) if model.task == "fill_mask" else 0
    held = [*gives.parameters(), *gives.buffers()]
    return {
        "per_deployment_memory_bytes": sum(each.numel() * each.element_size() for each in held),
        "per_allocation_memory_bytes": 4
        * (layers * (length * (10 * width + 2 * inner) + 2 * heads * length**2) + logits),
    }


def _inference_config(model: Going, words: Words) -> dict[str, Any]:
    """As eland writes it."""
    tokenization: dict[str, Any] = {"do_lower_case": words.lowers, "max_sequence_length": model.context}
    if model.task == "text_similarity":
        tokenization["truncate"] = "second"
    about: dict[str, Any] = {"tokenization": {"bert": tokenization}}
    if model.task in ("text_classification", "zero_shot_classification"):
        labels = [label.replace("-", "_") for label in model.labels]
        about["classification_labels"] = labels
    if model.task == "text_embedding":
        about["embedding_size"] = int(getattr(model.module.config, "hidden_size", 0) or model.module.config.dim)
    return {model.task: about}


def _batches(model: Going, words: Words, texts: Sequence[str]) -> list[Inputs]:
    """The shortest and the longest text alone, and some side by side."""
    order = sorted(texts, key=len)
    across = [order[int(i)] for i in np.linspace(0, len(order) - 1, SIDE)]
    return [_inputs(model, words, each, None) for each in (order[:1], order[-1:], across)]


def _inputs(model: Going, words: Words, texts: Sequence[str], length: int | None) -> Inputs:
    """Texts, of a model of pairs each with itself, as ids; padded to a length or to the longest."""
    from tokenizers import Tokenizer

    reads = Tokenizer.from_str(model.tokenizer.to_str())
    reads.no_padding()
    reads.enable_truncation(model.context)
    pairs = [(text, text) for text in texts] if model.paired else list(texts)
    encoded = reads.encode_batch(pairs)
    wide = length or max(2, max(len(each.ids) for each in encoded))
    rows: list[Tensor] = []
    for part, filler in (("ids", model.pad), ("attention_mask", 0), ("type_ids", 0)):
        values = [list(getattr(each, part)) for each in encoded]
        rows.append(torch.tensor([row + [filler] * (wide - len(row)) for row in values]))
    return (rows[0], rows[1], rows[2], torch.arange(wide))


# Embeddings ---------------------------------------------------------------------------------------


def _write_pooling(pooling: Pooling, model: Going, folder: Path) -> None:
    """What sentence-transformers, and so eland, know an embedding by."""
    kinds = [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        *([("2_Normalize", "Normalize")] if pooling.normalized else []),
    ]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    width = int(getattr(model.module.config, "hidden_size", 0) or model.module.config.dim)
    way = {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": pooling.first,
        "pooling_mode_mean_tokens": not pooling.first,
    }
    (folder / "1_Pooling").mkdir()
    if pooling.normalized:
        (folder / "2_Normalize").mkdir()  # which holds nothing
    for path, content in (
        ("modules.json", modules),
        ("1_Pooling/config.json", way),
        ("sentence_bert_config.json", {"max_seq_length": model.context, "do_lower_case": False}),
    ):
        (folder / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
