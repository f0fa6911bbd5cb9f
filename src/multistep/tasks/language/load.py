"""Where encoders come from: sizes alone, a folder, a hub id; and the heads that they bring or lack."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from multistep.errors import PlanError, nearest
from multistep.tasks.hub import first_line, no_model, quietly, why_not_had
from multistep.tasks.labelled.labels import PROBLEMS, Labels
from multistep.tasks.labelled.scale import Scale, last_linear
from multistep.tasks.language.mean import MARK, still
from multistep.tasks.language.models import Encoder, Head
from multistep.tasks.language.tokenizer import SPECIAL
from multistep.tasks.pretrained.choose import label_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PRESETS = ("bert",)
UNBOUNDED = 100_000  # tokenizers without a limit name a number far above
# BERT's 0.02 is soon a matter of the first few steps, in which AdamW moves each number by its rate: what a rare word
# was seen with once is then all that is known of it. Hidden words are told by the same numbers, and keep 0.02.
EMBEDDING_SPREAD = 0.5
GENERIC = "LABEL_"  # names of classes that nobody has named


def new_encoder(tokenizer: Tokenizer, *, layers: int, width: int, heads: int, context: int) -> Encoder:
    """A BERT whose sizes are given. Raises PlanError if the heads do not divide the width."""
    if width % heads:
        raise PlanError(f"model.heads is {heads}, which does not divide model.width {width}")
    from transformers import BertConfig

    vocabulary = tokenizer.get_vocab_size()
    pad, mask = (int(tokenizer.token_to_id(SPECIAL[i]) or 0) for i in (0, 4))
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=context,
        attention_probs_dropout_prob=0.0,  # attention that drops nothing has a faster kernel
        pad_token_id=pad,
    )
    words = f"bert, {layers} layer{'s' if layers > 1 else ''} of width {width} with {heads} heads, {vocabulary} tokens"
    return Encoder(tokenizer, config, context, context, pad, mask, description=words)


def load_encoder(name: str, context: int | None = None) -> Encoder:
    """The encoder of a local folder or a hub id, read up to `context` tokens. Raises PlanError for what is wrong."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise PlanError(no_model(folder, "holds no config.json; name a Hugging Face model folder"))
    elif name.count("/") > 1 or name.startswith((".", "/")):
        raise PlanError(f"model: {name}: no such folder")
    from transformers import AutoConfig, AutoTokenizer

    try:
        with quietly():
            config = AutoConfig.from_pretrained(name)
            tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        if folder.is_dir():
            raise PlanError(
                f"model: {folder} cannot be loaded ({first_line(error)}); copy or export it again"
            ) from error
        raise PlanError(
            f"model '{name}' is neither a preset ({', '.join(PRESETS)}) nor a folder, and could not be fetched from "
            "the hub "
            f"({why_not_had(name, error)}).{nearest(name, PRESETS)}"
        ) from error
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):  # what the library makes of a folder that has none
        raise PlanError(
            f"model '{name}': has no tokenizer (neither tokenizer.json nor its vocabulary); copy those files to it too"
        )
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise PlanError(f"model '{name}': its tokenizer has no fast form; use a model with a tokenizer.json")
    positions = int(getattr(config, "max_position_embeddings", None) or 0)
    if positions <= 0:  # XLNet's is -1: its places are relative
        positions = UNBOUNDED
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # the first two of theirs stand for padding
    longest = min(positions, int(min(tokenizer.model_max_length, UNBOUNDED)))
    if context is not None and context > longest:
        raise PlanError(
            f"model.context is {context}, but '{name}' reads at most {longest} tokens; allowed: 2 to {longest}"
        )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return Encoder(
        tokenizer.backend_tokenizer,
        config,
        context or longest,
        longest,
        int(pad),
        None if tokenizer.mask_token_id is None else int(tokenizer.mask_token_id),
        source=name,
        hub_tokenizer=tokenizer,
        description=f"{label_of(name)} ({config.model_type}), {config.vocab_size} tokens",
    )


