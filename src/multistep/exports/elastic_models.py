"""Which models go to Elasticsearch, for which of its tasks, and what it gets of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from multistep.core.values.tasks import TASKS
from multistep.errors import PlanError
from multistep.exports.order import Order

# Encoders with BERT's tokenizer that are called with BERT's four inputs, or with two of them.
TYPES = ("bert", "distilbert", "electra", "mobilebert", "squeezebert")
ENTAILMENT = {"entailment", "neutral", "contradiction"}
TASK_TYPES = ("text_classification", "zero_shot_classification", "text_similarity", "fill_mask", "text_embedding")
ELSEWHERE = "`--to onnx` or `multistep serve` take it elsewhere"
CPU = torch.device("cpu")
Inputs: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]  # ids, attention, types (B, T) and positions (T)


@dataclass(frozen=True)
class Going:
    """A model on its way: `module` as transformers saves it, `gives` what Elasticsearch gets of it, `ours` what it has
    to be. `labels` are those of a classifier, `pooling` that of an embedding.
    """

    task: str
    module: Any
    tokenizer: Any
    context: int
    pad: int
    ours: Callable[[Inputs], Tensor]
    labels: tuple[str, ...] = ()
    paired: bool = False
    pooling: Pooling | None = None
    notes: tuple[str, ...] = ()

    @property
    def longest(self) -> int:
        """How many tokens the module has places for."""
        return int(getattr(self.module.config, "max_position_embeddings", self.context))

    @property
    def gives(self) -> nn.Module:
        return _Gives(self.module, self.pooling).eval()


@dataclass(frozen=True)
class Pooling:
    """How an embedding is made of the states of tokens, as sentence-transformers have it."""

    first: bool = False  # the first token's, else the mean of all
    normalized: bool = False

    def __call__(self, states_BTD: Tensor, inside_BT: Tensor) -> Tensor:
        inside_BT1 = inside_BT.to(states_BTD.dtype).unsqueeze(-1)
        mean_BD = (states_BTD * inside_BT1).sum(1) / inside_BT1.sum(1).clamp(min=1e-9)
        said_BD = states_BTD[:, 0] if self.first else mean_BD
        return nn.functional.normalize(said_BD, dim=1) if self.normalized else said_BD


class _Gives(nn.Module):
    """A model called as Elasticsearch calls one: with four tensors, whatever it takes of them."""

    def __init__(self, module: Any, pooling: Pooling | None) -> None:
        super().__init__()
        self.module, self._pooling = module, pooling
        self._two = module.config.model_type == "distilbert"

    def forward(self, ids_BT: Tensor, inside_BT: Tensor, types_BT: Tensor, places_T: Tensor) -> Tensor:
        more = {} if self._two else {"token_type_ids": types_BT, "position_ids": places_T}
        said: Tensor = self.module(input_ids=ids_BT, attention_mask=inside_BT, **more)[0]
        return said if self._pooling is None else self._pooling(said, inside_BT)


def going(order: Order) -> Going:
    """Raises PlanError for what Elasticsearch has no use for, with what can be done instead."""
    wanted = order.task_type
    if wanted is not None and wanted not in TASK_TYPES:
        raise PlanError(f"task type '{wanted}'; allowed: {', '.join(TASK_TYPES)}")
    if _is_bare_encoder(order):
        found = _embedding(order)
    elif TASKS[order.task].family != "language":
        raise PlanError(
            f"{order.name}: is for {order.task}; Elasticsearch runs models that classify, fill in, embed and compare "
            f"texts. {ELSEWHERE}"
        )
    elif order.task == "fill-mask":
        found = _embedding(order) if wanted == "text_embedding" else _masked(order)
    else:
        found = _classifier(order)
    if wanted not in (None, found.task):
        raise PlanError(f"{order.name}: goes to Elasticsearch for {found.task}, not {wanted}; leave --task-type out")
    return found


def _is_bare_encoder(order: Order) -> bool:
    """Whether a folder of somebody else's holds an encoder without a head, such as sentence encoders."""
    config = Path(order.model) / "config.json"
    if (Path(order.model) / "multistep.json").is_file() or not config.is_file():
        return False
    about = json.loads(config.read_text(encoding="utf-8"))
    names = about.get("architectures") or ["Model"]
    return about.get("model_type") in TYPES and all(str(name).endswith("Model") for name in names)


