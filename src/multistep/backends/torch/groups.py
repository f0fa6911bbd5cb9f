"""What each parameter of a model is, and how far below the head it lies."""

from __future__ import annotations

from typing import Literal

from torch import nn

from multistep.backends.torch.muon import Matrix

Kind = Literal["matrix", "embedding", "head", "vector"]
FUSED = ("qkv", "c_attn", "in_proj", "Wqkv")  # weights that hold queries, keys and values, by usual names


def kinds(model: nn.Module) -> dict[str, tuple[Kind, Matrix]]:
    """What each trained parameter is. The rule, in order:

    the weight of an `nn.Embedding` is an embedding; the weight of the head (what `get_output_embeddings`
    returns, else the last `nn.Linear` in the module's order) is a head; what has fewer than two dimensions,
    or is a norm's, is a vector, and so are filters that each read one channel alone; the rest are matrices, a
    convolution's with its inputs flattened, cut by its groups. A fused query, key and value weight, three times as
    long as wide and named as usual, is cut in three.
    """
    modules = list(model.named_modules())
    asked = getattr(model, "get_output_embeddings", lambda: None)()
    head = asked or next((m for _, m in reversed(modules) if isinstance(m, nn.Linear)), None)
    found: dict[int, tuple[Kind, Matrix]] = {}
    for path, module in modules:
        for name, p in module.named_parameters(recurse=False):
            kind: Kind = "matrix"
            transposed = p.ndim == 2 and type(module).__name__ == "Conv1D"
            if isinstance(module, nn.Embedding):
                kind = "embedding"
            elif module is head and p.ndim > 1:
                kind = "head"
            elif p.ndim < 2 or "norm" in type(module).__name__.lower():
                kind = "vector"
            groups = getattr(module, "groups", 1) if p.ndim > 2 else 1
            if kind == "matrix" and groups > 1 and p.shape[1] == 1:
                kind = "vector"  # it maps no channel to another
            out, into = (p.shape[::-1] if transposed else p.shape) if p.ndim == 2 else (0, 0)
            fused = kind == "matrix" and out == 3 * into and any(f in f"{path}.{name}" for f in FUSED)
            found.setdefault(id(p), (kind, Matrix(3 if fused else groups if kind == "matrix" else 1, transposed)))
    return {name: found[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def layers_below_head(model: nn.Module) -> dict[str, int]:
    """How many layers each parameter lies below the head, by its name; embeddings lie lowest.

    A layer is what shares a name up to its first number (blocks.3, encoder.layer.2, layer1.0), in the module's
    order. What has no number goes with the layer after it, or with the head if there is none; a vector of the
    model's own, which torch names first wherever it is used, is the last norm. Source of the idea: 1801.06146.
    """
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    heights: dict[str, int] = {}
    layers: dict[str, int] = {}  # in order, counted from 1: the embeddings are 0
    waiting: list[str] = []
    for name, p in model.named_parameters():
        parts = name.split(".")
        number = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
        if id(p) in embeddings:
            heights[name] = 0
        elif number is None:
            waiting.append(name)
        else:
            height = layers.setdefault(".".join(parts[: number + 1]), len(layers) + 1)
            heights[name] = height
            # what comes before the first layer feeds it, as embeddings do
            mine = [n for n in waiting if "." in n or model.get_parameter(n).ndim > 1]
            heights.update(dict.fromkeys(mine, height if height > 1 else 0))
            waiting = [n for n in waiting if n not in mine]
    head = len(layers) + bool(waiting)  # a head within a sequence has a number of its own, and is the last layer
    heights.update(dict.fromkeys(waiting, head))
    return {name: head - height for name, height in heights.items()}