def classifier(encoder: Encoder, labels: Labels, scale: Scale) -> Head:
    """The encoder with a head for these labels: its own if it knows the same ones, else a new one."""
    from transformers import AutoModelForSequenceClassification

    names = labels.output_names
    id2label = dict(enumerate(names))
    settings = {
        "num_labels": len(names),
        "id2label": id2label,
        "label2id": {name: i for i, name in id2label.items()},
        "problem_type": PROBLEMS[labels.kind],
    }
    if encoder.source is None:
        config = copy.deepcopy(encoder.config)
        for key, value in settings.items():
            setattr(config, key, value)
        with torch.random.fork_rng([]), quietly():
            model = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
        return Head(encoder, model, (), scale, spread=EMBEDDING_SPREAD)
    known = [str(name) for _, name in sorted((getattr(encoder.config, "id2label", None) or {}).items())]
    generic = all(name.startswith(GENERIC) for name in known)
    classified = _is_for(encoder.config, "ForSequenceClassification")
    same = len(known) == len(names) and (generic or [n.lower() for n in known] == [n.lower() for n in names])
    if classified and generic:
        same &= getattr(encoder.config, "problem_type", None) in (None, PROBLEMS[labels.kind])
    model, fresh = _loaded(AutoModelForSequenceClassification, encoder, "text-classification", **settings)
    if getattr(model.config, MARK, False):
        still(model)
    notes: tuple[str, ...] = ()
    if classified and not same:
        fresh = tuple({*fresh, *(f"{last_linear(model)}.{part}" for part in ("weight", "bias"))})
        told = ", ".join(known[:6])
        notes = (f"{encoder.source}: its head was made for other labels ({told}), so a new one begins",)
    return Head(encoder, model, fresh, scale, notes=notes)


def masked_model(encoder: Encoder) -> Head:
    """The encoder with a head that tells hidden tokens: its own, else a new one."""
    from transformers import AutoModelForMaskedLM

    if encoder.mask is None:
        raise PlanError(f"model '{encoder.source}': its tokenizer has no mask token; choose a model made for fill-mask")
    if encoder.source is None:
        with torch.random.fork_rng([]), quietly():
            model = AutoModelForMaskedLM.from_config(copy.deepcopy(encoder.config))  # type: ignore[no-untyped-call]
        return Head(encoder, model, ())
    model, fresh = _loaded(AutoModelForMaskedLM, encoder, "fill-mask")
    new = f"{encoder.source}: it has no last layer for hidden words, so a new one is trained"
    return Head(encoder, model, fresh, notes=(new,) if fresh else ())


def _loaded(kind: Any, encoder: Encoder, task: str, **settings: Any) -> tuple[Any, tuple[str, ...]]:
    """A model of the encoder's source, and the parameters that it does not bring."""
    try:
        with torch.random.fork_rng([]), quietly():
            model, found = kind.from_pretrained(
                encoder.source, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **settings
            )
    except (OSError, ValueError, KeyError) as error:
        raise PlanError(
            f"model '{encoder.source}': a {encoder.config.model_type} cannot be loaded for {task} "
            f"({first_line(error)}); choose an encoder such as BERT"
        ) from error
    lacking = {*found["missing_keys"], *(entry[0] for entry in found["mismatched_keys"])}
    names = tuple(sorted(name for name, _ in model.named_parameters() if name in lacking))
    body = [name for name in names if name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name]
    if body:
        raise PlanError(
            f"model '{encoder.source}': {len(body)} weights of the encoder itself are missing or misshapen, such as "
            f"{body[0]}; the folder is damaged or holds another architecture than its config.json says"
        )
    return model, names


def _is_for(config: Any, ending: str) -> bool:
    return any(str(name).endswith(ending) for name in getattr(config, "architectures", None) or [])
