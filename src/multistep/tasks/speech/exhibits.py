"""What is shown of a finished recogniser: some transcripts, the worst, and how each speaker fared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multistep.core.evidence.metric import Evaluation
from multistep.engine.learner import Exhibit
from multistep.tasks.speech.corpus import Clips, Ints

SHOWN, WORST = 8, 15
MOST_SPEAKERS = 40
NOTHING = "(nothing)"


def exhibits_of(clips: Clips, indices: Ints, heard: Sequence[str], table: Evaluation) -> list[Exhibit]:
    """The exhibits of a split's transcripts, the most telling first."""
    found = [_some(clips, indices, heard), _worst(clips, indices, heard, table)]
    if all(clips.speakers[i] is not None for i in indices):
        found.append(_by_speaker(clips, indices, table))
    return [exhibit for exhibit in found if exhibit.rows]


def _some(clips: Clips, indices: Ints, heard: Sequence[str]) -> Exhibit:
    places = dict.fromkeys(np.linspace(0, len(indices) - 1, min(SHOWN, len(indices))).astype(int).tolist())
    rows = tuple((clips.texts[indices[p]], heard[p] or NOTHING, Path(clips.names[indices[p]]).name) for p in places)
    return Exhibit("What it hears", columns=("said", "heard", "sound"), rows=rows)


def _worst(clips: Clips, indices: Ints, heard: Sequence[str], table: Evaluation) -> Exhibit:
    """Most characters wrong for their number, of those with errors; of equals, the one thought least likely."""
    columns = table.columns
    rate = columns["character_errors"] / np.maximum(columns["characters"], 1)
    order = np.lexsort((-columns["loss"], -rate))[:WORST]
    rows = tuple(
        (
            clips.texts[indices[p]],
            heard[p] or NOTHING,
            f"{int(columns['errors'][p])} of {int(columns['words'][p])}",
            f"{int(columns['character_errors'][p])} of {int(columns['characters'][p])}",
            clips.names[indices[p]],
        )
        for p in order
        if rate[p] > 0
    )
    return Exhibit(
        "Worst transcripts", columns=("said", "heard", "word errors", "character errors", "sound"), rows=rows
    )


def _by_speaker(clips: Clips, indices: Ints, table: Evaluation) -> Exhibit:
    """Error rates of each speaker, the worst first."""
    columns = table.columns
    speakers = np.array([str(clips.speakers[i]) for i in indices])
    found = []
    for speaker in np.unique(speakers):
        own = speakers == speaker
        sums = {name: float(columns[name][own].sum()) for name in ("errors", "words", "character_errors", "characters")}
        word_rate, character_rate = sums["errors"] / sums["words"], sums["character_errors"] / sums["characters"]
        found.append((word_rate, (str(speaker), f"{word_rate:.3f}", f"{character_rate:.3f}", str(int(own.sum())))))
    found.sort(key=lambda pair: -pair[0])
    title = "By speaker" + (f", the worst {MOST_SPEAKERS} of {len(found)}" if len(found) > MOST_SPEAKERS else "")
    columns_shown = ("speaker", "word error rate", "character error rate", "utterances")
    return Exhibit(title, columns=columns_shown, rows=tuple(row for _, row in found[:MOST_SPEAKERS]))