def _require_type(order: Order, model_type: str) -> None:
    if model_type not in TYPES:
        raise PlanError(
            f"{order.name}: a {model_type}; what is written here for Elasticsearch are encoders that read as BERT "
            f"does ({', '.join(TYPES)}): train from one of them, with --model. eland itself takes RoBERTa, BART, "
            "XLM-RoBERTa, MPNet and DeBERTa-v2 from the model folder, untested here"
        )


def _classifier(order: Order) -> Going:
    from multistep.tasks.calibrated import Calibrated
    from multistep.tasks.folders import read_task
    from multistep.tasks.labelled.scale import last_linear
    from multistep.tasks.language.models import Head
    from multistep.tasks.language.use import load_classifier

    network, own, labels = load_classifier(order.model, CPU)
    if not isinstance(network, Head):
        raise PlanError(
            f"{order.name}: a small net that reads n-grams or words, which Elasticsearch does not; train an encoder, "
            f"with --model bert or a pretrained one. {ELSEWHERE}"
        )
    _require_type(order, network.encoder.config.model_type)
    paired, settled = bool(read_task(order.model).get("pairs")), Calibrated.read(order.model)
    if labels.kind == "classes":
        raise PlanError(
            f"{order.name}: says several labels at once, and Elasticsearch's text_classification makes "
            f"probabilities of one class a text (softmax); train a model for each label. {ELSEWHERE}"
        )
    if labels.kind == "number" and not paired:
        raise PlanError(
            f"{order.name}: says a number of a text, for which Elasticsearch has no task; train on classes, such as "
            f"ranges of it. {ELSEWHERE}"
        )
    module: Any = copy.deepcopy(own)
    layer = module.get_submodule(last_linear(module))
    names, notes, task = labels.output_names, list[str](), "text_classification"
    if labels.kind != "number":
        with torch.no_grad():
            for part in layer.parameters():
                part.div_(settled.temperature)
    about = len(names) - 1  # which of two classes a similarity is of
    if paired:
        nli = {name.lower() for name in names} == ENTAILMENT
        task = "zero_shot_classification" if nli else "text_similarity"
        if not nli and labels.kind != "number":
            if len(names) != 2:
                raise PlanError(
                    f"{order.name}: tells {len(names)} classes of pairs ({', '.join(names[:6])}); of pairs "
                    "Elasticsearch takes entailment, neutral and contradiction (zero_shot_classification), or one "
                    f"score (text_similarity): of two classes, or a number. {ELSEWHERE}"
                )
            about = _similar(names)
            _make_one_score(module, layer, about)
            other = names[1 - about]
            notes.append(f"the score of text_similarity is the log-odds of '{names[about]}' against '{other}'")
    elif len(names) == 2 and abs(settled.cut - 0.5) > 1e-9:
        notes.append(
            f"the run says '{names[1]}' above a probability of {settled.cut:.2f}, Elasticsearch above 0.5: compare its "
            "prediction_probability with that yourself"
        )
    if any("-" in name for name in names) and task == "text_classification":
        notes.append("eland writes labels with _ in place of -")
    mine, net = own, network

    def ours(inputs: Inputs) -> Tensor:
        said_BC = net.logits(mine, *inputs[:3])
        if labels.kind != "number":
            said_BC = said_BC / settled.temperature
        if task == "text_similarity" and labels.kind != "number":
            said_BC = (said_BC[:, about] - said_BC[:, 1 - about])[:, None]
        return said_BC

    return Going(
        task,
        module.eval(),
        network.encoder.tokenizer,
        network.context,
        network.pad,
        ours,
        names if labels.kind != "number" and task != "text_similarity" else (),
        paired,
        notes=tuple(notes),
    )


