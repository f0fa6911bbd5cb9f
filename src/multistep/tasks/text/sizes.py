"""How large a language model from nothing should be for the compute and the text that there are.

The law of Hoffmann et al. (arXiv 2203.15556, their third approach) foresees the loss of a model by its parameters and
the tokens that it is trained on; that of Muennighoff et al. (arXiv 2305.16264) what tokens are worth that are read
again. Among the models of one compute, the one with the lowest loss is taken. bench/sizes.py holds that against what
was measured, from a minute on one core on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Loss above what no model can know, in nats a token: A / parameters**alpha + B / tokens**beta.
OF_PARAMETERS, ALPHA, OF_TOKENS, BETA = 406.4, 0.34, 410.7, 0.28
WORTH = 15.39  # epochs of new text that any number of epochs of the same text are worth at most, beside the first
PER_PARAMETER = 6.0  # operations in training, for each token: arXiv 2001.08361
STEPS = ((1024, 128), (512, 64), (256, 32), (0, 16))  # from one width to the next, from so wide on
NARROWEST, WIDEST, MOST_LAYERS = 32, 4096, 32
HEAD_WIDTHS = ((320, 64), (0, 32))  # of models from so wide on
# Parameters of the blocks that a text bears, whatever the compute, and more for each of its tokens: beyond them the law
# foresees next to nothing, and what a text is read for a hundred times is learnt by heart. Without dropout that comes
# sooner (docs/appendix/experiments.md).
BORNE_WITH_DROPOUT, BORNE = (1e5, 5.0), (2e5, 1.0)
# Bytes a parameter: weights, gradients, the optimizer's moments, averaged weights, and half of them for a look.
BYTES_A_PARAMETER, SHARE_OF_MEMORY = 24, 0.5


@dataclass(frozen=True)
class Shape:
    """A model's sizes; the feed-forward layer is four widths wide."""

    layers: int
    width: int
    heads: int
    context: int


@dataclass(frozen=True)
class Bearable:
    """What a model is chosen for: operations in training, tokens of training text, bytes of memory, and whether it may
    have dropout where the text is read often.
    """

    operations: float
    tokens: float
    memory: float = math.inf
    dropout: bool = True


def of_blocks(shape: Shape) -> int:
    return 12 * shape.layers * shape.width**2


def knowing(shape: Shape, vocabulary: int) -> float:
    """Parameters that the law is about: those of the blocks, and half of the head's.

    In small models with many tokens the head is most of what is trained. Counting none of it chose models that were too
    large (docs/how-to/budget.md); counting all of it would leave large vocabularies hardly any blocks.
    """
    return of_blocks(shape) + vocabulary * shape.width / 2


def operations_per_token(shape: Shape, vocabulary: int) -> float:
    """In training, with what attention takes."""
    head, attention = vocabulary * shape.width, shape.layers * shape.width * shape.context
    return PER_PARAMETER * (of_blocks(shape) + head + attention)  # looking a token up costs next to nothing


def worth(tokens: float, unique: float) -> float:
    """How many new tokens `tokens` are worth of which only `unique` are different: arXiv 2305.16264, equation 5.

    That paper has excess parameters count for less, too. Its constant would ask for 75,000 parameters for a megabyte of
    text, on which 1.6 million were no worse in five minutes than 0.3 million (docs/how-to/budget.md): left out.
    """
    if tokens <= unique:
        return tokens
    return unique * (1 + WORTH * (1 - math.exp(-(tokens / unique - 1) / WORTH)))


def foreseen(parameters: float, tokens: float) -> float:
    """The loss that a model is expected to have above the least possible, in nats a token of a text of the web."""
    return OF_PARAMETERS * math.pow(parameters, -ALPHA) + OF_TOKENS * math.pow(max(1.0, tokens), -BETA)


def best_shape(shapes: Sequence[Shape], bearable: Bearable, vocabulary: int) -> Shape:
    """The one of the lowest foreseen loss; the first if memory and text bear none."""

    def loss(shape: Shape) -> float:
        tokens = bearable.operations / operations_per_token(shape, vocabulary)
        return foreseen(knowing(shape, vocabulary), worth(tokens, bearable.tokens))

    least, a_token = BORNE_WITH_DROPOUT if bearable.dropout else BORNE
    by_text = least + a_token * bearable.tokens
    most = SHARE_OF_MEMORY * bearable.memory / BYTES_A_PARAMETER
    fitting = [s for s in shapes if all_parameters(s, vocabulary) <= most and of_blocks(s) <= by_text]
    return min(fitting or shapes[:1], key=loss)


def all_parameters(shape: Shape, vocabulary: int) -> int:
    return of_blocks(shape) + 2 * vocabulary * shape.width


def ladder(
    context: int, *, layers: int | None = None, width: int | None = None, heads: int | None = None
) -> Iterator[Shape]:
    """Shapes from small to large, with what is given as it is."""
    wide = width or NARROWEST
    while wide <= (width or WIDEST):
        yield Shape(layers or layers_for(wide), wide, heads or heads_for(wide), context)
        wide += next(step for least, step in STEPS if wide >= least)


def layers_for(width: int) -> int:
    """Wide and shallow where small: two layers train faster than four at the same size, up to a million parameters."""
    return max(2, min(MOST_LAYERS, round(math.pow(2 * math.pow(12 * width**2 / 8e5, 0.4), 1 / 0.6))))


def heads_for(width: int) -> int:
    """As many as divide the width into even parts of the usual size or more."""
    usual = next(size for least, size in HEAD_WIDTHS if width >= least)
    return max((h for h in range(1, max(2, width // usual + 1)) if width % (2 * h) == 0), default=1)
