"""What Elasticsearch does with an uploaded model: tokens by WordPiece, the traced module, softmax."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors


def reader(vocabulary: Sequence[str], config: Mapping[str, Any]) -> Tokenizer:
    """`do_lower_case` lowers and strips accents; nothing but [MASK] is a word by itself."""
    numbers = {token: i for i, token in enumerate(vocabulary)}
    told = config["tokenization"]["bert"]
    lowers = bool(told.get("do_lower_case", False))
    made = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowers, strip_accents=lowers)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[MASK]"])
    marks = [(token, numbers[token]) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    made.enable_truncation(int(told.get("max_sequence_length", 512)))
    return made


def infer(definition: bytes, vocabulary: Sequence[str], inference_config: Mapping[str, Any], text: str) -> Any:
    """The results object of a text for text_classification."""
    ((task, config),) = inference_config.items()
    assert task == "text_classification", task
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch has newer ways
        module: Any = torch.jit.load(io.BytesIO(definition))  # type: ignore[no-untyped-call]
    read = reader(vocabulary, config).encode(text)
    ids = torch.tensor([read.ids])
    with torch.no_grad():
        said = module(ids, torch.ones_like(ids), torch.tensor([read.type_ids]), torch.arange(ids.shape[1]))
    shares = said[0].double().softmax(0)
    labels = config["classification_labels"]
    assert len(shares) == len(labels) > 1
    best = int(shares.argmax())
    return {"predicted_value": labels[best], "prediction_probability": float(shares[best])}


def processed(document: Mapping[str, Any], processors: Sequence[Mapping[str, Any]], ask: Any) -> dict[str, Any]:
    """A document as a pipeline leaves it; `ask` is given a model's id and a text."""
    found = dict(document)
    for step in processors:
        ((kind, told),) = step.items()
        if kind == "set":
            found[told["field"]] = found[told["copy_from"]] if "copy_from" in told else told["value"]
        elif kind == "lowercase":
            found[told["field"]] = found[told["field"]].lower()
        elif kind == "gsub":
            found[told["field"]] = re.sub(told["pattern"], told["replacement"], found[told["field"]])
        elif kind == "remove":
            del found[told["field"]]
        else:
            assert kind == "inference", kind
            ((field, given),) = told["field_map"].items()
            assert given == "text_field"
            at = found
            *outer, last = told["target_field"].split(".")
            for name in outer:
                at = at.setdefault(name, {})
            at[last] = {**ask(told["model_id"], found[field]), "model_id": told["model_id"]}
    return found
