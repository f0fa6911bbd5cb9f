"""Masked language modelling: which words are hidden, and behind what (arXiv 1810.04805, whole words since 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multistep.tasks.language.encode import SPECIAL_WORD, Ints, lots

HIDDEN = 0.15  # of the words
AS_MASK, AS_ANOTHER = 0.8, 0.1  # of the hidden tokens; the rest stay as they are
NO_LABEL = -100  # what torch's losses leave out


@dataclass(frozen=True)
class Masker:
    """Hides words of a batch. `ordinary` are the ids that a hidden token may be replaced by; `never` are not hidden."""

    mask: int
    ordinary: Ints
    never: tuple[int, ...]

    def __call__(self, tokens_BT: Ints, words_BT: Ints, seed: int, epochs_B: Ints, rows_B: Ints) -> tuple[Ints, Ints]:
        """The tokens with some hidden, and the labels: what stood there, -100 elsewhere (shapes: those of the tokens).

        Each word is drawn with a probability of 15%, all of its pieces with it; in each text at least one. It is a
        function of (seed, epoch, row) alone, whatever else is in the batch.
        """
        eligible = (words_BT != SPECIAL_WORD) & ~np.isin(tokens_BT, self.never)
        lot_BT = np.where(eligible, lots(seed, epochs_B, rows_B, np.maximum(words_BT, 0), 0), 2.0)
        lowest_B = lot_BT.min(1, keepdims=True)
        hidden = eligible & ((lot_BT < HIDDEN) | (lot_BT == lowest_B))
        places = np.broadcast_to(np.arange(tokens_BT.shape[1]), tokens_BT.shape)
        how_BT = lots(seed, epochs_B, rows_B, places, 1)
        other_BT = self.ordinary[(lots(seed, epochs_B, rows_B, places, 2) * len(self.ordinary)).astype(np.int64)]
        shown = np.where(how_BT < AS_MASK, self.mask, np.where(how_BT < AS_MASK + AS_ANOTHER, other_BT, tokens_BT))
        return np.where(hidden, shown, tokens_BT), np.where(hidden, tokens_BT, NO_LABEL)


def drop_words(
    tokens_BT: Ints, words_BT: Ints, mask: int, share: float, seed: int, epochs_B: Ints, rows_B: Ints
) -> Ints:
    """Tokens with a share of the words behind the mask: word dropout, as in deep averaging networks (ACL P15-1162)."""
    dropped: NDArray[np.bool_] = lots(seed, epochs_B, rows_B, np.maximum(words_BT, 0), 3) < share
    return np.where(dropped & (words_BT != SPECIAL_WORD), mask, tokens_BT)