def _similar(names: tuple[str, ...]) -> int:
    """Which of two classes says that texts belong together: not the one that denies the other; else the second."""
    first, second = (name.lower() for name in names)
    denies = tuple(f"{no}{sign}" for no in ("not", "non", "no", "un", "ir") for sign in ("_", "-", " ", ""))
    return 0 if any(second == f"{no}{first}" for no in denies) else 1


def _make_one_score(module: Any, layer: nn.Linear, about: int) -> None:
    """In place: the last layer gives the difference of its two outputs."""
    sign = 1.0 if about == 1 else -1.0
    with torch.no_grad():
        layer.weight = nn.Parameter(sign * (layer.weight[1:] - layer.weight[:1]))
        layer.bias = nn.Parameter(sign * (layer.bias[1:] - layer.bias[:1]))
    layer.out_features = 1
    module.config.num_labels = module.num_labels = 1
    module.config.problem_type = "regression"


def _masked(order: Order) -> Going:
    from multistep.exports.elastic_words import SPECIAL
    from multistep.tasks.folders import read_task
    from multistep.tasks.language.load import load_encoder, masked_model

    context = read_task(order.model).get("context")
    encoder = load_encoder(order.model, int(context) if context else None)
    _require_type(order, encoder.config.model_type)
    head = masked_model(encoder)
    if head.fresh:
        raise PlanError(f"{order.name}: the weights of its head are missing (such as {head.fresh[0]})")
    if encoder.mask is None or encoder.tokenizer.id_to_token(encoder.mask) != SPECIAL[-1]:
        raise PlanError(
            f"{order.name}: its mask token is not {SPECIAL[-1]}, which Elasticsearch looks for by that name"
        )
    module: Any = head.model.eval()
    return Going(
        "fill_mask",
        module,
        encoder.tokenizer,
        encoder.context,
        encoder.pad,
        lambda inputs: module(**head.inputs(*inputs[:3])).logits,
    )


def _embedding(order: Order) -> Going:
    from transformers import AutoModel

    from multistep.tasks.folders import read_task
    from multistep.tasks.hub import quietly
    from multistep.tasks.language.load import load_encoder

    context = read_task(order.model).get("context") or _longest(order.model)
    encoder = load_encoder(order.model, int(context) if context else None)
    _require_type(order, encoder.config.model_type)
    with quietly():
        module: Any = AutoModel.from_pretrained(order.model, dtype=torch.float32).eval()
    pooling = _pooling_of(order)
    typed = getattr(encoder.config, "type_vocab_size", 0) > 1

    def ours(inputs: Inputs) -> Tensor:
        types = {"token_type_ids": inputs[2]} if typed else {}
        return pooling(module(input_ids=inputs[0], attention_mask=inputs[1], **types)[0], inputs[1])

    return Going("text_embedding", module, encoder.tokenizer, encoder.context, encoder.pad, ours, pooling=pooling)


def _longest(model: str) -> int | None:
    """The most tokens that a sentence encoder says it reads."""
    path = Path(model) / "sentence_bert_config.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("max_seq_length") if path.is_file() else None
    return int(found) if found else None


def _pooling_of(order: Order) -> Pooling:
    """What the folder says, as sentence-transformers write it; the mean where it says nothing."""
    folder = Path(order.model)
    modules, pools = folder / "modules.json", folder / "1_Pooling" / "config.json"
    kinds = []
    if modules.is_file():
        kinds = [str(each.get("type", "")).rsplit(".", 1)[-1] for each in json.loads(modules.read_text("utf-8"))]
    if odd := [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]:
        raise PlanError(
            f"{order.name}: its embeddings pass through {odd[0]}, which is not written here; give eland {folder}"
        )
    about = json.loads(pools.read_text("utf-8")) if pools.is_file() else {"pooling_mode_mean_tokens": True}
    ways = sorted(key for key, used in about.items() if key.startswith("pooling_mode_") and used is True)
    if len(ways) != 1 or ways[0] not in ("pooling_mode_mean_tokens", "pooling_mode_cls_token"):
        raise PlanError(
            f"{order.name}: its embeddings are made by {', '.join(ways)}; allowed: the mean, or the first token"
        )
    return Pooling(first=ways[0] == "pooling_mode_cls_token", normalized="Normalize" in kinds)
