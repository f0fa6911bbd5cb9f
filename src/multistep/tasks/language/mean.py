"""A BERT whose classifier reads the mean of all tokens instead of the first one, in the form that transformers has.

Sentence encoders are trained on that mean, and what they know stands there: logistic regression on it tells 0.81 of
SST-2's sentences, on the first token 0.73 (docs/appendix/measured-tasks.md). No BERT of transformers has a head that
reads it, but one more layer can: attention whose queries are zero looks at every token alike, and what it passes on is
the mean. All of the layer can be trained, and what comes out loads as any other BERT.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import torch

from multistep.tasks.pretrained.where import POOLING, file_beside

APPLIES_TO = "BertForSequenceClassification"
MARK = "multistep_mean_layer"  # in the configuration of what has one
LOUDER = 8.0  # times the mean, beside which the first token's own state, which a layer adds, counts little


def wants_mean(model: Any, fresh: tuple[str, ...], source: str) -> bool:
    """Whether a classifier's last layer is new, and its encoder was not trained to say a text by its first token."""
    if type(model).__name__ != APPLIES_TO or getattr(model.config, MARK, False) or model.config.is_decoder:
        return False
    if "classifier.weight" not in fresh:
        return False
    return not _pooling(source).get("pooling_mode_cls_token", False)


def _pooling(source: str) -> dict[str, Any]:
    """What a folder, or the hub where a model is from there, says of it; empty where nothing can be had."""
    path = file_beside(source, POOLING)
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def add_mean_layer(model: Any) -> None:
    """Add the layer, in place: its first token is the mean of the last layer's, its pooler passes that on."""
    layers, bert = model.bert.encoder.layer, model.bert
    layer = copy.deepcopy(layers[-1])
    attention = layer.attention
    attention.self.layer_idx = len(layers)
    with torch.no_grad():
        # Keys and the first half of the feed-forward layer stay, or neither half would ever get a gradient.
        for part in (attention.self.query, layer.output.dense):
            part.weight.zero_()
            part.bias.zero_()
        for part, scale in ((attention.self.value, 1.0), (attention.output.dense, LOUDER), (bert.pooler.dense, 1.0)):
            torch.nn.init.eye_(part.weight).mul_(scale)
            part.bias.zero_()
        for norm in (attention.output.LayerNorm, layer.output.LayerNorm):
            norm.weight.fill_(1.0)
            norm.bias.zero_()
    layers.append(layer)
    still(model)
    model.config.num_hidden_layers = len(layers)
    setattr(model.config, MARK, True)


def still(model: Any) -> None:
    """Have the added layer and the classifier drop nothing, in place.

    A last layer that was fitted on whole features is far off on half of them: with dropout the first steps had a loss
    of 1.03 instead of 0.31, and went into mending that.
    """
    for part in (model.bert.encoder.layer[-1], model.dropout):
        for module in part.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
