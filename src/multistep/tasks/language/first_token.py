"""A BERT that is asked for one answer a text: its last layer need only work out the first token.

The head of a BERT reads nothing else. Of the last layer's twelve parts of work, keys and values of all tokens are two;
the rest is saved, five sixths of a BERT of one layer. The answer is the same but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

APPLIES_TO = "BertForSequenceClassification"


def reads_first_token(model: Any) -> bool:
    return type(model).__name__ == APPLIES_TO and not model.config.is_decoder and model.bert.pooler is not None


def first_token_logits(model: Any, tokens_BT: Tensor, inside_BT: Tensor, types_BT: Tensor) -> Tensor:
    """Logits (shape: texts, outputs) of a model that `reads_first_token`."""
    bert = model.bert
    x_BTD = bert.embeddings(input_ids=tokens_BT, token_type_ids=types_BT)
    # What is added to the attention's scores, in each of transformers' implementations: nothing, or all that there is.
    outside = (1.0 - inside_BT.to(x_BTD.dtype)) * torch.finfo(x_BTD.dtype).min
    mask_B11T = outside[:, None, None, :]
    *lower, last = bert.encoder.layer
    for layer in lower:
        x_BTD = layer(x_BTD, mask_B11T)
    first_B1D = x_BTD[:, :1]
    attention = last.attention.self
    shape = (len(x_BTD), -1, attention.num_attention_heads, attention.attention_head_size)
    query, key, value = (
        project(part).view(shape).transpose(1, 2)
        for project, part in ((attention.query, first_B1D), (attention.key, x_BTD), (attention.value, x_BTD))
    )
    dropped = attention.dropout.p if model.training else 0.0
    seen = F.scaled_dot_product_attention(query, key, value, mask_B11T.to(query.dtype), dropped)
    attended_B1D = last.attention.output(seen.transpose(1, 2).flatten(2), first_B1D)
    pooled_BD = bert.pooler(last.feed_forward_chunk(attended_B1D))
    logits: Tensor = model.classifier(model.dropout(pooled_BD))
    return logits
